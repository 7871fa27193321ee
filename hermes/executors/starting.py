"""The beginning of jobs on this machine: their experiments, what is copied before, their processes. All of this blocks."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ..collection.collector import Collector
from ..collection.copies import Stowage
from ..experiments.files import remove_parts
from ..experiments.store import Experiment, RunFolder, now
from ..language.checks import find_program
from .base import Leftover, Pending
from .processes import BUSY, Exit, Group, Launch, Trace, adopt, hidden_from_shells, start

RECORD_AFTER = 0.05
"""Seconds after which a job's process is recorded in its metadata. Replacing it costs more than starting a job that is over by then;
until then, and also after, the process can be told by its environment and by its supervisor's record. The next experiment is prepared
while jobs are shorter than this, and for no longer than this."""


@dataclass(slots=True, eq=False)
class Running:
    """A job between its experiment's making and its final metadata."""

    todo: Pending | Leftover
    experiment: Experiment
    slot: int = -1
    process: Group | None = None
    exit: Exit | None = None
    prepared: float = 0.0
    began: float = 0.0
    duration: float = 0.0
    cancelled: bool = False
    adopted: bool = False
    replaced: bool = False


class Starter:
    """Begins the jobs of one run, and takes up those of an earlier runner."""

    def __init__(self, folder: RunFolder, collector: Collector) -> None:
        self._folder = folder
        self._plan = folder.plan
        self._collector = collector
        self._empty = os.open(os.devnull, os.O_RDONLY)
        """What all jobs read."""

        self._hidden = hidden_from_shells(folder.environment)

    def close(self) -> None:
        os.close(self._empty)

    def prepare(self, pending: Pending) -> Running:
        """Makes the experiment of a job. Raises `OSError` if that is not possible."""
        if not self._folder.has_room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        experiment = self._folder.experiment(pending.job, pending.key, pending.attempt)
        self._collector.add(
            experiment.identifier, experiment.directory, adopted=experiment.is_continued
        )
        return Running(pending, experiment, prepared=time.monotonic())

    def discard(self, running: Running) -> None:
        """Takes away what was prepared."""
        self._collector.finish([running.experiment.identifier])
        running.experiment.discard()

    def copy_before(self, running: Running) -> None:
        if not running.experiment.is_continued:
            running.experiment.files += [
                stowed._asdict() for stowed in self._stowage(running.experiment).before()
            ]

    def copy_after(self, running: Running) -> None:
        running.experiment.files += [
            stowed._asdict() for stowed in self._stowage(running.experiment).after()
        ]

    def _stowage(self, experiment: Experiment) -> Stowage:
        return Stowage(
            experiment.job.options, experiment.identifier, self._collector.top, experiment.directory, self._folder.experiments,
            partial(self._collector.owned, experiment.identifier), partial(self._collector.give_back, experiment.identifier),
            experiment.problem,
        )  # fmt: skip

    def start(self, running: Running) -> bool:
        """Starts the job's process, unless the experiment has problems. False if the system is too busy for that just now."""
        experiment = running.experiment
        if not experiment.problems:
            running.began = time.monotonic()
            experiment.state["start"] = now()
            try:
                running.process = start(self._launch(running))
                experiment.state |= {"pid": running.process.pid, "pid_start": None}
            except (OSError, ValueError) as exc:
                if isinstance(exc, OSError) and exc.errno in BUSY:
                    return False
                give_up(running, exc)
        experiment.close_logs()
        return True

    def _launch(self, running: Running) -> Launch:
        experiment = running.experiment
        program, *words = experiment.argv
        if program == "python":
            program = find_program("python", self._plan.working_directory) or "python"
        stdout, stderr = experiment.logs
        exit_file = (
            self._folder.exit_file(experiment.identifier) if self._plan.settings.supervise else None
        )
        return Launch(
            [program, *words],
            self._collector.top,
            experiment.environment(running.slot),
            stdout,
            stderr,
            exit_file,
            self._hidden,
            self._empty,
        )

    def adopt(
        self, leftover: Leftover, slot: int, alive: Mapping[str, Sequence[int]]
    ) -> Running | None:
        """What can be followed or finished of a job of an earlier runner. None if it was only prepared; then nothing is left of that.

        `alive` are the live processes of jobs by identifier, as `processes_of` gives them.
        """
        metadata = leftover.metadata
        experiment = Experiment.reopen(self._folder, leftover.job, leftover.directory, metadata)
        exit_file = self._folder.exit_file(experiment.identifier)
        remove_parts(experiment.directory)
        self._collector.add(experiment.identifier, experiment.directory, adopted=True)
        running = Running(leftover, experiment, slot, adopted=True)
        trace = Trace(
            experiment.identifier,
            metadata.get("pid"),
            metadata.get("pid_start"),
            metadata.get("boot_id"),
            exit_file,
        )
        running.process = adopt(trace, alive)
        # The first that a supervisor does is to make its file
        if (
            running.process is None
            and leftover.again
            and self._plan.settings.supervise
            and not os.path.exists(exit_file)
        ):
            claim = self._collector.finish([experiment.identifier])[experiment.identifier]
            if experiment.state["start"] is None and not claim.taken and experiment.is_untouched:
                experiment.discard()
                return None
            self._collector.add(experiment.identifier, experiment.directory, adopted=True)
        return running


def give_up(running: Running, exc: OSError | ValueError) -> None:
    told = exc.strerror if isinstance(exc, OSError) else str(exc)
    running.exit = Exit(code=127 if isinstance(exc, FileNotFoundError) else 126)
    running.experiment.problem(f"the job could not be started: {told}")
