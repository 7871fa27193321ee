"""`hermes rerun --code then`: jobs with the code of then, while the user's repository stays as it
is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import hermes

from ..storage.conftest import git
from ..support import Desk

JOB = """\
import os, sys
sys.path.insert(0, ".")
from pkg.one import ONE
from helper import HELPER
print(ONE, HELPER, open("data/d").read(), os.readlink("link"), os.access("tool", os.X_OK))
print(open("with crlf").read().count("\\n"), os.path.exists("later.py"))
with open(f"made_{sys.argv[1]}", "w") as file:
    file.write("made")
"""

BEFORE = "committed, edited untracked data pkg/one.py True\n1 False\n"


@pytest.fixture
def repository(desk: Desk) -> Path:
    """A project in a folder of a repository, with edits, untracked code and ignored data, and an
    experiment that ran with them."""
    top = desk.path
    work = top / "work dir"
    for name, text in {
        "job.py": JOB,
        "pkg/one.py": "ONE = 'committed'\n",
        "tool": "#!/bin/sh\n",
        "with crlf": "one\r\n",
        ".gitignore": "data\nexperiments\n*.txt\n__pycache__\n",
    }.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    (work / "tool").chmod(0o755)
    (work / "link").symlink_to("pkg/one.py")
    git(top, "init", "-q")
    git(top, "add", ".")
    git(top, "commit", "-qm", "one")
    (work / "pkg" / "one.py").write_text("ONE = 'committed, edited'\n")
    (work / "helper.py").write_text("HELPER = 'untracked'\n")
    (work / "data").mkdir()
    (work / "data" / "d").write_text("data")
    return work


def ran(desk: Desk, work: Path, *words: str) -> hermes.FoundExperiment:
    desk.hermes("exec", "-e", "python job.py", "-n", "x", *words, cwd=work)
    return hermes.find_experiment(None, desk.path)


def edit(work: Path) -> None:
    """People go on: they edit, commit, rename and stage."""
    (work / "pkg" / "one.py").write_text("ONE = 'later'\n")
    (work / "later.py").touch()
    git(work, "add", ".")
    git(work, "commit", "-qm", "two")
    git(work, "mv", "job.py", "renamed.py")
    (work / "pkg" / "one.py").write_text("ONE = 'stashed'\n")
    git(work, "stash")
    git(work, "mv", "job.py", "renamed.py")
    (work / "pkg" / "one.py").write_text("ONE = 'edited once more'\n")


def state_of(top: Path) -> dict[str, object]:
    """What is the user's of a repository."""
    files = ("HEAD", "index", "logs/HEAD", "packed-refs", "logs/refs/stash")
    found: dict[str, object] = {
        name: path.read_bytes() for name in files if (path := top / ".git" / name).exists()
    }
    for words in (("for-each-ref",), ("stash", "list"), ("worktree", "list"), ("diff", "HEAD")):
        found[words[0]] = git(top, *words)
    return found


@pytest.mark.parametrize("freeze", [False, True])
def test_the_code_of_then(desk: Desk, repository: Path, freeze: bool) -> None:
    first = ran(desk, repository, *(["--freeze"] if freeze else []))
    assert first.stdout == BEFORE
    edit(repository)
    if freeze:
        # It was kept
        (repository / "helper.py").write_text("HELPER = 'changed'\n")
    before = state_of(desk.path)
    words = ("rerun", first.identifier, "--code", "then")
    assert "does not exist" in desk.hermes(*words[:2], cwd=repository, code=2).stderr
    for _ in range(2):
        # Of the rerun, too
        desk.hermes(*words, cwd=repository)
        again = hermes.find_experiment(None, desk.path)
        assert again.stdout == BEFORE
        assert again.metadata.git.commit == first.metadata.git.commit
        assert again.metadata.rerun_of == words[1]
        assert again.metadata.key == first.metadata.key
        assert again.metadata.working_directory == str(repository)
        assert [file.path for file in again.files] == [f"made_{again.identifier}"]
        if first.metadata.git.dirty:
            patches = [(each.directory / "uncommitted.patch").read_bytes()
                       for each in (first, again)]  # fmt: skip
            assert patches[0] == patches[1]
        words = ("rerun", again.identifier, "--code", "then")
    assert state_of(desk.path) == before
    hidden = desk.path / "experiments" / ".hermes"
    assert not [each for each in os.listdir(hidden) if each.endswith((".hermes-part", "code"))]
    assert not [path for path in hidden.iterdir() if (path / "run.json").exists()]


def test_what_cannot_be_restored_is_told(desk: Desk, repository: Path) -> None:
    first = ran(desk, repository)

    def told() -> str:
        words = ("rerun", first.identifier, "--code", "then", "--root", "..")
        done = desk.hermes(*words, cwd=repository, code=2)
        before = f"error: the code of `{first.identifier}` is not known any more: "
        assert done.stderr.startswith(before)
        return done.stderr.splitlines()[0].removeprefix(before)

    helper = repository / "helper.py"
    kept = helper.stat()
    helper.write_text("HELPER = 'changed'\n")
    assert told() == "`work dir/helper.py` was in no commit, and has changed since"
    helper.unlink()
    done = desk.hermes("rerun", first.identifier, "--code", "then", cwd=repository, code=1)
    gone = "warning: `work dir/helper.py` was in no commit, and is gone: the job runs without it"
    assert gone in done.stderr
    helper.write_text("HELPER = 'untracked'\n")
    os.utime(helper, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    patch = first.directory / "uncommitted.patch"
    text = patch.read_text()
    patch.write_text(text.replace("'committed'", "'other'"))
    assert told().startswith("`git apply`: error: patch failed: work dir/pkg/one.py:1")
    patch.write_text(text)
    assert len(list(desk.path.glob("experiments/[!.]*/*/*"))) == 2
    done = desk.hermes("rerun", first.identifier, "--code", "tomorrow", cwd=repository, code=2)
    assert "not of `tomorrow`" in done.stderr


def test_a_failed_job_is_resumed_with_the_code_of_then(desk: Desk, repository: Path) -> None:
    first = ran(desk, repository)
    (repository / "data" / "d").rename(repository / "data" / "away")
    edit(repository)
    # Under a name of its own, for under the other one the job has succeeded
    words = ("rerun", first.identifier, "-n", "again", "--code", "then")
    desk.hermes(*words, cwd=repository, code=1)
    (repository / "data" / "away").rename(repository / "data" / "d")
    (copy,) = desk.path.glob("experiments/.hermes/*/code")
    copy.rename(desk.path / "copy")
    done = desk.hermes("resume", "--failed", cwd=repository, code=2)
    assert "the frozen code of the run" in done.stderr
    (desk.path / "copy").rename(copy)
    desk.hermes("resume", "--failed", cwd=repository)
    assert hermes.find_experiment(None, desk.path).stdout == BEFORE


def test_outside_of_git(desk: Desk) -> None:
    desk.write("job.py", "pass")
    first = ran(desk, desk.path)
    done = desk.hermes("rerun", first.identifier, "--code", "then", code=2)
    assert "git told no commit (not a git repository)" in done.stderr
