"""Where a run stands, by its events: for the displays of its own process, and for those who look at
it from outside."""

from __future__ import annotations

import time
from collections import deque

from msgspec.structs import replace

from ..events import (
    Event,
    JobEnded,
    JobStarted,
    QueueChanged,
    RunChanged,
    RunEnded,
    RunStanding,
    RunStarted,
)
from ..model import Outcome, Status
from .estimate import time_left

RECENT = 100
"""Jobs that ended last, by whose durations the time left is estimated."""

LATEST = 8
"""Jobs that ended last, of which one is told who comes later."""

UNDONE = frozenset({Status.CANCELLED, Status.LOST})
"""How jobs end that a resumed run starts again."""


class Standing:
    """Where a run stands, by its events."""

    def __init__(self) -> None:
        self.total = 0
        self.threads = 1
        self.done = 0
        self.failed = 0
        self.undone = 0
        """Jobs that were cancelled or lost: they count as failed, but have yet to be done."""

        self.whole = 0
        """Jobs of the whole plan, those too that need not start in a resumed run."""

        self.running: dict[str, tuple[JobStarted, float]] = {}
        """By their identifiers, with the moment of their start by the monotonic clock."""

        self.began = time.monotonic()
        self.ended: float | None = None
        self.queue: QueueChanged | None = None
        """Where the jobs stand that are with a cluster; None if they are not."""

        self.is_paused = False
        """Whether nothing more is started for now."""

        self.at_once = 1
        """How many ran at the same time when the last one started."""

        self.durations: deque[float] = deque(maxlen=RECENT)
        """Seconds that the latest jobs took."""

        self.latest: deque[tuple[JobStarted, Outcome]] = deque(maxlen=RECENT)
        """The jobs that ended last, the newest at the end."""

    def take(self, event: Event) -> None:
        match event:
            case RunStanding():
                self._stand(event)
            case RunStarted():
                self.total, self.threads = event.total, event.threads
            case RunChanged():
                self.whole += event.total - self.total
                self.total, self.is_paused = event.total, event.is_paused
                self.threads = event.threads
            case JobStarted():
                self.running[event.identifier] = (event, _monotonic(event.time))
                self.at_once = len(self.running)
            case JobEnded(outcome=outcome, tried_again_in=pause):
                started, _ = self.running.pop(outcome.identifier, (None, 0.0))
                if started is not None:
                    self.latest.append((started, outcome))
                self.durations.append(outcome.duration)
                self.done += pause is None
                self.failed += pause is None and not outcome.ok
                self.undone += pause is None and outcome.status in UNDONE
            case QueueChanged():
                self.queue = event
            case RunEnded():
                self.ended = _monotonic(event.time)

    def _stand(self, event: RunStanding) -> None:
        self.total, self.threads, self.is_paused = event.total, event.threads, event.is_paused
        self.done, self.failed, self.undone = event.done, event.failed, event.undone
        self.whole = event.whole
        self.began, self.ended, self.at_once = _monotonic(event.began), None, event.at_once
        self.running = {each.identifier: (each, _monotonic(each.time)) for each in event.running}
        self.durations = deque(event.durations, RECENT)
        self.latest = deque(event.latest, RECENT)
        self.queue = event.queue

    def as_event(self, base: RunStanding) -> RunStanding:
        """All of this as an event. What stands here nowhere, and how many jobs there are, is taken
        from `base`."""
        return replace(
            base,
            time=time.time(),
            threads=self.threads,
            is_paused=self.is_paused,
            total=self.total,
            done=self.done,
            failed=self.failed,
            undone=self.undone,
            at_once=self.at_once,
            running=tuple(_started(each) for each, _ in self.running.values()),
            latest=tuple(
                (_started(started), outcome) for started, outcome in list(self.latest)[-LATEST:]
            ),
            durations=tuple(self.durations),
            queue=self.queue,
        )

    @property
    def failures(self) -> int:
        """Jobs that have failed by themselves; nobody cancelled them."""
        return self.failed - self.undone

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, up to its end."""
        return (self.ended or time.monotonic()) - self.began

    @property
    def time_left(self) -> float | None:
        """Seconds until all jobs have ended, as far as it can be told; None if none has."""
        now = time.monotonic()
        running = [now - since for _, since in self.running.values()]
        waiting = max(0, self.total - self.done - len(running))
        return time_left(self.durations, running, waiting, self.at_once)


def shortened(event: Event) -> Event:
    """Without words that stand in the experiment directory, and are only shown if a job fails."""
    match event:
        case JobStarted():
            return _started(event)
        case JobEnded(outcome=outcome) if outcome.ok:
            return replace(event, outcome=replace(outcome, argv=()))
    return event


def _started(event: JobStarted) -> JobStarted:
    return replace(event, argv=())


def _monotonic(moment: float) -> float:
    """A time of day, which is not in the future, by the monotonic clock."""
    return time.monotonic() - max(0.0, time.time() - moment)
