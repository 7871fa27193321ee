"""The links in an experiment directory: made, replaced and dropped while a job runs, files of its
own in the end.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hermes.model import Problem, ProblemKind
from hermes.storage.copying import copy, move
from hermes.storage.files import size_of

from .place import Place, both_ways

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("template", ["a_@.txt", "@", "old/@.pt", "new/deep/er/x@y"])
async def test_a_file_appears_while_the_job_runs(place: Place, template: str) -> None:
    (place.path / "old").mkdir()
    async with place.job() as job:
        here, there = job.left(template), job.named(template)
        await job.do(f"os.makedirs({str(here.parent)!r}, exist_ok=True)")
        await job.do(f"file = open({str(here)!r}, 'wb', 0); file.write(b'one')")
        await place.until(there.exists)
        # The very same file, so whatever the job goes on to do with it is there too
        assert here.samefile(there)
        await job.do("file.write(b' two'); file.seek(0); file.write(b'O')")
        assert there.read_bytes() == b"One two"
        await job.do(f"file.close(); open({str(here)!r}, 'ab').write(b' three')")
        assert there.read_bytes() == b"One two three"
        await job.do(f"open({str(here)!r}, 'wb').write(b'again')")
        assert there.read_bytes() == b"again"
        await job.do(f"os.truncate({str(here)!r}, 2)")
        assert here.read_bytes() == there.read_bytes() == b"ag"
    assert job.problems == []
    assert there.read_bytes() == b"ag"
    assert place.leftovers(job.identifier) == []


async def test_a_replaced_file_is_linked_anew(place: Place) -> None:
    async with place.job() as job:
        here, there = job.left("a_@"), job.named("a_@")
        for number in range(5):
            await job.do(
                f"open('temporary', 'w').write('{number}'); "
                f"os.replace('temporary', 'a_' + identifier)"
            )
            await place.until(lambda: there.exists() and here.samefile(there))
            assert there.read_text() == str(number)
    assert job.stored == {there.name: "4"}


async def test_a_deleted_file_goes(place: Place) -> None:
    async with place.job() as job:
        await job.do(
            "os.mkdir('sub'); open('a_' + identifier, 'w'); open('sub/b_' + identifier, 'w')"
        )
        await place.until(lambda: job.named("a_@").exists() and job.named("sub/b_@").exists())
        await job.do("os.unlink('a_' + identifier); os.unlink('sub/b_' + identifier)")
        await place.until(
            lambda: not job.named("a_@").exists() and not job.named("sub/b_@").exists()
        )
        # And may come back
        await job.do("open('a_' + identifier, 'w').write('new')")
        await place.until(job.named("a_@").exists)
    assert job.stored == {job.named("a_@").name: "new"}


async def test_rotating_checkpoints_take_no_more_space_than_the_job_means_them_to(
    place: Place,
) -> None:
    async with place.job() as job:
        for number in range(6):
            await job.do(f"open('step_{number}_' + identifier, 'w').write('x')")
            await place.until(job.named(f"step_{number}_@").exists)
            if number >= 2:
                await job.do(f"os.unlink('step_{number - 2}_' + identifier)")
                await place.until(lambda: len(job.stored) == 2)
    assert job.stored == {job.named(f"step_{number}_@").name: "x" for number in (4, 5)}


async def test_a_renamed_file_is_known_by_its_new_name(place: Place) -> None:
    async with place.job() as job:
        await job.do("open('a_' + identifier, 'w').write('x')")
        await place.until(job.named("a_@").exists)
        await job.do("os.mkdir('sub'); os.rename('a_' + identifier, 'sub/b_' + identifier)")
        await place.until(lambda: job.named("sub/b_@").exists() and not job.named("a_@").exists())
        # Without the identifier it is the job's no more
        await job.do("os.rename('sub/b_' + identifier, 'sub/plain')")
        await place.until(lambda: not job.named("sub/b_@").exists())
        await job.do("open('.part', 'w').write('whole'); os.rename('.part', 'done_' + identifier)")
        await place.until(job.named("done_@").exists)
    assert job.stored == {job.named("done_@").name: "whole"}
    assert (place.path / "sub" / "plain").read_text() == "x"


async def test_a_file_becomes_a_folder_and_a_folder_a_file(place: Place) -> None:
    async with place.job() as job:
        await job.do(
            "open('a_' + identifier, 'w'); os.makedirs(f'b_{identifier}/y'); "
            "open(f'b_{identifier}/x', 'w')"
        )
        await place.until(lambda: job.named("a_@").is_file() and job.named("b_@/x").is_file())
        await job.do(
            "import shutil; shutil.rmtree('b_' + identifier); "
            "open('b_' + identifier, 'w').write('file')"
        )
        await job.do(
            "os.unlink('a_' + identifier); os.mkdir('a_' + identifier); "
            "open(f'a_{identifier}/z', 'w').write('inside')"
        )
        await place.until(lambda: job.named("a_@/z").is_file() and job.named("b_@").is_file())
        await job.do("os.unlink('b_' + identifier); os.symlink('nowhere', 'b_' + identifier)")
        await place.until(job.named("b_@").is_symlink)
    own = job.identifier
    assert job.stored == {f"a_{own}": "/", f"a_{own}/z": "inside", f"b_{own}": "-> nowhere"}
    assert job.problems == []


@pytest.mark.fault(11)
async def test_a_link_is_moved_as_a_link_while_the_job_runs(place: Place) -> None:
    async with place.job() as job:
        await job.do("os.symlink('one', 'a_' + identifier)")
        await place.until(lambda: job.named("a_@").is_symlink())
        await job.do("os.symlink('two', 'new'); os.replace('new', 'a_' + identifier)")
        await place.until(lambda: os.readlink(job.named("a_@")) == "two")
    assert job.stored == {job.named("a_@").name: "-> two"}


async def test_collection_does_not_disturb_the_job(place: Place) -> None:
    place.write(
        "job.py",
        """\
