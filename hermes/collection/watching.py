"""Which names come and go in directories, as `watchfiles.awatch` tells: hints, and never the truth.

Overflows are dropped silently, and files that are made right after their directory are missed, so
who listens scans too.
"""

from __future__ import annotations

import math
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from importlib import import_module

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from ..blocking import in_thread

STEP = 15
"""Milliseconds between two counts of what has come: a batch is whole when the second finds no more
than the first. Each wakes a thread, which is nearly all that watching costs while nothing happens.
"""

DEBOUNCE = 25
"""Milliseconds after which a batch is whole in any case, at the next count: where unrelated files
are made all the time there is always more.
"""

Awatch = Callable[..., AsyncGenerator[set[tuple[object, str]], None]]
"""`watchfiles.awatch`."""


class WatchEndedError(Exception):
    """Watching has ended by itself, as it does after a name that is not UTF-8; it can be begun
    again.
    """


class NoThreadError(Exception):
    """The system has no thread to give just now, and `awatch` needs one."""


class Watcher:
    """Watches directories, without those below them. They can be replaced by others without a gap.

    A context manager; tasks are started in `tasks`, which has to outlive it. `awatch` is
    `watchfiles.awatch` unless a test says otherwise.
    """

    def __init__(self, tasks: TaskGroup, awatch: Awatch | None = None) -> None:
        self._tasks = tasks
        self._awatch = awatch
        self._generations: list[_Generation] = []
        """That which watches now last, after that which is being replaced."""

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for each in self._generations:
            each.end()

    async def watch(self, folders: Sequence[str], limiter: anyio.CapacityLimiter) -> bool:
        """Watches these directories from now on instead of the present ones. False if some of them
        cannot be watched.

        Raises `NoThreadError`, and what `awatch` raises: `FileNotFoundError`, another `OSError` at
        the limit of watches, and an error of its own at the limit of watchers. Then the present
        ones are watched further.
        """
        if self._awatch is None:
            # It takes 20 ms, so a run pays for it only when it lasts
            self._awatch = await in_thread(_import_awatch, limiter=limiter)
        known = list(filter(_is_utf8, folders))
        successor = _Generation()
        self._generations.append(successor)
        self._tasks.start_soon(successor.run, self._awatch, known)
        # `awatch` sets its watches before it waits for the first time. The first of these lets
        # other tasks begin, the second is for Trio, which goes on with tasks in any order
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        ended = self._generations[:-1] if successor.error is None else [successor]
        for each in ended:
            each.end()
            self._generations.remove(each)
        if successor.error is not None:
            raise successor.error
        return len(known) == len(folders)

    async def changed(self, at_most: float = math.inf) -> set[str]:
        """The absolute paths that have come, gone or changed; some may be missing, and some may be
        as they were.

        Returns an empty set after `at_most` seconds without any. Raises `WatchEndedError`.
        """
        current = self._generations[-1]
        with anyio.move_on_after(at_most):
            try:
                return await current.received.receive()
            except anyio.EndOfStream:
                raise WatchEndedError from current.error
        return set()


class _Generation:
    """One call of `awatch`, which takes no new directories."""

    def __init__(self) -> None:
        # Without a buffer, so that what comes while nobody receives is gathered by `awatch`, each
        # path once
        self._sent, self.received = anyio.create_memory_object_stream[set[str]](0)
        self._over = anyio.Event()
        self._scope = anyio.CancelScope()
        self.error: Exception | None = None

    async def run(self, awatch: Awatch, folders: Sequence[str]) -> None:
        try:
            _start_thread()
            # Not with `ignore_permission_denied`, which ignores the limit of watches too
            batches = awatch(
                *folders,
                recursive=False,
                watch_filter=None,
                step=STEP,
                debounce=DEBOUNCE,
                stop_event=self._over,
                ignore_permission_denied=False,
            )
            with self._scope:
                async with aclosing(batches):
                    async for changes in batches:
                        await self._sent.send({path for _, path in changes})
        except Exception as exc:
            self.error = exc
        finally:
            self._sent.close()

    def end(self) -> None:
        # In this order: `awatch` sees that it is cancelled only when its thread has seen that it is
        # over. It is cancelled for the case that it still waits for a thread, as in a program that
        # keeps all of anyio's busy
        self._over.set()
        self._scope.cancel()
        self.received.close()


def _import_awatch() -> Awatch:
    awatch: Awatch = import_module("watchfiles").awatch
    return awatch


def _start_thread() -> None:
    """Raises `NoThreadError` where none can be started: `awatch` would end the whole process.

    In the loop's thread, 0.1 ms, for what starts between this and `awatch` may take the last one.
    """
    thread = threading.Thread(target=int)
    try:
        thread.start()
    except RuntimeError as exc:
        raise NoThreadError from exc
    thread.join()


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
