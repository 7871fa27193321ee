"""Every file and directory whose name carries the identifier gets into the experiment directory: live, undisturbed, whole, and once."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from watchfiles import _rust_notify

from hermes.collect import Collector

from .conftest import Project, Puppet

pytestmark = pytest.mark.anyio


def carries(job: Puppet, template: str, content: str) -> bool:
    """Whether the experiment directory holds this content under this path."""
    path = job.named(template)
    return path.exists() and path.read_text() == content


# While the job runs


async def test_a_file_appears_under_the_same_path_while_the_job_goes_on_writing(project: Project) -> None:
    async with project.puppet() as job:
        await job.do("import os; os.makedirs('out/sub'); f = open(f'out/sub/m_{identifier}.pt', 'w'); f.write('one'); f.flush()")
        await project.until(lambda: carries(job, "out/sub/m_@.pt", "one"))
        await job.do("f.write(' two'); f.close(); open(f'out/sub/m_{identifier}.pt', 'a').write(' three')")
        assert job.named("out/sub/m_@.pt").read_text() == "one two three"
        # Its own name for it stays
        assert job.left("out/sub/m_@.pt").read_text() == "one two three"
        await job.do("open(f'out/sub/m_{identifier}.pt', 'w').write('anew')")
        assert job.named("out/sub/m_@.pt").read_text() == "anew"
    assert job.stored["out/sub/m_@.pt".replace("@", job.identifier)] == "anew"
    assert project.leftovers(job.identifier) == []
    assert not job.outcome.problems


async def test_replaced_renamed_and_deleted_files_are_followed(project: Project) -> None:
    async with project.puppet() as job:
        await job.do(
            "open(f'a_{identifier}', 'w').write('1'); open(f'b_{identifier}', 'w').write('b'); open(f'c_{identifier}', 'w').write('c')"
        )
        await project.until(lambda: all(job.named(name).exists() for name in ("a_@", "b_@", "c_@")))
        await job.do("open('new', 'w').write('2'); os.replace('new', f'a_{identifier}')")
        await project.until(lambda: carries(job, "a_@", "2"))
        await job.do("os.rename(f'b_{identifier}', f'd_{identifier}')")
        await project.until(lambda: carries(job, "d_@", "b") and not job.named("b_@").exists())
        await job.do("os.unlink(f'c_{identifier}')")
        await project.until(lambda: not job.named("c_@").exists())
    assert job.stored == {f"a_{job.identifier}": "2", f"d_{job.identifier}": "b"}


async def test_rotating_checkpoints_leave_only_the_last(project: Project) -> None:
    async with project.puppet() as job:
        for number in range(5):
            await job.do(f"open(f'ckpt{number}_{{identifier}}', 'w').write('{number}')")
            await project.until(job.named(f"ckpt{number}_@").exists)
            if number:
                await job.do(f"os.unlink(f'ckpt{number - 1}_{{identifier}}')")
                await project.until(partial(lambda number: not job.named(f"ckpt{number - 1}_@").exists(), number))
    assert job.stored == {f"ckpt4_{job.identifier}": "4"}


async def test_directories_named_by_the_identifier(project: Project) -> None:
    async with project.puppet() as job:
        await job.do("os.makedirs(f'{identifier}.d/deep/er'); open(f'{identifier}.d/deep/er/file', 'w').write('in one step')")
        await project.until(lambda: carries(job, "@.d/deep/er/file", "in one step"))
        await job.do("open(f'{identifier}.d/deep/later', 'w').write('later')")
        await project.until(lambda: carries(job, "@.d/deep/later", "later"))
        await job.do(
            "os.makedirs('elsewhere/x'); open('elsewhere/x/y', 'w').write('moved in'); os.rename('elsewhere', f'whole_{identifier}')"
        )
        await project.until(lambda: carries(job, "whole_@/x/y", "moved in"))
        await job.do("os.unlink(f'{identifier}.d/deep/later'); os.mkdir(f'{identifier}.d/empty')")
        await project.until(lambda: not job.named("@.d/deep/later").exists() and job.named("@.d/empty").is_dir())
    i = job.identifier
    assert job.stored == {
        f"{i}.d": "/", f"{i}.d/deep": "/", f"{i}.d/deep/er": "/", f"{i}.d/deep/er/file": "in one step", f"{i}.d/empty": "/",
        f"whole_{i}": "/", f"whole_{i}/x": "/", f"whole_{i}/x/y": "moved in",
    }  # fmt: skip
    assert project.leftovers(i) == []


async def test_a_file_in_a_directory_made_just_before(project: Project) -> None:
    async with project.puppet() as job:
        for number in range(20):
            await job.do(f"os.makedirs('n{number}/m'); open(f'n{number}/m/f_{{identifier}}', 'w').write('x')")
        await project.until(lambda: all(carries(job, f"n{number}/m/f_@", "x") for number in range(20)))


# At the end


async def test_five_hundred_levels_deep(project: Project) -> None:
    async with project.puppet() as job:
        await job.do(
            "here = os.open('.', os.O_RDONLY); os.mkdir(f'{identifier}.d'); os.chdir(f'{identifier}.d')\n"
            "for _ in range(500): os.mkdir('d'); os.chdir('d')\n"
            "open('bottom', 'w').write('x'); os.fchdir(here)"
        )
    assert carries(job, "@.d/" + "d/" * 500 + "bottom", "x")
    assert project.leftovers(job.identifier) == []


async def test_links_are_moved_as_links_and_never_followed(project: Project, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("untouched")
    async with project.puppet() as job:
        await job.do(f"os.symlink({str(outside)!r}, f'out_{{identifier}}'); os.symlink('nowhere', f'broken_{{identifier}}')")
        await job.do("os.mkdir(f'{identifier}.d'); os.symlink('..', f'{identifier}.d/loop'); open('plain', 'w').write('p')")
        await job.do("os.link('plain', f'hard_{identifier}'); os.symlink('/', 'round')")
    i = job.identifier
    assert job.stored == {
        f"out_{i}": f"-> {outside}", f"broken_{i}": "-> nowhere", f"{i}.d": "/", f"{i}.d/loop": "-> ..", f"hard_{i}": "p",
    }  # fmt: skip
    assert (outside / "secret").read_text() == "untouched"
    assert (project.path / "plain").read_text() == "p"
    assert project.leftovers(i) == []


async def test_special_files_are_left_and_told(project: Project) -> None:
    async with project.puppet() as job:
        await job.do("os.mkfifo(f'fifo_{identifier}'); os.mkdir(f'{identifier}.d'); os.mkfifo(f'{identifier}.d/fifo')")
        await job.do("open(f'{identifier}.d/file', 'w').write('x')")
        await job.do("import socket; s = socket.socket(socket.AF_UNIX); s.bind(f's_{identifier}')")
    i = job.identifier
    assert job.stored == {f"{i}.d": "/", f"{i}.d/file": "x"}
    left = ((f"fifo_{i}", "FIFO"), (f"{i}.d/fifo", "FIFO"), (f"s_{i}", "socket"))
    assert set(job.outcome.problems) == {f"`{path}` is a {kind}, it was left where it is" for path, kind in left}
    assert project.leftovers(i) == sorted([f"fifo_{i}", f"{i}.d", f"s_{i}"])


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_a_name_with_two_live_identifiers_is_left_and_told_by_both(project: Project) -> None:
    async with project.puppets(2) as (one, two):
        both = f"{one.identifier}_{two.identifier}"
        await one.do(f"open('{both}', 'w').write('whose?'); os.mkdir('d{both}'); open('d{both}/f', 'w').write('x')")
        await one.do("open(f'mine_{identifier}', 'w').write('m')")
        await project.until(one.named("mine_@").exists)
        # When one of the two has ended, the other must not get it
        one.end()
        await project.until(lambda: '"finished"' in (one.directory / "hermes.json").read_text())
        await two.do("open(f'other_{identifier}', 'w').write('o')")
    for job, other in ((one, f"mine_{one.identifier}"), (two, f"other_{two.identifier}")):
        assert set(job.stored) == {other}
        assert any(both in problem and "two live identifiers" in problem for problem in job.outcome.problems)
    assert (project.path / both).read_text() == "whose?"
    assert (project.path / f"d{both}" / "f").read_text() == "x"


NAMES = [
    b"new\nline", b" space ",
    b"-dash", b"\x1b[31mred", "\N{SNAKE}\N{LATIN SMALL LETTER E WITH ACUTE}".encode(), b"\xff\xfe\x80", b"'\"`$(rm)",
    b"[red]x", b"*?[a]", b"%s{}\\", b"\t", b"a" * 200,
]  # fmt: skip


async def test_any_name(project: Project) -> None:
    generator = random.Random(4)
    letters = [*range(1, 47), *range(48, 256)]
    names = NAMES + [bytes(generator.choices(letters, k=generator.randrange(1, 40))) for _ in range(500)]
    names = [*dict.fromkeys(names)]
    async with project.puppet() as job:
        await job.do(f"names = {names!r}\nfor n, name in enumerate(names): open(name + b'_' + identifier.encode(), 'w').write(str(n))")
        await job.do("os.mkdir(b'\\xfa\\xfb'); open(b'\\xfa\\xfb/f_' + identifier.encode(), 'w').write('in')")
    carried = {name: content for name, content in job.stored.items() if job.identifier in name}
    expected = {os.fsdecode(name) + f"_{job.identifier}": str(number) for number, name in enumerate(names)}
    assert carried == expected | {os.fsdecode(b"\xfa\xfb/f_") + job.identifier: "in"}
    assert project.leftovers(job.identifier) == []
    assert not job.outcome.problems


async def test_nothing_that_the_job_wrote_itself_is_overwritten(project: Project) -> None:
    async with project.puppet() as job:
        await job.do("open(f'{folder}/x_{identifier}', 'w').write('own'); open(f'x_{identifier}', 'w').write('collected')")
        await job.do(
            "os.mkdir(f'{folder}/d'); os.symlink('/tmp', f'{folder}/e'); os.mkdir('e'); open(f'e/f_{identifier}', 'w').write('kept')"
        )
    i = job.identifier
    assert job.stored[f"x_{i}"] == "own"
    assert job.stored[f"x_{i}.1"] == "collected"
    # Never through a link: left, and told
    assert job.stored["e"] == "-> /tmp"
    assert (project.path / f"e/f_{i}").read_text() == "kept"
    assert any(f"e/f_{i}" in problem for problem in job.outcome.problems)


async def test_what_is_not_searched(project: Project) -> None:
    project.write("venv/pyvenv.cfg")
    async with project.puppet() as job:
        await job.do(
            "for place in ('.git', 'node_modules', 'venv', 'a/node_modules/b', 'a/.git'):\n"
            "    os.makedirs(place, exist_ok=True); open(f'{place}/f_{identifier}', 'w').write('x')\n"
            "os.makedirs('a/experiments'); open(f'a/experiments/f_{identifier}', 'w').write('found')"
        )
    assert {name for name in job.stored if "f_" in name} == {f"a/experiments/f_{job.identifier}"}
    assert len(project.leftovers(job.identifier)) == 5


# One without the other


async def test_the_final_look_alone_collects_all(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Collector, "watch", lambda self: None)
    async with project.puppet() as job:
        await job.do("os.makedirs('a/b'); open(f'a/b/f_{identifier}', 'w').write('x'); open(f'g_{identifier}', 'w').write('y')")
        await job.do("os.mkdir(f'{identifier}.d'); open(f'{identifier}.d/h', 'w').write('z')")
        assert not job.named("g_@").exists()
    i = job.identifier
    assert job.stored == {"a": "/", "a/b": "/", f"a/b/f_{i}": "x", f"g_{i}": "y", f"{i}.d": "/", f"{i}.d/h": "z"}
    assert project.leftovers(i) == []


class Broken:
    """A watcher that cannot be made, as when the limit of watches is reached."""

    def __init__(self, *_: object) -> None:
        raise OSError(28, "OS file watch limit reached")


async def test_exhausted_watch_limits_cost_time_and_one_warning(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rust_notify, "RustNotify", Broken)
    async with project.puppet() as job:
        await job.do("open(f'f_{identifier}', 'w').write('x')")
        await project.until(lambda: carries(job, "f_@", "x"))
    assert job.stored == {f"f_{job.identifier}": "x"}
    assert len(job.run.result.warnings) == 1


async def test_a_watcher_that_dies_is_made_anew(project: Project) -> None:
    async with project.puppet() as job:
        await job.do("open(b'\\xff\\xfe', 'w').write('no utf-8')")
        for number in range(3):
            await job.do(f"open(f'f{number}_{{identifier}}', 'w').write('x')")
            await project.until(partial(lambda number: carries(job, f"f{number}_@", "x"), number))


async def test_twenty_thousand_files_at_once(project: Project) -> None:
    async with project.puppet() as job:
        await job.do("for n in range(20000): os.close(os.open(f'{n}_{identifier}', os.O_CREAT | os.O_WRONLY))")
    assert len(job.stored) == 20000
    assert project.leftovers(job.identifier) == []
    assert len(project.experiment().files) == 20000


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than `tmp_path`."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system here")
    with tempfile.TemporaryDirectory(dir=shared, prefix="hermes-test-") as folder:
        yield Path(folder)


async def test_across_file_systems(project: Project, elsewhere: Path) -> None:
    project.experiments_folder = elsewhere / "experiments"
    async with project.puppet(settings={"path_to_experiments": f'"{elsewhere}"'}, root=None) as job:
        await job.do("open(f'f_{identifier}', 'w').write('x'); os.symlink('t', f'l_{identifier}'); os.makedirs(f'{identifier}.d/e')")
        await job.do("open(f'{identifier}.d/e/g', 'w').write('y'); os.chmod(f'f_{identifier}', 0o640)")
    i = job.identifier
    assert str(job.directory).startswith(str(elsewhere))
    assert job.stored == {f"f_{i}": "x", f"l_{i}": "-> t", f"{i}.d": "/", f"{i}.d/e": "/", f"{i}.d/e/g": "y"}
    assert job.named("f_@").stat().st_mode & 0o777 == 0o640
    assert project.leftovers(i) == []


# A job that does anything, in any order

STORM = """\
import random
generator = random.Random({seed})
names = [p + n + '_' + identifier for p in ('', 'a/', 'a/b/', identifier + '.d/') for n in 'xyz']
os.makedirs('a/b', exist_ok=True); os.makedirs(identifier + '.d', exist_ok=True)
for count in range(60):
    name, other = generator.sample(names, 2)
    act = generator.choice(['create', 'create', 'append', 'replace', 'delete', 'rename', 'link'])
    try:
        if act == 'create': open(name, 'w').write(str(count))
        if act == 'append': open(name, 'a').write(str(count))
        if act == 'replace': open('tmp', 'w').write('r%d' % count); os.replace('tmp', name)
        if act == 'delete': os.unlink(name)
        if act == 'rename': os.rename(name, other)
        if act == 'link': os.symlink(str(count), name)
    except OSError: pass
    if generator.random() < 0.2: time.sleep(0.01)
