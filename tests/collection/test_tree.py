"""Which directories are searched, and that nothing in them is missed or remembered wrongly."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hermes.collection.claims import SHORTEST
from hermes.collection.tree import Tree
from hermes.model import ProblemKind

from .place import Place, both_ways

pytestmark = pytest.mark.anyio


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []


@pytest.mark.fault(12)
async def test_a_renamed_folder_is_known_by_its_new_name(place: Place) -> None:
    async with place.job() as job:
        await job.do("os.makedirs('old/x'); open('old/x/a_' + identifier, 'w').write('1')")
        await job.do("os.mkdir('d_' + identifier); open('d_' + identifier + '/f', 'w').write('2')")
        await place.until(lambda: job.named("old/x/a_@").exists() and job.named("d_@/f").exists())
        await job.do("os.rename('old', 'new'); os.rename('d_' + identifier, 'e_' + identifier)")
        await place.until(lambda: job.named("new/x/a_@").exists() and job.named("e_@/f").exists())
        await place.until(
            lambda: not job.named("old/x/a_@").exists() and not job.named("d_@").exists()
        )
        await job.do("open('new/x/b_' + identifier, 'w'); open('e_' + identifier + '/g', 'w')")
        await place.until(lambda: job.named("new/x/b_@").exists() and job.named("e_@/g").exists())
    own = job.identifier
    assert job.stored == {
        "new": "/", "new/x": "/", f"new/x/a_{own}": "1", f"new/x/b_{own}": "", f"e_{own}": "/",
        f"e_{own}/f": "2", f"e_{own}/g": ""
    }  # fmt: skip


async def test_a_folder_that_is_made_again(place: Place) -> None:
    async with place.job() as job:

        async def make_again(number: str) -> None:
            await job.do(
                "import shutil; shutil.rmtree('out', True); os.mkdir('out'); "
                "shutil.rmtree('d_' + identifier, True)"
            )
            await job.do(f"open('out/{number}_' + identifier, 'w')")
            await place.until(
                lambda: names_in(job.directory / "out") == [f"{number}_{job.identifier}"]
            )
            await job.do(
                f"os.makedirs('d_' + identifier + '/{number}'); "
                f"open('d_' + identifier + '/{number}/f', 'w')"
            )
            await place.until(
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
async def test_many_new_folders_with_files_made_right_after(place: Place) -> None:
    async with place.job() as job:
        await job.do(
            """
for i in range(40):
    os.makedirs(f'plain{i}/sub')
    open(f'plain{i}/sub/f_{identifier}', 'w')
    os.makedirs(f'd_{identifier}/{i}/sub')
    open(f'd_{identifier}/{i}/sub/f', 'w')
