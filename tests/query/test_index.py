"""The index: experiments that have ended are read once, and nothing that it says is stale."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import hermes
from hermes import Status
from hermes.query import batches, index
from hermes.query.packing import PackedRow
from hermes.query.reading import metadata_of
from hermes.storage.disks import has_locks, kind_of
from hermes.storage.layout import index_elsewhere, index_file
from hermes.storage.metadata import Metadata, StoredFile, Summary, write_metadata

from .simple import experiment, identifier
from .test_packing import aged, told


@pytest.fixture(params=["locks", "no locks"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with four experiments that have ended and one that runs, on a local disk and on one
    without locks."""
    monkeypatch.setattr(index, "has_locks", lambda folder: request.param == "locks")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(5):
        status = Status.RUNNING if number == 4 else Status.FINISHED
        make(tmp_path / "root", number, status=status)
    return tmp_path / "root"


def make(root: Path, number: int, **changes: object) -> Path:
    directory = experiment(root / "experiments", number, **changes)
    (directory / "progress.csv").write_text(f"loss\n{number}\n")
    return aged(directory)


@pytest.fixture
def was_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[int]]:
    """Which experiments a call has read, by their numbers. It checks that the answer is right."""
    read: list[str] = []

    def reading(directory: str) -> Metadata:
        read.append(os.path.basename(directory))
        return original(directory)

    original = metadata_of
    monkeypatch.setattr("hermes.query.batches.metadata_of", reading)

    def look(root: Path) -> list[int]:
        read.clear()
        found = hermes.experiments(root=root)
        answer = list(map(told, found.rows())), list(found.columns), found.warnings
        result = sorted(read)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(index.Index, "_read", fail)
            patch.setattr(index.Index, "store", lambda *_: None)
            again = hermes.experiments(root=root)
            assert answer == (list(map(told, again.rows())), list(again.columns), again.warnings)
        numbers = {identifier(number): number for number in range(30)}
        return [numbers[each] for each in result]

    return look


def fail(*_: object) -> None:
    raise OSError


Look = Callable[[Path], list[int]]


def test_what_has_ended_is_read_once(root: Path, was_read: Look) -> None:
    assert was_read(root) == [0, 1, 2, 3, 4]
    assert was_read(root) == [4]
    assert was_read(root) == [4]
    # What was told of it can be asked again
    found = hermes.experiments("loss > 1 and status = finished", root)
    assert [row.value(found.columns.find("loss.max")) for row in found.rows()] == [3, 2]
    assert all(isinstance(row, PackedRow) for row in found.rows())


