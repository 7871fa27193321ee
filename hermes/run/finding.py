"""Which run is meant by a command that takes no hermes file: `resume`, `stop`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import msgspec
from msgspec.structs import replace

from ..errors import HermesError, escape
from ..language.settings import absolute, find_root, layered
from ..language.source import Source
from ..model import Status
from ..storage.layout import CLOCK, EXPERIMENTS, RUN_RECORD, RUNS, SLURM
from ..storage.query import experiments_named
from ..storage.run_record import RunRecord, Warn, is_locked, is_same, runs_in

SHOWN = 5
"""So many runs are listed at most."""


class Purpose(StrEnum):
    """What a run is looked for."""

    RESUME = "resume"
    STOP = "stop"
    FORGET = "forget"
    CHANGE = "change"
    WATCH = "watch"


OF_THOSE_IN_PROGRESS = (Purpose.STOP, Purpose.CHANGE, Purpose.WATCH)
"""Only a run in progress is meant, unless another one is named."""


class State(StrEnum):
    """What a run that has not come to its good end does."""

    IN_PROGRESS = "in progress"
    ALONE = "left by its runner"
    ENDED = "unfinished"


class FoundRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that can be resumed or ended.

    `is_here`: its jobs run in the working directory that was asked about; `is_near`: in its
    project. `began` is None if that is not known. `others` could have been meant too, and
    `warnings` tell what could not be read; both are empty for those others.
    """

    record: RunRecord
    state: State
    is_here: bool
    is_near: bool
    others: tuple[FoundRun, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def run_id(self) -> str:
        return self.record.run_id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def working_directory(self) -> str:
        return self.record.working_directory

    @property
    def began(self) -> datetime | None:
        try:
            return datetime.strptime(self.run_id[:15], "%Y%m%d-%H%M%S")
        except ValueError:
            return None

    @property
    def others_shown(self) -> list[str]:
        """Lines for people."""
        return listed(self.others)

    def __str__(self) -> str:
        """One line for people."""
        began = self.began
        when = f", began {began:%Y-%m-%d %H:%M:%S}" if began else ""
        where = "" if self.is_here else f", of {shlex.quote(self.working_directory)}"
        return escape(f"{self.run_id} ({self.name}{when}, {self.state}{where})")


class Choice(msgspec.Struct, frozen=True):
    """The run that is meant. If none is, `why` says so; `others` are what else there is."""

    run: FoundRun | None
    others: Sequence[FoundRun] = ()
    why: str = ""


def choose(runs: Sequence[FoundRun], wanted: str | None, purpose: Purpose) -> Choice:
    """Chooses among all runs that are known, the latest first.

    `wanted` is an id, a part of one that only one has, or a name. Of several runs the latest of
    this working directory is taken: to resume, of those that no process executes; to stop and to
    change, of those that run. A run of another working directory is taken only if no other can be
    meant.
    """
    if wanted is None:
        fitting = [run for run in runs if run.is_here] or [run for run in runs if run.is_near]
        none = "there is no unfinished run of `{}`"
    else:
        exact = [run for run in runs if run.run_id == wanted]
        if exact:
            return Choice(exact[0], _without(exact[0], runs))
        none = f"there is no unfinished run `{escape(wanted)}` of `{{}}`"
        named = [run for run in runs if run.name == wanted]
        fitting = [run for run in named if run.is_here] or [run for run in named if run.is_near]
        if not fitting:
            parts = [run for run in runs if wanted and wanted in run.run_id]
            if len(parts) > 1:
                return Choice(None, parts, f"several runs have `{escape(wanted)}` in their ids")
            fitting = parts
            if parts:
                return Choice(parts[0], _without(parts[0], runs))
    if not fitting:
        return Choice(None, runs, none)
    narrowed = _narrowed(fitting, purpose)
    if not narrowed and purpose in OF_THOSE_IN_PROGRESS and wanted is None:
        return Choice(None, runs, "no run of `{}` is in progress")
    narrowed = narrowed or fitting
    is_guess = not narrowed[0].is_here
    is_for_good = purpose is Purpose.FORGET and narrowed[0].state is State.ENDED
    if len(narrowed) > 1 and (is_guess or (is_for_good and wanted is None)):
        return Choice(None, narrowed, "several runs could be meant")
    return Choice(narrowed[0], _without(narrowed[0], runs))


def find_run(
    wanted: str | None,
    purpose: Purpose,
    *,
    root: str | os.PathLike[str] | None,
    working_directory: str | os.PathLike[str] | None,
) -> FoundRun:
    """The run that is meant, with what else there is. Blocks.

    Looked at are the `experiments/` of the working directory and of all folders above it, the
    pointers in them, and what `root` and the settings say now: wherever a run put its experiments,
    it is found. Raises `HermesError` if none is meant, or if that cannot be told.
    """
    base = Path(os.path.abspath(working_directory or "."))
    runs, warnings = known_runs(base, root)
    is_led = any(run.is_here and run.state is State.IN_PROGRESS for run in runs)
    if purpose in (Purpose.STOP, Purpose.FORGET) and (wanted is not None or not is_led):
        # Not needed otherwise, and all metadata of a name are read
        runs = _with_jobs(runs)
    choice = choose(runs, wanted, purpose)
    if choice.run is None:
        lines = [*warnings, *listed(choice.others)]
        if choice.others:
            lines.append(_to_name(purpose))
        raise HermesError(choice.why.format(escape(str(base))), hint="\n      ".join(lines) or None)
    return replace(choice.run, others=tuple(choice.others), warnings=tuple(warnings))


def listed(runs: Sequence[FoundRun]) -> list[str]:
    """A line for each run, and one for those that are too many."""
    lines = [str(run) for run in runs[:SHOWN]]
    if len(runs) > SHOWN:
        lines.append(f"and {len(runs) - SHOWN} more")
    return lines


def _without(chosen: FoundRun, runs: Sequence[FoundRun]) -> list[FoundRun]:
    return [run for run in runs if run is not chosen and (run.is_here or run.is_near)]


def _narrowed(runs: Sequence[FoundRun], purpose: Purpose) -> list[FoundRun]:
    """Those for which a command is made; of those that run, the ones with a runner come first."""
    if purpose is Purpose.RESUME:
        return [run for run in runs if run.state is not State.IN_PROGRESS]
    led = [run for run in runs if run.state is State.IN_PROGRESS]
    return led or [run for run in runs if run.state is State.ALONE]


def _to_name(purpose: Purpose) -> str:
    if purpose in (Purpose.CHANGE, Purpose.WATCH):
        return "name the one that you mean by its id"
    command = "stop --forget" if purpose is Purpose.FORGET else str(purpose)
    return f"`hermes {command} ID` takes the one that you name"


class _Places(msgspec.Struct):
    """Folders called `experiments` in which to look, each once."""

    folders: list[str] = msgspec.field(default_factory=list)
    near: set[str] = msgspec.field(default_factory=set)

    def add(self, folder: str, *, is_near: bool) -> None:
        if folder not in self.folders:
            self.folders.append(folder)
        if is_near:
            self.near.add(folder)


def known_runs(base: Path, root: str | os.PathLike[str] | None) -> tuple[list[FoundRun], list[str]]:
    """All runs that are in progress or unfinished, the latest first, as seen from the folder
    `base`; and warnings of what could not be read. Blocks."""
    warnings: dict[str, None] = {}

    def warn(text: str) -> None:
        warnings[text] = None

    home = find_root(base)
    places = _Places()
    if root is not None:
        _add_root(places, absolute(base, root), warn)
    for folder in (base, *base.parents):
        # In the folder itself, if somebody is in there; other programs have a `.hermes` too
        if os.path.isfile(folder / RUNS / CLOCK):
            places.add(str(folder), is_near=True)
        places.add(str(folder / EXPERIMENTS), is_near=folder == home)
    _add_root(places, home, warn)
    found: dict[str, FoundRun] = {}
    for place in places.folders:
        for record in runs_in(place, warn if place in places.near else _ignore):
            known = found.get(record.run_id)
            if known is None or (place in places.near and not known.is_near):
                found[record.run_id] = FoundRun(
                    record=record if known is None else known.record,
                    state=State.IN_PROGRESS if is_locked(record.folder) else State.ENDED,
                    is_here=is_same(record.working_directory, str(base)),
                    is_near=place in places.near,
                )
    return sorted(found.values(), key=_age, reverse=True), list(warnings)


def _ignore(text: str) -> None:
    """What cannot be read in folders that may be those of another project."""


def _age(run: FoundRun) -> tuple[str, int]:
    """The second in which a run began, and when its record was written: ids end by chance."""
    try:
        written = os.stat(f"{run.record.folder}/{RUN_RECORD}").st_mtime_ns
    except OSError:
        written = 0
    return run.run_id.rpartition("-")[0], written


def _add_root(places: _Places, root: Path, warn: Warn) -> None:
    """The folders of a root: its own, and that of its settings, if they can be read."""
    places.add(str(root / EXPERIMENTS), is_near=True)
    try:
        settings = layered(root, Source.of("", b""), (), {}, warn)
    except HermesError as exc:
        warn(str(exc).removeprefix("error: ").partition("\n")[0])
        return
    path = absolute(root, settings.path_to_experiments)
    places.add(f"{path}/{EXPERIMENTS}", is_near=True)


def _with_jobs(runs: Iterable[FoundRun]) -> list[FoundRun]:
    """The same runs; those with jobs that may be alive are told from those that ended."""
    return [
        replace(run, state=State.ALONE)
        if run.state is State.ENDED and (_has_begun(run.record) or _is_with_cluster(run.record))
        else run
        for run in runs
    ]


def _has_begun(record: RunRecord) -> bool:
    """Whether there is a job whose end nobody has written down."""
    experiments = os.path.dirname(os.path.dirname(record.folder))
    return any(
        metadata.run_id == record.run_id and metadata.status is Status.RUNNING
        for _, metadata in experiments_named(experiments, record.name)
    )


def _is_with_cluster(record: RunRecord) -> bool:
    if not os.path.isdir(f"{record.folder}/{SLURM}"):
        return False
    # Imported when it is used: most runs need no cluster
    from ..executors.slurm.tasks import TaskFolder

    folder = TaskFolder(record.folder)
    try:
        names = folder.names()
        return any(f"{task.name}.ended" not in names for task in folder.open_tasks())
    except HermesError:
        # Who names this run is told why it cannot be ended; the others can
        return False
