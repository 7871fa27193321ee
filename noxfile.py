"""`nox` runs the tests on every Python that is there, the linter and the type checker.

The other sessions run by name, such as `nox -s cover`; `nox -l` lists them all.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2024.10"
nox.options.sessions = ["tests", "lint", "types"]
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.11", "3.12", "3.13"]

ONCE = (
    *("query", "show", "test_layers.py", "test_programs.py"),
    *("cli/test_co*.py", "cli/test_cr*.py", "cli/test_errors.py", "cli/test_help.py"),
    *("cli/test_exp*.py", "cli/test_l*.py", "cli/test_output.py", "cli/test_p*.py"),
    *("cli/test_re[pr]*.py", "cli/test_rm.py", "cli/test_sh*.py"),
)
"""Folders and files of tests that run under the first Python alone: what they test is text, and
what takes its time in them is the start of a thousand processes."""

TWICE = ("cli", "language", "storage", "test_layers.py", "test_model.py", "test_readme.py")
"""Folders and files of tests that run under the first and the last Python, and not between them:
what holds under both does so there too, but for what depends on asyncio."""


def selected(python: str) -> list[str]:
    """The options that select the tests for a Python: all under the first."""
    if python == PYTHONS[0]:
        return []
    left_out = ONCE if python == PYTHONS[-1] else ONCE + TWICE
    return [
        *("-m", "not cluster and not once and (not fault or every_python)"),
        *(f"--ignore-glob=tests/{path}" for path in left_out),
    ]


PYPROJECT = nox.project.load_toml("pyproject.toml")


def select_pyenv_versions() -> None:
    """Selects all versions of pyenv that are wanted here.

    The shims of pyenv are on PATH for all its versions, but start only those that are selected.
    """
    if shutil.which("pyenv") and "PYENV_VERSION" not in os.environ:
        installed = subprocess.run(
            ["pyenv", "versions", "--bare"], capture_output=True, text=True, check=False
        ).stdout.split()
        wanted = [
            version
            for version in installed
            if version.startswith(tuple(f"{python}." for python in PYTHONS))
        ]
        if wanted:
            os.environ["PYENV_VERSION"] = ":".join(wanted)


select_pyenv_versions()


def install(session: nox.Session, *groups: str, exactly: tuple[str, ...] = ()) -> None:
    """Installs Hermes from this folder, these dependency groups and `exactly` these versions."""
    packages = nox.project.dependency_groups(PYPROJECT, *groups)
    # Most of what is installed is never imported, so that to compile it takes as long as the rest
    session.install("-q", "--no-compile", "-e", ".", *packages, *exactly)


def pytest(
    session: nox.Session, *arguments: str, environment: dict[str, str] | None = None
) -> None:
    # A thousand processes import Hermes: it is compiled once, also where the user writes no `.pyc`
    compiled = {"PYTHONDONTWRITEBYTECODE": None}
    env = {**compiled, **(environment or {})}
    session.run("python", "-m", "pytest", *arguments, *session.posargs, env=env)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The test suite; arguments go to pytest.

    What takes long and does not depend on the Python, such as full disks and the faults of a real
    cluster, is tested under the oldest alone. The contract that all executors keep, signals and
    hosts are tested under all Pythons.
    """
    # The figures do not depend on the Python, and what draws them has 40 MB
    plots = ["plots"] if session.python == PYTHONS[0] else []
    install(session, "test", *plots)
    pytest(session, *([] if session.posargs else selected(str(session.python))))


@nox.session
def faults(session: nox.Session) -> None:
    """The fault matrix with its long figures: takes ten minutes.

    Tells how often each fault was caused, and which rows do not hold.
    """
    install(session, "test")
    pytest(session, "-m", "fault or cluster", environment={"HERMES_LONG_TESTS": "1"})


