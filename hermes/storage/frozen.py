"""The code of a run with `freeze`, as it was when the run began: a copy, in which the jobs run.

    <run folder>/code/          a copy of the repository, or of the working directory alone
    <run folder>/frozen.json    which files were copied, and which are links to the original

`freezing` makes both. All of this blocks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from ..errors import HermesError
from ..model import Job
from . import layout
from .code import CodeAtStart
from .files import (
    lstat,
    read_regular,
    write_atomic,
)
from .git import Git
from .layout import FROZEN
from .metadata import FrozenCode, GitState, decoded, encoded

NAMED = 20
"""Files and folders that were not copied and are named in the metadata of each job."""


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


class Frozen(msgspec.Struct, frozen=True):
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


def stamp(status: os.stat_result) -> tuple[int, int]:
    """By which one sees whether a file was changed: a copy has that of its original."""
    return status.st_size, status.st_mtime_ns


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
