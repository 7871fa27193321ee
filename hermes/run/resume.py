"""Who runs a job, and has it succeeded: read from the experiments of a name and the journals of
its runs.

`hermes resume`, `hermes stop` and `hermes exec --resume` all ask here.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass, field, replace
from enum import Enum

import msgspec

from ..errors import escape
from ..executors.base import Leftover, Todo
from ..executors.exits import is_success
from ..executors.proc import processes_of
from ..executors.processes import recorded_exit
from ..executors.slurm.tasks import TaskFolder, open_keys
from ..experiments.journal import Journal, Machine, Started, may_be_alive, read_journal
from ..experiments.layout import SLURM, exit_file, named_folder, run_folder
from ..experiments.metadata import Metadata
from ..experiments.query import Found, find_named
from ..experiments.run_folder import RunFolder
from ..experiments.run_record import is_locked, runs_in
from ..experiments.writer import command_of, placeholders
from ..language.keys import Keys
from ..language.plan import Plan
from ..model import Status

COUNTED = 20_000
"""Jobs of a plan that are looked through before the start, to tell how many have succeeded. Those
of a larger one are counted as they are passed."""


class Reason(Enum):
    """Why a job is not started."""

    SUCCEEDED = "has succeeded"
    FAILED = "has failed, and failed jobs are not run again"
    TAKEN_UP = "an earlier runner has begun it, and it is brought to its end"
    RUNNING = "another run executes it"
    UNKNOWN = "it may be alive where nobody can see it from here"


@dataclass(slots=True, eq=False)
class Survey:
    """What is known of the jobs of a plan before the first one is started."""

    settled: dict[str, Reason] = field(default_factory=dict)
    """By their keys, the jobs that are not started, and why."""

    taken_up: list[Todo] = field(default_factory=list)
    """Jobs that an earlier runner has begun and not finished."""

    attempts: dict[str, int] = field(default_factory=dict)
    """How many times a job has been started in this run."""

    warnings: list[str] = field(default_factory=list)

    may_be_alive: dict[str, str] = field(default_factory=dict)
    """By their keys, experiments of other runs that may be alive."""

    spelled: dict[str, tuple[str, int]] = field(default_factory=dict)
    """By their keys, experiments that have succeeded, each with the hash of its arguments: a job
    may be the same with its numbers written otherwise."""

    counted: Counter[Reason] = field(default_factory=Counter)
    """How many jobs of the plan are not started, as far as that is known in advance."""

    @property
    def succeeded(self) -> int:
        return self.counted[Reason.SUCCEEDED]

    @property
    def failed(self) -> int:
        return self.counted[Reason.FAILED]


def survey_run(folder: RunFolder, *, failed: bool, held: Set[str] = frozenset()) -> Survey:
    """What has become of the jobs of a run. With `failed`, those that failed are started again.

    `held` are the keys of jobs that go on without a runner.
    """
    survey = Survey(settled=dict.fromkeys(held, Reason.TAKEN_UP))
    found = find_named(folder.experiments, folder.name)
    journal = read_journal(folder.folder)
    own = _own(folder, found, journal)
    recorded = folder.recorded()
    latest: dict[str, Metadata] = {}
    unfinished: dict[str, list[Leftover]] = {}
    for leftover in own:
        metadata = leftover.metadata
        key = metadata.key
        latest[key] = metadata
        # One experiment may have had several attempts on a cluster
        survey.attempts[key] = max(survey.attempts.get(key, 0) + 1, metadata.attempts)
        if key not in held and is_unfinished(metadata, recorded):
            unfinished.setdefault(key, []).append(leftover)
    _settle_by_others(survey, found, folder.experiments, folder.name, folder.run_id)
    for key, metadata in latest.items():
        if key in held or survey.settled.get(key) is Reason.SUCCEEDED:
            continue
        if is_unfinished(metadata, recorded):
            survey.settled[key] = Reason.TAKEN_UP
        elif metadata.status is Status.FINISHED:
            survey.settled[key] = Reason.SUCCEEDED
        elif metadata.status in (Status.FAILED, Status.TIMEOUT) and not failed:
            survey.settled[key] = Reason.FAILED
    # Of several experiments of one job the latest counts
    survey.taken_up = [
        replace(todo, again=_is_again(todo, latest, survey))
        for todo in _taken_up(folder.plan, survey, unfinished, held, journal, failed=failed)
    ]
    _count(survey, folder.plan)
    return survey


def survey_name(folder: RunFolder) -> Survey:
    """Which jobs have succeeded under the name of a new run already, or are being executed, in
    whatever run."""
    survey = Survey()
    found = find_named(folder.experiments, folder.name)
    _settle_by_others(survey, found, folder.experiments, folder.name, folder.run_id)
    _count(survey, folder.plan)
    return survey


def settled_by_others(folder: RunFolder, key: str) -> Reason | None:
    """Why another run need not start a job, going by what the experiments tell now."""
    survey = Survey()
    found = find_named(folder.experiments, folder.name)
    _settle_by_others(survey, found, folder.experiments, folder.name, folder.run_id)
    return survey.settled.get(key)


def is_unfinished(metadata: Metadata, recorded: Set[str]) -> bool:
    """Whether an experiment has no final metadata. `recorded` are those whose exit status is kept.

    One that failed and whose exit status is kept ended while the disk was full.
    """
    was_full = metadata.status is Status.FAILED and metadata.identifier in recorded
    return metadata.status is Status.RUNNING or was_full


def _is_again(todo: Todo, latest: dict[str, Metadata], survey: Survey) -> bool:
    if survey.settled.get(todo.key) is Reason.SUCCEEDED:
        # It has come to its end in another run meanwhile
        return False
    return todo.leftover is None or todo.leftover.metadata is latest[todo.key]


def _own(folder: RunFolder, found: list[Found], journal: Journal) -> list[Leftover]:
    """The experiments of a run, in the order of their starts.

    What the journal knows, and nobody can read any more, is made again as far as it is known.
    """
    own: dict[str, Leftover] = {}
    for each in found:
        metadata = each.metadata
        if metadata is not None and metadata.run_id == folder.run_id:
            own[each.identifier] = Leftover(directory=each.directory, metadata=metadata)
    for identifier, started in journal.jobs.items():
        leftover = own.get(identifier) or _made_again(folder, started)
        if leftover is None:
            continue
        if started.status is not None and leftover.metadata.status is Status.RUNNING:
            # An older state of the metadata was put back, by a job or a program that copies files
            leftover.metadata.status = started.status
        own[identifier] = replace(leftover, machine=started.machine, reason=started.reason)
    return [own[identifier] for identifier in sorted(own)]


def _made_again(folder: RunFolder, started: Started) -> Leftover | None:
    """The experiment of a job whose metadata are gone; None if the job is not of this plan."""
    try:
        job = folder.plan.jobs[started.index]
    except IndexError:
        return None
    identifier = started.identifier
    directory = f"{named_folder(folder.experiments, job.script, folder.name)}/{identifier}"
    metadata = msgspec.structs.replace(
        folder.template,
        identifier=identifier,
        script=job.script,
        argv=command_of(folder.plan, job, placeholders(folder, identifier, directory, 0)),
        options=job.options,
        comments=job.options.comments,
        key=started.key,
        attempts=started.attempt,
        files=[],
        problems=[],
    )
    return Leftover(directory=directory, metadata=metadata)


def _taken_up(
    plan: Plan,
    survey: Survey,
    unfinished: dict[str, list[Leftover]],
    held: Set[str],
    journal: Journal,
    *,
    failed: bool,
) -> list[Todo]:
    """The jobs that an earlier runner has begun, in the order of the plan."""
    places = {started.key: started.index for started in journal.jobs.values()}
    missing = {*held, *unfinished}
    found = [(places[key], key) for key in missing if key in places]
    found += _searched(plan, missing - places.keys())
    todos = []
    for index, key in sorted(found):
        attempt = survey.attempts.get(key, 1)
        todo = Todo(index=index, job=plan.jobs[index], key=key, attempt=attempt, is_taken_up=True)
        if key in held:
            todos.append(todo)
        for leftover in unfinished.get(key, ()):
            todos.append(replace(todo, leftover=leftover, rerun_failed=failed))
    return todos


def _searched(plan: Plan, missing: Set[str]) -> Iterator[tuple[int, str]]:
    """Indices of the jobs with these keys."""
    keys, left = Keys(plan.place), set(missing)
    for index, job in enumerate(plan.jobs if left else ()):
        key = keys.key(job)
        if key in left:
            left.discard(key)
            yield index, key
        if not left:
            return


# Other runs


def _settle_by_others(
    survey: Survey, found: list[Found], experiments: str, name: str, own_run: str
) -> None:
    """Takes into account what has come of the jobs of a name in other runs."""
    running: list[Metadata] = []
    unreadable = []
    for each in found:
        metadata = each.metadata
        if metadata is None:
            unreadable.append(each)
        elif metadata.run_id != own_run and metadata.status is Status.FINISHED:
            survey.settled[metadata.key] = Reason.SUCCEEDED
            survey.spelled[metadata.key] = (metadata.identifier, hash(metadata.arguments))
        elif metadata.run_id != own_run and metadata.status is Status.RUNNING:
            running.append(metadata)
    if running:
        _settle_by_running(survey, running, experiments)
    _settle_by_clusters(survey, experiments, name, own_run)
    known = _identifiers(experiments, own_run)
    strange = [each.problem for each in unreadable if each.identifier not in known]
    if strange:
        more = f", and {len(strange) - 1} more like it" if len(strange) > 1 else ""
        survey.warnings.append(f"passed over: {strange[0]}{more}")


def _identifiers(experiments: str, run_id: str) -> Set[str]:
    return read_journal(run_folder(experiments, run_id)).jobs.keys()


def _settle_by_clusters(survey: Survey, experiments: str, name: str, own_run: str) -> None:
    """Jobs that a run has given to a cluster are there also while nobody follows them."""
    for run in runs_in(experiments, lambda _: None):
        if run.name != name or run.run_id == own_run or not os.path.isdir(f"{run.folder}/{SLURM}"):
            continue
        there = 0
        for key, has_succeeded in open_keys(TaskFolder(run.folder)):
            if survey.settled.get(key) is None:
                survey.settled[key] = Reason.SUCCEEDED if has_succeeded else Reason.RUNNING
                there += 1
        if there:
            survey.warnings.append(_told_running(there, run.run_id))


def _settle_by_running(survey: Survey, running: list[Metadata], experiments: str) -> None:
    runs = {metadata.run_id: run_folder(experiments, metadata.run_id) for metadata in running}
    held = {run_id for run_id, folder in runs.items() if is_locked(folder)}
    journals = {run_id: read_journal(folder) for run_id, folder in runs.items()}
    alive, here = processes_of("HERMES_IDENTIFIER"), Machine.here()
    taken: Counter[str] = Counter()
    for metadata in running:
        key, run_id, identifier = metadata.key, metadata.run_id, metadata.identifier
        if survey.settled.get(key) is Reason.SUCCEEDED:
            continue
        started = journals[run_id].jobs.get(identifier)
        if run_id in held or identifier in alive:
            survey.settled[key] = Reason.RUNNING
            taken[run_id] += 1
        elif started is not None and started.machine is not None:
            end = recorded_exit(exit_file(runs[run_id], identifier))
            has_ended = started.status is not None or end is not None
            if end is not None and is_success(end) and started.reason is None:
                # Nobody has written it down in the experiment yet
                survey.settled[key] = Reason.SUCCEEDED
            elif not has_ended and may_be_alive(started.machine, here):
                survey.settled[key] = Reason.UNKNOWN
                survey.may_be_alive[key] = identifier
                survey.warnings.append(
                    f"`{identifier}` may still run on `{escape(started.machine.host)}`: it was left"
                    " as it is"
                )
    survey.warnings += [_told_running(count, run_id) for run_id, count in taken.items()]


def _told_running(count: int, run_id: str) -> str:
    return f"{count} of these jobs run in `{escape(run_id)}`: they are not started"


def _count(survey: Survey, plan: Plan) -> None:
    if not survey.settled or plan.count > COUNTED:
        return
    keys = Keys(plan.place)
    others: list[str] = []
    for job in plan.jobs:
        key = keys.key(job)
        reason = survey.settled.get(key)
        if reason is None:
            continue
        survey.counted[reason] += 1
        identifier, spelling = survey.spelled.get(key, ("", None))
        if spelling is not None and hash(job.arguments) != spelling:
            others.append(f"`{escape(job.shell)}` is the job of `{identifier}`, written otherwise")
    if others:
        more = f" ({len(others) - 1} more jobs are like it)" if len(others) > 1 else ""
        survey.warnings.append(f"{others[0]}: it is done and not started{more}")
