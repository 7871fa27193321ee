"""Collection, copies and moves: what a job makes gets into its experiment directory, whole, at once, and nothing else does."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hermes
from hermes import FileCollected, RunWarning, Status
from hermes.collection import collector as collect
from hermes.collection import notify
from hermes.collection.collector import Collector, collected
from hermes.collection.notify import Watcher
from hermes.experiments.files import copy, move, size_of

from .project import Project
from .support import RecordProperty, times

pytestmark = pytest.mark.anyio

T = TypeVar("T", bound=Callable[..., object])


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """No notification ever comes: the final look alone has to do."""

    def watch(self: Collector) -> None:
        self._stop.wait()

    monkeypatch.setattr(Collector, "watch", watch)


@pytest.fixture
def notified(request: pytest.FixtureRequest) -> None:
    if request.param == "final-look":
        request.getfixturevalue("blind")


WAYS = [("asyncio", "watched"), ("trio", "watched"), ("asyncio", "final-look")]


def both_ways(test: T) -> T:
    """Runs a test with notifications and without: in the end they make no difference."""
    both: T = pytest.mark.parametrize(("anyio_backend", "notified"), WAYS, indirect=True)(
        pytest.mark.usefixtures("notified")(test)
    )
    return both


WATCHERS = [*([notify.Inotify] if sys.platform == "linux" else []), notify.Watchfiles]
"""The second serves where the first does not exist, and works on Linux too."""


# While the job runs


@pytest.mark.parametrize("template", ["a_@.txt", "@", "old/@.pt", "new/deep/er/x@y"])
async def test_a_file_appears_while_the_job_runs(project: Project, template: str) -> None:
    (project.path / "old").mkdir()
    async with project.puppet() as job:
        here, there = job.left(template), job.named(template)
        await job.do(f"os.makedirs({str(here.parent)!r}, exist_ok=True)")
        await job.do(f"file = open({str(here)!r}, 'wb', 0); file.write(b'one')")
        await project.until(there.exists)
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
    assert job.outcome.ok
    assert there.read_bytes() == b"ag"
    assert project.leftovers(job.identifier) == []


@pytest.mark.parametrize("watcher", WATCHERS)
async def test_a_replaced_file_is_linked_anew(
    project: Project, monkeypatch: pytest.MonkeyPatch, watcher: Callable[[Iterable[str]], Watcher]
) -> None:
    monkeypatch.setattr(notify, "watcher", watcher)
    async with project.puppet() as job:
        here, there = job.left("a_@"), job.named("a_@")
        for number in range(5):
            await job.do(
                f"open('temporary', 'w').write('{number}'); os.replace('temporary', 'a_' + identifier)"
            )
            await project.until(lambda: there.exists() and here.samefile(there))
            assert there.read_text() == str(number)
    assert job.stored == {there.name: "4"}


@pytest.mark.parametrize("watcher", WATCHERS)
async def test_a_deleted_file_goes(
    project: Project, monkeypatch: pytest.MonkeyPatch, watcher: Callable[[Iterable[str]], Watcher]
) -> None:
    monkeypatch.setattr(notify, "watcher", watcher)
    async with project.puppet() as job:
        await job.do(
            "os.mkdir('sub'); open('a_' + identifier, 'w'); open('sub/b_' + identifier, 'w')"
        )
        await project.until(lambda: job.named("a_@").exists() and job.named("sub/b_@").exists())
        await job.do("os.unlink('a_' + identifier); os.unlink('sub/b_' + identifier)")
        await project.until(
            lambda: not job.named("a_@").exists() and not job.named("sub/b_@").exists()
        )
        # And may come back
        await job.do("open('a_' + identifier, 'w').write('new')")
        await project.until(job.named("a_@").exists)
    assert job.stored == {job.named("a_@").name: "new"}


async def test_rotating_checkpoints_take_no_more_space_than_the_job_means_them_to(
    project: Project,
) -> None:
    async with project.puppet() as job:
        for number in range(6):
            await job.do(f"open('step_{number}_' + identifier, 'w').write('x')")
            await project.until(job.named(f"step_{number}_@").exists)
            if number >= 2:
                await job.do(f"os.unlink('step_{number - 2}_' + identifier)")
                await project.until(lambda: len(job.stored) == 2)
    assert job.stored == {job.named(f"step_{number}_@").name: "x" for number in (4, 5)}


async def test_a_renamed_file_is_known_by_its_new_name(project: Project) -> None:
    async with project.puppet() as job:
        await job.do("open('a_' + identifier, 'w').write('x')")
        await project.until(job.named("a_@").exists)
        await job.do("os.mkdir('sub'); os.rename('a_' + identifier, 'sub/b_' + identifier)")
        await project.until(lambda: job.named("sub/b_@").exists() and not job.named("a_@").exists())
        # Without the identifier it is the job's no more
        await job.do("os.rename('sub/b_' + identifier, 'sub/plain')")
        await project.until(lambda: not job.named("sub/b_@").exists())
        await job.do("open('.part', 'w').write('whole'); os.rename('.part', 'done_' + identifier)")
        await project.until(job.named("done_@").exists)
    assert job.stored == {job.named("done_@").name: "whole"}
    assert (project.path / "sub" / "plain").read_text() == "x"


@pytest.mark.fault(12)
async def test_a_renamed_folder_is_known_by_its_new_name(project: Project) -> None:
    async with project.puppet() as job:
        await job.do("os.makedirs('old/x'); open('old/x/a_' + identifier, 'w').write('1')")
        await job.do("os.mkdir('d_' + identifier); open('d_' + identifier + '/f', 'w').write('2')")
        await project.until(lambda: job.named("old/x/a_@").exists() and job.named("d_@/f").exists())
        await job.do("os.rename('old', 'new'); os.rename('d_' + identifier, 'e_' + identifier)")
        await project.until(lambda: job.named("new/x/a_@").exists() and job.named("e_@/f").exists())
        await project.until(
            lambda: not job.named("old/x/a_@").exists() and not job.named("d_@").exists()
        )
        await job.do("open('new/x/b_' + identifier, 'w'); open('e_' + identifier + '/g', 'w')")
        await project.until(lambda: job.named("new/x/b_@").exists() and job.named("e_@/g").exists())
    own = job.identifier
    assert job.stored == {
        "new": "/", "new/x": "/", f"new/x/a_{own}": "1", f"new/x/b_{own}": "", f"e_{own}": "/", f"e_{own}/f": "2", f"e_{own}/g": ""
    }  # fmt: skip


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []


async def test_a_folder_that_is_made_again(project: Project) -> None:
    async with project.puppet() as job:

        async def make_again(number: str) -> None:
            await job.do(
                "import shutil; shutil.rmtree('out', True); os.mkdir('out'); shutil.rmtree('d_' + identifier, True)"
            )
            await job.do(f"open('out/{number}_' + identifier, 'w')")
            await project.until(
                lambda: names_in(job.directory / "out") == [f"{number}_{job.identifier}"]
            )
            await job.do(
                f"os.makedirs('d_' + identifier + '/{number}'); open('d_' + identifier + '/{number}/f', 'w')"
            )
            await project.until(
                lambda: (
                    names_in(job.named("d_@")) == [number] and job.named(f"d_@/{number}/f").exists()
                )
            )

        for number in "0123":
            await make_again(number)
    own = job.identifier
    assert job.stored == {
        "out": "/",
        f"out/3_{own}": "",
        f"d_{own}": "/",
        f"d_{own}/3": "/",
        f"d_{own}/3/f": "",
    }


@pytest.mark.fault(12)
async def test_many_new_folders_with_files_made_right_after(project: Project) -> None:
    async with project.puppet() as job:
        await job.do(
            """
for i in range(40):
    os.makedirs(f'plain{i}/sub')
    open(f'plain{i}/sub/f_{identifier}', 'w')
    os.makedirs(f'd_{identifier}/{i}/sub')
    open(f'd_{identifier}/{i}/sub/f', 'w')
