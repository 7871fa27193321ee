"""Changes to files that lose nothing: replaced whole or not at all, never over something unrelated, never through a link."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import shutil
import stat
from collections.abc import Callable

PART = ".hermes-part"
"""Ends the name of what is not whole yet; what still has it when its runner is gone can go."""

Report = Callable[[str], None]
"""Takes the description of something that could not be done."""

NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS})
"""Why a hard link may be refused where moving still works: another file system, one without links, a foreign owner."""


def write_atomic(path: str, data: bytes, *, sync: bool) -> None:
    """Readers see the old content or the new, never a part. With `sync` it has reached the disk when this returns."""
    temporary = f"{path}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def real_folder(top: str, relative: str) -> bool:
    """Makes the folder `relative` below `top`. False if something that is not a folder, such as a link, stands in the way."""
    path = top
    for part in relative.split("/") if relative else ():
        path = f"{path}/{part}"
        try:
            os.mkdir(path)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                return False
    return True


def free_name(path: str) -> str:
    """`path` if nothing is there, else the first of `path.1`, `path.2`, ... that is free."""
    number, candidate = 0, path
    while os.path.lexists(candidate):
        number += 1
        candidate = f"{path}.{number}"
    return candidate


def lstat(path: str) -> os.stat_result | None:
    """None if nothing is there."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def move(source: str, target: str, report: Report) -> None:
    """Moves a file, link or folder to `target`, where nothing may be; across file systems by copy, fsync, rename.

    What cannot be moved is told to `report` and stays where it was.
    """
    try:
        os.rename(source, target)
    except OSError as exc:
        if exc.errno != errno.EXDEV:
            raise
        _move_across(source, target, report)


def _move_across(source: str, target: str, report: Report) -> None:
    if not stat.S_ISDIR(os.lstat(source).st_mode):
        copy_durably(source, target, report)
        if os.path.lexists(target):
            os.unlink(source)
        return
    os.mkdir(target)
    for name in sorted(os.listdir(source)):
        _move_across(f"{source}/{name}", f"{target}/{name}", report)
    shutil.copystat(source, target)
    with contextlib.suppress(OSError):
        os.rmdir(source)


def copy_durably(source: str, target: str, report: Report) -> None:
    """Copies one file or link so that `target` appears only when it is whole and on the disk."""
    temporary = free_name(f"{target}{PART}")
    try:
        copy(source, temporary, report)
        if not os.path.lexists(temporary):
            return
        if not os.path.islink(temporary):
            with open(temporary, "rb+") as file:
                os.fsync(file)
        os.rename(temporary, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def copy(source: str, target: str, report: Report, *, skip: str | None = None, follow: bool = False) -> None:
    """Copies a file, link or folder with times and modes to `target`, where nothing may be.

    Links are copied as links (with `follow`, `source` itself is not). Special files, and what vanishes
    meanwhile, are told to `report`; `skip` is a folder that is left out.
    """
    status = os.stat(source) if follow else os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(status.st_mode):
        shutil.copy2(source, target)
    elif stat.S_ISDIR(status.st_mode):
        os.mkdir(target)
        for name in sorted(os.listdir(source)):
            if f"{source}/{name}" == skip:
                continue
            try:
                copy(f"{source}/{name}", f"{target}/{name}", report, skip=skip)
            except OSError as exc:
                report(f"cannot copy `{source}/{name}`: {exc.strerror}")
        shutil.copystat(source, target)
    else:
        report(f"`{source}` is {kind_of(status.st_mode)}, it was left where it is")


def same_content(one: str, other: str) -> bool:
    """Whether both are there and hold the same: files the same bytes, links the same target, folders the same names and contents."""
    first, second = lstat(one), lstat(other)
    if first is None or second is None or stat.S_IFMT(first.st_mode) != stat.S_IFMT(second.st_mode):
        return False
    if stat.S_ISREG(first.st_mode):
        return first.st_size == second.st_size and filecmp.cmp(one, other, shallow=False)
    if stat.S_ISLNK(first.st_mode):
        return os.readlink(one) == os.readlink(other)
    if stat.S_ISDIR(first.st_mode):
        names = sorted(os.listdir(one))
        return names == sorted(os.listdir(other)) and all(same_content(f"{one}/{name}", f"{other}/{name}") for name in names)
    return False


def remove(path: str) -> None:
    """Removes a file, a link or a whole folder."""
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def remove_parts(folder: str) -> None:
    """Removes what a runner that is gone has left unfinished below a folder."""
    for top, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            if PART in name:
                with contextlib.suppress(OSError):
                    remove(f"{top}/{name}")


def kind_of(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "no ordinary file"


def size_of(path: str) -> int:
    """Bytes of a file or link; of a folder, of all that is in it."""
    status = lstat(path)
    if status is None:
        return 0
    if not stat.S_ISDIR(status.st_mode):
        return status.st_size
    return sum(size_of(entry.path) for entry in os.scandir(path))