def test_what_has_changed_is_read_again(root: Path, was_read: Look) -> None:
    was_read(root)
    folder = root / "experiments" / "train" / "test"

    def edit(number: int, **changes: object) -> None:
        path = folder / identifier(number) / "hermes.json"
        told_ = json.loads(path.read_text()) | changes
        path.write_text(json.dumps(told_))

    # In place, the time of its directory stays
    edit(0, duration=77.0)
    assert was_read(root) == [0, 4]
    assert hermes.experiments("duration = 77", root)[0].identifier == identifier(0)
    # Changed so shortly before, it is looked at again until it has come to rest
    assert was_read(root) == [0, 4]
    aged(folder / identifier(0))
    assert was_read(root) == [0, 4]
    assert was_read(root) == [4]
    # Replaced by a file of the same size and time
    path = folder / identifier(1) / "hermes.json"
    other = path.with_name("other")
    other.write_text(path.read_text().replace('"exit_code": 0', '"exit_code": 1'))
    os.utime(other, (1e9, 1e9))
    os.replace(other, path)
    os.utime(path.parent, (1e9, 1e9))
    assert was_read(root) == [1, 4]
    assert len(hermes.experiments("exit_code = 1", root)) == 1
    # Found by somebody that begins again what was taken for ended, and ended
    edit(2, status="running", end=None, exit_code=None)
    edit(4, status="failed", exit_code=3)
    for number in (2, 4):
        aged(folder / identifier(number))
    assert was_read(root) == [2, 4]
    assert was_read(root) == [2]
    # Evaluated afterwards
    (folder / identifier(3) / "eval.csv").write_text("accuracy\n0.5\n")
    assert was_read(root) == [2, 3]
    assert len(hermes.experiments("accuracy > 0", root)) == 1
    aged(folder / identifier(3))
    # Removed
    shutil.rmtree(folder / identifier(3))
    assert was_read(root) == [2]
    assert [len(each) for each in index.Index(str(root / "experiments")).chunks.values()] == [3]
    # Removed, and made anew under the same name
    shutil.rmtree(folder / identifier(0))
    make(root, 0, parameters={"lr": "5"})
    assert was_read(root) == [0, 2]
    assert was_read(root) == [2]
    # Copied in by hand, with its times; a second one of a name is none
    shutil.copytree(folder / identifier(0), root / "experiments" / "eval" / "x" / identifier(0))
    make(root / "elsewhere", 9)
    shutil.copytree(
        root / "elsewhere" / "experiments" / "train" / "test" / identifier(9),
        root / "experiments" / "copied" / identifier(9),
    )
    aged(root / "experiments" / "copied" / identifier(9))
    assert 9 in was_read(root)
    assert was_read(root) == [2]
    assert len(hermes.experiments(root=root)) == 5
    # Which of both counts does not depend on which was read first
    original = folder / identifier(0)
    for place in ("a", "z"):
        shutil.copytree(original, root / "experiments" / place / identifier(0))
    assert hermes.experiments("lr = 5", root)[0].directory == original
    shutil.rmtree(original)
    assert hermes.experiments("lr = 5", root)[0].directory.parent.name == "a"
    shutil.copytree(root / "experiments" / "a" / identifier(0), original)
    assert hermes.experiments("lr = 5", root)[0].directory == original
    aged(original)
    was_read(root)
    # The whole root moved: nothing in it is lost
    shutil.move(root, root.with_name("moved"))
    assert was_read(root.with_name("moved")) == [2]


