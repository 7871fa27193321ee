"""What the system tells of directories: which names come and go in them, as hints and never as the truth.

On Linux inotify itself is asked. Watchfiles has a thread that every single change wakes, which made a job that writes many files
take a third longer, it loads for 20 ms, and it fails for ever once a name is not UTF-8. Elsewhere it is what there is.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from ..blocking import Bell, wait_for

NAMES_ONLY = 0x040 | 0x080 | 0x100 | 0x200
"""IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE: what makes or takes away a name, and not what is written under it."""

DIRECTORIES_ONLY = 0x01000000
"""IN_ONLYDIR"""

BUFFER = 1 << 18

ASK = 0.03
"""Seconds between two questions to a library that does not tell by itself."""

_HEADER = struct.Struct("iIII")


class Watcher(Protocol):
    """Watches some directories, without those below them. Raises `OSError` or another exception if that is not possible."""

    @property
    def is_complete(self) -> bool:
        """Whether all of them are watched."""
        ...

    def wait(self, bell: Bell, at_most: float) -> None:
        """Returns when something may have changed, when the bell is rung, or after so many seconds."""
        ...

    def changed(self) -> Iterable[str]:
        """The absolute paths in them that have come or gone since the last call; some may be missing, and some have not."""
        ...

    def close(self) -> None: ...


class Inotify:
    """A watcher of Linux. What happens wakes nobody but who waits for it."""

    is_complete = True

    def __init__(self, folders: Sequence[str]) -> None:
        # Imported here: commands that run nothing need it not
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        self._folders: dict[int, str] = {}
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        for folder in folders:
            number = libc.inotify_add_watch(
                self._fd, os.fsencode(folder), NAMES_ONLY | DIRECTORIES_ONLY
            )
            if number < 0:
                error = ctypes.get_errno()
                self.close()
                raise OSError(error, os.strerror(error), folder)
            self._folders[number] = folder

    def wait(self, bell: Bell, at_most: float) -> None:
        wait_for(at_most, self._fd, bell)

    def changed(self) -> Iterable[str]:
        # A dictionary, for its order: a name that comes and goes is told twice
        paths: dict[str, None] = {}
        while True:
            try:
                data = os.read(self._fd, BUFFER)
            except BlockingIOError:
                return paths
            at = 0
            while at < len(data):
                number, _, _, length = _HEADER.unpack_from(data, at)
                at += _HEADER.size
                name = data[at : at + length].rstrip(b"\0")
                at += length
                # Without a name it is the directory itself, or one of which no more comes, or a queue that was full
                if name and number in self._folders:
                    paths[f"{self._folders[number]}/{os.fsdecode(name)}"] = None

    def close(self) -> None:
        os.close(self._fd)


class Watchfiles:
    """A watcher by the library of that name."""

    def __init__(self, folders: Sequence[str]) -> None:
        from watchfiles._rust_notify import RustNotify

        _start_thread()
        # Not with `ignore_permission_denied`, which ignores the limit of watches too
        known = list(filter(_is_utf8, folders))
        self.is_complete = len(known) == len(folders)
        self._watcher = RustNotify(known, False, False, 0, False, False)

    def wait(self, bell: Bell, at_most: float) -> None:
        # It would wait for a moment in which nothing happens, which on a busy disk never comes
        wait_for(min(at_most, ASK), bell)

    def changed(self) -> Iterable[str]:
        # Takes a millisecond or two. That something was modified can mean that a file was renamed over it
        changes = self._watcher.watch(1, 1, 1, None)
        return {path for _, path in changes} if isinstance(changes, set) else ()

    def close(self) -> None:
        self._watcher.close()


def watcher(folders: Sequence[str]) -> Watcher:
    """The watcher of this system."""
    if sys.platform == "linux":
        # A Python can be built without `ctypes`
        with suppress(ImportError):
            return Inotify(folders)
    return Watchfiles(folders)


def _start_thread() -> None:
    """Raises `RuntimeError` where no thread can be started. A watcher needs one, and would end the whole process for lack of it."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
