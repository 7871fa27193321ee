"""What the runs of one name tell each other of the jobs that they start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hermes.language.compiling import compile_file
from hermes.language.plan import Plan
from hermes.model import Status
from hermes.run.starts import Starts
from hermes.run.survey import Reason
from hermes.storage import layout
from hermes.storage.run_folder import RunFolder
from hermes.timing import Timing

from ..support import Project


@pytest.fixture
def plan(project: Project) -> Plan:
    project.write("job.sh")
    path = project.hermes_file("[[sh, job.sh]]")
    return compile_file(path, working_directory=project.path, root=project.path)


class Runs:
    """Runs of one name, each with its `Starts`. What the experiments tell is `settled`."""

    def __init__(self, plan: Plan) -> None:
        self.settled: dict[str, Reason] = {}
        self.folders = [RunFolder.create(plan, "name", Timing()) for _ in range(3)]
        self.starts = [self.open(folder) for folder in self.folders]
        self.file = Path(layout.starts_file(str(plan.experiments), "name"))

    def open(self, folder: RunFolder) -> Starts:
        return Starts(folder.experiments, folder.name, folder.run_id, self.settled.get)


@pytest.fixture
def runs(plan: Plan) -> Iterator[Runs]:
    runs = Runs(plan)
    yield runs
    for folder in runs.folders:
        folder.close(done=True)


def test_what_another_run_has_started_is_taken_until_it_has_failed(runs: Runs) -> None:
    first, second, third = runs.starts
    assert first.begin("a") is None
    assert second.begin("a") is third.begin("a") is Reason.RUNNING
    assert second.begin("b") is None
    first.end("a", Status.FINISHED)
    second.end("b", Status.FAILED)
    assert second.begin("a") is Reason.SUCCEEDED
    assert third.begin("b") is None
    assert second.begin("b") is Reason.RUNNING
    # A run may start its own again
    assert third.begin("b") is None


def test_what_a_run_has_started_that_was_killed_is_told_by_the_experiments(runs: Runs) -> None:
    first, second, _ = runs.starts
    for key in "abc":
        assert first.begin(key) is None
    runs.folders[0].close(done=False)
    runs.settled.update(a=Reason.SUCCEEDED, b=Reason.RUNNING)
    assert [second.begin(key) for key in "abc"] == [Reason.SUCCEEDED, Reason.RUNNING, None]
    # What was started again is not that of the first run any more
    first.end("c", Status.FINISHED)
    assert runs.starts[2].begin("c") is Reason.RUNNING


def test_a_job_that_goes_on_is_taken(runs: Runs) -> None:
    first, second, _ = runs.starts
    assert first.begin("a") is None
    second.go_on("a")
    assert first.begin("a") is Reason.RUNNING


def test_the_file_goes_with_the_last_run(runs: Runs) -> None:
    for starts, folder in zip(runs.starts, runs.folders, strict=True):
        assert runs.file.exists()
        starts.close()
        folder.close(done=True)
    assert not runs.file.exists()


def test_the_file_goes_though_all_runs_end_at_the_same_instant(runs: Runs) -> None:
    # Each has still the lock of its own folder when the next one looks
    for starts in runs.starts:
        assert runs.file.exists()
        starts.close()
    assert not runs.file.exists()


def test_a_killed_run_keeps_no_file(runs: Runs) -> None:
    third = runs.starts[2]
    for folder in runs.folders[:2]:
        folder.close(done=False)
    third.close()
    assert not runs.file.exists()
    # One that goes on makes it anew
    assert third.begin("a") is None
    assert runs.file.exists()


def test_half_a_line_is_passed_over(runs: Runs) -> None:
    first, second, _ = runs.starts
    assert first.begin("a") is None
    with runs.file.open("ab") as file:
        file.write(b"start x")
    assert second.begin("b") is None
    assert first.begin("b") is Reason.RUNNING
    with runs.file.open("ab") as file:
        file.write(b"end x y\nnonsense\nend a b no-status\n\xff\xfe\n")
    assert second.begin("a") is Reason.RUNNING


def test_a_file_that_is_gone_harms_nothing(runs: Runs) -> None:
    first, second, _ = runs.starts
    assert first.begin("a") is None
    runs.file.unlink()
    assert second.begin("b") is None
    assert first.begin("b") is Reason.RUNNING
    runs.file.unlink()
    runs.file.mkdir()
    assert first.begin("c") is None
    first.end("c", Status.FINISHED)
    first.close()
    assert runs.file.is_dir()
