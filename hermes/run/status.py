"""The runs that are in progress or unfinished, as their folders tell: where each stands, who
executes it, what goes on with it. All functions here block."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import msgspec
from msgspec.structs import replace

from ..errors import HermesError
from ..events import Event, JobStarted, RunEnded, RunStanding, RunWarning
from ..executors.exits import parse_exit_file
from ..language.plan import Plan
from ..language.settings import absolute
from ..model import Status, is_identifier
from ..query.places import directories_in, folders_of
from ..storage.files import read_regular
from ..storage.identifiers import time_of
from ..storage.journal import Machine, may_be_alive
from ..storage.kept import KeptReader
from ..storage.layout import OUTPUT, RUNS, exit_file
from ..storage.metadata import Metadata, read_metadata
from ..storage.query import Experiment, experiments_named, load_experiment
from ..storage.run_record import is_same
from .finding import FoundRun, Purpose, State, find_run, known_runs
from .standing import Standing

SEARCHED = 5000
"""Experiments, the latest, among which those of a finished run are looked for: reading one takes
50 us."""

StrPath = str | os.PathLike[str]


class RunState(StrEnum):
    """What a run does that has not come to its good end.

    `KILLED` means that its runner is gone and has not said why; its jobs may go on. `UNFINISHED`
    that it has ended with jobs that failed, or were never started.
    """

    IN_PROGRESS = "in progress"
    PAUSED = "paused"
    KILLED = "killed"
    UNFINISHED = "unfinished"


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A running job. `since` is when it started, as far as its run knows."""

    identifier: str
    script: str
    since: datetime
    pid: int
    slot: int
    gpus: tuple[str, ...]
    arguments: tuple[str, ...]
    directory: str


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run stands that is in progress or unfinished.

    `total` counts all jobs of its plan, `done` those that have succeeded, `failed` those that have
    failed for good or have problems, `left` those that are in none of these and do not run; all are
    None if the run has not told. `time_left` is in seconds, None while it is not known. `host` and
    `pid` are those of the process that executes the run, or has done so last; None if that has not
    told. `warnings` were told by it, `ended` is what it has said last. `output` is where it prints
    if it goes on without a terminal, None if it does not.
    """

    found: FoundRun
    state: RunState
    host: str | None = None
    pid: int | None = None
    threads: int | None = None
    total: int | None = None
    done: int | None = None
    failed: int | None = None
    left: int | None = None
    time_left: float | None = None
    jobs: tuple[JobStatus, ...] = ()
    warnings: tuple[str, ...] = ()
    ended: RunEnded | None = None
    output: str | None = None

    @property
    def run_id(self) -> str:
        return self.found.run_id

    @property
    def name(self) -> str:
        return self.found.name

    @property
    def working_directory(self) -> str:
        """Where the jobs of the run are executed."""
        return self.found.working_directory

    @property
    def experiments(self) -> str:
        """The folder of all experiments, in which this run's are."""
        return os.path.dirname(os.path.dirname(self.found.record.folder))

    @property
    def began(self) -> datetime | None:
        """When the run began, by its id."""
        return self.found.began

    @property
    def is_in_progress(self) -> bool:
        """Whether a process executes the run, also if it is paused."""
        return self.state in (RunState.IN_PROGRESS, RunState.PAUSED)

    @property
    def command(self) -> str:
        """What goes on with the run; empty if a process executes it."""
        if self.is_in_progress:
            return ""
        only_failed = self.state is RunState.UNFINISHED and not self.left and self.failed
        return f"hermes resume{' --failed' if only_failed else ''} {self.run_id}"

    def plan(self) -> Plan:
        """The plan of the run. Raises `HermesError`."""
        return self.found.record.plan()

    def as_json(self) -> dict[str, object]:
        """All of this as JSON types."""
        jobs = [
            {
                "identifier": job.identifier,
                "script": job.script,
                "since": job.since.isoformat(),
                "pid": job.pid,
                "slot": job.slot,
                "gpus": list(job.gpus),
                "arguments": list(job.arguments),
                "directory": job.directory,
            }
            for job in self.jobs
        ]
        return {
            "run_id": self.run_id,
            "name": self.name,
            "state": self.state.value,
            "host": self.host,
            "pid": self.pid,
            "began": self.began.astimezone().isoformat() if self.began else None,
            "working_directory": self.working_directory,
            "experiments": self.experiments,
            "threads": self.threads,
            "total": self.total,
            "done": self.done,
            "running": len(self.jobs),
            "failed": self.failed,
            "left": self.left,
            "time_left": self.time_left,
            "command": self.command or None,
            "output": self.output,
            "jobs": jobs,
        }


