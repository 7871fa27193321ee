"""The runner is killed with SIGKILL; `hermes resume` takes up what it left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import hermes
from hermes.executors.local import LOCAL
from hermes.executors.processes import processes_of
from hermes.experiments.records import read_record
from hermes.experiments.store import RunFolder
from hermes.language.keys import Keys

from .support import LONG, Desk, MakeDesk, RecordProperty, times, tries, until

pytestmark = [
    pytest.mark.fault(1),
    pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc"),
]

JOB = """\
echo "started $2"
echo early > "early_$1.txt"
mkdir "$1.d" && echo inside > "$1.d/file"
while [ -e "hold$2" ]; do sleep 0.02; done
echo late > "late_$1.txt"
# One line a time that the job came to its end
echo "$2 $1" >> ledger
exit "$2"
"""
"""A job whose exit code is its argument. It waits as long as there is a file `hold` with its argument."""

LEFT = {
    "early_@.txt": "early\n",
    "late_@.txt": "late\n",
    "@.d": "/",
    "@.d/file": "inside\n",
    "job.sh": JOB,
}
"""What is in the experiment directory in the end, `@` standing for the identifier."""

DIE_AT = """\
import os, signal, sys
step, last = 0, int(sys.argv.pop(1))
def counted(function):
    def call(*args, **kwargs):
        global step
        step += 1
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
for name in ("mkdir", "replace", "rename", "link", "symlink", "unlink", "rmdir", "pwrite", "fsync", "open"):
    setattr(os, name, counted(getattr(os, name)))
