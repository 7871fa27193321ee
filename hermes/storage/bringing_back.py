"""What jobs wrote into frozen code and nobody has collected: it comes to where it would be without
`freeze`, and over nothing that has changed there meanwhile. All of this blocks.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from ..errors import escape
from ..model import Problem, ProblemKind
from .code_files import is_code
from .copying import copy
from .files import (
    NO_LINKS,
    beside,
    entries_of,
    lstat,
    real_folder,
    remove,
    rename_new,
    same_content,
    unfinished,
)
from .frozen import Frozen, stamp

BROUGHT = frozenset({stat.S_IFREG, stat.S_IFLNK})
"""Regular files and links; all else means nothing to those who come later."""


class Brought(NamedTuple):
    """`told` is what people are to be told: what could not be brought, and what was put beside
    something else. `is_all` says whether nothing is left that could not be brought."""

    told: list[str]
    is_all: bool


def bring_back(frozen: Frozen) -> Brought:
    """Brings it to the original of the frozen code. What is changed again later can be brought
    again."""
    told: list[str] = []
    is_new, is_all = False, True

    def could_not_look(folder: str, exc: OSError) -> None:
        nonlocal is_all
        is_all = isinstance(exc, FileNotFoundError) and is_all
        told.append(f"`{escape(folder)}` could not be looked into: {exc.strerror}")

    try:
        for path in _written(frozen, could_not_look):
            is_new = True
            try:
                stored = _bring(frozen, path)
            except OSError as exc:
                is_all = False
                told.append(f"{_said(frozen, path)} could not be brought here: {exc.strerror}")
                continue
            if stored != path:
                told.append(
                    f"{_said(frozen, path)}, and that was changed here meanwhile: what the jobs "
                    f"wrote is `{escape(stored)}`"
                )
        if is_new:
            frozen.write()
    except OSError as exc:
        # What was brought would be brought again
        told.append(f"`{escape(frozen.run_folder)}` could not be written to: {exc.strerror}")
    return Brought(told, is_all)


def _said(frozen: Frozen, path: str) -> str:
    return f"jobs wrote `{escape(path)}` into the frozen code"


def _written(frozen: Frozen, could_not_look: Callable[[str, OSError], None]) -> Iterator[str]:
    """Paths of files and links of the copy that were not there as the run began, or have been
    changed since."""
    links = set(frozen.record.links)
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            entries = entries_of(f"{frozen.folder}/{folder}")
        except OSError as exc:
            could_not_look(f"{frozen.folder}/{folder}", exc)
            continue
        for entry in entries:
            path = f"{folder}{entry.name}"
            if not is_code(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(f"{path}/")
                continue
            status = lstat(entry.path)
            is_ours = entry.is_symlink() and path in links
            if status is None or is_ours or stat.S_IFMT(status.st_mode) not in BROUGHT:
                continue
            if stamp(status) != _known(frozen, path):
                yield path


def _known(frozen: Frozen, path: str) -> tuple[int, int] | None:
    """What copy and original both had when they were last the same."""
    return frozen.record.brought.get(path) or frozen.record.files.get(path)


def _bring(frozen: Frozen, path: str) -> str:
    """Brings one file or link. Returns where it is now, relative to the original. Raises
    `OSError`."""
    source, target = f"{frozen.folder}/{path}", f"{frozen.top}/{path}"
    status, there = os.lstat(source), lstat(target)
    stored = target
    is_same = there is not None and (
        os.path.samestat(status, there) or same_content(source, target)
    )
    if not is_same:
        if not real_folder(frozen.top, os.path.dirname(path)):
            raise NotADirectoryError(errno.ENOTDIR, "something else is in the place of its folder")
        part = unfinished(target)
        try:
            _put(source, part, is_code=path in frozen.record.files)
            if there is not None and stamp(there) == _known(frozen, path):
                # Nobody but jobs has changed it
                os.replace(part, target)
            else:
                stored = beside(target, partial(rename_new, part))
        finally:
            remove(part)
    frozen.record.brought[path] = stamp(status)
    return stored[len(frozen.top) + 1 :]


def _put(source: str, part: str, *, is_code: bool) -> None:
    """A second name for what only jobs wrote, however large it is; a copy of code, because people
    edit it in place."""
    if not is_code:
        try:
            os.link(source, part, follow_symlinks=False)
            return
        except OSError as exc:
            if exc.errno not in NO_LINKS:
                raise
    problems: list[Problem] = []
    copy(source, part, problems.append, kind=ProblemKind.NOT_COPIED)
