"""What an unfinished run still has to do, read from the experiment directories."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .model import Job, Keys, Status
from .plan import Plan
from .store import RunFolder, experiments_named


@dataclass(frozen=True, slots=True)
class Leftover:
    """An experiment that has no final status: its runner ended before it."""

    index: int
    job: Job
    directory: str
    metadata: dict[str, Any]
    again: bool = False
    """Whether to run the job again if it failed."""


@dataclass(slots=True)
class Survey:
    """The jobs of a plan that need not be started, by their keys, and what is to be done about the others."""

    settled: set[str] = field(default_factory=set)
    """Jobs that are not started: they succeeded, or failed and are not to be tried again."""

    leftovers: list[Leftover] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)
    """How many times a job has been started."""

    succeeded: int = 0
    failed: int = 0


def survey_run(folder: RunFolder, *, failed: bool) -> Survey:
    """What has become of the jobs of a run. With `failed`, those that failed are started again."""
    plan, recorded = folder.plan, folder.recorded()
    survey = Survey()
    latest: dict[str, tuple[str, dict[str, Any]]] = {}
    for directory, metadata in experiments_named(str(plan.experiments), folder.name):
        if metadata.get("run_id") == folder.run_id:
            key = metadata["key"]
            latest[key] = (directory, metadata)
            survey.attempts[key] = survey.attempts.get(key, 0) + 1
    unfinished = set()
    for key, (_, metadata) in latest.items():
        match metadata["status"]:
            case Status.FINISHED:
                survey.settled.add(key)
                survey.succeeded += 1
            case Status.FAILED if metadata["identifier"] in recorded:
                # The disk was full when it ended
                unfinished.add(key)
            case Status.FAILED | Status.TIMEOUT if not failed:
                survey.settled.add(key)
                survey.failed += 1
            case Status.RUNNING:
                unfinished.add(key)
    if unfinished:
        survey.settled |= unfinished
        keys = Keys()
        for index, job in enumerate(plan.jobs):
            key = keys.key(job)
            if key in unfinished:
                survey.leftovers.append(Leftover(index, job, *latest[key], again=failed and latest[key][1]["status"] == Status.FAILED))
                if len(survey.leftovers) == len(unfinished):
                    break
    return survey


def survey_name(plan: Plan, name: str) -> Survey:
    """Which jobs have succeeded under a name already, in whatever run."""
    survey = Survey()
    for _, metadata in experiments_named(str(plan.experiments), name):
        if metadata["status"] == Status.FINISHED:
            survey.settled.add(metadata["key"])
    keys = Keys()
    for job in plan.jobs:
        survey.succeeded += keys.key(job) in survey.settled
    return survey
