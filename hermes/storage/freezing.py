"""Making the copy of the code in which the jobs of a run work. All of this blocks."""

from __future__ import annotations

import fcntl
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ..language.plan import Plan
from . import code_store, layout
from .asking import Patience
from .code_files import CodeFiles, code_files, is_code
from .copying import copy_bytes
from .files import (
    entries_of,
    everything_below,
    is_folder,
    lstat,
    open_regular,
    remove,
    unfinished,
    write_all,
)
from .frozen import Frozen, FrozenFile, stamp
from .git import Git

FICLONE = 0x40049409
"""The request by which Linux lets two files share their blocks until one is written to."""


def freeze(plan: Plan, run_folder: str, state: Callable[[], Git], limit: float) -> Frozen:
    """Copies the code of a plan into the run's folder. `state` waits for what git tells of it; for
    the copy git is waited for `limit` seconds, and is then done without.

    Raises `OSError`; nothing is left of the copy then.
    """
    patience = Patience(limit)
    found = code_of(plan, patience)

    def copy_into(part: str) -> str | None:
        make_folders(found.top, part, found.files)
        return _copy_all(found, part, run_folder, patience)

    return freeze_as(plan, run_folder, found, copy_into, state)


def code_of(plan: Plan, patience: Patience) -> CodeFiles:
    """The files of the code of a plan, as they are now."""
    return code_files(plan.working_directory, plan.experiments, plan.scripts(), patience)


def freeze_as(
    plan: Plan, run_folder: str, code: CodeFiles, copy_into: Callable[[str], str | None],
    state: Callable[[], Git],
) -> Frozen:  # fmt: skip
    """Freezes what `copy_into` puts into a folder that it makes; it returns what git calls that.
    What is no `code` is linked. Otherwise as `freeze`."""
    part = unfinished(layout.code_folder(run_folder))
    try:
        tree = copy_into(part)
        place = os.path.relpath(plan.working_directory, code.top)
        os.makedirs(f"{part}/{place}", exist_ok=True)
        files = {
            path[len(part) + 1 :]: stamp(status)
            for path, status in everything_below(part)
            if not stat.S_ISDIR(status.st_mode)
        }
        links = sorted(_link_rest(code, part))
        git = state()
        record = FrozenFile(
            top=code.top,
            place=place,
            tree=tree,
            git=git.state,
            files=files,
            links=links,
            untracked=sorted(code.files.keys() - code.tracked),
            named=[each for each in links if f"{code.top}/{each}" != str(plan.experiments)],
        )
        frozen = Frozen(run_folder, code.top, record, git)
        frozen.write()
        os.rename(part, frozen.folder)
    except OSError:
        remove(part)
        raise
    return frozen


def make_folders(top: str, part: str, files: Iterable[str]) -> None:
    """Makes the folders that hold files, each as open as its original."""
    folders = set[str]()
    for path in files:
        folder = os.path.dirname(path)
        while folder and folder not in folders:
            folders.add(folder)
            folder = os.path.dirname(folder)
    os.mkdir(part)
    for folder in sorted(folders):
        original = lstat(f"{top}/{folder}")
        mode = 0o777 if original is None else stat.S_IMODE(original.st_mode)
        os.mkdir(f"{part}/{folder}", mode | stat.S_IRWXU)


def _copy_all(found: CodeFiles, part: str, run_folder: str, patience: Patience) -> str | None:
    """Copies the files: by git's object store where there is one, each for itself where it is large
    or git does not keep it. Returns what git calls the code."""
    top = Path(found.top)
    files = {path: each for path, each in found.files.items() if stat.S_ISREG(each.st_mode)}
    links = [path for path in found.files if path not in files]
    for path in links:
        with suppress(FileNotFoundError):
            os.symlink(_target(found.top, path), f"{part}/{path}")
    small = [
        path
        for path, status in files.items()
        if status.st_size < code_store.LARGEST
        and (path in found.tracked or not _is_private(status))
    ]
    names = code_store.keep(top, small, patience) if found.tracked else None
    if names is not None:
        sizes = [files[path].st_size for path in small]
        contents = code_store.read(top, names, sizes, patience)
        for path, content in zip(small, contents, strict=True):
            if content is not None:
                _write(f"{part}/{path}", content, files.pop(path))
    for path, status in files.items():
        # Files of editors come and go
        with suppress(FileNotFoundError):
            _copy(f"{found.top}/{path}", f"{part}/{path}", status)
    if names is None or len(small) + len(links) < len(found.files):
        # Not all of it is kept
        return None
    entries = {
        path: ("100755" if found.files[path].st_mode & stat.S_IXUSR else "100644", name)
        for path, name in zip(small, names, strict=True)
    }
    for path in links:
        target = os.fsencode(os.readlink(f"{found.top}/{path}"))
        entries[path] = "120000", code_store.keep_text(top, target, patience) or ""
    return code_store.keep_tree(top, entries, run_folder, patience)


def _is_private(status: os.stat_result) -> bool:
    """Whether the owner lets nobody else read a file, as one that holds keys. In git's object store
    others could."""
    return not status.st_mode & (stat.S_IRGRP | stat.S_IROTH)


def _target(top: str, path: str) -> str:
    """Where the copy of a link leads: within the copy if the link leads to what is copied too."""
    target = os.readlink(f"{top}/{path}")
    folder = os.path.dirname(path)
    absolute = os.path.normpath(os.path.join(top, folder, target))
    is_inside = absolute == top or absolute.startswith(f"{top}/")
    if not is_inside:
        return absolute
    return os.path.relpath(absolute, f"{top}/{folder}") if os.path.isabs(target) else target


def _write(path: str, content: bytes, status: os.stat_result) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _mode(status))
    try:
        write_all(fd, content)
        os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(fd)


def _copy(source: str, target: str, status: os.stat_result) -> None:
    reading = open_regular(source, os.O_RDONLY)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _mode(status))
        try:
            if not _shares_blocks(reading, writing):
                copy_bytes(reading, writing)
            os.utime(writing, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _shares_blocks(reading: int, writing: int) -> bool:
    """Has one file share the blocks of another, where the file system can."""
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(writing, FICLONE, reading)
    except OSError:
        return False
    return True


def _mode(status: os.stat_result) -> int:
    return stat.S_IMODE(status.st_mode) & 0o777 | stat.S_IRUSR | stat.S_IWUSR


def _link_rest(code: CodeFiles, part: str) -> Iterator[str]:
    """Links what was not copied, as a whole folder where nothing in it was."""
    folders = [""]
    for folder in folders:
        copied = {each.name: each for each in entries_of(f"{part}/{folder}")}
        below = (each for each in copied.values() if each.is_dir(follow_symlinks=False))
        folders += [f"{folder}{each.name}/" for each in below]
        # The top itself may be reached by a link
        if folder and not is_folder(f"{code.top}/{folder}".rstrip("/")):
            continue
        for entry in entries_of(f"{code.top}/{folder}"):
            path = f"{folder}{entry.name}"
            if entry.name in copied or path in code.files or not is_code(entry.name):
                continue
            os.symlink(f"{code.top}/{path}", f"{part}/{path}")
            yield path
