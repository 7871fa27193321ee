"""Whether an experiment's job runs, in whatever run or process, whatever its metadata say."""

from __future__ import annotations

import os
from enum import Enum
from functools import cached_property

import msgspec

from ..errors import HermesError
from ..executors.adopt import outlives
from ..executors.proc import CENSUS
from ..executors.processes import recorded_exit
from ..executors.slurm.tasks import TaskFolder
from ..model import Status
from ..storage.journal import Journal, Machine, may_be_alive, read_journal
from ..storage.layout import SLURM, exit_file, run_folder
from ..storage.metadata import Metadata
from ..storage.provenance import boot_id, process_start
from ..storage.run_record import is_locked


class State(Enum):
    """What is known of an experiment's job."""

    ENDED = "ended"
    """It has ended, and its metadata are final."""

    LEFT = "left"
    """It runs no more, and nobody has written down how it ended."""

    RUNNING = "running"
    """It runs, is being brought to its end, or has processes that outlived it."""

    UNKNOWN = "unknown"
    """It may run where nobody can see it from here."""


class Alive(msgspec.Struct, frozen=True):
    """`why` says how that is known, for people; empty where there is nothing to say."""

    state: State
    why: str = ""


def experiments_around(directory: str) -> str:
    """The folder of all experiments that an experiment directory is in."""
    return os.path.dirname(os.path.dirname(os.path.dirname(directory)))


class _Run(msgspec.Struct):
    """What a run's folder tells; nothing if it is not there."""

    folder: str
    is_held: bool
    journal: Journal
    on_cluster: set[str]


class Look(msgspec.Struct, eq=False, dict=True):
    """One look at processes and runs, for any number of experiments. All of this blocks."""

    ours: set[str] = msgspec.field(default_factory=set)
    """Folders of runs whose lock this process holds itself, but executes nothing."""

    _runs: dict[str, _Run] = msgspec.field(default_factory=dict)

    @cached_property
    def _processes(self) -> dict[str, list[int]]:
        """Live processes by the jobs that they belong to, also those of runs in jobs."""
        found: dict[str, list[int]] = {}
        for pid, seen in CENSUS.take().items():
            for identifier in seen.jobs:
                found.setdefault(identifier, []).append(pid)
        return found

    @cached_property
    def _here(self) -> Machine:
        return Machine.here()

    def at(self, directory: str, metadata: Metadata) -> Alive:
        """What is known of the job of an experiment."""
        identifier = metadata.identifier
        run = self._run(run_folder(experiments_around(directory), metadata.run_id))
        started = run.journal.jobs.get(identifier)
        is_open = metadata.status is Status.RUNNING
        is_told = started is None or started.status is not None
        # First what is quick to tell, and then the list of all processes
        if run.is_held and (is_open or not is_told):
            return Alive(State.RUNNING, f"the run {metadata.run_id} executes it")
        if pids := self._processes.get(identifier):
            return Alive(State.RUNNING, f"process {', '.join(map(str, pids[:5]))} belongs to it")
        if is_open and _is_process(metadata):
            return Alive(State.RUNNING, f"process {metadata.pid} is its job")
        if identifier in run.on_cluster:
            return Alive(State.RUNNING, "it is with the cluster")
        machine = started.machine if started is not None else None
        if machine is None:
            machine = Machine(metadata.host, metadata.boot_id)
        recorded = exit_file(run.folder, identifier)
        if is_open and machine == self._here and outlives(recorded):
            return Alive(State.RUNNING, "its group lives on without its supervisor")
        has_ended = not (is_open or (started is not None and not is_told))
        has_ended = has_ended or recorded_exit(recorded) is not None
        if not has_ended and may_be_alive(machine, self._here):
            return Alive(
                State.UNKNOWN, f"it may run on {machine.host}, which is not seen from here"
            )
        return Alive(State.LEFT if is_open else State.ENDED)

    def _run(self, folder: str) -> _Run:
        if folder not in self._runs:
            self._runs[folder] = _Run(
                folder=folder,
                is_held=folder not in self.ours and is_locked(folder),
                journal=read_journal(folder),
                on_cluster=_on_cluster(folder),
            )
        return self._runs[folder]


def _is_process(metadata: Metadata) -> bool:
    """Whether the process that the metadata name is there: where environments cannot be read."""
    if metadata.pid is None or metadata.pid_start is None or metadata.boot_id != boot_id():
        return False
    return process_start(metadata.pid) == metadata.pid_start


def _on_cluster(folder: str) -> set[str]:
    """The experiments of the tasks that a cluster has not brought to their end."""
    if not os.path.isdir(f"{folder}/{SLURM}"):
        return set()
    tasks = TaskFolder(folder)
    try:
        names = tasks.names()
        ours = [task for task in tasks.open_tasks() if f"{task.name}.ended" not in names]
    except HermesError:
        return set()
    running = [tasks.running(task) for task in ours if f"{task.name}.running" in names]
    return {each.event.identifier for each in running if each is not None}
