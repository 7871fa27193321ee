"""What a run still has to do, read from the experiment directories."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, field, replace

from ..executors.base import Leftover, Todo
from ..experiments.metadata import Metadata
from ..experiments.query import experiments_named
from ..experiments.run_folder import RunFolder, experiments_of
from ..language.keys import Keys
from ..language.plan import Plan
from ..model import Status


@dataclass(slots=True, eq=False)
class Survey:
    """The jobs of a plan that need not be started, by their keys, and what is done about others."""

    settled: set[str] = field(default_factory=set)
    """Jobs that are not started: taken up, succeeded, or failed and not to be tried again."""

    taken_up: list[Todo] = field(default_factory=list)
    """Jobs that an earlier runner has begun and not finished."""

    attempts: dict[str, int] = field(default_factory=dict)
    """How many times a job has been started in this run."""

    succeeded: int = 0
    failed: int = 0


def survey_run(folder: RunFolder, *, failed: bool, held: Set[str] = frozenset()) -> Survey:
    """What has become of the jobs of a run. With `failed`, those that failed are started again.

    `held` are the keys of jobs that go on without a runner.
    """
    survey = Survey(settled=set(held))
    recorded = folder.recorded()
    latest: dict[str, Metadata] = {}
    unfinished: dict[str, list[Leftover]] = {}
    for directory, metadata in experiments_of(folder):
        key = metadata.key
        latest[key] = metadata
        # One experiment may have had several attempts on a cluster
        survey.attempts[key] = max(survey.attempts.get(key, 0) + 1, metadata.attempts)
        if key not in held and is_unfinished(metadata, recorded):
            leftover = Leftover(directory=directory, metadata=metadata)
            unfinished.setdefault(key, []).append(leftover)
    for key, metadata in latest.items():
        if key in held:
            continue
        if is_unfinished(metadata, recorded):
            survey.settled.add(key)
        elif metadata.status is Status.FINISHED:
            survey.settled.add(key)
            survey.succeeded += 1
        elif metadata.status in (Status.FAILED, Status.TIMEOUT) and not failed:
            survey.settled.add(key)
            survey.failed += 1
    # Of several experiments of one job the latest counts
    survey.taken_up = [
        replace(todo, again=todo.leftover is None or todo.leftover.metadata is latest[todo.key])
        for todo in _taken_up(folder.plan, survey.attempts, unfinished, held, failed=failed)
    ]
    return survey


def is_unfinished(metadata: Metadata, recorded: Set[str]) -> bool:
    """Whether an experiment has no final metadata. `recorded` are those whose exit status is kept.

    One that failed and whose exit status is kept ended while the disk was full.
    """
    was_full = metadata.status is Status.FAILED and metadata.identifier in recorded
    return metadata.status is Status.RUNNING or was_full


def _taken_up(
    plan: Plan,
    attempts: dict[str, int],
    unfinished: dict[str, list[Leftover]],
    held: Set[str],
    *,
    failed: bool,
) -> Iterator[Todo]:
    """The jobs that an earlier runner has begun, in the order of the plan."""
    keys, missing = Keys(plan.place), {*held, *unfinished}
    for index, job in enumerate(plan.jobs if missing else ()):
        key = keys.key(job)
        if key not in missing:
            continue
        missing.discard(key)
        attempt = attempts.get(key, 1)
        todo = Todo(index=index, job=job, key=key, attempt=attempt, is_taken_up=True)
        if key in held:
            yield todo
        for leftover in unfinished.get(key, ()):
            yield replace(todo, leftover=leftover, rerun_failed=failed)
        if not missing:
            return


def survey_name(plan: Plan, name: str) -> Survey:
    """Which jobs have succeeded under a name already, in whatever run."""
    survey = Survey()
    for _, metadata in experiments_named(str(plan.experiments), name):
        if metadata.status is Status.FINISHED:
            survey.settled.add(metadata.key)
    if not survey.settled:
        return survey
    keys = Keys(plan.place)
    for job in plan.jobs:
        survey.succeeded += keys.key(job) in survey.settled
    return survey