"""
        )
        await project.until(lambda: len(list(job.directory.glob("plain*/sub/f_*"))) == 40)
        await project.until(lambda: len(list(job.directory.glob("d_*/*/sub/f"))) == 40)
    assert project.leftovers(job.identifier) == []


async def test_new_folders_in_folders_of_the_job_that_are_old(
    project: Project, anyio_backend: str
) -> None:
    if anyio_backend == "trio":
        pytest.skip("it takes seconds and does not depend on the loop")
    async with project.puppet() as job:
        await job.do("os.mkdir('d_' + identifier); os.mkdir('plain')")
        # Nothing in what is above is new any more then
        await project.until(
            lambda: (
                time.time()
                - max(os.stat(job.left(name)).st_ctime for name in (".", "d_@", "plain"))
                > 2.2
            )
        )
        await job.do(
            """
import time
for i in range(40):
    for top in 'd_' + identifier, 'plain':
        os.mkdir(f'{top}/{i}')
        for j in range(4):
            open(f'{top}/{i}/{j}_{identifier}', 'w')
            time.sleep(0.0005)
"""
        )
        await project.until(lambda: len(list(job.directory.glob("*/*/?_*"))) == 320)


async def test_a_file_becomes_a_folder_and_a_folder_a_file(project: Project) -> None:
    async with project.puppet() as job:
        await job.do(
            "open('a_' + identifier, 'w'); os.makedirs(f'b_{identifier}/y'); open(f'b_{identifier}/x', 'w')"
        )
        await project.until(lambda: job.named("a_@").is_file() and job.named("b_@/x").is_file())
        await job.do(
            "import shutil; shutil.rmtree('b_' + identifier); open('b_' + identifier, 'w').write('file')"
        )
        await job.do(
            "os.unlink('a_' + identifier); os.mkdir('a_' + identifier); open(f'a_{identifier}/z', 'w').write('inside')"
        )
        await project.until(lambda: job.named("a_@/z").is_file() and job.named("b_@").is_file())
        await job.do("os.unlink('b_' + identifier); os.symlink('nowhere', 'b_' + identifier)")
        await project.until(job.named("b_@").is_symlink)
    own = job.identifier
    assert job.stored == {f"a_{own}": "/", f"a_{own}/z": "inside", f"b_{own}": "-> nowhere"}
    assert job.outcome.ok


@pytest.mark.fault(11)
async def test_a_link_is_moved_as_a_link_while_the_job_runs(project: Project) -> None:
    async with project.puppet() as job:
        await job.do("os.symlink('one', 'a_' + identifier)")
        await project.until(lambda: job.named("a_@").is_symlink())
        await job.do("os.symlink('two', 'new'); os.replace('new', 'a_' + identifier)")
        await project.until(lambda: os.readlink(job.named("a_@")) == "two")
    assert job.stored == {job.named("a_@").name: "-> two"}


async def test_collection_does_not_disturb_the_job(project: Project) -> None:
    project.write(
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
    assert (await project.run(f"[[{project.PYTHON}, job.py]]")).ok
    experiment = project.experiment()
    old = experiment.directory / f"a_{experiment.identifier}.old"
    assert old.read_text() == "".join(f"{number}\n" for number in range(2000))
    assert (old.stat().st_mtime, stat.S_IMODE(old.stat().st_mode)) == (2.0, 0o640)
    assert (experiment.directory / f"a_{experiment.identifier}").read_text() == "new"
    assert len(experiment.files) == 2


# What is there when it has ended


@pytest.mark.fault(11, 12)
@both_ways
async def test_everything_comes_and_nothing_remains(project: Project) -> None:
    project.write(
        "job.sh",
        """\
        printf 1 > "$1"; printf 2 > "a_$1.txt"; printf 3 > ".$1"
        mkdir -p plain/sub "whole_$1/sub/empty" "plain/d_$1"
        printf 4 > "plain/sub/b_$1"; printf 5 > "whole_$1/inside"; printf 6 > "whole_$1/sub/c_$1"; printf 7 > "plain/d_$1/x"
        printf 8 > plain/theirs; printf 9 > other
        mkdir .built; printf 10 > .built/x; mkdir .built/deep; printf 11 > .built/deep/y; mv .built "moved_$1"
        ln "a_$1.txt" "hard_$1"; ln other "hard_other_$1"
        ln -s /etc "link_$1"; ln -s "link_$1" "loop_$1"; ln -s . "whole_$1/loop"; ln -s nowhere "plain/dangling_$1"
        """,
    )
    result = await project.run("[[sh, job.sh]]")
    assert result.ok
    experiment = project.experiment()
    own = experiment.identifier
    expected = {
        own: "1", f"a_{own}.txt": "2", f".{own}": "3",
        "plain": "/", "plain/sub": "/", f"plain/sub/b_{own}": "4",
        f"whole_{own}": "/", f"whole_{own}/sub": "/", f"whole_{own}/sub/empty": "/", f"whole_{own}/inside": "5",
        f"whole_{own}/sub/c_{own}": "6", f"plain/d_{own}": "/", f"plain/d_{own}/x": "7",
        f"moved_{own}": "/", f"moved_{own}/x": "10", f"moved_{own}/deep": "/", f"moved_{own}/deep/y": "11",
        f"hard_{own}": "2", f"hard_other_{own}": "9",
        f"link_{own}": "-> /etc", f"loop_{own}": f"-> link_{own}", f"whole_{own}/loop": "-> .", f"plain/dangling_{own}": "-> nowhere",
    }  # fmt: skip
    assert project.tree(experiment.directory, own=True) == expected
    assert project.leftovers(own) == []
    theirs = project.tree(project.path)
    assert {name for name in theirs if not name.startswith("experiments")} == {
        "x.hermes", "job.sh", "plain", "plain/sub", "plain/theirs", "other"
    }  # fmt: skip
    assert os.path.samefile(
        experiment.directory / f"a_{own}.txt", experiment.directory / f"hard_{own}"
    )
    files = {file.path: file.bytes for file in experiment.files}
    assert files == {
        path: len(content) - 3 * content.startswith("-> ")
        for path, content in expected.items()
        if content != "/"
    }
    assert {file.origin for file in experiment.files} == {"collected"}


@pytest.mark.fault(12)
@both_ways
async def test_a_deep_folder(project: Project) -> None:
    levels = 500
    project.write(
        "job.py",
        f"""\
import os, sys
os.mkdir("d_" + sys.argv[1]); os.chdir("d_" + sys.argv[1])
for level in range({levels}):
    os.mkdir("d"); os.chdir("d")
