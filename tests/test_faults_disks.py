"""Disks that are full, read-only or gone, notifications that overflow, and a system that has run out of processes or descriptors."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hermes import Status
from hermes.executors.processes import processes_of

from .namespace import NamespaceDesk, namespace
from .project import LIMIT
from .support import (
    HERMES,
    LONG,
    PYTHON,
    Desk,
    RecordProperty,
    check_always,
    environment,
    times,
    until,
)

pytestmark = [pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks into /proc")]

MANY = pytest.mark.timeout(1200 if LONG else 60)
"""For tests whose long figures take their time."""

FULL = "No space left on device"
READ_ONLY = "Read-only file system"
BLOCK = 4096


def holding(path: str) -> str:
    """A shell's words that wait until a file is gone."""
    return f'while [ -e "{path}" ]; do sleep 0.01; done'


# Row 8: full disks

JOBS = 7

WRITER = """\
ledger=$3
echo "started $2 $1" >> "$ledger/ledger"
HOLD_EARLY
n=0
while [ $n -lt 100 ]; do echo "line $n of job $2, long enough to take room on a disk" || exit 3; n=$((n + 1)); done
printf '%0SIZEd' "$2" > "model_$1.txt" || exit 4
echo "wrote $2 $1" >> "$ledger/ledger"
HOLD_LATE
"""
"""A job whose log and file need room. What it has come to is written down elsewhere, where there is room."""

SIZE = 30 * BLOCK
"""Of a job's file: more than Hermes keeps back for its metadata."""


@dataclass(frozen=True)
class Fill:
    """How much is left of a disk, and when that happens."""

    when: str
    """`before` the run, `early` in a job's life, before it writes anything, or `late`, when it has only to end."""

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
    # With less than 128 KB nothing is begun; beyond it, the disk is full at a later moment of the run
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


class Disk:
    """A small disk, and the desk on it, or beside it."""

    def __init__(self, desk: NamespaceDesk, mounted: Path) -> None:
        self.desk = desk
        self.path = desk.at(mounted).path

    def fill(self, kind: str, left: int) -> None:
        """Leaves so many blocks or inodes free."""
        if kind == "inodes":
            (self.path / "filler").mkdir()
            for number in range(os.statvfs(self.path).f_favail - left):
                (self.path / "filler" / f"{number}").touch()
            assert os.statvfs(self.path).f_favail == left
            return
        free = os.statvfs(self.path).f_bavail - left
        with (self.path / "filler").open("wb") as file:
            file.write(bytes(free * BLOCK))
        assert os.statvfs(self.path).f_bavail == left

    def make_room(self) -> None:
        self.desk.do("rm", "-r", f"{self.path}/filler")


@contextmanager
def small_disk(folder: Path, *, across: bool) -> Iterator[Disk]:
    """A disk of 2 MB. With `across`, only `experiments/` of the desk is on it."""
    mounted = folder / "disk"
    mounted.mkdir()
    beside = folder / "beside"
    beside.mkdir()
    working = beside if across else mounted
    mount = f"mount -t tmpfs -o size=2M,nr_inodes=2048 tmpfs {mounted} && mkdir -p {working}/work && cd {working}/work"
    with namespace(folder, mount) as found:
        desk = found.at(working / "work")
        if across:
            # A link, so that the desk has its experiments where it has them always; it means the same from outside
            (desk.path / "experiments").symlink_to("../../disk/experiments")
            (found.path / "disk" / "experiments").mkdir()
        yield Disk(desk, mounted)


def ledger(folder: Path, word: str) -> list[tuple[str, str]]:
    """Number and identifier of the jobs that have written this word."""
    path = folder / "ledger"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(line.split()[1], line.split()[2]) for line in lines if line.split()[0] == word]


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
def test_a_full_disk_ends_the_run_and_room_lets_it_go_on(tmp_path: Path, fill: Fill) -> None:
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
            f"PRE\nthreads: {fill.threads}\nEXEC\nPROD([[sh, job.sh, {{n}}, {folder}]], n=RANGE[0, {JOBS}])\n",
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


def all_recorded(desk: Desk) -> bool:
    return all(
        json.loads(path.read_bytes()).get("pid")
        for path in desk.experiments_folder.glob("*/*/*/hermes.json")
    )


