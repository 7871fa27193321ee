"""The state of the code, as git tells it: commit, branch, and all that is in no commit.

Each answer stands for itself: one that is late or refused is left out, and the state says so.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from .metadata import GitState

PLAIN = {
    "core.fsmonitor": "false",
    "core.quotePath": "true",
    "diff.noprefix": "false",
    "diff.mnemonicPrefix": "false",
    "diff.srcPrefix": "a/",
    "diff.dstPrefix": "b/",
    "diff.relative": "false",
    "diff.submodule": "short",
}
"""Configuration that overrules the user's, so that git starts no daemon and `git apply` takes every
patch. Older ones ignore keys they do not know."""

OF_ANOTHER = frozenset({
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX",
    "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE",
})  # fmt: skip
"""Variables that name a repository, as git sets them for hooks. The working directory says which
repository the code is in."""

NO_COMMIT = "00000"
"""Stands in an identifier for the last five characters of the commit, where there is none."""

DIFF = ("diff", "--no-color", "--no-ext-diff", "--no-textconv", "--binary")
"""Configuration must not change what a patch looks like, and no other program is called."""

KEPT_WHOLE = 1_000_000
"""Bytes up to which a script that is in no commit is kept whole."""

INTERVAL = 2.0
"""Seconds between two questions whether a tracked file has changed."""

MAX_SHARE = 0.02
"""At most this share of the time goes into asking git, in a repository where it is slow."""


class Git(NamedTuple):
    """The state of the working tree, and the content of `uncommitted.patch`, None if clean.

    `edited` is when the last of the tracked files that differ from the commit was changed, in
    nanoseconds since the epoch.
    """

    state: GitState
    patch: bytes | None = None
    edited: int = 0

    @property
    def suffix(self) -> str:
        """The last five characters of the commit."""
        return self.state.commit[-5:] if self.state.commit else NO_COMMIT

    def with_reason(self, reason: str) -> Git:
        """The same, and one thing more that is to be told of it."""
        reasons = "; ".join(filter(None, (self.state.reason, reason)))
        return self._replace(state=msgspec.structs.replace(self.state, reason=reasons))


UNKNOWN = Git(GitState())
"""Stands where nobody has asked."""


Stamp = tuple[int, ...]
"""By which one sees whether a file is the same and has been left alone."""


class _Answer(NamedTuple):
    """What git has printed; `failed` is why that is of no use."""

    output: bytes = b""
    failed: str | None = None


def top_of(folder: Path) -> Path | None:
    """The top of the working tree that a folder is in, None if it is in none."""
    return next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)


def folder_of(top: Path) -> str:
    """The folder in which git keeps HEAD and index of a working tree."""
    path = top / ".git"
    try:
        kind, _, elsewhere = path.read_text(errors="surrogateescape").strip().partition(" ")
    except OSError:
        # A folder, as it is but for submodules and linked working trees
        return str(path)
    return str(top / elsewhere) if kind == "gitdir:" else str(path)


def read_commit(top: Path, limit: float) -> Git:
    """Asks git for the commit alone. Never raises; takes about `limit` seconds at most."""
    answer = _ask(top, ("rev-parse", "--verify", "HEAD"), time.monotonic() + limit, limit)
    if answer.failed is not None:
        return Git(GitState(reason=answer.failed))
    return Git(GitState(commit=answer.output.decode("ascii", "replace").strip()))


def read_git(
    top: Path, commit: str, experiments: Path, limit: float, script: str | None = None
) -> Git:
    """Asks git for the branch and all that is in no commit; `script` is a file that is executed.

    Never raises; takes about `limit` seconds at most.
    """
    ends = time.monotonic() + limit
    not_made = _not_made(top, experiments)
    uncommitted = ("--ignore-submodules=untracked", "HEAD", "--", *not_made)
    questions = {
        "branch": ("symbolic-ref", "--quiet", "--short", "HEAD"),
        "changes": (*DIFF, *uncommitted),
        "changed files": ("diff", "--name-only", "-z", *uncommitted),
        "untracked files": (
            "ls-files", "--others", "--exclude-standard", "--", ":/", *_without(top, experiments)
        ),
    }  # fmt: skip
    real = os.path.realpath(script) if script is not None else None
    inside = os.path.relpath(real, os.path.realpath(top)) if real is not None else None
    if inside is not None and not inside.startswith("../"):
        words = ("ls-files", "-z", "--recurse-submodules", "--", f":(top,literal){inside}")
        questions["script"] = words
    with ThreadPoolExecutor(len(questions)) as pool:
        asked = {
            what: pool.submit(_ask, top, words, ends, limit) for what, words in questions.items()
        }
        answers = {what: future.result() for what, future in asked.items()}
    name = answers["branch"].output.decode("utf-8", "surrogateescape").strip() or None
    # Without a branch git fails, and says nothing
    told = [what for what in questions if what != "branch" or "longer" in _why(answers[what])]
    told.remove("changed files")
    reasons = [f"{what}: {answers[what].failed}" for what in told if answers[what].failed]
    changes, kept = answers["changes"], b""
    diff = changes.output
    if b"\n+Subproject commit " in diff:
        diff += _of_submodules(top, "HEAD", "", ends, limit)
    is_untold = "script" in answers and answers["script"].failed is None
    if inside is not None and is_untold and not answers["script"].output:
        reasons.append(f"the script `{inside}` is in no commit: it is untracked or ignored")
        kept, why_not = _whole(top, inside, ends, limit)
        if why_not:
            reasons.append(why_not)
    is_dirty = bool(diff or (is_untold and not answers["script"].output))
    dirty = is_dirty if is_dirty or changes.failed is None else None
    state = GitState(commit=commit, branch=name, dirty=dirty, reason="; ".join(reasons) or None)
    if not is_dirty:
        return Git(state)
    patch = _patch(commit, diff + kept, answers["untracked files"].output)
    return Git(state, patch, _last_edit(top, answers["changed files"].output))


def _last_edit(top: Path, names: bytes) -> int:
    paths = (f"{top}/{os.fsdecode(name)}" for name in names.split(b"\0") if name)
    return max((stamp[-1] for path in paths if (stamp := _stamp(path)) is not None), default=0)


def _why(answer: _Answer) -> str:
    return answer.failed or ""


class Signature(NamedTuple):
    """Changes when somebody commits, switches the branch, stages something or edits the script."""

    head: Stamp | None
    log: Stamp | None
    index: Stamp | None
    script: Stamp | None

    @classmethod
    def now(cls, folder: str, script: str | None) -> Signature:
        """`folder` is git's own. Takes 10 us."""
        paths = (f"{folder}/HEAD", f"{folder}/logs/HEAD", f"{folder}/index", script or "")
        return cls(*map(_stamp, paths))