open("bottom", "w").write("x")
""",
    )
    assert (await project.run(f"[[{project.PYTHON}, job.py]]")).ok
    experiment = project.experiment()
    assert (
        experiment.directory / f"d_{experiment.identifier}" / ("d/" * levels) / "bottom"
    ).read_text() == "x"
    assert project.leftovers(experiment.identifier) == []


@pytest.mark.fault(12)
@both_ways
async def test_what_is_too_deep_for_a_path_is_left_and_reported(project: Project) -> None:
    project.write(
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
    project.write("next.sh", ': > "a_$1"')
    result = await project.run(f"[[{project.PYTHON}, job.py]]", "[[sh, next.sh]]")
    first, second = sorted(result.outcomes, key=lambda outcome: outcome.line)
    assert second.ok
    assert first.status is Status.FINISHED
    assert any("too long" in problem for problem in first.problems)
    assert first.directory is not None
    stored = Path(first.directory)
    assert (stored / f"a_{first.identifier}").exists()
    assert (stored / f"d_{first.identifier}" / "near").read_text() == "near"
    # What could not come is where it was
    folder = os.open(project.path / f"d_{first.identifier}", os.O_RDONLY)
    for _ in range(40):
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    assert set(os.listdir(folder)) == {"bottom", f"b_{first.identifier}"}
    os.close(folder)


@pytest.mark.fault(11)
@both_ways
async def test_special_files_are_left_and_reported(project: Project) -> None:
    project.write(
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
    result = await project.run(f"[[{project.PYTHON}, job.py]]")
    (outcome,) = result.outcomes
    own = outcome.identifier
    assert outcome.status is Status.FINISHED
    assert set(outcome.problems) == {
        f"`fifo_{own}` is a FIFO, it was left where it is",
        f"`d_{own}/fifo` is a FIFO, it was left where it is",
        f"`socket_{own}` is a socket, it was left where it is",
    }
    assert project.leftovers(own) == sorted([f"fifo_{own}", f"d_{own}", f"socket_{own}"])
    assert stat.S_ISFIFO((project.path / f"d_{own}" / "fifo").stat().st_mode)
    assert project.tree(project.experiment().directory, own=True) == {
        f"d_{own}": "/",
        f"d_{own}/file": "",
    }


@pytest.mark.fault(11)
async def test_a_file_that_was_replaced_by_something_special(project: Project) -> None:
    async with project.puppet() as job:
        await job.do("open('a_' + identifier, 'w').write('old')")
        await project.until(job.named("a_@").exists)
        await job.do("os.unlink('a_' + identifier); os.mkfifo('a_' + identifier)")
        await project.until(lambda: not job.named("a_@").exists())
    assert job.outcome.problems == (f"`a_{job.identifier}` is a FIFO, it was left where it is",)
    assert job.stored == {}


@pytest.mark.fault(11)
@both_ways
async def test_links_out_of_the_tree_are_not_followed(project: Project, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    project.write(
        "job.sh",
        f'ln -s "{outside}" "link_$1"; ln -s "{outside}" plain; : > "{outside}/mine_$1"; : > "{outside}/theirs"',
    )
    assert (await project.run("[[sh, job.sh]]")).ok
    own = project.experiment().identifier
    assert project.tree(project.experiment().directory, own=True) == {
        f"link_{own}": f"-> {outside}"
    }
    assert project.tree(outside) == {f"mine_{own}": "", "theirs": ""}


@both_ways
async def test_what_is_not_searched(project: Project) -> None:
    folders = [
        ".git",
        "node_modules",
        "sub/node_modules",
        "venv",
        "experiments/elsewhere",
        "sub/experiments",
    ]
    for folder in folders:
        (project.path / folder / "inner").mkdir(parents=True)
    project.write("venv/pyvenv.cfg")
    lines = [f': > "{folder}/a_$1"; : > "{folder}/inner/a_$1"\n' for folder in folders]
    project.write("job.sh", "".join(lines))
    assert (await project.run("[[sh, job.sh]]")).ok
    own = project.experiment().identifier
    # Only the folder that gets the experiments is `experiments/`
    assert project.tree(project.experiment().directory, own=True) == {
        "sub": "/", "sub/experiments": "/", f"sub/experiments/a_{own}": "",
        "sub/experiments/inner": "/", f"sub/experiments/inner/a_{own}": "",
    }  # fmt: skip
    for folder in folders[:-1]:
        assert (project.path / folder / f"a_{own}").exists()
        assert (project.path / folder / "inner" / f"a_{own}").exists()


@both_ways
async def test_a_working_directory_that_is_a_virtual_environment(project: Project) -> None:
    project.write("pyvenv.cfg")
    project.write("job.sh", ': > "a_$1"')
    assert (await project.run("[[sh, job.sh]]")).ok
    assert project.tree(project.experiment().directory, own=True) == {
        f"a_{project.experiment().identifier}": ""
    }


@both_ways
async def test_a_working_directory_reached_by_a_link(project: Project, tmp_path: Path) -> None:
    project.write("job.sh", ': > "a_$1"; mkdir sub; : > "sub/b_$1"')
    (tmp_path / "link").symlink_to(project.path)
    assert (
        await project.run(
            "[[sh, job.sh]]", working_directory=tmp_path / "link", root=tmp_path / "link"
        )
    ).ok
    own = project.experiment().identifier
    assert project.tree(project.experiment().directory, own=True) == {
        f"a_{own}": "",
        "sub": "/",
        f"sub/b_{own}": "",
    }
    assert project.leftovers(own) == []


@both_ways
async def test_a_working_directory_below_the_root(project: Project) -> None:
    project.write("work/job.sh", ': > "a_$1"; : > "../above_$1"')
    assert (await project.run("[[sh, job.sh]]", working_directory=project.path / "work")).ok
    own = project.experiment().identifier
    assert project.tree(project.experiment().directory, own=True) == {f"a_{own}": ""}
    assert project.leftovers(own) == [f"above_{own}"]


async def test_identifiers_of_jobs_that_do_not_run_mean_nothing(project: Project) -> None:
    project.write("job.sh", ': > "a_$1"')
    await project.run("[[sh, job.sh]]")
    old = project.experiment().identifier
    kept = project.write(f"kept_{old}", "kept")
    project.write("next.sh", f': > "both_{old}_$1"; mkdir "d_{old}"; : > "d_{old}/a_$1"')
    assert (await project.run("[[sh, next.sh]]")).ok
    new = project.experiments()[1]
    assert kept.read_text() == "kept"
    assert project.tree(new.directory, own=True) == {
        f"both_{old}_{new.identifier}": "", f"d_{old}": "/", f"d_{old}/a_{new.identifier}": ""
    }  # fmt: skip


@both_ways
async def test_modes_and_times_come_along(project: Project) -> None:
    project.write(
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
    assert (await project.run(f"[[{project.PYTHON}, job.py]]")).ok
    folder = project.experiment().directory / f"d_{project.experiment().identifier}" / "private"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
    assert (folder / "secret").stat().st_mtime == 5


async def test_a_folder_keeps_its_time_though_files_were_linked_from_it(project: Project) -> None:
    async with project.puppet() as job:
        folder = job.named("d_@")
        await job.do(
            "os.mkdir('d_' + identifier); open('d_' + identifier + '/a_' + identifier, 'w'); open('d_' + identifier + '/b', 'w')"
        )
        await project.until(lambda: folder.is_dir() and len(list(folder.iterdir())) == 2)
        await job.do("os.utime('d_' + identifier, (7, 7))")
    assert folder.stat().st_mtime == 7


@pytest.mark.usefixtures("forbidding")
@both_ways
async def test_folders_that_are_read_only(project: Project) -> None:
    project.write("job.sh", 'mkdir -p "d_$1/sub"; : > "d_$1/sub/f"; chmod 555 "d_$1/sub" "d_$1"')
    result = await project.run("[[sh, job.sh]]")
    assert result.ok
    experiment = project.experiment()
    folder = experiment.directory / f"d_{experiment.identifier}"
    assert project.leftovers(experiment.identifier) == []
    assert (folder / "sub" / "f").exists()
    # Nothing there is closed to its owner, who may want to tidy up
    assert (
        stat.S_IMODE(folder.stat().st_mode)
        == stat.S_IMODE((folder / "sub").stat().st_mode)
        == 0o755
    )


@pytest.mark.usefixtures("forbidding")
@both_ways
async def test_folders_that_cannot_be_looked_into(project: Project) -> None:
    project.write(
        "job.sh",
        """\
        mkdir "d_$1" plain half; : > "d_$1/f"; : > plain/f; : > "half/a_$1"; : > "a_$1"
        chmod 0 "d_$1" plain; chmod 444 half
        """,
    )
    result = await project.run("[[sh, job.sh]]")
    own = project.experiment().identifier
    (project.path / "half").chmod(0o755)
    (project.path / "plain").chmod(0o755)
    assert (project.experiment().directory / f"a_{own}").exists()
    # The job's own folder is opened for it; what is in others is left
    assert (project.experiment().directory / f"d_{own}" / "f").exists()
    assert (project.path / "half" / f"a_{own}").exists()
    assert not result.ok


# Two live identifiers


@pytest.mark.fault(13)
@both_ways
async def test_a_name_with_two_live_identifiers_is_left_and_reported(project: Project) -> None:
    async with project.puppets(3) as (one, two, other):
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
        one.end()
        await project.until(
            lambda: one.directory.joinpath("hermes.json").read_text().count('"finished"')
        )
        await other.do("pass")
    both = f"{one.identifier}_{two.identifier}"
    left = [f"file_{both}", f"dir_{both}", f"own_{one.identifier}/file_{both}"]
    for job in (one, two):
        assert sorted(job.outcome.problems) == sorted(
            f"`{path}` carries two live identifiers, it was left where it is" for path in left
        )
    assert other.outcome.ok
    assert one.stored == {f"own_{one.identifier}": "/", f"own_{one.identifier}/mine": "mine"}
    assert two.stored == {
        f"own_{one.identifier}": "/",
        f"own_{one.identifier}/of_{two.identifier}": "theirs",
    }
    assert project.tree(project.path / f"dir_{both}") == {"inside": "x"}
    assert (project.path / f"file_{both}").read_text() == "x"
    assert (project.path / f"own_{one.identifier}" / f"file_{both}").read_text() == "x"


@pytest.mark.fault(13)
async def test_two_live_identifiers_in_many_names(
    project: Project, record_property: RecordProperty
) -> None:
    generator = random.Random(1)
    tried = times(300, 1000)
    record_property("tried", tried)
    async with project.puppets(3) as jobs:
        names = []
        for number in range(tried):
            first, second = generator.sample(jobs, 2)
            glue = generator.choice(["", "_", "-", " and ", "0", "f", "\n"])
            names.append(
                f"{generator.choice(['', '9', 'a_'])}{first.identifier}{glue}{second.identifier}{number}"
            )
        await jobs[0].do(f"for name in {names!r}: open(name, 'w')")
    for job in jobs:
        carried = {name for name in names if job.identifier in name}
        assert set(job.outcome.problems) == {
            f"`{name}` carries two live identifiers, it was left where it is" for name in carried
        }
        assert len(job.outcome.problems) == len(carried)
        assert job.stored == {}
    assert all((project.path / name).exists() for name in names)


async def test_each_job_gets_its_own(project: Project) -> None:
    project.write(
        "job.sh",
        """\
        for i in 1 2 3 4 5 6 7 8 9; do
            printf "$1" > "f${i}_$1"; mkdir "d${i}_$1"; printf "$1" > "d${i}_$1/x"; mv "f${i}_$1" "g${i}_$1"
        done
        """,
    )
    result = await project.run(*["[[sh, job.sh]]"] * 12, threads=4)
    assert result.ok
    for experiment in project.experiments():
        own = experiment.identifier
        expected = {f"g{number}_{own}": own for number in range(1, 10)} | {
            f"d{number}_{own}": "/" for number in range(1, 10)
        }
        assert project.tree(experiment.directory, own=True) == expected | {
            f"d{number}_{own}/x": own for number in range(1, 10)
        }
    assert {path.name for path in project.path.iterdir()} == {"experiments", "job.sh", "x.hermes"}


# Names are bytes

ODD = (
    b"new\nline", b" ", b"-rf", b"--", b"\x1b[31mred\x1b[0m", b"[bold]", "\N{ROCKET}\N{COMBINING ACUTE ACCENT}".encode(), b"\xff\xfe",
    b"\xc3(",
    b"*", b"?", b"'\"`$(x)", b"\\", b"\r", b"\t", b"\x7f", b"\x01", b"~", b".", b"..", b"%%", b"{identifier}", b"#", b"\xe2\x80\xae",
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
    project = Project(tmp_path_factory.mktemp("names").resolve())
    names += (
        [(part, b"", b"file") for part in ODD]
        + [(b"", part, b"folder") for part in ODD]
        + [(b"\xff" * LONGEST, b"", b"file")]
    )
    names = list({(before, after): (before, after, kind) for before, after, kind in names}.values())
    record_property("tried", len(names))
    project.write(
        "names",
        "".join(f"{before.hex()} {after.hex()} {kind.hex()}\n" for before, after, kind in names),
    )
    project.write("make.py", MAKE)
    with pytest.MonkeyPatch.context() as patch:
        if not watched:
            patch.setattr(Collector, "watch", lambda self: self._stop.wait())
        result = await project.run(f"[[{project.PYTHON}, make.py]]")
    assert result.ok, result.outcomes[0].problems
    experiment = project.experiment()
    own, directory = os.fsencode(experiment.identifier), os.fsencode(experiment.directory)
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
    assert {path.name for path in project.path.iterdir()} == {
        "experiments",
        "names",
        "make.py",
        "x.hermes",
    }
    # And the metadata knows them by these names
    told = {os.fsencode(file.path).split(b"/")[0] for file in experiment.files}
    assert told == found


@pytest.mark.fault(10)
async def test_long_names_are_replaced_and_kept_apart_too(project: Project) -> None:
    async with project.puppet() as job:
        fill = "x" * (255 - len(job.identifier))
        here, there = job.left(fill + "@"), job.named(fill + "@")
        for number in range(3):
            await job.do(
                f"open('t', 'w').write('{number}'); os.replace('t', '{fill}' + identifier)"
            )
            await project.until(lambda: there.exists() and here.samefile(there))
        other = "y" * (255 - len(job.identifier))
        await job.do(f"open(folder + '/{other}' + identifier, 'w').write('theirs')")
        await job.do(f"open('{other}' + identifier, 'w').write('mine')")
    assert job.outcome.ok
    assert there.read_text() == "2"
    assert job.named(other + "@").read_text() == "theirs"
    assert sorted(job.stored.values()) == ["2", "mine", "theirs"]


@pytest.mark.fault(10)
@pytest.mark.parametrize("watcher", WATCHERS)
async def test_a_name_that_is_not_utf_8_hides_no_other(
    project: Project, monkeypatch: pytest.MonkeyPatch, watcher: Callable[[Iterable[str]], Watcher]
) -> None:
    monkeypatch.setattr(notify, "watcher", watcher)
    async with project.puppet() as job:
        for number in range(5):
            await job.do(
                f"open(b'\\xff{number}_' + identifier.encode(), 'w'); open('a{number}_' + identifier, 'w')"
            )
            await project.until(job.named(f"a{number}_@").exists)
            await project.until(job.named(f"\udcff{number}_@").exists)


# Nothing unrelated is overwritten, and nothing is lost


@both_ways
async def test_what_the_job_wrote_there_itself_is_kept(project: Project) -> None:
    project.write(
        "job.sh",
        """\
        cd "$HERMES_EXPERIMENT_DIR"; printf theirs > "a_$1"; mkdir "b_$1" "d_$1"; printf theirs > "d_$1/x"; ln -s nowhere "c_$1"
        cd "$OLDPWD"; printf mine > "a_$1"; printf mine > "b_$1"; printf mine > "c_$1"; mkdir "d_$1"; printf mine > "d_$1/x"
        """,
    )
    result = await project.run("[[sh, job.sh]]")
    assert result.ok
    own = project.experiment().identifier
    assert project.tree(project.experiment().directory, own=True) == {
        f"a_{own}": "theirs", f"a_{own}.1": "mine", f"b_{own}": "/", f"b_{own}.1": "mine", f"c_{own}": "-> nowhere", f"c_{own}.1": "mine",
        f"d_{own}": "/", f"d_{own}/x": "theirs", f"d_{own}/x.1": "mine",
    }  # fmt: skip
    assert {file.path for file in project.experiment().files} == {
        f"a_{own}.1",
        f"b_{own}.1",
        f"c_{own}.1",
        f"d_{own}/x.1",
    }
    assert project.leftovers(own) == []


@both_ways
async def test_a_file_in_the_place_of_a_folder(project: Project) -> None:
    project.write(
        "job.sh",
        'printf theirs > "$HERMES_EXPERIMENT_DIR/d_$1"; mkdir "d_$1"; printf mine > "d_$1/x"; : > "a_$1"',
    )
    (outcome,) = (await project.run("[[sh, job.sh]]")).outcomes
    own = outcome.identifier
    assert outcome.problems
    assert project.tree(project.experiment().directory, own=True) == {
        f"d_{own}": "theirs",
        f"a_{own}": "",
    }
    assert (project.path / f"d_{own}" / "x").read_text() == "mine"


@pytest.mark.fault(14)
@both_ways
async def test_a_link_in_the_place_of_a_folder_is_not_followed(
    project: Project, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    project.write("kept.txt", "kept")
    project.write("other/kept.txt", "kept")
    project.write(
        "job.sh",
        f"""\
        ln -s "{outside}" "$HERMES_EXPERIMENT_DIR/sub"; mkdir sub; printf mine > "sub/a_$1"
        ln -s "{outside}" "$HERMES_EXPERIMENT_DIR/d_$1"; mkdir "d_$1"; printf mine > "d_$1/x"
        ln -s "{outside}/new" "$HERMES_EXPERIMENT_DIR/copied.txt"
        ln -s "{outside}" "$HERMES_EXPERIMENT_DIR/other"
        printf x > copied.txt
        """,
    )
    (outcome,) = (
        await project.run("[[sh, job.sh],[-ca copied.txt, -ca kept.txt, -ca other/kept.txt]]")
    ).outcomes
    own = outcome.identifier
    assert len(outcome.problems) == 3
    assert project.tree(outside) == {}
    assert (project.path / "sub" / f"a_{own}").read_text() == "mine"
    assert (project.path / f"d_{own}" / "x").read_text() == "mine"
    assert (project.experiment().directory / "copied.txt.1").read_text() == "x"
    assert (project.experiment().directory / "kept.txt").read_text() == "kept"


async def test_a_copy_that_the_job_has_removed_is_no_reason_to_lose_the_file(
    project: Project,
) -> None:
    async with project.puppet() as job:
        await job.do(
            "open('a_' + identifier, 'w').write('mine'); open('b_' + identifier, 'w').write('mine')"
        )
        await project.until(lambda: len(job.stored) == 2)
        await job.do("os.unlink(folder + '/a_' + identifier)")
        await job.do(
            "open(folder + '/new', 'w').write('theirs'); os.replace(folder + '/new', folder + '/b_' + identifier)"
        )
    own = job.identifier
    assert job.outcome.ok
    assert job.stored == {f"a_{own}": "mine", f"b_{own}": "theirs", f"b_{own}.1": "mine"}
    assert project.leftovers(own) == []


async def test_what_the_job_has_put_in_its_place_outlives_the_file(project: Project) -> None:
    async with project.puppet() as job:
        await job.do(
            "open('a_' + identifier, 'w').write('mine'); open('b_' + identifier, 'w').write('mine')"
        )
        await project.until(lambda: len(job.stored) == 2)
        for name in "ab":
            await job.do(
                f"open(folder + '/new', 'w').write('theirs'); os.replace(folder + '/new', folder + '/{name}_' + identifier)"
            )
        await job.do("os.unlink('a_' + identifier)")
        await job.do("open('new', 'w').write('newer'); os.replace('new', 'b_' + identifier)")
    own = job.identifier
    assert job.stored == {f"a_{own}": "theirs", f"b_{own}": "theirs", f"b_{own}.1": "newer"}


async def test_moving_a_file_over_its_own_copy(project: Project) -> None:
    # To `rename` these are one file already, so it does nothing
    async with project.puppet() as job:
        await job.do("open('a_' + identifier, 'w').write('mine')")
        await project.until(job.named("a_@").exists)
        await job.do("os.rename('a_' + identifier, folder + '/a_' + identifier)")
        await job.do("open('b_' + identifier, 'w').write('mine')")
        await project.until(job.named("b_@").exists)
        await job.do("os.rename('b_' + identifier, folder + '/final')")
    assert job.stored == {f"a_{job.identifier}": "mine", "final": "mine"}
    assert project.leftovers(job.identifier) == []


async def test_a_file_of_a_running_job_in_a_folder_of_another(
    project: Project, blind: None
) -> None:
    async with project.puppets(2) as (one, two):
        await one.do("os.mkdir('d_' + identifier)")
        # Ends before and after something of the other is in the folder
        async with project.puppet(name="third") as third:
            pass
        assert third.outcome.ok
        await two.do(f"open('d_{one.identifier}/a_' + identifier, 'w').write('two')")
        two.end()
        await project.until(
            lambda: two.directory.joinpath("hermes.json").read_text().count('"finished"')
        )
        assert two.named(f"d_{one.identifier}/a_@").read_text() == "two"
    assert one.stored == {f"d_{one.identifier}": "/"}
    assert project.leftovers(one.identifier) == []


# Where notifications fail


IDENTIFIERS = [f"2021_07_25_16000832697{number}_1930e" for number in range(2)]


@pytest.fixture
def collector(tmp_path: Path) -> Collector:
    """One without notifications, for a working directory `top` with a folder `sub`; nothing is announced."""
    for folder in ("top/sub", *(f"experiments/{identifier}" for identifier in IDENTIFIERS)):
        (tmp_path / folder).mkdir(parents=True)
    return Collector(
        str(tmp_path / "top"),
        str(tmp_path / "experiments"),
        lambda files: None,
        lambda message: None,
    )


def test_the_final_look_does_not_trust_times_that_can_be_set(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, (first, second) = tmp_path / "top" / "sub", IDENTIFIERS
    # Only the time of the last change tells then, whose clock has to tick first
    monkeypatch.setattr(collect, "SETTLED_NS", 0)
    os.utime(folder, (1000, 1000))
    for identifier in (first, second):
        collector.add(identifier, str(tmp_path / "experiments" / identifier))
    collector.finish([first])
    (tmp_path / "tick").touch()
    while (tmp_path / "tick").stat().st_ctime_ns <= folder.stat().st_ctime_ns:
        (tmp_path / "tick").touch()
    (folder / second).write_text("x")
    os.utime(folder, (1000, 1000))
    assert list(collected(collector.finish([second])[second])) == [(f"sub/{second}", 1)]


@pytest.mark.fault(11)
def test_a_folder_that_has_become_a_link_is_not_followed(
    collector: Collector, tmp_path: Path
) -> None:
    top, (first, second) = tmp_path / "top", IDENTIFIERS
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    (top / "sub" / "inner").mkdir()
    for identifier in (first, second):
        collector.add(identifier, str(tmp_path / "experiments" / identifier))
    for folder in ("sub", "sub/inner"):
        (top / folder / f"a_{second}").write_text("inside")
        (tmp_path / "outside" / folder.removeprefix("sub").strip("/") / f"a_{second}").write_text(
            "outside"
        )
    collector.finish([first])
    (top / "sub").rename(top / "kept")
    (top / "sub").symlink_to(outside)
    claim = collector.finish([second])[second]
    assert sorted(collected(claim)) == [(f"kept/a_{second}", 6), (f"kept/inner/a_{second}", 6)]
    assert (
        (outside / f"a_{second}").read_text()
        == (outside / "inner" / f"a_{second}").read_text()
        == "outside"
    )


def test_an_adopted_job_has_older_files(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top, experiments, (first, second) = tmp_path / "top", tmp_path / "experiments", IDENTIFIERS
    monkeypatch.setattr(collect, "SETTLED_NS", 0)
    (top / "sub" / f"a_{second}").write_text("a")
    # What an earlier runner has linked, what it has taken, and what the job deletes after it was adopted
    for name in (f"b_{second}", f"d_{second}"):
        (top / name).write_text("linked")
        (experiments / second / name).hardlink_to(top / name)
    (experiments / second / f"c_{second}").write_text("taken")
    collector.add(first, str(experiments / first))
    collector.finish([first])
    collector.add(second, str(experiments / second), adopted=True)
    (top / f"d_{second}").unlink()
    claim = collector.finish([second])[second]
    assert sorted(collected(claim)) == [
        (f"b_{second}", 6),
        (f"c_{second}", 5),
        (f"sub/a_{second}", 1),
    ]
    assert sorted(path.name for path in (experiments / second).iterdir()) == [
        f"b_{second}",
        f"c_{second}",
        "sub",
    ]
    assert [path.name for path in top.iterdir()] == ["sub"]


@pytest.mark.fault(15)
async def test_a_watch_limit_costs_time_and_no_file(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "MAX_WATCHES", 3)
    for number in range(10):
        (project.path / f"sub{number}").mkdir()
    async with project.puppet() as job:
        await job.do("for i in range(10): open(f'sub{i}/a_' + identifier, 'w')")
        await project.until(lambda: len(list(job.directory.glob("sub*/a_*"))) == 10)
        await job.do("for i in range(5): os.unlink(f'sub{i}/a_' + identifier)")
    assert len(list(job.directory.glob("sub*/a_*"))) == 5


@pytest.mark.parametrize("watcher", WATCHERS)
def test_what_is_told_of_a_folder(
    tmp_path: Path, watcher: Callable[[Iterable[str]], Watcher]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "old").touch()
    watching = watcher([str(tmp_path), str(tmp_path / "other")])
    try:
        (tmp_path / "new").write_text("some")
        (tmp_path / "old").rename(tmp_path / "other" / "moved")
        (tmp_path / "folder").mkdir()
        (tmp_path / "new").unlink()
        told: set[str] = set()
        ends = time.monotonic() + 30
        while len(told) < 4 and time.monotonic() < ends:
            told.update(watching.changed())
    finally:
        watching.close()
    assert {"new", "old", "other/moved", "folder"} <= {
        path[len(str(tmp_path)) + 1 :] for path in told
    }


@pytest.mark.skipif(sys.platform != "linux", reason="that is inotify's")
def test_a_watcher_that_cannot_be_leaves_nothing_open(tmp_path: Path) -> None:
    def opened() -> int:
        return [
            os.path.realpath(f"/proc/self/fd/{fd}").rpartition("/")[2]
            for fd in os.listdir("/proc/self/fd")
        ].count("anon_inode:inotify")

    before = opened()
    with pytest.raises(FileNotFoundError):
        notify.Inotify([str(tmp_path), str(tmp_path / "gone")])
    assert opened() == before
    watching = notify.Inotify([str(tmp_path)])
    assert opened() == before + 1
    watching.close()


async def test_another_watcher_misses_nothing_either(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "watcher", notify.Watchfiles)
    # It cannot watch what is not UTF-8. What is stored there counts with its folder
    os.mkdir(os.fsencode(project.path) + b"/\xff")
    async with project.puppet() as job:
        await job.do("for i in range(50): open(f'a{i}_' + identifier, 'w')")
        await job.do("open(os.path.join(b'\\xff', b'b_' + os.fsencode(identifier)), 'w')")
        await project.until(lambda: len(job.stored) == 52)
        await job.do("os.unlink('a7_' + identifier)")
        await project.until(lambda: len(job.stored) == 51)
    assert job.outcome.ok
    assert len(job.stored) == 51


@pytest.mark.fault(15)
@pytest.mark.parametrize("fails", ["at once", "while watching"])
async def test_a_watcher_that_fails(
    project: Project, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def failing(folders: Sequence[str]) -> Watcher:
        if fails == "at once":
            raise OSError(28, "no space left on device (os error 28)")
        watcher = real(folders)
        monkeypatch.setattr(watcher, "changed", fail)
        return watcher

    def fail() -> NoReturn:
        time.sleep(0.01)
        raise RuntimeError("overflow")

    real = notify.watcher
    monkeypatch.setattr(notify, "watcher", failing)
    async with project.puppet() as job:
        await job.do("for i in range(50): open(f'a{i}_' + identifier, 'w')")
        await project.until(lambda: len(job.stored) == 50)
        await job.do("for i in range(50): open(f'b{i}_' + identifier, 'w')")
    assert job.outcome.ok
    assert len(job.stored) == 100
    if fails == "at once":
        (warning,) = job.run.result.warnings
        assert "collected later" in warning


@pytest.mark.fault(15)
async def test_a_watcher_that_breaks_down_harms_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(self: Collector, changed: Iterable[str]) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Collector, "_handle", break_down)
    async with project.puppet() as job:
        files = 0
        while not job.run.result.warnings:
            files += 1
            await job.do(f"open('a{files}_' + identifier, 'w')")
    assert job.outcome.ok
    assert len(job.stored) == files
    (warning,) = job.run.result.warnings
    assert "a bug" in warning


async def test_many_files_at_once(project: Project) -> None:
    async with project.puppet() as job:
        await job.do("for i in range(3000): open(f'a{i}_' + identifier, 'w').close()")
        await job.do("for i in range(0, 3000, 2): os.unlink(f'a{i}_' + identifier)")
    assert len(job.stored) == 1500
    assert project.leftovers(job.identifier) == []


def test_what_a_file_of_a_flood_costs(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is linked needs a look and an unlink when its job has ended, what is not a link more."""
    files, own = 100, IDENTIFIERS[0]
    collector.add(own, str(tmp_path / "experiments" / own))
    for number in range(files):
        (tmp_path / "top" / f"linked{number}_{own}").touch()
    collector._look_again()
    for number in range(files):
        (tmp_path / "top" / f"new{number}_{own}").touch()
    calls = Counter[str]()

    def count(name: str) -> None:
        real = getattr(os, name)

        def counted(*arguments: object, **options: object) -> object:
            calls[name] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, counted)

    for name in ("lstat", "stat", "link", "unlink", "readlink", "rename", "replace"):
        count(name)
    claim = collector.finish([own])[own]
    monkeypatch.undo()
    assert len(list(collected(claim))) == 2 * files
    # And a few for folders
    assert calls["lstat"] <= 2 * files + 10
    assert (calls["link"], calls["unlink"], calls.total()) == (
        files,
        2 * files,
        calls["lstat"] + 3 * files,
    )


