"""Blocking calls in worker threads, and tasks that outlast a cancellation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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
