"""Changes to files that lose nothing: replaced whole or not at all, never over something unrelated,
never through a link.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import glob
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from ..model import Problem, ProblemKind
from .layout import PART

Report = Callable[[Problem], None]
"""Takes what could not be done."""

NO_LINKS = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}
)
"""Why a hard link may be refused where moving still works: another file system, one without links,
a foreign owner."""

ROOM = 128 * 1024
"""Bytes below which a disk counts as full: what is left then is often what no file can use."""

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
    # Who inherits it may depend on that
    os.set_blocking(fd, True)
    return fd


def read_regular(path: str) -> bytes:
    """The content of a regular file. Raises `OSError`, also for anything else in its place."""
    with open(open_regular(path, os.O_RDONLY), "rb") as file:
        return file.read()


def write_atomic(path: str, data: bytes, *, sync: bool) -> None:
    """Readers see the old content or the new, never a part; a link at `path` is replaced.

    With `sync` it has reached the disk when this returns. Raises `OSError`.
    """
    temporary = unfinished(path)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        try:
            write_all(fd, data)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


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


def unfinished(path: str) -> str:
    """A free name in the same folder for what is to become `path`, which nobody can have made.

    Short, as `path` itself may be as long as names can be.
    """
    return os.path.join(os.path.dirname(path), os.urandom(6).hex() + PART)


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


def move(source: str, target: str, report: Report, *, kind: ProblemKind) -> None:
    """Moves a file, link or folder to `target`, where nothing may be.

    Across file systems by copy, fsync, rename. What cannot be moved is told to `report`, as a
    problem of this `kind`, and stays where it was. Raises `OSError` if nothing was moved.
    """
    try:
        os.rename(source, target)
    except OSError as exc:
        if exc.errno != errno.EXDEV:
            raise
        _move_across(source, target, report, kind)


def _move_across(source: str, target: str, report: Report, kind: ProblemKind) -> None:
    if not stat.S_ISDIR(os.lstat(source).st_mode):
        _move_file_across(source, target, report, kind)
        return
    os.mkdir(target, 0o700)
    folders = [(source, target)]
    for here, there in folders:
        for name in sorted(os.listdir(here)):
            if is_folder(f"{here}/{name}"):
                os.mkdir(f"{there}/{name}", 0o700)
                folders.append((f"{here}/{name}", f"{there}/{name}"))
            else:
                _move_file_across(f"{here}/{name}", f"{there}/{name}", report, kind)
    for here, there in reversed(folders):
        shutil.copystat(here, there)
        with contextlib.suppress(OSError):
            os.rmdir(here)


def _move_file_across(source: str, target: str, report: Report, kind: ProblemKind) -> None:
    copy_durably(source, target, report, kind=kind)
    if os.path.lexists(target):
        os.unlink(source)


def copy_durably(source: str, target: str, report: Report, *, kind: ProblemKind) -> None:
    """Copies one file or link so that `target` appears only when it is whole and on the disk."""
    temporary = unfinished(target)
    try:
        copy(source, temporary, report, kind=kind)
        if not os.path.lexists(temporary):
            return
        if not os.path.islink(temporary):
            fd = os.open(temporary, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        os.rename(temporary, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def copy(
    source: str,
    target: str,
    report: Report,
    *,
    kind: ProblemKind,
    skip: str | None = None,
    follow: bool = False,
) -> None:
    """Copies a file, link or folder with times and modes to `target`, where nothing may be.

    Links are copied as links (with `follow`, `source` itself is not). Special files, and what
    vanishes meanwhile, are told to `report` as problems of this `kind`; `skip` is a folder that is
    left out. Raises `OSError` if nothing was copied.
    """
    status = os.stat(source) if follow else os.lstat(source)
    if not stat.S_ISDIR(status.st_mode):
        _copy_file(source, target, status.st_mode, report, kind)
        return
    os.mkdir(target, 0o700)
    folders = [(source, target)]
    for here, there in folders:
        for name in _listed(here, report, kind):
            below = f"{here}/{name}"
            if below == skip:
                continue
            try:
                mode = os.lstat(below).st_mode
                if stat.S_ISDIR(mode):
                    os.mkdir(f"{there}/{name}", 0o700)
                    folders.append((below, f"{there}/{name}"))
                else:
                    _copy_file(below, f"{there}/{name}", mode, report, kind)
            except OSError as exc:
                report(Problem.of(kind, f"cannot copy `{below}`: {exc.strerror}", exc))
    for here, there in reversed(folders):
        shutil.copystat(here, there)


def _copy_file(source: str, target: str, mode: int, report: Report, kind: ProblemKind) -> None:
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(mode):
        shutil.copy2(source, target)
    else:
        report(left_in_place(source, mode, kind))


def left_in_place(path: str, mode: int, kind: ProblemKind) -> Problem:
    """The problem that something special is not taken; `kind` is that of what cannot be taken."""
    if kind is ProblemKind.NOT_COLLECTED:
        kind = ProblemKind.LEFT_IN_PLACE
    return Problem(kind, f"`{path}` is {kind_of(mode)}, it was left where it is")


def _listed(folder: str, report: Report, kind: ProblemKind) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as exc:
        report(Problem.of(kind, f"cannot read `{folder}`: {exc.strerror}", exc))
        return []


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


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def same_content(one: str, other: str) -> bool:
    """Whether both are there and hold the same: files the same bytes, links the same target,
    folders the same names and contents."""
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
        names = sorted(os.listdir(one))
        return names == sorted(os.listdir(other)) and all(
            same_content(f"{one}/{name}", f"{other}/{name}") for name in names
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
        if path.endswith(PART):
            with contextlib.suppress(OSError):
                remove(path)


def kind_of(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "no ordinary file"


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