# Other file systems


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


@pytest.mark.fault(9)
@both_ways
async def test_across_file_systems_files_are_moved_at_the_end(
    project: Project, elsewhere: Path
) -> None:
    path = "/".join(["z" * 20] * 3)
    project.write(
        "job.sh",
        f"""\
        printf 1 > "a_$1"; mkdir -p "d_$1/sub" plain "d_$1/{path}"; printf 2 > "d_$1/sub/x"; printf 3 > "plain/b_$1"
        ln -s nowhere "link_$1"; mkfifo "fifo_$1"; touch -d @5 "a_$1"; chmod 640 "a_$1"; ln "a_$1" "hard_$1"
        printf 4 > "$(printf '%0226d' 0)$1"
        """,
    )
    shutil.copytree(project.path, elsewhere / "work")
    work = elsewhere / "work"
    result = await project.run("[[sh, job.sh]]", working_directory=work)
    (outcome,) = result.outcomes
    own, directory = outcome.identifier, project.experiment().directory
    long = "0" * 226 + own
    folders = ["z" * 20, "/".join(["z" * 20] * 2), path]
    assert outcome.problems == (f"`fifo_{own}` is a FIFO, it was left where it is",)
    assert project.tree(directory, own=True) == {
        f"a_{own}": "1", f"d_{own}": "/", f"d_{own}/sub": "/", f"d_{own}/sub/x": "2", "plain": "/", f"plain/b_{own}": "3",
        f"link_{own}": "-> nowhere", f"hard_{own}": "1", long: "4", **{f"d_{own}/{folder}": "/" for folder in folders},
    }  # fmt: skip
    assert sorted(name for name in project.tree(work)) == sorted(["job.sh", "plain", f"fifo_{own}"])
    assert (directory / f"a_{own}").stat().st_mtime == 5
    assert stat.S_IMODE((directory / f"a_{own}").stat().st_mode) == 0o640


