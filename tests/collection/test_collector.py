"""Everything that carries a live identifier comes into its job's directory, whole, and nothing
remains.
"""

from __future__ import annotations

import errno
import os
import random
import stat
from pathlib import Path
from typing import NoReturn

import pytest
from anyio import to_thread
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hermes.model import ProblemKind

from ..support import RecordProperty, times
from .place import FakeJob, Place, both_ways

pytestmark = pytest.mark.anyio

ODD = (
    b"new\nline", b" ", b"-rf", b"--", b"\x1b[31mred\x1b[0m", b"[bold]",
    "\N{ROCKET}\N{COMBINING ACUTE ACCENT}".encode(), b"\xff\xfe",
    b"\xc3(",
    b"*", b"?", b"'\"`$(x)", b"\\", b"\r", b"\t", b"\x7f", b"\x01", b"~", b".", b"..", b"%%",
    b"{identifier}", b"#", b"\xe2\x80\xae",
)  # fmt: skip
"""Parts of names that break programs that do not take names as bytes."""

MAKE = """\
import os, sys
own = os.fsencode(sys.argv[1])
for line in open("names"):
    before, after, kind = (bytes.fromhex(part) for part in line.rstrip("\\n").split(" "))
    name = before + own + after
    if kind == b"file":
        open(name, "wb").write(name)
    elif kind == b"link":
        os.symlink(name[:200], name)
    else:
        os.mkdir(name)
        open(name + b"/" + before + b"x" + after, "wb").write(name)
"""


def _name(data: bytes) -> bytes:
    return data.translate(None, b"\0/")


LONGEST = 255 - len("2021_07_25_160008326976_1930e")
PIECES = st.one_of(
    st.binary(max_size=30).map(_name),
    st.sampled_from(ODD),
    st.text(max_size=10).map(lambda text: _name(text.encode("utf-8", "surrogatepass"))),
)
LONG_PIECES = st.builds(
    lambda piece, fill: piece + fill * (LONGEST - len(piece)),
    PIECES,
    st.sampled_from([b"x", b"\xff", b" "]),
)
NAMES = st.builds(
    lambda before, after, kind: (before[: LONGEST - len(after)], after, kind),
    st.one_of(PIECES, LONG_PIECES), PIECES, st.sampled_from([b"file", b"link", b"folder"]),
)  # fmt: skip
"""What stands before and after the identifier, and what it is."""


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []


@pytest.mark.fault(11, 12)
@both_ways
async def test_everything_comes_and_nothing_remains(place: Place) -> None:
    place.write(
        "job.sh",
        """\
        printf 1 > "$1"; printf 2 > "a_$1.txt"; printf 3 > ".$1"
        mkdir -p plain/sub "whole_$1/sub/empty" "plain/d_$1"
        printf 4 > "plain/sub/b_$1"; printf 5 > "whole_$1/inside"
        printf 6 > "whole_$1/sub/c_$1"; printf 7 > "plain/d_$1/x"
        printf 8 > plain/theirs; printf 9 > other
        mkdir .built; printf 10 > .built/x; mkdir .built/deep; printf 11 > .built/deep/y
        mv .built "moved_$1"
        ln "a_$1.txt" "hard_$1"; ln other "hard_other_$1"
        ln -s /etc "link_$1"; ln -s "link_$1" "loop_$1"; ln -s . "whole_$1/loop"
        ln -s nowhere "plain/dangling_$1"
        """,
    )
    job = await place.run_script("job.sh")
    assert job.problems == []
    own = job.identifier
    expected = {
        own: "1", f"a_{own}.txt": "2", f".{own}": "3",
        "plain": "/", "plain/sub": "/", f"plain/sub/b_{own}": "4",
        f"whole_{own}": "/", f"whole_{own}/sub": "/", f"whole_{own}/sub/empty": "/",
        f"whole_{own}/inside": "5",
        f"whole_{own}/sub/c_{own}": "6", f"plain/d_{own}": "/", f"plain/d_{own}/x": "7",
        f"moved_{own}": "/", f"moved_{own}/x": "10", f"moved_{own}/deep": "/",
        f"moved_{own}/deep/y": "11",
        f"hard_{own}": "2", f"hard_other_{own}": "9",
        f"link_{own}": "-> /etc", f"loop_{own}": f"-> link_{own}", f"whole_{own}/loop": "-> .",
        f"plain/dangling_{own}": "-> nowhere",
    }  # fmt: skip
    assert job.stored == expected
    assert place.leftovers(own) == []
    theirs = place.tree(place.path)
    assert {name for name in theirs if not name.startswith("experiments")} == {
        "job.sh", "plain", "plain/sub", "plain/theirs", "other"
    }  # fmt: skip
    assert os.path.samefile(job.directory / f"a_{own}.txt", job.directory / f"hard_{own}")
    assert job.files == {
        path: len(content) - 3 * content.startswith("-> ")
        for path, content in expected.items()
        if content != "/"
    }


