"""Frozen code: what is copied, what is linked, and that nothing of the user's is touched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from hermes.language.settings import Settings
from hermes.storage import code_files
from hermes.storage.bringing_back import bring_back
from hermes.storage.freezing import freeze
from hermes.storage.frozen import Frozen, load_frozen
from hermes.storage.git import UNKNOWN
from hermes.storage.metadata import read_metadata

from ..support.snapshots import snapshot
from .conftest import Lab, a_job, git

LARGE = bytes(code_files.LARGE)


def frozen_of(lab: Lab, folder: Path | None = None, name: str = "run") -> Frozen:
    """The frozen code of a run in a folder of the lab."""
    run_folder = lab.experiments / ".hermes" / name
    run_folder.mkdir(parents=True)
    frozen = freeze(lab.plan(folder), str(run_folder), lambda: UNKNOWN, limit=60)
    assert load_frozen(str(run_folder), str(folder or lab.path)) == frozen
    assert sorted(path.name for path in run_folder.iterdir()) == ["code", "frozen.json"]
    return frozen


def copied(frozen: Frozen) -> dict[str, str]:
    """What is in the copy: content of files, target of links."""
    found = {}
    for folder, folders, files in os.walk(frozen.folder):
        for name in (*folders, *files):
            path = Path(folder, name)
            key = str(path.relative_to(frozen.folder))
            if path.is_symlink():
                found[key] = f"-> {os.readlink(path)}"
            elif path.is_file():
                found[key] = path.read_text(errors="replace")
    return found


def test_what_is_copied_and_what_is_linked(repository: Lab) -> None:
    lab = repository
    lab.write("job.sh", "changed")
    lab.write("pkg/new.py", "untracked")
    lab.write("pkg/__pycache__/new.pyc", "compiled")
    lab.write("pkg/ignored", "ignored")
    lab.write("ignored/data", "ignored")
    lab.write("pkg/large", LARGE)
    lab.write("data.bin", LARGE)
    lab.write(".hermes_settings", "# may hold secrets")
    lab.write("staged", "staged")
    git(lab.path, "add", "staged")
    lab.write("gone")
    git(lab.path, "add", "gone")
    (lab.path / "gone").unlink()
    lab.program("run me.sh", "x\ny")
    os.symlink("pkg/new.py", lab.path / "inside")
    os.symlink(lab.path / "pkg" / "new.py", lab.path / "absolute")
    os.symlink("../elsewhere", lab.path / "outside")
    os.mkfifo(lab.path / "fifo")
    frozen = frozen_of(lab)
    found = copied(frozen)
    assert len(found.pop("data.bin")) == len(LARGE)
    here = str(lab.path)
    assert found == {
        ".gitignore": "ignored\n*.hermes\n",
        ".hermes_settings": f"-> {here}/.hermes_settings",
        "job.sh": "changed",
        "pkg/new.py": "untracked",
        "pkg/ignored": f"-> {here}/pkg/ignored",
        "pkg/large": f"-> {here}/pkg/large",
        "ignored": f"-> {here}/ignored",
        "staged": "staged",
        "run me.sh": "x\ny",
        "inside": "-> pkg/new.py",
        "absolute": "-> pkg/new.py",
        "outside": f"-> {lab.path.parent}/elsewhere",
        "fifo": f"-> {here}/fifo",
        "experiments": f"-> {here}/experiments",
        "x.hermes": f"-> {here}/x.hermes",
    }
    assert os.access(f"{frozen.folder}/run me.sh", os.X_OK)
    linked = (".hermes_settings", "fifo", "ignored", "pkg/ignored", "pkg/large", "x.hermes")
    assert frozen.metadata.linked == linked
    original, copy = (os.stat(f"{top}/job.sh") for top in (here, frozen.folder))
    assert original.st_mtime_ns == copy.st_mtime_ns
    assert original.st_ino != copy.st_ino


def test_git_keeps_the_code_and_nothing_else_of_it_changes(repository: Lab) -> None:
    lab = repository
    for name in ("post-index-change", "post-checkout", "reference-transaction", "pre-commit"):
        lab.program(f".git/hooks/{name}", f"#!/bin/sh\necho {name} >> {lab.path}/ignored\n")
    # A filter must not have a part in it: it may be slow, or change what is there
    git(lab.path, "config", "filter.upper.clean", "tr a-z A-Z")
    git(lab.path, "config", "filter.upper.smudge", f"touch {lab.path}/ignored; cat")
    lab.write(".gitattributes", "*.txt filter=upper\n*.sh text eol=crlf\n")
    lab.write("text.txt", "as it is")
    lab.write("job.sh", "line\r\n")
    git(lab.path, "add", "text.txt")
    lab.write("stashed", "x")
    git(lab.path, "stash", "push", "--include-untracked", "--", "stashed")
    (lab.path / "ignored").unlink(missing_ok=True)
    asked = ("stash list", "reflog", "for-each-ref", "worktree list")
    said = [git(lab.path, *words.split()) for words in asked]
    own, objects = lab.path / ".git", lab.path / ".git" / "objects"
    before = snapshot(own, objects)
    frozen = frozen_of(lab)
    assert snapshot(own, objects) == before
    assert [git(lab.path, *words.split()) for words in asked] == said
    assert not (lab.path / "ignored").exists()
    assert copied(frozen)["text.txt"] == "as it is"
    tree = frozen.record.tree
    assert tree is not None
    assert git(lab.path, "cat-file", "blob", f"{tree}:text.txt") == "as it is"
    names = git(lab.path, "ls-tree", "-r", "--name-only", tree).split()
    assert names == [".gitattributes", ".gitignore", "data.bin", "job.sh", "text.txt"]


@pytest.mark.parametrize("place", ["", "below"])
def test_submodules_worktrees_and_inner_repositories(repository: Lab, place: str) -> None:
    lab = repository
    inner = lab.path / "made" / "inner"
    inner.mkdir(parents=True)
    git(inner, "init", "--quiet")
    lab.write("made/inner/module.py", "committed")
    git(inner, "add", "--all")
    git(inner, "commit", "--quiet", "--message", "inner")
    allow = ("-c", "protocol.file.allow=always")
    git(lab.path, *allow, "submodule", "--quiet", "add", str(inner), "sub")
    lab.write("below/tool.py", "tool")
    git(lab.path, "add", "below")
    git(lab.path, "commit", "--quiet", "--message", "second")
    tree = lab.path.parent / "tree"
    git(lab.path, "worktree", "add", "--quiet", str(tree))
    git(tree, *allow, "submodule", "--quiet", "update", "--init")
    for top in (lab.path, tree):
        (top / "sub" / "module.py").write_text("changed")
        (top / "sub" / "new.py").write_text("untracked")
        frozen = frozen_of(lab, top / place, name=top.name)
        found = copied(frozen)
        assert found["sub/module.py"] == "changed"
        assert found["sub/new.py"] == "untracked"
        assert found["below/tool.py"] == "tool"
        assert (found.get("made/inner/module.py") == "committed") is (top == lab.path)
        assert frozen.working_directory == os.path.normpath(f"{frozen.folder}/{place}")
    assert len(git(lab.path, "worktree", "list").splitlines()) == 2


def test_without_git_and_where_git_ignores_the_working_directory(
    repository: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_files, "MANY", 3)
    lab = repository
    folder = lab.path / "ignored"
    lab.write("ignored/tool.py", "tool")
    lab.write("ignored/large", LARGE)
    lab.write("ignored/venv/pyvenv.cfg")
    for number in range(4):
        lab.write(f"ignored/images/deep/{number}.png")
        lab.write(f"ignored/sets/{number % 2}/{number}.png")
    with_git = frozen_of(lab, folder, "ignored").record
    shutil.rmtree(lab.path / ".git")
    without = frozen_of(lab, folder, "plain").record
    for record in (with_git, without):
        assert (record.top, record.place, record.tree) == (str(folder), ".", None)
        assert sorted(record.files) == ["job.sh", "tool.py"]
        assert record.links == ["images", "large", "sets", "venv"]
    lab.write("ignored/deep/deeper/module.py")
    assert "deep/deeper/module.py" in frozen_of(lab, folder, "all").record.files
    monkeypatch.setattr(code_files, "MOST", 3)
    assert "deep" in frozen_of(lab, folder, "most").record.links


def test_a_working_directory_behind_a_link(repository: Lab) -> None:
    lab = repository
    lab.write("ignored/data", "x")
    link = lab.path.parent / "link"
    os.symlink(lab.path, link)
    frozen = frozen_of(lab, link)
    assert copied(frozen)["ignored"] == f"-> {link}/ignored"
    for top in (lab.path, link):
        assert frozen.copy_of(f"{top}/job.sh") == f"{frozen.folder}/job.sh"


def test_a_script_that_git_ignores_is_copied(repository: Lab) -> None:
    lab = repository
    lab.write(".gitignore", "*.sh\n")
    git(lab.path, "rm", "--quiet", "--cached", "job.sh")
    lab.write("other.sh", "other")
    frozen = frozen_of(lab)
    assert "job.sh" in frozen.record.files
    assert frozen.record.links == ["experiments", "other.sh"]


def test_every_job_tells_the_state_of_its_own_script(repository: Lab) -> None:
    lab = repository
    lab.write("new.sh", "untracked")
    run = lab.run(replace(lab.plan(), settings=Settings(freeze=True)))
    (lab.path / "new.sh").unlink()
    lab.write("job.sh", "edited since")
    found = []
    for script in ("job.sh", "new.sh"):
        experiment = run.experiment(a_job(script=script), script)
        experiment.close_logs()
        experiment.complete()
        experiment.write(sync=False)
        found.append(read_metadata(experiment.directory).git)
    run.close(done=True)
    assert [git.dirty for git in found] == [False, True]
    assert [git.reason for git in found] == [
        None,
        "the script `new.sh` is in no commit: it is untracked or ignored",
    ]


def test_what_nobody_else_may_read_is_not_put_where_others_may(repository: Lab) -> None:
    lab = repository
    lab.write("keys").chmod(0o600)
    frozen = frozen_of(lab)
    assert frozen.record.tree is None
    assert "keys" in frozen.record.files
    assert os.stat(f"{frozen.folder}/keys").st_mode & 0o777 == 0o600


def test_what_git_cannot_keep_is_copied_without_it(
    repository: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = repository
    lab.write("two\nlines.py", "odd name")
    git(lab.path, "add", "--all")
    frozen = frozen_of(lab)
    assert copied(frozen)["two\nlines.py"] == "odd name"
    assert frozen.record.tree is None
    program = lab.program("bin/git", "#!/bin/sh\nexit 1\n")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert copied(frozen_of(lab, name="no-git"))["job.sh"] == ""


def test_what_jobs_wrote_comes_back_over_nothing_that_has_changed(repository: Lab) -> None:
    lab = repository
    for name in ("appended", "edited", "deleted", "read"):
        lab.write(name, "before\n")
    frozen = frozen_of(lab)
    copy = Path(frozen.folder)
    for name in ("appended", "edited", "deleted"):
        (copy / name).write_text("before\nby a job\n")
    (copy / "new" / "folder").mkdir(parents=True)
    (copy / "new" / "folder" / "file").write_text("new")
    (copy / "new" / "__pycache__").mkdir()
    (copy / "new" / "__pycache__" / "file").write_text("compiled")
    os.symlink("file", copy / "new" / "folder" / "link")
    lab.write("edited", "by the user\n")
    lab.write("read", "by the user\n")
    (lab.path / "deleted").unlink()
    (told,), is_all = bring_back(frozen)
    assert is_all
    assert "`edited`" in told
    assert "`edited.1`" in told
    after = {
        "appended": "before\nby a job\n",
        "edited": "by the user\n",
        "edited.1": "before\nby a job\n",
        "deleted": "before\nby a job\n",
        "read": "by the user\n",
        "new/folder/file": "new",
        "new/folder/link": "new",
    }
    assert {name: (lab.path / name).read_text() for name in after} == after
    assert os.readlink(lab.path / "new/folder/link") == "file"
    assert not (lab.path / "new" / "__pycache__").exists()
    # A resumed run goes on with them
    loaded = load_frozen(frozen.run_folder, str(lab.path))
    assert loaded is not None
    assert bring_back(loaded) == ([], True)
    (copy / "new" / "folder" / "file").unlink()
    (copy / "new" / "folder" / "file").write_text("newer")
    with (copy / "appended").open("a") as file:
        file.write("more\n")
    assert bring_back(loaded) == ([], True)
    assert (lab.path / "new/folder/file").read_text() == "newer"
    assert (lab.path / "appended").read_text() == "before\nby a job\nmore\n"


def test_a_copy_that_lost_power_and_content_is_none(repository: Lab) -> None:
    lab = repository
    lab.write("module.py", "code")
    frozen = frozen_of(lab)
    path = Path(frozen.folder, "module.py")
    status = path.stat()
    for content, time, is_whole in (("by a job", None, True), ("", status.st_mtime_ns, False)):
        path.write_text(content)
        if time is not None:
            os.utime(path, ns=(time, time))
        loaded = load_frozen(frozen.run_folder, str(lab.path), verify=True)
        assert (loaded is not None) is is_whole


def test_a_project_that_was_moved_has_its_links_led_anew(repository: Lab) -> None:
    lab = repository
    lab.write("ignored/data", "x")
    frozen = frozen_of(lab)
    moved = lab.path.parent / "moved"
    lab.path.rename(moved)
    run_folder = frozen.run_folder.replace(str(lab.path), str(moved))
    loaded = load_frozen(run_folder, str(moved))
    assert loaded is not None
    assert os.readlink(f"{loaded.folder}/ignored") == f"{moved}/ignored"
    assert loaded.copy_of(f"{moved}/job.sh") == f"{loaded.folder}/job.sh"
    assert loaded.copy_of(f"{moved}/ignored/data") is None
    assert loaded.copy_of("/etc") is None
