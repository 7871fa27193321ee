"""What people want of a run that a process executes, or will execute: files in the run's folder.

Files work on every machine and for every program, and what they say holds for whoever goes on with
the run after its runner was killed. All functions here block.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from ..errors import HermesError, escape
from .files import read_regular, rename_new, unfinished, write_all, write_atomic
from .layout import (
    ADDED,
    FORMATS,
    TAKEN,
    added_folder,
    pace_file,
    pause_file,
    stop_file,
    threads_file,
)
from .metadata import decoded, encoded


class Addition(msgspec.Struct, frozen=True, kw_only=True):
    """A hermes file whose jobs were added to a run. `path` is the file as it was named."""

    format: int = FORMATS[ADDED]
    path: str | None
    text: str


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of a run now.

    `threads` is None if it was never changed. `count_added` counts what was added to its plan.
    """

    is_stopped: bool = False
    is_paused: bool = False
    threads: int | None = None
    count_added: int = 0

    @property
    def pace(self) -> str:
        """What is wanted but for what was added, as text; empty if nothing was ever changed."""
        words = [str(self.threads or ""), "paused" if self.is_paused else ""]
        return " ".join(filter(None, words))


def read_wishes(folder: str) -> Wishes:
    """What the files in a run's folder say. A file that makes no sense says nothing."""
    return Wishes(
        is_stopped=os.path.lexists(stop_file(folder)),
        is_paused=os.path.lexists(pause_file(folder)),
        threads=_number(threads_file(folder)),
        count_added=_count_added(folder),
    )


def _number(path: str) -> int | None:
    """The number of at least 1 in a file."""
    with contextlib.suppress(OSError, ValueError):
        number = int(read_regular(path))
        return number if number >= 1 else None
    return None


def _count_added(folder: str) -> int:
    added = added_folder(folder)
    if not os.path.isdir(added):
        return 0
    count = 0
    while os.path.lexists(f"{added}/{count + 1}.json"):
        count += 1
    return count


def ask_to_stop(folder: str) -> None:
    """Raises `OSError` if the run's folder is gone."""
    Path(stop_file(folder)).touch()


def withdraw_stop(folder: str) -> None:
    _unlink(stop_file(folder))


def want_pause(folder: str, is_paused: bool) -> None:
    """Has a run start nothing more, or go on. Raises `OSError`."""
    if is_paused:
        Path(pause_file(folder)).touch()
    else:
        _unlink(pause_file(folder))


def want_threads(folder: str, threads: int) -> None:
    """Has a run execute so many jobs at once. Raises `OSError`."""
    write_atomic(threads_file(folder), f"{threads}\n".encode(), sync=True)


def mark_pace(folder: str, pace: str) -> None:
    """Tells those who wait for it what the run's process has taken in. Never raises."""
    with contextlib.suppress(OSError):
        write_atomic(pace_file(folder), f"{pace}\n".encode(), sync=False)


def is_taken_in(folder: str) -> bool:
    """Whether the run's process has taken in how many jobs are wanted at once, and whether more."""
    try:
        known = read_regular(pace_file(folder)).decode("ascii", "replace").strip()
    except OSError:
        known = ""
    return known == read_wishes(folder).pace


def want_jobs(folder: str, addition: Addition) -> int:
    """Adds jobs at the end of a run, and returns the number of this addition, counted from 1.

    Raises `OSError`.
    """
    added = added_folder(folder)
    # Not the folder above: a run that is done is not brought back
    with contextlib.suppress(FileExistsError):
        os.mkdir(added)
    temporary = unfinished(f"{added}/new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        write_all(fd, encoded(addition))
        os.fsync(fd)
    finally:
        os.close(fd)
    while True:
        number = _count_added(folder) + 1
        # Numbers have no gaps, so that what was added later stands later for whoever goes on
        try:
            rename_new(temporary, f"{added}/{number}.json")
            return number
        except FileExistsError:
            continue


def additions(folder: str, after: int = 0) -> list[Addition]:
    """What was added to a run, but for the first `after`. Raises `HermesError`."""
    found = []
    for number in range(after + 1, _count_added(folder) + 1):
        path = f"{added_folder(folder)}/{number}.json"
        try:
            data = read_regular(path)
        except OSError as exc:
            raise HermesError(f"cannot read `{escape(path)}`: {exc.strerror}") from None
        found.append(decoded(data, Addition, file=ADDED, path=path))
    return found


def mark_taken(folder: str, count: int) -> None:
    """Tells those who wait for it how many additions the run has taken in. Raises `OSError`."""
    write_atomic(f"{added_folder(folder)}/{TAKEN}", f"{count}\n".encode(), sync=False)


def count_taken(folder: str) -> int:
    """How many additions the run has taken in."""
    return _number(f"{added_folder(folder)}/{TAKEN}") or 0


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