@pytest.mark.fault(9)
async def test_across_file_systems_by_options(project: Project, elsewhere: Path) -> None:
    project.write("job.sh", "")
    source = elsewhere / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "x").write_text("x")
    (source / "link").symlink_to("nowhere")
    os.mkfifo(source / "fifo")
    (elsewhere / "file").write_text("file")
    (elsewhere / "kept").write_text("kept")
    result = await project.run(
        f"[[sh, job.sh],[-ma {source}, -ma {elsewhere}/file, -ca {elsewhere}/kept]]"
    )
    (outcome,) = result.outcomes
    assert len(outcome.problems) == 1
    assert "FIFO" in outcome.problems[0]
    assert project.tree(project.experiment().directory, own=True) == {
        "source": "/", "source/sub": "/", "source/sub/x": "x", "source/link": "-> nowhere", "file": "file", "kept": "kept"
    }  # fmt: skip
    assert project.tree(elsewhere) == {"source": "/", "source/fifo": "special", "kept": "kept"}


# A job that does anything

CHAOS = """\
import json, os, random, shutil, stat, sys, time
own, seed = sys.argv[1], sys.argv[2]
generator = random.Random(seed)

def some(kind):
    found = []
    for top, folders, files in os.walk("."):
        if top == ".":
            folders[:] = [each for each in folders if each.startswith("seed" + seed) or own in each]
            files = [each for each in files if own in each]
        found += [os.path.join(top, each) for each in (folders if kind == "folder" else files)]
    return generator.choice(sorted(found)) if found else None

def place():
    folder = some("folder") if generator.random() < 0.7 else "."
    if folder is None or os.path.islink(folder):
        folder = "."
    name = generator.choice("abcd")
    marked = generator.random() < 0.6 or folder == "."
    return folder + "/" + (name + "_" + own if marked else name)

def act(step):
    what = generator.choice("create create append replace delete rename mkdir mkdirs link symlink rmtree move".split())
    if what == "create":
        with open(place(), "w") as file:
            file.write("%d" % step)
    elif what == "append":
        with open(some("file"), "a") as file:
            file.write("+%d" % step)
    elif what == "replace":
        with open(".temporary" + seed, "w") as file:
            file.write("r%d" % step)
        os.replace(".temporary" + seed, place())
    elif what == "delete":
        os.unlink(some("file"))
    elif what == "rename":
        os.rename(some("file"), place())
    elif what == "mkdir":
        os.mkdir(place())
    elif what == "mkdirs":
        os.makedirs("seed" + seed + "/" + generator.choice("xyz") + "/" + generator.choice(["u", "v_" + own]))
    elif what == "link":
        os.link(some("file"), place())
    elif what == "symlink":
        os.symlink(generator.choice(["nowhere", ".", "..", "/proc/version", own]), place())
    elif what == "rmtree":
        shutil.rmtree(some("folder"))
    else:
        os.rename(some("folder"), place())

for sequence in range(int(sys.argv[3])):
    for step in range(25):
        try:
            act(step)
        except (OSError, TypeError):
            pass
        if generator.random() < 0.3:
            time.sleep(generator.random() * 0.008)

# What it has left that carries the identifier
left = {}
for top, folders, files in os.walk("."):
    if top == ".":
        folders[:] = [each for each in folders if each != "experiments"]
    for each in folders + files:
        path = os.path.relpath(os.path.join(top, each), ".")
        if own in path:
            mode = os.lstat(path).st_mode
            left[path] = "-> " + os.readlink(path) if stat.S_ISLNK(mode) else "/" if stat.S_ISDIR(mode) else open(path).read()
json.dump(left, open(os.environ["HERMES_EXPERIMENT_DIR"] + "/left.json", "w"))
"""


