"""A run's folder: its record, its lock, its experiments, and what is left of it when it is over."""

from __future__ import annotations

import gc
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hermes import HermesError, Status
from hermes.model import Problem, ProblemKind
from hermes.storage import run_folder
from hermes.storage.git import Git
from hermes.storage.metadata import GitState, SlurmTask, StoredFile, now, read_metadata
from hermes.storage.run_folder import (
    RunFolder,
    experiments_of,
)
from hermes.storage.run_record import RESERVE, lock, read_record, runs_in

from .conftest import Lab, a_job


def found(lab: Lab) -> list[str]:
    """The ids of the runs that may be resumed."""
    warnings: list[str] = []
    runs = runs_in(str(lab.experiments), warnings.append)
    assert not warnings
    return [record.run_id for record in runs]


def test_a_run_that_is_done_leaves_no_folder(lab: Lab) -> None:
    run = lab.run()
    assert found(lab) == [run.run_id]
    run.close(done=True)
    assert os.listdir(lab.experiments / ".hermes") == ["clock"]
    assert found(lab) == []


def test_a_run_that_is_not_done_can_be_resumed_with_its_plan(lab: Lab) -> None:
    run = lab.run()
    experiment = run.experiment(a_job(), "key")
    experiment.close_logs()
    run.close(done=False)
    lab.write("x.hermes", "EXEC\n[[sh, job.sh, 1]]\n[[sh, job.sh, 2]]\n")
    (record,) = runs_in(str(lab.experiments), print)
    assert record == read_record(run.folder)
    assert (record.folder, record.name) == (run.folder, "test")
    assert record.working_directory == str(lab.path)
    plan = record.plan()
    assert (plan.count, plan.sha256) == (1, run.plan.sha256)
    again = RunFolder.reopen(record, plan, lab.timing)
    assert (again.run_id, again.name, again.folder) == (run.run_id, run.name, run.folder)
    assert [metadata for _, metadata in experiments_of(again)] == [experiment.metadata]
    again.close(done=True)


def test_runs_are_found_the_latest_first(lab: Lab) -> None:
    runs = [lab.run(name=name) for name in ("one", "two", "two")]
    assert set(found(lab)) == {run.run_id for run in runs}
    assert found(lab) == sorted(found(lab), reverse=True)
    assert runs_in(str(lab.path / "no"), print) == []
    for run in runs:
        run.close(done=True)


def test_a_run_that_ends_while_others_look_is_no_error_and_not_told(lab: Lab) -> None:
    warnings: list[str] = []
    is_over = threading.Event()

    def look() -> int:
        count = 0
        while not is_over.is_set():
            count += len(runs_in(str(lab.experiments), warnings.append))
        return count

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        for _ in range(100):
            lab.run().close(done=True)
        is_over.set()
        assert looking.result() > 0
    assert warnings == []


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[]", "not written by Hermes"),
        (b'{"format": 99}', "newer Hermes"),
        (b'{"format": 1, "run_id": "x"}', "not written by Hermes"),
        (
            b'{"format": 1, "run_id": "x", "name": "y", "recipe": {"working_directory": 1}}',
            "does not hold a plan",
        ),
        (None, "not a regular file"),
    ],
)
def test_a_record_that_cannot_be_read_is_told_and_left(
    lab: Lab, data: bytes | None, text: str
) -> None:
    run = lab.run()
    run.close(done=False)
    path = Path(run.folder, "run.json")
    path.unlink()
    if data is None:
        os.mkfifo(path)
    else:
        path.write_bytes(data)
    warnings: list[str] = []
    assert runs_in(str(lab.experiments), warnings.append) == []
    (warning,) = warnings
    assert text in warning
    assert data is None or path.read_bytes() == data


def test_a_record_with_a_foreign_plan_is_an_error(lab: Lab) -> None:
    run = lab.run()
    run.close(done=False)
    path = Path(run.folder, "run.json")
    data = json.loads(path.read_text())
    del data["recipe"]["text"]
    path.write_text(json.dumps(data))
    with pytest.raises(HermesError, match="does not hold a plan"):
        read_record(run.folder).plan()


def test_one_process_at_a_time_executes_a_run(lab: Lab) -> None:
    run = lab.run()
    with pytest.raises(HermesError, match="still in progress"):
        RunFolder.reopen(read_record(run.folder), run.plan, lab.timing)
    assert lock(run.folder) is None
    run.close(done=False)
    again = RunFolder.reopen(read_record(run.folder), run.plan, lab.timing)
    again.close(done=True)


