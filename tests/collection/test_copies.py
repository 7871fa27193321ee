"""The options `-cb`, `-ca` and `-ma`: what they bring, under which names, and what they never
touch.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
from anyio import to_thread

from hermes.collection.copies import Copies
from hermes.model import Options, Problem, ProblemKind
from hermes.storage import copying
from hermes.storage.files import Home

from .place import FakeJob, Place, both_ways

pytestmark = pytest.mark.anyio


def options_of(text: str) -> Options:
    """`-ca one, -ma 'two'`."""
    paths: dict[str, list[str]] = {"-cb": [], "-ca": [], "-ma": []}
    for each in text.split(", "):
        flag, path = each.split(" ", 1)
        paths[flag].append(path.strip("'"))
    before, after, moved = map(tuple, paths.values())
    return Options(copy_before=before, copy_after=after, move_after=moved)


async def bring(place: Place, options: str) -> FakeJob:
    """Runs `job.sh` as a job with these options."""
    async with place.job() as job:
        problems: list[Problem] = []
        copies = Copies(
            options=options_of(options),
            placeholders={"identifier": job.identifier},
            working_directory=str(place.path),
            home=Home.of(str(job.directory)),
            experiments=str(place.experiments_folder),
            owned=partial(place.collector.owned, job.identifier),
            give_back=partial(place.collector.give_back, job.identifier),
            report=problems.append,
        )
        job.brought += await to_thread.run_sync(copies.before)
        await job.execute("sh", "job.sh")
        job.brought += await to_thread.run_sync(copies.after)
    job.collected.problems[:0] = problems
    return job


def test_a_full_disk_is_reported_as_such(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place.write("x.txt", "x")
    job = place.new_job()
    problems: list[Problem] = []
    copies = Copies(
        options=options_of("-cb x.txt, -cb gone.txt"),
        placeholders={"identifier": job.identifier},
        working_directory=str(place.path),
        home=Home.of(str(job.directory)),
        experiments=str(place.experiments_folder),
        owned=lambda path: False,
        give_back=lambda path: None,
        report=problems.append,
    )
    monkeypatch.setattr(copying, "copy_bytes", fail)
    assert copies.before() == []
    assert [problem.kind for problem in problems] == [ProblemKind.DISK_FULL, ProblemKind.NOT_COPIED]
    assert job.stored == {}


@pytest.mark.fault(14)
@both_ways
async def test_a_link_in_the_place_of_a_folder_is_not_followed(
    place: Place, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    place.write("kept.txt", "kept")
    place.write("other/kept.txt", "kept")
    place.write(
        "job.sh",
        f"""\
        ln -s "{outside}" "$HERMES_EXPERIMENT_DIR/sub"; mkdir sub; printf mine > "sub/a_$1"
        ln -s "{outside}" "$HERMES_EXPERIMENT_DIR/d_$1"; mkdir "d_$1"; printf mine > "d_$1/x"
        ln -s "{outside}/new" "$HERMES_EXPERIMENT_DIR/copied.txt"
        ln -s "{outside}" "$HERMES_EXPERIMENT_DIR/other"
        printf x > copied.txt
        """,
    )
    job = await bring(place, "-ca copied.txt, -ca kept.txt, -ca other/kept.txt")
    own = job.identifier
    assert len(job.problems) == 3
    assert place.tree(outside) == {}
    assert (place.path / "sub" / f"a_{own}").read_text() == "mine"
    assert (place.path / f"d_{own}" / "x").read_text() == "mine"
    assert (job.directory / "copied.txt.1").read_text() == "x"
    assert (job.directory / "kept.txt").read_text() == "kept"


@pytest.mark.fault(9)
async def test_across_file_systems_by_options(place: Place, elsewhere: Path) -> None:
    place.write("job.sh", "")
    source = elsewhere / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "x").write_text("x")
    (source / "link").symlink_to("nowhere")
    os.mkfifo(source / "fifo")
    (elsewhere / "file").write_text("file")
    (elsewhere / "kept").write_text("kept")
    job = await bring(place, f"-ma {source}, -ma {elsewhere}/file, -ca {elsewhere}/kept")
    assert len(job.problems) == 1
    assert "FIFO" in job.problems[0]
    assert job.stored == {
        "source": "/", "source/sub": "/", "source/sub/x": "x", "source/link": "-> nowhere",
        "file": "file", "kept": "kept"
    }  # fmt: skip
    assert place.tree(elsewhere) == {"source": "/", "source/fifo": "special", "kept": "kept"}


async def test_copies_and_moves(place: Place) -> None:
    place.write("networks/cnn.py", "cnn")
    place.write("data/sub/x.txt", "x")
    place.write("data/y.txt", "y")
    (place.path / "data" / "link").symlink_to("y.txt")
    place.write("before.txt", "before")
    place.write(
        "job.sh",
        """\
        printf after > before.txt; printf mine > "result_$1.csv"; mkdir out
        printf "$1" > "out/$1"; printf m > moved.txt
        """,
    )
    options = (
        "-ca networks/cnn.py, -ca data/, -cb before.txt, -ca before.txt, -ma out, -ma moved.txt, "
        "-ca result_{identifier}.csv"
    )
    job = await bring(place, f"{options}")
    own = job.identifier
    assert job.problems == []
    stored = job.stored
    assert stored == {
        "cnn.py": "cnn", "data": "/", "data/sub": "/", "data/sub/x.txt": "x", "data/y.txt": "y",
        "data/link": "-> y.txt",
        "before.txt": "before", "before.txt.1": "after", "out": "/", f"out/{own}": own,
        "moved.txt": "m", f"result_{own}.csv": "mine",
    }  # fmt: skip
    assert (place.path / "networks" / "cnn.py").read_text() == "cnn"
    assert (place.path / "data" / "y.txt").read_text() == "y"
    assert not (place.path / "moved.txt").exists()
    assert not (place.path / "out").exists()
    origins = {file.path: file.origin for file in job.brought}
    assert origins["before.txt"] == "copied-before"
    assert origins["before.txt.1"] == "copied-after"
    assert origins["moved.txt"] == "moved"
    assert {file.path: file.bytes for file in job.brought}["data"] == 7


async def test_the_same_base_name_twice_is_stored_under_relative_paths(place: Place) -> None:
    for name in ("a/x.txt", "b/x.txt", "c/y.txt"):
        place.write(name, name)
    place.write("job.sh", "")
    job = await bring(
        place, "-ca a/x.txt, -cb ./b/../b/x.txt, -ca c/y.txt, -ca a/x.txt, -ca ./a/x.txt"
    )
    assert job.problems == []
    assert job.stored == {
        "a": "/", "a/x.txt": "a/x.txt", "b": "/", "b/x.txt": "b/x.txt", "y.txt": "c/y.txt"
    }  # fmt: skip


async def test_wildcards(place: Place) -> None:
    for name in (
        "a/x.txt",
        "a/y.txt",
        "a/.hidden.txt",
        "a/b/z.txt",
        "a/b/v.txt",
        "plain.txt",
        "what?.log",
        "[x].log",
    ):
        place.write(name, name)
    place.write("job.sh", "")
    job = await bring(
        place, "-ca a/*.txt, -ca '[x].log', -ca 'what?.log', -ca '**/z.*', -ca */b/v.txt"
    )
    assert job.problems == []
    assert set(job.stored) == {
        "x.txt",
        "y.txt",
        "[x].log",
        "what?.log",
        "z.txt",
        "v.txt",
    }


@pytest.mark.parametrize("pattern", ["*", "**", "./*", "**/*"])
async def test_wildcards_do_not_reach_into_the_experiments(place: Place, pattern: str) -> None:
    place.write("job.sh", "")
    for job in [await bring(place, f"-ca {pattern}") for _ in range(2)]:
        stored = {Path(path).name for path in job.stored}
        assert "job.sh" in stored
        assert "experiments" not in stored


@pytest.mark.fault(11)
async def test_wildcards_do_not_follow_links(place: Place, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "theirs.txt").write_text("theirs")
    place.write("sub/mine.txt", "mine")
    for name in ("loop", "again", "sub/up"):
        (place.path / name).symlink_to(place.path)
    (place.path / "out").symlink_to(tmp_path / "outside")
    place.write("job.sh", "")
    job = await bring(place, "-ca '**/*.txt'")
    assert job.problems == []
    assert set(job.stored) == {"mine.txt"}


async def test_the_working_directory_itself_can_be_copied(place: Place) -> None:
    place.write("job.sh", "")
    place.write("sub/x", "x")
    job = await bring(place, "-ca .")
    assert job.problems == []
    name = place.path.name
    assert set(job.stored) == {
        name, f"{name}/job.sh", f"{name}/sub", f"{name}/sub/x"
    }  # fmt: skip


@pytest.mark.parametrize("flag", ["-ca", "-ma"])
async def test_what_is_missing_is_reported_and_keeps_nothing_else(place: Place, flag: str) -> None:
    place.write("there.txt", "there")
    place.write("job.sh", "")
    job = await bring(place, f"{flag} gone.txt, {flag} no*thing, -ca there.txt")
    assert job.problems == [
        f"`{flag} gone.txt`: no such file or directory",
        f"`{flag} no*thing`: no such file or directory",
    ]
    assert job.kinds == {ProblemKind.NOT_COPIED}
    assert job.stored == {"there.txt": "there"}


@pytest.mark.fault(11)
async def test_special_files_named_by_options_are_never_opened(place: Place) -> None:
    os.mkfifo(place.path / "fifo")
    (place.path / "folder").mkdir()
    os.mkfifo(place.path / "folder" / "fifo")
    place.write("folder/file", "file")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place.path / "socket"))
        place.write("job.sh", "")
        job = await bring(place, "-ca fifo, -ca socket, -ca /dev/zero, -ca folder")
    assert len(job.problems) == 4
    assert job.stored == {
        "folder": "/",
        "folder/file": "file",
    }
    assert stat.S_ISFIFO((place.path / "fifo").stat().st_mode)


@pytest.mark.fault(11)
async def test_links_named_by_options(place: Place) -> None:
    place.write("target", "target")
    (place.path / "link").symlink_to("target")
    (place.path / "moved").symlink_to("target")
    (place.path / "dangling").symlink_to("nowhere")
    (place.path / "loop").symlink_to("loop")
    place.write("job.sh", "")
    job = await bring(place, "-ca link, -ma moved, -ca dangling, -ca loop")
    assert len(job.problems) == 2
    # To copy a link is to copy what it stands for; to move it is to move the link
    assert job.stored == {
        "link": "target",
        "moved": "-> target",
    }


@pytest.mark.fault(14)
async def test_options_never_write_outside(place: Place, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.txt").write_text("outside")
    (outside / "sub").mkdir()
    (outside / "sub" / "x.txt").write_text("sub")
    (place.path / "way").symlink_to(outside)
    place.write("job.sh", "")
    before = place.tree(place.path.parent)
    paths = [
        "../outside/x.txt",
        "way/sub/x.txt",
        f"{outside}/sub",
        "../outside",
        "/etc/passwd",
        "../place/../place/job.sh",
    ]
    job = await bring(place, f"{', '.join(f'-ca {path}' for path in paths)}")
    assert job.problems == []
    after = place.tree(place.path.parent)
    new = after.keys() - before.keys()
    assert {path for path in new if not path.startswith("place/experiments")} == set()
    stored = job.stored
    assert stored["outside/x.txt"] == "outside"
    assert stored["way/sub/x.txt"] == "sub"
    assert stored["job.sh"] == ""


async def test_what_holds_the_experiments_is_not_moved(place: Place) -> None:
    place.write("job.sh", "")
    job = await bring(place, "-ma experiments, -ma .")
    assert len(job.problems) == 2
    assert job.directory.is_dir()
    assert (place.path / "job.sh").exists()


async def test_a_moved_file_that_is_also_collected_is_there_once(place: Place) -> None:
    place.write("job.sh", 'mkdir sub; printf 1 > "a_$1"; printf 2 > "sub/b_$1"; printf 3 > "c_$1"')
    job = await bring(place, "-ma a_{identifier}, -ma sub/b_{identifier}, -ca c_{identifier}")
    assert job.problems == []
    own = job.identifier
    assert job.stored == {
        f"a_{own}": "1",
        f"b_{own}": "2",
        f"c_{own}": "3",
    }
    assert place.leftovers(own) == []
