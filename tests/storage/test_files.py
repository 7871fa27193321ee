"""Changes to files lose nothing, overwrite nothing unrelated, and follow no link."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from hermes.model import ProblemKind
from hermes.storage import files
from hermes.storage.files import (
    Home,
    free_name,
    has_room,
    matches,
    open_regular,
    read_regular,
    real_folder,
    remove,
    remove_parts,
    rename_new,
    same_content,
    size_of,
    write_atomic,
)

KIND = ProblemKind.NOT_COPIED

PART = "0123456789abcdef01234567"


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


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    os.truncate(path, 2**40)
    with pytest.raises(OSError, match="too large"):
        read_regular(str(path))


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


def test_a_folder_takes_the_place_of_an_empty_one_alone(tmp_path: Path) -> None:
    """An empty one is what is left if a runner is killed before it can rename."""

    def folder(name: str, *files: str) -> Path:
        (tmp_path / name).mkdir()
        for each in files:
            (tmp_path / name / each).write_text(each)
        return tmp_path / name

    target = tmp_path / "target"
    rename_new(str(folder("new", "a")), str(target))
    target.rename(tmp_path / "done")
    folder("target")
    rename_new(str(folder("over an empty one", "b")), str(target))
    assert [each.name for each in target.iterdir()] == ["b"]
    source = folder("other", "c")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("target")
    for taken in ("target", "file", "link", "done"):
        with pytest.raises(FileExistsError):
            rename_new(str(source), str(tmp_path / taken))
    assert [each.name for each in source.iterdir()] == ["c"]
    assert [each.name for each in target.iterdir()] == ["b"]
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "link").is_symlink()


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


# An experiment directory that is not what it was


@pytest.mark.parametrize("what", ["link", "link to itself", "file", "nothing", "real", "parent"])
def test_a_directory_is_told_from_what_is_put_in_its_place(tmp_path: Path, what: str) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere" / "b").mkdir(parents=True)
    path = tmp_path / "a" / "b"
    home = Home.of(str(path))
    assert home.is_there
    path.rename(tmp_path / "moved")
    put: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to(tmp_path / "elsewhere"),
        "link to itself": lambda: path.symlink_to(tmp_path / "moved"),
        "file": path.touch,
        "nothing": lambda: None,
        "real": path.mkdir,
        "parent": lambda: path.parent.rename(tmp_path / "old"),
    }
    put[what]()
    if what == "parent":
        path.parent.symlink_to(tmp_path / "elsewhere")
    assert home.is_there == (what in ("link to itself", "real"))
    if not home.is_there:
        with pytest.raises(OSError, match=r"in its place|No such file"):
            home.check()


def test_a_link_is_no_directory_unless_a_user_has_made_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert not Home.of(str(tmp_path / "link")).is_there
    assert Home.of(str(tmp_path / "link"), follow=True).is_there
    assert not Home.of(str(tmp_path / "gone")).is_there


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
