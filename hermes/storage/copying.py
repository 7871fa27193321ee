"""Copying and moving: never over anything, never through a link, holes stay holes.

All of this blocks.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import stat
from collections.abc import Callable
from functools import partial

from ..model import Problem, ProblemKind
from .files import (
    beside,
    is_folder,
    lstat,
    open_regular,
    remove,
    rename_new,
    unfinished,
    write_all,
)

Report = Callable[[Problem], None]
"""Takes what could not be done."""

NOT_MOVABLE = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EROFS})
"""Why renaming may be refused where copying still works: another file system, or a folder of
another user."""

PIECE = 1024 * 1024
"""Bytes that are copied at once."""


def move(source: str, target: str, report: Report, *, kind: ProblemKind) -> str:
    """Moves a file, link or folder to `target`, or to a free name beside it, which is returned.

    Where it cannot be renamed, as across file systems, a copy appears when it is whole and on the
    disk, and only then does the source go, as far as this user may take it away. What cannot be
    copied is told to `report`, as a problem of this `kind`, and stays where it was. Raises
    `OSError` if nothing was moved.
    """
    try:
        return beside(target, partial(rename_new, source))
    except OSError as exc:
        if exc.errno not in NOT_MOVABLE:
            raise
    part = unfinished(target)
    try:
        copy(source, part, report, kind=kind, is_move=True)
        stored = beside(target, partial(rename_new, part))
    except OSError:
        remove(part)
        raise
    take_away(source, stored)
    return stored


def take_away(source: str, stored: str) -> None:
    """Removes what has been copied to `stored`; what has not stays. What may not be removed is left
    without a word, because nothing of it is missing.
    """
    folders = [(source, stored)] if is_folder(source) else []
    if not folders:
        with contextlib.suppress(OSError):
            os.unlink(source)
    for here, there in folders:
        for name in _listed(here):
            if is_folder(f"{here}/{name}"):
                folders.append((f"{here}/{name}", f"{there}/{name}"))
            elif lstat(f"{there}/{name}") is not None:
                with contextlib.suppress(OSError):
                    os.unlink(f"{here}/{name}")
    for here, _ in reversed(folders):
        with contextlib.suppress(OSError):
            os.rmdir(here)


def copy(
    source: str,
    target: str,
    report: Report,
    *,
    kind: ProblemKind,
    skip: str | None = None,
    follow: bool = False,
    is_move: bool = False,
) -> None:
    """Copies a file, link or folder with times and modes to `target`, where nothing may be.

    Links are copied as links (with `follow`, `source` itself is not). Special files, and what
    vanishes meanwhile, are told to `report` as problems of this `kind`; `skip` is a folder that is
    left out. With `is_move` the copy has reached the disk, and what its owner has closed is opened
    to be read. Raises `OSError` if nothing was copied, as of a special file.
    """
    if follow:
        source, skip = os.path.realpath(source), os.path.realpath(skip) if skip else None
    status = os.lstat(source)
    if not stat.S_ISDIR(status.st_mode):
        _copy_file(source, target, status, is_move=is_move)
        return
    os.mkdir(target, 0o700)
    folders = [(source, target, status)]
    for here, there, status in folders:
        try:
            names = sorted(_names(here, status, is_move=is_move))
        except OSError as exc:
            report(Problem.of(kind, f"cannot read `{here}`: {exc.strerror}", exc))
            continue
        for name in names:
            below = f"{here}/{name}"
            if below == skip:
                continue
            try:
                inner = os.lstat(below)
                if stat.S_ISDIR(inner.st_mode):
                    os.mkdir(f"{there}/{name}", 0o700)
                    folders.append((below, f"{there}/{name}", inner))
                elif stat.S_ISREG(inner.st_mode) or stat.S_ISLNK(inner.st_mode):
                    _copy_file(below, f"{there}/{name}", inner, is_move=is_move)
                else:
                    report(left_in_place(below, inner.st_mode, kind))
            except OSError as exc:
                report(Problem.of(kind, f"cannot copy `{below}`: {exc.strerror}", exc))
    for here, there, status in reversed(folders):
        shutil.copystat(here, there)
        if is_move:
            # The copy stays open to its owner, as all that Hermes lists
            os.chmod(there, stat.S_IMODE(status.st_mode) | stat.S_IRWXU)


def _names(folder: str, status: os.stat_result, *, is_move: bool) -> list[str]:
    try:
        return os.listdir(folder)
    except PermissionError:
        if not (is_move and _open_up(folder, status)):
            raise
        return os.listdir(folder)


def _copy_file(source: str, target: str, status: os.stat_result, *, is_move: bool) -> None:
    """Copies a regular file or a link. Raises `OSError`, after which there is no `target`."""
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
        return
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"it is {kind_of(status.st_mode)}", source)
    try:
        reading = open_regular(source, os.O_RDONLY)
    except PermissionError:
        if not (is_move and _open_up(source, status)):
            raise
        reading = open_regular(source, os.O_RDONLY)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            try:
                copy_bytes(reading, writing)
                if is_move:
                    os.fsync(writing)
            finally:
                os.close(writing)
            shutil.copystat(source, target)
            if is_move:
                os.chmod(target, stat.S_IMODE(status.st_mode))
        except OSError:
            os.unlink(target)
            raise
    finally:
        os.close(reading)


def _open_up(path: str, status: os.stat_result) -> bool:
    """Lets the owner read a file or folder, which is about to be moved away; False for another
    user.
    """
    if status.st_uid != os.geteuid():
        return False
    needed = stat.S_IRWXU if stat.S_ISDIR(status.st_mode) else stat.S_IRUSR
    os.chmod(path, stat.S_IMODE(status.st_mode) | needed)
    return True


def copy_bytes(reading: int, writing: int) -> None:
    """Copies one open file into another, empty one. Holes stay holes. Raises `OSError`."""
    size, end = os.fstat(reading).st_size, 0
    while size and (piece := _data_from(reading, end)) is not None:
        start, end = piece
        if _copy_piece(reading, writing, start, end) < end:
            # It has become shorter
            break
    # What has come meanwhile, and files that do not know their size, as in /proc
    start = max(end, size)
    end = _copy_piece(reading, writing, start, math.inf)
    os.ftruncate(writing, end if end > start else min(start, os.fstat(reading).st_size))


def _copy_piece(reading: int, writing: int, start: int, end: float) -> int:
    """Copies what is between two offsets. Returns how far it came: the file may end before."""
    os.lseek(writing, start, os.SEEK_SET)
    while start < end and (data := os.pread(reading, int(min(PIECE, end - start)), start)):
        write_all(writing, data)
        start += len(data)
    return start


def _data_from(fd: int, offset: int) -> tuple[int, int] | None:
    """Where the next data begin and end; None if only a hole is left."""
    try:
        start = os.lseek(fd, offset, os.SEEK_DATA)
        return start, os.lseek(fd, start, os.SEEK_HOLE)
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            return None
        size = os.fstat(fd).st_size
        return (offset, size) if offset < size else None


def left_in_place(path: str, mode: int, kind: ProblemKind) -> Problem:
    """The problem that something special is not taken; `kind` is that of what cannot be taken."""
    if kind is ProblemKind.NOT_COLLECTED:
        kind = ProblemKind.LEFT_IN_PLACE
    return Problem(kind, f"`{path}` is {kind_of(mode)}, it was left where it is")


def kind_of(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "no ordinary file"


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
