"""The runs that are in progress or unfinished, as tables and lines for people."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from datetime import datetime

from ..errors import HermesError, escape
from ..run.status import FinishedRun, JobStatus, RunState, RunStatus
from .amounts import duration
from .text import Differences, jobs, relative, short_identifier, tail

HEAD = ["id", "name", "began", "finished", "running", "failed", "left", "time left", "runner"]

NUMBERS = frozenset(range(3, 8))
"""The columns of `table` that are set to the right."""

LAST_LINES = 5
"""Of what a run without a terminal has printed."""


def short_id(run_id: str) -> str:
    """The part of a run's id that tells it from the others."""
    return run_id.rpartition("-")[2] or run_id


def table(runs: Sequence[RunStatus]) -> list[list[str]]:
    """A head, and a row a run."""
    return [HEAD, *map(_row, runs)]


def _row(run: RunStatus) -> list[str]:
    counts = (run.done, len(run.jobs), run.failed, run.left)
    return [
        short_id(run.run_id),
        run.name,
        f"{run.began:%Y-%m-%d %H:%M}" if run.began else "-",
        *("-" if count is None or run.total is None else str(count) for count in counts),
        "-" if run.time_left is None else duration(run.time_left),
        _runner(run),
    ]


def _runner(run: RunStatus) -> str:
    if run.is_in_progress:
        state = f"{run.state}, " if run.state is RunState.PAUSED else ""
        return f"{state}{_process(run)}"
    return f"{run.state}: `{command(run)}`"


def _process(run: RunStatus) -> str:
    return "unknown" if run.pid is None else f"{run.host}, pid {run.pid}"


def command(run: RunStatus) -> str:
    """What goes on with a run, as it is shortest to type."""
    return run.command.replace(run.run_id, short_id(run.run_id))


def lines(run: RunStatus) -> list[str]:
    """All about one run, but for its running jobs."""
    began = f", since {run.began:%Y-%m-%d %H:%M:%S}" if run.began else ""
    state = (
        f"{run.state}{began}, run by {_process(run)}"
        if run.is_in_progress
        else f"{run.state}{began.replace('since', 'began')}; `{command(run)}` goes on with it"
    )
    told = [f"{run.name}  {run.run_id}", state, _counts(run)]
    told += [f"jobs run in {shlex.quote(relative(run.working_directory))}"]
    told += [f"warning: {warning}" for warning in run.warnings]
    if run.output is not None:
        told.append(f"what it prints is in {relative(run.output)}")
        if not run.is_in_progress:
            told += [f"    {line}" for line in tail(run.output, LAST_LINES)]
    return [escape(line) for line in told]


def _counts(run: RunStatus) -> str:
    if run.total is None:
        return "it has not told how far it is"
    left = "" if run.time_left is None else f"; about {duration(run.time_left)} left"
    return (
        f"{run.done} of {jobs(run.total)} finished, {len(run.jobs)} running, {run.failed} failed, "
        f"{run.left} left; at most {run.threads} at the same time{left}"
    )


def finished(run: FinishedRun) -> str:
    """What came of a run that is over, in a line."""
    counts = ", ".join(f"{count} {status}" for status, count in run.counts.items())
    end = f", at {run.end.astimezone():%Y-%m-%d %H:%M:%S}" if run.end is not None else ""
    how = "all jobs have finished" if run.ok else "put away"
    return escape(f"{run.name}  {run.run_id}: {how}{end}: {counts}")


def table_of_jobs(run: RunStatus) -> list[list[str]]:
    """A head, and a row a running job, with the arguments in which it differs from the others of
    the run."""
    try:
        differences = Differences(run.plan())
    except HermesError:
        # Its jobs run all the same
        differences = None
    has_gpus = any(job.gpus for job in run.jobs)
    head = ["id", "script", "since", "for", *(["GPU"] if has_gpus else []), "arguments"]
    return [head, *(_row_of(job, differences, has_gpus=has_gpus) for job in run.jobs)]


def _row_of(job: JobStatus, differences: Differences | None, *, has_gpus: bool) -> list[str]:
    of_job = job.arguments
    if differences is not None:
        of_job = tuple(differences.of(job.script, job.arguments))
    is_today = job.since.date() == datetime.now(job.since.tzinfo).date()
    return [
        short_identifier(job.identifier),
        job.script,
        f"{job.since:%H:%M:%S}" if is_today else f"{job.since:%Y-%m-%d %H:%M}",
        duration(max(0.0, time.time() - job.since.timestamp())),
        *([",".join(job.gpus)] if has_gpus else []),
        " ".join(of_job),
    ]
