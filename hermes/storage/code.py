"""The state of the code while a run goes on.

git tells the commit before the first job. All else it tells in the background while jobs start, and
it is asked again when the code may have changed: no start of a job waits for it.
"""

from __future__ import annotations

import math
import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from ..language.plan import Plan
from ..model import Job
from .asking import Patience, give, given
from .files import write_atomic
from .git import (
    INTERVAL,
    MAX_SHARE,
    UNKNOWN,
    Git,
    Signature,
    folder_of,
    read_commit,
    read_git,
    top_of,
)
from .layout import PATCH
from .metadata import GitState

AT_ONCE = 2
"""So often git is asked at the same time, for jobs of different scripts."""

NO_REPOSITORY = Git(GitState(reason="not a git repository"))

NOT_YET = "git has not told the rest yet"
MAY_HAVE_CHANGED = "the code may have changed before git told"
NOT_ASKED = "git could not be asked"


class _Answer(NamedTuple):
    """`has_changed` says that the signature has, since the first job that shares this answer."""

    git: Git
    has_changed: bool = False


class _Question(msgspec.Struct, eq=False):
    """What git is asked, for all jobs that start with the same signature."""

    seen: Signature
    answer: Future[_Answer]
    until: float = math.inf
    """When the answer is too old for further jobs, by the monotonic clock."""


class CodeAtStart:
    """The state of the code with which one job starts: known, or being asked for."""

    def __init__(self, so_far: Git, answer: Future[_Answer]) -> None:
        self._so_far = so_far
        self._answer = answer
        self._start = time.time_ns()

    @classmethod
    def known(cls, git: Git) -> CodeAtStart:
        return cls(git, given(_Answer(git)))

    @property
    def is_known(self) -> bool:
        return self._answer.done()

    @property
    def so_far(self) -> Git:
        """What is known by now."""
        return self.git if self.is_known else self._so_far.with_reason(NOT_YET)

    @property
    def git(self) -> Git:
        """All of it. Waits for it."""
        answer = self._answer.result()
        if answer.has_changed or answer.git.edited > self._start:
            return answer.git.with_reason(MAY_HAVE_CHANGED)
        return answer.git

    def wait(self) -> None:
        """Returns when git has told it, or is waited for no longer."""
        self._answer.result()


class Code:
    """The code in the working directory of a run, as its jobs start.

    git is asked again when HEAD, the index or the script has changed, and every `INTERVAL` seconds
    for the other tracked files. Scripts are told apart, since one may be in no commit.
    """

    def __init__(self, plan: Plan, limit: float) -> None:
        self._plan = plan
        self._limit = limit
        self._lock = threading.Lock()
        self._asked: dict[str | None, _Question] = {}
        self._threads = ThreadPoolExecutor(AT_ONCE, "hermes-git")
        self._is_closed = threading.Event()
        self.commit = NO_REPOSITORY
        """The commit as the run began, and why there is none."""

        self.begun = CodeAtStart.known(NO_REPOSITORY)
        """The state as the run began, with the script of its first job."""

        self._top = top_of(plan.working_directory)
        if self._top is not None:
            self._folder = folder_of(self._top)
            first = next(iter(plan.jobs), None)
            script = script_of(plan, first) if first is not None else None
            # Before git is asked: what changes meanwhile is seen then
            self._seen = Signature.now(self._folder, script)
            self.commit = read_commit(self._top, Patience(limit, self._is_closed))
            self.begun = self._at_start(script, self._seen, self.commit)

    def at_start(self, job: Job) -> CodeAtStart:
        """The state with which a job starts. Does not wait for git."""
        if self._top is None:
            return self.begun
        script = script_of(self._plan, job)
        return self._at_start(script, Signature.now(self._folder, script))

    def kept_as_begun(self, folder: str) -> Git:
        """The state as the run began, whose patch is put into a folder. Waits for git."""
        git = self.begun.git
        if git.patch is None:
            return git
        try:
            write_atomic(f"{folder}/{PATCH}", git.patch, sync=False)
        except OSError as exc:
            return git.with_reason(f"the patch could not be written: {exc.strerror}")
        return git

    def close(self) -> None:
        """Waits for nothing more: what git has not told by now stays unknown."""
        self._is_closed.set()
        self._threads.shutdown(wait=False)

    def _at_start(
        self, script: str | None, seen: Signature, commit: Git | None = None
    ) -> CodeAtStart:
        so_far = self.commit if seen.repository == self._seen.repository else UNKNOWN
        with self._lock:
            question = self._asked.get(script)
            if question is None or question.seen != seen or time.monotonic() > question.until:
                question = self._ask(script, seen, commit)
        return CodeAtStart(so_far, question.answer)

    def _ask(self, script: str | None, seen: Signature, commit: Git | None) -> _Question:
        question = self._asked[script] = _Question(seen, Future())
        try:
            self._threads.submit(self._answer, question, script, commit)
        except RuntimeError:
            # The system has no thread to give, or the interpreter ends
            question.until = 0.0
            give(question.answer, _Answer(self.commit.with_reason(NOT_ASKED)))
        return question

    def _answer(self, question: _Question, script: str | None, commit: Git | None) -> None:
        began = time.monotonic()
        git = (commit or UNKNOWN).with_reason(NOT_ASKED)
        try:
            git = self._git(script, commit)
        except (RuntimeError, MemoryError):
            # No thread, as above, or changes without bounds
            pass
        finally:
            ended = time.monotonic()
            question.until = ended + max(INTERVAL, (ended - began) / MAX_SHARE)
            has_changed = Signature.now(self._folder, script) != question.seen
            give(question.answer, _Answer(git, has_changed))

    def _git(self, script: str | None, commit: Git | None) -> Git:
        assert self._top is not None
        if commit is None:
            commit = read_commit(self._top, Patience(self._limit, self._is_closed))
        if commit.state.commit is None:
            return commit
        return read_git(
            self._top,
            commit.state.commit,
            Patience(self._limit, self._is_closed),
            working_directory=self._plan.working_directory,
            experiments=self._plan.experiments,
            script=script,
        )


def script_of(plan: Plan, job: Job) -> str | None:
    """The file that the script word of a job stands for, also behind `-m`; None if it is none."""
    word = job.argv[job.position]
    path = f"{plan.working_directory}/{word}" if not word.startswith("/") else word
    paths = [path]
    if job.argv[job.position - 1] == "-m":
        module = f"{plan.working_directory}/{word.replace('.', '/')}"
        paths = [f"{module}.py", f"{module}/__main__.py"]
    return next((each for each in paths if os.path.isfile(each)), None)