left = {{}}
for top, folders, files in os.walk('.'):
    for each in files:
        path = os.path.relpath(os.path.join(top, each))
        if identifier in path and not path.startswith('experiments'):
            left[path] = '-> ' + os.readlink(path) if os.path.islink(path) else open(path).read()
open('{model}', 'w').write(repr(left))
"""


async def test_whatever_a_job_does_with_its_files_what_it_left_is_there(project: Project, tmp_path: Path) -> None:
    for seed in range(12):
        model = tmp_path / f"model{seed}"
        async with project.puppets(2) as (job, other):
            job_code = STORM.format(seed=seed, model=model)
            await other.do("open(f'a_{identifier}', 'w').write('other')")
            await job.do(job_code)
        files = {name: content for name, content in job.stored.items() if content != "/"}
        assert files == eval(model.read_text()), f"seed {seed}"
        assert project.leftovers(job.identifier) == []
        assert other.stored == {f"a_{other.identifier}": "other"}
        assert not job.outcome.problems


# Options that copy and move


async def test_copies_and_moves(project: Project) -> None:
    for name in ("conf/a.yaml", "conf/b.yaml", "x/same.txt", "y/same.txt", "data/deep/file", "take.txt", "odd [1].txt"):
        project.write(name, name)
    options = [
        "-cb conf/*.yaml", "-ca x/same.txt -ca y/same.txt", "-ca data", "-ma take.txt", "-ca 'odd [1].txt'", "-ca late_{identifier}",
        "-ma res_{identifier}.d", "-ca missing", "-ma none*",
    ]  # fmt: skip
    async with project.puppet(*options) as job:
        await job.do("open('conf/a.yaml', 'w').write('changed by the job')")
        await job.do(
            "open(f'late_{identifier}', 'w').write('l'); os.mkdir(f'res_{identifier}.d'); open(f'res_{identifier}.d/r', 'w').write('r')"
        )
    i = job.identifier
    assert job.stored == {
        "a.yaml": "conf/a.yaml", "b.yaml": "conf/b.yaml", "x": "/", "x/same.txt": "x/same.txt", "y": "/", "y/same.txt": "y/same.txt",
        "data": "/", "data/deep": "/", "data/deep/file": "data/deep/file", "take.txt": "take.txt", "odd [1].txt": "odd [1].txt",
        f"late_{i}": "l", f"res_{i}.d": "/", f"res_{i}.d/r": "r",
    }  # fmt: skip
    assert not (project.path / "take.txt").exists()
    assert (project.path / "x/same.txt").exists()
    assert set(job.outcome.problems) == {"`-ca missing`: no such file or directory", "`-ma none*`: no such file or directory"}
    assert project.leftovers(i) == []
    origins = {file.path: file.origin for file in project.experiment().files}
    assert (origins["a.yaml"], origins["take.txt"], origins["data"]) == ("copied-before", "moved", "copied-after")


async def test_paths_never_lead_out_of_the_experiment_directory(project: Project, tmp_path: Path) -> None:
    (tmp_path / "up.txt").write_text("up")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/up.txt").write_text("other")
    before = {
        path for path in tmp_path.rglob("*") if project.path not in (path, *path.parents) and project.control not in (path, *path.parents)
    }
    async with project.puppet("-ca ../up.txt -ca ../sub/up.txt", "-ca /etc/hostname", "-ca .", "-ma ..") as job:
        await job.do("os.symlink('/tmp', f'{folder}/sub')")
    assert job.stored["up.txt"] == "up"
    assert job.stored["sub"] == "-> /tmp"
    assert "hostname" in job.stored
    # The working directory holds the experiments: those are left out
    assert not any("experiments" in name for name in job.stored)
    assert any("-ma .." in problem for problem in job.outcome.problems)
    after = {
        path for path in tmp_path.rglob("*") if project.path not in (path, *path.parents) and project.control not in (path, *path.parents)
    }
    assert before == after


async def test_special_files_are_not_copied(project: Project) -> None:
    os.mkfifo(project.path / "fifo")
    project.write("folder/file", "x")
    os.mkfifo(project.path / "folder/fifo")
    async with project.puppet("-ca fifo -ca folder") as job:
        pass
    assert job.stored == {"folder": "/", "folder/file": "x"}
    assert len(job.outcome.problems) == 2
