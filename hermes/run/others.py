"""What has become of the jobs of a name in other runs: by their experiments, the journals of the
runs that are not done, and what they have given to a cluster.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..errors import escape
from ..executors.adopt import outlives
from ..executors.exits import is_success
from ..executors.proc import processes_of
from ..executors.processes import recorded_exit
from ..executors.slurm.tasks import TaskFolder, open_keys
from ..model import Status
from ..storage.journal import Journal, Machine, Started, may_be_alive, read_journal
from ..storage.layout import SLURM, exit_file, run_folder
from ..storage.query import Found
from ..storage.removals import read_removals, settled_keys
from ..storage.run_folder import RunFolder
from ..storage.run_record import is_locked, runs_in
from .survey import Reason, Survey


class _Begun(NamedTuple):
    """A job that another run has begun, and of which no end is written in its experiment."""

    identifier: str
    key: str
    run_id: str


def settle_by_others(survey: Survey, found: list[Found], own: RunFolder) -> None:
    """Takes into account what other runs than `own` have done under its name. `found` are the
    experiments of the name."""
    begun: list[_Begun] = []
    unreadable: dict[str, Found] = {}
    for each in found:
        metadata = each.metadata
        if metadata is None:
            unreadable[each.identifier] = each
        elif metadata.run_id == own.run_id:
            continue
        elif metadata.status is Status.FINISHED:
            survey.settled[metadata.key] = Reason.SUCCEEDED
            survey.spelled[metadata.key] = (metadata.identifier, hash(metadata.arguments))
        elif metadata.status is Status.RUNNING:
            begun.append(_Begun(metadata.identifier, metadata.key, metadata.run_id))
    journals = {run_id: read_journal(folder) for run_id, folder in _unfinished(own)}
    removed = read_removals(own.experiments, own.name)
    told = {each.identifier for each in found if each.metadata is not None} | removed.keys()
    for run_id, started in _untold(journals, told):
        if started.status is None:
            begun.append(_Begun(started.identifier, started.key, run_id))
        elif started.status is Status.FINISHED and started.identifier in unreadable:
            # Its metadata are damaged, or hidden
            survey.settled[started.key] = Reason.SUCCEEDED
        unreadable.pop(started.identifier, None)
    if begun:
        _settle_by_begun(survey, begun, journals, own.experiments)
    for run_id in journals:
        _settle_by_cluster(survey, run_id, run_folder(own.experiments, run_id))
    there = [(each.identifier, each.metadata.key) for each in found if each.metadata is not None]
    for key in settled_keys(removed, there):
        survey.settled.setdefault(key, Reason.REMOVED)
    for identifier in read_journal(own.folder).jobs:
        unreadable.pop(identifier, None)
    if unreadable:
        first, *rest = unreadable.values()
        more = f", and {len(rest)} more like it" if rest else ""
        survey.warnings.append(f"passed over: {first.problem}{more}")


def _unfinished(own: RunFolder) -> Iterator[tuple[str, str]]:
    """The other runs of the name that are not done, and their folders."""
    for run in runs_in(own.experiments, lambda _: None):
        folder = run_folder(own.experiments, run.run_id)
        if run.name == own.name and run.run_id != own.run_id and run.folder == folder:
            yield run.run_id, folder


def _untold(journals: Mapping[str, Journal], told: set[str]) -> Iterator[tuple[str, Started]]:
    """The jobs of which only a journal knows, because no metadata can be read."""
    for run_id, journal in journals.items():
        for started in journal.jobs.values():
            if started.identifier not in told:
                yield run_id, started


def _settle_by_begun(
    survey: Survey, begun: list[_Begun], journals: Mapping[str, Journal], experiments: str
) -> None:
    """A job that is alive is taken, and so is one of which nobody here can tell."""
    folders = {each.run_id: run_folder(experiments, each.run_id) for each in begun}
    held = {run_id for run_id, folder in folders.items() if is_locked(folder)}
    alive, here = processes_of("HERMES_IDENTIFIER"), Machine.here()
    taken: Counter[str] = Counter()
    for identifier, key, run_id in begun:
        if survey.settled.get(key) is Reason.SUCCEEDED:
            continue
        started = journals[run_id].jobs.get(identifier) if run_id in journals else None
        is_here = started is not None and started.machine == here
        recorded = exit_file(folders[run_id], identifier)
        if run_id in held or identifier in alive or (is_here and outlives(recorded)):
            survey.settled[key] = Reason.RUNNING
            taken[run_id] += 1
        elif started is not None and started.machine is not None:
            end = recorded_exit(recorded)
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
    for run_id, count in taken.items():
        _tell_running(survey, run_id, count)


def _settle_by_cluster(survey: Survey, run_id: str, folder: str) -> None:
    """Jobs that were given to a cluster are there also while nobody follows them."""
    if not os.path.isdir(f"{folder}/{SLURM}"):
        return
    count = 0
    for key, has_succeeded in open_keys(TaskFolder(folder)):
        if key not in survey.settled:
            survey.settled[key] = Reason.SUCCEEDED if has_succeeded else Reason.RUNNING
            count += 1
    if count:
        _tell_running(survey, run_id, count)


def _tell_running(survey: Survey, run_id: str, count: int) -> None:
    survey.warnings.append(f"{count} of these jobs run in `{escape(run_id)}`: they are not started")
