"""Hard links and symbolic links in two places at once, and by what they are told apart. All of this
blocks.
"""

from __future__ import annotations

import os
import stat

from ..storage.files import free_name, lstat, unfinished

Key = tuple[int, int] | str
"""What a path held when it was collected: device and inode of a file, target of a symbolic link."""


def key_of(absolute: str, status: os.stat_result) -> Key | None:
    """None for what cannot be collected. Raises `OSError`."""
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(absolute)
    return inode_of(status) if stat.S_ISREG(status.st_mode) else None


def inode_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def link_beside(source: str, target: str, key: Key) -> str:
    """Links `source` to `target`, or beside it where something else already is. Gives the name that
    it got.
    """
    free = target
    while True:
        try:
            _hard_link(source, free, key)
            return free
        except FileExistsError:
            there = lstat(target)
            if there is not None and inode_of(there) == key:
                return target
            free = free_name(target)


def _hard_link(source: str, target: str, key: Key) -> None:
    if isinstance(key, str):
        os.symlink(key, target)
    else:
        os.link(source, target, follow_symlinks=False)


def replace(source: str, target: str, key: Key) -> None:
    """Links `source` to `target`, in one step, in the place of what is there."""
    temporary = unfinished(target)
    _hard_link(source, temporary, key)
    try:
        os.replace(temporary, target)
    except OSError:
        os.unlink(temporary)
        raise