def _stamp(path: str) -> Stamp | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    # The time of the last change is the last
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _without(top: Path, experiments: Path) -> tuple[str, ...]:
    # git refuses paths outside the repository, and there nothing has to be left out
    if not experiments.is_relative_to(top):
        return ()
    return (f":(exclude,top,literal){experiments.relative_to(top)}",)


def _not_made(top: Path, experiments: Path) -> tuple[str, ...]:
    """All but what Hermes makes: a folder of the same name may hold the user's code."""
    if not experiments.is_relative_to(top):
        return (":/",)
    below = str(experiments.relative_to(top)).translate({ord(c): f"\\{c}" for c in "\\*?["})
    stamp = "[0-9][0-9][0-9][0-9]_[0-9][0-9]_[0-9][0-9]_[0-9]*_*"
    made = (f"{below}/*/*/{stamp}/**", f"{below}/.hermes/**")
    return (":/", *(f":(exclude,top,glob){each}" for each in made))


def _of_submodules(top: Path, commit: str, prefix: str, ends: float, limit: float) -> bytes:
    """The changes in submodules, in terms of the outermost working tree."""
    words = ("diff", "--raw", "-z", "--abbrev=40", "--ignore-submodules=untracked", commit)
    fields = _ask(top, words, ends, limit).output.split(b"\0")
    patch = b""
    for entry, name in zip(fields[::2], fields[1::2], strict=False):
        before, after, then, *_ = entry.lstrip(b":").split()
        if before != b"160000" or after != b"160000":
            continue
        path = os.fsdecode(name)
        there = top / path
        prefixes = (f"--src-prefix=a/{prefix}{path}/", f"--dst-prefix=b/{prefix}{path}/")
        # The commit that is recorded may not be there
        for base in (then.decode(), "HEAD"):
            changes = (*DIFF, "--ignore-submodules=untracked", *prefixes, base)
            answer = _ask(there, changes, ends, limit)
            if answer.failed is None:
                patch += answer.output
                patch += _of_submodules(there, base, f"{prefix}{path}/", ends, limit)
                break
    return patch


def _whole(top: Path, inside: str, ends: float, limit: float) -> tuple[bytes, str | None]:
    """A file as a patch that makes it, or why it is not kept."""
    try:
        size = os.stat(top / inside).st_size
    except OSError as exc:
        return b"", f"the script cannot be read: {exc.strerror}"
    if size > KEPT_WHOLE:
        return b"", "the script is too large to be kept"
    answer = _ask(top, (*DIFF, "--no-index", "--", os.devnull, inside), ends, limit, differs=1)
    return answer.output, answer.failed and f"the script is not kept: {answer.failed}"


def _patch(commit: str, diff: bytes, untracked: bytes) -> bytes:
    # `git apply` skips whatever stands before the first `diff`
    lines = [f"# uncommitted changes on top of {commit}".encode()]
    lines += [b"# untracked: " + name for name in untracked.splitlines()]
    return b"\n".join(lines) + b"\n\n" + diff


def _ask(
    folder: Path, words: Iterable[str], ends: float, limit: float, *, differs: int = 0
) -> _Answer:
    """Calls git in a process group of its own, so that nothing of it is left behind."""
    configuration = [word for key, value in PLAIN.items() for word in ("-c", f"{key}={value}")]
    kept = {key: value for key, value in os.environ.items() if key not in OF_ANOTHER}
    plain = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
    try:
        process = subprocess.Popen(
            ["git", *configuration, *words],
            cwd=folder,
            env={**kept, **plain},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError:
        return _Answer(failed="git is not installed")
    except OSError as exc:
        return _Answer(failed=f"git cannot be executed: {exc.strerror}")
    with process:
        try:
            output, said = process.communicate(timeout=max(0.0, ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            return _Answer(failed=f"git took longer than {limit:g} s")
    # A host that ignores SIGCHLD gets no exit status
    if process.returncode not in (0, differs) or (said and not output):
        return _Answer(failed=_said(said, process.returncode))
    return _Answer(output)


def _said(said: bytes, code: int) -> str:
    text = said.decode("utf-8", "replace").strip()
    if "Needed a single revision" in text:
        return "the repository has no commit"
    return text.splitlines()[0] if text else f"git ended with exit code {code}"
