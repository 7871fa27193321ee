"""What a job is, and what became of it. Nothing here touches a disk or a process."""

from __future__ import annotations

import errno
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec
from msgspec.structs import asdict

from .errors import escape, shortened

PLACEHOLDER = "{identifier}"
"""Stands for the identifier in a job's words and paths."""

PLACEHOLDERS = ("identifier", "directory", "slot", "gpus")
"""Names that words and paths can hold in braces. When the job starts, its identifier, the path of
its experiment directory, its HERMES_SLOT and its GPUs are put in for them."""

_IN_BRACES = re.compile(rf"(?<!\$)\{{({'|'.join(PLACEHOLDERS)})\}}")
"""Behind a `$` they are a shell's or a configuration's."""

IDENTIFIER = re.compile(r"(?=(\d{4}_\d\d_\d\d_\d{12}_[0-9a-f]{5}))", re.ASCII)
"""Finds identifiers in a text, overlapping ones too: the seed's `2021_07_25_160008326976_1930e`."""

IDENTIFIER_LENGTH = 29
"""Characters of an identifier."""


def filled(word: str, values: Mapping[str, str]) -> str:
    """A word with the values of `PLACEHOLDERS` put in."""
    return _IN_BRACES.sub(lambda match: values[match[1]], word) if "{" in word else word


def holds_identifier(word: str) -> bool:
    """Whether the identifier is put into this word when the job starts."""
    return PLACEHOLDER in word and any(m[0] == PLACEHOLDER for m in _IN_BRACES.finditer(word))


def is_identifier(text: str) -> bool:
    return len(text) == IDENTIFIER_LENGTH and IDENTIFIER.match(text) is not None


class Status(StrEnum):
    """What has become of an experiment."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    LOST = "lost"


FAILED = frozenset({Status.FAILED, Status.TIMEOUT})
"""How a job ends that had its chance and did not succeed: it may be tried again."""


class ProblemKind(StrEnum):
    """What sort of thing went wrong with an experiment. Decisions ask for the kind, never for the
    text."""

    NOT_STARTED = "not-started"
    """The job's process could not be started."""

    NO_DIRECTORY = "no-directory"
    """The experiment directory could not be made."""

    DISK_FULL = "disk-full"
    """Something could not be written, or may be incomplete, because the disk is full."""

    INCOMPLETE = "incomplete"
    """The disk was full when the job ended, while an earlier runner watched: it may lack output."""

    NO_METADATA = "no-metadata"
    """The metadata could not be written."""

    NOT_COPIED = "not-copied"
    """A path of `-cb`, `-ca` or `-ma` was not there, or could not be brought over."""

    NOT_COLLECTED = "not-collected"
    """Something that carries the identifier could not be taken."""

    LEFT_IN_PLACE = "left-in-place"
    """Something that carries the identifier was left where it was: it is special, or contested."""

    MAY_BE_ALIVE = "may-be-alive"
    """A job that an earlier runner has started where nobody can see its processes from here."""

    LEFT_PROCESSES = "left-processes"
    """Processes that the job started outlived it."""

    OUT_OF_MEMORY = "out-of-memory"
    """Memory ran out, the machine's or a GPU's; or that is why it may have been killed."""

    REFUSED = "refused"
    """A cluster does not take the job."""

    CLUSTER = "cluster"
    """Why a cluster has ended the job, in the cluster's words."""


FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors that mean: the disk is full, or what this user may have of it."""


class Problem(msgspec.Struct, frozen=True):
    """Something that went wrong with an experiment, for programs (`kind`) and people (`text`)."""

    kind: ProblemKind
    text: str

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(cls, kind: ProblemKind, text: str, error: OSError) -> Problem:
        """One that an error of the system caused: of kind `DISK_FULL` if that is why."""
        return cls(ProblemKind.DISK_FULL if error.errno in FULL else kind, text)


IF_GIVEN = ("slurm", "timeout", "retries", "gpus")
"""Options that are left out of the JSON form where they are at their defaults."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The hermes options of one job, those of STD-H first.

    Paths are as written (relative ones start at the working directory) and may hold wildcards and
    `{identifier}`. `log` False means that what the job prints is also shown live. `slurm` are
    options for `sbatch`, each text to be split as a shell splits words. `timeout`, in seconds, and
    `retries` stand in for the settings of these names, unless None. `gpus` is how many GPUs the job
    needs, or which part of one. Flags and checks of each are in
    the table `hermes.language.options.OPTIONS`.
    """

    copy_after: tuple[str, ...] = ()
    copy_before: tuple[str, ...] = ()
    move_after: tuple[str, ...] = ()
    log: bool = True
    comments: tuple[str, ...] = ()
    slurm: tuple[str, ...] = ()
    timeout: float | None = None
    retries: int | None = None
    gpus: float | None = None

    def as_json(self) -> dict[str, Any]:
        values = {
            name: value
            for name, value in asdict(self).items()
            if name not in IF_GIVEN or value not in (None, ())
        }
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One command of the EXEC section, after sweeps are expanded.

    `argv` is the whole command; `{identifier}` in it stands for the identifier, which is made only
    when the job starts. `script` is the name of the script's folder, `position` the index in `argv`
    of the script word. `standard` are the STD-E arguments among its words, `lengths` how many words
    each item of the hermes file has. `line` is the entry's line in the hermes file, counted from 1.

    `parameters` are the keys of the sweeps around it with the values of this job, outermost first.
    `template` is `argv` with `{key}` where a value stands, written as in a sweep, so `{{` and `}}`
    are braces. Both are empty outside of sweeps. `is_given` says that the identifier was put in
    after the script word, because nothing says where it belongs. `files` are the indices of the
    words that are program and script, where these are files of the machine on which the job starts.
    """

    argv: tuple[str, ...]
    script: str
    line: int
    options: Options
    position: int
    lengths: tuple[int, ...]
    standard: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...] = ()
    template: tuple[str, ...] = ()
    is_given: bool = True
    files: tuple[int, ...] = ()

    @property
    def items(self) -> tuple[tuple[str, ...], ...]:
        """What the hermes file said, without the words that came in after the script word."""
        return self._items_of(self.argv)

    @property
    def template_items(self) -> tuple[tuple[str, ...], ...]:
        """`items`, with `{key}` where a value stands; empty outside of sweeps."""
        return self._items_of(self.template) if self.template else ()

    def _items_of(self, argv: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        after = self.position + 1
        put_in = len(argv) - sum(self.lengths)
        words = iter(argv[:after] + argv[after + put_in :])
        return tuple(tuple(islice(words, length)) for length in self.lengths)

    def command(self, values: Mapping[str, str]) -> list[str]:
        """The words that go to the operating system, with the values of `PLACEHOLDERS`."""
        return [filled(word, values) for word in self.argv]

    @property
    def shell(self) -> str:
        """The command as a shell would read it, in one line.

        `{identifier}` stands for the identifier.
        """
        return shell_line(self.argv)

    def as_json(self) -> dict[str, Any]:
        return {
            "argv": list(self.argv),
            "script": self.script,
            "line": self.line,
            "parameters": dict(self.parameters),
            "options": self.options.as_json(),
        }

    @property
    def arguments(self) -> tuple[str, ...]:
        """What comes after the script word, in order, but for the identifier and the other
        `PLACEHOLDERS`, which say nothing of what the job is.

        An option whose value is one of them goes with it, and so does `name={identifier}`. In other
        words they stay as they are.
        """
        start = self.position + 1 + self.is_given
        kept: list[str] = []
        for word in self.argv[start:]:
            if word in _ALONE:
                if kept and _is_open_option(kept[-1]):
                    kept.pop()
            elif not word.endswith(_AS_VALUE):
                kept.append(word)
        return tuple(kept)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How one job ended. `directory` is the experiment directory, None if none could be made.

    Exactly one of `exit_code` and `signal` is set when the job's process ended by itself or by a
    signal. `duration` is in seconds. `identifier` is empty if there is no experiment.
    """

    identifier: str
    script: str
    directory: str | None
    status: Status
    exit_code: int | None = None
    signal: int | None = None
    duration: float = 0.0
    problems: tuple[Problem, ...] = ()
    argv: tuple[str, ...] = ()
    line: int = 0

    @classmethod
    def not_begun(cls, job: Job, status: Status, *problems: Problem) -> Outcome:
        """That of a job of which there is not even an experiment."""
        return cls(
            identifier="", script=job.script, directory=None, status=status, problems=problems,
            argv=job.argv, line=job.line,
        )  # fmt: skip

    @property
    def ok(self) -> bool:
        """Whether the job succeeded and nothing about its files went wrong."""
        return self.status is Status.FINISHED and not self.problems

    @property
    def how(self) -> str:
        """The status in words: `exit code 1`, `signal 9 (SIGKILL)`, `cancelled`."""
        if self.status is Status.FAILED and self.exit_code is not None:
            return f"exit code {self.exit_code}"
        if self.status is Status.FAILED and self.signal is not None:
            return f"signal {signal_name(self.signal)}"
        return self.status.value


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run. `outcomes` are in the order in which the jobs ended."""

    run_id: str
    name: str
    outcomes: Sequence[Outcome]
    cancelled: bool
    warnings: tuple[str, ...]
    succeeded_before: int = 0
    """Jobs that were not started because they had succeeded before, in a resumed run."""

    failed_before: int = 0
    """Jobs that had failed before and were not started again, in a resumed run."""

    removed_before: int = 0
    """Jobs that were not started because their experiments were removed, in a resumed run."""

    disk_full: bool = False
    """Whether nothing more was started because the disk was full."""

    too_many_failed: bool = False
    """Whether nothing more was started because as many jobs had failed as `max_failures` says."""

    left: int = 0
    """Jobs that are with the cluster, queued or running, when the run was left."""

    running_elsewhere: int = 0
    """Jobs that were not started because another run executes them."""

    may_be_alive: tuple[str, ...] = ()
    """Identifiers of experiments whose jobs may be alive on another machine, or in another
    container: they were left as they are, and their jobs not started."""

    replaced: tuple[str, ...] = ()
    """Identifiers of experiments that an earlier runner left unfinished and that came to nothing,
    and of those that failed and may fail: their jobs were run again."""

    forgotten: bool = False
    """Whether the run was put away, so that it cannot be resumed."""

    @property
    def ok(self) -> bool:
        """Whether all jobs ran and succeeded, without problems. A job that was lost or failed, and
        succeeded when it was run again, did."""
        is_broken_off = self.cancelled or self.disk_full or self.too_many_failed
        is_whole = not (is_broken_off or self.failed_before or self.may_be_alive)
        return is_whole and all(outcome.ok for outcome in self.final)

    @property
    def final(self) -> list[Outcome]:
        """The outcomes of the jobs, without those that another has replaced."""
        replaced = set(self.replaced)
        return [outcome for outcome in self.outcomes if outcome.identifier not in replaced]

    @property
    def failures(self) -> list[Outcome]:
        """Those that did not succeed in the end, or have problems."""
        return [outcome for outcome in self.final if not outcome.ok]

    def tally(self, total: int) -> dict[str, int]:
        """What has become of the `total` jobs of the run: in words, and of how many."""
        counts: dict[str, int] = {}
        replaced = set(self.replaced)
        for outcome in self.outcomes:
            kind = (
                "finished with problems"
                if outcome.status is Status.FINISHED and outcome.problems
                else outcome.status.value
            )
            if outcome.status in FAILED and outcome.identifier in replaced:
                kind += " and tried again"
            counts[kind] = counts.get(kind, 0) + 1
        passed = {
            "finished before": self.succeeded_before,
            "failed before": self.failed_before,
            "removed before": self.removed_before,
            "in another run": self.running_elsewhere,
            "still with the cluster": self.left,
        }
        never = total - len(self.final) - sum(passed.values())
        more = {**passed, "never started": never}
        return {**counts, **{kind: count for kind, count in more.items() if count}}

    @property
    def go_on(self) -> str:
        """What goes on with the run, in words; empty if all was done that could be."""
        if self.forgotten:
            return "put away: it cannot be resumed"
        if self.disk_full:
            return "make room, then `hermes resume --failed` goes on"
        return "`hermes resume` goes on" if self.cancelled or self.too_many_failed else ""

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in self.tally(0).items() if count > 0)
        return f"<RunResult {self.name!r}: {counts or 'no jobs'}>"

    def _repr_html_(self) -> str:
        """A table for a notebook: what did not succeed first, and not more rows than are read."""
        rows = sorted(self.outcomes, key=lambda outcome: outcome.ok)
        head = ("script", "identifier", "how", "seconds", "problems", "command")
        told = [
            (
                row.script,
                row.identifier,
                row.how,
                f"{row.duration:.1f}",
                "; ".join(map(str, row.problems)),
                shortened(shell_line(row.argv)),
            )
            for row in rows[:MOST_ROWS]
        ]
        more = len(rows) - len(told)
        return (
            f"<div>{_as_html(repr(self)[1:-1])}</div>"
            f"<table><thead>{_row('th', head)}</thead>"
            f"<tbody>{''.join(_row('td', each) for each in told)}</tbody></table>"
            + (f"<div>and {more} more</div>" if more else "")
        )


