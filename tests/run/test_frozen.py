"""Whole runs whose jobs run in frozen code, while people work on it."""

from __future__ import annotations

import os

import pytest

import hermes
from hermes import HermesError, Status

from ..support import Desk, Project, until
from ..support.frozen import copy_of, entry, git, prepare, work_on
from ..support.words import PYTHON

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def own_git(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.mark.parametrize("is_killed", [False, True])
def test_what_people_do_meanwhile_changes_nothing(desk: Desk, is_killed: bool) -> None:
    prepare(desk)
    desk.hermes_file(entry(desk), settings={"freeze": True})
    with desk.started("exec", "-f", "x.hermes", "-n", "test") as runner:
        until(lambda: (desk.control / "started0").exists())
        copy = copy_of(desk)
        work_on(desk)
        own = [desk.path / ".git" / name for name in ("index", "HEAD", "logs/HEAD")]
        before = [path.read_bytes() for path in own]
        said = [git(desk.path, *words) for words in (["stash", "list"], ["branch", "--all"])]
        if is_killed:
            runner.kill()
            runner.communicate()
        (desk.control / "go").touch()
        if not is_killed:
            _, told = runner.communicate()
            assert runner.returncode == 0, told
    if is_killed:
        told = desk.hermes("resume").stderr
        assert len(desk.experiments()) == 3
    assert "`freeze` has linked and not copied `results`, `x.hermes`: " not in told
    assert "`freeze` has linked and not copied `results`: " in told
    shown = desk.hermes("show", desk.experiments()[0].identifier).stdout
    assert "frozen as the run began, git's tree " in shown
    assert f": {copy}\n" in shown
    assert "not frozen: results\n" in shown
    commits = set()
    for experiment in desk.experiments():
        assert experiment.status is Status.FINISHED
        assert experiment.stdout == f"then then True {copy}\n"
        metadata = experiment.metadata
        model = f"model_{experiment.identifier}"
        expected = dict.fromkeys((model, f"results/{model}", f"sub/{model}"), "then untracked")
        assert desk.tree(experiment.directory, own=True) == {**expected, "results": "/", "sub": "/"}
        assert desk.leftovers(experiment.identifier) == []
        assert metadata.working_directory == str(desk.path)
        assert metadata.frozen is not None
        assert metadata.frozen.folder == str(copy)
        assert metadata.git.dirty
        assert "+VALUE = 'then'" in (experiment.directory / "uncommitted.patch").read_text()
        commits.add((metadata.git.commit, metadata.git.branch, metadata.identifier[-5:]))
    first = git(desk.path, "rev-parse", "trunk~1")
    assert commits == {(first, "trunk", first[-5:])}
    # What carries no identifier is where it would be without a copy, which is gone
    assert sorted((desk.path / "all.txt").read_text()) == ["0", "1", "2"]
    assert not copy.parent.exists()
    assert [path.read_bytes() for path in own] == before
    assert said == [git(desk.path, *words) for words in (["stash", "list"], ["branch", "--all"])]
    assert len(git(desk.path, "worktree", "list").splitlines()) == 1


async def test_files_are_collected_from_the_copy_and_through_links(project: Project) -> None:
    prepare(project)
    project.write("fixed.txt", "before")
    project.write("given.txt", "then")
    project.write("conf/kept.txt", "then")
    project.write("conf/large", bytes(1_000_000))
    options = ["-cb given.txt", "-cb conf", "-ca fixed.txt", "-ma moved.txt", "-ma results/late"]
    async with project.puppet(*options, settings={"freeze": True}) as job:
        copy = copy_of(project)
        await job.do("assert os.getcwd().endswith('/code')")
        (project.path / "given.txt").write_text("now")
        await job.do("open(identifier, 'w').close(); os.mkdir('new'); print('x', flush=True)")
        await project.until(lambda: job.identifier in job.stored)
        await job.do("open('new/a_' + identifier, 'w').write('deep')")
        await project.until(lambda: f"new/a_{job.identifier}" in job.stored)
        await job.do("open('results/a_' + identifier, 'w').write('linked')")
        await project.until(lambda: f"results/a_{job.identifier}" in job.stored)
        await job.do("os.unlink('results/a_' + identifier)")
        await project.until(lambda: f"results/a_{job.identifier}" not in job.stored)
        # By its own path, as a script may that knows where its project is
        await job.do(f"open({str(project.path)!r} + '/b_' + identifier, 'w').close()")
        await project.until(lambda: f"b_{job.identifier}" in job.stored)
        job.end(
            "open('fixed.txt', 'w').write('after'); open('moved.txt', 'w').close()\n"
            "open('results/late', 'w').close(); open('new/plain', 'w').write('kept')\n"
        )
    assert job.outcome.ok, job.outcome.problems
    stored = job.stored
    assert stored.pop("conf/large") == "\0" * 1_000_000
    assert stored == {
        job.identifier: "", f"b_{job.identifier}": "", "new": "/",
        f"new/a_{job.identifier}": "deep", "given.txt": "then", "conf": "/",
        "conf/kept.txt": "then", "fixed.txt": "after", "moved.txt": "", "late": "",
    }  # fmt: skip
    assert not copy.exists()
    assert (project.path / "new" / "plain").read_text() == "kept"
    assert (project.path / "fixed.txt").read_text() == "after"
    assert not (project.path / "results" / "late").exists()
    assert not (project.path / "moved.txt").exists()


@pytest.mark.parametrize("cwd", ["here", "experiment"])
async def test_python_imports_the_copy_or_a_warning_tells(
    project: Project, monkeypatch: pytest.MonkeyPatch, cwd: str
) -> None:
    prepare(project)
    project.write("src/inner.py", "VALUE = 1\n")
    project.write("outer.py", "import inner, os; print(inner.__file__)\n")
    (project.control / "go").touch()
    settings = {"freeze": True, "cwd": cwd, "env": f"PYTHONPATH={project.path}/src"}
    result = await project.run(f"[[{PYTHON}, {project.path}/outer.py]]", settings=settings)
    assert result.ok
    experiment = project.experiment()
    assert experiment.metadata.frozen is not None
    copy = experiment.metadata.frozen.folder
    assert experiment.stdout == f"{copy}/src/inner.py\n"
    assert experiment.argv[2] == f"{copy}/outer.py"
    assert not any("imports from" in each for each in result.warnings)
    # As an editable install does: a finder, or a folder on the path
    python = project.program(
        "bin/python",
        f'#!/bin/sh\nPYTHONPATH={project.path}/src exec {PYTHON.split()[0]} "$@"\n',
    )
    result = await project.run(f"[[{python}, outer.py]]", settings={"freeze": True})
    assert result.ok
    (told,) = (each for each in result.warnings if "imports from" in each)
    assert f"`{project.path}/src`" in told
    assert "`env: PYTHONPATH=src`" in told
    # As it is told to do
    python.write_text(python.read_text().replace("src", "src:$PYTHONPATH"))
    settings = {"freeze": True, "env": "PYTHONPATH=src"}
    result = await project.run(f"[[{python}, outer.py]]", settings=settings)
    assert not any("imports from" in each for each in result.warnings)


async def test_a_run_whose_frozen_code_is_gone_is_not_resumed_with_other_code(
    project: Project,
) -> None:
    prepare(project)
    async with project.open(entry(project, 2), settings={"freeze": True}) as run:
        await project.until((project.control / "started0").exists)
        project.write("later.sh")
        # It is not part of the code with which the run began
        with pytest.raises(HermesError, match=r"`later\.sh` does not exist"):
            await run.add(project.hermes_file("[[sh, later.sh]]", name="added"))
        run.cancel()
    copy = copy_of(project)
    copy.rename(copy.with_name("elsewhere"))
    with pytest.raises(HermesError, match="frozen code of the run"):
        async with hermes.open_resumed(working_directory=project.path):
            pass
    async with hermes.open_stopped(working_directory=project.path, forget=True) as run:
        pass
    assert run.result.warnings == ()
    assert not copy.parent.exists()


async def test_what_cannot_be_brought_back_is_kept_with_the_run(project: Project) -> None:
    prepare(project)
    async with project.puppet(settings={"freeze": True}) as job:
        copy = copy_of(project)
        await job.do("os.mkdir('new'); open('new/file', 'w').write('kept')")
        project.write("new", "a file of the user's")
        job.end()
    assert job.outcome.ok
    (told,) = (each for each in job.run.result.warnings if "new/file" in each)
    assert "something else is in the place of its folder" in told
    assert (copy / "new" / "file").read_text() == "kept"
    (project.path / "new").unlink()
    async with hermes.open_resumed(working_directory=project.path):
        pass
    assert (project.path / "new" / "file").read_text() == "kept"
    assert not copy.parent.exists()
