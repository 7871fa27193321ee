"""Keeps the events of a run in its folder, for those who look at it from outside: `hermes status`
and `attach`."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable

from ..events import Event, RunStanding
from ..storage.journal import Machine
from ..storage.kept import KeptWriter
from ..storage.run_folder import RunFolder
from .standing import Standing, shortened
from .survey import Reason


class Keeper:
    """Keeps the events of one run. `take` costs nothing worth mentioning, so that it can be called
    for every event; `write` does the work of all since the last time, in a worker thread.

    `passed` says how many jobs of the plan are not started for a reason.
    """

    def __init__(self, folder: RunFolder, passed: Callable[[Reason], int]) -> None:
        self._folder = folder
        self._passed = passed
        self._standing = Standing()
        self._began = 0.0
        self._writer = KeptWriter(folder.folder)
        self._new: deque[Event] = deque()
        self._writing = threading.Lock()

    def take(self, event: Event) -> None:
        self._new.append(event)

    def write(self) -> None:
        """Writes what is new. Blocks, and never raises."""
        with self._writing:
            events = []
            while self._new:
                event = self._new.popleft()
                self._standing.take(event)
                events.append(shortened(event))
            if events:
                self._began = self._began or events[0].time
                self._writer.write(events, self._stands)

    def _stands(self, part: int) -> RunStanding:
        folder, here = self._folder, Machine.here()
        base = RunStanding(
            run_id=folder.run_id,
            name=folder.name,
            part=part,
            host=here.host,
            boot_id=here.boot_id,
            namespace=here.namespace,
            pid=os.getpid(),
            began=self._began,
            whole=folder.plan.count,
            succeeded_before=self._passed(Reason.SUCCEEDED),
            failed_before=self._passed(Reason.FAILED),
        )
        return self._standing.as_event(base)