def check_hit(out: str, started: Sequence[tuple[str, str]], fill: Fill) -> None:
    """Jobs that were hit have failed and say why, the run says so too, and at most those that were on their way were started after it."""
    events = [json.loads(line) for line in out.splitlines()]
    ended = [event["outcome"] for event in events if event["event"] == "job_ended"]
    bad = [outcome for outcome in ended if outcome["status"] != "finished" or outcome["problems"]]
    # Otherwise the last one may have had just enough room
    assert bad or fill.when == "before" or fill.left > 0
    assert {outcome["status"] for outcome in bad} <= {"failed"}
    for outcome in bad:
        assert any("full" in problem or FULL in problem for problem in outcome["problems"]), outcome
    if fill.across and fill.when == "late":
        assert all(
            any("could not be collected" in problem for problem in outcome["problems"])
            for outcome in bad
        )
    (warning,) = [event["message"] for event in events if event["event"] == "run_warning"]
    assert "is full: nothing more is started" in warning
    assert len(started) <= len(ended) - len(bad) + 2 * fill.threads
    assert len(started) < JOBS


MANY_FILES = """\
n=0
while [ $n -lt 300 ]; do : > "f${n}_NAME_$1"; n=$((n + 1)); done
echo "wrote $2 $1" >> "$3/ledger"
while [ -e "$3/hold" ]; do sleep 0.01; done
"""
"""A job whose files alone make its metadata larger than what Hermes keeps back for that."""


@pytest.mark.fault(8)
def test_metadata_for_which_there_is_no_room_leave_the_old_ones_whole(tmp_path: Path) -> None:
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


# Row 9: read-only, gone

TRACE = """\
echo "started $2 $1" >> "$3/ledger"
printf '%s\\n' "$1" > "made_$1"
while [ -e "$3/hold$2" ]; do sleep 0.01; done
echo "wrote $2 $1" >> "$3/ledger"
"""
"""A job that makes a file and can be held."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path.resolve(), across=False) as found:
        yield found


def traced(desk: Desk, folder: Path, jobs: int, *held: int) -> None:
    """Writes a hermes file of jobs, some of which wait until their `hold` file is gone."""
    desk.write("job.sh", TRACE)
    desk.write("s.hermes", f"EXEC\nPROD([[sh, job.sh, {{n}}, {folder}]], n=RANGE[0, {jobs}])\n")
    for number in held:
        (folder / f"hold{number}").touch()


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


# Row 15: notifications

FLOOD = """\
import os, sys, time
identifier, folder, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
def wait(name):
    open(f"{folder}/at_{name}", "w").close()
    while not os.path.exists(f"{folder}/{name}"):
        time.sleep(0.005)
wait("go")
for number in range(count):
    with open(f"{number % 7}/f{number}_{identifier}" if number % 3 else f"f{number}_{identifier}", "w") as file:
        file.write(str(number))