def test_what_the_metadata_say_of_metrics_counts_until_a_file_has_changed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sums in the metadata are wrong here, so that one sees where an answer comes from."""

    def asked(change: Callable[[Path], object]) -> list[float | None]:
        directory = make(root, 20)
        (directory / "stdout.log").touch()
        metadata = metadata_of(str(directory))
        metadata.files = [StoredFile("progress.csv", 8, "written")]
        metadata.metrics = {"loss": Summary(1, 1, 0.0, 7.0, 7.0, 7.0, 7.0)}
        write_metadata(str(directory), metadata, sync=False)
        change(directory)
        try:
            found = hermes.experiments(root=root)
            names = [each for each in ("loss", "accuracy") if each in found.metrics]
            (row,) = (each for each in found.rows() if each.identifier == identifier(20))
            return [row.value(found.columns.find(each)) for each in names]  # type: ignore[misc]
        finally:
            shutil.rmtree(directory)

    def later(path: Path, text: str) -> None:
        path.write_text(text)
        os.utime(path, (time.time() + 5, time.time() + 5))

    assert asked(lambda directory: None) == [7.0]
    assert asked(lambda directory: later(directory / "progress.csv", "loss\n1\n")) == [1.0]
    assert asked(lambda directory: later(directory / "stdout.log", "loss: 2\n")) == [20.0]
    assert asked(lambda directory: (directory / "progress.csv").unlink()) == [None]

    def add(directory: Path) -> None:
        (directory / "eval.csv").write_text("accuracy\n0.5\n")
        os.utime(directory, (time.time() + 5, time.time() + 5))

    assert asked(add) == [20.0, 0.5]


def test_an_experiment_that_is_still_being_copied_is_looked_at_again(
    root: Path, was_read: Look
) -> None:
    directory = root / "experiments" / "train" / "test" / identifier(1)
    os.utime(directory / "progress.csv")
    assert was_read(root) == [0, 1, 2, 3, 4]
    assert was_read(root) == [1, 4]
    (directory / "progress.csv").write_text("loss\n1\n17\n")
    aged(directory)
    assert was_read(root) == [1, 4]
    assert was_read(root) == [4]


def test_what_cannot_be_read_is_told_again(root: Path, was_read: Look) -> None:
    folder = root / "experiments" / "train" / "test"
    (folder / identifier(0) / "hermes.json").write_text("{")
    shutil.copytree(folder / identifier(1), folder / identifier(8))
    aged(folder / identifier(8))
    for _ in range(2):
        was_read(root)
        told_ = hermes.experiments(root=root).warnings
        assert len(told_) == 2


DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": os.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "no database": lambda path: path.write_bytes(b"garbage" * 5000),
    "journal of nothing": lambda path: Path(f"{path}-journal").write_bytes(b"\xff" * 5000),
    "of another Hermes": lambda path: execute(path, "UPDATE made SET made_by = '99 9.9.9'"),
    "foreign": lambda path: execute(
        path, 'DROP TABLE made; CREATE TABLE made (x); CREATE VIEW "a ""b" AS SELECT 1'
    ),
    "other values": lambda path: execute(path, "UPDATE chunks SET data = 'text'"),
    "nothing in it": lambda path: execute(path, "DELETE FROM made"),
}


def execute(path: Path, script: str) -> object:
    with closing(sqlite3.connect(path)) as database:
        return database.executescript(script)


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_used_is_made_anew(root: Path, was_read: Look, damage: str) -> None:
    was_read(root)
    DAMAGES[damage](Path(index_file(str(root / "experiments"))))
    # The first call sees it, and mends it; a journal that is no more than garbage harms nothing
    if damage != "journal of nothing":
        assert was_read(root) == [0, 1, 2, 3, 4]
    assert was_read(root) == [4]


def test_bits_that_were_flipped_change_no_answer(root: Path, was_read: Look) -> None:
    was_read(root)
    path = Path(index_file(str(root / "experiments")))
    whole, chance = path.read_bytes(), random.Random(6)
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 20])):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        was_read(root)


@pytest.mark.parametrize("what", ["folder", "link", "fifo", "a file above it"])
def test_where_no_index_can_be_it_works_without(root: Path, was_read: Look, what: str) -> None:
    path = Path(index_file(str(root / "experiments")))
    if what == "a file above it":
        path.parent.write_text("")
    else:
        path.parent.mkdir()
        if what == "folder":
            path.mkdir()
        elif what == "link":
            path.symlink_to(root / "target")
        else:
            os.mkfifo(path)
    for _ in range(2):
        assert was_read(root) == [0, 1, 2, 3, 4]
    assert not (root / "target").exists()


def test_a_process_that_holds_the_lock_is_not_waited_for_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "PATIENCE", 0.01)
    monkeypatch.setattr(index, "has_locks", lambda folder: True)
    make(tmp_path, 1)
    assert len(hermes.experiments(root=tmp_path)) == 1
    database = sqlite3.connect(index_file(str(tmp_path / "experiments")), isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    assert len(hermes.experiments(root=tmp_path)) == 1
    database.execute("ROLLBACK")
    # Others may read while one prepares a change
    database.execute("BEGIN IMMEDIATE")
    make(tmp_path, 2)
    assert len(index.Index(str(tmp_path / "experiments")).chunks) == 1
    assert len(hermes.experiments(root=tmp_path)) == 2
    database.close()


def test_a_folder_that_is_not_ours_is_left_alone(root: Path, was_read: Look) -> None:
    folder = root / "experiments" / "train"
    assert was_read(folder) == [0, 1, 2, 3, 4]
    assert was_read(folder) == [4]
    assert os.path.exists(index_elsewhere(str(folder)))
    assert index_elsewhere(str(folder)).startswith(os.environ["XDG_CACHE_HOME"])
    assert not os.path.exists(folder / ".hermes")


LIST = """
import hermes, os, sys
from hermes.query import index, listing, packing
index.has_locks = lambda folder: sys.argv[2] == "locks"
index.CHUNK = listing.CHUNK = 16
print("ready", flush=True)
while True:
    found = hermes.experiments(root=sys.argv[1])
    print(len(found), len(set(found)), flush=True)
    if len(sys.argv) > 3:
        break
    os.unlink(index.index_file(sys.argv[1] + "/experiments"))
