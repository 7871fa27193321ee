"""`hermes status`: which runs are in progress or unfinished, seen from elsewhere."""

from __future__ import annotations

import json
import os
import re
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import hermes
from hermes.run.status import RunState

from ..support import LIMIT, Desk, until

WAITS = """\
import os, sys, time
name = sys.argv[-1]
while not os.path.exists("go-" + name) and os.path.exists("waits.py"):
    time.sleep(0.01)
sys.exit(os.path.exists("fail-" + name))
"""
"""A job that ends when the test makes the file of its name."""


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.write("waits.py", WAITS)
    desk.write("s.hermes", "PRE\nthreads: 2\nEXEC\nPROD([[python, waits.py, {n}]], n=[a, b, c, d])")
    return desk


def statuses(desk: Desk, *arguments: str, cwd: Path | None = None) -> list[dict[str, Any]]:
    done = desk.hermes("status", "--json", *arguments, cwd=cwd)
    return [json.loads(line) for line in done.stdout.splitlines()]


def wait_for(desk: Desk, **values: object) -> dict[str, Any]:
    """Waits until the only run stands so."""

    def found() -> dict[str, Any] | None:
        for one in hermes.runs(working_directory=desk.path):
            told = one.as_json()
            return told if {name: told[name] for name in values} == values else None
        return None

    return until(found)


def test_a_run_is_told_from_its_start_to_its_end(desk: Desk) -> None:
    assert "there are no experiments yet" in desk.hermes("status").stderr
    with desk.started("exec", "-f", "s.hermes", "-n", "t") as process:
        wait_for(desk, running=2)
        # From a folder elsewhere in the project, too
        below = desk.path / "below"
        below.mkdir()
        desk.write(".hermes_settings", "")
        (one,) = statuses(desk, cwd=below)
        assert (one["name"], one["state"], one["pid"]) == ("t", "in progress", process.pid)
        assert (one["total"], one["done"], one["failed"], one["left"]) == (4, 0, 0, 2)
        assert one["time_left"] is None
        desk.write("fail-a")
        desk.write("go-a")
        one = wait_for(desk, failed=1, running=2)
        assert one["left"] == 1
        assert one["time_left"] is not None
        # For people
        shown = desk.hermes("status").stdout.splitlines()
        head = "id name began finished running failed left time left runner"
        assert " ".join(shown[0].split()) == head
        short, *_ = shown[1].split()
        assert re.fullmatch(
            rf"[0-9a-f]{{8}}  t +\d{{4}}-\d\d-\d\d \d\d:\d\d +0 +2 +1 +1 .* {os.uname().nodename}, "
            rf"pid {process.pid}",
            shown[1],
        )
        lines = desk.hermes("status", short).stdout.splitlines()
        assert "0 of 4 jobs finished, 2 running, 1 failed, 1 left; at most 2" in lines[2]
        assert [line.split()[-1] for line in lines[-3:]] == ["arguments", "b", "c"]
        # One that is paused, and changed
        desk.hermes("pause")
        wait_for(desk, state="paused", time_left=None)
        assert f"paused, {os.uname().nodename}" in desk.hermes("status").stdout
        desk.hermes("set", "threads=5")
        wait_for(desk, threads=5)
        desk.hermes("continue")
        for name in "bcd":
            desk.write(f"go-{name}")
        process.communicate(timeout=LIMIT)
    (one,) = statuses(desk)
    assert (one["state"], one["done"], one["failed"], one["left"]) == ("unfinished", 3, 1, 0)
    assert one["command"] == f"hermes resume --failed {one['run_id']}"
    said = desk.hermes("status")
    assert f"unfinished: `hermes resume --failed {short}`" in said.stdout
    assert "no run is in progress; the last experiment, of `t`: finished at" in said.stderr
    (desk.path / "fail-a").unlink()
    desk.hermes("resume", "--failed", short)
    assert statuses(desk) == []
    assert "no run is in progress or unfinished; the last" in desk.hermes("status").stderr


