"""Whether an experiment's job runs, whatever its metadata say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hermes import JobStarted, Status
from hermes.executors.slurm.tasks import Ended, Entry, Running, Submission, TaskFolder
from hermes.run.alive import Look, State
from hermes.storage.journal import JournalWriter, Machine
from hermes.storage.layout import exit_file
from hermes.storage.metadata import GitState, Metadata, read_metadata
from hermes.storage.run_record import lock

from ..query.simple import experiment, identifier

HERE = Machine.here()
ELSEWHERE = Machine("elsewhere", "another")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run."""
    folder = tmp_path / "experiments" / ".hermes" / "2026_11_20_120000-abcde"
    folder.mkdir(parents=True)
    return folder


def made(run: Path, status: Status, machine: Machine = HERE) -> tuple[str, Metadata]:
    directory = experiment(
        run.parent.parent, 1, status=status, host=machine.host, boot_id=machine.boot_id
    )
    return str(directory), read_metadata(directory)


def state(run: Path, status: Status, machine: Machine = HERE) -> State:
    return Look().at(*made(run, status, machine)).state


@pytest.mark.parametrize(
    ("status", "machine", "journal", "has_exit", "expected"),
    [
        (Status.FINISHED, HERE, "", False, State.ENDED),
        (Status.FINISHED, ELSEWHERE, "", False, State.ENDED),
        (Status.FINISHED, ELSEWHERE, "start end", False, State.ENDED),
        # A job that has written its metadata itself
        (Status.FINISHED, ELSEWHERE, "start", False, State.UNKNOWN),
        (Status.FINISHED, HERE, "start", False, State.ENDED),
        (Status.RUNNING, HERE, "start", False, State.LEFT),
        (Status.RUNNING, HERE, "", False, State.LEFT),
        (Status.RUNNING, ELSEWHERE, "", False, State.UNKNOWN),
        (Status.RUNNING, ELSEWHERE, "start", False, State.UNKNOWN),
        (Status.RUNNING, ELSEWHERE, "start", True, State.LEFT),
    ],
)
def test_without_a_process_and_a_runner(
    run: Path, status: Status, machine: Machine, journal: str, has_exit: bool, expected: State
) -> None:
    if journal:
        writer = JournalWriter(str(run), machine)
        writer.start(identifier(1), "key", 1, 0)
        if "end" in journal:
            writer.end(identifier(1), status)
        writer.close()
    if has_exit:
        Path(exit_file(str(run), identifier(1))).write_text("12\n0\n")
    assert state(run, status, machine) is expected


def test_a_runner_that_is_at_it(run: Path) -> None:
    fd = lock(str(run))
    assert fd is not None
    writer = JournalWriter(str(run), HERE)
    writer.start(identifier(1), "key", 1, 0)
    directory, metadata = made(run, Status.FINISHED)
    # Its metadata are final, but it is not brought to its end
    assert Look().at(directory, metadata).state is State.RUNNING
    assert Look(ours={str(run)}).at(directory, metadata).state is State.ENDED
    writer.end(identifier(1), Status.FINISHED)
    assert Look().at(directory, metadata).state is State.ENDED
    writer.close()
    os.close(fd)


def test_a_task_that_is_with_the_cluster(run: Path) -> None:
    tasks = TaskFolder(str(run))
    submission = Submission(
        number=0, job_name="x", options=(), entries=(Entry(0, "key", 1),), git=GitState(),
        has_patch=False, grace=1.0,
    )  # fmt: skip
    tasks.add(submission)
    directory, metadata = made(run, Status.RUNNING)
    event = JobStarted(
        identifier=identifier(1), script="train", index=0, slot=0, pid=1, argv=(), arguments=(),
        directory=directory, line=1, log=True,
    )  # fmt: skip
    (task,) = submission.tasks
    # Requeued, it goes on in its directory later
    tasks.write(task, Running(event=event, collected=(), node="n1", restarts=0))
    assert Look().at(directory, metadata).state is State.RUNNING
    tasks.write(task, Ended())
    assert Look().at(directory, metadata).state is State.LEFT