@pytest.mark.once
@pytest.mark.fault(12)
@both_ways
async def test_a_deep_folder(place: Place) -> None:
    levels = 500
    place.write(
        "job.py",
        f"""\
import os, sys
os.mkdir("d_" + sys.argv[1]); os.chdir("d_" + sys.argv[1])
for level in range({levels}):
    os.mkdir("d"); os.chdir("d")
open("bottom", "w").write("x")
""",
    )
    job = await place.run_script("job.py")
    assert job.problems == []
    assert (job.directory / f"d_{job.identifier}" / ("d/" * levels) / "bottom").read_text() == "x"
    assert place.leftovers(job.identifier) == []


@pytest.mark.fault(12)
@both_ways
async def test_what_is_too_deep_for_a_path_is_left_and_reported(place: Place) -> None:
    place.write(
        "job.py",
        """\
import os, sys
open("a_" + sys.argv[1], "w")
os.mkdir("d_" + sys.argv[1]); os.chdir("d_" + sys.argv[1])
open("near", "w").write("near")
for level in range(40):
    os.mkdir("d" * 200); os.chdir("d" * 200)
open("bottom", "w").write("x")
open("b_" + sys.argv[1], "w").write("x")
""",
    )
    place.write("next.sh", ': > "a_$1"')
    first = await place.run_script("job.py")
    second = await place.run_script("next.sh")
    assert second.problems == []
    assert any("too long" in problem for problem in first.problems)
    assert first.kinds == {ProblemKind.NOT_COLLECTED}
    stored = first.directory
    assert (stored / f"a_{first.identifier}").exists()
    assert (stored / f"d_{first.identifier}" / "near").read_text() == "near"
    # What could not come is where it was
    folder = os.open(place.path / f"d_{first.identifier}", os.O_RDONLY)
    for _ in range(40):
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    assert set(os.listdir(folder)) == {"bottom", f"b_{first.identifier}"}
    os.close(folder)


@pytest.mark.fault(11)
@both_ways
async def test_special_files_are_left_and_reported(place: Place) -> None:
    place.write(
        "job.py",
        """\
import os, socket, sys
own = sys.argv[1]
os.mkfifo("fifo_" + own)
os.mkdir("d_" + own)
os.mkfifo("d_" + own + "/fifo")
open("d_" + own + "/file", "w")
socket.socket(socket.AF_UNIX).bind("socket_" + own)
""",
    )
    job = await place.run_script("job.py")
    own = job.identifier
    assert set(job.problems) == {
        f"`fifo_{own}` is a FIFO, it was left where it is",
        f"`d_{own}/fifo` is a FIFO, it was left where it is",
        f"`socket_{own}` is a socket, it was left where it is",
    }
    assert job.kinds == {ProblemKind.LEFT_IN_PLACE}
    assert place.leftovers(own) == sorted([f"fifo_{own}", f"d_{own}", f"socket_{own}"])
    assert stat.S_ISFIFO((place.path / f"d_{own}" / "fifo").stat().st_mode)
    assert job.stored == {
        f"d_{own}": "/",
        f"d_{own}/file": "",
    }


async def test_identifiers_of_jobs_that_do_not_run_mean_nothing(place: Place) -> None:
    place.write("job.sh", ': > "a_$1"')
    job = await place.run_script("job.sh")
    old = job.identifier
    kept = place.write(f"kept_{old}", "kept")
    place.write("next.sh", f': > "both_{old}_$1"; mkdir "d_{old}"; : > "d_{old}/a_$1"')
    new = await place.run_script("next.sh")
    assert new.problems == []
    assert kept.read_text() == "kept"
    assert new.stored == {
        f"both_{old}_{new.identifier}": "", f"d_{old}": "/", f"d_{old}/a_{new.identifier}": ""
    }  # fmt: skip


