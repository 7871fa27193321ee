"""The code of an experiment, put together again for another run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from hermes import HermesError
from hermes.language.settings import Settings
from hermes.storage.code_then import CodeThen, code_then
from hermes.storage.metadata import Metadata, read_metadata
from hermes.storage.run_folder import RunFolder

from ..support.snapshots import snapshot
from .conftest import Lab, a_job, git


def change(lab: Lab) -> None:
    """Changes that are in no commit."""
    lab.write("job.sh", "changed")
    lab.write("data.bin", bytes(reversed(range(256))))
    lab.write("staged.sh", "staged").chmod(0o755)
    os.symlink("job.sh", lab.path / "link")
    git(lab.path, "add", "staged.sh", "link")
    lab.write("ignored", "data")


def go_on(lab: Lab) -> None:
    git(lab.path, "add", "--all")
    git(lab.path, "commit", "--quiet", "--message", "later")
    lab.write("job.sh", "now")
    lab.write("data.bin", "now")
    lab.write("new.py", "now")
    (lab.path / "staged.sh").unlink()


def executed(lab: Lab, *, freeze: bool) -> tuple[RunFolder, str, Metadata]:
    """A run that is not closed, and the directory and metadata of an experiment of its."""
    run = lab.run(replace(lab.plan(), settings=Settings(freeze=freeze)))
    experiment = run.experiment(a_job(), "key")
    experiment.close_logs()
    experiment.complete()
    experiment.write(sync=False)
    return run, experiment.directory, read_metadata(experiment.directory)


def put_together(lab: Lab, directory: str, metadata: Metadata) -> tuple[CodeThen, RunFolder]:
    then = code_then(directory, metadata, lab.path, limit=60)
    plan = replace(lab.plan(), settings=Settings(freeze=True))
    # The plan makes its script where there is none
    return then, RunFolder.create(plan, "again", lab.timing, then=then)


def check(lab: Lab, again: RunFolder, metadata: Metadata) -> None:
    assert again.frozen is not None
    copy = Path(again.frozen.folder)
    assert (copy / "job.sh").read_text() == "changed"
    assert (copy / "data.bin").read_bytes() == bytes(reversed(range(256)))
    assert os.access(copy / "staged.sh", os.X_OK)
    assert os.readlink(copy / "link") == "job.sh"
    assert not (copy / "new.py").exists()
    assert os.readlink(copy / "ignored") == f"{lab.path}/ignored"
    experiment = again.experiment(a_job(), "key")
    experiment.close_logs()
    experiment.complete()
    experiment.write(sync=False)
    found = read_metadata(experiment.directory)
    assert found.git == metadata.git
    assert found.identifier[-5:] == metadata.identifier[-5:]


@pytest.mark.parametrize("way", ["tree", "copy", "patch"])
def test_the_code_of_then(repository: Lab, way: str) -> None:
    lab = repository
    change(lab)
    run, directory, metadata = executed(lab, freeze=way != "patch")
    if way == "tree":
        run.close(done=True)
    go_on(lab)
    if way == "copy":
        assert metadata.frozen is not None
        tree = str(metadata.frozen.tree)
        (lab.path / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    kept = lab.path / ".git"
    before = snapshot(kept, kept / "objects")
    then, again = put_together(lab, directory, metadata)
    assert (then.tree is None, then.copy is None) == (way == "copy", way != "copy")
    check(lab, again, metadata)
    assert snapshot(kept, kept / "objects") == before
    again.close(done=True)
    if way != "tree":
        run.close(done=True)


def without_repository(lab: Lab, directory: str) -> None:
    shutil.rmtree(lab.path / ".git")


def without_patch(lab: Lab, directory: str) -> None:
    Path(directory, "uncommitted.patch").unlink()


def with_foreign_patch(lab: Lab, directory: str) -> None:
    patch = Path(directory, "uncommitted.patch")
    patch.write_text(patch.read_text().replace("job.sh", "other.sh"))


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (without_repository, "is not in"),
        (without_patch, "uncommitted changes are not known"),
        (with_foreign_patch, "git apply"),
    ],
)
def test_code_that_is_not_known_any_more(
    repository: Lab, harm: Callable[[Lab, str], None], why: str
) -> None:
    lab = repository
    change(lab)
    run, directory, metadata = executed(lab, freeze=False)
    run.close(done=True)
    harm(lab, directory)
    with pytest.raises(HermesError, match=why):
        code_then(directory, metadata, lab.path, limit=60)
    assert sorted(os.listdir(directory)) == sorted(
        {"hermes.json", "re_execution.hermes", "stdout.log", "stderr.log", "uncommitted.patch"}
        - ({"uncommitted.patch"} if harm is without_patch else set())
    )
