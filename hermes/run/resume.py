"""Who runs a job, and has it succeeded: read from the experiments of a name and the journals of
its runs.

`hermes resume`, `hermes stop` and `hermes exec --resume` all ask here.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

import msgspec
from msgspec.structs import replace

from ..errors import escape
from ..executors.base import Leftover, Todo
from ..language.keys import Keys
from ..language.plan import Plan
from ..model import FAILED, Status
from ..storage.journal import Journal, Started, read_journal
from ..storage.layout import named_folder
from ..storage.metadata import Metadata
from ..storage.query import Found, find_named
from ..storage.removals import read_removals
from ..storage.run_folder import RunFolder
from ..storage.writer import command_of, placeholders
from .limits import retries_of
from .others import settle_by_others
from .survey import Reason, Survey

COUNTED = 20_000
"""Jobs of a plan that are looked through before the start, to tell how many have succeeded. Those
of a larger one are counted as they are passed."""


def survey_run(folder: RunFolder, *, failed: bool, held: Set[str] = frozenset()) -> Survey:
    """What has become of the jobs of a run. With `failed`, those that failed are started again, and
    tried again as often as in the first place.

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
        # Earlier ones may have been removed
        survey.attempts[key] = max(survey.attempts.get(key, 0) + 1, metadata.attempts)
        if key not in held and is_unfinished(metadata, recorded):
            unfinished.setdefault(key, []).append(leftover)
        elif metadata.status in FAILED and not failed:
            survey.failures[key] = survey.failures.get(key, 0) + 1
    settle_by_others(survey, found, folder)
    for key, metadata in latest.items():
        if key in held or survey.settled.get(key) is Reason.SUCCEEDED:
            continue
        if is_unfinished(metadata, recorded):
            survey.settled[key] = Reason.TAKEN_UP
        elif metadata.status is Status.FINISHED:
            survey.settled[key] = Reason.SUCCEEDED
        elif metadata.status in FAILED and survey.failures.get(key, 0) > retries_of(
            metadata.options, folder.plan.settings
        ):
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
    settle_by_others(survey, found, folder)
    _count(survey, folder.plan)
    return survey


def settled_by_others(folder: RunFolder, key: str) -> Reason | None:
    """Why another run need not start a job, going by what the experiments tell now."""
    survey = Survey()
    found = find_named(folder.experiments, folder.name)
    settle_by_others(survey, found, folder)
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
    removed = read_removals(folder.experiments, folder.name)
    for identifier, started in journal.jobs.items():
        is_removed = identifier in removed
        leftover = own.get(identifier) or (None if is_removed else _made_again(folder, started))
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
        argv=command_of(folder, job, placeholders(folder, identifier, directory, 0, None)),
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
        todo = Todo(
            index=index,
            job=plan.jobs[index],
            key=key,
            attempt=attempt,
            is_taken_up=True,
            failures=survey.failures.get(key, 0),
        )
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
