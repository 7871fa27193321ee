"""Everything of a folder that a change would change."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def snapshot(top: Path, *left_out: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a folder with all that a change would change."""
    found: dict[str, tuple[object, ...]] = {}
    pending = [top]
    while pending:
        path = pending.pop()
        if path in left_out:
            continue
        status = path.lstat()
        content: object = None
        if stat.S_ISDIR(status.st_mode):
            content = sorted(path.iterdir())
            pending += path.iterdir()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        found[str(path)] = (
            status.st_mode,
            status.st_ino,
            status.st_nlink,
            status.st_uid,
            status.st_size,
            status.st_mtime_ns,
            content,
        )
    return found