"""


def listing_process(root: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LIST, str(root), *words], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("kind", ["locks", "no locks"])
def test_killed_while_building(tmp_path: Path, kind: str) -> None:
    for number in range(100):
        make(tmp_path, number)
    chance = random.Random(8)
    for _ in range(5):
        with listing_process(tmp_path, kind) as process:
            assert process.stdout is not None
            process.stdout.readline()
            # At whatever moment: most of its time it builds
            time.sleep(chance.random() / 20)
            process.send_signal(signal.SIGKILL)
        check_whole(tmp_path, 100)


def check_whole(root: Path, count: int) -> None:
    found = hermes.experiments(root=root)
    assert (len(found), len(set(found)), found.warnings) == (count, count, [])
    chunks = index.Index(str(root / "experiments")).chunks.values()
    names = [name for chunk in chunks for name in chunk.names]
    assert sorted(names) == sorted(each.identifier for each in found)


@pytest.mark.parametrize("kind", ["locks", "no locks"])
def test_several_build_at_once(tmp_path: Path, kind: str) -> None:
    for number in range(100):
        make(tmp_path, number)
    processes = [listing_process(tmp_path, kind, "once") for _ in range(4)]
    for process in processes:
        out, _ = process.communicate()
        assert (process.returncode, out.splitlines()) == (0, ["ready", "100 100"])
    check_whole(tmp_path, 100)


@pytest.fixture
def by_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few experiments are read by further processes too, in small batches."""
    monkeypatch.setattr(batches, "MANY", 1)
    monkeypatch.setattr(batches, "CHUNK", 3)
    monkeypatch.setattr(batches, "_cores", lambda: 2)


@pytest.mark.usefixtures("by_two_processes")
def test_many_are_read_by_several_processes(
    root: Path, was_read: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5, 12):
        make(root, number)
    (root / "experiments" / "train" / "test" / identifier(3) / "hermes.json").write_text("{")
    found = hermes.experiments(root=root)
    with monkeypatch.context() as patch:
        # None of them in this process
        patch.setattr(batches, "metadata_of", None)
        rows = found.rows()
    assert [row.identifier for row in rows] == [identifier(n) for n in range(11, -1, -1) if n != 3]
    assert len(found.warnings) == 1
    assert "hermes.json" in found.warnings[0]
    assert was_read(root) == [3, 4]
    assert hermes.experiments("loss > 9", root)[0].identifier == identifier(11)


@pytest.mark.usefixtures("by_two_processes")
def test_a_frozen_program_is_not_started_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(batches, "_Reader", None)
    assert len(hermes.experiments(root=root)) == 5


@pytest.mark.usefixtures("by_two_processes")
@pytest.mark.parametrize("program", ["/no/python", "/bin/true", "/bin/cat"])
def test_processes_that_do_not_answer_cost_no_experiment(
    root: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    # A Python that is not there, one that ends at once, and one that says something else
    monkeypatch.setattr(sys, "executable", program)
    assert len(hermes.experiments(root=root)) == 5


MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:40 / /mnt/a\\040b rw shared:1 - nfs4 server:/x rw
31 30 0:41 / /mnt/a\\040b/scratch rw - xfs /dev/vdb rw
32 22 0:42 / /home rw - tmpfs tmpfs rw
33 22 0:43 / /home rw - fuse.sshfs host: rw
nonsense
"""


def test_file_systems_are_told_apart(tmp_path: Path) -> None:
    kinds = {
        path: kind_of(path, MOUNTS)
        for path in ("/", "/x", "/mnt/a b", "/mnt/a b/x", "/mnt/a b/scratch/x", "/home/ada", "/hom")
    }
    assert list(kinds.values()) == ["ext4", "ext4", "nfs4", "nfs4", "xfs", "fuse.sshfs", "ext4"]
    assert kind_of("/x", "") == ""
    assert has_locks(str(tmp_path)) == (sys.platform == "linux")
