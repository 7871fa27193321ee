"""`nox` runs the tests on every Python that is there, the linter and the type checker; `nox -s faults` the long fault matrix.

`nox -s bench` is a smoke run of the benchmarks.
"""

from __future__ import annotations

import os
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
        installed = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True, check=False).stdout.split()
        wanted = [version for version in installed if version.startswith(tuple(f"{python}." for python in PYTHONS))]
        if wanted:
            os.environ["PYENV_VERSION"] = ":".join(wanted)


select_pyenv_versions()


def install(session: nox.Session, *groups: str) -> None:
    session.install("-q", "-e", ".", *nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), *groups))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The test suite; arguments go to pytest."""
    install(session, "test")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """The fault matrix with its long figures: takes half an hour. Says how often each fault was caused, and what does not hold."""
    install(session, "test")
    session.run("python", "-m", "pytest", "-m", "fault", *session.posargs, env={"HERMES_LONG_TESTS": "1"})


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
    """A short run of the benchmarks, to see that they work; `python -m benchmarks` measures."""
    install(session, "bench")
    session.run("python", "-m", "benchmarks", "--smoke", *session.posargs)
