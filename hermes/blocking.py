"""Blocking calls in worker threads, and tasks that outlast a cancellation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two tries to get a thread: each pause is twice the one before."""


async def in_thread(
    function: Callable[[*Ts], T], *arguments: *Ts, limiter: anyio.CapacityLimiter | None = None
) -> T:
    """Calls `function` in a worker thread. While the system has no thread to give, tries again."""
    has_begun = False

    def call() -> T:
        nonlocal has_begun
        has_begun = True
        return function(*arguments)

    pause = FIRST_PAUSE
    while True:
        try:
            return await anyio.to_thread.run_sync(call, limiter=limiter)
        except RuntimeError:
            # Python has no error of its own for a thread that cannot be started
            if has_begun:
                raise
        await anyio.sleep(pause)
        pause = min(LONGEST_PAUSE, 2 * pause)


async def shielded(service: Callable[[], Awaitable[object]]) -> None:
    """Keeps a service going when the run is cancelled: it ends when it is asked to."""
    with anyio.CancelScope(shield=True):
        await service()
