"""Which job comes next: what an earlier runner has left, what is run again, and then the plan."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from ..executors.base import Todo
from ..language.keys import Keys
from ..language.plan import Plan
from ..model import Outcome, Status
from .resume import Survey


class Todos:
    """The jobs of one run that are still to be brought to their end, made one by one."""

    def __init__(self, plan: Plan, survey: Survey, *, is_ending: bool = False) -> None:
        self._survey = survey
        self._first = deque(survey.taken_up)
        self._plan = iter(()) if is_ending else self._of_plan(plan)
        self.is_full = False
        """Whether nothing more is started, because the disk is full. What is taken up still is."""

    def next(self) -> Todo | None:
        """The next job; None if there is none now. What runs may still come again.

        Blocks where many jobs need not run: ask in a worker thread if `may_block`.
        """
        while self._first:
            todo = self._first.popleft()
            if not self.is_full or todo.is_taken_up:
                return todo
        return None if self.is_full else next(self._plan, None)

    @property
    def may_block(self) -> bool:
        return bool(self._survey.settled)

    def add_again(self, todo: Todo) -> None:
        """Puts a job first that is to be started anew."""
        self._first.appendleft(todo)

    def _of_plan(self, plan: Plan) -> Iterator[Todo]:
        keys = Keys(plan.place)
        for index, job in enumerate(plan.jobs):
            key = keys.key(job)
            if key not in self._survey.settled:
                attempt = self._survey.attempts.get(key, 0) + 1
                yield Todo(index=index, job=job, key=key, attempt=attempt)


def comes_to_nothing(todo: Todo, outcome: Outcome) -> bool:
    """Whether the job of an earlier runner has to be started anew, going by how it ended."""
    has_failed = outcome.status is Status.FAILED
    return outcome.status is Status.LOST or (todo.rerun_failed and has_failed)


def anew(todo: Todo, *, was_begun: bool) -> Todo:
    """The same job, to be started as a new experiment."""
    attempt = todo.attempt + was_begun
    return replace(todo, attempt=attempt, leftover=None, is_taken_up=False, again=False)
