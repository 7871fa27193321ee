"""Blocking calls in worker threads, what wakes them and what they wake, and tasks that outlast a cancellation."""

from __future__ import annotations

import math
import select
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def in_thread(
    function: Callable[[*Ts], T], *arguments: *Ts, limiter: anyio.CapacityLimiter | None = None
) -> T:
    """Calls `function` in a worker thread, and waits for one while the system has none to give: it may in a moment."""
    pause = 0.05
    while True:
        try:
            return await anyio.to_thread.run_sync(function, *arguments, limiter=limiter)
        except RuntimeError as exc:
            if "start new thread" not in str(exc):
                raise
        await anyio.sleep(pause)
        pause = min(1.0, 2 * pause)


async def shielded(service: Callable[[], Awaitable[object]]) -> None:
    """A service ends when it is told to, not when the run is cancelled: cancelled jobs are finished like all others."""
    with anyio.CancelScope(shield=True):
        await service()


class Bell:
    """Rung in any thread; heard by a task, or by whoever waits for its file descriptor. Rung twice it may be heard once."""

    def __init__(self) -> None:
        self._heard, self._rung = socket.socketpair()
        self._heard.setblocking(False)
        self._rung.setblocking(False)

    def fileno(self) -> int:
        return self._heard.fileno()

    def ring(self) -> None:
        # Full: it has been rung often enough
        with suppress(BlockingIOError):
            self._rung.send(b".")

    def clear(self) -> None:
        with suppress(BlockingIOError):
            self._heard.recv(4096)

    async def heard(self) -> None:
        """Returns when the bell has been rung since it was heard last."""
        await anyio.wait_readable(self._heard)
        self.clear()

    def close(self) -> None:
        self._heard.close()
        self._rung.close()


class HasFileno(Protocol):
    def fileno(self) -> int: ...


def wait_for(at_most: float | None, *files: int | HasFileno) -> list[int]:
    """The file descriptors of those that can be read; blocks until there is one, but for no more than `at_most` seconds.

    `select.select` fails for numbers from 1,024 on, which a host with many open files gets.
    """
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return [fd for fd, _ in poll.poll(None if at_most is None else math.ceil(at_most * 1000))]


class Mailbox:
    """What one thread is to call for others, in the order in which they ask for it."""

    def __init__(self, wake: Callable[[], object], wait_for: int = 1) -> None:
        self._asked: deque[Callable[[], object]] = deque()
        self._wake = wake
        self._wait_for = wait_for

    def __len__(self) -> int:
        return len(self._asked)

    def ask(self, function: Callable[[*Ts], object], *arguments: *Ts) -> None:
        """Has something called. The thread is woken when it has been asked for `wait_for` calls, or as soon as anybody wants that."""
        self._asked.append(partial(function, *arguments))
        if len(self._asked) % self._wait_for == 0:
            self._wake()

    def ask_now(self, function: Callable[[*Ts], object], *arguments: *Ts) -> None:
        self._asked.append(partial(function, *arguments))
        self._wake()

    def do_asked(self) -> None:
        """Calls all that has been asked for. Only the thread itself does this."""
        while self._asked:
            self._asked.popleft()()
