"""The fan-out of a run's events to all who listen."""

from __future__ import annotations

import weakref
from collections import deque

import anyio
import anyio.lowlevel

from ..events import Event

IN_A_ROW = 32
"""Events that a listener takes before other tasks get their turn."""


class Feed:
    """Hands every event to every listener. A slow listener holds nobody up; one that nobody holds
    any more costs nothing."""

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
        # Others get their turn now and then; to give it at every event takes most of the time of
        # events that come by the thousand
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
