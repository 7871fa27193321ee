"""Finishing experiments in a node's place, with the local executor: nothing is started, and what
still runs is killed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import anyio
import msgspec
from msgspec.structs import replace

from ...model import Outcome
from ..base import Grace, NotBegunError, OpenRun, Place, Todo
from ..local import LOCAL

GATHER = 0.1
"""Seconds: what is to be finished within this time of each other is finished in one go."""


class NoSlot(msgspec.Struct, frozen=True):
    """What a job holds that is over."""

    number: int = 0
    gpus: tuple[str, ...] | None = None

    def release(self) -> None:
        """There is nothing to give back."""


class Finished(msgspec.Struct, frozen=True):
    """An experiment that is final. `collected` are the files that have come into it just now."""

    outcome: Outcome
    collected: Sequence[str]


class _Request(msgspec.Struct, eq=False):
    todo: Todo
    answered: anyio.Event = msgspec.field(default_factory=anyio.Event)
    answer: Finished | NotBegunError | None = None


class Finisher:
    """Finishes what nodes, or earlier clients, have left of one run."""

    def __init__(self, run: OpenRun) -> None:
        self._run = run
        self._requests: list[_Request] = []
        self._work = anyio.Event()

    async def finish(self, todo: Todo) -> Finished:
        """Finishes the experiment `todo.leftover`. Raises `NotBegunError` if it came to nothing."""
        request = _Request(todo)
        self._requests.append(request)
        self._work.set()
        await request.answered.wait()
        if isinstance(request.answer, NotBegunError):
            raise request.answer
        assert request.answer is not None
        return request.answer

    async def serve(self) -> None:
        while True:
            await self._work.wait()
            await anyio.sleep(GATHER)
            self._work = anyio.Event()
            requests, self._requests = self._requests, []
            await self._finish_all(requests)

    async def _finish_all(self, requests: Sequence[_Request]) -> None:
        collected: dict[str, list[str]] = defaultdict(list)
        run = replace(
            self._run,
            grace=Grace(0.0),
            collected=lambda identifier, path: collected[identifier].append(path),
            queued=lambda *_: None,
            follow_files=True,
            is_ending=True,
        )
        async with LOCAL.opened(run) as place, anyio.create_task_group() as jobs:
            for request in requests:
                jobs.start_soon(self._finish, place, request, collected)

    async def _finish(
        self, place: Place, request: _Request, collected: dict[str, list[str]]
    ) -> None:
        try:
            async with place.job(request.todo, NoSlot()) as job:
                # Left at once: whether it still runs or not, it is waited for no more
                pass
            assert job.outcome is not None
            request.answer = Finished(job.outcome, collected[job.outcome.identifier])
        except NotBegunError as exc:
            request.answer = exc
        request.answered.set()
