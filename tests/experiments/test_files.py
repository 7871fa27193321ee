"""Changes to files lose nothing, overwrite nothing unrelated, and follow no link."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hermes.experiments import copying, files
from hermes.experiments.copying import copy, move
from hermes.experiments.files import (
    free_name,
    has_room,
    matches,
    open_regular,
    read_regular,
    real_folder,
    remove,
    remove_parts,
    same_content,
    size_of,
    write_atomic,
)
from hermes.model import Problem, ProblemKind

KIND = ProblemKind.NOT_COPIED

PART = "0123456789abcdef01234567"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than `tmp_path`."""
    shared = Path("/dev/shm")
    if (
        not shared.is_dir()
        or not os.access(shared, os.W_OK)
        or shared.stat().st_dev == tmp_path.stat().st_dev
    ):
        pytest.skip("there is no other file system to write to")
    folder = shared / f"hermes-{os.getpid()}-{threading.get_ident()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


# Reading and writing


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()


def _link(path: Path) -> None:
    path.with_name("real").write_text("secret")
    path.symlink_to("real")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


OTHERS = pytest.mark.parametrize("put", [_fifo, _folder, _link, _socket])


@OTHERS
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_RDWR | os.O_CREAT])
def test_only_regular_files_are_opened(
    make_folder: Callable[[str], Path], put: Callable[[Path], None], flags: int
) -> None:
    path = make_folder("f") / "x"
    put(path)
    with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
        open_regular(str(path), flags)


def test_an_opened_file_blocks_as_usual(tmp_path: Path) -> None:
    fd = open_regular(str(tmp_path / "x"), os.O_RDWR | os.O_CREAT)
    assert os.get_blocking(fd)
    os.close(fd)
    assert read_regular(str(tmp_path / "x")) == b""


@pytest.mark.parametrize("put", [_fifo, _link, _socket])
def test_an_atomic_write_replaces_whatever_stands_there(
    make_folder: Callable[[str], Path], put: Callable[[Path], None]
) -> None:
    path = make_folder("f") / "x"
    put(path)
    write_atomic(str(path), b"new", sync=True)
    assert stat.S_ISREG(path.lstat().st_mode)
    assert path.read_bytes() == b"new"
    if path.with_name("real").exists():
        assert path.with_name("real").read_text() == "secret"