def test_the_lock_goes_with_its_process(lab: Lab) -> None:
    run = lab.run()
    run.close(done=False)
    code = (
        "import sys, hermes.storage.run_folder as r; assert r.lock(sys.argv[1]) is not None;"
        "print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, run.folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert lock(run.folder) is None
        process.kill()
    fd = lock(run.folder)
    assert fd is not None
    os.close(fd)


def test_experiments_that_are_no_folder_are_an_error_and_left(lab: Lab) -> None:
    lab.write("experiments", "mine")
    with pytest.raises(HermesError, match=r"cannot write to .*experiments"):
        lab.run()
    assert lab.experiments.read_text() == "mine"


@pytest.mark.fault(9)
@pytest.mark.usefixtures("forbidding")
def test_an_experiments_folder_that_is_read_only_is_an_error(lab: Lab) -> None:
    lab.experiments.mkdir(mode=0o555)
    with pytest.raises(HermesError, match=r"cannot write to .*experiments"):
        lab.run()


@pytest.mark.fault(18)
def test_a_run_that_finds_no_room_leaves_nothing_open_and_no_folder(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "has_room", lambda _folder: False)
    gc.collect()
    before = len(os.listdir("/dev/fd"))
    for _ in range(2):
        with pytest.raises(HermesError, match="No space left"):
            lab.run()
    assert len(os.listdir("/dev/fd")) == before
    assert os.listdir(lab.experiments / ".hermes") == []


def test_the_reserve_lies_in_the_lock_file_until_it_is_used(lab: Lab) -> None:
    run = lab.run()
    path = Path(run.folder, "lock")
    assert path.stat().st_size == RESERVE
    assert path.stat().st_blocks * 512 >= RESERVE
    run.use_reserve()
    assert path.stat().st_size == 0
    assert lock(run.folder) is None
    assert run.has_room
    run.close(done=True)


def test_exit_files_that_are_left_are_told(lab: Lab) -> None:
    run = lab.run()
    Path(run.exit_file("2026_03_04_120000000000_1930e")).touch()
    assert "2026_03_04_120000000000_1930e" in run.recorded()
    run.close(done=True)


def test_experiments_are_told_in_the_order_of_their_starts_for_this_run_alone(lab: Lab) -> None:
    run, other = lab.run(), lab.run()
    mine = []
    for script in ("b.sh", "a.sh", "b.sh"):
        experiment = run.experiment(a_job(script=script), "key")
        experiment.close_logs()
        mine.append((experiment.directory, experiment.metadata))
        other.experiment(a_job(script=script), "key").close_logs()
    assert list(experiments_of(run)) == mine
    run.close(done=True)
    other.close(done=True)


@pytest.mark.parametrize("what", ["experiments", "experiments/job.sh", "experiments/.hermes"])
def test_what_somebody_has_removed_is_made_again(lab: Lab, what: str) -> None:
    run = lab.run()
    before = run.experiment(a_job(), "1")
    before.close_logs()
    shutil.rmtree(lab.path / what)
    after = run.experiment(a_job(), "2")
    after.close_logs()
    assert after.identifier > before.identifier
    assert read_metadata(after.directory).key == "2"
    assert read_record(run.folder).run_id == run.run_id
    assert lock(run.folder) is None
    run.close(done=True)
    assert os.listdir(lab.experiments / ".hermes") == ["clock"]


def test_a_project_that_was_renamed_meanwhile_is_not_made_again(lab: Lab) -> None:
    run = lab.run()
    moved = lab.path.rename(lab.path.with_name("moved"))
    with pytest.raises(FileNotFoundError):
        run.experiment(a_job(), "1")
    assert not lab.path.exists()
    moved.rename(lab.path)
    run.close(done=True)


@pytest.mark.fault(9)
@pytest.mark.parametrize("place", ["job.sh", "job.sh/test"])
def test_a_place_that_is_taken_is_an_error_and_left(lab: Lab, place: str) -> None:
    run = lab.run()
    taken = lab.write(f"experiments/{place}", "mine")
    with pytest.raises(FileExistsError if place == "job.sh/test" else OSError):
        run.experiment(a_job(), "key")
    assert taken.read_text() == "mine"
    run.experiment(a_job(script="good.sh"), "key").close_logs()
    run.close(done=True)


def test_threads_get_directories_of_their_own(lab: Lab) -> None:
    run = lab.run()
    made: list[str] = []

    def make() -> None:
        for _ in range(20):
            experiment = run.experiment(a_job(), "key")
            experiment.close_logs()
            made.append(experiment.directory)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.close(done=True)
    assert len(set(made)) == 80


def test_a_node_attaches_without_the_lock_and_tells_where_it_is(lab: Lab) -> None:
    run = lab.run()
    slurm = SlurmTask(job="5_0", task="0.0", node="n1", cluster="big")
    git = Git(GitState(commit="1" * 40, branch="trunk", dirty=False))
    node = RunFolder.attach(read_record(run.folder), run.plan, git, slurm)
    experiment = node.experiment(a_job(), "key")
    experiment.close_logs()
    metadata = read_metadata(experiment.directory)
    assert (metadata.slurm, metadata.git, metadata.run_id) == (slurm, git.state, run.run_id)
    assert metadata.identifier.endswith("_11111")
    node.use_reserve()
    assert Path(run.folder, "lock").stat().st_size == 0
    node.close(done=False)
    assert lock(run.folder) is None
    run.close(done=True)


def test_a_job_that_was_broken_off_continues_in_its_directory(lab: Lab) -> None:
    run = lab.run()
    first = run.experiment(a_job(), "key", attempt=1)
    first.metadata.start, first.metadata.pid, first.metadata.pid_start = now(), 7, "8"
    first.metadata.host = "another machine"
    kept = StoredFile("before", 1, "copied-before")
    first.metadata.files = [kept, StoredFile("late", 1, "collected")]
    first.add_problem(Problem(ProblemKind.CLUSTER, "preempted"))
    first.write(sync=False)
    os.write(first.logs[0], b"one\n")
    first.close_logs()
    Path(run.exit_file(first.identifier)).touch()
    Path(first.directory, "0123456789abcdef01234567.hermes-part").touch()
    run.continued = (first.directory, read_metadata(first.directory))
    again = run.experiment(a_job(), "key", attempt=9)
    assert again.is_continued
    assert (again.directory, again.identifier) == (first.directory, first.identifier)
    os.write(again.logs[0], b"two\n")
    again.close_logs()
    assert Path(again.directory, "stdout.log").read_text() == "one\ntwo\n"
    assert not Path(again.directory, "0123456789abcdef01234567.hermes-part").exists()
    assert first.identifier not in run.recorded()
    metadata = read_metadata(again.directory)
    assert (metadata.attempts, metadata.restarts, metadata.status) == (1, 1, Status.RUNNING)
    assert (metadata.files, metadata.problems) == ([kept], [])
    assert (metadata.host, metadata.pid, metadata.pid_start) == (os.uname().nodename, None, None)
    run.close(done=True)


def test_git_is_asked_once_while_nothing_changes(
    repository: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = shlex.quote(str(shutil.which("git"))), Path(f"{repository.path}.asked")
    text = f'#!/bin/sh\necho "$*" >> {shlex.quote(str(asked))}\nexec {real} "$@"\n'
    repository.program("bin/git", text)
    monkeypatch.setenv("PATH", f"{repository.path}/bin", prepend=os.pathsep)
    # However slow the machine: git is asked again only when something has changed
    monkeypatch.setattr("hermes.storage.code.INTERVAL", 1e9)
    run = repository.run()
    # `git diff` itself may have refreshed an index that is so young: then it is asked once more
    for _ in range(2):
        experiment = run.experiment(a_job(), "key")
        experiment.close_logs()
        experiment.complete()
        experiment.write(sync=False)
    once = asked.read_text().count("\n")
    for _ in range(5):
        experiment = run.experiment(a_job(), "key")
        experiment.close_logs()
        experiment.complete()
        experiment.write(sync=False)
    assert asked.read_text().count("\n") == once > 0
    run.close(done=True)


def test_records_of_format_1_stay_readable() -> None:
    folder = Path(__file__).parent / "data/format1/experiments/.hermes/20260304-115959-0a1b2c3d"
    record = read_record(str(folder))
    assert (record.run_id, record.name) == ("20260304-115959-0a1b2c3d", "first")
    assert record.working_directory == "/home/a/work"
    (found,) = runs_in(str(folder.parent.parent), print)
    assert found == record
    assert record.recipe == {
        "path": "/home/a/x.hermes",
        "text": "PRE\nthreads: 2\nEXEC\n[[python, train.py, --lr 0.1]]\n",
        "working_directory": "/home/a/work",
        "root": "/home/a",
        "comments": ["one: two"],
        "settings": {
            "threads": 2,
            "path_to_experiments": ".",
            "supervise": True,
            "executor": "slurm",
            "slurm": "",
        },
    }
    plan = record.plan()
    assert (plan.count, plan.settings.threads, str(plan.root)) == (1, 2, "/home/a")
