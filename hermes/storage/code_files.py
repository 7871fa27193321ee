"""Which files are the code of a working directory: what git tracks, and what it does not ignore and
is small. Where there is no git, what is small. All of this blocks.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..language.settings import SETTINGS_FILE
from .asking import Patience
from .files import entries_of, lstat
from .git import ask_git, below_home, but_for, top_of
from .layout import RUNS

LARGE = 1_000_000
"""Bytes from which on an untracked file is taken for data."""

MANY, MUCH = 2000, 100_000_000
"""Files, or bytes in them, beyond which an untracked folder is taken for data, however small each
file is."""

MOST = 20_000
"""Files that are copied without git: those of the folders nearest to the top. A working directory
may be somebody's home."""

NOT_CODE = frozenset({".git", RUNS, "__pycache__"})
"""What a copy of the code has no part of: Python would write what it compiles from the copy to
where it looks for what belongs to the original."""


class CodeFiles(NamedTuple):
    """The code, with paths relative to `top`: regular files and symbolic links.

    `top` is what git says that the repository is, or the working directory. `tracked` of the files
    are known to git.
    """

    top: str
    files: dict[str, os.stat_result]
    tracked: frozenset[str]


def code_files(
    working_directory: Path, experiments: Path, scripts: Iterable[str], patience: Patience
) -> CodeFiles:
    """The files of the code as they are now. `experiments` are none of it; `scripts`, paths
    relative to the working directory, are part of it even if git ignores them."""
    top = top_of(working_directory)
    if top is not None:
        listed = _listed(top, below_home(top, working_directory), experiments, patience)
        place = os.path.relpath(working_directory, top)
        if listed is not None and (place == "." or _holds(listed, place)):
            tracked, others = listed
            others += _inside(str(top), [f"{working_directory}/{each}" for each in scripts])
            return _chosen(str(top), tracked, others)
    top = working_directory
    return _chosen(str(top), [], _below(str(top), str(experiments)))


def is_code(name: str) -> bool:
    """Whether what has this name may be part of the code."""
    return name not in NOT_CODE and not name.endswith(".pyc")


def _chosen(top: str, tracked: Iterable[str], others: Iterable[str]) -> CodeFiles:
    known = dict(_there(top, tracked))
    small = {
        path: status
        for path, status in _there(top, others)
        if path not in known and status.st_size < LARGE and not _may_hold_secrets(path)
    }
    folders = {folder for path in known for folder in _above(path)}
    data = _data(small, folders)
    small = {path: at for path, at in small.items() if data.isdisjoint(_above(path))}
    return CodeFiles(top, {**known, **small}, frozenset(known))


def _may_hold_secrets(path: str) -> bool:
    """Whether an untracked file must not be copied to where git keeps it for others to read."""
    return os.path.basename(path) == SETTINGS_FILE


def _there(top: str, paths: Iterable[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Files and links, but not what is behind a link."""
    real: dict[str, bool] = {"": True}

    def is_real(folder: str) -> bool:
        if folder not in real:
            parent = os.path.dirname(folder)
            status = lstat(f"{top}/{folder}") if is_real(parent) else None
            real[folder] = status is not None and stat.S_ISDIR(status.st_mode)
        return real[folder]

    for path in paths:
        folder, name = os.path.split(path)
        if not is_code(name) or not is_real(folder):
            continue
        try:
            status = os.lstat(f"{top}/{path}")
        except OSError:
            # Deleted, and not committed yet
            continue
        if stat.S_ISLNK(status.st_mode) or (
            stat.S_ISREG(status.st_mode) and os.access(f"{top}/{path}", os.R_OK)
        ):
            yield path, status


def _data(files: dict[str, os.stat_result], code: set[str]) -> set[str]:
    """The innermost folders that hold so much that they are data. `code` are folders that hold
    tracked files."""
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for path, status in files.items():
        for folder in _above(path):
            if folder not in code:
                count[folder] += 1
                size[folder] += status.st_size
    data = set()
    for folder in sorted(count, key=lambda path: -path.count("/")):
        if count[folder] > MANY or size[folder] > MUCH:
            data.add(folder)
            for above in _above(folder):
                count[above] -= count[folder]
                size[above] -= size[folder]
    return data


def _above(path: str) -> Iterator[str]:
    while path := os.path.dirname(path):
        yield path


def _listed(
    repository: Path, within: str, experiments: Path, patience: Patience
) -> tuple[list[str], list[str]] | None:
    """What git tracks below a repository, and what it neither tracks nor ignores; None if it does
    not tell. Other repositories in it, submodules or not, are asked themselves."""
    staged = ask_git(repository, ("ls-files", "-z", "--stage", "--", within), patience)
    without = but_for(repository, experiments)
    untracked = ("ls-files", "-z", "--others", "--exclude-standard", "--", within, *without)
    found = ask_git(repository, untracked, patience)
    if staged.failed is not None or found.failed is not None:
        return None
    tracked: list[str] = []
    others: list[str] = []
    inner: list[str] = []
    for entry in dict.fromkeys(staged.output.split(b"\0")[:-1]):
        head, _, name = entry.partition(b"\t")
        (inner if head.startswith(b"160000") else tracked).append(os.fsdecode(name))
    for name in found.output.split(b"\0")[:-1]:
        path = os.fsdecode(name)
        (inner if path.endswith("/") else others).append(path.rstrip("/"))
    for path in inner:
        if not os.path.lexists(repository / path / ".git"):
            continue
        below = _listed(repository / path, ":/", experiments, patience)
        if below is None:
            return None
        tracked += [f"{path}/{each}" for each in below[0]]
        others += [f"{path}/{each}" for each in below[1]]
    return list(dict.fromkeys(tracked)), others


def _inside(top: str, paths: Iterable[str]) -> Iterator[str]:
    for path in map(os.path.normpath, paths):
        if path.startswith(f"{top}/"):
            yield path[len(top) + 1 :]


def _holds(listed: tuple[list[str], list[str]], place: str) -> bool:
    return any(path.startswith(f"{place}/") for paths in listed for path in paths)


def _below(top: str, experiments: str) -> Iterator[str]:
    """Files below a folder that may be code, those near the top first."""
    pending = [top]
    count = 0
    for folder in pending:
        if count > MOST:
            return
        try:
            entries = entries_of(folder)
        except OSError:
            continue
        names = {entry.name for entry in entries}
        if folder != top and (len(entries) > MANY or "pyvenv.cfg" in names):
            continue
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                count += 1
                yield entry.path[len(top) + 1 :]
            elif is_code(entry.name) and entry.name != "node_modules" and entry.path != experiments:
                pending.append(entry.path)
