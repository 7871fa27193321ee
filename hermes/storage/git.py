"""The state of the code, as git tells it: commit, branch, and all that is in no commit.

Each answer stands for itself: one that is late or refused is left out, and the state says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import msgspec

from .asking import Answer, Patience, ask
from .files import Stamp
from .metadata import GitState

PLAIN = {
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "diff.autoRefreshIndex": "false",
    "core.quotePath": "true",
    "diff.noprefix": "false",
    "diff.mnemonicPrefix": "false",
    "diff.srcPrefix": "a/",
    "diff.dstPrefix": "b/",
    "diff.relative": "false",
    "diff.submodule": "short",
}
"""Configuration that overrules the user's: git starts no daemon and no hook, `git diff` leaves the
index alone, which it writes otherwise, whatever GIT_OPTIONAL_LOCKS says, and `git apply` takes
every patch. Older ones ignore keys they do not know."""

QUIET = {b"GIT_OPTIONAL_LOCKS": b"0", b"GIT_NO_LAZY_FETCH": b"1", b"LC_ALL": b"C"}
"""Variables by which git writes nothing, fetches nothing and speaks English."""

OF_ANOTHER = frozenset({
    b"GIT_DIR", b"GIT_WORK_TREE", b"GIT_INDEX_FILE", b"GIT_COMMON_DIR", b"GIT_PREFIX",
    b"GIT_OBJECT_DIRECTORY", b"GIT_ALTERNATE_OBJECT_DIRECTORIES", b"GIT_NAMESPACE",
})  # fmt: skip
"""Variables that name a repository, as git sets them for hooks. The working directory says which
repository the code is in."""

NO_COMMIT = "00000"
"""Stands in an identifier for the last five characters of the commit, where there is none."""

DIFF = (
    "diff", "--no-color", "--no-ext-diff", "--no-textconv", "--binary", "--unified=3",
    "--inter-hunk-context=0",
)  # fmt: skip
"""Configuration must not change what a patch looks like, and no other program is called."""

KEPT_WHOLE = 1_000_000
"""Bytes up to which a script that is in no commit is kept whole."""

MOST_NAMES = 1000
"""Untracked files that are named in a patch."""

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


_Seen = tuple[int, ...]
"""The `Stamp` of a file and, last, when anything about it was changed, which no program sets back.
"""


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


def read_commit(top: Path, patience: Patience) -> Git:
    """Asks git for the commit alone. Never raises."""
    answer = ask_git(top, ("rev-parse", "--verify", "HEAD"), patience)
    if answer.failed is not None:
        return Git(GitState(reason=answer.failed))
    return Git(GitState(commit=answer.output.decode("ascii", "replace").strip()))


def read_git(
    top: Path, commit: str, patience: Patience, *, working_directory: Path, experiments: Path,
    script: str | None = None,
) -> Git:  # fmt: skip
    """Asks git for the branch and all that is in no commit; `script` is a file that is executed.

    Never raises.
    """
    within = below_home(top, working_directory)
    code = (within, *_not_made(top, experiments))
    uncommitted = ("--ignore-submodules=untracked", "HEAD", "--", *code)
    questions = {
        "branch": ("symbolic-ref", "--quiet", "--short", "HEAD"),
        "changes": (*DIFF, *uncommitted),
        "untracked files": (
            "ls-files", "--others", "--exclude-standard", "--",
            within, *but_for(top, experiments),
        ),
    }  # fmt: skip
    inside = _inside(top, script) if script is not None else None
    if inside is not None:
        words = ("ls-files", "-z", "--recurse-submodules", "--", f":(top,literal){inside}")
        questions["script"] = words
    with ThreadPoolExecutor(len(questions)) as pool:
        asked = {
            what: pool.submit(ask_git, top, words, patience) for what, words in questions.items()
        }
        answers = {what: future.result() for what, future in asked.items()}
    reasons = [
        f"{what}: {answer.failed}"
        for what, answer in answers.items()
        # Without a branch git ends with 1
        if answer.failed and (what, answer.code) != ("branch", 1)
    ]
    diff = answers["changes"].output
    if b"\n+Subproject commit " in diff:
        diff += _of_submodules(top, "HEAD", "", patience)
    is_dirty, kept = bool(diff), b""
    if inside is not None and answers["script"].failed is None and not answers["script"].output:
        is_dirty = True
        reasons.append(f"the script `{inside}` is in no commit: it is untracked or ignored")
        kept, why_not = _whole(top, inside, patience)
        if why_not:
            reasons.append(why_not)
    if script is not None and inside is None and os.path.isfile(script):
        real = os.path.realpath(script)
        reasons.append(f"the script `{real}` is in no commit: it is outside of the repository")
    state = GitState(
        commit=commit,
        branch=answers["branch"].output.decode("utf-8", "surrogateescape").strip() or None,
        dirty=is_dirty if is_dirty or answers["changes"].failed is None else None,
        reason="; ".join(reasons) or None,
    )
    if not is_dirty:
        return Git(state)
    patch = _patch(commit, diff + kept, answers["untracked files"].output)
    # Asked after the changes, so that none of them is newer
    names = ask_git(top, ("diff", "--name-only", "-z", *uncommitted), patience).output
    return Git(state, patch, _last_edit(top, names))


def below_home(top: Path, working_directory: Path) -> str:
    """What of a working tree counts as the code: all, but of one that is somebody's home only the
    working directory. The rest takes long to search, and is nobody's business."""
    home = os.path.realpath(os.path.expanduser("~"))
    below = os.path.relpath(os.path.realpath(working_directory), os.path.realpath(top))
    if os.path.realpath(top) != home or below == ".":
        return ":/"
    return f":(top,literal){below}"


