"""What happens in a run, as it happens, and the fan-out to whoever listens."""

from __future__ import annotations

import re
import time
import weakref
from collections import deque
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import anyio
import anyio.lowlevel

from .model import Outcome

IN_A_ROW = 32
"""Events that a listener takes before other tasks get their turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`time` is in seconds since the epoch, taken when the event was made."""

    time: float = field(default_factory=time.time)

    def as_json(self) -> dict[str, Any]:
        """The event as JSON types; `event` is its name in snake case, bytes are decoded as UTF-8 with replacement."""
        data: dict[str, Any] = {"event": re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()}
        for each in fields(self):
            data[each.name] = _plain(getattr(self, each.name))
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """The plan is checked and nothing has been started. `total` counts the jobs, but for those that a resumed run need not start."""

    run_id: str
    name: str
    total: int
    threads: int
    experiments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted(Event):
    """The job's process exists. `index` counts the jobs of the plan from 0; `slot` is its HERMES_SLOT."""

    identifier: str
    script: str
    index: int
    slot: int
    pid: int
    argv: tuple[str, ...]
    arguments: tuple[str, ...]
    directory: str
    line: int
    log: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk(Event):
    """A job has printed something: up to 64 KiB of bytes as they are, not cut at line ends."""

    identifier: str
    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCollected(Event):
    """A file that carries the identifier is in the experiment directory, under `path` relative to it."""

    identifier: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded(Event):
    """The job has ended and its directory is final: files collected, copied and moved, metadata written."""

    index: int
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueChanged(Event):
    """On a cluster: how many jobs wait in its queue and how many run, and why most of those wait, in the cluster's own words."""

    pending: int
    running: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWarning(Event):
    """Something that concerns the whole run and harms no result, such as an exhausted watch limit."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Event):
    """All jobs have ended, or the run was cancelled. Comes last."""

    run_id: str
    started: int
    succeeded: int
    cancelled: bool


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Outcome):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return list(value) if isinstance(value, tuple) else value


class Feed:
    """Hands every event to every listener. A slow listener holds nobody up; one that nobody holds any more costs nothing."""

    def __init__(self) -> None:
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
        self._closed = False

    def listen(self) -> Listener:
        """From now on, all events up to the end of the run."""
        listener = Listener()
        self._listeners.add(listener)
        if self._closed:
            listener.close()
        return listener

    def publish(self, event: Event) -> None:
        for listener in self._listeners:
            listener.put(event)

    @property
    def waiting(self) -> int:
        """How many events the slowest listener has yet to take."""
        return max(map(len, self._listeners), default=0)

    @property
    def followed(self) -> bool:
        """Whether anybody listens at all."""
        return bool(self._listeners)

    def close(self) -> None:
        """Listeners get what they have not taken yet, and then the end."""
        self._closed = True
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()


class Listener:
    """The events of a run, in order."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._taken = 0
        self._closed = False
        self._news = anyio.Event()

    def __len__(self) -> int:
        return len(self._events)

    def __bool__(self) -> bool:
        return True

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Event:
        # Others get their turn now and then; to give it at every event takes most of the time of events that come by the thousand
        self._taken += 1
        if self._taken % IN_A_ROW:
            await anyio.lowlevel.checkpoint_if_cancelled()
        else:
            await anyio.lowlevel.checkpoint()
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._news = anyio.Event()
            await self._news.wait()
        return self._events.popleft()

    def put(self, event: Event) -> None:
        self._events.append(event)
        self._news.set()

    def close(self) -> None:
        self._closed = True
        self._news.set()
