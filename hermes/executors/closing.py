"""What is written down of a job that has ended. All of this blocks."""

from __future__ import annotations

import os
from contextlib import suppress

from ..collection.collector import Collected
from ..model import Problem, ProblemKind, Status
from ..storage.files import lstat
from ..storage.layout import STDERR, STDOUT
from ..storage.metadata import StoredFile, Summary
from ..storage.writer import Experiment
from .exits import Exit, status_of
from .memory import last_words, out_of_memory
from .processes import Group

MAY_LACK_OUTPUT = "the disk was full when it ended: its output may be incomplete"

UNSUPERVISED = (
    "command and environment are too large to start jobs with a supervisor: should this process be"
    " killed, nobody will know how they ended"
)


def record_end(
    experiment: Experiment,
    collected: Collected,
    *,
    end: Exit | None,
    reason: Status | None,
    seconds: float | None,
    has_room: bool,
    memory_kills: int | None,
) -> None:
    """Puts into the metadata how a job ended; writes nothing.

    `end` is how its process ended, None if nobody can tell or if there was none, `reason` why the
    runner ended it, `seconds` how long it ran, None if it was never started. `memory_kills`:
    how many processes the kernel has ended for lack of memory while it ran, None if that is not
    known.
    """
    metadata = experiment.metadata
    for problem in collected.problems:
        experiment.add_problem(problem)
    if end is not None and not has_room:
        experiment.add_problem(Problem(ProblemKind.DISK_FULL, MAY_LACK_OUTPUT))
    elif end is not None and end.no_room:
        experiment.add_problem(Problem(ProblemKind.INCOMPLETE, MAY_LACK_OUTPUT))
    metadata.files += [
        StoredFile(path=path, bytes=size, origin="collected") for path, size in collected.files
    ]
    metadata.status = status_of(end, reason, metadata.problems, was_started=seconds is not None)
    metadata.exit_code = end.code if end is not None else None
    metadata.signal = end.signal if end is not None else None
    metadata.duration = seconds or 0.0
    if metadata.status is Status.FAILED and end is not None and reason is None:
        words = last_words(f"{experiment.directory}/{STDERR}")
        cause = out_of_memory(end, memory_kills, words)
        if cause is not None:
            experiment.add_problem(cause)


def keep_exit(
    process: Group | None, end: Exit | None, exit_file: str, experiment: Experiment,
    is_written: bool, has_room: bool,
) -> None:  # fmt: skip
    """Removes the exit file; on a full disk leaves behind what a resumed run needs."""
    kinds = {problem.kind for problem in experiment.metadata.problems}
    if not has_room or ProblemKind.DISK_FULL in kinds:
        if process is not None and end is not None:
            process.record(exit_file, end._replace(no_room=end.no_room or not has_room))
    elif is_written:
        with suppress(OSError):
            os.unlink(exit_file)


def write(experiment: Experiment, *, sync: bool, has_ended: bool = False) -> bool:
    """Replaces the metadata, and completes them if the job `has_ended`; False, and a problem of the
    experiment, if that is not possible. Blocks."""
    try:
        if has_ended:
            experiment.complete()
            experiment.metadata.metrics = _metrics(experiment)
        experiment.write(sync=sync)
    except OSError as exc:
        text = f"the metadata could not be written: {exc.strerror}"
        experiment.add_problem(Problem.of(ProblemKind.NO_METADATA, text, exc))
        return False
    return True


def _metrics(experiment: Experiment) -> dict[str, Summary] | None:
    """What sums up the metrics of a job that has ended, so that who asks many jobs need not read
    their files; None where it is better read by the first who asks."""
    printed = lstat(f"{experiment.directory}/{STDOUT}")
    if not experiment.metadata.files and (printed is None or not printed.st_size):
        return {}
    # Here, because it takes time to load, and many jobs leave nothing
    from ..query.metrics.files import summed_at_end

    # Jobs leave anything: what cannot be read must not cost a job its end
    with suppress(Exception):
        return summed_at_end(experiment.directory, experiment.metadata)
    return None
