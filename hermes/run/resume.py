"""What an unfinished run still has to do, read from the experiment directories."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from typing import Any

from ..executors.base import Leftover
from ..experiments.store import RunFolder, experiments_named, experiments_of
from ..language.keys import Keys
from ..language.plan import Plan
from ..model import Status


@dataclass(slots=True, eq=False)
class Survey:
    """The jobs of a plan that need not be started, by their keys, and what is to be done about the others."""

    held: Set[str] = frozenset()
    """Jobs that the executor goes on with by itself."""

    settled: set[str] = field(default_factory=set)
    """Jobs that are not started: they are held, or succeeded, or failed and are not to be tried again."""

    leftovers: list[Leftover] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)
    """How many times a job has been started."""

    succeeded: int = 0
    failed: int = 0


def survey_run(folder: RunFolder, *, failed: bool, held: Set[str] = frozenset()) -> Survey:
    """What has become of the jobs of a run. With `failed`, those that failed are started again.

    `held` are the keys of jobs that the executor goes on with by itself.
    """
    plan, recorded = folder.plan, folder.recorded()
    survey = Survey(held, settled=set(held))
    latest: dict[str, dict[str, Any]] = {}
    unfinished: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for directory, metadata in experiments_of(folder):
        key = metadata["key"]
        latest[key] = metadata
        # One experiment may have had several attempts on a cluster
        survey.attempts[key] = max(survey.attempts.get(key, 0) + 1, metadata["attempts"])
        if key in held:
            continue
        # Failed with a record: the disk was full when it ended
        if metadata["status"] == Status.RUNNING or (
            metadata["status"] == Status.FAILED and metadata["identifier"] in recorded
        ):
            unfinished.setdefault(key, []).append((directory, metadata))
    for key, metadata in latest.items():
        if key in held:
            continue
        if any(each is metadata for _, each in unfinished.get(key, ())):
            survey.settled.add(key)
        elif metadata["status"] == Status.FINISHED:
            survey.settled.add(key)
            survey.succeeded += 1
        elif metadata["status"] in (Status.FAILED, Status.TIMEOUT) and not failed:
            survey.settled.add(key)
            survey.failed += 1
    survey.leftovers = list(_leftovers(plan, unfinished, latest, failed=failed))
    return survey


def _leftovers(
    plan: Plan,
    unfinished: dict[str, list[tuple[str, dict[str, Any]]]],
    latest: dict[str, dict[str, Any]],
    *,
    failed: bool,
) -> Iterator[Leftover]:
    keys, missing = Keys(), len(unfinished)
    for index, job in enumerate(plan.jobs if missing else ()):
        key = keys.key(job)
        for directory, metadata in unfinished.get(key, ()):
            is_latest = metadata is latest[key]
            yield Leftover(index, job, directory, metadata, again=is_latest, failed=failed)
        missing -= key in unfinished
        if not missing:
            return


def survey_name(plan: Plan, name: str) -> Survey:
    """Which jobs have succeeded under a name already, in whatever run."""
    survey = Survey()
    for _, metadata in experiments_named(str(plan.experiments), name):
        if metadata["status"] == Status.FINISHED:
            survey.settled.add(metadata["key"])
    if not survey.settled:
        return survey
    keys = Keys()
    for job in plan.jobs:
        survey.succeeded += keys.key(job) in survey.settled
    return survey
