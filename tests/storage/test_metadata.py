"""`hermes.json`: typed, checked when read, replaced whole, readable for people."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes import HermesError, Status
from hermes.model import Options, Problem, ProblemKind
from hermes.storage.metadata import (
    GitState,
    HermesFile,
    Metadata,
    SlurmTask,
    StoredFile,
    Versions,
    amend,
    decoded,
    encoded,
    read_metadata,
    write_metadata,
)

NOT_UTF_8 = os.fsdecode(b"a\xff")


def metadata(**changes: object) -> Metadata:
    """Metadata with something in each member."""
    found = Metadata(
        identifier="2026_03_04_120000000000_1930e",
        script="job.sh",
        argv=("sh", "job.sh", "2026_03_04_120000000000_1930e", "-lr", "0.1"),
        arguments=("-lr", "0.1"),
        options=Options(copy_after=("a", "b"), log=False, comments=("one",), slurm=("-c 2",)),
        comments=("one",),
        key="0" * 32,
        attempts=2,
        hermes_file=HermesFile(path="x.hermes", line=6, sha256="f" * 64),
        status=Status.FAILED,
        start=datetime(2026, 3, 4, 12, 0, 0, 5, timezone(timedelta(hours=1))),
        pid=7,
        pid_start="123",
        end=datetime(2026, 3, 4, 12, 0, 1, 0, timezone(timedelta(hours=1))),
        exit_code=3,
        signal=None,
        duration=0.25,
        files=[StoredFile("a", 3, "copied-after"), StoredFile(NOT_UTF_8, 0, "collected")],
        problems=[Problem(ProblemKind.NOT_COPIED, "`-ca b`: no such file or directory")],
        run_id="20260304-120000-00000000",
        name="test",
        working_directory="/w",
        root="/r",
        settings={"threads": 2, "supervise": True, "slurm": ""},
        git=GitState(commit="1" * 40, branch="trunk", dirty=False),
        boot_id="b",
        host="h",
        user="u",
        versions=Versions(hermes="1", python="3", platform="Linux"),
        slurm=SlurmTask(job="5_0", task="0.0", node="n1"),
    )
    return msgspec.structs.replace(found, **changes)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_metadata(str(tmp_path), metadata(), sync=True)
    assert read_metadata(tmp_path) == read_metadata(str(tmp_path)) == metadata()
    assert os.listdir(tmp_path) == ["hermes.json"]


def test_times_keep_their_offset(tmp_path: Path) -> None:
    write_metadata(str(tmp_path), metadata(), sync=False)
    start = read_metadata(tmp_path).start
    assert start is not None
    assert start.utcoffset() == timedelta(hours=1)
    assert '"start": "2026-03-04T12:00:00.000005+01:00"' in (tmp_path / "hermes.json").read_text()


def test_a_member_a_line_so_that_people_can_grep(tmp_path: Path) -> None:
    write_metadata(str(tmp_path), metadata(), sync=False)
    lines = (tmp_path / "hermes.json").read_text().splitlines()
    assert [lines[0], lines[-1]] == ["{", "}"]
    members = [line.strip().partition(":")[0].strip('"') for line in lines[1:-1]]
    assert members == list(Metadata.__struct_fields__)
    assert ' "status": "failed",' in lines
    assert ' "exit_code": 3,' in lines
    assert json.loads((tmp_path / "hermes.json").read_text())["argv"][0] == "sh"


def test_names_that_are_not_utf_8_come_back_as_they_were(tmp_path: Path) -> None:
    write_metadata(str(tmp_path), metadata(argv=("sh", NOT_UTF_8)), sync=False)
    found = read_metadata(tmp_path)
    assert found.argv == ("sh", NOT_UTF_8)
    assert found.files[1].path == NOT_UTF_8


@given(st.lists(st.binary().map(os.fsdecode)), st.text())
def test_any_name_comes_back_as_it_was(argv: list[str], host: str) -> None:
    data = encoded(metadata(argv=tuple(argv), host=host))
    found = decoded(data, Metadata, file="hermes.json", path="x")
    assert (found.argv, found.host) == (tuple(argv), host)


MINIMAL = {
    "format": 1,
    "identifier": "i",
    "script": "s",
    "argv": ["sh"],
    "key": "k",
    "status": "running",
    "run_id": "r",
    "name": "n",
    "working_directory": "/w",
    "root": "/r",
    "host": "h",
    "user": "u",
    "versions": {"hermes": "1", "python": "3", "platform": "Linux"},
}
"""Members without which there is no experiment."""


def read(tmp_path: Path, data: object) -> Metadata:
    (tmp_path / "hermes.json").write_text(json.dumps(data))
    return read_metadata(tmp_path)


def test_members_that_are_not_known_are_ignored(tmp_path: Path) -> None:
    found = read(tmp_path, MINIMAL | {"later": [{"a": 1}], "git": {"commit": None, "tag": "x"}})
    assert found.identifier == "i"
    assert found.git == GitState()
    assert (found.files, found.problems, found.slurm) == ([], [], None)


@pytest.mark.parametrize("member", [name for name in MINIMAL if name != "format"])
def test_a_member_that_is_missing_is_an_error(tmp_path: Path, member: str) -> None:
    with pytest.raises(HermesError, match=f"not written by Hermes.*`{member}`"):
        read(tmp_path, {name: value for name, value in MINIMAL.items() if name != member})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"argv": "sh"}, r"Expected `array`.*argv"),
        ({"argv": [1]}, r"Expected `str`.*argv"),
        ({"status": "happy"}, "Invalid enum value 'happy'"),
        ({"exit_code": "3"}, r"Expected `int \| null`.*exit_code"),
        ({"start": "yesterday"}, "Invalid RFC3339"),
        ({"start": "2026-03-04T12:00:00"}, "timezone"),
        ({"files": [{"path": "a", "bytes": 1, "origin": "stolen"}]}, "stolen"),
        ({"problems": ["text"]}, "Expected `object`"),
        ({"format": "1"}, "Expected `int`"),
        ({"format": True}, "Expected `int`"),
    ],
)
def test_a_member_of_another_type_is_an_error(
    tmp_path: Path, changes: dict[str, object], text: str
) -> None:
    with pytest.raises(HermesError, match=text):
        read(tmp_path, MINIMAL | changes)


def test_a_newer_format_is_an_error_whatever_else_it_holds(tmp_path: Path) -> None:
    with pytest.raises(HermesError, match=r"newer Hermes \(format 2, this one reads 1\)"):
        read(tmp_path, {"format": 2, "argv": "other", "word": NOT_UTF_8})


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b'{"format": 1, "identifier": "\xff"}', "is not JSON"),
        (b'{"format": 1, "x": ' + b"[" * 100_000, "is not JSON"),
        (b"[]", "not written by Hermes"),
        (b"{}", "not written by Hermes"),
        (b"null", "not written by Hermes"),
    ],
)
def test_what_is_no_metadata_is_an_error(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "hermes.json").write_bytes(data)
    with pytest.raises(HermesError, match=text):
        read_metadata(tmp_path)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()


def _link(path: Path) -> None:
    target = path.with_name("real.json")
    target.write_text(json.dumps(MINIMAL))
    path.symlink_to(target)


@pytest.mark.parametrize("put", [_fifo, _folder, _link])
def test_something_else_in_the_place_of_metadata_is_neither_followed_nor_waited_for(
    tmp_path: Path, put: object
) -> None:
    assert callable(put)
    put(tmp_path / "hermes.json")
    with pytest.raises(HermesError, match="no experiment directory: not a regular file"):
        read_metadata(tmp_path)


def test_a_folder_without_metadata_is_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(HermesError, match="no experiment directory: No such file"):
        read_metadata(tmp_path)


def test_writing_through_a_link_is_impossible(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "hermes.json").symlink_to(victim)
    write_metadata(str(tmp_path), metadata(), sync=False)
    assert victim.read_text() == "mine"
    assert read_metadata(tmp_path) == metadata()


def test_amending_changes_status_and_problems_alone(tmp_path: Path) -> None:
    write_metadata(str(tmp_path), metadata(), sync=False)
    problem = Problem(ProblemKind.CLUSTER, "cancelled")
    amend(str(tmp_path), Status.CANCELLED, [problem])
    assert read_metadata(tmp_path) == metadata(status=Status.CANCELLED, problems=[problem])


def test_metadata_parse_at_every_moment(tmp_path: Path) -> None:
    folder, over = str(tmp_path), threading.Event()
    write_metadata(folder, metadata(), sync=False)

    def write() -> None:
        for number in range(500):
            write_metadata(folder, metadata(comments=("x" * number * 20,)), sync=False)
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not over.is_set():
        read_metadata(folder)
    writer.join()
    assert len(read_metadata(folder).comments[0]) == 499 * 20


def test_metadata_of_format_1_stay_readable() -> None:
    (path,) = (Path(__file__).parent / "data/format1/experiments").glob("*/*/*/hermes.json")
    found = read_metadata(path.parent)
    assert found.identifier == path.parent.name == "2026_03_04_120000000000_1930e"
    assert (found.script, found.name) == ("train.py", "first")
    assert found.argv == ("python", "train.py", found.identifier, "--lr", "0.1")
    assert found.arguments == ("--lr", "0.1")
    assert found.options == Options(
        copy_before=("data.csv",), copy_after=("gone.txt",), move_after=("model.pt",),
        log=False, comments=("one: two",), slurm=("--time=1",),
    )  # fmt: skip
    assert found.comments == ("one: two",)
    assert (found.key, found.attempts) == ("0123456789abcdef0123456789abcdef", 2)
    assert found.hermes_file == HermesFile(path="/home/a/x.hermes", line=6, sha256="f" * 64)
    assert found.status is Status.FAILED
    assert (found.exit_code, found.signal, found.duration) == (3, None, 61.25)
    assert found.start == datetime(2026, 3, 4, 11, 0, 0, 5, UTC)
    assert found.end == datetime(2026, 3, 4, 11, 1, 1, 250005, UTC)
    assert (found.pid, found.pid_start) == (4711, "1234567")
    assert found.boot_id == "1c2a038a-2b94-4aca-b5d2-02a5aa6805ec"
    assert found.files == [
        StoredFile("data.csv", 3, "copied-before"),
        StoredFile("model.pt", 5, "moved"),
        StoredFile(f"{NOT_UTF_8}_{found.identifier}", 6, "collected"),
    ]
    assert found.problems == [
        Problem(ProblemKind.NOT_COPIED, "`-ca gone.txt`: no such file or directory")
    ]
    assert (found.run_id, found.host, found.user) == ("20260304-115959-0a1b2c3d", "node", "a")
    assert (found.working_directory, found.root) == ("/home/a/work", "/home/a")
    assert found.settings == {
        "threads": 2, "path_to_experiments": ".", "supervise": True, "executor": "slurm",
        "slurm": "",
    }  # fmt: skip
    assert found.git == GitState(commit="c" * 35 + "1930e", branch="trunk", dirty=True)
    assert found.versions == Versions(hermes="0.1.0", python="3.11.7", platform="Linux-6.1")
    assert found.slurm == SlurmTask(job="17_3", task="0.3", node="n1", cluster="big")
