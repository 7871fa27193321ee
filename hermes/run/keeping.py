"""Keeps the events of a run in its folder, for those who look at it from outside: `hermes status`
and `attach`."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from ..events import Event, JobEnded, JobStarted, RunStanding
from ..model import Outcome
from ..storage.journal import Machine
from ..storage.kept import KeptWriter
from ..storage.run_folder import RunFolder
from .standing import Standing
from .survey import Reason

LATEST = 8
"""Jobs that ended last, of which one is told who comes later."""


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
                events.append(_shortened(event))
            if events:
                self._began = self._began or events[0].time
                self._writer.write(events, self._stands)

    def _stands(self, part: int) -> RunStanding:
        folder, standing, here = self._folder, self._standing, Machine.here()
        return RunStanding(
            run_id=folder.run_id,
            name=folder.name,
            part=part,
            host=here.host,
            boot_id=here.boot_id,
            namespace=here.namespace,
            pid=os.getpid(),
            began=self._began,
            threads=standing.threads,
            is_paused=standing.is_paused,
            whole=folder.plan.count,
            total=standing.total,
            done=standing.done,
            failed=standing.failed,
            undone=standing.undone,
            succeeded_before=self._passed(Reason.SUCCEEDED),
            failed_before=self._passed(Reason.FAILED),
            at_once=standing.at_once,
            running=tuple(_started(each) for each, _ in standing.running.values()),
            latest=tuple(
                (_started(started), _outcome(outcome))
                for started, outcome in list(standing.latest)[-LATEST:]
            ),
            durations=tuple(standing.durations),
            queue=standing.queue,
        )


def _shortened(event: Event) -> Event:
    """Without what stands in the experiment directory, and is only needed if something fails."""
    match event:
        case JobStarted():
            return _started(event)
        case JobEnded():
            return replace(event, outcome=_outcome(event.outcome))
    return event


def _started(event: JobStarted) -> JobStarted:
    return replace(event, argv=())


def _outcome(outcome: Outcome) -> Outcome:
    return replace(outcome, argv=()) if outcome.ok else outcome
