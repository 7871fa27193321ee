"""Clocks that jump, and commands that start at the same instant."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from hermes import Status

from ..support import (
    IDENTIFIER,
    LIMIT,
    Desk,
    RecordProperty,
    all_metadata,
    check_always,
    environment,
    times,
    until,
)

# 16: clocks


def _is_complete(record: Path) -> bool:
    return record.read_text().count("\n") == 2


@pytest.mark.fault(16)
def test_a_clock_that_jumps_back_while_nobody_watches(
    desk: Desk, record_property: RecordProperty
) -> None:
    desk.write(
        "job.sh", ': > "ready_$2"; while [ ! -e "go_$2" ]; do sleep 0.01; done; : > "done_$2"'
    )
    tried = times(1, 5)
    record_property("tried", tried)
    for number in range(tried):
        desk.hermes_file(f"[[sh, job.sh, {number}]]", f"[[sh, job.sh, after_{number}]]")
        with desk.started("exec", "-f", "x.hermes", "-n", f"run{number}") as runner:
            # Recorded, and when it started too
            until(
                lambda: [
                    each
                    for each in all_metadata(desk)
                    if each["status"] == Status.RUNNING and each.get("start")
                ]
            )
            until((desk.path / f"ready_{number}").exists)
            runner.kill()
            runner.wait()
        for name in (f"go_{number}", f"go_after_{number}"):
            desk.write(name)
        until((desk.path / f"done_{number}").exists)
        (interrupted,) = [each for each in all_metadata(desk) if each["status"] == Status.RUNNING]
        record = (
            desk.experiments_folder / ".hermes" / interrupted["run_id"] / interrupted["identifier"]
        )
        # The status is written in the end, after the process id
        until(partial(_is_complete, record))
        # As if the job had ended an hour before its start, and the clock were an hour behind the
        # last identifier
        os.utime(record, (record.stat().st_mtime - 3600,) * 2)
        clock = desk.experiments_folder / ".hermes" / "clock"
        year, month, day, time = clock.read_text()[:22].split("_")
        ahead = f"{year}_{month}_{day}_{min(int(time[:2]) + 1, 23):02}{time[2:]}"
        clock.write_text(ahead.ljust(23, "0"))
        done = desk.hermes("resume")
        check_always(desk, done.stdout, done.stderr)
    metadata = all_metadata(desk)
    assert len({each["identifier"] for each in metadata}) == len(metadata) == 2 * tried
    assert all(
        IDENTIFIER.fullmatch(each["identifier"]) and each["status"] == Status.FINISHED
        for each in metadata
    )
    assert all(each["duration"] >= 0 for each in metadata)


# 17: at the same instant

TOGETHER = """\
import sys
from hermes.cli import display, run
from hermes.cli.main import main
print(flush=True)
sys.stdin.read()
main()
"""
"""`hermes`, ready to go as soon as its input is at its end."""


@pytest.mark.fault(17)
def test_eight_commands_at_the_same_instant(desk: Desk, record_property: RecordProperty) -> None:
    processes, jobs, rounds = 8, 3, times(1, 20)
    record_property("tried", rounds * processes)
    desk.write("together.py", TOGETHER)
    desk.write(
        "job.sh",
        'printf %s "$1" > "made_$1"; mkdir "dir_$1"; printf %s "$1" > "dir_$1/inside"; printf "%s '
        '%s" "$1" "$2"',
    )
    desk.hermes_file(*["[[sh, job.sh, '{identifier}' x]]"] * jobs, settings={"threads": 2})
    seen: set[str] = set()
    for number in range(rounds):
        start, release = os.pipe()
        runners = [
            subprocess.Popen(
                [sys.executable, "together.py", "exec", "-f", "x.hermes", "-n", f"{number}-{each}"],
                cwd=desk.path, env=environment(), stdin=start, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True,
            )
            for each in range(processes)
        ]  # fmt: skip
        os.close(start)
        for runner in runners:
            assert runner.stdout is not None
            assert runner.stdout.readline() == "\n"
        # All of them read from the one pipe
        os.close(release)
        # All have ended before anything is looked at: each takes its own folder away
        told = [runner.communicate(timeout=LIMIT) for runner in runners]
        for each, (runner, (out, err)) in enumerate(zip(runners, told, strict=True)):
            assert (runner.returncode, out) == (0, ""), err
            assert f"{number}-{each}: {jobs} jobs in" in err
            mine = [
                experiment
                for experiment in desk.experiments()
                if experiment.name == f"{number}-{each}"
            ]
            assert {experiment.identifier for experiment in mine} == set(IDENTIFIER.findall(err))
            assert len(mine) == jobs
            for experiment in mine:
                own = experiment.identifier
                assert own not in seen
                seen.add(own)
                assert desk.tree(experiment.directory, own=True) == {
                    f"made_{own}": own,
                    f"dir_{own}": "/",
                    f"dir_{own}/inside": own,
                }
                assert sorted(file.path for file in experiment.files) == [
                    f"dir_{own}/inside",
                    f"made_{own}",
                ]
                assert experiment.problems == ()
        assert {path.name for path in desk.path.iterdir()} == {
            "experiments",
            "job.sh",
            "together.py",
            "x.hermes",
        }
        check_always(desk)
        shutil.rmtree(desk.experiments_folder / "job.sh")
    assert len(seen) == rounds * processes * jobs
