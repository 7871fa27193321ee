"""Which job comes next: what an earlier runner has left, what is run again, and then the plan."""

from __future__ import annotations

import heapq
import math
import time
from collections import Counter, deque
from collections.abc import Iterator
from enum import Enum
from itertools import chain

from msgspec.structs import replace

from ..executors.base import Todo
from ..language.keys import Keys
from ..language.plan import Plan
from ..model import Outcome, Status
from .survey import Reason, Survey

SLICE = 0.05
"""Seconds after which a search through a large plan lets others go on, and may be cancelled."""


class Pending(Enum):
    """Stands for a job that is not found yet."""

    PENDING = "pending"


PENDING = Pending.PENDING


class Todos:
    """The jobs of one run that are still to be brought to their end, made one by one."""

    def __init__(self, plan: Plan, survey: Survey, *, is_ending: bool = False) -> None:
        self._survey = survey
        self._first = deque(survey.taken_up)
        self._count_later = 0
        self._keys, self._count_made = Keys(plan.place), 0
        self._plan: Iterator[Todo | Pending] = iter(())
        for part in () if is_ending else plan.parts:
            self.extend(part)
        self.passed: Counter[Reason] = Counter()
        """Jobs of the plan that were not started, so far."""

        self.left_alone: list[str] = []
        """Identifiers of experiments whose jobs may be alive, and so were not started."""

        self.is_closed = False
        """Whether nothing more is started. What is taken up still is brought to its end."""

        self._later: list[tuple[float, int, Todo]] = []
        """A heap of jobs that wait until a time, by the monotonic clock and the order of coming."""

    def next(self) -> Todo | Pending | None:
        """The next job; None if there is none now. What runs may still come again.

        `PENDING` if none was found in a while: then ask again. Blocks where jobs need not run: ask
        in a worker thread if `may_block`.
        """
        while self._first:
            todo = self._first.popleft()
            if not self.is_closed or todo.is_taken_up:
                return todo
        if self.is_closed:
            return None
        return heapq.heappop(self._later)[-1] if self.pause <= 0 else next(self._plan, None)

    @property
    def pause(self) -> float:
        """Seconds until a job that waits may start; infinite if there is none."""
        return (
            math.inf if self.is_closed or not self._later else self._later[0][0] - time.monotonic()
        )

    @property
    def may_block(self) -> bool:
        return bool(self._survey.settled)

    def extend(self, part: Plan) -> None:
        """Adds the jobs of a part of the plan behind all others."""
        self._plan = chain(self._plan, self._of_plan(part))

    def pass_by(self, reason: Reason) -> None:
        """Counts a job that is not started."""
        self.passed[reason] += 1

    def add_again(self, todo: Todo) -> None:
        """Puts a job first that is to be started anew."""
        self._first.appendleft(todo)

    def add_later(self, todo: Todo, pause: float) -> None:
        """Has a job started in so many seconds."""
        self._count_later += 1
        heapq.heappush(self._later, (time.monotonic() + pause, self._count_later, todo))

    def _of_plan(self, plan: Plan) -> Iterator[Todo | Pending]:
        settled = self._survey.settled
        ends = time.monotonic() + SLICE
        for job in plan.jobs:
            key = self._keys.key(job)
            index, self._count_made = self._count_made, self._count_made + 1
            reason = settled.get(key)
            if reason is None:
                attempt = self._survey.attempts.get(key, 0) + 1
                failures = self._survey.failures.get(key, 0)
                yield Todo(index=index, job=job, key=key, attempt=attempt, failures=failures)
                ends = time.monotonic() + SLICE
                continue
            self.pass_by(reason)
            if reason is Reason.UNKNOWN:
                self.left_alone.append(self._survey.may_be_alive[key])
            if time.monotonic() > ends:
                yield PENDING
                ends = time.monotonic() + SLICE


def comes_to_nothing(todo: Todo, outcome: Outcome) -> bool:
    """Whether the job of an earlier runner has to be started anew, going by how it ended."""
    if outcome.status is Status.FAILED:
        return todo.rerun_failed
    return outcome.status in (Status.LOST, Status.CANCELLED)


def anew(todo: Todo, *, was_begun: bool, has_failed: bool = False) -> Todo:
    """The same job, to be started as a new experiment."""
    return replace(
        todo,
        attempt=todo.attempt + was_begun,
        failures=todo.failures + has_failed,
        leftover=None,
        is_taken_up=False,
        again=False,
    )
