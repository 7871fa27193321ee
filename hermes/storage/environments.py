"""The Python that executes jobs, and its packages: asked once a run, while the first jobs run.

Packages are kept by their content, so all runs with the same ones share one file.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import msgspec

from ..errors import escape
from ..language.pythons import interpreter_of, is_python, of_first_line
from ..model import Job
from . import layout
from .asking import Patience, ask, give, given
from .files import write_atomic
from .metadata import Environment, Packages, encoded

FIRST_LINE = 256
"""Bytes of a script in which its interpreter is looked for."""

QUESTION = """
import sys
# What stands beside the caller must not be imported in place of Python's own
sys.path[:] = [path for path in sys.path if path]
import io, json, os, platform

def value_of(path, name):
    for each in (path, os.path.join(path, "PKG-INFO")):
        if os.path.isfile(each):
            with io.open(each, encoding="utf-8", errors="replace") as file:
                for line in file:
                    if line.lower().startswith(name):
                        return line.partition(":")[2].strip()
    return ""

packages, imports = {}, list(sys.path)
for folder in sys.path:
    # What is found first is what is imported
    for entry in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        stem, kind = os.path.splitext(entry)
        if stem.startswith("__editable__") and kind == ".py":
            # Finds packages that are installed where they are developed
            with io.open(os.path.join(folder, entry), encoding="utf-8", errors="replace") as file:
                imports += file.read().partition("MAPPING")[2].partition("\\n")[0].split("'")
        if kind not in (".dist-info", ".egg-info"):
            continue
        name, _, version = stem.partition("-")
        if kind == ".egg-info":
            path = os.path.join(folder, entry)
            version = value_of(path, "version:") or version.partition("-py")[0]
        packages.setdefault(name, version)
print("")
print(json.dumps({
    "python": platform.python_version(),
    "implementation": platform.python_implementation(),
    "interpreter": sys.executable,
    "packages": packages,
    "imports": imports,
}))
"""
"""For any Python since 2.7. The names of the folders are read and no metadata in them, which is
seven times faster than `importlib.metadata` is (15 ms with 85 packages)."""


class _Told(msgspec.Struct):
    """What an interpreter says of itself."""

    python: str
    implementation: str
    interpreter: str
    packages: dict[str, str]
    imports: list[str]


class PythonOfJob(NamedTuple):
    """`version` is the Python's, as its `platform.python_version()` tells it. `imports` are the
    folders from which it imports, among other texts."""

    version: str | None
    environment: Environment | None
    imports: tuple[str, ...] = ()


NO_PYTHON = PythonOfJob(None, None)
NOT_ASKED = "the interpreter could not be asked"
NOT_YET = "the interpreter has not told its packages yet"


class Environments:
    """The Pythons of the jobs of one run.

    `variables` are the environment of its jobs, `find` gives the path of a program as jobs find
    it, `limit` is how many seconds an answer is waited for.
    """

    def __init__(
        self, experiments: str, working_directory: str, variables: Mapping[bytes, bytes],
        find: Callable[[str], str | None], limit: float,
    ) -> None:  # fmt: skip
        self._experiments = experiments
        self._working_directory = working_directory
        self._variables = variables
        self._find = find
        self._limit = limit
        self._lock = threading.Lock()
        self._known: dict[str, str | None] = {}
        self._asked: dict[str, Future[PythonOfJob]] = {}
        self._threads = ThreadPoolExecutor(1, "hermes-python")
        self._is_closed = threading.Event()

    def at_start(self, job: Job) -> Future[PythonOfJob]:
        """The Python that executes a job. Waits for nothing."""
        word, chosen_by = interpreter_of(job.argv)
        path = self._python(word) if word is not None else None
        if path is not None:
            with self._lock:
                return self._asked.get(path) or self._ask(path)
        if chosen_by is None:
            return given(NO_PYTHON)
        reason = f"`{escape(chosen_by)}` chooses the Python"
        return given(PythonOfJob(None, Environment(reason=reason)))

    def close(self) -> None:
        """Waits for nothing more."""
        self._is_closed.set()
        self._threads.shutdown(wait=False)

    def _python(self, word: str) -> str | None:
        """The path of the Python that a program is, or whose script it is. Looked for once."""
        if word not in self._known:
            path = self._find(word)
            named = of_first_line(_first_line(path)) if path and not is_python(word) else word
            self._known[word] = path if named == word else named and self._find(named)
        return self._known[word]

    def _ask(self, path: str) -> Future[PythonOfJob]:
        answer = self._asked[path] = Future()
        try:
            self._threads.submit(self._answer, path, answer)
        except RuntimeError:
            # The system has no thread to give, or the interpreter ends
            give(answer, _unknown(path, NOT_ASKED))
        return answer

    def _answer(self, path: str, answer: Future[PythonOfJob]) -> None:
        found = _unknown(path, NOT_ASKED)
        try:
            found = self._ask_now(path)
        except (RuntimeError, MemoryError):
            # No thread, as above
            pass
        finally:
            give(answer, found)

    def _ask_now(self, path: str) -> PythonOfJob:
        answer = ask(
            [path, "-c", QUESTION],
            Patience(self._limit, self._is_closed),
            name="the interpreter",
            folder=self._working_directory,
            environment=self._variables,
        )
        if answer.failed is not None:
            return _unknown(path, answer.failed)
        lines = answer.output.strip().splitlines()
        try:
            told = msgspec.json.decode(lines[-1] if lines else b"", type=_Told)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _unknown(path, "the interpreter does not tell its packages")
        packages = Packages(
            python=told.python,
            implementation=told.implementation,
            packages=dict(sorted(told.packages.items())),
        )
        digest, reason = None, None
        try:
            digest = self._keep(packages)
        except OSError as exc:
            reason = f"the packages could not be written: {exc.strerror}"
        found = Environment(interpreter=told.interpreter or path, digest=digest, reason=reason)
        return PythonOfJob(told.python, found, tuple(told.imports))

    def _keep(self, packages: Packages) -> str:
        """Puts them where all runs find them, and returns by what. Raises `OSError`."""
        data = encoded(packages)
        digest = hashlib.sha256(data).hexdigest()[:16]
        path = layout.environment_file(self._experiments, digest)
        if not os.path.exists(path):
            folder = os.path.dirname(path)
            for each in (os.path.dirname(folder), folder):
                # Nothing above them: a job that is replacing `experiments` must not find one
                with suppress(FileExistsError):
                    os.mkdir(each)
            write_atomic(path, data, sync=False)
        return digest


def _unknown(path: str, reason: str) -> PythonOfJob:
    return PythonOfJob(None, Environment(interpreter=path, reason=reason))


def _first_line(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.readline(FIRST_LINE)
    except OSError:
        return b""