@both_ways
async def test_what_a_job_leaves_is_what_is_collected(project: Project) -> None:
    project.write("chaos.py", CHAOS)
    entry = f"PROD([[{project.PYTHON}, chaos.py, {{seed}} 6]], seed=RANGE[0, 9])"
    result = await project.run(entry, threads=3)
    assert result.ok, [outcome.problems for outcome in result.outcomes]
    for experiment in project.experiments():
        left = json.loads((experiment.directory / "left.json").read_text())
        stored = project.tree(experiment.directory, own=True)
        del stored["left.json"]
        # Folders that do not carry the identifier are there for what is in them
        expected = dict(left)
        for path in left:
            parent = os.path.dirname(path)
            while parent:
                expected.setdefault(parent, "/")
                parent = os.path.dirname(parent)
        assert stored == expected
        assert project.leftovers(experiment.identifier) == []
        assert {file.path for file in experiment.files} == {
            path for path, content in left.items() if content != "/"
        }


# Copies and moves by options


async def test_copies_and_moves(project: Project) -> None:
    project.write("networks/cnn.py", "cnn")
    project.write("data/sub/x.txt", "x")
    project.write("data/y.txt", "y")
    (project.path / "data" / "link").symlink_to("y.txt")
    project.write("before.txt", "before")
    project.write(
        "job.sh",
        """\
        printf after > before.txt; printf mine > "result_$1.csv"; mkdir out; printf "$1" > "out/$1"; printf m > moved.txt
        exit 1
        """,
    )
    options = "-ca networks/cnn.py, -ca data/, -cb before.txt, -ca before.txt, -ma out, -ma moved.txt, -ca result_{identifier}.csv"
    (outcome,) = (await project.run(f"[[sh, job.sh],[{options}]]")).outcomes
    own = outcome.identifier
    assert outcome.problems == ()
    stored = project.tree(project.experiment().directory, own=True)
    assert stored == {
        "cnn.py": "cnn", "data": "/", "data/sub": "/", "data/sub/x.txt": "x", "data/y.txt": "y", "data/link": "-> y.txt",
        "before.txt": "before", "before.txt.1": "after", "out": "/", f"out/{own}": own, "moved.txt": "m", f"result_{own}.csv": "mine",
    }  # fmt: skip
    assert (project.path / "networks" / "cnn.py").read_text() == "cnn"
    assert (project.path / "data" / "y.txt").read_text() == "y"
    assert not (project.path / "moved.txt").exists()
    assert not (project.path / "out").exists()
    origins = {file.path: file.origin for file in project.experiment().files}
    assert origins["before.txt"] == "copied-before"
    assert origins["before.txt.1"] == "copied-after"
    assert origins["moved.txt"] == "moved"
    assert {file.path: file.bytes for file in project.experiment().files}["data"] == 7


