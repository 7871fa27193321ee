"""The code that ran: each experiment tells the state it ran with, however git answers."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hermes.model import Job, Status
from hermes.storage.metadata import Metadata, read_metadata
from hermes.storage.run_folder import RunFolder
from hermes.timing import Timing

from .conftest import Lab, a_job, git

SLOW = """#!/bin/sh
case "$*" in *{word}*) sleep 30;; esac
PATH=${{PATH#*:}} exec git "$@"
"""


def started(run: RunFolder, job: Job | None = None) -> tuple[Path, Metadata]:
    experiment = run.experiment(job or a_job(), "key")
    experiment.close_logs()
    experiment.complete()
    experiment.write(sync=False)
    return Path(experiment.directory), read_metadata(experiment.directory)


def patch_of(directory: Path) -> bytes:
    path = directory / "uncommitted.patch"
    return path.read_bytes() if path.exists() else b""


@pytest.mark.fault(21)
@pytest.mark.parametrize("word", ["ls-files", "--binary", "symbolic-ref"])
def test_a_late_answer_is_left_out_alone(
    repository: Lab, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    commit = git(repository.path, "rev-parse", "HEAD")
    repository.program("bin/git", SLOW.format(word=word))
    monkeypatch.setenv("PATH", f"{repository.path}/bin", prepend=os.pathsep)
    # Long enough for a busy machine, on which git itself is slow
    repository.timing = Timing(git=3.0)
    _, metadata = repository.begun()
    assert metadata.git.commit == commit
    assert "longer than" in (metadata.git.reason or "")
    assert (metadata.git.branch == "trunk") == (word != "symbolic-ref")
    assert (metadata.git.dirty is None) == (word == "--binary")


def test_an_edit_a_commit_and_another_branch_during_the_run(repository: Lab) -> None:
    run = repository.run()
    _, clean = started(run)
    repository.write("job.sh", "echo 2")
    edited, dirty = started(run)
    git(repository.path, "commit", "--quiet", "--all", "--message", "second")
    _, committed = started(run)
    git(repository.path, "checkout", "--quiet", "-b", "other")
    _, switched = started(run)
    run.close(done=True)
    assert [each.git.dirty for each in (clean, dirty, committed, switched)] == [
        False, True, False, False,
    ]  # fmt: skip
    assert b"echo 2" in patch_of(edited)
    assert clean.git.commit == dirty.git.commit != committed.git.commit
    assert (committed.git.branch, switched.git.branch) == ("trunk", "other")


def test_another_tracked_file_edited_during_the_run(
    repository: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hermes.storage.code.INTERVAL", 0.0)
    monkeypatch.setattr("hermes.storage.code.MAX_SHARE", 1e9)
    run = repository.run()
    started(run)
    repository.write("data.bin", "edited")
    time.sleep(0.01)
    directory, metadata = started(run)
    run.close(done=True)
    assert metadata.git.dirty is True
    assert b"data.bin" in patch_of(directory)


@pytest.mark.parametrize("name", ["new.sh", "ignored", "experiments/new.sh", "with space\u00e9.sh"])
def test_a_script_in_no_commit_is_kept_whole(repository: Lab, tmp_path: Path, name: str) -> None:
    repository.write(name, "echo new idea")
    run = repository.run()
    (directory, metadata), (other, known) = started(run, a_job(script=name)), started(run)
    run.close(done=True)
    assert metadata.git.dirty is True
    assert "in no commit" in (metadata.git.reason or "")
    assert (known.git.dirty, patch_of(other)) == (False, b"")
    copy = tmp_path / "copy"
    git(repository.path, "clone", "--quiet", str(repository.path), str(copy))
    git(copy, "apply", str(directory / "uncommitted.patch"))
    assert (copy / name).read_text() == "echo new idea"


def test_a_script_to_which_a_link_leads_out_of_the_repository_is_told(
    repository: Lab, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.sh"
    outside.write_text("echo 1")
    (repository.path / "link.sh").symlink_to(outside)
    git(repository.path, "add", "link.sh")
    git(repository.path, "commit", "--quiet", "-m", "link")
    run = repository.run()
    _, metadata = started(run, a_job(script="link.sh"))
    run.close(done=True)
    assert "outside of the repository" in (metadata.git.reason or "")


def test_a_patch_applies_whatever_is_configured(repository: Lab) -> None:
    for setting in ("diff.context=0", "diff.noprefix=true", "diff.interHunkContext=9"):
        git(repository.path, "config", *setting.split("="))
    repository.write("job.sh", "echo 1\necho 2\n")
    run = repository.run()
    directory, _ = started(run)
    run.close(done=True)
    git(repository.path, "checkout", "--quiet", "job.sh")
    git(repository.path, "apply", str(directory / "uncommitted.patch"))
    assert (repository.path / "job.sh").read_text() == "echo 1\necho 2\n"


def test_tracked_code_below_experiments_counts(repository: Lab) -> None:
    repository.write("experiments/train.sh", "echo 1")
    git(repository.path, "add", "--force", "experiments/train.sh")
    git(repository.path, "commit", "--quiet", "--message", "code")
    repository.write("experiments/train.sh", "echo 2")
    directory, metadata = repository.begun()
    assert metadata.git.dirty is True
    assert b"echo 2" in patch_of(directory)


def test_changes_in_submodules(
    repository: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")
    for folder, below in ((tmp_path / "inner", None), (tmp_path / "outer", tmp_path / "inner")):
        folder.mkdir()
        git(folder, "init", "--quiet")
        (folder / "model.py").write_text("1\n")
        if below is not None:
            git(folder, "submodule", "--quiet", "add", str(below), "inner")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "first")
    git(repository.path, "submodule", "--quiet", "add", str(tmp_path / "outer"), "outer")
    git(repository.path, "submodule", "--quiet", "update", "--init", "--recursive")
    git(repository.path, "commit", "--quiet", "--message", "submodules")
    names = ("outer/model.py", "outer/inner/model.py")
    for name in names:
        repository.write(name, f"changed {name}\n")
    directory, metadata = repository.begun()
    assert metadata.git.dirty is True
    copy = tmp_path / "copy"
    git(repository.path, "clone", "--quiet", "--recursive", str(repository.path), str(copy))
    git(copy, "apply", str(directory / "uncommitted.patch"))
    for name in names:
        assert (copy / name).read_text() == f"changed {name}\n"


@pytest.fixture
def with_submodule(repository: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """With a submodule `inner`, which holds `job.sh` and `model.py`."""
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")
    inner = tmp_path / "inner"
    inner.mkdir()
    git(inner, "init", "--quiet")
    for name in ("job.sh", "model.py"):
        (inner / name).write_text("1\n")
    git(inner, "add", "--all")
    git(inner, "commit", "--quiet", "--message", "first")
    git(repository.path, "submodule", "--quiet", "add", str(inner), "inner")
    git(repository.path, "commit", "--quiet", "--message", "submodule")
    return repository


def test_a_script_in_a_submodule(with_submodule: Lab) -> None:
    run = with_submodule.run()
    _, clean = started(run, a_job(script="inner/job.sh"))
    with_submodule.write("inner/new.sh", "new")
    directory, new = started(run, a_job(script="inner/new.sh"))
    with_submodule.write("inner/job.sh", "2\n")
    edited, dirty = started(run, a_job(script="inner/job.sh"))
    run.close(done=True)
    assert (clean.git.dirty, clean.git.reason) == (False, None)
    assert (new.git.dirty, dirty.git.dirty) == (True, True)
    assert b"new" in patch_of(directory)
    assert "in no commit" in (new.git.reason or "")
    assert b"b/inner/job.sh" in patch_of(edited)


def test_another_commit_in_a_submodule(with_submodule: Lab) -> None:
    with_submodule.write("inner/model.py", "2\n")
    git(with_submodule.path / "inner", "commit", "--quiet", "--all", "--message", "second")
    with_submodule.write("inner/model.py", "3\n")
    directory, metadata = with_submodule.begun()
    assert metadata.git.dirty is True
    assert b"Subproject commit" in patch_of(directory)
    assert b"-1\n+3" in patch_of(directory)


def test_a_working_directory_in_a_submodule(with_submodule: Lab) -> None:
    with_submodule.write("inner/model.py", "2\n")
    inner = with_submodule.path / "inner"
    directory, metadata = with_submodule.begun(with_submodule.plan(inner))
    assert metadata.git.commit == git(inner, "rev-parse", "HEAD")
    assert metadata.git.dirty is True
    assert b"b/model.py" in patch_of(directory)


@pytest.mark.parametrize("is_home", [True, False])
def test_a_home_that_is_a_repository(
    repository: Lab, monkeypatch: pytest.MonkeyPatch, is_home: bool
) -> None:
    repository.write("project/model.py", "1")
    git(repository.path, "add", "project")
    git(repository.path, "commit", "--quiet", "--message", "project")
    monkeypatch.setenv("HOME", str(repository.path if is_home else repository.path.parent))
    repository.write(".gitignore", "secret")
    repository.write("private/letter.txt")
    plan = repository.plan(repository.path / "project")
    outside, metadata = repository.begun(plan)
    # The script is in no commit
    assert metadata.git.dirty is True
    for text in (b"secret", b"letter.txt"):
        assert (text in patch_of(outside)) == (not is_home)
    repository.write("project/model.py", "2")
    assert b"model.py" in patch_of(repository.begun(plan)[0])


def test_all_of_a_home_in_which_a_job_runs(
    repository: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(repository.path))
    repository.write("data.bin", "changed")
    assert b"data.bin" in patch_of(repository.begun()[0])


def test_most_untracked_files_are_not_named(repository: Lab) -> None:
    for number in range(1010):
        repository.write(f"many/{number}")
    repository.write("data.bin", "changed")
    patch = patch_of(repository.begun()[0])
    assert patch.count(b"# untracked: many/") == 1000
    assert b"\n# untracked: 10 more\n" in patch


def test_what_changes_before_git_has_told_is_said(
    repository: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Waits for the edit
    repository.program("bin/git", SLOW.replace("sleep 30", "until test -e edited; do :; done")
                       .format(word="--binary"))  # fmt: skip
    monkeypatch.setenv("PATH", f"{repository.path}/bin", prepend=os.pathsep)
    run = repository.run()
    experiment = run.experiment(a_job(), "key")
    experiment.close_logs()
    at_start = read_metadata(experiment.directory).git
    assert (at_start.commit, at_start.dirty) == (git(repository.path, "rev-parse", "HEAD"), None)
    assert "not told the rest" in (at_start.reason or "")
    time.sleep(0.05)
    repository.write("data.bin", "edited")
    repository.write("edited")
    experiment.complete()
    experiment.write(sync=False)
    run.close(done=True)
    found = read_metadata(experiment.directory).git
    assert found.dirty is True
    assert "may have changed" in (found.reason or "")


def test_a_cancelled_job_and_a_closed_run_wait_for_nothing(
    repository: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.program("bin/git", SLOW.format(word="--binary"))
    monkeypatch.setenv("PATH", f"{repository.path}/bin", prepend=os.pathsep)
    repository.timing = Timing(git=30.0)
    began = time.monotonic()
    run = repository.run()
    cancelled, other = run.experiment(a_job(), "key"), run.experiment(a_job(), "other")
    for experiment in (cancelled, other):
        experiment.close_logs()
    cancelled.metadata.status = Status.CANCELLED
    cancelled.complete()
    cancelled.write(sync=False)
    assert "not told the rest" in (read_metadata(cancelled.directory).git.reason or "")
    run.close(done=True)
    other.complete()
    other.write(sync=False)
    assert time.monotonic() - began < 20
    assert read_metadata(other.directory).git.dirty is None


def test_a_patch_that_the_job_has_written_itself_is_kept(
    repository: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits_for_job = SLOW.replace("sleep 30", "until test -e written; do sleep 0.01; done")
    repository.program("bin/git", waits_for_job.format(word="--binary"))
    monkeypatch.setenv("PATH", f"{repository.path}/bin", prepend=os.pathsep)
    repository.write("job.sh", "echo 2")
    run = repository.run()
    experiment = run.experiment(a_job(), "key")
    experiment.close_logs()
    directory = Path(experiment.directory)
    (directory / "uncommitted.patch").write_text("the job's own")
    repository.write("written")
    experiment.complete()
    experiment.write(sync=False)
    run.close(done=True)
    texts = [path.read_text() for path in directory.glob("uncommitted*")]
    assert "the job's own" in texts
    assert any("echo 2" in text for text in texts)


def test_patches_are_not_shared(repository: Lab) -> None:
    repository.write("job.sh", "echo 2")
    run = repository.run()
    (one, _), (other, _) = started(run), started(run)
    run.close(done=True)
    before = patch_of(other)
    (one / "uncommitted.patch").write_bytes(b"edited")
    assert patch_of(other) == before != b""


def test_the_repository_of_a_hook_is_not_that_of_the_code(
    repository: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = git(repository.path, "rev-parse", "HEAD")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    _, metadata = repository.begun()
    assert (metadata.git.commit, metadata.git.dirty) == (commit, False)


def test_the_program_that_ran(repository: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.program("bin/sh", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{repository.path}/bin", prepend=os.pathsep)
    _, metadata = repository.begun()
    assert metadata.program == f"{repository.path}/bin/sh"