import os, sys, time
name = "a_" + sys.argv[1]
file = open(name, "w+")
while not os.path.exists(os.environ["HERMES_EXPERIMENT_DIR"] + "/" + name):
    time.sleep(0.002)
for number in range(2000):
    file.write("%d\\n" % number)
file.flush()
os.utime(name, (1, 2))
os.chmod(name, 0o640)
assert sum(1 for line in open(name)) == 2000
os.rename(name, name + ".old")
with open(name, "x") as new:
    new.write("new")
os.link(name, name + ".hard")
os.unlink(name + ".hard")
""",
    )
    job = await place.run_script("job.py")
    assert job.problems == []
    old = job.directory / f"a_{job.identifier}.old"
    assert old.read_text() == "".join(f"{number}\n" for number in range(2000))
    assert (old.stat().st_mtime, stat.S_IMODE(old.stat().st_mode)) == (2.0, 0o640)
    assert (job.directory / f"a_{job.identifier}").read_text() == "new"
    assert len(job.files) == 2


async def test_a_folder_keeps_its_time_though_files_were_linked_from_it(place: Place) -> None:
    async with place.job() as job:
        folder = job.named("d_@")
        await job.do(
            "os.mkdir('d_' + identifier); open('d_' + identifier + '/a_' + identifier, 'w'); "
            "open('d_' + identifier + '/b', 'w')"
        )
        await place.until(lambda: folder.is_dir() and len(list(folder.iterdir())) == 2)
        await job.do("os.utime('d_' + identifier, (7, 7))")
    assert folder.stat().st_mtime == 7


@pytest.mark.fault(10)
async def test_long_names_are_replaced_and_kept_apart_too(place: Place) -> None:
    async with place.job() as job:
        fill = "x" * (255 - len(job.identifier))
        here, there = job.left(fill + "@"), job.named(fill + "@")
        for number in range(3):
            await job.do(
                f"open('t', 'w').write('{number}'); os.replace('t', '{fill}' + identifier)"
            )
            await place.until(lambda: there.exists() and here.samefile(there))
        other = "y" * (255 - len(job.identifier))
        await job.do(f"open(folder + '/{other}' + identifier, 'w').write('theirs')")
        await job.do(f"open('{other}' + identifier, 'w').write('mine')")
    assert job.problems == []
    assert there.read_text() == "2"
    assert job.named(other + "@").read_text() == "theirs"
    assert sorted(job.stored.values()) == ["2", "mine", "theirs"]


@both_ways
async def test_what_the_job_wrote_there_itself_is_kept(place: Place) -> None:
    place.write(
        "job.sh",
        """\
        cd "$HERMES_EXPERIMENT_DIR"; printf theirs > "a_$1"; mkdir "b_$1" "d_$1"
        printf theirs > "d_$1/x"; ln -s nowhere "c_$1"
        cd "$OLDPWD"; printf mine > "a_$1"; printf mine > "b_$1"; printf mine > "c_$1"
        mkdir "d_$1"; printf mine > "d_$1/x"
        """,
    )
    job = await place.run_script("job.sh")
    assert job.problems == []
    own = job.identifier
    assert job.stored == {
        f"a_{own}": "theirs", f"a_{own}.1": "mine", f"b_{own}": "/", f"b_{own}.1": "mine",
        f"c_{own}": "-> nowhere", f"c_{own}.1": "mine",
        f"d_{own}": "/", f"d_{own}/x": "theirs", f"d_{own}/x.1": "mine",
    }  # fmt: skip
    assert set(job.files) == {
        f"a_{own}.1",
        f"b_{own}.1",
        f"c_{own}.1",
        f"d_{own}/x.1",
    }
    assert place.leftovers(own) == []


@both_ways
async def test_a_file_in_the_place_of_a_folder(place: Place) -> None:
    place.write(
        "job.sh",
        'printf theirs > "$HERMES_EXPERIMENT_DIR/d_$1"; mkdir "d_$1"; printf mine > "d_$1/x"; '
        ': > "a_$1"',
    )
    job = await place.run_script("job.sh")
    own = job.identifier
    assert job.problems
    assert job.stored == {
        f"d_{own}": "theirs",
        f"a_{own}": "",
    }
    assert (place.path / f"d_{own}" / "x").read_text() == "mine"


async def test_a_copy_that_the_job_has_removed_is_no_reason_to_lose_the_file(
    place: Place,
) -> None:
    async with place.job() as job:
        await job.do(
            "open('a_' + identifier, 'w').write('mine'); open('b_' + identifier, 'w').write('mine')"
        )
        await place.until(lambda: len(job.stored) == 2)
        await job.do("os.unlink(folder + '/a_' + identifier)")
        await job.do(
            "open(folder + '/new', 'w').write('theirs'); "
            "os.replace(folder + '/new', folder + '/b_' + identifier)"
        )
    own = job.identifier
    assert job.problems == []
    assert job.stored == {f"a_{own}": "mine", f"b_{own}": "theirs", f"b_{own}.1": "mine"}
    assert place.leftovers(own) == []


async def test_what_the_job_has_put_in_its_place_outlives_the_file(place: Place) -> None:
    async with place.job() as job:
        await job.do(
            "open('a_' + identifier, 'w').write('mine'); open('b_' + identifier, 'w').write('mine')"
        )
        await place.until(lambda: len(job.stored) == 2)
        for name in "ab":
            await job.do(
                f"open(folder + '/new', 'w').write('theirs'); "
                f"os.replace(folder + '/new', folder + '/{name}_' + identifier)"
            )
        await job.do("os.unlink('a_' + identifier)")
        await job.do("open('new', 'w').write('newer'); os.replace('new', 'b_' + identifier)")
    own = job.identifier
    assert job.stored == {f"a_{own}": "theirs", f"b_{own}": "theirs", f"b_{own}.1": "newer"}


async def test_moving_a_file_over_its_own_copy(place: Place) -> None:
    # To `rename` these are one file already, so it does nothing
    async with place.job() as job:
        await job.do("open('a_' + identifier, 'w').write('mine')")
        await place.until(job.named("a_@").exists)
        await job.do("os.rename('a_' + identifier, folder + '/a_' + identifier)")
        await job.do("open('b_' + identifier, 'w').write('mine')")
        await place.until(job.named("b_@").exists)
        await job.do("os.rename('b_' + identifier, folder + '/final')")
    assert job.stored == {f"a_{job.identifier}": "mine", "final": "mine"}
    assert place.leftovers(job.identifier) == []


@pytest.mark.fault(11)
async def test_a_file_that_was_replaced_by_something_special(place: Place) -> None:
    async with place.job() as job:
        await job.do("open('a_' + identifier, 'w').write('old')")
        await place.until(job.named("a_@").exists)
        await job.do("os.unlink('a_' + identifier); os.mkfifo('a_' + identifier)")
        await place.until(lambda: not job.named("a_@").exists())
    assert job.problems == [f"`a_{job.identifier}` is a FIFO, it was left where it is"]
    assert job.stored == {}


@both_ways
async def test_modes_and_times_come_along(place: Place) -> None:
    place.write(
        "job.py",
        """\
