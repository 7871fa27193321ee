"""Collection, copies and moves as a run has them: told as events, listed in the metadata.

How they work is tested in `tests/collection`, without a run.
"""

from __future__ import annotations

import os
import resource
import stat

import pytest

import hermes
from hermes import FileCollected, RunWarning, Status
from hermes.model import ProblemKind

from ..support import Project

pytestmark = pytest.mark.anyio


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
async def test_everything_comes_and_nothing_remains(project: Project) -> None:
    project.write(
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
    result = await project.run("[[sh, job.sh]]")
    assert result.ok
    experiment = project.experiment()
    own = experiment.identifier
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


async def test_each_job_gets_its_own(project: Project) -> None:
    project.write(
        "job.sh",
        """\
        for i in 1 2 3 4 5 6 7 8 9; do
            printf "$1" > "f${i}_$1"; mkdir "d${i}_$1"; printf "$1" > "d${i}_$1/x"
            mv "f${i}_$1" "g${i}_$1"
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
        printf after > before.txt; printf mine > "result_$1.csv"; mkdir out
        printf "$1" > "out/$1"; printf m > moved.txt
        exit 1
        """,
    )
    options = (
        "-ca networks/cnn.py, -ca data/, -cb before.txt, -ca before.txt, -ma out, -ma moved.txt, "
        "-ca result_{identifier}.csv"
    )
    (outcome,) = (await project.run(f"[[sh, job.sh],[{options}]]")).outcomes
    own = outcome.identifier
    assert outcome.problems == ()
    stored = project.tree(project.experiment().directory, own=True)
    assert stored == {
        "cnn.py": "cnn", "data": "/", "data/sub": "/", "data/sub/x.txt": "x", "data/y.txt": "y",
        "data/link": "-> y.txt",
        "before.txt": "before", "before.txt.1": "after", "out": "/", f"out/{own}": own,
        "moved.txt": "m", f"result_{own}.csv": "mine",
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
        assert [problem.kind for problem in outcome.problems] == [ProblemKind.NOT_COPIED]
    assert not (project.path / "executed").exists()


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
    assert experiment.metadata.options.log is True


# What is told of it


async def test_collected_files_are_announced_under_the_names_they_have(project: Project) -> None:
    project.write(
        "job.sh",
        'printf x > "$HERMES_EXPERIMENT_DIR/a_$1"; printf y > "a_$1"; : > "b_$1"; '
        'mkdir -p sub; : > "sub/c_$1"',
    )
    told = []
    async with project.open("[[sh, job.sh]]") as run:
        async for event in run:
            assert not isinstance(event, RunWarning)
            if isinstance(event, FileCollected):
                told.append(event.path)
    own = project.experiment().identifier
    assert sorted(told) == sorted([f"a_{own}.1", f"b_{own}", f"sub/c_{own}"])


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
