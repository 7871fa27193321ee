"""The state of the code while a run goes on: git is asked again when it may have changed."""

from __future__ import annotations

import os
import threading
import time

from ..language.plan import Plan
from ..model import Job
from .git import INTERVAL, MAX_SHARE, Git, read_git, signature, top_of


class Code:
    """The state of the code in the working directory of a run, as its jobs start.

    git is asked again when HEAD, the index or the script has changed, and every `INTERVAL` seconds
    for the other tracked files. Scripts are told apart, since one may be in no commit.
    """

    def __init__(self, plan: Plan, limit: float) -> None:
        self._plan = plan
        self._limit = limit
        self._top = top_of(plan.working_directory)
        self._lock = threading.Lock()
        self._known: dict[str | None, tuple[float, tuple[object, ...], Git]] = {}
        first = next(iter(plan.jobs), None)
        self.latest = self._ask(_script(plan, first) if first is not None else None)

    def now(self, job: Job) -> Git:
        """The state with which a job starts. Blocks for as long as git takes, if it is asked."""
        if self._top is None:
            return self.latest
        script = _script(self._plan, job)
        with self._lock:
            known = self._known.get(script)
            if known is not None:
                until, seen, git = known
                if time.monotonic() < until and seen == signature(self._top, script):
                    return git
            return self._ask(script)

    def _ask(self, script: str | None) -> Git:
        began = time.monotonic()
        plan = self._plan
        # Before git is asked: what is changed meanwhile is seen by the next job
        seen = signature(self._top, script) if self._top is not None else ()
        self.latest = read_git(plan.working_directory, plan.experiments, self._limit, script)
        ended = time.monotonic()
        until = ended + max(INTERVAL, (ended - began) / MAX_SHARE)
        self._known[script] = (until, seen, self.latest)
        return self.latest


def _script(plan: Plan, job: Job) -> str | None:
    """The file that the script word of a job stands for, also behind `-m`; None if it is none."""
    word = job.argv[job.position]
    path = f"{plan.working_directory}/{word}" if not word.startswith("/") else word
    paths = [path]
    if job.argv[job.position - 1] == "-m":
        module = f"{plan.working_directory}/{word.replace('.', '/')}"
        paths = [f"{module}.py", f"{module}/__main__.py"]
    return next((each for each in paths if os.path.isfile(each)), None)