import os, sys
own = sys.argv[1]
os.makedirs("d_" + own + "/private", mode=0o755)
os.chmod("d_" + own + "/private", 0o700)
with open("d_" + own + "/private/secret", "w") as file:
    os.fchmod(file.fileno(), 0o600)
os.utime("d_" + own + "/private/secret", (5, 5))
""",
    )
    job = await place.run_script("job.py")
    assert job.problems == []
    folder = job.directory / f"d_{job.identifier}" / "private"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
    assert (folder / "secret").stat().st_mtime == 5


@pytest.mark.usefixtures("forbidding")
@both_ways
async def test_folders_that_are_read_only(place: Place) -> None:
    place.write("job.sh", 'mkdir -p "d_$1/sub"; : > "d_$1/sub/f"; chmod 555 "d_$1/sub" "d_$1"')
    job = await place.run_script("job.sh")
    assert job.problems == []
    folder = job.directory / f"d_{job.identifier}"
    assert place.leftovers(job.identifier) == []
    assert (folder / "sub" / "f").exists()
    # Nothing there is closed to its owner, who may want to tidy up
    assert (
        stat.S_IMODE(folder.stat().st_mode)
        == stat.S_IMODE((folder / "sub").stat().st_mode)
        == 0o755
    )


@pytest.mark.fault(9)
@both_ways
async def test_across_file_systems_files_are_moved_at_the_end(
    place: Place, elsewhere: Path
) -> None:
    path = "/".join(["z" * 20] * 3)
    place.write(
        "job.sh",
        f"""\
        printf 1 > "a_$1"; mkdir -p "d_$1/sub" plain "d_$1/{path}"; printf 2 > "d_$1/sub/x"
        printf 3 > "plain/b_$1"
        ln -s nowhere "link_$1"; mkfifo "fifo_$1"; touch -d @5 "a_$1"; chmod 640 "a_$1"
        ln "a_$1" "hard_$1"
        printf 4 > "$(printf '%0226d' 0)$1"
        """,
    )
    work = elsewhere / "work"
    shutil.copytree(place.path, work)
    place.working_directory = str(work)
    job = await place.run_script("job.sh")
    own, directory = job.identifier, job.directory
    long = "0" * 226 + own
    folders = ["z" * 20, "/".join(["z" * 20] * 2), path]
    assert job.problems == [f"`fifo_{own}` is a FIFO, it was left where it is"]
    assert job.stored == {
        f"a_{own}": "1", f"d_{own}": "/", f"d_{own}/sub": "/", f"d_{own}/sub/x": "2",
        "plain": "/", f"plain/b_{own}": "3",
        f"link_{own}": "-> nowhere", f"hard_{own}": "1", long: "4",
        **{f"d_{own}/{folder}": "/" for folder in folders},
    }  # fmt: skip
    assert sorted(name for name in place.tree(work)) == sorted(["job.sh", "plain", f"fifo_{own}"])
    assert (directory / f"a_{own}").stat().st_mtime == 5
    assert stat.S_IMODE((directory / f"a_{own}").stat().st_mode) == 0o640


async def test_what_a_file_of_a_flood_costs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linked, it costs two `lstat` and an `unlink` when its job has ended; else a `link` too."""
    files = 100
    async with place.watching():
        job = place.new_job()
        for number in range(files):
            job.left(f"linked{number}_@").touch()
        await place.until(lambda: len(job.stored) == files)
    for number in range(files):
        job.left(f"new{number}_@").touch()
    calls = Counter[str]()

    def count(name: str) -> None:
        real = getattr(os, name)

        def counted(*arguments: object, **options: object) -> object:
            calls[name] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, counted)

    for name in ("lstat", "stat", "link", "unlink", "readlink", "rename", "replace"):
        count(name)
    place.finish(job)
    monkeypatch.undo()
    assert len(job.files) == 2 * files
    # And a few for folders; one `stat` for the experiment directory
    assert calls["lstat"] <= 4 * files + 10
    assert calls["stat"] == 1
    assert (calls["link"], calls["unlink"], calls.total()) == (
        files,
        2 * files,
        calls["lstat"] + 3 * files + 1,
    )


@pytest.fixture
def very_deep(elsewhere: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder with more levels than Python allows calls within calls, on another file system than
    `tmp_path`.
    """
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
def test_very_deep_folders(very_deep: Path, place: Place) -> None:
    problems: list[Problem] = []
    kind = ProblemKind.NOT_COPIED
    bottom = "d/" * 1099 + "bottom"
    copied = place.path.parent / "copied"
    copy(str(very_deep), str(copied), problems.append, kind=kind)
    assert (copied / bottom).exists()
    job = place.new_job()
    move(str(very_deep), str(job.left("@")), problems.append, kind=kind)
    assert job.left(f"@/{bottom}").exists()
    assert not very_deep.exists()
    place.finish(job)
    assert job.files == {f"{job.identifier}/{bottom}": 0}
    assert job.named(f"@/{bottom}").exists()
    assert size_of(str(job.directory)) == 0
    assert problems == []