@pytest.mark.fault(13)
@both_ways
async def test_a_name_with_two_live_identifiers_is_left_and_reported(place: Place) -> None:
    async with place.jobs(3) as (one, two, other):
        await one.do(
            f"""
both = identifier + '_{two.identifier}'
open('file_' + both, 'w').write('x')
os.mkdir('dir_' + both)
open('dir_' + both + '/inside', 'w').write('x')
os.mkdir('own_' + identifier)
open('own_' + identifier + '/file_' + both, 'w').write('x')
open('own_' + identifier + '/of_{two.identifier}', 'w').write('theirs')
open('own_' + identifier + '/mine', 'w').write('mine')
"""
        )
        # Who ends first must not get it, and neither must who ends last
        await to_thread.run_sync(place.finish, one)
        await other.do("pass")
    both = f"{one.identifier}_{two.identifier}"
    left = [f"file_{both}", f"dir_{both}", f"own_{one.identifier}/file_{both}"]
    for job in (one, two):
        assert sorted(job.problems) == sorted(
            f"`{path}` carries two live identifiers, it was left where it is" for path in left
        )
    assert other.problems == []
    assert one.stored == {f"own_{one.identifier}": "/", f"own_{one.identifier}/mine": "mine"}
    assert two.stored == {
        f"own_{one.identifier}": "/",
        f"own_{one.identifier}/of_{two.identifier}": "theirs",
    }
    assert place.tree(place.path / f"dir_{both}") == {"inside": "x"}
    assert (place.path / f"file_{both}").read_text() == "x"
    assert (place.path / f"own_{one.identifier}" / f"file_{both}").read_text() == "x"


@pytest.mark.fault(13)
async def test_two_live_identifiers_in_many_names(
    place: Place, record_property: RecordProperty
) -> None:
    generator = random.Random(1)
    tried = times(300, 1000)
    record_property("tried", tried)
    async with place.jobs(3) as jobs:
        names = []
        for number in range(tried):
            first, second = generator.sample(jobs, 2)
            glue = generator.choice(["", "_", "-", " and ", "0", "f", "\n"])
            start = generator.choice(["", "9", "a_"])
            names.append(f"{start}{first.identifier}{glue}{second.identifier}{number}")
        await jobs[0].do(f"for name in {names!r}: open(name, 'w')")
    for job in jobs:
        carried = {name for name in names if job.identifier in name}
        assert set(job.problems) == {
            f"`{name}` carries two live identifiers, it was left where it is" for name in carried
        }
        assert len(job.problems) == len(carried)
        assert job.stored == {}
    assert all((place.path / name).exists() for name in names)


@pytest.mark.fault(10)
@settings(
    max_examples=times(4, 10),
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(names=st.lists(NAMES, min_size=60, max_size=150), watched=st.booleans())
async def test_names_are_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    record_property: RecordProperty,
    names: list[tuple[bytes, bytes, bytes]],
    watched: bool,
) -> None:
    place = Place(tmp_path_factory.mktemp("names").resolve(), watched=watched)
    names += (
        [(part, b"", b"file") for part in ODD]
        + [(b"", part, b"folder") for part in ODD]
        + [(b"\xff" * LONGEST, b"", b"file")]
    )
    names = list({(before, after): (before, after, kind) for before, after, kind in names}.values())
    record_property("tried", len(names))
    place.write(
        "names",
        "".join(f"{before.hex()} {after.hex()} {kind.hex()}\n" for before, after, kind in names),
    )
    place.write("make.py", MAKE)
    job = await place.run_script("make.py")
    assert job.problems == []
    own, directory = os.fsencode(job.identifier), os.fsencode(job.directory)
    found = {name for name in os.listdir(directory) if own in name}
    assert found == {before + own + after for before, after, _ in names}
    for before, after, kind in names:
        name = before + own + after
        path = directory + b"/" + name
        if kind == b"link":
            assert os.readlink(path) == name[:200]
            continue
        if kind == b"folder":
            assert os.listdir(path) == [before + b"x" + after]
            path += b"/" + before + b"x" + after
        assert Path(os.fsdecode(path)).read_bytes() == name
    assert {path.name for path in place.path.iterdir()} == {"experiments", "names", "make.py"}
    # And they are known by these names
    assert {os.fsencode(path).split(b"/")[0] for path in job.files} == found


@pytest.mark.parametrize("watched", [False], indirect=True)
async def test_a_file_of_a_running_job_in_a_folder_of_another(place: Place) -> None:
    async with place.jobs(4) as (one, two, third, fourth):
        await one.do("os.mkdir('d_' + identifier)")
        # End before and after something of the other is in the folder
        place.finish(third)
        await two.do(f"open('d_{one.identifier}/a_' + identifier, 'w').write('two')")
        place.finish(fourth)
        place.finish(two)
        assert two.named(f"d_{one.identifier}/a_@").read_text() == "two"
    assert one.stored == {f"d_{one.identifier}": "/"}
    assert place.leftovers(one.identifier) == []