"""
        )
        await place.until(lambda: len(list(job.directory.glob("plain*/sub/f_*"))) == 40)
        await place.until(lambda: len(list(job.directory.glob("d_*/*/sub/f"))) == 40)
    assert place.leftovers(job.identifier) == []


async def test_new_folders_in_folders_of_the_job_that_are_old(
    place: Place, anyio_backend: str
) -> None:
    if anyio_backend == "trio":
        pytest.skip("it takes seconds and does not depend on the loop")
    async with place.job() as job:
        await job.do("os.mkdir('d_' + identifier); os.mkdir('plain')")
        # Nothing in what is above is new any more then
        await place.until(
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
        await place.until(lambda: len(list(job.directory.glob("*/*/?_*"))) == 320)


@both_ways
async def test_what_is_not_searched(place: Place) -> None:
    folders = [
        ".git",
        "node_modules",
        "sub/node_modules",
        "venv",
        "experiments/elsewhere",
        "sub/experiments",
    ]
    for folder in folders:
        (place.path / folder / "inner").mkdir(parents=True)
    place.write("venv/pyvenv.cfg")
    lines = [f': > "{folder}/a_$1"; : > "{folder}/inner/a_$1"\n' for folder in folders]
    place.write("job.sh", "".join(lines))
    job = await place.run_script("job.sh")
    assert job.problems == []
    own = job.identifier
    # Only the folder that gets the experiments is `experiments/`
    assert job.stored == {
        "sub": "/", "sub/experiments": "/", f"sub/experiments/a_{own}": "",
        "sub/experiments/inner": "/", f"sub/experiments/inner/a_{own}": "",
    }  # fmt: skip
    for folder in folders[:-1]:
        assert (place.path / folder / f"a_{own}").exists()
        assert (place.path / folder / "inner" / f"a_{own}").exists()


@both_ways
async def test_a_working_directory_that_is_a_virtual_environment(place: Place) -> None:
    place.write("pyvenv.cfg")
    place.write("job.sh", ': > "a_$1"')
    job = await place.run_script("job.sh")
    assert job.problems == []
    assert job.stored == {f"a_{job.identifier}": ""}


@both_ways
async def test_a_working_directory_reached_by_a_link(place: Place, tmp_path: Path) -> None:
    place.write("job.sh", ': > "a_$1"; mkdir sub; : > "sub/b_$1"')
    (tmp_path / "link").symlink_to(place.path)
    place.working_directory = str(tmp_path / "link")
    job = await place.run_script("job.sh")
    own = job.identifier
    assert job.stored == {
        f"a_{own}": "",
        "sub": "/",
        f"sub/b_{own}": "",
    }
    assert place.leftovers(own) == []


@both_ways
@pytest.mark.parametrize("has_runs", [False, True])
async def test_a_folder_of_the_user_called_experiments(place: Place, has_runs: bool) -> None:
    folder = "code/experiments"
    place.write(f"{folder}/model/weights/readme")
    if has_runs:
        # Another run has put its experiments beside the user's files
        place.write(f"{folder}/.hermes/clock")
        place.write(f"{folder}/train/name/2021_07_25_160008326976_1930e/hermes.json")
    place.write(
        "job.sh",
        f'cd {folder}; : > "a_$1"; : > "model/weights/b_$1"; '
        f'[ ! -e train ] || : > "train/name/2021_07_25_160008326976_1930e/c_$1"',
    )
    job = await place.run_script("job.sh")
    own = job.identifier
    stored = {path for path, kind in job.stored.items() if kind != "/"}
    assert stored == {f"{folder}/a_{own}", f"{folder}/model/weights/b_{own}"}
    # Nothing is taken out of another experiment
    assert len(place.leftovers(own)) == has_runs


@both_ways
async def test_a_working_directory_below_the_root(place: Place) -> None:
    place.write("work/job.sh", ': > "a_$1"; : > "../above_$1"')
    place.working_directory = str(place.path / "work")
    job = await place.run_script("job.sh")
    own = job.identifier
    assert job.stored == {f"a_{own}": ""}
    assert place.leftovers(own) == [f"above_{own}"]


@pytest.mark.fault(11)
@both_ways
async def test_what_lies_behind_links_is_the_jobs_and_links_of_jobs_are_not_followed(
    place: Place, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    place.write(
        "job.sh",
        f'ln -s "{outside}" "link_$1"; ln -s "{outside}" plain; : > "{outside}/mine_$1"; '
        f': > "{outside}/theirs"',
    )
    job = await place.run_script("job.sh")
    assert job.problems == []
    own = job.identifier
    assert job.stored == {f"link_{own}": f"-> {outside}", "plain": "/", f"plain/mine_{own}": ""}
    assert place.tree(outside) == {"theirs": ""}


def test_the_final_scan_does_not_trust_times_that_can_be_set(place: Place) -> None:
    folder, tick = place.path / "sub", place.path.parent / "tick"
    folder.mkdir()
    # Only the time of the last change tells then, whose clock has to tick first
    place.options["clock_grain"] = 0.0
    os.utime(folder, (1000, 1000))
    first, second = place.new_job(), place.new_job()
    place.finish(first)
    tick.touch()
    while tick.stat().st_ctime_ns <= folder.stat().st_ctime_ns:
        tick.touch()
    second.left("sub/@").write_text("x")
    os.utime(folder, (1000, 1000))
    place.finish(second)
    assert second.files == {f"sub/{second.identifier}": 1}


@pytest.mark.fault(11)
def test_a_folder_that_has_become_a_link_is_another_one(place: Place) -> None:
    outside = place.path.parent / "outside"
    (outside / "inner").mkdir(parents=True)
    (place.path / "sub" / "inner").mkdir(parents=True)
    first, second = place.new_job(), place.new_job()
    name = f"a_{second.identifier}"
    for folder in ("", "inner"):
        (place.path / "sub" / folder / name).write_text("inside")
        (outside / folder / name).write_text("outside")
    place.finish(first)
    (place.path / "sub").rename(place.path / "kept")
    (place.path / "sub").symlink_to(outside)
    place.finish(second)
    assert second.files == {
        f"kept/{name}": 6, f"kept/inner/{name}": 6, f"sub/{name}": 7, f"sub/inner/{name}": 7,
    }  # fmt: skip
    assert place.tree(outside) == {"inner": "/"}


@pytest.fixture
def visited() -> list[str]:
    return []


@pytest.fixture
def tree(tmp_path: Path, visited: list[str]) -> Tree:
    """A tree of which nothing is owned, so that only long names are visited."""

    def visit(path: str, inode: tuple[int, int], is_folder: bool) -> bool | None:
        visited.append(path)
        return None

    top = tmp_path / "top"
    top.mkdir()
    return Tree(
        top=str(top),
        experiments=str(tmp_path / "experiments"),
        is_owned=lambda path: False,
        visit=visit,
        clock_grain=0.0,
    )


LONG = "x" * SHORTEST


def test_only_names_that_can_carry_an_identifier_are_visited(
    tree: Tree, visited: list[str]
) -> None:
    os.makedirs(f"{tree.top}/sub/{LONG}/inner")
    for name in ("short", LONG + "1", f"sub/{LONG}/short", f"sub/{LONG}/inner/{LONG}"):
        Path(tree.top, name).touch()
    tree.scan()
    assert sorted(visited) == [f"sub/{LONG}", f"sub/{LONG}/inner/{LONG}", LONG + "1"]
    assert tree.nearest(3) == ["", "sub", f"sub/{LONG}"]
    assert len(tree) == 4
    assert tree.grown


def test_what_has_not_changed_is_not_read_again(tree: Tree, visited: list[str]) -> None:
    for folder in ("old", "new"):
        os.mkdir(f"{tree.top}/{folder}")
        Path(tree.top, folder, LONG).touch()
    while time.time_ns() <= os.stat(f"{tree.top}/new").st_ctime_ns:
        pass
    tree.scan()
    visited.clear()
    tree.grown = False
    # Something older must not be younger than the time at which it was read
    before = os.stat(f"{tree.top}/new").st_ctime_ns
    while os.stat(f"{tree.top}/new").st_ctime_ns == before:
        Path(tree.top, "new", LONG + "2").unlink(missing_ok=True)
        Path(tree.top, "new", LONG + "2").touch()
    tree.scan()
    assert sorted(visited) == [f"new/{LONG}", f"new/{LONG}2"]
    assert not tree.grown


def test_folders_that_are_gone_are_forgotten_with_all_below_them(tree: Tree) -> None:
    os.makedirs(f"{tree.top}/a/b/c")
    os.makedirs(f"{tree.top}/ab")
    tree.scan()
    assert tree.nearest(9) == ["", "a", "ab", "a/b", "a/b/c"]
    assert not tree.forget_closed()
    os.rename(f"{tree.top}/a", f"{tree.top}/d")
    assert tree.forget_closed()
    assert tree.nearest(9) == ["", "ab"]
    assert not tree.forget("a")
    assert tree.forget("ab")
    tree.scan_below("d/b")
    assert tree.nearest(9) == ["", "d/b", "d/b/c"]


@pytest.mark.usefixtures("forbidding")
@both_ways
async def test_folders_that_cannot_be_read(place: Place) -> None:
    place.write(
        "job.sh",
        """\
        mkdir "d_$1" plain half; : > "d_$1/f"; : > plain/f; : > "half/a_$1"; : > "a_$1"
        chmod 0 "d_$1" plain; chmod 444 half
        """,
    )
    job = await place.run_script("job.sh")
    own = job.identifier
    (place.path / "half").chmod(0o755)
    (place.path / "plain").chmod(0o755)
    assert (job.directory / f"a_{own}").exists()
    # The job's own folder is opened for it; what is in others is left
    assert (job.directory / f"d_{own}" / "f").exists()
    assert (place.path / "half" / f"a_{own}").exists()
    assert job.kinds == {ProblemKind.NOT_COLLECTED}