@nox.session
def cover(session: nox.Session) -> None:
    """How much of `hermes` the tests execute, in its processes too; fails below 90 %."""
    install(session, "test", "plots", "cover")
    # A temporary folder of the session would be that of the tests too, inside of this repository
    environment = {"COVERAGE_FILE": str(session.cache_dir.resolve() / "coverage")}
    coverage = ("python", "-m", "coverage")
    session.run(*coverage, "erase", env=environment)
    # Whether tests pass is what `tests` finds out: measured, all is slower
    run = (*coverage, "run", "-m", "pytest", *session.posargs)
    session.run(*run, env=environment, success_codes=[0, 1])
    session.run(*coverage, "combine", "-q", env=environment)
    session.run(*coverage, "report", env=environment)


@nox.session(python=PYTHONS[0])
def minimums(session: nox.Session) -> None:
    """The quick tests with the lowest versions that pyproject.toml allows."""
    lowest = tuple(map(lowest_version, PYPROJECT["project"]["dependencies"]))
    session.log("lowest versions: %s", ", ".join(lowest))
    install(session, "test", exactly=lowest)
    pytest(session, "-m", "not fault and not cluster")


def lowest_version(dependency: str) -> str:
    """`anyio==4.15` of `anyio>=4.15`; one without a lower bound is an error."""
    requirement = Requirement(dependency)
    (lowest,) = (each.version for each in requirement.specifier if each.operator in (">=", "=="))
    return f"{requirement.name}=={lowest}"


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy in strict mode over hermes, tests and benchmarks."""
    install(session, "types", "test", "plots")
    session.run("mypy")


@nox.session
def bench(session: nox.Session) -> None:
    """Measures Hermes side by side with others; arguments go to `python -m benchmarks`.

    Installs the others if that is possible, and takes a quarter of an hour. `nox -s bench --
    --smoke` takes a minute to see that it works, and installs nothing that is large.
    """
    install(session, "bench")
    environment = {}
    if "--smoke" not in session.posargs:
        install_debian_peers(session)
        for program, packages in APART.items():
            variable = f"HERMES_BENCH_{packages[0].partition('=')[0].upper()}"
            environment[variable] = install_apart(session, program, packages)
    session.run("python", "-m", "benchmarks", *session.posargs, env=environment)


DEBIAN_PEERS = {
    "parallel": "parallel",
    "tsp": "task-spooler",
    "parallel.moreutils": "moreutils",
    "xargs": "findutils",
}
"""Which package has which command."""

APART = {
    # Its pandas needs the old numpy, its scheduler `pkg_resources`. It brings 1 GB along
    "hermes": ["rlmate==0.3.1", "torch==2.13.0", "numpy<2", "setuptools<81"],
    "mlflow": ["mlflow"],
    "guild": ["guildai", "setuptools<80"],
    "tensorboard": ["tensorboard", "setuptools<81"],
}
"""The commands of peers that cannot share our environment, and what starts them; rlmate's is called
as ours is."""


def install_debian_peers(session: nox.Session) -> None:
    """As far as that is possible: the benchmarks name those that are absent."""
    missing = sorted(
        {package for program, package in DEBIAN_PEERS.items() if not shutil.which(program)}
    )
    if missing and shutil.which("apt-get") and os.geteuid() == 0:
        for words in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            session.run(
                "apt-get",
                "-q",
                *words,
                external=True,
                silent=True,
                success_codes=range(256),
                env={"DEBIAN_FRONTEND": "noninteractive"},
            )


def install_apart(session: nox.Session, program: str, packages: list[str]) -> str:
    """The path of a command, in an environment of its own, which is kept."""
    name = packages[0].partition("=")[0]
    folder = session.cache_dir.resolve() / f"{name}-{platform.python_version()}"
    command = folder / "bin" / program
    if not command.exists():
        session.run("python", "-m", "venv", str(folder))
        session.run(
            str(folder / "bin" / "pip"),
            "install",
            "-q",
            *packages,
            external=True,
            success_codes=range(256),
        )
    return str(command)