@pytest.mark.parametrize("watched", [False], indirect=True)
async def test_an_ended_job_leaves_what_a_running_one_has_in_its_folder(place: Place) -> None:
    async with place.jobs(2) as (one, two):
        await one.do("os.mkdir('d_' + identifier); open('d_' + identifier + '/x', 'w')")
        await two.do(f"open('d_{one.identifier}/a_' + identifier, 'w').write('two')")
        place.finish(one)
        assert two.left(f"d_{one.identifier}/a_@").read_text() == "two"
    # The folder goes with the last
    assert place.leftovers(one.identifier) == []
    assert one.stored == {f"d_{one.identifier}": "/", f"d_{one.identifier}/x": ""}
    assert two.files == {f"d_{one.identifier}/a_{two.identifier}": 3}


def test_an_adopted_job_has_older_files(place: Place) -> None:
    place.options["clock_grain"] = 0.0
    (place.path / "sub").mkdir()
    first, second = place.new_job(), FakeJob(place, "2021_07_25_160008326976_1930e")
    second.left("sub/a_@").write_text("a")
    # What an earlier runner has linked, what the job itself has put there, and what it deletes
    # after it was adopted
    for name in ("b_@", "d_@"):
        second.left(name).write_text("linked")
        second.named(name).hardlink_to(second.left(name))
    second.named("c_@").write_text("own")
    place.finish(first)
    place.collector.add(second.identifier, str(second.directory), adopted=True)
    second.left("d_@").unlink()
    place.finish(second)
    own = second.identifier
    assert second.files == {f"b_{own}": 6, f"sub/a_{own}": 1}
    assert second.named("c_@").read_text() == "own"
    assert names_in(second.directory) == [f"b_{own}", f"c_{own}", "sub"]
    assert place.leftovers(own) == []


@pytest.mark.once
async def test_many_files_at_once(place: Place) -> None:
    async with place.job() as job:
        await job.do("for i in range(3000): open(f'a{i}_' + identifier, 'w').close()")
        await job.do("for i in range(0, 3000, 2): os.unlink(f'a{i}_' + identifier)")
    assert len(job.stored) == 1500
    assert place.leftovers(job.identifier) == []


@both_ways
async def test_collected_files_are_announced_once_under_the_names_they_have(place: Place) -> None:
    async with place.job() as job:
        await job.do("open(folder + '/a_' + identifier, 'w').write('x'); os.mkdir('sub')")
        await job.do("open('a_' + identifier, 'w').write('y'); open('b_' + identifier, 'w')")
        await job.do("open('sub/c_' + identifier, 'w')")
        if place.watched:
            await place.until(lambda: len(place.announced) == 3)
        await job.do("open('late_' + identifier, 'w')")
    own = job.identifier
    told = [*place.announced, *((own, path) for path in job.collected.fresh)]
    names = [f"a_{own}.1", f"b_{own}", f"late_{own}", f"sub/c_{own}"]
    assert sorted(told) == [(own, name) for name in names]
    assert place.warnings == []


@pytest.mark.parametrize("watched", [False], indirect=True)
def test_jobs_that_end_together_share_a_scan(place: Place) -> None:
    one, two, other = place.new_job(), place.new_job(), place.new_job()
    for job in (one, two, other):
        job.left("a_@").write_text("x")
    place.finish(one, two)
    assert (one.files, two.files) == ({f"a_{one.identifier}": 1}, {f"a_{two.identifier}": 1})
    assert other.left("a_@").exists()
    assert place.collector.scan_took > 0
    place.finish(other)
    assert place.leftovers("1930e") == []


async def test_what_an_option_moves_is_given_back(place: Place) -> None:
    async with place.job() as job:
        await job.do("os.makedirs('out/sub'); open('out/sub/a_' + identifier, 'w').write('x')")
        await place.until(job.named("out/sub/a_@").exists)
        assert place.collector.owned(job.identifier, f"out/sub/a_{job.identifier}")
        assert not place.collector.owned(job.identifier, "out")
        place.collector.give_back(job.identifier, "out")
        assert job.stored == {}
        (place.path / "out").rename(job.directory / "moved")
    assert job.stored == {
        "moved": "/", "moved/sub": "/", f"moved/sub/a_{job.identifier}": "x"
    }  # fmt: skip
    assert job.files == {}


@pytest.mark.parametrize("watched", [False], indirect=True)
def test_what_was_given_back_and_not_moved_is_collected_after_all(place: Place) -> None:
    job = place.new_job()
    job.left("a_@").write_text("x")
    place.collector.give_back(job.identifier, f"a_{job.identifier}")
    place.finish(job)
    assert job.stored == {f"a_{job.identifier}": "x"}


@pytest.mark.parametrize("watched", [False], indirect=True)
def test_a_full_disk_is_reported_as_such(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*arguments: object, **options: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    job = place.new_job()
    job.left("a_@").write_text("x")
    monkeypatch.setattr(os, "link", link)
    place.finish(job)
    assert job.kinds == {ProblemKind.DISK_FULL}
    assert job.left("a_@").exists()
