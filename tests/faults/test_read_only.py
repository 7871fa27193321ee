"""Disks and directories that become read-only or vanish."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hermes import Status

from ..support import (
    LIMIT,
    Desk,
    NamespaceDesk,
    check_always,
    until,
)
from ..support.disks import Disk, all_recorded, ledger, traced

pytestmark = [pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks into /proc")]

READ_ONLY = "Read-only file system"


def by_number(desk: Desk) -> dict[str, Any]:
    return {each.argv[-2]: each for each in desk.experiments()}


def read_only(desk: NamespaceDesk, path: str) -> None:
    """Makes a folder read-only, for root too. What is open for writing there already stays that."""
    desk.do("mount", "--bind", path, path)
    desk.do("mount", "-o", "remount,bind,ro", path)


def is_whole(desk: Desk, identifier: str) -> bool:
    """Whether what the job has made is in its directory or where the job made it."""
    places = [
        desk.path / f"made_{identifier}",
        *desk.experiments_folder.glob(f"*/*/{identifier}/made_{identifier}"),
    ]
    return f"{identifier}\n" in [path.read_text() for path in places if path.exists()]


@pytest.mark.fault(9)
def test_read_only_experiments_are_told_before_anything_starts(tmp_path: Path, disk: Disk) -> None:
    desk = disk.desk
    traced(desk, tmp_path, 2)
    (desk.path / "experiments").mkdir()
    read_only(desk, "experiments")
    done = desk.hermes("exec", "-f", "s.hermes", code=2)
    assert READ_ONLY in done.stderr
    assert "experiments" in done.stderr
    assert "Traceback" not in done.stderr
    assert ledger(tmp_path, "started") == []
    desk.do("umount", "experiments")
    desk.hermes("exec", "-f", "s.hermes")


@pytest.mark.fault(9)
def test_an_experiment_directory_that_becomes_read_only_harms_that_job_alone(
    tmp_path: Path, disk: Disk
) -> None:
    desk = disk.desk
    traced(desk, tmp_path, 4, 1)
    with desk.started("exec", "-f", "s.hermes", "--threads", "2") as process:
        identifier = until(lambda: dict(ledger(tmp_path, "started")).get("1"))
        until(lambda: all_recorded(desk))
        read_only(desk, f"experiments/job.sh/s/{identifier}")
        (tmp_path / "hold1").unlink()
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert READ_ONLY in err
    assert is_whole(desk, identifier)
    status = {number: each.status for number, each in by_number(desk).items()}
    assert status == {"0": "finished", "1": "running", "2": "finished", "3": "finished"}
    desk.do("umount", f"experiments/job.sh/s/{identifier}")
    again = desk.hermes("resume", "--failed")
    check_always(desk, out, err, again.stdout, again.stderr)
    assert {each.status for each in desk.experiments()} == {"finished"}
    # How it had ended was written down elsewhere
    assert len(ledger(tmp_path, "started")) == 4
    assert desk.tree(by_number(desk)["1"].directory, own=True) == {
        f"made_{identifier}": f"{identifier}\n"
    }


@pytest.mark.fault(9)
def test_experiments_that_become_read_only_are_told_and_can_be_resumed(
    tmp_path: Path, disk: Disk
) -> None:
    desk = disk.desk
    traced(desk, tmp_path, 4, 0)
    with desk.started("exec", "-f", "s.hermes") as process:
        identifier = until(lambda: dict(ledger(tmp_path, "started")).get("0"))
        until(lambda: all_recorded(desk))
        read_only(desk, "experiments")
        (tmp_path / "hold0").unlink()
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert READ_ONLY in err
    assert len(ledger(tmp_path, "started")) == 1
    assert is_whole(desk, identifier)
    desk.do("umount", "experiments")
    again = desk.hermes("resume", "--failed")
    check_always(desk, out, err, again.stdout, again.stderr)
    finished = [each for each in desk.experiments() if each.status is Status.FINISHED]
    assert sorted(each.argv[-2] for each in finished) == ["0", "1", "2", "3"]
    assert all(is_whole(desk, identifier) for _, identifier in ledger(tmp_path, "wrote"))


@pytest.mark.fault(9)
@pytest.mark.parametrize(
    ("what", "supervise"),
    [
        ("its directory", "true"),
        ("its name's folder", "true"),
        ("everything", "true"),
        ("everything", "false"),
    ],
)
def test_what_vanishes_harms_only_jobs_that_run(
    tmp_path: Path, desk: Desk, what: str, supervise: str
) -> None:
    traced(desk, tmp_path, 5, 1)
    (desk.path / ".hermes_settings").write_text(f"supervise: {supervise}\n")
    with desk.started("exec", "-f", "s.hermes") as process:
        identifier = until(lambda: dict(ledger(tmp_path, "started")).get("1"))
        until(lambda: all_recorded(desk))
        gone = {
            "its directory": f"job.sh/s/{identifier}",
            "its name's folder": "job.sh/s",
            "everything": ".",
        }[what]
        # As somebody does who cleans up; a file may be added meanwhile
        until(
            lambda: (
                subprocess.run(
                    ["rm", "-rf", os.path.normpath(desk.experiments_folder / gone)], check=False
                ).returncode
                == 0
            )
        )
        (tmp_path / "hold1").unlink()
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert err.count("could not be") >= 1
    assert "No such file or directory" in err
    # The job that lost its place is told, with what it left; the others are whole
    assert len(ledger(tmp_path, "wrote")) == 5
    assert (desk.path / f"made_{identifier}").read_text() == f"{identifier}\n"
    check_always(desk, out, err)
    finished = {
        number: each for number, each in by_number(desk).items() if each.status is Status.FINISHED
    }
    assert {"2", "3", "4"} <= finished.keys()
    assert "1" not in finished
    for each in finished.values():
        assert desk.tree(each.directory, own=True) == {
            f"made_{each.identifier}": f"{each.identifier}\n"
        }
