"""Blocking calls in worker threads, and tasks that outlast a cancellation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar, TypeVarTuple, cast

import anyio
import anyio.lowlevel
import anyio.to_thread

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two tries to get a thread: each pause is twice the one before."""

THREADS = 16
"""Worker threads of an event loop for what has no limiter of its own. They are Hermes' own: a host
that keeps all of anyio's busy delays nothing."""

POLL = 0.005
"""Seconds between two checks whether a call is over whose task was cancelled by asyncio itself."""

_limiters: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("hermes_threads")


def own_threads() -> anyio.CapacityLimiter:
    """The limiter of this event loop for Hermes' calls in threads."""
    try:
        return _limiters.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(THREADS)
        _limiters.set(limiter)
        return limiter


async def in_thread(
    function: Callable[[*Ts], T],
    *arguments: *Ts,
    limiter: anyio.CapacityLimiter | None = None,
    abandon: Callable[[], object] | None = None,
) -> T:
    """Calls `function` in a worker thread. While the system has no thread to give, tries again.

    Once it has begun, its result is never lost: a cancellation comes at the next `await` of the
    caller, also one by asyncio itself (`Task.cancel`), from which no scope of anyio shields.
    With `abandon`, a cancellation calls that, which makes the call end soon, and is raised then.
    """
    call = _Call(function, *arguments)
    pause = FIRST_PAUSE
    while True:
        try:
            return await anyio.to_thread.run_sync(
                call.run,
                abandon_on_cancel=abandon is not None,
                limiter=limiter or own_threads(),
            )
        except RuntimeError:
            # Python has no error of its own for a thread that cannot be started
            if call.has_begun:
                raise
        except anyio.get_cancelled_exc_class() as exc:
            if call.give_up():
                raise
            if abandon is not None:
                abandon()
                await _over(call)
                raise
            if not isinstance(exc, asyncio.CancelledError):
                raise
            return await _outlast(call, exc)
        await anyio.sleep(pause)
        pause = min(LONGEST_PAUSE, 2 * pause)


class _Call(Generic[T]):
    """A call in a worker thread, whose result is kept."""

    def __init__(self, function: Callable[[*Ts], T], *arguments: *Ts) -> None:
        self._function: Callable[[], T] = partial(function, *arguments)
        self._lock = threading.Lock()
        self._is_given_up = False
        self._result: T | None = None
        self._error: BaseException | None = None
        self.has_begun = False
        self.is_over = threading.Event()

    def run(self) -> T:
        with self._lock:
            if self._is_given_up:
                raise asyncio.CancelledError
            self.has_begun = True
        try:
            self._result = self._function()
            return self._result
        except BaseException as exc:
            self._error = exc
            raise
        finally:
            self.is_over.set()

    def give_up(self) -> bool:
        """Whether the call has not begun, and never will."""
        with self._lock:
            self._is_given_up = not self.has_begun
            return self._is_given_up

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return cast(T, self._result)


async def _over(call: _Call[T]) -> asyncio.CancelledError | None:
    """Waits for a call that goes on in its thread. Returns by what asyncio cancelled the task
    meanwhile."""
    cancelled = None
    with anyio.CancelScope(shield=True):
        while not call.is_over.is_set():
            try:
                await anyio.sleep(POLL)
            except asyncio.CancelledError as exc:
                cancelled = exc
    return cancelled


async def _outlast(call: _Call[T], cancelled: asyncio.CancelledError) -> T:
    """Waits for a call that goes on in its thread; the cancellation is given on."""
    cancelled = await _over(call) or cancelled
    task = asyncio.current_task()
    assert task is not None
    # Counted once, or `asyncio.timeout` would not know it for its own
    task.uncancel()
    task.cancel(*cancelled.args)
    return call.result()


def has_loop() -> bool:
    """Whether an event loop runs in this thread. It does not while what it has left is dropped."""
    try:
        anyio.get_cancelled_exc_class()
    except RuntimeError:
        return False
    return True


def is_asyncio() -> bool:
    """Whether it is one of asyncio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def shielded(service: Callable[[], Awaitable[object]]) -> None:
    """Keeps a service going when the run is cancelled: it ends when it is asked to."""
    with anyio.CancelScope(shield=True):
        await service()