wait("end")
"""


@pytest.mark.fault(15)
@MANY
def test_notifications_that_overflow_cost_no_file(
    tmp_path: Path, desk: Desk, record_property: RecordProperty
) -> None:
    # Each file is opened, written and closed, and the system keeps 16,384 notifications by default
    count = times(6_000, 50_000)
    for number in range(7):
        (desk.path / f"{number}").mkdir()
    desk.write("flood.py", FLOOD)
    desk.write("s.hermes", f"EXEC\n[[{PYTHON}, flood.py {tmp_path} {count}]]\n")
    with desk.started("exec", "-f", "s.hermes") as process:
        until((tmp_path / "at_go").exists)
        process.send_signal(signal.SIGSTOP)
        until(lambda: state(process.pid) == "T")
        (tmp_path / "go").touch()
        patiently((tmp_path / "at_end").exists)
        process.send_signal(signal.SIGCONT)
        (experiment,) = desk.experiments()
        # While the job runs, not only at its end
        patiently(lambda: sum(len(names) for _, _, names in os.walk(experiment.directory)) >= count)
        (tmp_path / "end").touch()
        out, err = process.communicate(timeout=10 * LIMIT)
    record_property("tried", count)
    assert process.returncode == 0, err
    assert err.count("warning:") <= 1
    check_always(desk, out, err)
    found = desk.tree(experiment.directory, own=True)
    expected = {
        f"{number % 7}/f{number}_@" if number % 3 else f"f{number}_@": str(number)
        for number in range(count)
    }
    expected |= {f"{number}": "/" for number in range(7)}
    assert found == {
        name.replace("@", experiment.identifier): content for name, content in expected.items()
    }
    assert desk.leftovers(experiment.identifier) == []
    assert len(desk.experiment().files) == count


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def patiently(condition: Callable[[], object]) -> None:
    """Waits for something that takes longer with the long figures."""
    for _ in range(10):
        try:
            until(condition)
        except AssertionError:
            continue
        return
    raise AssertionError("waited in vain for very long")


@pytest.mark.fault(15)
@pytest.mark.parametrize("limit", ["max_inotify_watches", "max_inotify_instances"])
def test_exhausted_watch_limits_cost_time_and_no_file(tmp_path: Path, limit: str) -> None:
    count, folders = 200, 20
    allowed = 5 if limit == "max_inotify_watches" else 0
    path = tmp_path.resolve() / "desk"
    path.mkdir()
    # The limits of this namespace alone
    with namespace(path, f"echo {allowed} > /proc/sys/user/{limit}") as desk:
        for number in range(folders):
            (desk.path / f"{number}").mkdir()
        desk.write("flood.py", FLOOD.replace("% 7", f"% {folders}"))
        desk.write("s.hermes", f"EXEC\n[[{PYTHON}, flood.py {tmp_path} {count}]]\n")
        (tmp_path / "go").touch()
        with desk.started("exec", "-f", "s.hermes") as process:
            (experiment,) = until(desk.experiments)
            until(lambda: sum(len(names) for _, _, names in os.walk(experiment.directory)) >= count)
            (tmp_path / "end").touch()
            out, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, err
        assert err.count("warning:") == 1
        assert "collected later" in err
        check_always(desk, out, err)
        assert len(desk.experiment().files) == count
        assert desk.leftovers(experiment.identifier) == []


# Row 18: many jobs, few descriptors, few processes

SLOT = """\
# Nobody else may be in this slot, and there are only so many
mkdir "slot$HERMES_SLOT" || exit 9
: > "made_$1"
rmdir "slot$HERMES_SLOT"
[ "$HERMES_SLOT" -lt "$2" ]
"""


def watched(process: subprocess.Popen[str], look: Callable[[], object]) -> None:
    """Looks again and again until a command has ended."""
    while process.poll() is None:
        look()
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue


@pytest.mark.fault(18)
@MANY
def test_many_jobs_all_end_and_cost_little_memory(
    desk: Desk, record_property: RecordProperty
) -> None:
    count, threads = times(300, 10_000), 8
    desk.write("slot.sh", SLOT)
    desk.write(
        "s.hermes",
        f"PRE\nthreads: {threads}\nEXEC\nPROD([[sh, slot.sh, {threads} {{n}}]], n=RANGE[0, {count}])\n",
    )
    memory, alive = [0], [0]

    with (
        desk.path.with_name("said").open("w+") as said,
        desk.started("exec", "-f", "s.hermes", "-q", stdout=said, stderr=said) as process,
    ):

        def look() -> None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                # Each thread has those that it has started
                started = [
                    path.read_text()
                    for path in Path(f"/proc/{process.pid}/task").glob("*/children")
                ]
                children = " ".join(started).split()
                # One that has ended and was not fetched yet is not alive
                alive.append(sum(state(int(pid)) != "Z" for pid in children))
            except OSError:
                return
            memory.extend(
                int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")
            )

        watched(process, look)
        said.seek(0)
        told = said.read()
    record_property("tried", count)
    record_property("peak_mb", max(memory) // 1024)
    assert process.returncode == 0, told
    assert 0 < max(memory) < 200 * 1024
    assert 0 < max(alive) <= threads
    check_always(desk, told)
    experiments = desk.experiments()
    assert [each.status for each in experiments] == [Status.FINISHED] * count
    assert {each.argv[-1] for each in experiments} == set(map(str, range(count)))
    assert all((each.directory / f"made_{each.identifier}").exists() for each in experiments)


@pytest.mark.fault(18)
@pytest.mark.parametrize("shown", ["true", "false"], ids=["shown", "silent"])
def test_64_descriptors_are_enough(desk: Desk, record_property: RecordProperty, shown: str) -> None:
    count, threads = times(40, 400), 8
    log = "false" if shown == "true" else "true"
    desk.write("slot.sh", SLOT)
    desk.write(
        "s.hermes",
        f"PRE\nthreads: {threads}\nSTD-H\n-l {log}\nEXEC\nPROD([[sh, slot.sh, {threads} {{n}}]], n=RANGE[0, {count}])\n",
    )
    few = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))}
    with desk.started("exec", "-f", "s.hermes", "-q", **few) as process:
        out, err = process.communicate(timeout=10 * LIMIT)
    record_property("tried", count)
    assert process.returncode == 0, err
    check_always(desk, out, err)
    assert [each.status for each in desk.experiments()] == [Status.FINISHED] * count


ALONE = 54_321
"""A user that nobody else is, for limits that are counted by user."""


def alone() -> list[str]:
    """What executes a command as a user whose processes are few, and who is bound by a limit of them, unlike root."""
    if os.geteuid():
        return ["unshare", "--user", "--map-root-user"]
    # The interpreter and the tests may be root's own
    keep = "-all,+dac_override,+dac_read_search"
    return [
        "setpriv",
        f"--reuid={ALONE}",
        "--clear-groups",
        f"--inh-caps={keep}",
        f"--ambient-caps={keep}",
    ]


def limit_processes(pid: int, soft: str) -> None:
    """Sets how many processes the user may have when this one starts another; without a number as many as ever."""
    hard = (
        ""
        if resource.getrlimit(resource.RLIMIT_NPROC)[1] < 0
        else str(resource.getrlimit(resource.RLIMIT_NPROC)[1])
    )
    as_the_user = [] if os.geteuid() else alone()
    subprocess.run(
        [*as_the_user, "prlimit", f"--pid={pid}", f"--nproc={soft or hard or 'unlimited'}:"],
        check=True,
        timeout=LIMIT,
    )


@pytest.mark.fault(18)
@pytest.mark.parametrize("threads", [1, 4])
def test_a_system_that_starts_no_processes_for_a_while_delays_the_jobs(
    desk: Desk, tmp_path: Path, threads: int
) -> None:
    count = 12
    traced(desk, tmp_path, count, *range(threads))
    # A new folder has to be watched, for which Linux needs no thread
    desk.write("job.sh", TRACE + 'mkdir "new$2" && : > "new$2/late_$1"\n')
    said_path = tmp_path / "said"
    with said_path.open("w+") as said:
        command = [*alone(), *HERMES, "exec", "-f", "s.hermes", "--threads", str(threads)]
        with subprocess.Popen(
            command,
            cwd=desk.path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        ) as process:
            try:
                until(
                    lambda: (
                        process.poll() is not None or len(ledger(tmp_path, "started")) == threads
                    )
                )
                assert process.poll() is None, said_path.read_text()
                until(lambda: all_recorded(desk))
                limit_processes(process.pid, "1")
                for number in range(threads):
                    (tmp_path / f"hold{number}").unlink()
                # The next ones are made, and cannot be started
                until(
                    lambda: (
                        process.poll() is not None
                        or len(list(desk.experiments_folder.glob("*/*/*/hermes.json")))
                        == 2 * threads
                    )
                )
                assert process.poll() is None, said_path.read_text()
                until(
                    lambda: (
                        not processes_of("HERMES_IDENTIFIER").keys()
                        & {own for _, own in ledger(tmp_path, "started")}
                    )
                )
                assert len(ledger(tmp_path, "started")) == threads
                limit_processes(process.pid, "")
                assert process.wait(LIMIT) == 0, said_path.read_text()
            finally:
                process.kill()
        said.seek(0)
        told = said.read()
    assert "warning:" not in told
    check_always(desk, told)
    assert sorted(int(number) for number, _ in ledger(tmp_path, "wrote")) == list(range(count))
    for each in desk.experiments():
        assert each.status is Status.FINISHED
        assert [file.path.partition("_")[0] for file in each.files] == [
            "made",
            f"new{each.argv[-2]}/late",
        ]
