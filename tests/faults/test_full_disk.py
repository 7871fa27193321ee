"""Full disks: the run ends, nothing is lost, and it goes on when there is room."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hermes import Status

from ..support import (
    LIMIT,
    Desk,
    check_always,
    times,
    until,
)
from ..support.disks import BLOCK, FULL, all_recorded, holding, ledger, small_disk

pytestmark = [pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks into /proc")]


def texts(outcome: dict[str, Any]) -> list[str]:
    return [problem["text"] for problem in outcome["problems"]]


JOBS = 7

WRITER = """\
ledger=$3
echo "started $2 $1" >> "$ledger/ledger"
HOLD_EARLY
n=0
while [ $n -lt 100 ]; do
    echo "line $n of job $2, long enough to take room on a disk" || exit 3
    n=$((n + 1))
done
printf '%0SIZEd' "$2" > "model_$1.txt" || exit 4
echo "wrote $2 $1" >> "$ledger/ledger"
HOLD_LATE
"""
"""A job whose log and file need room. What it has come to is written down elsewhere, where there is
room.
"""

SIZE = 30 * BLOCK
"""Of a job's file: more than Hermes keeps back for its metadata."""


@dataclass(frozen=True)
class Fill:
    """How much is left of a disk, and when that happens."""

    when: str
    """`before` the run, `early` in a job's life, before it writes anything, or `late`, when it has
    only to end.
    """

    kind: str
    left: int
    across: bool = False
    """Whether the working directory is on another disk, on which there is room."""

    threads: int = 1

    def __str__(self) -> str:
        return (
            f"{self.when}-{self.left}-{self.kind}{'-across' if self.across else ''}-{self.threads}"
        )


FILLS = [
    # One of each sort, for the short suite
    Fill("before", "blocks", 0),
    Fill("before", "blocks", 45),
    Fill("early", "blocks", 0),
    Fill("late", "blocks", 0),
    Fill("early", "inodes", 1),
    Fill("late", "blocks", 8, across=True),
    # With less than 128 KB nothing is begun; beyond it, the disk is full at a later moment of the
    # run
    *(Fill("before", "blocks", left) for left in (1, 3, 31, 32, 34, 36, 38, 40, 42, 50)),
    *(Fill("before", "inodes", left) for left in (0, 1, 3, 4, 6, 8, 10, 12, 14, 20)),
    *(Fill("early", "blocks", left) for left in (1, 3, 5)),
    *(Fill("early", "inodes", left) for left in (0, 2, 3)),
    Fill("late", "inodes", 0),
    Fill("before", "blocks", 44, across=True),
    Fill("before", "blocks", 100, across=True),
    Fill("early", "blocks", 4, across=True),
    Fill("early", "inodes", 1, across=True),
    Fill("late", "blocks", 0, across=True),
    Fill("late", "inodes", 0, across=True),
    *(
        Fill("early", kind, 1, across=across, threads=3)
        for kind in ("blocks", "inodes")
        for across in (False, True)
    ),
    *(
        Fill("late", kind, 0, across=across, threads=3)
        for kind in ("blocks", "inodes")
        for across in (False, True)
    ),
]


def check_files(desk: Desk, folder: Path) -> None:
    """What jobs have written is whole in at least one place."""
    for number, identifier in ledger(folder, "wrote"):
        name = f"model_{identifier}.txt"
        places = [
            path
            for path in (
                desk.path / name,
                *desk.experiments_folder.glob(f"*/*/{identifier}/{name}"),
            )
            if path.exists()
        ]
        assert number.rjust(SIZE, "0") in [path.read_text() for path in places], name


