"""The end of jobs on this machine: what outlived them, what they left, and their final metadata. All of this blocks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from ..collection.collector import Claim, Collector, collected
from ..experiments.files import FULL
from ..experiments.store import SYNC_AFTER, Experiment, RunFolder
from ..model import Outcome, Status
from .processes import POLL, Exit, processes_of
from .starting import RECORD_AFTER, Running

LINGER = 0.5
"""Seconds for processes that have outlived their job to end by themselves, as those of Python's `multiprocessing` do when they see that."""

NO_ROOM = "the disk was full when it ended: its output may be incomplete"
FULL_MESSAGES = frozenset(map(os.strerror, FULL))
"""By what one can tell from a problem, wherever it comes from, that the disk is full."""


class Finished(NamedTuple):
    """A job whose directory is final, and the files of which nobody has been told yet."""

    job_index: int
    outcome: Outcome
    fresh: Sequence[str] = ()
    replaced: bool = False


class Finisher:
    """Finishes jobs of one run. `stop` is called when the disk is full; `is_cancelled` tells whether the run is being ended."""

    def __init__(
        self,
        folder: RunFolder,
        collector: Collector,
        stop: Callable[[], None],
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._folder = folder
        self._collector = collector
        self._stop = stop
        self._is_cancelled = is_cancelled

    def finish(
        self, batch: list[Running], left: Mapping[str, Sequence[int]] = MappingProxyType({})
    ) -> list[Finished]:
        """Finishes jobs that have ended: they share the final look at the tree. `left` is what `left_behind` has told of them."""
        has_room = self._folder.has_room
        if not has_room:
            self._folder.use_reserve()
        claims = self._collector.finish([running.experiment.identifier for running in batch])
        finished = []
        for running in batch:
            claim = claims[running.experiment.identifier]
            if running.experiment.identifier in left:
                running.experiment.problem(
                    f"left processes behind: {', '.join(map(str, left[running.experiment.identifier]))}"
                )
            outcome = self._finalize(running, claim, has_room=has_room)
            finished.append(Finished(running.todo.index, outcome, claim.fresh, running.replaced))
        return finished

    def _finalize(self, running: Running, claim: Claim, *, has_room: bool) -> Outcome:
        """Writes the final metadata of one job. For lack of room its exit status is left behind too: a resumed run finishes it."""
        experiment, exit_ = running.experiment, running.exit or Exit()
        status = Status.FINISHED if exit_.code == 0 else Status.FAILED
        if running.adopted:
            running.duration = self._adopted_end(experiment)
            if running.exit is None:
                status = Status.LOST
        if running.cancelled or (
            not running.adopted and running.process is None and not experiment.problems
        ):
            status = Status.CANCELLED
        if self._is_cancelled() and exit_.signal == signal.SIGINT:
            # The same Ctrl-C, which reached it before it was in a session of its own
            status = Status.CANCELLED
        for problem in claim.problems:
            experiment.problem(problem)
        if running.exit is not None and (exit_.no_room or not has_room):
            experiment.problem(NO_ROOM)
        if status is Status.FINISHED and (
            NO_ROOM in experiment.problems or _tell_of_a_full_disk(experiment.problems)
        ):
            status = Status.FAILED
        experiment.files += [
            {"path": path, "bytes": size, "origin": "collected"} for path, size in collected(claim)
        ]
        experiment.state |= {
            "status": status.value,
            "exit_code": exit_.code,
            "signal": exit_.signal,
            "duration": running.duration,
        }
        written = write(experiment, sync=running.duration > SYNC_AFTER)
        if not written and status is not Status.CANCELLED:
            status = Status.FAILED
        exit_file = self._folder.exit_file(experiment.identifier)
        if not has_room or _tell_of_a_full_disk(experiment.problems):
            self._stop()
            if running.process is not None and running.exit is not None:
                running.process.record(
                    exit_file, exit_._replace(no_room=exit_.no_room or not has_room)
                )
        elif written:
            with suppress(OSError):
                os.unlink(exit_file)
        return Outcome(
            experiment.identifier, experiment.job.script, experiment.directory, status, exit_.code, exit_.signal, running.duration,
            tuple(experiment.problems), experiment.argv, experiment.job.line,
        )  # fmt: skip

    def _adopted_end(self, experiment: Experiment) -> float:
        """Sets when an adopted job ended, as its exit file tells. Returns how long it ran, by the clock of day for lack of a better."""
        try:
            end = datetime.fromtimestamp(
                os.stat(self._folder.exit_file(experiment.identifier)).st_mtime
            ).astimezone()
        except OSError:
            end = datetime.now().astimezone()
        start = experiment.state["start"]
        experiment.state["end"] = end.isoformat(timespec="microseconds")
        return max(0.0, (end - datetime.fromisoformat(start)).total_seconds()) if start else 0.0


def left_behind(batch: list[Running]) -> dict[str, list[int]]:
    """The processes that have outlived their jobs, by identifier; of jobs that took some time also those that have left the group."""
    processes = {
        running.experiment.identifier: running.process
        for running in batch
        if running.process is not None
    }
    ends = time.monotonic() + LINGER
    # To look at all processes takes longer than a job that is over in no time
    thorough = any(running.adopted or running.duration > RECORD_AFTER for running in batch)
    while True:
        strays = processes_of("HERMES_IDENTIFIER") if thorough else {}
        left = {
            each: sorted({*process.left_behind(), *strays.get(each, ())})
            for each, process in processes.items()
        }
        left = {each: pids for each, pids in left.items() if pids}
        if not left or time.monotonic() > ends:
            return left
        time.sleep(POLL)


def write(experiment: Experiment, *, sync: bool) -> bool:
    """Replaces the metadata; False, and a problem of the experiment, if that is not possible."""
    try:
        experiment.write(sync=sync)
    except OSError as exc:
        experiment.problem(f"the metadata could not be written: {exc.strerror}")
        return False
    return True


def _tell_of_a_full_disk(problems: Sequence[str]) -> bool:
    return any(message in problem for message in FULL_MESSAGES for problem in problems)
