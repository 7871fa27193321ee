"""The files that were in no commit when an experiment ran: without `freeze` nothing is kept of them
but the names of some, in its patch. This blocks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import HermesError, escape
from ..language.plan import Plan
from .asking import Patience
from .code_then import CodeThen
from .files import lstat
from .freezing import code_of
from .git import ask_git
from .metadata import Metadata

NAMED = 5
"""Files that are named in a message."""

_UNTRACKED = re.compile(rb"^# untracked: (.*)$", re.MULTILINE)
_MORE = re.compile(rb"[0-9]+ more")


class Untracked(NamedTuple):
    """Files, relative to the top of the code, that are as they were then, and what people should
    know."""

    files: tuple[str, ...]
    told: tuple[str, ...]


def untracked_then(then: CodeThen, metadata: Metadata, plan: Plan, limit: float) -> Untracked:
    """The untracked code of an experiment that has not changed since it began; git is waited for so
    many seconds.

    Raises `HermesError` if one of those files that are known to have been there has changed. What
    git ignores is no code.
    """
    if then.tree is None or then.is_raw:
        # Kept with the rest
        return Untracked((), ())
    patience = Patience(limit)
    words = ("ls-tree", "-r", "-z", "--name-only", "--full-tree", then.tree)
    kept = set(map(os.fsdecode, ask_git(then.top, words, patience).output.split(b"\0")))
    now = code_of(plan, patience)
    began = int(metadata.start.timestamp() * 1e9) if metadata.start is not None else 0
    named, is_complete = _named(then.git.patch)
    found: list[str] = []
    changed: list[str] = []
    gone: list[str] = []
    for path in named - kept:
        status = lstat(f"{then.top}/{path}")
        if status is None:
            gone.append(path)
        elif path in now.files:
            (found if status.st_mtime_ns <= began else changed).append(path)
    if changed:
        raise HermesError(
            f"the code of `{escape(metadata.identifier)}` is not known any more: "
            f"{_listed(changed)} was in no commit, and has changed since",
            hint="what git ignores is taken for data, and used as it is now",
        )
    if not is_complete:
        others = now.files.keys() - now.tracked - kept - named
        found += [path for path in others if now.files[path].st_mtime_ns <= began]
    told = f"{_listed(gone)} was in no commit, and is gone: the job runs without it"
    return Untracked(tuple(sorted(found)), (told,) if gone else ())


def _named(patch: bytes | None) -> tuple[set[str], bool]:
    """The untracked files that a patch names, and whether these are all there were."""
    if patch is None:
        return set(), False
    names = _UNTRACKED.findall(patch.partition(b"\ndiff --git ")[0])
    known = {_unquoted(name) for name in names if not _MORE.fullmatch(name)}
    return known, len(known) == len(names)


def _unquoted(name: bytes) -> str:
    """A path as git writes it: in quotes, with escapes, if there is anything unusual in it."""
    if name.startswith(b'"') and name.endswith(b'"'):
        name = name[1:-1].decode("unicode_escape").encode("latin-1")
    return os.fsdecode(name)


def _listed(paths: Iterable[str]) -> str:
    names = [f"`{escape(path)}`" for path in sorted(paths)]
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
