"""Removing experiments: `plan_removal`. All of this blocks."""

from __future__ import annotations

import glob
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

import msgspec

from .errors import HermesError, escape
from .model import Status
from .query.found import FoundExperiment
from .query.places import folders_of
from .query.reading import metadata_of
from .run.alive import Look, State, experiments_around
from .storage.files import PART_NAME, everything_below, lstat, size_of, unfinished
from .storage.layout import EXPERIMENTS, PART, exit_file, links_file, run_folder
from .storage.metadata import Metadata
from .storage.removals import write_removals
from .storage.run_record import lock

AT_ONCE = 64
"""Experiments that are removed together."""


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a removal.

    `identifiers` are those of the experiments that are gone. `kept` tells of the others why, by
    their identifiers, and `left` why something could not be deleted, by its path: it is no
    experiment any more, and the next removal tries again.
    """

    identifiers: tuple[str, ...]
    kept: Mapping[str, str]
    left: Mapping[str, str]


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """What would be removed: `experiments`, of so many `bytes`. `kept` tells of the others why they
    are not, by their identifiers."""

    experiments: tuple[FoundExperiment, ...]
    bytes: int
    kept: Mapping[str, str]

    def execute(self, *, again: bool = False) -> Removed:
        """Removes the experiments, each whole or not at all.

        Whether something runs is asked once more. Their jobs are not started again by `hermes
        resume` and `hermes exec --resume`, unless `again`. Raises `HermesError` if it cannot be
        written down that they are removed: nothing is removed then.
        """
        gone: list[str] = []
        kept: dict[str, str] = {}
        left: dict[str, str] = {}
        look = Look()
        for directories in _portions(self.experiments):
            aside: dict[str, str] = {}
            with _held(directories, look):
                ready = _ready(directories, look, kept)
                _write_down(ready, again=again)
                for directory, metadata in ready.items():
                    _put_aside(directory, metadata, aside, kept)
            for path, identifier in aside.items():
                gone.append(identifier)
                _delete(path, left)
            _tidy(os.path.dirname(directories[0]))
        return Removed(identifiers=tuple(gone), kept=kept, left=left)


def plan_removal(found: Iterable[FoundExperiment]) -> Removal:
    """Looks which of these experiments can be removed; removes nothing.

        removal = hermes.plan_removal(hermes.experiments("status = failed"))
        print(len(removal.experiments), removal.bytes, removal.kept)
        removal.execute()

    Kept is whatever runs, in whatever run or process, whatever its metadata say; what may run where
    nobody can see it; and what this user may not delete.
    """
    look, kept = Look(), dict[str, str]()
    experiments = []
    for each in found:
        why = _why_kept(look, str(each.directory))
        if why:
            kept[each.identifier] = why
        else:
            experiments.append(each)
    count = sum(size_of(str(each.directory)) for each in experiments)
    return Removal(experiments=tuple(experiments), bytes=count, kept=kept)


def finish_removals(
    root: str | os.PathLike[str] | None = None,
    working_directory: str | os.PathLike[str] | None = None,
) -> int:
    """Deletes what removals have left that were killed, and returns of how many experiments."""
    count = 0
    for experiments in folders_of(root, working_directory, lambda _: None):
        for path in glob.iglob(f"{glob.escape(experiments)}/*/*/*{PART}"):
            if PART_NAME.fullmatch(os.path.basename(path)):
                count += 1
                _delete(path, {})
                _tidy(os.path.dirname(path))
    return count


def _portions(found: Iterable[FoundExperiment]) -> Iterator[list[str]]:
    """Directories that are removed together: of one name, and not too many of them, because the
    locks of all their runs are held."""
    named: dict[str, list[str]] = {}
    for each in found:
        directory = str(each.directory)
        named.setdefault(os.path.dirname(directory), []).append(directory)
    for directories in named.values():
        for start in range(0, len(directories), AT_ONCE):
            yield directories[start : start + AT_ONCE]


@contextmanager
def _held(directories: Iterable[str], look: Look) -> Iterator[None]:
    """Keeps others from going on with the runs of these experiments meanwhile. If a process
    executes one, what that has brought to its end can be removed all the same."""
    with ExitStack() as locks:
        for folder in {_run_of(each) for each in directories} - {None}:
            with suppress(OSError):
                # Not where there is none: it would be made
                fd = lock(str(folder)) if os.path.isdir(str(folder)) else None
                if fd is not None:
                    locks.callback(os.close, fd)
                    look.ours.add(str(folder))
        yield


def _run_of(directory: str) -> str | None:
    """The folder of an experiment's run."""
    try:
        return run_folder(experiments_around(directory), metadata_of(directory).run_id)
    except HermesError:
        return None


