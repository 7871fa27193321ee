"""The files by which a client and its nodes tell each other what happens."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hermes.errors import HermesError
from hermes.events import JobStarted
from hermes.executors.base import NotBegunError
from hermes.executors.slurm.states import cause_in
from hermes.executors.slurm.tasks import (
    Ended,
    Entry,
    Running,
    Submission,
    Task,
    TaskFolder,
    held,
)
from hermes.model import Outcome, Problem, ProblemKind, Status
from hermes.storage.metadata import GitState

FORMAT_1 = Path(__file__).parent / "data" / "format1"
"""A run's folder as the first format leaves it. It stays as it is: what is in it stays readable."""


@pytest.fixture
def folder(tmp_path: Path) -> TaskFolder:
    folder = TaskFolder(str(tmp_path))
    os.mkdir(folder.path)
    return folder


SUBMISSION = Submission(
    number=0,
    job_name="hermes-x-0",
    options=("--time=60",),
    entries=(Entry(0, "key0", 1), Entry(4, "key4", 2)),
    git=GitState(commit="c" * 40, branch="main", dirty=True),
    has_patch=True,
    grace=10.0,
)
FIRST, SECOND = SUBMISSION.tasks

OUTCOME = Outcome(
    identifier="2026_11_22_173044000001_00000",
    script="job.sh",
    directory="/x/2026_11_22_173044000001_00000",
    status=Status.FAILED,
    exit_code=3,
    duration=1.5,
    problems=(Problem(ProblemKind.NOT_COPIED, "`-ca none.txt`: no such file or directory"),),
    argv=("sh", "job.sh", "\udcff"),
    line=7,
)
EVENT = JobStarted(
    time=1.5,
    identifier=OUTCOME.identifier,
    script="job.sh",
    index=0,
    slot=0,
    pid=12,
    argv=OUTCOME.argv,
    arguments=("\udcff",),
    directory="/x",
    line=7,
    log=True,
)


def test_what_is_written_is_read(folder: TaskFolder) -> None:
    folder.add(SUBMISSION)
    assert list(folder.submissions()) == [SUBMISSION]
    assert SUBMISSION.task(1) == Task(submission=0, number=1, index=4, key="key4", attempt=2)
    running = Running(event=EVENT, collected=("a", "name \udcff"), node="n1", restarts=1)
    folder.write(FIRST, running)
    assert folder.running(FIRST) == running
    assert folder.changed(FIRST) > 0
    assert folder.changed(SECOND) == 0
    ended = Ended.of(OUTCOME, ("a",))
    folder.write(FIRST, ended)
    assert folder.ended(FIRST) == ended
    assert ended.end == OUTCOME
    folder.mark_accepted(0, "12")
    assert {"0.json", "0.job", "0.0.running", "0.0.ended"} == folder.names()


@pytest.mark.parametrize("problem", [None, Problem(ProblemKind.DISK_FULL, "no room")])
def test_a_job_that_was_not_begun_is_told_as_such(
    folder: TaskFolder, problem: Problem | None
) -> None:
    folder.write(FIRST, Ended.of(NotBegunError(problem, Status.CANCELLED)))
    ended = folder.ended(FIRST)
    assert ended is not None
    assert isinstance(ended.end, NotBegunError)
    assert (ended.end.problem, ended.end.status) == (problem, Status.CANCELLED)


def test_only_one_job_gets_a_task(folder: TaskFolder) -> None:
    assert folder.claimed_by(FIRST) is None
    assert folder.claim(FIRST, "12_0")
    assert not folder.claim(FIRST, "13_0")
    # Started again
    assert folder.claim(FIRST, "12_0")
    assert folder.claimed_by(FIRST) == "12_0"
    assert folder.claim(SECOND, "13_1")
    assert folder.names() == {"0.0.claim", "0.1.claim"}
    assert SUBMISSION.is_claimed(folder.names())


