"""Blocking calls in worker threads, what wakes them and what they wake, and tasks that outlast a cancellation."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def in_thread(function: Callable[[*Ts], T], *arguments: *Ts, limiter: anyio.CapacityLimiter | None = None) -> T:
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
