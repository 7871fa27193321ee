"""The code in git's own object store: kept as it is on the disk, under a name, and read again.

Nothing else of a repository is written: no index, branch, stash, reflog or hook has a part in it.
What is kept here goes with `git gc`, in two weeks at the earliest. All of this blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .asking import Patience
from .files import unfinished
from .git import ask_git

LARGEST = 1_000_000
"""Bytes up to which a file is kept: to pack a larger one takes longer than to copy it."""

BATCH = 32_000_000
"""Bytes that are read at once, so that a large repository fills no memory."""


def keep(top: Path, paths: Sequence[str], patience: Patience) -> list[str] | None:
    """Keeps files, byte for byte: filters, as for line ends, have no part in it. Returns what git
    calls each content; None if it cannot keep them."""
    if not paths:
        return []
    # Names are given a line each
    words = ("hash-object", "-w", "--no-filters", "--stdin-paths")
    if any("\n" in path or path.startswith('"') for path in paths):
        return None
    answer = ask_git(top, words, patience, stdin=b"".join(os.fsencode(p) + b"\n" for p in paths))
    names = answer.output.decode("ascii", "replace").split()
    return names if answer.failed is None and len(names) == len(paths) else None


def keep_text(top: Path, text: bytes, patience: Patience) -> str | None:
    """The same for the target of a link."""
    answer = ask_git(top, ("hash-object", "-w", "--stdin"), patience, stdin=text)
    return answer.output.decode("ascii", "replace").strip() if answer.failed is None else None


def keep_tree(
    top: Path, entries: Mapping[str, tuple[str, str]], folder: str, patience: Patience
) -> str | None:
    """Gives all of it one name. `entries` are mode and content by path; `folder` is for an index of
    our own, for a moment."""
    index = unfinished(f"{folder}/index")
    lines = b"".join(
        f"{mode} {name}\t".encode() + os.fsencode(path) + b"\0"
        for path, (mode, name) in entries.items()
    )
    try:
        words = ("update-index", "-z", "--add", "--index-info")
        if ask_git(top, words, patience, stdin=lines, index=index).failed is not None:
            return None
        answer = ask_git(top, ("write-tree",), patience, index=index)
        tree = answer.output.decode("ascii", "replace").strip()
        return tree if answer.failed is None else None
    finally:
        if os.path.exists(index):
            os.unlink(index)


def read(
    top: Path, names: Sequence[str], sizes: Sequence[int], patience: Patience
) -> Iterator[bytes | None]:
    """What was kept, in this order; None is what cannot be read. `sizes` are about what to
    expect."""
    start, size = 0, 0
    for index, each in enumerate(sizes):
        size += each
        if size > BATCH or index == len(sizes) - 1:
            yield from _read(top, names[start : index + 1], patience)
            start, size = index + 1, 0


def _read(top: Path, names: Sequence[str], patience: Patience) -> Iterator[bytes | None]:
    asked = "".join(f"{name}\n" for name in names).encode()
    data = memoryview(ask_git(top, ("cat-file", "--batch"), patience, stdin=asked).output)
    start = 0
    for name in names:
        end = bytes(data[start : start + 200]).find(b"\n")
        head = bytes(data[start : start + max(end, 0)]).split()
        if len(head) != 3 or head[0] != name.encode():
            yield None
            continue
        start, size = start + end + 1, int(head[2])
        content = bytes(data[start : start + size])
        yield content if len(content) == size else None
        start += size + 1
