"""An executor without processes that does whatever a test says, also what none does by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hermes.executors.base import OpenRun, Slot, Todo
from hermes.executors.fake import Behaviour, FakeExecutor, FakeJob, FakePlace, succeed
from hermes.model import Outcome


class ScriptedExecutor(FakeExecutor):
    """`before(todo)` is called before an experiment is made, and may raise `NotBegunError`.
    `after(outcome)` gives the outcome that the runner sees. `run` and `todos` are what the runner
    has given.
    """

    def __init__(
        self,
        behave: Behaviour = succeed,
        *,
        before: Callable[[Todo], object] = lambda todo: None,
        after: Callable[[Outcome], Outcome] = lambda outcome: outcome,
        left: int = 0,
    ) -> None:
        super().__init__(behave)
        self.before = before
        self.after = after
        self.left = left
        self.behave = behave
        self.todos: list[Todo] = []
        self.killed = 0
        self.run: OpenRun | None = None

    @asynccontextmanager
    async def opened(self, run: OpenRun) -> AsyncIterator[FakePlace]:
        self.run = run
        yield _ScriptedPlace(self, run)


class _ScriptedPlace(FakePlace):
    def __init__(self, executor: ScriptedExecutor, run: OpenRun) -> None:
        super().__init__(run, executor.behave, run.plan.settings.threads)
        self.left = executor.left
        self._executor = executor

    def kill(self) -> None:
        self._executor.killed += 1

    @asynccontextmanager
    async def job(self, todo: Todo, slot: Slot) -> AsyncIterator[FakeJob]:
        self._executor.todos.append(todo)
        self._executor.before(todo)
        async with super().job(todo, slot) as job:
            yield job
        assert job.outcome is not None
        job.outcome = self._executor.after(job.outcome)
