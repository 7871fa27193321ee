"""What file systems can be relied on for."""

from __future__ import annotations

import os
import re

LOCAL = frozenset({
    "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "reiserfs",
    "tmpfs", "ufs", "xfs", "zfs",
})  # fmt: skip
"""File systems of Linux on which the locks of one process are seen by all others."""

_OCTAL = re.compile(r"\\([0-7]{3})")


def has_locks(folder: str) -> bool:
    """Whether locks in a folder hold between processes: not on network disks, and not where the
    system does not tell which file system it is."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return kind_of(os.path.realpath(folder), file.read()) in LOCAL
    except OSError:
        return False


def kind_of(path: str, mounts: str) -> str:
    """The file system that a path without links is on, as Linux tells it (proc(5), `mountinfo`);
    empty if it does not."""
    best, kind = "", ""
    for line in mounts.splitlines():
        own, _, rest = line.partition(" - ")
        fields = own.split(" ")
        if len(fields) < 5 or not rest:
            continue
        point = _OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4]).rstrip("/")
        # Of several on one folder the last one is seen
        if (path == point or path.startswith(f"{point}/")) and len(point) >= len(best):
            best, kind = point, rest.split(" ")[0]
    return kind
