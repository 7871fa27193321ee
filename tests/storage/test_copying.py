"""Copies and moves are whole, never over anything, and leave holes and what is special."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from hermes.model import Problem, ProblemKind
from hermes.storage import copying
from hermes.storage.copying import copy, move
from hermes.storage.files import beside, rename_new, size_of

KIND = ProblemKind.NOT_COPIED


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
@pytest.mark.once
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


@pytest.mark.parametrize(
    ("size", "data"),
    [
        (0, []),
        (5, [(0, b"12345")]),
        (1 << 30, []),
        (1 << 30, [(0, b"first")]),
        (1 << 30, [(1 << 29, b"middle")]),
        (1 << 30, [((1 << 30) - 4, b"last")]),
        (1 << 30, [(0, b"a"), (1 << 20, b"b" * 10000), ((1 << 30) - 1, b"c")]),
        (3 << 20, [(0, b"x" * (3 << 20))]),
    ],
)
def test_holes_stay_holes(
    tmp_path: Path, elsewhere: Path, size: int, data: list[tuple[int, bytes]]
) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(size)
        for offset, text in data:
            file.seek(offset)
            file.write(text)
    for number, target in enumerate((tmp_path / "near", elsewhere / "far")):
        copy(str(source), str(target), print, kind=KIND, is_move=bool(number))
        status = target.stat()
        assert status.st_size == size
        assert status.st_blocks * 512 <= sum(len(text) for _, text in data) + 64 * 1024
        with target.open("rb") as file:
            for offset, text in data:
                file.seek(offset)
                assert file.read(len(text)) == text
        if size < 10 << 20:
            assert target.read_bytes() == source.read_bytes()


def test_files_that_do_not_know_their_size_are_copied(tmp_path: Path) -> None:
    source = Path("/proc/self/limits")
    if not source.exists():
        pytest.skip("looks into /proc")
    copy(str(source), str(tmp_path / "copy"), print, kind=KIND)
    assert (tmp_path / "copy").read_text() == source.read_text()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "fifo"])
@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("links", [True, False])
def test_nothing_is_renamed_over_a_name_that_comes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_there: bool, links: bool
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    make: dict[str, Callable[[], object]] = {
        "file": lambda: source.write_text("mine"),
        "folder": source.mkdir,
        "link": lambda: source.symlink_to("nowhere"),
        "fifo": lambda: os.mkfifo(source),
    }
    make[kind]()
    inode = source.lstat().st_ino
    if is_there:
        # After one has looked whether it is free
        target.write_text("theirs")
    if not links:

        def refuse(*arguments: object, **options: object) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refuse)
    stored = Path(beside(str(target), partial(rename_new, str(source))))
    assert stored == (tmp_path / "target.1" if is_there else target)
    assert stored.lstat().st_ino == inode
    if is_there:
        assert target.read_text() == "theirs"
    assert not os.path.lexists(source)


def test_names_of_255_bytes_get_a_number(tmp_path: Path) -> None:
    name = "n" * 255
    for text in ("one", "two", "three"):
        (tmp_path / "source").write_text(text)
        move(str(tmp_path / "source"), str(tmp_path / name), print, kind=KIND)
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == {name: "one", f"{'n' * 253}.1": "two", f"{'n' * 253}.2": "three"}