async def test_the_same_base_name_twice_is_stored_under_relative_paths(project: Project) -> None:
    for name in ("a/x.txt", "b/x.txt", "c/y.txt"):
        project.write(name, name)
    project.write("job.sh", "")
    assert (
        await project.run(
            "[[sh, job.sh],[-ca a/x.txt, -cb ./b/../b/x.txt, -ca c/y.txt, -ca a/x.txt, -ca ./a/x.txt]]"
        )
    ).ok
    assert project.tree(project.experiment().directory, own=True) == {
        "a": "/", "a/x.txt": "a/x.txt", "b": "/", "b/x.txt": "b/x.txt", "y.txt": "c/y.txt"
    }  # fmt: skip


async def test_wildcards(project: Project) -> None:
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
        project.write(name, name)
    project.write("job.sh", "")
    assert (
        await project.run(
            "[[sh, job.sh],[-ca a/*.txt, -ca '[x].log', -ca 'what?.log', -ca '**/z.*', -ca */b/v.txt]]"
        )
    ).ok
    assert set(project.tree(project.experiment().directory, own=True)) == {
        "x.txt",
        "y.txt",
        "[x].log",
        "what?.log",
        "z.txt",
        "v.txt",
    }


@pytest.mark.parametrize("pattern", ["*", "**", "./*", "**/*"])
async def test_wildcards_do_not_reach_into_the_experiments(project: Project, pattern: str) -> None:
    project.write("job.sh", "")
    for _ in range(2):
        await project.run(f"[[sh, job.sh],[-ca {pattern}]]")
    for experiment in project.experiments():
        stored = {Path(path).name for path in project.tree(experiment.directory, own=True)}
        assert "job.sh" in stored
        assert not stored & {"experiments", "hermes.json", "stdout.log"}


@pytest.mark.fault(11)
async def test_wildcards_do_not_follow_links(project: Project, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "theirs.txt").write_text("theirs")
    project.write("sub/mine.txt", "mine")
    for name in ("loop", "again", "sub/up"):
        (project.path / name).symlink_to(project.path)
    (project.path / "out").symlink_to(tmp_path / "outside")
    project.write("job.sh", "")
    assert (await project.run("[[sh, job.sh],[-ca '**/*.txt']]")).ok
    assert set(project.tree(project.experiment().directory, own=True)) == {"mine.txt"}


async def test_the_working_directory_itself_can_be_copied(project: Project) -> None:
    project.write("job.sh", "")
    project.write("sub/x", "x")
    assert (await project.run("[[sh, job.sh],[-ca .]]")).ok
    name = project.path.name
    assert set(project.tree(project.experiment().directory, own=True)) == {
        name, f"{name}/job.sh", f"{name}/x.hermes", f"{name}/sub", f"{name}/sub/x"
    }  # fmt: skip


@pytest.mark.parametrize("flag", ["-ca", "-ma"])
async def test_what_is_missing_harms_no_other_job(project: Project, flag: str) -> None:
    project.write("there.txt", "there")
    project.write("job.sh", "")
    result = await project.run(
        f"[[sh, job.sh],[{flag} gone.txt, {flag} no*thing, -ca there.txt]]", "[[sh, job.sh]]"
    )
    first, second = result.outcomes
    assert first.status is Status.FINISHED
    assert first.problems == (
        f"`{flag} gone.txt`: no such file or directory",
        f"`{flag} no*thing`: no such file or directory",
    )
    assert second.ok
    assert not result.ok
    assert (project.experiments()[0].directory / "there.txt").read_text() == "there"


