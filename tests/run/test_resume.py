"""What a run still has to do, read from experiments whose jobs nobody has started."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hermes.model import Status
from hermes.run.resume import is_unfinished, survey_name, survey_run
from hermes.run.survey import Reason, Survey
from hermes.storage.metadata import Metadata
from hermes.storage.run_folder import RunFolder
from hermes.timing import Timing

from ..support import Project
from ..support.labs import Lab


@pytest.fixture
def lab(project: Project) -> Iterator[Lab]:
    lab = Lab(project, 4)
    yield lab
    lab.close()


def survey_of(lab: Lab, *, failed: bool = False, held: tuple[int, ...] = ()) -> Survey:
    return survey_run(lab.folder, failed=failed, held={lab.keys[index] for index in held})


def settled(lab: Lab, survey: Survey) -> list[int]:
    return [index for index, key in enumerate(lab.keys) if key in survey.settled]


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("is_recorded", [True, False])
def test_unfinished_is_what_runs_or_failed_on_a_full_disk(
    lab: Lab, status: Status, is_recorded: bool
) -> None:
    metadata: Metadata = lab.experiment(0, status).metadata
    recorded = {metadata.identifier} if is_recorded else {"another"}
    expected = status is Status.RUNNING or (status is Status.FAILED and is_recorded)
    assert is_unfinished(metadata, recorded) is expected


def test_survey_of_a_run_of_which_nothing_has_begun(lab: Lab) -> None:
    survey = survey_of(lab)
    assert (survey.settled, survey.taken_up, survey.attempts) == ({}, [], {})
    assert (survey.succeeded, survey.failed) == (0, 0)


@pytest.mark.parametrize(
    ("status", "failed", "is_settled", "counts"),
    [
        (Status.FINISHED, False, True, (1, 0)),
        (Status.FINISHED, True, True, (1, 0)),
        (Status.FAILED, False, True, (0, 1)),
        (Status.FAILED, True, False, (0, 0)),
        (Status.TIMEOUT, False, True, (0, 1)),
        (Status.TIMEOUT, True, False, (0, 0)),
        (Status.CANCELLED, False, False, (0, 0)),
        (Status.CANCELLED, True, False, (0, 0)),
        (Status.LOST, False, False, (0, 0)),
        (Status.LOST, True, False, (0, 0)),
    ],
)
def test_survey_says_what_is_started_again(
    lab: Lab, status: Status, failed: bool, is_settled: bool, counts: tuple[int, int]
) -> None:
    lab.experiment(1, status)
    survey = survey_of(lab, failed=failed)
    assert settled(lab, survey) == ([1] if is_settled else [])
    assert (survey.succeeded, survey.failed) == counts
    assert survey.attempts == {lab.keys[1]: 1}
    assert survey.taken_up == []


def test_survey_takes_up_what_runs_in_the_order_of_the_plan(lab: Lab) -> None:
    later, earlier = lab.experiment(2), lab.experiment(0)
    survey = survey_of(lab, failed=True)
    assert settled(lab, survey) == [0, 2]
    assert [todo.index for todo in survey.taken_up] == [0, 2]
    for todo, experiment in zip(survey.taken_up, (earlier, later), strict=True):
        assert todo.leftover is not None
        assert todo.leftover.directory == experiment.directory
        assert (todo.is_taken_up, todo.again, todo.rerun_failed, todo.attempt) == (
            True, True, True, 1,
        )  # fmt: skip


def test_survey_of_a_job_with_several_experiments_goes_by_the_latest(lab: Lab) -> None:
    lab.experiment(0, Status.FINISHED)
    lab.experiment(0, Status.FAILED)
    lab.experiment(1, Status.FAILED)
    lab.experiment(1, Status.FINISHED)
    survey = survey_of(lab, failed=True)
    assert settled(lab, survey) == [1]
    assert survey.succeeded == 1
    assert survey.attempts == {lab.keys[0]: 2, lab.keys[1]: 2}


def test_survey_finishes_all_experiments_and_runs_only_the_latest_again(lab: Lab) -> None:
    first, second = lab.experiment(0), lab.experiment(0)
    third = lab.experiment(1)
    lab.experiment(1, Status.FINISHED)
    survey = survey_of(lab)
    found = [(todo.leftover.directory, todo.again) for todo in survey.taken_up if todo.leftover]
    assert found == [
        (first.directory, False), (second.directory, True), (third.directory, False),
    ]  # fmt: skip
    assert settled(lab, survey) == [0, 1]
    # The second job has succeeded since: that is what counts
    assert survey.succeeded == 1


def test_survey_leaves_alone_what_goes_on_without_a_runner(lab: Lab) -> None:
    lab.experiment(0)
    lab.experiment(1, Status.FAILED)
    survey = survey_of(lab, held=(0, 1, 3))
    assert settled(lab, survey) == [0, 1, 3]
    assert survey.failed == 0
    assert [(todo.index, todo.leftover, todo.attempt) for todo in survey.taken_up] == [
        (0, None, 1), (1, None, 1), (3, None, 1),
    ]  # fmt: skip
    assert all(todo.is_taken_up and todo.again for todo in survey.taken_up)


def test_survey_of_a_name_counts_what_has_succeeded_in_any_run(lab: Lab) -> None:
    lab.experiment(0, Status.FINISHED)
    lab.experiment(1, Status.FAILED)
    lab.experiment(2)
    for name, expected in (("test", [0, 2]), ("another", [])):
        folder = RunFolder.create(lab.plan, name, Timing())
        survey = survey_name(folder)
        folder.close(done=True)
        assert settled(lab, survey) == expected
        assert survey.succeeded == bool(expected)
        # The lab holds its run as if it executed it
        assert survey.counted[Reason.RUNNING] == len(survey.warnings) == bool(expected)
        assert survey.taken_up == []
