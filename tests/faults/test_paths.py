"""Names, links and options that lead out of the tree."""

from __future__ import annotations

from pathlib import Path

import pytest

import hermes
from hermes import HermesError, Status

from ..support import (
    Project,
    RecordProperty,
)
from ..support.snapshots import snapshot


@pytest.fixture
def guarded(project: Project, tmp_path: Path) -> Project:
    """A project beside a tree that nothing may change, with a link `way` into that."""
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    for name in ("x.txt", "sub/x.txt", "passwd"):
        (outside / name).write_text(f"outside {name}")
    (outside / "link").symlink_to("/etc")
    (project.path / "way").symlink_to(outside)
    project.write("job.sh", "")
    return project


@pytest.mark.fault(14)
@pytest.mark.anyio
async def test_names_that_lead_out_are_refused_before_anything_starts(
    guarded: Project, record_property: RecordProperty
) -> None:
    names = (
        "../../x",
        "../x",
        "..",
        ".",
        "",
        "/",
        "/x",
        "a/b",
        "a/../../../x",
        "./x",
        "x/",
        "../outside",
        "way/x",
        ".hermes",
        "x\ny",
    )
    scripts = ("../..", "..", ".", "/", ".hermes", "way/..")
    record_property("tried", len(names) + len(scripts))
    path = guarded.hermes_file("[[sh, job.sh]]")
    for script in scripts:
        guarded.hermes_file(f"[[python, -m {script}]]", name=script.replace("/", "_"))
    before = snapshot(guarded.path.parent)
    for name in names:
        with pytest.raises(HermesError):
            await hermes.run_file(path, name, working_directory=guarded.path, root=guarded.path)
    for script in scripts:
        with pytest.raises(HermesError):
            file = guarded.path / f"{script.replace('/', '_')}.hermes"
            await hermes.run_file(file, "test", working_directory=guarded.path, root=guarded.path)
    assert snapshot(guarded.path.parent) == before


@pytest.mark.fault(14)
@pytest.mark.anyio
@pytest.mark.parametrize("flag", ["-ca", "-cb", "-ma"])
async def test_paths_that_lead_out_are_stored_inside(guarded: Project, flag: str) -> None:
    outside = guarded.path.parent / "outside"
    # The job puts links to the outside where the copies would go
    guarded.write(
        "job.sh",
        'cd "$HERMES_EXPERIMENT_DIR"; for n in outside way x.txt passwd project etc sub; do ln -s '
        '"$2" $n; done',
    )
    guarded.write("mine/x.txt", "mine")
    guarded.write("mine/sub/x.txt", "mine")
    paths = ["mine/../mine/x.txt", "./way/../project/mine/sub"]
    if flag != "-ma":
        # What is moved leaves its place, so that is another matter
        paths += [
            "../outside/x.txt",
            "way/sub/x.txt",
            "way/../outside/sub",
            "../outside",
            "..",
            f"{outside}/../outside/passwd",
            "/etc/passwd",
        ]
    # Not the file of the working directory: as the system sees it, `..` is where the link leads
    guarded.write("theirs.txt", "mine")
    (guarded.path.parent / "theirs.txt").write_text("theirs")
    paths += ["way/../theirs.txt"] if flag != "-ma" else []
    path = guarded.hermes_file(
        f"[[sh, job.sh, {outside}],[{', '.join(f'{flag} {each}' for each in paths)}]]"
    )
    mine = (guarded.experiments_folder, guarded.path / "mine", guarded.path)
    before = snapshot(guarded.path.parent, *mine)
    result = await hermes.run_file(path, "test", working_directory=guarded.path, root=guarded.path)
    assert result.outcomes[0].status is Status.FINISHED
    assert snapshot(guarded.path.parent, *mine) == before
    stored = guarded.experiment().directory
    for file in guarded.experiment().files:
        assert (stored / file.path).parent.resolve().is_relative_to(stored)
    if flag == "-ma":
        assert not list((guarded.path / "mine").rglob("x.txt"))
    else:
        assert (stored / "theirs.txt").read_text() == "theirs"
        assert {file.path for file in guarded.experiment().files} >= {"mine/x.txt", "mine/sub"}


@pytest.mark.fault(14)
@pytest.mark.anyio
@pytest.mark.parametrize("place", ["experiments", "experiments/job.sh", "experiments/job.sh/test"])
async def test_experiments_behind_a_link_change_nothing_else_there(
    guarded: Project, place: str
) -> None:
    outside = guarded.path.parent / "outside"
    (outside / "store").mkdir()
    (guarded.path / place).parent.mkdir(parents=True, exist_ok=True)
    (guarded.path / place).symlink_to(outside / "store")
    guarded.write("job.sh", ': > "a_$1"; mkdir "d_$1"; : > "d_$1/x"')
    before = snapshot(outside, outside / "store")
    assert (await guarded.run("[[sh, job.sh],[-ca ../outside/x.txt, -ca way/sub/x.txt]]")).ok
    assert snapshot(outside, outside / "store") == before
    own = guarded.experiment().identifier
    assert guarded.tree(guarded.experiment().directory, own=True).keys() == {
        f"a_{own}", f"d_{own}", f"d_{own}/x", "outside", "outside/x.txt", "way", "way/sub",
        "way/sub/x.txt"
    }  # fmt: skip
    # Experiments are named by identifiers too, and are not collected into one another
    assert (await guarded.run("[[sh, job.sh]]")).ok
    assert len(guarded.experiments()) == 2


@pytest.mark.fault(14)
@pytest.mark.anyio
async def test_a_folder_of_the_experiment_that_becomes_a_link_is_not_followed(
    guarded: Project,
) -> None:
    outside = guarded.path.parent / "outside"
    before = snapshot(outside)
    async with guarded.puppet() as job:
        await job.do("os.mkdir('plain'); open('plain/a_' + identifier, 'w').write('a')")
        await guarded.until(job.named("plain/a_@").exists)
        await job.do(
            f"os.rename(folder + '/plain', folder + '/kept'); os.symlink({str(outside)!r}, folder "
            f"+ '/plain')"
        )
        await job.do(
            "open('plain/b_' + identifier, 'w').write('b'); open('sign_' + identifier, 'w')"
        )
        await guarded.until(job.named("sign_@").exists)
    own = job.identifier
    assert snapshot(outside) == before
    for name in "ab":
        assert (
            f"`plain/{name}_{own}` could not be collected: its place in the experiment directory "
            f"is taken" in map(str, job.outcome.problems)
        )
        assert job.left(f"plain/{name}_@").read_text() == name
    assert job.stored == {
        "kept": "/",
        f"kept/a_{own}": "a",
        "plain": f"-> {outside}",
        f"sign_{own}": "",
    }
