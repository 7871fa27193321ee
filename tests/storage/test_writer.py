"""The experiment directory of one job before, while and after it runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import hermes
from hermes import Status
from hermes.model import Options, Problem, ProblemKind
from hermes.storage.metadata import StoredFile, now, read_metadata
from hermes.storage.writer import Experiment, rerun_command

from .conftest import Lab, a_job

PROBLEM = Problem(ProblemKind.NOT_COPIED, "one")


def test_metadata_of_a_job_that_has_begun_tell_what_it_is(lab: Lab) -> None:
    options = Options(copy_after=("a.txt",), comments=("one", "two"))
    with lab.experiment(a_job("-lr", "0.1", options=options)) as experiment:
        found = read_metadata(experiment.directory)
        plan = experiment.run.plan
        assert found == experiment.metadata
        assert found.argv == ("sh", "job.sh", experiment.identifier, "-lr", "0.1")
        assert found.argv == experiment.argv
        assert found.arguments == ("-lr", "0.1")
        assert (found.options, found.comments) == (options, ("one", "two"))
        assert (found.key, found.attempts, found.status) == ("key", 1, Status.RUNNING)
        assert found.hermes_file is not None
        assert found.hermes_file.path == str(lab.path / "x.hermes")
        assert (found.hermes_file.line, found.hermes_file.sha256) == (2, plan.sha256)
        assert found.settings == plan.settings.as_json()
        assert found.versions.hermes == hermes.__version__
        assert found.git.reason == "not a git repository"
        assert found.host == os.uname().nodename
        assert (found.start, found.end, found.pid, found.exit_code) == (None, None, None, None)


def test_changed_metadata_are_on_the_disk_when_written(lab: Lab) -> None:
    with lab.experiment() as experiment:
        experiment.metadata.status = Status.FINISHED
        experiment.metadata.end = now()
        experiment.metadata.files.append(StoredFile("a", 1, "collected"))
        assert read_metadata(experiment.directory).status is Status.RUNNING
        experiment.write(sync=True)
        assert read_metadata(experiment.directory) == experiment.metadata


def test_a_problem_is_told_once(lab: Lab) -> None:
    with lab.experiment() as experiment:
        other = Problem(ProblemKind.NOT_COLLECTED, "one")
        for problem in (PROBLEM, PROBLEM, other, PROBLEM):
            experiment.add_problem(problem)
        assert experiment.metadata.problems == [PROBLEM, other]


def test_experiments_do_not_share_what_changes(lab: Lab) -> None:
    run = lab.run()
    one, other = run.experiment(a_job(), "1"), run.experiment(a_job(), "2")
    one.add_problem(PROBLEM)
    one.metadata.files.append(StoredFile("a", 1, "collected"))
    assert (other.metadata.problems, other.metadata.files) == ([], [])
    assert (run.template.problems, run.template.files) == ([], [])
    one.close_logs()
    other.close_logs()
    run.close(done=True)


def test_both_logs_are_open_and_append(lab: Lab) -> None:
    with lab.experiment() as experiment:
        again = [os.open(f"{experiment.directory}/stdout.log", os.O_WRONLY | os.O_APPEND)]
        os.write(experiment.logs[0], b"1")
        os.write(again[0], b"2")
        os.write(experiment.logs[0], b"3")
        os.write(experiment.logs[1], b"error")
        os.close(again[0])
        assert all(os.get_blocking(fd) for fd in experiment.logs)
        experiment.close_logs()
        assert experiment.logs == []
        assert Path(experiment.directory, "stdout.log").read_bytes() == b"123"
        assert Path(experiment.directory, "stderr.log").read_bytes() == b"error"


@pytest.mark.parametrize("put", ["fifo", "folder", "link", "hard link", "closed"])
def test_what_a_job_has_put_in_the_place_of_a_log_is_put_aside(lab: Lab, put: str) -> None:
    with lab.experiment() as experiment:
        experiment.close_logs()
        log, precious = Path(experiment.directory, "stderr.log"), lab.path / "precious"
        log.unlink()
        precious.write_text("precious")
        make: dict[str, Callable[[], object]] = {
            "fifo": lambda: os.mkfifo(log),
            "folder": log.mkdir,
            "link": lambda: log.symlink_to(precious),
            "hard link": lambda: log.hardlink_to(precious),
            "closed": lambda: log.touch(0o000),
        }
        make[put]()
        experiment.open_logs()
        os.write(experiment.logs[1], b"more")
        assert precious.read_text() == "precious"
        if put != "closed" or os.geteuid():
            assert log.read_text() == "more"
            assert os.path.lexists(f"{log}.1")


def test_untouched_is_what_holds_only_files_of_hermes_and_empty_logs(lab: Lab) -> None:
    with lab.experiment() as experiment:
        assert experiment.is_untouched
        os.unlink(f"{experiment.directory}/stderr.log")
        assert experiment.is_untouched
        os.write(experiment.logs[0], b"x")
        assert not experiment.is_untouched
    with lab.experiment() as experiment:
        Path(experiment.directory, "made").touch()
        assert not experiment.is_untouched


def test_a_discarded_experiment_leaves_nothing(lab: Lab) -> None:
    with lab.experiment() as experiment:
        experiment.discard()
        assert not os.path.exists(experiment.directory)
        assert experiment.logs == []


def test_the_environment_tells_the_job_what_it_is(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "")
    monkeypatch.setenv("NOT_UTF_8", os.fsdecode(b"\xff"))
    with lab.experiment() as experiment:
        experiment.metadata.slot = 3
        found = experiment.environment()
        assert found[b"HERMES_SLOT"] == b"3"
        assert found[b"HERMES_IDENTIFIER"] == experiment.identifier.encode()
        assert found[b"HERMES_EXPERIMENT_DIR"] == os.fsencode(experiment.directory)
        assert found[b"HERMES_NAME"] == b"test"
        assert found[b"PYTHONUNBUFFERED"] == b""
        assert found[b"NOT_UTF_8"] == b"\xff"
    monkeypatch.delenv("PYTHONUNBUFFERED")
    with lab.experiment() as experiment:
        assert experiment.environment()[b"PYTHONUNBUFFERED"] == b"1"


def test_a_reopened_experiment_forgets_how_it_ended_and_keeps_how_it_began(lab: Lab) -> None:
    run = lab.run()
    first = run.experiment(a_job(), "key", attempt=2)
    kept = StoredFile("before", 1, "copied-before")
    first.metadata.files = [kept, StoredFile("late", 1, "collected")]
    first.metadata.start, first.metadata.pid, first.metadata.pid_start = now(), 7, "8"
    first.metadata.boot_id, first.metadata.host = "another start", "another machine"
    first.metadata.status, first.metadata.exit_code = Status.FAILED, 3
    first.metadata.end, first.metadata.duration = now(), 1.0
    first.add_problem(PROBLEM)
    first.write(sync=False)
    stored = read_metadata(first.directory)
    again = Experiment.reopen(run, a_job(), first.directory, stored).metadata
    assert (again.status, again.exit_code, again.end, again.duration) == (
        Status.RUNNING, None, None, None,
    )  # fmt: skip
    assert (again.files, again.problems) == ([kept], [])
    assert (again.start, again.pid, again.pid_start) == (first.metadata.start, 7, "8")
    assert (again.boot_id, again.host) == ("another start", "another machine")
    assert (again.attempts, again.identifier, again.key) == (2, first.identifier, "key")
    # What was read is as it was
    assert stored.status is Status.FAILED
    assert len(stored.files) == 2
    first.close_logs()
    run.close(done=True)


def test_re_execution_stands_in_the_directory_and_its_command_is_relative(lab: Lab) -> None:
    with lab.experiment(a_job("it's")) as experiment:
        text = Path(experiment.directory, "re_execution.hermes").read_text()
        assert "EXEC\n[[sh, job.sh, " in text
        command = rerun_command(experiment.directory, "again", experiment.run.plan)
        path = f"experiments/job.sh/test/{experiment.identifier}/re_execution.hermes"
        assert command == f"hermes exec -f {path} -n again"
