"""The code with which an experiment ran, put together again for another run: from git's object
store, from the frozen copy if that is still there, or from commit and patch. All of this blocks.

    then = code_then(directory, metadata, plan.working_directory, limit)
    frozen = freeze_then(plan, run_folder, then, limit)
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import HermesError, escape
from ..language.plan import Plan
from ..model import ProblemKind
from . import code_store
from .asking import Patience
from .copying import copy
from .files import read_regular, unfinished, write_all
from .freezing import code_of, freeze, freeze_as, make_folders
from .frozen import Frozen, load_frozen, stamp
from .git import Git, ask_git, top_of
from .layout import PATCH
from .metadata import Metadata


class CodeThen(NamedTuple):
    """Where the code of an experiment is now. `git` is its state as it was told then.

    `tree` is what git calls it: as files were on the disk if `is_raw`, else as they are committed.
    Without one it is the frozen `copy` of an earlier run. `untracked` are files that are taken from
    `top` as they are.
    """

    git: Git
    top: Path
    tree: str | None = None
    is_raw: bool = False
    copy: Frozen | None = None
    untracked: tuple[str, ...] = ()


def code_then(
    directory: str, metadata: Metadata, working_directory: Path, limit: float
) -> CodeThen:
    """The code with which the experiment in a directory ran; git is waited for so many seconds.

    Raises `HermesError` if not all of it is known any more.
    """
    patience = Patience(limit)
    top = top_of(working_directory) or working_directory
    patch = None
    with suppress(OSError):
        patch = read_regular(f"{directory}/{PATCH}")
    then = CodeThen(Git(metadata.git, patch), top)
    frozen = metadata.frozen
    if frozen is not None:
        if frozen.tree is not None and _is_kept(top, frozen.tree, patience):
            return then._replace(tree=frozen.tree, is_raw=True)
        copied = _still_there(directory, metadata, working_directory)
        if copied is not None:
            return then._replace(top=Path(copied.top), copy=copied)
    commit = metadata.git.commit
    if commit is None:
        why = metadata.git.reason or "nobody asked"
        raise _unknown(
            metadata, f"git told no commit ({why})", "`freeze: true` keeps code for a run"
        )
    if not _is_kept(top, commit, patience):
        raise _unknown(metadata, f"the commit `{commit[:10]}` is not in `{top}`", "`git fetch`")
    if metadata.git.dirty is not False and patch is None:
        why = metadata.git.reason or f"`{PATCH}` is not there"
        raise _unknown(metadata, f"its uncommitted changes are not known ({why})", None)
    return then._replace(tree=_patched(then, commit, directory, metadata, patience))


def freeze_then(plan: Plan, run_folder: str, then: CodeThen, limit: float) -> Frozen:
    """Puts that code into the run's folder, for the jobs of a plan. What is no code is linked, as
    it is now. Raises `OSError`."""
    patience = Patience(limit)

    def copy_into(part: str) -> str | None:
        if then.copy is not None:
            _copy_again(then.copy, part)
        elif then.tree is not None and then.is_raw:
            _write_tree(then.top, then.tree, part, patience)
        elif then.tree is not None:
            _check_out(then.top, then.tree, part, run_folder, patience)
        for path in then.untracked:
            os.makedirs(os.path.dirname(f"{part}/{path}"), exist_ok=True)
            shutil.copy2(then.top / path, f"{part}/{path}", follow_symlinks=False)
        return then.tree if then.is_raw else None

    code = code_of(plan, patience)
    return freeze_as(plan, run_folder, code, copy_into, lambda: then.git)


def freeze_code(
    plan: Plan, run_folder: str, state: Callable[[], Git], limit: float, then: CodeThen | None
) -> Frozen:
    """Freezes the code as it is now, or else as it was then."""
    if then is None:
        return freeze(plan, run_folder, state, limit)
    return freeze_then(plan, run_folder, then, limit)


def _unknown(metadata: Metadata, why: str, hint: str | None) -> HermesError:
    name = escape(metadata.identifier)
    return HermesError(f"the code of `{name}` is not known any more: {escape(why)}", hint=hint)


def _is_kept(top: Path, name: str, patience: Patience) -> bool:
    return ask_git(top, ("rev-parse", "--verify", f"{name}^{{tree}}"), patience).failed is None


def _still_there(directory: str, metadata: Metadata, working_directory: Path) -> Frozen | None:
    """The frozen copy in which the experiment ran, if its code is as it was then."""
    experiments = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(directory))))
    run_folder = f"{experiments}/.hermes/{metadata.run_id}"
    frozen = load_frozen(run_folder, str(working_directory))
    if frozen is None:
        return None
    for path, known in frozen.record.files.items():
        try:
            if stamp(os.lstat(f"{frozen.folder}/{path}")) != known:
                return None
        except OSError:
            return None
    return frozen


def _patched(
    then: CodeThen, commit: str, directory: str, metadata: Metadata, patience: Patience
) -> str:
    """What git calls the commit with the uncommitted changes of then: put together in an index of
    our own."""
    index = unfinished(f"{directory}/index")
    try:
        questions: list[tuple[tuple[str, ...], bytes | None]] = [(("read-tree", commit), None)]
        if then.git.patch is not None:
            questions.append((("apply", "--cached", "--whitespace=nowarn", "-"), then.git.patch))
        questions.append((("write-tree",), None))
        for words, stdin in questions:
            answer = ask_git(then.top, words, patience, stdin=stdin, index=index)
            if answer.failed is not None:
                raise _unknown(metadata, f"`git {words[0]}`: {answer.failed}", None)
        tree = answer.output.decode("ascii", "replace").strip()
    finally:
        for path in (index, f"{index}.lock"):
            with suppress(FileNotFoundError):
                os.unlink(path)
    listed = ask_git(then.top, ("ls-tree", "-r", "--full-tree", tree), patience).output
    if any(line.startswith(b"160000") for line in listed.splitlines()):
        raise _unknown(metadata, "it has submodules, and was not frozen", None)
    return tree


def _copy_again(frozen: Frozen, part: str) -> None:
    make_folders(frozen.folder, part, frozen.record.files)
    for path in frozen.record.files:
        kind = ProblemKind.NOT_COPIED
        copy(f"{frozen.folder}/{path}", f"{part}/{path}", lambda _: None, kind=kind)


def _write_tree(top: Path, tree: str, part: str, patience: Patience) -> None:
    """Writes what git keeps as it was on the disk."""
    answer = ask_git(top, ("ls-tree", "-r", "-z", "--long", "--full-tree", tree), patience)
    if answer.failed is not None:
        raise OSError(errno.EIO, f"git does not tell the code: {answer.failed}", tree)
    entries = []
    for line in answer.output.split(b"\0")[:-1]:
        head, _, named = line.partition(b"\t")
        number, _, kept_as, size = head.split()
        entries.append((os.fsdecode(named), int(number, 8), kept_as.decode(), int(size)))
    make_folders(str(top), part, (path for path, *_ in entries))
    names, sizes = [each[2] for each in entries], [each[3] for each in entries]
    contents = code_store.read(top, names, sizes, patience)
    for (path, mode, name, _), content in zip(entries, contents, strict=True):
        if content is None:
            raise OSError(errno.EIO, "git does not keep it any more", name)
        target = f"{part}/{path}"
        if stat.S_ISLNK(mode):
            os.symlink(os.fsdecode(content), target)
        else:
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IMODE(mode))
            try:
                write_all(fd, content)
            finally:
                os.close(fd)


def _check_out(top: Path, tree: str, part: str, run_folder: str, patience: Patience) -> None:
    """Writes what is committed, as `git checkout` would."""
    index = unfinished(f"{run_folder}/index")
    os.mkdir(part)
    try:
        for words in (("read-tree", tree), ("checkout-index", "--all", f"--prefix={part}/")):
            answer = ask_git(top, words, patience, index=index)
            if answer.failed is not None:
                raise OSError(errno.EIO, f"`git {words[0]}`: {answer.failed}", tree)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(index)
