"""Identifiers: unique among all processes of a root, and sorted by the starts of their jobs."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from .files import open_regular
from .layout import CLOCK

_STAMP = "%Y_%m_%d_%H%M%S%f"
_MICROSECOND = timedelta(microseconds=1)
_FAR_AHEAD = timedelta(hours=2)


def time_of(identifier: str) -> datetime | None:
    """When an identifier was made, by the local time of this machine; None if it does not say."""
    try:
        return datetime.strptime(identifier.rpartition("_")[0], _STAMP).astimezone()
    except (ValueError, OverflowError):
        return None


class Clock:
    """Gives identifiers that no other process of this root gives, also when clocks step back.

    The last stamp is kept in a file under a lock; a stamp that is not later than it counts on from
    it by microseconds. So identifiers sort in the order of their starts, through the end of summer
    time too. A last stamp more than two hours ahead comes from a clock that was wrong, and is
    ignored. Where locks do not work, the exclusive `mkdir` remains.

    `folder` is `experiments/.hermes`, `suffix` the end of each identifier, `now` tells the time of
    day. Raises `OSError`.
    """

    def __init__(
        self, folder: str, suffix: str, *, now: Callable[[], datetime] = datetime.now
    ) -> None:
        self._fd = open_regular(f"{folder}/{CLOCK}", os.O_RDWR | os.O_CREAT)
        self._suffix = suffix
        self._now = now
        # The file lock keeps other processes out, and other openings of the file in this one
        self._lock = threading.Lock()

    def identifier(self) -> str:
        with self._lock:
            locked = self._try(fcntl.LOCK_EX)
            try:
                stamp = self._next()
                os.pwrite(self._fd, stamp.encode(), 0)
            finally:
                if locked:
                    self._try(fcntl.LOCK_UN)
        return f"{stamp}_{self._suffix}"

    def renew(self, folder: str) -> None:
        """Goes on in a folder that was made again."""
        with self._lock:
            fd = open_regular(f"{folder}/{CLOCK}", os.O_RDWR | os.O_CREAT)
            os.dup2(fd, self._fd, inheritable=False)
            os.close(fd)

    def close(self) -> None:
        os.close(self._fd)

    def _try(self, operation: int) -> bool:
        try:
            fcntl.flock(self._fd, operation)
        except OSError:
            return False
        return True

    def _next(self) -> str:
        last = os.pread(self._fd, 64, 0).decode("ascii", "replace")
        return next_stamp(self._now(), last)


def next_stamp(now: datetime, last: str) -> str:
    """The stamp of an identifier that is made now, if `last` is the one before."""
    # Three times as fast as `strftime`, and with four digits for the year on every system
    stamp = (
        f"{now.year:04}_{now.month:02}_{now.day:02}_"
        f"{now.hour:02}{now.minute:02}{now.second:02}{now.microsecond:06}"
    )
    if stamp > last:
        return stamp
    try:
        then = datetime.strptime(last, _STAMP)
    except ValueError:
        return stamp
    return stamp if then - now > _FAR_AHEAD else (then + _MICROSECOND).strftime(_STAMP)
