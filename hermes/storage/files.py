"""Changes to files that lose nothing: replaced whole or not at all, never over something unrelated,
never through a link.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import glob
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import NamedTuple

import msgspec

from .layout import PART

NO_LINKS = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}
)
"""Why a hard link may be refused where moving still works: another file system, one without links,
a foreign owner."""

PART_NAME = re.compile(r"[0-9a-f]{24}" + re.escape(PART))
"""The name of what is not whole yet. A job may have files of its own that end alike."""

ROOM = 128 * 1024
"""Bytes below which a disk counts as full: what is left then is often what no file can use."""

LARGEST = 2**30
"""Bytes of a file that is read as a whole. A job may leave one without end in the place of ours."""

NAME_MAX = 255
"""Bytes that a name may have, in all file systems that matter here."""


def open_regular(path: str, flags: int, mode: int = 0o666) -> int:
    """Opens a regular file and returns its descriptor; anything else in its place is an `OSError`.

    A job may have put a link, a FIFO or a device there: no link is followed, nothing is waited for.
    """
    if flags & os.O_EXCL:
        # A new one
        return os.open(path, flags, mode)
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
    except OSError as exc:
        # ELOOP is a link, ENXIO a FIFO without a reader or a socket
        if exc.errno in (errno.ELOOP, errno.ENXIO):
            raise OSError(exc.errno, "not a regular file", path) from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    if flags & (os.O_WRONLY | os.O_RDWR):
        # A job that inherits it may depend on that
        os.set_blocking(fd, True)
    return fd


def read_regular(path: str, most: int = LARGEST) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises `OSError`, also for anything else in its place.
    """
    fd = open_regular(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        if size > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        data = os.read(fd, size + 1)
        if len(data) == size:
            return data
        # Somebody writes it just now, or it has more than a single call reads
        with open(fd, "rb", closefd=False) as file:
            return data + file.read()
    finally:
        os.close(fd)


class Stamp(NamedTuple):
    """By which one sees whether a file is the same and has been left alone."""

    device: int
    inode: int
    bytes: int
    modified: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def write_atomic(path: str, data: bytes, *, sync: bool, mode: int = 0o666) -> Stamp:
    """Readers see the old content or the new, never a part; a link at `path` is replaced.

    With `sync` it has reached the disk when this returns. Raises `OSError`.
    """
    temporary = unfinished(path)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        try:
            write_all(fd, data)
            if sync:
                os.fsync(fd)
            stamp = Stamp.of(os.fstat(fd))
        finally:
            os.close(fd)
        try:
            os.replace(temporary, path)
        except IsADirectoryError:
            # A job has put its own folder there
            put_aside(path)
            os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return stamp


def open_own(path: str, flags: int) -> int:
    """Opens a file that is Hermes' own alone, or makes it, and returns its descriptor.

    What a job has put in its place, also another name of a file elsewhere, is put aside. Raises
    `OSError`.
    """
    with contextlib.suppress(OSError):
        fd = open_regular(path, flags)
        if os.fstat(fd).st_nlink == 1:
            return fd
        os.close(fd)
    if os.path.lexists(path):
        put_aside(path)
    return open_regular(path, flags | os.O_EXCL)


def write_all(fd: int, data: bytes) -> None:
    """Writes all of `data`, of which one call may take only a part."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def has_room(folder: str) -> bool:
    """Whether the file system of a folder takes new files. True where it cannot tell."""
    try:
        system = os.statvfs(folder)
    except OSError:
        return True
    # Some is kept back for root
    blocks = system.f_bfree if os.geteuid() == 0 else system.f_bavail
    # File systems that have no such number, of blocks or of files, say 0
    lacks_blocks = system.f_blocks and blocks * system.f_frsize < ROOM
    lacks_files = system.f_files and not system.f_ffree
    return not (lacks_blocks or lacks_files)


def real_folder(top: str, relative: str) -> bool:
    """Makes the folder `relative` below `top`.

    False if something that is no folder, such as a link, stands in the way.
    """
    path = top
    for part in relative.split("/") if relative else ():
        path = f"{path}/{part}"
        try:
            os.mkdir(path)
        except FileExistsError:
            if not is_folder(path):
                return False
    return True


def free_name(path: str) -> str:
    """`path` if nothing is there, else the first of `path.1`, `path.2`, ... that is free.

    A name that gets too long loses its end.
    """
    number, candidate = 0, path
    folder, name = os.path.split(path)
    while os.path.lexists(candidate):
        number += 1
        suffix = f".{number}"
        kept = os.fsdecode(os.fsencode(name)[: NAME_MAX - len(suffix)])
        candidate = os.path.join(folder, kept + suffix)
    return candidate


def beside(path: str, put: Callable[[str], object]) -> str:
    """Calls `put` with `path`, or else with the first free name beside it. Returns the name.

    `put` raises `FileExistsError`, and changes nothing, where something is by now.
    """
    free = path
    while True:
        try:
            put(free)
            return free
        except FileExistsError:
            free = free_name(path)


def rename_new(source: str, target: str) -> None:
    """Renames a file, link or folder to `target`. Raises `FileExistsError` if anything is there,
    but for an empty folder where a folder is to be, and `OSError`.
    """
    if is_folder(source):
        # A folder can take the place of an empty one alone. One may be there of a runner that was
        # killed between these two steps
        is_made = False
        with contextlib.suppress(FileExistsError):
            os.mkdir(target)
            is_made = True
        try:
            os.rename(source, target)
        except OSError as exc:
            if is_made:
                with contextlib.suppress(OSError):
                    os.rmdir(target)
            if exc.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
            raise
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as exc:
        if exc.errno == errno.EXDEV or exc.errno not in NO_LINKS:
            raise
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        finish = partial(os.rename, source, target)
    else:
        finish = partial(os.unlink, source)
    try:
        finish()
    except OSError:
        os.unlink(target)
        raise


def put_aside(path: str) -> str:
    """Renames what is at `path` to a free name beside it, which is returned."""
    return beside(free_name(path), partial(rename_new, path))


def unfinished(path: str) -> str:
    """A free name in the same folder for what is to become `path`, which nobody can have made.

    Short, as `path` itself may be as long as names can be.
    """
    return os.path.join(os.path.dirname(path), os.urandom(12).hex() + PART)


class Home(msgspec.Struct, frozen=True):
    """An experiment directory, or one above it, told from what a job may put in its place.

    `real` is its path without links as it was found, `inode` what it was then; None if it was no
    folder.
    """

    path: str
    real: str
    inode: tuple[int, int] | None

    @classmethod
    def of(cls, path: str, real: str | None = None, *, follow: bool = False) -> Home:
        """What is at `path` now. With `follow` that may be a link, which the user has made."""
        try:
            status = os.stat(path, follow_symlinks=follow)
        except OSError:
            status = None
        inode = None
        if status is not None and stat.S_ISDIR(status.st_mode):
            inode = status.st_dev, status.st_ino
        return cls(path, real or os.path.realpath(path), inode)

    def check(self) -> None:
        """Raises `OSError` if what is written there now would get elsewhere."""
        status = os.stat(self.path)
        if (status.st_dev, status.st_ino) == self.inode:
            return
        # Some file systems give a folder another number after a while
        is_known = self.inode is not None and stat.S_ISDIR(status.st_mode)
        if not is_known or os.path.realpath(self.path) != self.real:
            raise OSError(errno.ENOTDIR, "something else is in its place", self.path)

    @property
    def is_there(self) -> bool:
        """Whether what is written there gets there."""
        try:
            self.check()
        except OSError:
            return False
        return True


def is_folder(path: str) -> bool:
    """Whether there is a folder, and no link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def lstat(path: str) -> os.stat_result | None:
    """None if nothing is there."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def matches(pattern: str, start: str, leave_out: str) -> list[str]:
    """Absolute paths that fit a pattern with `*`, `?`, `[...]` and `**`, sorted.

    Relative patterns begin at the folder `start`. As in a shell, wildcards do not stand for names
    that start with a dot. `**`, any number of folders, does not follow links, so links in a circle
    do no harm. The folder `leave_out` is never entered, and what is in a match is none of its own.
    """
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    found: set[str] = set()
    pending = [("/" if pattern.startswith("/") else start, 0)]
    while pending:
        path, index = pending.pop()
        path = os.path.normpath(path)
        if path == leave_out:
            continue
        if index == len(parts):
            found.add(path)
        elif not glob.has_magic(parts[index]):
            if os.path.lexists(f"{path}/{parts[index]}"):
                pending.append((f"{path}/{parts[index]}", index + 1))
        elif parts[index] == "**":
            pending.append((path, index + 1))
            pending += [
                (each.path, index)
                for each in _entries(path)
                if each.name[0] != "." and each.is_dir(follow_symlinks=False)
            ]
        else:
            hidden = parts[index].startswith(".")
            pending += [
                (each.path, index + 1)
                for each in _entries(path)
                if (hidden or each.name[0] != ".") and fnmatch.fnmatchcase(each.name, parts[index])
            ]
    return sorted(
        path
        for path in found
        if not any(str(parent) in found for parent in PurePosixPath(path).parents)
    )


def entries_of(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder. Raises `OSError`."""
    with os.scandir(folder) as entries:
        return list(entries)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        return entries_of(folder)
    except OSError:
        return []


def same_content(one: str, other: str, *, in_part: bool = False) -> bool:
    """Whether both are there and hold the same: files the same bytes, links the same target,
    folders the same names and contents. With `in_part`, the other folders may hold more."""
    first, second = lstat(one), lstat(other)
    if first is None or second is None:
        return False
    if stat.S_IFMT(first.st_mode) != stat.S_IFMT(second.st_mode):
        return False
    if stat.S_ISREG(first.st_mode):
        # Imported here: few jobs have files to copy
        import filecmp

        return first.st_size == second.st_size and filecmp.cmp(one, other, shallow=False)
    if stat.S_ISLNK(first.st_mode):
        return os.readlink(one) == os.readlink(other)
    if stat.S_ISDIR(first.st_mode):
        names, others = set(os.listdir(one)), set(os.listdir(other))
        return (names <= others if in_part else names == others) and all(
            same_content(f"{one}/{name}", f"{other}/{name}", in_part=in_part) for name in names
        )
    return False


def remove(path: str) -> None:
    """Removes a file, a link or a whole folder, if it is there."""
    if not os.path.lexists(path):
        return
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def remove_parts(folder: str) -> None:
    """Removes what a runner that is gone has left half written below a folder."""
    for path, _ in list(everything_below(folder)):
        if PART_NAME.fullmatch(os.path.basename(path)):
            with contextlib.suppress(OSError):
                remove(path)


def size_of(path: str) -> int:
    """Bytes of a file or link; of a folder, of all that is in it.

    What cannot be read counts nothing.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    if not stat.S_ISDIR(status.st_mode):
        return status.st_size
    return sum(
        status.st_size for _, status in everything_below(path) if not stat.S_ISDIR(status.st_mode)
    )


def everything_below(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """All paths below a folder and what they are, folders before what is in them, at any depth.

    No link is followed.
    """
    pending = [folder]
    while pending:
        for entry in _entries(pending.pop()):
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            yield entry.path, status
            if stat.S_ISDIR(status.st_mode):
                pending.append(entry.path)