MOST_ROWS = 50
"""Of a table in a notebook."""


def _row(tag: str, texts: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{_as_html(text)}</{tag}>" for text in texts) + "</tr>"


def _as_html(text: str) -> str:
    # Here, because only notebooks need it
    import html

    return html.escape(escape(text))


_ALONE = tuple(f"{{{name}}}" for name in PLACEHOLDERS)
_AS_VALUE = tuple(f"={word}" for word in _ALONE)


def _is_open_option(word: str) -> bool:
    """Whether an option takes the next word as its value, as far as it can be told: `--name`."""
    return word[:1] == "-" and word[1:2] not in ("", *"0123456789.") and "=" not in word


def shell_line(argv: Iterable[str]) -> str:
    return " ".join(map(_shell_quoted, argv))


@lru_cache(maxsize=1000)
def _shell_quoted(word: str) -> str:
    # The jobs of a sweep share nearly all their words
    if word == PLACEHOLDER:
        return word
    if word.isprintable():
        return shlex.quote(word)
    # One line a command: control characters are written as the escapes of `$'...'`
    return (
        "$'" + "".join(c if c.isprintable() and c not in "'\\" else _ansi_c(c) for c in word) + "'"
    )


def _ansi_c(char: str) -> str:
    code = ord(char)
    return (
        f"\\{char}"
        if char in "'\\"
        else f"\\x{code:02x}"
        if code < 128
        else f"\\u{code:04x}"
        if code < 65536
        else f"\\U{code:08x}"
    )


def signal_name(number: int) -> str:
    """`9 (SIGKILL)`; only the number where this system has no name for it."""
    import signal

    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)