def _why_kept(look: Look, directory: str) -> str:
    """Why an experiment is not removed; empty if it can be."""
    try:
        metadata = metadata_of(directory)
    except HermesError as exc:
        return exc.message
    if not metadata.run_id and metadata.status is Status.LOST:
        return "rlmate has not written down its end, so it may run"
    alive = look.at(directory, metadata)
    if alive.state in (State.RUNNING, State.UNKNOWN):
        return alive.why
    return "" if os.path.islink(directory) else _not_deletable(directory)


def _not_deletable(directory: str) -> str:
    below = everything_below(directory)
    folders = [path for path, status in below if stat.S_ISDIR(status.st_mode)]
    for folder in (os.path.dirname(directory), directory, *folders):
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            return f"`{escape(folder)}` is read-only, or somebody else's"
    return ""


def _ready(found: list[str], look: Look, kept: dict[str, str]) -> dict[str, Metadata]:
    """The metadata of those that can be removed now, by their directories."""
    ready = {}
    for directory in found:
        if lstat(directory) is None:
            continue
        why = _why_kept(look, directory)
        if why:
            kept[os.path.basename(directory)] = why
        else:
            ready[directory] = metadata_of(directory)
    return ready


def _write_down(ready: Mapping[str, Metadata], *, again: bool) -> None:
    named: dict[tuple[str, str], dict[str, str]] = {}
    for directory, metadata in ready.items():
        # The name as the folder has it, for there it is looked for
        name = os.path.basename(os.path.dirname(directory))
        if metadata.key and _is_ours(directory):
            keys = named.setdefault((experiments_around(directory), name), {})
            keys[metadata.identifier] = metadata.key
    for (experiments, name), keys in named.items():
        try:
            write_removals(experiments, name, keys, again=again)
        except OSError as exc:
            raise HermesError(
                f"cannot write to `{escape(experiments)}`: {exc.strerror}; nothing was removed"
            ) from None


def _is_ours(directory: str) -> bool:
    """Whether an experiment is where runs look for it, and not in some folder that somebody has
    copied it to."""
    return os.path.basename(experiments_around(directory)) == EXPERIMENTS


def _put_aside(
    directory: str, metadata: Metadata, aside: dict[str, str], kept: dict[str, str]
) -> None:
    """Takes a directory out of the experiments in one step."""
    path = unfinished(directory)
    try:
        os.rename(directory, path)
    except OSError as exc:
        kept[metadata.identifier] = f"`{escape(directory)}`: {exc.strerror}"
        return
    aside[path] = metadata.identifier
    folder = run_folder(experiments_around(directory), metadata.run_id)
    for file in (exit_file, links_file):
        with suppress(OSError):
            os.unlink(file(folder, metadata.identifier))


def _delete(path: str, left: dict[str, str]) -> None:
    """Deletes what was put aside; of a link the link alone."""
    try:
        if os.path.islink(path):
            os.unlink(path)
        else:
            shutil.rmtree(path)
    except FileNotFoundError:
        # Somebody else does the same
        shutil.rmtree(path, ignore_errors=True)
    except (OSError, RecursionError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "its folders are too deep"
        where = exc.filename if isinstance(exc, OSError) else path
        left[path] = f"{reason}: `{escape(str(where))}`"


def _tidy(parent: str) -> None:
    """Deletes the folder of a name, and that of its script, if they are empty."""
    if not _is_ours(f"{parent}/any"):
        return
    with suppress(OSError):
        # Fails if there is anything else
        os.rmdir(parent)
        os.rmdir(os.path.dirname(parent))