@pytest.mark.fault(8)
@pytest.mark.parametrize("fill", FILLS[: times(6, len(FILLS))], ids=str)
def test_disk_full_ends_the_run_and_room_lets_it_go_on(tmp_path: Path, fill: Fill) -> None:
    folder = tmp_path.resolve()
    with small_disk(folder, across=fill.across) as disk:
        desk = disk.desk
        hold = folder / "hold"
        waits = {
            moment: holding(str(hold)) if fill.when == moment else ""
            for moment in ("early", "late")
        }
        desk.write(
            "job.sh",
            WRITER.replace("HOLD_EARLY", waits["early"])
            .replace("HOLD_LATE", waits["late"])
            .replace("SIZE", str(SIZE)),
        )
        desk.write(
            "s.hermes",
            f"PRE\nthreads: {fill.threads}\nEXEC\n"
            f"PROD([[sh, job.sh, {{n}}, {folder}]], n=RANGE[0, {JOBS}])\n",
        )
        if fill.when == "before":
            disk.fill(fill.kind, fill.left)
        else:
            hold.touch()
        with desk.started("exec", "-f", "s.hermes", "--json") as process:
            if fill.when != "before":
                until(
                    lambda: (
                        len(ledger(folder, "started" if fill.when == "early" else "wrote"))
                        == fill.threads
                    )
                )
                # The process is recorded a moment after the start
                until(lambda: all_recorded(desk))
                disk.fill(fill.kind, fill.left)
                hold.unlink()
            out, err = process.communicate(timeout=LIMIT)
        code = process.returncode
        assert "Traceback" not in err
        started = ledger(folder, "started")
        for path in desk.experiments_folder.glob("*/*/*/hermes.json"):
            assert json.loads(path.read_bytes())["status"] in ("running", "finished", "failed")
        check_files(desk, folder)
        if code == 2:
            # Found before the start, and nothing of it remains
            assert not out
            assert FULL in err
            assert started == []
            assert list(desk.experiments_folder.glob(".hermes/*/")) == []
        else:
            assert code == 1
            check_hit(out, started, fill)
        disk.make_room()
        if code == 2:
            desk.hermes("exec", "-f", "s.hermes")
        else:
            # What was left by those that failed is theirs
            desk.hermes("resume", "--failed")
        check_files(desk, folder)
        check_always(desk, out, err)
        finished = [each for each in desk.experiments() if each.status is Status.FINISHED]
        assert sorted(each.argv[-2] for each in finished) == [str(number) for number in range(JOBS)]
        for each in finished:
            assert desk.tree(each.directory, own=True) == {
                f"model_{each.identifier}.txt": each.argv[-2].rjust(SIZE, "0")
            }
            assert each.stdout.count("\n") == 100
            assert not each.problems
            assert desk.leftovers(each.identifier) == []
        # Nothing that has succeeded was done twice
        wrote = [
            number
            for number, identifier in ledger(folder, "wrote")
            if identifier in {each.identifier for each in finished}
        ]
        assert sorted(wrote) == [str(number) for number in range(JOBS)]
        # Whoever fails there leaves no copies that are not whole
        assert (
            list(desk.experiments_folder.rglob("*.hermes-part"))
            + list(desk.experiments_folder.rglob("*.tmp"))
            == []
        )


def check_hit(out: str, started: Sequence[tuple[str, str]], fill: Fill) -> None:
    """Jobs that were hit have failed and say why, the run says so too, and at most those that were
    on their way were started after it.
    """
    events = [json.loads(line) for line in out.splitlines()]
    ended = [event["outcome"] for event in events if event["event"] == "job_ended"]
    bad = [outcome for outcome in ended if outcome["status"] != "finished" or outcome["problems"]]
    # Otherwise the last one may have had just enough room
    assert bad or fill.when == "before" or fill.left > 0
    assert {outcome["status"] for outcome in bad} <= {"failed"}
    for outcome in bad:
        assert any("full" in problem or FULL in problem for problem in texts(outcome)), outcome
    if fill.across and fill.when == "late":
        assert all(
            any("could not be collected" in problem for problem in texts(outcome))
            for outcome in bad
        )
    (warning,) = [event["message"] for event in events if event["event"] == "run_warning"]
    assert "is full: nothing more is started" in warning
    assert len(started) <= len(ended) - len(bad) + 2 * fill.threads
    assert len(started) < JOBS


MANY_FILES = """\
n=0
while [ $n -lt 300 ]; do : > "$HERMES_EXPERIMENT_DIR/f${n}_NAME"; n=$((n + 1)); done
echo "wrote $2 $1" >> "$3/ledger"
while [ -e "$3/hold" ]; do sleep 0.01; done
"""
"""A job whose own files alone make its metadata larger than what Hermes keeps back for that.

What is collected needs a record on the disk, which goes before the metadata are written.
"""


@pytest.mark.fault(8)
def test_disk_full_leaves_the_old_metadata_whole(tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    with small_disk(folder, across=False) as disk:
        desk = disk.desk
        desk.write("job.sh", MANY_FILES.replace("NAME", "x" * 200))
        desk.write("s.hermes", f"EXEC\nPROD([[sh, job.sh, {{n}}, {folder}]], n=RANGE[0, 2])\n")
        (folder / "hold").touch()
        with desk.started("exec", "-f", "s.hermes") as process:
            until(lambda: ledger(folder, "wrote"))
            until(lambda: all_recorded(desk))
            disk.fill("blocks", 0)
            (folder / "hold").unlink()
            out, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 1
        assert f"the metadata could not be written: {FULL}" in err
        assert "is full: nothing more is started" in err
        (experiment,) = desk.experiments()
        assert experiment.status == "running"
        assert len(ledger(folder, "wrote")) == 1
        disk.make_room()
        again = desk.hermes("resume", "--failed")
        check_always(desk, out, err, again.stdout, again.stderr)
        finished = [each for each in desk.experiments() if each.status is Status.FINISHED]
        assert sorted(each.argv[-2] for each in finished) == ["0", "1"]
        # The first attempt too: all that it left is its own
        for each in desk.experiments():
            assert len(each.files) == len(desk.tree(each.directory, own=True)) == 300
            assert desk.leftovers(each.identifier) == []
