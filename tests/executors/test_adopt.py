"""Jobs that outlive their runner, or end while nobody watches, are adopted by the next one."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from hermes.language.keys import Keys
from hermes.storage.run_folder import RunFolder
from hermes.storage.run_record import read_record
from hermes.timing import TIMING

from ..support import Desk, all_metadata, until
from ..support.sweeps import check_all_done, ledger, sweep

pytestmark = [
    pytest.mark.fault(1),
    pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc"),
]


def end_after_its_runner(desk: Desk) -> None:
    """The first job of the sweep, which has the code 0, outlives its runner and comes to its end
    while nobody watches.
    """
    desk.write("hold0")
    with desk.started("exec", "-f", "s.hermes") as runner:
        until(lambda: list(desk.path.glob("early_*")))
        runner.kill()
        runner.wait()
    (desk.path / "hold0").unlink()
    until(lambda: len(ledger(desk)) == 1)


def test_jobs_that_outlive_the_runner_are_adopted_and_those_that_ended_are_finished(
    desk: Desk,
) -> None:
    sweep(desk, "0, 3, 4, 5", threads=3)
    for code in (0, 3, 4):
        desk.write(f"hold{code}")
    with desk.started("exec", "-f", "s.hermes") as runner:
        until(lambda: len(list(desk.path.glob("early_*"))) == 3)
        runner.kill()
        runner.wait()
    (desk.path / "hold3").unlink()
    until(lambda: len(ledger(desk)) == 1)
    with desk.started("resume") as resumed:
        until(lambda: len(ledger(desk)) == 2)
        assert sorted(code for code, _ in ledger(desk)) == ["3", "5"]
        for code in (0, 4):
            (desk.path / f"hold{code}").unlink()
        _, told = resumed.communicate()
    assert resumed.returncode == 1
    assert "s: 4 jobs in" in told
    check_all_done(desk, 4)
    # What has an end keeps it
    assert "1 finished before, 3 failed before" in desk.hermes("resume", code=1).stderr
    assert len(desk.experiments()) == 4
    # Failed ones only if asked for, and in a new directory
    desk.hermes("resume", "--failed", code=1)
    assert Counter(code for code, _ in ledger(desk)) == {"0": 1, "3": 2, "4": 2, "5": 2}
    assert [each.metadata.attempts for each in desk.experiments()] == [1, 1, 1, 1, 2, 2, 2]


SLOW_GIT = """#!/bin/sh
case "$*" in *--binary*) until test -e {folder}/told; do sleep 0.01; done;; esac
PATH=${{PATH#*:}} exec git "$@"
"""


def test_what_git_tells_while_a_job_runs_outlives_the_runner(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(desk, "0")
    desk.write("hold0")
    desk.write("model.py", "1")
    for words in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm one"):
        subprocess.run(["git", *words.split()], cwd=desk.path, check=True)
    desk.write("model.py", "2")
    desk.write("bin/git", SLOW_GIT.format(folder=desk.path)).chmod(0o755)
    monkeypatch.setenv("PATH", f"{desk.path}/bin", prepend=os.pathsep)
    with desk.started("exec", "-f", "s.hermes") as runner:
        until(lambda: [each for each in all_metadata(desk) if each["pid_start"]])
        (metadata,) = all_metadata(desk)
        assert metadata["git"]["commit"]
        assert metadata["git"]["dirty"] is None
        desk.write("told")
        until(lambda: all_metadata(desk)[0]["git"]["dirty"])
        runner.kill()
        runner.wait()
    (metadata,) = all_metadata(desk)
    (desk.path / "hold0").unlink()
    desk.hermes("resume")
    (after,) = all_metadata(desk)
    assert (after["status"], after["git"]) == ("finished", metadata["git"])
    (patch,) = desk.experiments_folder.glob("*/*/*/uncommitted.patch")
    assert b"+2" in patch.read_bytes()


def test_adopted_jobs_that_a_signal_has_ended_are_told_so(desk: Desk) -> None:
    sweep(desk, "0", job="echo $$ > pid; while :; do sleep 0.02; done")
    with desk.started("exec", "-f", "s.hermes") as runner:
        until(
            lambda: (desk.path / "pid").exists() and (desk.path / "pid").read_text().endswith("\n")
        )
        pid = int((desk.path / "pid").read_text())
        runner.kill()
        runner.wait()
    os.kill(pid, signal.SIGSEGV)
    desk.hermes("resume", code=1)
    experiment = desk.experiment()
    assert (experiment.status, experiment.exit_code, experiment.signal) == (
        "failed",
        None,
        signal.SIGSEGV,
    )


@pytest.mark.parametrize("command", [["resume"], ["exec", "-f", "s.hermes", "--resume"]])
def test_a_job_without_supervisor_and_environment_is_never_started_beside_itself(
    desk: Desk, command: list[str]
) -> None:
    job = 'exec env -i PATH="$PATH" sh inner.sh'
    desk.write(
        "inner.sh", "echo $$ >> pids; while [ -e hold ]; do sleep 0.02; done; echo - >> pids"
    )
    desk.write("hold")
    sweep(desk, "0", job=job)
    with desk.started("exec", "-f", "s.hermes") as runner:
        until(lambda: (desk.path / "pids").exists() and (desk.path / "pids").read_text())
        pid = int((desk.path / "pids").read_text())
        runner.kill()
        runner.wait()
    os.kill(os.getpgid(pid), signal.SIGKILL)
    with desk.started(*command) as resumed:
        if command != ["resume"]:
            # It is taken for one of the other run, and not waited for
            assert "1 in another run" in resumed.communicate()[1]
        (desk.path / "hold").unlink()
        until(lambda: "-" in (desk.path / "pids").read_text())
        resumed.communicate()
    assert (desk.path / "pids").read_text().split()[:2] == [str(pid), "-"]
    first, *again = desk.experiments()
    assert (first.status, len(again)) == (("lost", 1) if command == ["resume"] else ("running", 0))


def test_lost_without_a_supervisor_and_run_again(desk: Desk) -> None:
    sweep(desk, "0", supervise=False)
    end_after_its_runner(desk)
    desk.hermes("resume")
    lost, again = desk.experiments()
    assert (lost.status, again.status) == ("lost", "finished")
    assert again.metadata.attempts == 2
    for each in (lost, again):
        assert desk.leftovers(each.identifier) == []
        assert f"late_{each.identifier}.txt" in desk.tree(each.directory)


@pytest.mark.parametrize("used", [False, True], ids=["untouched", "used"])
def test_prepared_experiments_that_never_started_leave_nothing(desk: Desk, used: bool) -> None:
    sweep(desk, "0, 0", threads=1)
    end_after_its_runner(desk)
    # What a runner does for the next job while the last one runs
    (path,) = desk.experiments_folder.glob(".hermes/*/run.json")
    record = read_record(str(path.parent))
    folder = RunFolder.reopen(record, record.plan(), TIMING)
    keys = Keys(".")
    _, (job, key) = [(job, keys.key(job)) for job in folder.plan.jobs]
    prepared = folder.experiment(job, key)
    if used:
        os.write(prepared.logs[0], b"somebody was here\n")
    prepared.close_logs()
    folder.close(done=False)
    assert len(desk.experiments()) == 2
    told = desk.hermes("resume").stderr
    check_all_done(desk, 2)
    assert ("lost" in told) == used
    assert len(desk.experiments()) == 2 + used
    assert Path(prepared.directory).exists() == used
