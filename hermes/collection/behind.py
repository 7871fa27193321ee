"""What lies behind the directory links of a working directory: looked at when jobs end, and never
while they run. All of this blocks.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .claims import SHORTEST
from .tree import GONE, Tree, entries_and_status, links_in

MAX_FOLDERS = 10_000
"""Directories that are looked at behind links: a link may lead to a whole archive."""

Visit = Callable[[str, tuple[int, int]], bool]
"""Takes a path, which may be a job's, its device and inode. Returns whether it is a job's, and not
to be searched."""


class _Folder(NamedTuple):
    """A directory when it was last read. `below` are the directories and the links in it."""

    device: int
    inode: int
    modified: int
    changed: int
    read_at: int
    below: tuple[tuple[str, bool], ...]
    """Paths, and whether they are links."""


class Behind:
    """The directories behind links of a tree, as they were when they were last read.

    Each is looked at once, however many links lead to it, and never if it is part of the tree, of
    `experiments` or of the folder `but`, or around the tree. Paths go through the links.
    """

    def __init__(
        self, tree: Tree, experiments: str, visit: Visit, clock_grain: float, but: str | None
    ) -> None:
        self.is_cut = False
        """Whether there is more than can be looked at."""

        self.closed: dict[str, OSError] = {}
        """Directories that could not be read."""

        self.roots: dict[str, str] = {}
        """From the real path of a directory to the link that leads to it."""

        self._tree = tree
        self._not_behind = [tree.top, experiments, *([but] if but is not None else [])]
        self._visit = visit
        self._clock_grain = int(clock_grain * 1e9)
        self._folders: dict[str, _Folder] = {}
        self._links: dict[str, dict[str, str | None]] = {}

    def __contains__(self, path: str) -> bool:
        return path in self._folders

    def absolute(self, path: str) -> str:
        return self._tree.absolute(path)

    def links(self) -> Iterator[tuple[str, str, str]]:
        return links_in(self._links, self.absolute)

    def forget(self) -> None:
        """All of it is read again."""
        self._folders.clear()
        self._links.clear()

    def scan(self) -> None:
        """Visits what may have come. Directories that have not changed are not read again."""
        pending = [(path, True) for path in reversed(self._tree.link_paths())]
        if not pending and not self._folders:
            return
        seen = self._tree.inodes()
        found: dict[str, _Folder] = {}
        self.roots.clear()
        self.closed.clear()
        while pending:
            path, is_link = pending.pop()
            folder = self._look(path, is_link=is_link, seen=seen)
            if folder is None:
                continue
            if len(found) == MAX_FOLDERS:
                self.is_cut = True
                break
            found[path] = folder
            seen.add((folder.device, folder.inode))
            pending += reversed(folder.below)
        self._folders = found
        self._links = {path: links for path, links in self._links.items() if path in found}

    def _look(self, path: str, *, is_link: bool, seen: set[tuple[int, int]]) -> _Folder | None:
        absolute = self._tree.absolute(path)
        try:
            status = os.stat(absolute)
        except OSError:
            # It leads nowhere, or nowhere that is ours to enter
            return None
        if not stat.S_ISDIR(status.st_mode) or (status.st_dev, status.st_ino) in seen:
            return None
        if is_link:
            real = os.path.realpath(absolute)
            if self._leads_back(real):
                return None
            self.roots[real] = path
        known = self._folders.get(path)
        stamp = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        if known is None or known[:4] != stamp:
            return self._read(path, absolute)
        is_settled = known.read_at - known.changed >= self._clock_grain
        return known if is_settled else self._read(path, absolute)

    def _leads_back(self, real: str) -> bool:
        """Whether a link leads to where it is not followed, or around the working directory, by its
        real path.
        """
        top, *others = map(os.path.realpath, self._not_behind)
        inside = any(f"{real}/".startswith(f"{each}/") for each in (top, *others))
        return inside or f"{top}/".startswith(f"{real.rstrip('/')}/")

    def _read(self, path: str, absolute: str) -> _Folder | None:
        read_at = time.time_ns()
        try:
            status, entries = entries_and_status(absolute)
        except OSError as exc:
            if exc.errno not in GONE:
                self.closed[path] = exc
            return None
        if any(entry.name == "pyvenv.cfg" for entry in entries):
            entries = []
        below = []
        links: dict[str, str | None] = {}
        for entry in entries:
            inner = f"{path}/{entry.name}"
            if len(entry.name) >= SHORTEST and self._visit(inner, (status.st_dev, entry.inode)):
                continue
            if entry.is_link:
                links[entry.name] = None
                below.append((inner, True))
            elif entry.is_folder and self._tree.is_searched(inner):
                below.append((inner, False))
        self._links[path] = links
        return _Folder(
            status.st_dev,
            status.st_ino,
            status.st_mtime_ns,
            status.st_ctime_ns,
            read_at,
            tuple(below),
        )
