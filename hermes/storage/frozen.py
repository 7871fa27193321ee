"""The code of a run with `freeze`, as it was when the run began: a copy, in which the jobs run.

    <run folder>/code/          a copy of the repository, or of the working directory alone
    <run folder>/frozen.json    which files were copied, and which are links to the original

All of this blocks.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import HermesError
from ..language.plan import Plan
from ..model import Job
from . import code_store, layout
from .asking import Patience
from .code import CodeAtStart
from .code_files import CodeFiles, code_files, is_code
from .copying import copy_bytes
from .files import (
    entries_of,
    lstat,
    open_regular,
    read_regular,
    remove,
    unfinished,
    write_all,
    write_atomic,
)
from .git import Git
from .layout import FROZEN
from .metadata import FrozenCode, GitState, decoded, encoded

NAMED = 20
"""Files and folders that were not copied and are named in the metadata of each job."""

FICLONE = 0x40049409
"""The request by which Linux lets two files share their blocks until one is written to."""


class FrozenFile(msgspec.Struct, kw_only=True):
    """What stands in `frozen.json`.

    `place` is the working directory relative to the top of what was copied, and `top` where that
    was. `files` are what was copied, by path, with size and time of the last change (nanoseconds)
    of the copy, and `untracked` those of them that are in no commit. `links` are the paths that
    lead to the original, and `named` those of them of which people are told. `brought` is what jobs
    wrote and was brought to the original, as `files`. `git` is the state of the code, `tree` what
    git calls it.
    """

    format: int = layout.FORMATS[FROZEN]
    top: str
    place: str
    tree: str | None
    git: GitState
    files: dict[str, tuple[int, int]]
    untracked: list[str]
    links: list[str]
    named: list[str]
    brought: dict[str, tuple[int, int]] = {}


@dataclass(frozen=True, slots=True)
class Frozen:
    """The frozen code of one run. `run_folder` is the run's, `top` the original of the copy."""

    run_folder: str
    top: str
    record: FrozenFile
    git: Git

    @property
    def folder(self) -> str:
        """The copy of `top`."""
        return layout.code_folder(self.run_folder)

    @property
    def working_directory(self) -> str:
        """The copy of the working directory."""
        return os.path.normpath(f"{self.folder}/{self.record.place}")

    @property
    def metadata(self) -> FrozenCode:
        named = self.record.named
        return FrozenCode(
            folder=self.working_directory,
            tree=self.record.tree,
            linked=tuple(named[:NAMED]),
            count_linked=len(named),
        )

    @property
    def is_whole(self) -> bool:
        """Whether no file has lost its content, as when the machine lost its power soon after it
        was copied. Jobs may have changed files, or removed them."""
        for path, (size, modified) in self.record.files.items():
            status = lstat(f"{self.folder}/{path}")
            if status is not None and status.st_mtime_ns == modified and status.st_size != size:
                return False
        return True

    def at_start(self, job: Job) -> CodeAtStart:
        """The state of the code with which a job starts: that of then, for its script."""
        path = os.path.normpath(os.path.join(self.record.place, job.argv[job.position]))
        git, state = self.git, self.git.state
        reason = f"the script `{path}` is in no commit: it is untracked or ignored"
        is_untracked = state.commit is not None and path in self.record.untracked
        if is_untracked and reason not in (state.reason or ""):
            state = msgspec.structs.replace(git.with_reason(reason).state, dirty=True)
            git = git._replace(state=state)
        return CodeAtStart.known(git)

    def copy_of(self, path: str) -> str | None:
        """The copy of a file or folder of the original, given by its absolute path; None if it has
        none."""
        path = os.path.normpath(path)
        if f"{path}/".startswith(f"{self.run_folder}/"):
            return None
        folder = os.path.realpath(self.folder)
        for top in dict.fromkeys((self.top, os.path.realpath(self.top))):
            if f"{path}/".startswith(f"{top}/"):
                copy = f"{self.folder}{path[len(top) :]}"
                is_copied = os.path.exists(copy)
                if is_copied and f"{os.path.realpath(copy)}/".startswith(f"{folder}/"):
                    return copy
        return None

    def behind_link(self, path: str) -> str:
        """The path of what a link in the copy leads to, as it is in the original; other paths as
        they are."""
        rest = path.removeprefix(self.folder)
        is_inside = path.startswith(f"{self.folder}/")
        real = os.path.realpath(path)
        is_copied = real.startswith(f"{os.path.realpath(self.folder)}/")
        return f"{self.top}{rest}" if is_inside and not is_copied else path

    def variables(self, environment: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """What of a job's environment leads to the original, and is to lead to the copy."""
        found = {}
        if b"PWD" in environment:
            found[b"PWD"] = os.fsencode(self.working_directory)
        if imported := environment.get(b"PYTHONPATH"):
            folders = [os.fsdecode(each) for each in imported.split(os.fsencode(os.pathsep))]
            led = [(os.path.isabs(each) and self.copy_of(each)) or each for each in folders]
            found[b"PYTHONPATH"] = os.fsencode(os.pathsep.join(led))
        return found

    def write(self) -> None:
        """Replaces the record. Raises `OSError`."""
        write_atomic(f"{self.run_folder}/{FROZEN}", encoded(self.record), sync=True)


def load_frozen(run_folder: str, working_directory: str, *, verify: bool = False) -> Frozen | None:
    """The frozen code of a run, whose working directory is here now; None if there is none, or not
    a whole one. With `verify` each file is looked at."""
    path = f"{run_folder}/{FROZEN}"
    try:
        record = decoded(read_regular(path), FrozenFile, file=FROZEN, path=path)
    except (OSError, HermesError):
        return None
    top = working_directory
    if record.place != ".":
        top = working_directory.removesuffix(f"/{record.place}")
    patch = None
    with suppress(OSError):
        patch = read_regular(f"{run_folder}/{layout.PATCH}")
    frozen = Frozen(run_folder, top, record, Git(record.git, patch))
    if not os.path.isdir(frozen.working_directory) or (verify and not frozen.is_whole):
        return None
    if top != record.top:
        _lead_anew(frozen)
    return frozen


def freeze(plan: Plan, run_folder: str, state: Callable[[], Git], limit: float) -> Frozen:
    """Copies the code of a plan into the run's folder. `state` waits for what git tells of it; for
    the copy git is waited for `limit` seconds, and is then done without.

    Raises `OSError`; nothing is left of the copy then.
    """
    patience = Patience(limit)
    working_directory = plan.working_directory
    found = code_files(working_directory, plan.experiments, plan.scripts(), patience)
    part = unfinished(layout.code_folder(run_folder))
    try:
        os.mkdir(part)
        place = os.path.relpath(working_directory, found.top)
        folders = _folders(found.files, place)
        for folder in sorted(folders - {""}):
            mode = stat.S_IMODE(os.stat(f"{found.top}/{folder}").st_mode)
            os.mkdir(f"{part}/{folder}", mode | stat.S_IRWXU)
        tree = _copy_all(found, part, run_folder, patience)
        links = sorted(_link_rest(found, folders, part))
        git = state()
        record = FrozenFile(
            top=found.top,
            place=place,
            tree=tree,
            git=git.state,
            files=dict(_stamps(part, found.files)),
            links=links,
            untracked=sorted(found.files.keys() - found.tracked),
            named=[each for each in links if f"{found.top}/{each}" != str(plan.experiments)],
        )
        frozen = Frozen(run_folder, found.top, record, git)
        frozen.write()
        os.rename(part, frozen.folder)
    except OSError:
        remove(part)
        raise
    return frozen


def _folders(files: Iterable[str], place: str) -> set[str]:
    """The folders that hold what is copied, and the working directory."""
    folders = {""}
    for path in (*files, f"{place}/x"):
        folder = os.path.dirname(os.path.normpath(path))
        while folder not in folders:
            folders.add(folder)
            folder = os.path.dirname(folder)
    return folders


def _copy_all(found: CodeFiles, part: str, run_folder: str, patience: Patience) -> str | None:
    """Copies the files: by git's object store where there is one, each for itself where it is large
    or git does not keep it. Returns what git calls the code."""
    top = Path(found.top)
    files = {path: each for path, each in found.files.items() if stat.S_ISREG(each.st_mode)}
    links = [path for path in found.files if path not in files]
    for path in links:
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


def _link_rest(found: CodeFiles, folders: set[str], part: str) -> Iterator[str]:
    """Links what was not copied, as a whole folder where nothing in it was."""
    for folder in folders:
        prefix = f"{folder}/" if folder else ""
        for entry in entries_of(f"{found.top}/{folder}"):
            path = f"{prefix}{entry.name}"
            if path in found.files or path in folders or not is_code(entry.name):
                continue
            os.symlink(f"{found.top}/{path}", f"{part}/{path}")
            yield path


def stamp(status: os.stat_result) -> tuple[int, int]:
    """By which one sees whether a file was changed: a copy has that of its original."""
    return status.st_size, status.st_mtime_ns


def _stamps(part: str, files: Iterable[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    for path in files:
        yield path, stamp(os.lstat(f"{part}/{path}"))


def _lead_anew(frozen: Frozen) -> None:
    """Leads the links to the original, which was moved."""
    for path in frozen.record.links:
        link = f"{frozen.folder}/{path}"
        with suppress(OSError):
            if os.readlink(link) == f"{frozen.record.top}/{path}":
                os.unlink(link)
                os.symlink(f"{frozen.top}/{path}", link)
    frozen.record.top = frozen.top
    with suppress(OSError):
        frozen.write()