@dataclass(frozen=True, slots=True)
class Runs(Sequence[RunStatus]):
    """The runs that are in progress or unfinished: those in progress first, the latest first.

    `warnings` tell what could not be read.
    """

    found: tuple[RunStatus, ...]
    warnings: tuple[str, ...]
    _root: StrPath | None
    _working_directory: StrPath | None

    def last_experiment(self) -> Experiment | None:
        """The experiment that began last, in whatever run; None if there is none. Blocks."""
        latest = ""
        for folder in folders_of(self._root, self._working_directory, lambda _: None):
            named = [each for script in _folders(folder) for each in _folders(script)]
            # A folder changes when something is made in it
            for each in sorted(named, key=os.path.getmtime, reverse=True)[:1]:
                paths = [f"{each}/{name}" for name in os.listdir(each) if is_identifier(name)]
                latest = max([latest, *paths], key=os.path.basename)
        try:
            return load_experiment(latest) if latest else None
        except HermesError:
            return None

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, place: int) -> RunStatus:  # type: ignore[override]
        return self.found[place]

    def __iter__(self) -> Iterator[RunStatus]:
        return iter(self.found)


def runs(root: StrPath | None = None, working_directory: StrPath | None = None) -> Runs:
    """The runs of a root that are in progress or unfinished, wherever they were started.

    `root` is found from the working directory by default. Blocks, for as long as it takes to read
    some files a run; how many experiments there are does not matter.
    """
    base = Path(os.path.abspath(working_directory or "."))
    known, warnings = known_runs(base, root)
    if root is None:
        known = [run for run in known if run.is_near or run.is_here]
    else:
        home = str(absolute(base, root))
        known = [run for run in known if is_same(str(run.record.recipe.get("root")), home)]
    found = [status for run in known if (status := _status_of(run)) is not None]
    found.sort(key=lambda run: not run.is_in_progress)
    return Runs(tuple(found), tuple(warnings), root, working_directory)


def run_status(
    run: str | None = None, root: StrPath | None = None, working_directory: StrPath | None = None
) -> RunStatus:
    """Where the latest run of the working directory stands that is in progress, or that of the name
    or id `run`; `jobs` tell since when they run exactly. Blocks.

    Raises `HermesError` if there is no such run, or if several could be meant.
    """
    found = find_run(run, Purpose.WATCH, root=root, working_directory=working_directory)
    status = _status_of(found)
    if status is None:
        raise HermesError(f"the run `{found.run_id}` has just ended")
    return replace(status, jobs=tuple(map(_exactly, status.jobs)))


class FinishedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run of which only the experiments are left, because all of its jobs have succeeded or it
    was put away. `counts` tell of the last attempts of its jobs how many ended how, `ok` is whether
    all have succeeded, `end` when the last of them has ended."""

    run_id: str
    name: str
    counts: dict[str, int]
    ok: bool
    end: datetime | None


def finished_run(
    run: str, root: StrPath | None = None, working_directory: StrPath | None = None
) -> FinishedRun | None:
    """The run of an id, or of the last part of one, that is neither in progress nor unfinished;
    None if there is none among the latest experiments. Blocks."""
    if not _ID.fullmatch(run):
        return None
    folders = folders_of(root, working_directory, lambda _: None)
    found = [each for folder in folders for each in directories_in(folder, lambda _: None)]
    for directory in sorted(found, key=os.path.basename, reverse=True)[:SEARCHED]:
        with suppress(HermesError):
            metadata = read_metadata(directory)
            if metadata.run_id.endswith(run):
                return _finished(
                    os.path.dirname(os.path.dirname(os.path.dirname(directory))), metadata
                )
    return None


def _finished(experiments: str, one: Metadata) -> FinishedRun:
    """The run of an experiment."""
    latest: dict[str, Metadata] = {}
    for _, metadata in experiments_named(experiments, one.name):
        if metadata.run_id == one.run_id:
            latest[metadata.key] = metadata
    ends = [each.end for each in latest.values() if each.end is not None]
    return FinishedRun(
        run_id=one.run_id,
        name=one.name,
        counts=dict(Counter(each.status.value for each in latest.values())),
        ok=all(each.status is Status.FINISHED and not each.problems for each in latest.values()),
        end=max(ends, default=None),
    )


_ID = re.compile(r"(\d{8}-\d{6}-)?[0-9a-f]{8}")


def _folders(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [each.path for each in entries if each.is_dir() and each.name != RUNS]
    except OSError:
        return []


def _status_of(run: FoundRun) -> RunStatus | None:
    """Where a run stands; None if it has come to its good end meanwhile."""
    folder = run.record.folder
    output = f"{folder}/{OUTPUT}"
    status = RunStatus(
        found=run,
        state=RunState.IN_PROGRESS if run.state is State.IN_PROGRESS else RunState.UNFINISHED,
        output=output if os.path.exists(output) else None,
    )
    try:
        reader = KeptReader(folder)
    except OSError:
        # Of the time before this was kept, or begun this very moment
        return status if os.path.isdir(folder) else None
    try:
        events = reader.read()
    finally:
        reader.close()
    return _told(status, events)


def _told(status: RunStatus, events: Sequence[Event]) -> RunStatus | None:
    first = next((each for each in events if isinstance(each, RunStanding)), None)
    last = events[-1] if events and isinstance(events[-1], RunEnded) else None
    if last is not None and last.ok:
        return None
    if first is None:
        return status
    standing = Standing()
    for event in events:
        standing.take(event)
    running = [started for started, _ in standing.running.values()]
    state = status.state
    if state is RunState.IN_PROGRESS:
        state = RunState.PAUSED if standing.is_paused else state
    else:
        state = RunState.KILLED if last is None else RunState.UNFINISHED
        running = [
            each for each in running if _may_run(each, first, status.found, has_ended=bool(last))
        ]
    done = standing.done - standing.failed + first.succeeded_before
    failed = standing.failed - standing.undone + first.failed_before
    return replace(
        status,
        state=state,
        host=first.host,
        pid=first.pid,
        threads=standing.threads,
        total=standing.whole,
        done=done,
        failed=failed,
        left=max(0, standing.whole - done - failed - len(running)),
        time_left=standing.time_left if state is RunState.IN_PROGRESS else None,
        jobs=tuple(map(_job, running)),
        warnings=tuple(each.message for each in events if isinstance(each, RunWarning)),
        ended=last,
    )


def _executor_of(run: FoundRun) -> object:
    settings = run.record.recipe.get("settings")
    return settings.get("executor") if isinstance(settings, dict) else None


def _may_run(job: JobStarted, runner: RunStanding, run: FoundRun, *, has_ended: bool) -> bool:
    """Whether a job of a runner that is gone may go on; `has_ended`: it has left nothing behind."""
    if _executor_of(run) == "slurm":
        # They stay with the cluster, whatever becomes of the runner
        with suppress(HermesError):
            return read_metadata(job.directory).status is Status.RUNNING
        return False
    if has_ended:
        return False
    try:
        said = read_regular(exit_file(run.record.folder, job.identifier)).decode("utf-8", "replace")
    except OSError:
        said = ""
    if parse_exit_file(said) is not None:
        return False
    if may_be_alive(Machine(runner.host, runner.boot_id, runner.namespace), Machine.here()):
        return True
    try:
        os.kill(job.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _job(started: JobStarted) -> JobStatus:
    return JobStatus(
        identifier=started.identifier,
        script=started.script,
        since=datetime.fromtimestamp(started.time).astimezone(),
        pid=started.pid,
        slot=started.slot,
        gpus=started.gpus,
        arguments=started.arguments,
        directory=started.directory,
    )


def _exactly(job: JobStatus) -> JobStatus:
    """With the start that the experiment tells: a resumed run knows only since when it waits."""
    try:
        # What an earlier runner could not write down before it was killed, the identifier tells
        start = read_metadata(job.directory).start or time_of(job.identifier)
    except HermesError:
        return job
    return job if start is None else replace(job, since=start)