async def test_what_is_missing_before_the_start_keeps_the_job_from_starting(
    project: Project,
) -> None:
    project.write("before.txt", "")
    project.write("first.sh", "rm before.txt")
    project.write("job.sh", ": > executed")
    result = await project.run(
        "[[sh, first.sh]]", "[[sh, job.sh],[-cb before.txt]]", "[[sh, job.sh],[-cb x_{identifier}]]"
    )
    first, second, third = result.outcomes
    assert first.ok
    for outcome in (second, third):
        assert outcome.status is Status.FAILED
        assert (outcome.exit_code, outcome.signal) == (None, None)
        assert "no such file" in outcome.problems[0]
    assert not (project.path / "executed").exists()


@pytest.mark.fault(11)
async def test_special_files_named_by_options_are_never_opened(project: Project) -> None:
    os.mkfifo(project.path / "fifo")
    (project.path / "folder").mkdir()
    os.mkfifo(project.path / "folder" / "fifo")
    project.write("folder/file", "file")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(project.path / "socket"))
        project.write("job.sh", "")
        (outcome,) = (
            await project.run("[[sh, job.sh],[-ca fifo, -ca socket, -ca /dev/zero, -ca folder]]")
        ).outcomes
    assert len(outcome.problems) == 4
    assert outcome.status is Status.FINISHED
    assert project.tree(project.experiment().directory, own=True) == {
        "folder": "/",
        "folder/file": "file",
    }
    assert stat.S_ISFIFO((project.path / "fifo").stat().st_mode)


@pytest.mark.fault(11)
async def test_links_named_by_options(project: Project) -> None:
    project.write("target", "target")
    (project.path / "link").symlink_to("target")
    (project.path / "moved").symlink_to("target")
    (project.path / "dangling").symlink_to("nowhere")
    (project.path / "loop").symlink_to("loop")
    project.write("job.sh", "")
    (outcome,) = (
        await project.run("[[sh, job.sh],[-ca link, -ma moved, -ca dangling, -ca loop]]")
    ).outcomes
    assert len(outcome.problems) == 2
    # To copy a link is to copy what it stands for; to move it is to move the link
    assert project.tree(project.experiment().directory, own=True) == {
        "link": "target",
        "moved": "-> target",
    }


@pytest.mark.fault(14)
async def test_options_never_write_outside(project: Project, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.txt").write_text("outside")
    (outside / "sub").mkdir()
    (outside / "sub" / "x.txt").write_text("sub")
    (project.path / "way").symlink_to(outside)
    project.write("job.sh", "")
    before = project.tree(tmp_path)
    paths = [
        "../outside/x.txt",
        "way/sub/x.txt",
        f"{outside}/sub",
        "../outside",
        "/etc/passwd",
        "../project/../project/job.sh",
    ]
    assert (await project.run(f"[[sh, job.sh],[{', '.join(f'-ca {path}' for path in paths)}]]")).ok
    after = project.tree(tmp_path)
    assert {
        path for path in after.keys() - before.keys() if not path.startswith("project/experiments")
    } == {"project/x.hermes"}
    stored = project.tree(project.experiment().directory, own=True)
    assert stored["outside/x.txt"] == "outside"
    assert stored["way/sub/x.txt"] == "sub"
    assert stored["job.sh"] == ""


async def test_what_holds_the_experiments_is_not_moved(project: Project) -> None:
    project.write("job.sh", "")
    (outcome,) = (await project.run("[[sh, job.sh],[-ma experiments, -ma .]]")).outcomes
    assert len(outcome.problems) == 2
    assert project.experiment().identifier == outcome.identifier
    assert (project.path / "job.sh").exists()


@pytest.fixture
def very_deep(elsewhere: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder with more levels than Python allows calls within calls, on another file system than `tmp_path`."""
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
def test_very_deep_folders(very_deep: Path, collector: Collector, tmp_path: Path) -> None:
    problems: list[str] = []
    bottom = "d/" * 1099 + "bottom"
    copy(str(very_deep), str(tmp_path / "copied"), problems.append)
    assert (tmp_path / "copied" / bottom).exists()
    identifier, directory = IDENTIFIERS[0], tmp_path / "experiments" / IDENTIFIERS[0]
    move(str(very_deep), str(tmp_path / "top" / identifier), problems.append)
    assert (tmp_path / "top" / identifier / bottom).exists()
    assert not very_deep.exists()
    collector.add(identifier, str(directory))
    assert list(collected(collector.finish([identifier])[identifier])) == [
        (f"{identifier}/{bottom}", 0)
    ]
    assert (directory / identifier / bottom).exists()
    assert size_of(str(directory)) == 0
    assert problems == []


@pytest.mark.parametrize("name", ["stdout.log", "stderr.log", "hermes.json", "re_execution.hermes"])
@pytest.mark.parametrize("flag", ["-cb", "-ca", "-ma"])
async def test_files_named_like_those_of_hermes(project: Project, name: str, flag: str) -> None:
    project.write(f"sub/{name}", "mine")
    project.write("job.sh", "echo out; echo err >&2")
    result = await project.run(f"[[sh, job.sh],[{flag} sub/{name}]]")
    assert result.ok
    experiment = project.experiment()
    assert (experiment.stdout, experiment.stderr) == ("out\n", "err\n")
    assert project.tree(experiment.directory, own=True) == {f"{name}.1": "mine"}
    assert [file.path for file in experiment.files] == [f"{name}.1"]


async def test_a_moved_file_that_is_also_collected_is_there_once(project: Project) -> None:
    project.write(
        "job.sh", 'mkdir sub; printf 1 > "a_$1"; printf 2 > "sub/b_$1"; printf 3 > "c_$1"'
    )
    result = await project.run(
        "[[sh, job.sh],[-ma a_{identifier}, -ma sub/b_{identifier}, -ca c_{identifier}]]"
    )
    assert result.ok
    own = project.experiment().identifier
    assert project.tree(project.experiment().directory, own=True) == {
        f"a_{own}": "1",
        f"b_{own}": "2",
        f"c_{own}": "3",
    }
    assert project.leftovers(own) == []


async def test_options_of_std_h_come_first(project: Project) -> None:
    project.write("one.txt", "1")
    project.write("two.txt", "2")
    project.write("job.sh", "")
    project.write(
        "y.hermes", "STD-H\n-ca one.txt -l false\nEXEC\n[[sh, job.sh],[-ca two.txt, -l true]]\n"
    )
    assert (await hermes.run_file("y.hermes", working_directory=project.path)).ok
    experiment = project.experiment()
    assert [file.path for file in experiment.files] == ["one.txt", "two.txt"]
    assert experiment.metadata["options"]["log"] is True


# What is told of it


async def test_collected_files_are_announced_under_the_names_they_have(project: Project) -> None:
    project.write(
        "job.sh",
        'printf x > "$HERMES_EXPERIMENT_DIR/a_$1"; printf y > "a_$1"; : > "b_$1"; mkdir -p sub; : > "sub/c_$1"',
    )
    told = []
    async with project.open("[[sh, job.sh]]") as run:
        async for event in run:
            assert not isinstance(event, RunWarning)
            if isinstance(event, FileCollected):
                told.append(event.path)
    own = project.experiment().identifier
    assert sorted(told) == sorted([f"a_{own}.1", f"b_{own}", f"sub/c_{own}"])


@pytest.mark.anyio
async def test_files_come_at_once_also_where_many_are_open(project: Project) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1200:
        pytest.skip("no process here can have so many open files")
    project.write("job.sh", "sleep 0.2")
    # `select.select` takes no numbers from 1,024 on
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        result = await project.run("[[sh, job.sh]]")
    finally:
        for fd in held:
            os.close(fd)
    assert result.ok
    assert result.warnings == ()


@pytest.mark.anyio
async def test_no_watching_for_lack_of_descriptors_does_not_end_the_run(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    project.write("job.sh", "sleep 0.2; echo > $1")
    monkeypatch.setattr(collect, "Bell", fail)
    result = await project.run("[[sh, job.sh, {identifier}]]")
    assert result.ok
    assert result.warnings == (
        f"files are collected only when their jobs end: [Errno {errno.EMFILE}] {os.strerror(errno.EMFILE)}",
    )