def test_only_one_job_gets_a_task_where_there_are_no_links(
    folder: TaskFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    test_only_one_job_gets_a_task(folder)


def test_what_has_been_told_is_open_no_more(folder: TaskFolder) -> None:
    folder.add(SUBMISSION)
    folder.write(FIRST, Running(event=EVENT, collected=(), node="n1", restarts=0))
    folder.write(FIRST, Ended.of(OUTCOME))
    assert list(folder.open_tasks()) == [FIRST, SECOND]
    folder.mark_told(FIRST, OUTCOME)
    # No node has said how it ended
    folder.mark_told(SECOND, NotBegunError(None))
    assert list(folder.open_tasks()) == []
    assert folder.names() == {"0.json", "0.0.told", "0.1.told"}


@pytest.mark.parametrize(
    ("end", "failed", "expected"),
    [
        (None, False, True),
        (None, True, True),
        (Status.FINISHED, True, True),
        (Status.FAILED, False, True),
        (Status.FAILED, True, False),
        (Status.TIMEOUT, False, True),
        (Status.TIMEOUT, True, False),
        (Status.CANCELLED, False, False),
        (Status.LOST, False, False),
        (NotBegunError(Problem(ProblemKind.REFUSED, "no")), False, False),
    ],
)
def test_a_resumed_run_goes_on_with_what_is_with_slurm(
    folder: TaskFolder, end: Status | NotBegunError | None, failed: bool, expected: bool
) -> None:
    folder.add(SUBMISSION)
    folder.mark_told(SECOND)
    if isinstance(end, Status):
        text = json.dumps({"format": 1, "outcome": {"identifier": "x", "script": "x",
                           "directory": "/x", "status": end}})  # fmt: skip
        Path(folder.path, "0.0.ended").write_text(text)
    elif end is not None:
        folder.write(FIRST, Ended.of(end))
    assert held(folder, failed=failed) == ({"key0"} if expected else set())
    # What is started again is done with
    assert ("0.0.told" in folder.names()) is not expected


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 2}', "null"])
def test_a_record_that_cannot_be_read_says_nothing(folder: TaskFolder, text: str) -> None:
    for kind in ("claim", "running", "ended"):
        Path(folder.path, f"0.0.{kind}").write_text(text)
    assert folder.claimed_by(FIRST) is None
    assert folder.running(FIRST) is None
    assert folder.ended(FIRST) is None
    Path(folder.path, "0.json").write_text(text)
    with pytest.raises(HermesError):
        folder.submission(0)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [_pipe, _link, _directory])
def test_nothing_is_opened_that_is_no_regular_file(
    folder: TaskFolder, make: Callable[[Path], None]
) -> None:
    for name in ("0.0.running", "0.0.ended", "0.0.claim", "0.0.log"):
        make(Path(folder.path, name))
    assert folder.running(FIRST) is None
    assert folder.ended(FIRST) is None
    assert folder.claimed_by(FIRST) is None
    assert folder.log(FIRST) == ""


def test_a_newer_submission_is_told(folder: TaskFolder) -> None:
    folder.add(SUBMISSION)
    path = Path(folder.path, "0.json")
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(HermesError, match="newer Hermes"):
        list(folder.submissions())


def test_without_a_folder_there_are_no_tasks(tmp_path: Path) -> None:
    folder = TaskFolder(str(tmp_path))
    assert folder.names() == set()
    assert not folder.is_there()
    assert list(folder.open_tasks()) == []
    # Removed meanwhile
    folder.add(SUBMISSION)
    assert list(folder.open_tasks()) == [FIRST, SECOND]
    # Not the run's folder with it: no node would find the run in there
    with pytest.raises(FileNotFoundError):
        TaskFolder(str(tmp_path / "gone")).add(SUBMISSION)
    assert not (tmp_path / "gone").exists()


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    folder = TaskFolder(str(tmp_path))
    Path(folder.path).write_text("in its place")
    with pytest.raises(HermesError, match="cannot be read: Not a directory"):
        folder.names()
    with pytest.raises(HermesError, match="cannot be read"):
        held(folder, failed=False)


def test_the_files_of_format_1_are_read(tmp_path: Path) -> None:
    shutil.copytree(FORMAT_1, tmp_path, dirs_exist_ok=True)
    folder = TaskFolder(str(tmp_path))
    (submission,) = folder.submissions()
    assert submission.job_name == "hermes-20261125-195000-0a1b2c3d-0"
    assert submission.options == ("--time=60", "--comment=a b")
    assert submission.git == GitState(commit="c" * 40, branch="main", dirty=True)
    assert (submission.has_patch, submission.grace) == (True, 10.0)
    finished, _, not_begun, waits = submission.tasks
    assert (finished.index, finished.attempt, waits.index, waits.attempt) == (0, 1, 5, 2)
    assert list(folder.open_tasks()) == [finished, not_begun, waits]
    assert folder.claimed_by(finished) == "12_0"
    running = folder.running(finished)
    assert running is not None
    assert (running.node, running.restarts) == ("n1", 1)
    assert running.collected == ("model_x.txt", "name \udcff")
    assert running.event.argv == ("sh", "job.sh", "2026_11_25_195001000001_ccccc", "0.1")
    assert (running.event.pid, running.event.line, running.event.log) == (4711, 3, True)
    ended = folder.ended(finished)
    assert ended is not None
    assert isinstance(ended.end, Outcome)
    assert (ended.end.status, ended.end.exit_code, ended.end.signal) == ("failed", 3, None)
    assert ended.end.problems[0].kind is ProblemKind.NOT_COPIED
    assert ended.collected == running.collected
    other = folder.ended(not_begun)
    assert other is not None
    assert isinstance(other.end, NotBegunError)
    assert other.end.problem == Problem(ProblemKind.DISK_FULL, "no space left on device")
    assert cause_in(folder.log(finished)) is None
    assert held(folder, failed=False) == {finished.key, waits.key}
