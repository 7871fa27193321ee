"""Commit, uncommitted changes, machine: known where they can be, and never in the way of a run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hermes.storage.metadata import GitState
from hermes.storage.provenance import boot_id, process_start, start_ticks, versions
from hermes.timing import Timing

from .conftest import Lab, git


def test_a_clean_tree(repository: Lab) -> None:
    directory, metadata = repository.begun()
    commit = git(repository.path, "rev-parse", "HEAD")
    assert metadata.git == GitState(commit=commit, branch="trunk", dirty=False)
    assert metadata.identifier.endswith(f"_{commit[-5:]}")
    assert not (directory / "uncommitted.patch").exists()


def test_untracked_files_and_experiments_alone_are_not_dirty(repository: Lab) -> None:
    repository.write("new.txt", "new")
    tracked, _ = repository.begun()
    git(repository.path, "add", "--force", "experiments")
    git(repository.path, "commit", "--quiet", "--message", "experiments too")
    (tracked / "stdout.log").write_text("changed by hand")
    other, metadata = repository.begun()
    assert metadata.git.dirty is False
    assert not (other / "uncommitted.patch").exists()


@pytest.mark.fault(21)
def test_a_dirty_tree_is_kept_as_a_patch(
    repository: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Configuration that would spoil the patch
    config = tmp_path / "gitconfig"
    config.write_text(
        "[color]\n\tui = always\n"
        "[diff]\n\texternal = false\n\tnoprefix = true\n\trelative = true\n\tsubmodule = log\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    repository.write("job.sh", "echo dirty")
    repository.write("data.bin", bytes(range(255, -1, -1)))
    repository.write("staged.txt", "no end of line")
    git(repository.path, "add", "staged.txt")
    repository.write("new\nline.txt", "untracked")
    repository.write("ignored", "ignored")
    (directory, metadata), (other, _) = repository.begun(), repository.begun()
    assert metadata.git.dirty is True
    patch = directory / "uncommitted.patch"
    assert patch.read_bytes() == (other / "uncommitted.patch").read_bytes()
    assert b"untracked" in patch.read_bytes()
    assert b"line.txt" in patch.read_bytes()
    assert b"# untracked: ignored" not in patch.read_bytes()
    # Put onto a fresh copy, it gives what was executed
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    git(repository.path, "clone", "--quiet", str(repository.path), str(tmp_path / "copy"))
    git(tmp_path / "copy", "apply", "--whitespace=nowarn", str(patch))
    for name in ("job.sh", "data.bin", "staged.txt"):
        assert (tmp_path / "copy" / name).read_bytes() == (repository.path / name).read_bytes()


def test_a_dirty_tree_seen_from_a_folder_in_it(repository: Lab) -> None:
    git(repository.path, "config", "diff.relative", "true")
    repository.write("sub/job.sh", "")
    repository.write("data.bin", "changed outside of the folder")
    directory, metadata = repository.begun(repository.plan(repository.path / "sub"))
    assert metadata.git.dirty is True
    assert b"data.bin" in (directory / "uncommitted.patch").read_bytes()


@pytest.mark.fault(21)
def test_a_repository_without_a_commit(repository: Lab) -> None:
    git(repository.path, "update-ref", "-d", "HEAD")
    _, metadata = repository.begun()
    assert metadata.identifier.endswith("_00000")
    assert metadata.git.commit is None
    assert "no commit" in (metadata.git.reason or "")


@pytest.mark.fault(21)
def test_a_commit_without_a_branch(repository: Lab) -> None:
    git(repository.path, "checkout", "--quiet", "--detach")
    _, metadata = repository.begun()
    assert metadata.git.branch is None
    assert metadata.git.dirty is False


@pytest.mark.fault(21)
def test_a_corrupt_repository(repository: Lab) -> None:
    (repository.path / ".git" / "HEAD").write_bytes(b"\0\xff")
    _, metadata = repository.begun()
    assert metadata.git.commit is None
    assert metadata.git.reason


def _without_objects(git_folder: Path) -> None:
    for path in git_folder.glob("objects/*/*"):
        path.chmod(0o644)
        path.write_bytes(b"")


def _moved_away(git_folder: Path) -> None:
    git_folder.rename(git_folder.with_name("moved"))
    git_folder.write_text("gitdir: /no/such/folder\n")


DAMAGES: dict[str, tuple[Callable[[Path], object], bool]] = {
    "empty objects": (_without_objects, True),
    "bad index": (lambda git_folder: (git_folder / "index").write_bytes(b"\0" * 100), True),
    "bad configuration": (lambda git_folder: (git_folder / "config").write_bytes(b"[[["), False),
    "bad branch": (
        lambda git_folder: (git_folder / "refs" / "heads" / "trunk").write_bytes(b"\xff"),
        False,
    ),
    "no HEAD": (lambda git_folder: (git_folder / "HEAD").unlink(), False),
    "moved away": (_moved_away, False),
}
"""What can happen to a repository, and whether its commit is still known then."""


@pytest.mark.fault(21)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_repository(repository: Lab, damage: str) -> None:
    commit = git(repository.path, "rev-parse", "HEAD")
    harm, is_known = DAMAGES[damage]
    harm(repository.path / ".git")
    _, metadata = repository.begun()
    assert metadata.git.commit == (commit if is_known else None)
    assert metadata.git.dirty is None
    assert metadata.git.reason


@pytest.mark.fault(21)
def test_a_repository_of_somebody_else(repository: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    _, metadata = repository.begun()
    assert "dubious ownership" in (metadata.git.reason or "")


@pytest.mark.fault(21)
def test_a_bare_repository(repository: Lab, tmp_path: Path) -> None:
    bare = tmp_path.resolve() / "bare.git"
    git(repository.path, "clone", "--quiet", "--bare", str(repository.path), str(bare))
    _, metadata = Lab(bare).begun()
    assert metadata.git == GitState(reason="not a git repository")


@pytest.mark.fault(21)
def test_git_whose_children_hold_its_output(
    repository: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.program("bin/git", "#!/bin/sh\nsleep 5 &\nwait\n")
    monkeypatch.setenv("PATH", f"{repository.path}/bin", prepend=os.pathsep)
    repository.timing = Timing(git=0.2)
    began = time.monotonic()
    _, metadata = repository.begun()
    assert time.monotonic() - began < 5
    assert metadata.git.reason == "git took longer than 0.2 s"


@pytest.mark.fault(21)
def test_without_git(repository: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = repository.plan()
    monkeypatch.setenv("PATH", str(repository.path))
    _, metadata = repository.begun(plan)
    assert metadata.git == GitState(reason="git is not installed")


@pytest.mark.fault(21)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#!/bin/sh\nexec /bin/sleep 1000\n", "longer than"),
        ("#!/bin/sh\necho oh no >&2; exit 3\n", "oh no"),
        ("#!/bin/sh\nexit 3\n", "exit code 3"),
        ("#!/no/such/program\n", "git"),
    ],
)
def test_git_that_is_of_no_use(
    repository: Lab, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    plan = repository.plan()
    repository.program("bin/git", text)
    monkeypatch.setenv("PATH", f"{repository.path}/bin")
    repository.timing = Timing(git=0.2 if "sleep" in text else 5.0)
    _, metadata = repository.begun(plan)
    assert metadata.identifier.endswith("_00000")
    assert metadata.git.commit is None
    assert reason in (metadata.git.reason or "")


def test_the_start_of_a_process_tells_it_from_another_with_its_number() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        start = process_start(process.pid)
        assert start
        assert process_start(process.pid) == start
        assert start != process_start(os.getpid())
    assert process_start(process.pid) is None
    assert start_ticks(process.pid) is None


def test_the_boot_id_stays_as_it_is() -> None:
    assert boot_id()
    assert boot_id() == boot_id()


def test_versions_are_those_of_what_executes() -> None:
    found = versions("1.2")
    assert (found.hermes, found.python) == ("1.2", sys.version.split()[0])
    assert found.platform == f"{os.uname().sysname}-{os.uname().release}"
