"""`nox` runs the tests on every Python that is there, the linter and the type checker; `nox -s faults` the long fault matrix.

`nox -s bench` measures Hermes side by side with others.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess

import nox

nox.needs_version = ">=2024.10"
nox.options.sessions = ["tests", "lint", "types"]
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.11", "3.12", "3.13"]


def select_pyenv_versions() -> None:
    """Shims of pyenv are on PATH for all its versions, but start only those that are selected: select all that are wanted here."""
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


def install(session: nox.Session, *groups: str) -> None:
    session.install(
        "-q",
        "-e",
        ".",
        *nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), *groups),
    )


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The test suite; arguments go to pytest.

    The faults of a real cluster are caused under the oldest Python alone, for they take a minute; the contract that both executors keep is
    tested under all.
    """
    install(session, "test")
    elsewhere = (
        [] if session.python == PYTHONS[0] or session.posargs else ["--ignore=tests/test_slurm.py"]
    )
    session.run("python", "-m", "pytest", *elsewhere, *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """The fault matrix with its long figures: takes half an hour. Says how often each fault was caused, and what does not hold."""
    install(session, "test")
    session.run(
        "python",
        "-m",
        "pytest",
        "-m",
        "fault or cluster",
        *session.posargs,
        env={"HERMES_LONG_TESTS": "1"},
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy in strict mode over hermes, tests and benchmarks."""
    install(session, "types", "test")
    session.run("mypy")


@nox.session
def bench(session: nox.Session) -> None:
    """Measures Hermes side by side with others, which are installed if that is possible; arguments go to `python -m benchmarks`.

    Takes a quarter of an hour; `nox -s bench -- --smoke` a minute, to see that it works.
    """
    install(session, "bench")
    install_debian_peers(session)
    session.run(
        "python",
        "-m",
        "benchmarks",
        *session.posargs,
        env={"HERMES_BENCH_RLMATE": install_rlmate(session)},
    )


DEBIAN_PEERS = {
    "parallel": "parallel",
    "tsp": "task-spooler",
    "parallel.moreutils": "moreutils",
    "xargs": "findutils",
}
"""Which package has which command."""

RLMATE = ["rlmate==0.3.1", "torch==2.13.0", "numpy<2", "setuptools<81"]
"""What pip has to be told so that rlmate starts: its pandas needs the old numpy, its scheduler `pkg_resources`."""


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


def install_rlmate(session: nox.Session) -> str:
    """The path of its command, in an environment of its own that is kept: it is called `hermes` too, and brings 1 GB along."""
    folder = session.cache_dir.resolve() / f"rlmate-{platform.python_version()}"
    command = folder / "bin" / "hermes"
    if not command.exists():
        session.run("python", "-m", "venv", str(folder))
        session.run(
            str(folder / "bin" / "pip"),
            "install",
            "-q",
            *RLMATE,
            external=True,
            success_codes=range(256),
        )
    return str(command)