import subprocess
subprocess.Popen.__init__ = counted(subprocess.Popen.__init__)
from hermes.cli.main import main
main()
"""
"""Executes `hermes` and dies before its n-th change of a file or start of a process."""


@pytest.fixture
def make_desk(make_desk: MakeDesk) -> MakeDesk:
    """Makes desks with the job in them."""

    def make(name: str) -> Desk:
        desk = make_desk(name)
        desk.write("job.sh", JOB)
        desk.write("die.py", DIE_AT)
        return desk

    return make


def sweep(desk: Desk, codes: str, threads: int = 2, supervise: bool = True) -> None:
    settings = f"threads: {threads}\nsupervise: {str(supervise).lower()}"
    desk.write(
        "s.hermes",
        f"PRE\n{settings}\nSTD-H\n-ca job.sh\nEXEC\nPROD([[sh, job.sh, {{n}}]], n=[{codes}])\n",
    )


def ledger(desk: Desk) -> list[tuple[str, str]]:
    """Argument and identifier of the jobs that came to their end, in this order."""
    path = desk.path / "ledger"
    return (
        [(line.split()[0], line.split()[1]) for line in path.read_text().splitlines()]
        if path.exists()
        else []
    )


def alive(run_ids: set[str]) -> list[int]:
    return [
        pid
        for run_id, pids in processes_of("HERMES_RUN_ID").items()
        if run_id in run_ids
        for pid in pids
    ]


def check_all_done(desk: Desk, jobs: int) -> None:
    """Every job came to its end once, and what it left is where it belongs, whole."""
    experiments = desk.experiments()
    ended = [each for each in experiments if each.status in ("finished", "failed")]
    assert len(ended) == jobs
    assert {each.status for each in experiments} <= {"finished", "failed", "lost"}
    assert sorted(identifier for _, identifier in ledger(desk)) == [
        each.identifier for each in ended
    ]
    for each in ended:
        assert desk.tree(each.directory, own=True) == {
            name.replace("@", each.identifier): content for name, content in LEFT.items()
        }, each.metadata["problems"]
        assert each.stdout == f"started {each.argv[-1]}\n"
        assert each.exit_code == int(each.argv[-1])
        assert desk.leftovers(each.identifier) == []
        assert not each.problems
    assert len({each.identifier for each in experiments}) == len(experiments)
    assert alive({each.metadata["run_id"] for each in experiments}) == []


def end_after_its_runner(desk: Desk) -> None:
    """The first job of the sweep, which has the code 0, outlives its runner and comes to its end while nobody watches."""
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
    assert [each.metadata["attempts"] for each in desk.experiments()] == [1, 1, 1, 1, 2, 2, 2]


def test_a_signal_that_ends_a_job_while_nobody_watches_is_told(desk: Desk) -> None:
    desk.write("job.sh", "echo $$ > pid; while :; do sleep 0.02; done")
    sweep(desk, "0")
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


def test_without_a_supervisor_the_job_is_lost_and_run_again(desk: Desk) -> None:
    sweep(desk, "0", supervise=False)
    end_after_its_runner(desk)
    desk.hermes("resume")
    lost, again = desk.experiments()
    assert (lost.status, again.status) == ("lost", "finished")
    assert again.metadata["attempts"] == 2
    for each in (lost, again):
        assert desk.leftovers(each.identifier) == []
        assert f"late_{each.identifier}.txt" in desk.tree(each.directory)


@pytest.mark.parametrize("used", [False, True], ids=["untouched", "used"])
def test_of_an_experiment_that_was_only_prepared_nothing_remains(desk: Desk, used: bool) -> None:
    sweep(desk, "0, 0", threads=1)
    end_after_its_runner(desk)
    # What a runner does for the next job while the last one runs
    (path,) = desk.experiments_folder.glob(".hermes/*/run.json")
    record = read_record(str(path.parent))
    folder = RunFolder.reopen(record, record.plan())
    keys = Keys()
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


def test_a_cancelled_run_goes_on(desk: Desk) -> None:
    sweep(desk, "0, 0, 0", threads=1)
    desk.write("hold0")
    with desk.started("exec", "-f", "s.hermes") as runner:
        until(lambda: list(desk.path.glob("early_*")))
        runner.send_signal(signal.SIGINT)
        _, told = runner.communicate()
    assert "1 cancelled, 2 never started" in told
    assert "`hermes resume` goes on" in told
    (desk.path / "hold0").unlink()
    desk.hermes("resume")
    assert Counter(each.status for each in desk.experiments()) == {"cancelled": 1, "finished": 3}
    assert "no unfinished run" in desk.hermes("resume", code=2).stderr


def test_a_run_in_progress_is_left_alone(desk: Desk) -> None:
    sweep(desk, "0")
    desk.write("hold0")
    with desk.started("exec", "-f", "s.hermes") as runner:
        until(lambda: list(desk.path.glob("early_*")))
        assert "still in progress" in desk.hermes("resume", code=2).stderr
        (desk.path / "hold0").unlink()
        assert runner.wait() == 0
    check_all_done(desk, 1)


@pytest.mark.anyio
async def test_resuming_that_fails_leaves_the_run_free(desk: Desk) -> None:
    sweep(desk, "3")
    desk.hermes("exec", "-f", "s.hermes", code=1)

    def held(*_: object) -> set[str]:
        raise hermes.HermesError("there is no cluster")

    with pytest.raises(hermes.HermesError, match="there is no cluster"):
        async with hermes.open_resumed(
            working_directory=desk.path, executor=replace(LOCAL, held=held)
        ):
            pass
    async with hermes.open_resumed(working_directory=desk.path) as run:
        pass
    assert run.result.failed_before == 1


def test_the_run_is_chosen_by_name_or_id_and_torn_records_are_told(desk: Desk) -> None:
    sweep(desk, "3")
    for name in ("one", "two"):
        desk.hermes("exec", "-f", "s.hermes", "-n", name, code=1)
    records = sorted((desk.experiments_folder / ".hermes").glob("*/run.json"))
    assert "one: 1 job" in desk.hermes("resume", "-n", "one", code=1).stderr
    first = json.loads(records[0].read_text())
    assert f"{first['name']}: 1 job" in desk.hermes("resume", first["run_id"], code=1).stderr
    for torn in (
        b"",
        b"{",
        b"[]",
        b'{"format": 99}',
        b'{"format": 1, "run_id": "x", "name": "y", "recipe": {"working_directory": 1}}',
    ):
        for record in records:
            record.write_bytes(torn)
        assert desk.hermes("resume", code=2).stderr.startswith("error: there is no unfinished run")
        assert [record.read_bytes() for record in records] == [torn] * 2


def test_the_plan_is_the_one_with_which_the_run_began(desk: Desk) -> None:
    sweep(desk, "0, 3")
    desk.hermes("exec", "-f", "s.hermes", code=1)
    desk.write("s.hermes", "EXEC\n[[sh, job.sh, 7]]\n")
    desk.write(".hermes_settings", "path_to_experiments: elsewhere\n")
    (desk.path / ".hermes_settings").unlink()
    desk.hermes("resume", "--failed", code=1)
    assert [each.argv[-1] for each in desk.experiments()] in (["0", "3", "3"], ["3", "0", "3"])


def test_exec_resume_runs_what_is_missing_under_the_name(desk: Desk) -> None:
    sweep(desk, "0")
    desk.hermes("exec", "-f", "s.hermes", "-n", "study")
    sweep(desk, "0, 3, 0")
    # The first 0 has succeeded; the second is its repetition, and another job
    desk.hermes("exec", "-f", "s.hermes", "-n", "study", "--resume", code=1)
    assert sorted(code for code, _ in ledger(desk)) == ["0", "0", "3"]
    desk.hermes("exec", "-f", "s.hermes", "-n", "study", "--resume", code=1)
    assert sorted(code for code, _ in ledger(desk)) == ["0", "0", "3", "3"]
    desk.hermes("exec", "-f", "s.hermes", "-n", "other", "--resume", code=1)
    assert len(ledger(desk)) == 7


@pytest.mark.fault(2)
def test_killed_during_resume_five_times(desk: Desk) -> None:
    sweep(desk, ", ".join(["0"] * 6))
    desk.write("hold0")
    for number in range(6):
        with desk.started(*(("exec", "-f", "s.hermes") if number == 0 else ("resume",))) as runner:
            until(lambda: len(list(desk.path.glob("early_*"))) == 2)
            until(lambda: list((desk.experiments_folder / ".hermes").glob("*/run.json")))
            runner.kill()
            runner.wait()
    (desk.path / "hold0").unlink()
    desk.hermes("resume")
    check_all_done(desk, 6)
    assert len(desk.experiments()) == 6


@pytest.mark.timeout(times(120, 1200))
def test_killed_at_any_step(
    desk: Desk, make_desk: MakeDesk, record_property: RecordProperty
) -> None:
    steps = steps_of_a_run(make_desk("counted"))
    assert steps > 60
    chosen = range(1, steps + 1) if LONG else random.Random(1).sample(range(1, steps + 1), 14)
    record_property("tried", len(chosen))
    for step in chosen:
        place = make_desk(f"step{step}")
        sweep(place, "0, 0, 0")
        subprocess.run(
            [sys.executable, "die.py", str(step), "exec", "-f", "s.hermes"],
            cwd=place.path,
            capture_output=True,
            check=False,
        )
        finish(place)
        check_all_done(place, 3)


@pytest.mark.timeout(times(120, 1200))
def test_killed_at_random_moments(make_desk: MakeDesk, record_property: RecordProperty) -> None:
    moments = random.Random(2)
    for number in tries(record_property, 8, 200):
        place = make_desk(f"moment{number}")
        sweep(place, "0, 0, 0")
        wait = moments.random()
        with place.started("exec", "-f", "s.hermes") as runner:
            # No more than a moment to choose: whatever has happened by then, everything below must hold
            try:
                runner.wait(timeout=wait)
            except subprocess.TimeoutExpired:
                runner.kill()
                runner.wait()
        finish(place)
        check_all_done(place, 3)


def steps_of_a_run(desk: Desk) -> int:
    """How many steps a whole run takes, found by halving."""
    low, high = 1, 4000
    while low < high:
        middle = (low + high) // 2
        sweep(desk, "0, 0, 0")
        command = [
            sys.executable,
            "die.py",
            str(middle),
            "exec",
            "-f",
            "s.hermes",
            "-n",
            f"n{middle}",
        ]
        done = subprocess.run(command, cwd=desk.path, capture_output=True, check=False)
        low, high = (middle + 1, high) if done.returncode < 0 else (low, middle)
    return low - 1


def finish(desk: Desk) -> None:
    """Resumes a killed run; a run of which not even a record was written is begun again."""
    if list((desk.experiments_folder / ".hermes").glob("*/run.json")):
        desk.hermes("resume")
    elif not desk.experiments():
        desk.hermes("exec", "-f", "s.hermes")