def test_an_atomic_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_text("old")

    def fail(source: str, target: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="error"):
        write_atomic(str(path), b"new", sync=False)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_an_atomic_write_puts_a_folder_aside(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.mkdir()
    (path / "below").write_text("the job's")
    (tmp_path / "x.1").touch()
    write_atomic(str(path), b"new", sync=False)
    assert path.read_bytes() == b"new"
    assert (tmp_path / "x.2" / "below").read_text() == "the job's"
    assert len(list(tmp_path.iterdir())) == 3


def test_the_temporary_name_is_not_one_that_can_be_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = set()
    replace = os.replace

    def spy(source: str, target: str) -> None:
        names.add(source)
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    for _ in range(3):
        write_atomic(str(tmp_path / "x"), b"", sync=False)
    assert len(names) == 3
    assert all(name.endswith(".hermes-part") for name in names)


def test_a_part_that_somebody_has_made_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    part = tmp_path / "part"
    part.symlink_to(victim)
    monkeypatch.setattr(files, "unfinished", lambda _path: str(part))
    with pytest.raises(FileExistsError):
        write_atomic(str(tmp_path / "x"), b"new", sync=False)
    assert victim.read_text() == "mine"
    assert part.is_symlink()


def test_has_room_where_nobody_can_tell(tmp_path: Path) -> None:
    assert has_room(str(tmp_path))
    assert has_room(str(tmp_path / "gone"))


# Names


def test_real_folders_are_made_and_links_are_not_followed(tmp_path: Path) -> None:
    assert real_folder(str(tmp_path), "a/b/c")
    assert real_folder(str(tmp_path), "a/b/c")
    assert real_folder(str(tmp_path), "")
    (tmp_path / "outside").mkdir()
    (tmp_path / "link").symlink_to("outside")
    assert not real_folder(str(tmp_path), "link/x")
    assert list((tmp_path / "outside").iterdir()) == []


def test_free_names_count_on_and_keep_within_the_limit(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    assert free_name(path) == path
    (tmp_path / "x").symlink_to("nowhere")
    (tmp_path / "x.1").touch()
    assert free_name(path) == f"{path}.2"
    long = tmp_path / ("\N{ROCKET}" * 63)
    long.touch()
    name = os.path.basename(free_name(str(long)))
    assert len(os.fsencode(name)) <= 255
    assert name.endswith(".1")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", ["a.txt", "b.txt"]),
        ("?.txt", ["a.txt", "b.txt"]),
        ("[a]*", ["a.txt"]),
        (".*", [".hidden.txt"]),
        ("sub/*.txt", ["sub/c.txt"]),
        ("**/*.txt", ["a.txt", "b.txt", "sub/c.txt", "sub/deep/d.txt"]),
        ("sub/**", ["sub"]),
        ("./sub//deep", ["sub/deep"]),
        ("gone", []),
        ("out/*", []),
        ("o*", []),
    ],
)
def test_patterns_fit_as_in_a_shell(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    for name in ("a.txt", "b.txt", ".hidden.txt", "sub/c.txt", "sub/deep/d.txt", "out/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "circle").symlink_to("..")
    found = matches(pattern, str(tmp_path), str(tmp_path / "out"))
    assert found == [str(tmp_path / name) for name in expected]


# Copying and moving


def test_folders_are_copied_with_links_modes_and_times(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "x").write_text("x")
    (source / "sub" / "x").chmod(0o640)
    os.utime(source / "sub" / "x", (5, 5))
    (source / "link").symlink_to("nowhere")
    (source / "left").mkdir()
    (source / "sub").chmod(0o750)
    os.utime(source / "sub", (6, 6))
    problems: list[Problem] = []
    target = tmp_path / "target"
    copy(str(source), str(target), problems.append, kind=KIND, skip=str(source / "left"))
    assert problems == []
    assert sorted(path.name for path in target.rglob("*")) == ["link", "sub", "x"]
    assert os.readlink(target / "link") == "nowhere"
    status = (target / "sub" / "x").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o640, 5)
    status = (target / "sub").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o750, 6)


def test_a_link_is_copied_as_a_link_unless_it_is_to_be_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("real")
    (tmp_path / "link").symlink_to("real")
    problems: list[Problem] = []
    copy(str(tmp_path / "link"), str(tmp_path / "one"), problems.append, kind=KIND)
    copy(str(tmp_path / "link"), str(tmp_path / "two"), problems.append, kind=KIND, follow=True)
    assert (tmp_path / "one").is_symlink()
    assert not (tmp_path / "two").is_symlink()
    assert (tmp_path / "two").read_text() == "real"


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (ProblemKind.NOT_COPIED, ProblemKind.NOT_COPIED),
        (ProblemKind.NOT_COLLECTED, ProblemKind.LEFT_IN_PLACE),
    ],
)
def test_special_files_are_never_opened_and_told(
    tmp_path: Path, kind: ProblemKind, told: ProblemKind
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    os.mkfifo(source / "fifo")
    problems: list[Problem] = []
    copy(str(source), str(tmp_path / "target"), problems.append, kind=kind)
    text = f"`{source}/fifo` is a FIFO, it was left where it is"
    assert problems == [Problem(told, text)]
    assert list((tmp_path / "target").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, ProblemKind.NOT_COPIED),
        (errno.ENOSPC, ProblemKind.DISK_FULL),
        (errno.EDQUOT, ProblemKind.DISK_FULL),
    ],
)
def test_a_full_disk_has_its_kind_and_the_others_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: ProblemKind
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "bad").touch()
    (source / "good").touch()
    whole = copying.copy_bytes
    bad = (source / "bad").stat().st_ino

    def copy_bytes(reading: int, writing: int) -> None:
        if os.fstat(reading).st_ino == bad:
            raise OSError(number, os.strerror(number))
        whole(reading, writing)

    monkeypatch.setattr(copying, "copy_bytes", copy_bytes)
    problems: list[Problem] = []
    copy(str(source), str(tmp_path / "target"), problems.append, kind=KIND)
    assert problems == [Problem(kind, f"cannot copy `{source}/bad`: {os.strerror(number)}")]
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["good"]