def test_a_run_whose_runner_was_killed_is_told_with_what_goes_on_with_it(desk: Desk) -> None:
    with desk.started("exec", "-f", "s.hermes", "-n", "t") as process:
        desk.write("go-a")
        wait_for(desk, done=1, running=2)
        process.kill()
        process.communicate(timeout=LIMIT)
    one = wait_for(desk, state="killed")
    # Its jobs go on without it
    assert (one["done"], one["running"], one["left"]) == (1, 2, 1)
    short = one["run_id"].rpartition("-")[2]
    assert f"killed: `hermes resume {short}`" in desk.hermes("status").stdout
    assert f"`hermes resume {short}` goes on with it" in desk.hermes("status", short).stdout
    desk.write("go-b")
    wait_for(desk, running=1)
    before = datetime.now(UTC)
    with desk.started("resume") as resumed:
        again = wait_for(desk, state="in progress", done=2, running=2, pid=resumed.pid)
        # What has succeeded before is done, and jobs tell since when they run
        assert again["left"] == 0
        begun = {job["identifier"] for job in one["jobs"]}
        jobs = hermes.run_status(working_directory=desk.path).jobs
        assert sorted(job.since < before for job in jobs) == [False, True]
        assert [job.identifier in begun for job in jobs if job.since < before] == [True]
        resumed.send_signal(signal.SIGTERM)
        resumed.communicate(timeout=LIMIT)
    one = wait_for(desk, state="unfinished")
    assert (one["done"], one["failed"], one["left"], one["running"]) == (2, 0, 2, 0)
    assert one["command"] == f"hermes resume {one['run_id']}"


def test_runs_are_sorted_and_those_of_other_roots_left_out(desk: Desk, tmp_path: Path) -> None:
    desk.hermes("exec", "-e", "python -c 'raise SystemExit(1)'", "-n", "old", code=1)
    other = tmp_path / "other"
    other.mkdir()
    with desk.started("exec", "-f", "s.hermes", "-n", "t"):
        until(lambda: hermes.runs(working_directory=desk.path)[0].jobs)
        failed = ("exec", "-e", "python -c 'raise SystemExit(1)'", "-n")
        desk.hermes(*failed, "new", code=1)
        desk.hermes(*failed, "elsewhere", "--root", str(other), code=1)
        assert [run.name for run in hermes.runs(working_directory=desk.path)][:1] == ["t"]
        assert {run.name for run in hermes.runs(working_directory=desk.path)} == {
            "t",
            "new",
            "old",
            "elsewhere",
        }
        assert [run.name for run in hermes.runs(other)] == ["elsewhere"]
        assert hermes.run_status(working_directory=desk.path).state is RunState.IN_PROGRESS
    assert "several runs have" in desk.hermes("status", "2", code=2).stderr
    assert "no unfinished run `none`" in desk.hermes("status", "none", code=2).stderr


def test_a_run_that_has_told_nothing(desk: Desk) -> None:
    desk.hermes("exec", "-e", "python -c 'raise SystemExit(1)'", "-n", "old", code=1)
    (progress,) = desk.experiments_folder.glob(".hermes/*/progress")
    progress.write_bytes(b"\xff\n")
    assert re.search(r" - +- +- +- +-  unfinished: ", desk.hermes("status").stdout)
    progress.unlink()
    assert "it has not told how far it is" in desk.hermes("status", "old").stdout


def test_since_when_a_job_runs_is_known_though_its_runner_could_not_write_it_down(
    desk: Desk,
) -> None:
    with desk.started("exec", "-f", "s.hermes", "-n", "t") as process:
        wait_for(desk, running=2)
        process.kill()
        process.communicate(timeout=LIMIT)
    made = {each.identifier: each for each in desk.experiments()}
    for each in made.values():
        # As it is in the first moment of a job
        path = each.directory / "hermes.json"
        path.write_text(re.sub(r'"start": "[^"]*"', '"start": null', path.read_text()))
    with desk.started("resume") as resumed:
        wait_for(desk, state="in progress", running=2, pid=resumed.pid)
        jobs = hermes.run_status(working_directory=desk.path).jobs
        assert [job.since.strftime("%Y_%m_%d_%H%M%S%f") for job in jobs] == [
            job.identifier[:23] for job in jobs
        ]
        for name in "abcd":
            desk.write(f"go-{name}")
        resumed.communicate(timeout=LIMIT)
    for each in desk.experiments():
        start = each.metadata.start
        assert start is not None
        if each.identifier in made:
            assert start.strftime("%Y_%m_%d_%H%M%S%f") == each.identifier[:23]
            assert each.duration