def _inside(top: Path, script: str) -> str | None:
    """The path of a file in a working tree, links resolved; None if it is elsewhere."""
    path = os.path.relpath(os.path.realpath(script), os.path.realpath(top))
    return path if path.split("/")[0] != ".." else None


def _last_edit(top: Path, names: bytes) -> int:
    paths = (f"{top}/{os.fsdecode(name)}" for name in names.split(b"\0") if name)
    return max((stamp[-1] for path in paths if (stamp := _seen(path)) is not None), default=0)


class Signature(NamedTuple):
    """Changes when somebody commits, switches the branch, stages something or edits the script."""

    repository: tuple[_Seen | None, ...]
    script: _Seen | None

    @classmethod
    def now(cls, folder: str, script: str | None) -> Signature:
        """`folder` is git's own. Takes 10 us."""
        paths = (f"{folder}/HEAD", f"{folder}/logs/HEAD", f"{folder}/index")
        return cls(tuple(map(_seen, paths)), _seen(script) if script is not None else None)


def _seen(path: str) -> _Seen | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (*Stamp.of(found), found.st_ctime_ns)


def but_for(top: Path, experiments: Path) -> tuple[str, ...]:
    """What leaves `experiments` out of a question, if it is in the repository."""
    # git refuses paths outside the repository, and there nothing has to be left out
    if not experiments.is_relative_to(top):
        return ()
    return (f":(exclude,top,literal){experiments.relative_to(top)}",)


def _not_made(top: Path, experiments: Path) -> tuple[str, ...]:
    """Leaves out what Hermes makes, and no more: a folder of the same name may hold the user's
    code."""
    if not experiments.is_relative_to(top):
        return ()
    below = str(experiments.relative_to(top)).translate({ord(c): f"\\{c}" for c in "\\*?["})
    stamp = "[0-9][0-9][0-9][0-9]_[0-9][0-9]_[0-9][0-9]_[0-9]*_*"
    made = (f"{below}/*/*/{stamp}/**", f"{below}/.hermes/**")
    return tuple(f":(exclude,top,glob){each}" for each in made)


def _of_submodules(top: Path, commit: str, prefix: str, patience: Patience) -> bytes:
    """The changes in submodules, in terms of the outermost working tree."""
    words = ("diff", "--raw", "-z", "--abbrev=40", "--ignore-submodules=untracked", commit)
    fields = ask_git(top, words, patience).output.split(b"\0")
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
            answer = ask_git(there, changes, patience)
            if answer.failed is None:
                patch += answer.output
                patch += _of_submodules(there, base, f"{prefix}{path}/", patience)
                break
    return patch


def _whole(top: Path, inside: str, patience: Patience) -> tuple[bytes, str | None]:
    """A file as a patch that makes it, or why it is not kept."""
    try:
        size = os.stat(top / inside).st_size
    except OSError as exc:
        return b"", f"the script cannot be read: {exc.strerror}"
    if size > KEPT_WHOLE:
        return b"", "the script is too large to be kept"
    answer = ask_git(top, (*DIFF, "--no-index", "--", os.devnull, inside), patience, differs=1)
    return answer.output, answer.failed and f"the script is not kept: {answer.failed}"


def _patch(commit: str, diff: bytes, untracked: bytes) -> bytes:
    # `git apply` skips whatever stands before the first `diff`
    lines = [f"# uncommitted changes on top of {commit}".encode()]
    names = untracked.splitlines()
    lines += [b"# untracked: " + name for name in names[:MOST_NAMES]]
    if len(names) > MOST_NAMES:
        lines.append(b"# untracked: %d more" % (len(names) - MOST_NAMES))
    return b"\n".join(lines) + b"\n\n" + diff


def ask_git(
    folder: Path, words: Iterable[str], patience: Patience, *, differs: int = 0,
    stdin: bytes | None = None, index: str | None = None,
) -> Answer:  # fmt: skip
    """What git says. It has `failed` with every exit code but 0 and `differs`.

    `stdin` is what it reads, `index` the file that it takes for its index.
    """
    configuration = [word for key, value in PLAIN.items() for word in ("-c", f"{key}={value}")]
    kept = {key: value for key, value in os.environb.items() if key not in OF_ANOTHER}
    own = {} if index is None else {b"GIT_INDEX_FILE": os.fsencode(index)}
    answer = ask(
        ["git", *configuration, *words],
        patience,
        name="git",
        folder=str(folder),
        environment={**kept, **QUIET, **own},
        stdin=stdin,
    )
    if answer.failed is not None:
        return answer
    # A host that ignores SIGCHLD gets no exit status
    if answer.code not in (0, differs) or (answer.errors and not answer.output):
        return answer._replace(failed=_said(answer.errors, answer.code))
    return answer


def _said(said: bytes, code: int) -> str:
    text = said.decode("utf-8", "replace").strip()
    if "Needed a single revision" in text:
        return "the repository has no commit"
    return text.splitlines()[0] if text else f"git ended with exit code {code}"