@pytest.mark.fault(9)
def test_moving_across_file_systems_leaves_what_is_special(tmp_path: Path, elsewhere: Path) -> None:
    source = elsewhere / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "x").write_text("x")
    (source / "link").symlink_to("nowhere")
    os.mkfifo(source / "fifo")
    problems: list[Problem] = []
    target = tmp_path / "target"
    move(str(source), str(target), problems.append, kind=ProblemKind.NOT_COLLECTED)
    assert [problem.kind for problem in problems] == [ProblemKind.LEFT_IN_PLACE]
    assert "fifo` is a FIFO" in problems[0].text
    assert (target / "sub" / "x").read_text() == "x"
    assert os.readlink(target / "link") == "nowhere"
    assert sorted(path.name for path in elsewhere.rglob("*")) == ["fifo", "source"]


@pytest.fixture
def very_deep(elsewhere: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder with more levels than Python allows calls within calls, on another file system than
    `tmp_path`."""
    folder = os.open(elsewhere, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    yield elsewhere / "d"
    # `shutil.rmtree`, with which pytest cleans up, does not get that far
    subprocess.run(["rm", "-rf", *elsewhere.iterdir(), *tmp_path.iterdir()], check=True)


@pytest.mark.fault(12)
def test_very_deep_folders_are_copied_moved_and_measured(very_deep: Path, tmp_path: Path) -> None:
    problems: list[Problem] = []
    bottom = "d/" * 1099 + "bottom"
    copy(str(very_deep), str(tmp_path / "copied"), problems.append, kind=KIND)
    assert (tmp_path / "copied" / bottom).exists()
    move(str(very_deep), str(tmp_path / "moved"), problems.append, kind=KIND)
    assert (tmp_path / "moved" / bottom).exists()
    assert not very_deep.exists()
    (tmp_path / "moved" / bottom).write_text("123")
    assert size_of(str(tmp_path / "moved")) == 3
    assert problems == []


# Comparing and removing


def test_sizes_are_those_of_files_and_of_all_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "one").write_text("1")
    (tmp_path / "sub" / "two").write_text("22")
    (tmp_path / "sub" / "link").symlink_to("333")
    assert size_of(str(tmp_path / "one")) == 1
    assert size_of(str(tmp_path)) == 6
    assert size_of(str(tmp_path / "gone")) == 0


def test_the_same_content_is_the_same_bytes_targets_and_names(tmp_path: Path) -> None:
    for name, text in (("one", "x"), ("two", "x"), ("three", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)
        (tmp_path / name / "link").symlink_to("nowhere")
    one, two, three = (str(tmp_path / name) for name in ("one", "two", "three"))
    assert same_content(one, two)
    assert not same_content(one, three)
    assert not same_content(one, f"{two}/file")
    assert not same_content(one, str(tmp_path / "gone"))
    (tmp_path / "two" / "more").touch()
    assert not same_content(one, two)


def test_only_parts_are_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept" / "sub").mkdir(parents=True)
    (tmp_path / "kept" / f"{PART}.hermes-part").touch()
    (tmp_path / "kept" / "sub" / f"{PART}.hermes-part").mkdir()
    (tmp_path / "kept" / "sub" / "file").touch()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / f"{PART}.hermes-part").touch()
    (tmp_path / "kept" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "kept" / "own.hermes-part").touch()
    remove_parts(str(tmp_path / "kept"))
    assert sorted(path.name for path in (tmp_path / "kept").rglob("*")) == [
        "file", "link", "own.hermes-part", "sub",
    ]  # fmt: skip
    assert (tmp_path / "outside" / f"{PART}.hermes-part").exists()
    remove(str(tmp_path / "kept" / "link"))
    remove(str(tmp_path / "kept"))
    remove(str(tmp_path / "gone"))
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
