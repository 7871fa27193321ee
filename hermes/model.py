"""What a job is, and what became of it. Nothing here touches a disk or a process."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from typing import Any

PLACEHOLDER = "{identifier}"
"""Stands for the identifier in a job's words and paths."""

IDENTIFIER = re.compile(r"(?=(\d{4}_\d\d_\d\d_\d{12}_[0-9a-f]{5}))", re.ASCII)
"""Finds identifiers in a text, overlapping ones too: the seed's `2021_07_25_160008326976_1930e`."""


class Status(StrEnum):
    """What has become of an experiment."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Options:
    """The hermes options of one job, those of STD-H first.

    Paths are as written (relative ones start at the working directory) and may hold wildcards and
    `{identifier}`. `log` False means that what the job prints is also shown live. `slurm` are options for
    `sbatch`, each text to be split as a shell splits words.
    """

    copy_after: tuple[str, ...] = ()
    copy_before: tuple[str, ...] = ()
    move_after: tuple[str, ...] = ()
    log: bool = True
    comments: tuple[str, ...] = ()
    slurm: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "copy_after": list(self.copy_after),
            "copy_before": list(self.copy_before),
            "move_after": list(self.move_after),
            "log": self.log,
            "comments": list(self.comments),
        } | ({"slurm": list(self.slurm)} if self.slurm else {})


@dataclass(frozen=True, slots=True)
class Job:
    """One command of the EXEC section, after sweeps are expanded.

    `argv` is the whole command; `{identifier}` in it stands for the identifier, which is made only when the job
    starts. `script` is the name of the script's folder, `position` the index in `argv` of the script word.
    `standard` are the STD-E arguments among its words, `lengths` how many words each item of the hermes file has.
    `line` is the entry's line in the hermes file, counted from 1.
    """

    argv: tuple[str, ...]
    script: str
    line: int
    options: Options
    position: int
    lengths: tuple[int, ...]
    standard: tuple[str, ...]

    @property
    def items(self) -> tuple[tuple[str, ...], ...]:
        """What the hermes file said, for writing it down again: without the words that came in after the script word."""
        after = self.position + 1
        put_in = len(self.argv) - sum(self.lengths)
        words = iter(self.argv[:after] + self.argv[after + put_in :])
        return tuple(tuple(islice(words, length)) for length in self.lengths)

    def command(self, identifier: str) -> list[str]:
        """The words that go to the operating system."""
        return [
            word.replace(PLACEHOLDER, identifier) if PLACEHOLDER in word else word
            for word in self.argv
        ]

    @property
    def shell(self) -> str:
        """The command as a shell would read it, one line, with `{identifier}` standing for the identifier."""
        return shell_line(self.argv)

    def as_json(self) -> dict[str, Any]:
        return {
            "argv": list(self.argv),
            "script": self.script,
            "line": self.line,
            "options": self.options.as_json(),
        }

    @property
    def arguments(self) -> tuple[str, ...]:
        """What comes after the script word, in order, but for the identifier."""
        return tuple(word for word in self.argv[self.position + 1 :] if word != PLACEHOLDER)


@dataclass(slots=True, eq=False)
class Keys:
    """Gives every job its key: a hash of what the job is, the same in every run of the same entry.

    The key covers the command without the identifier, the paths to copy and move, and the repeat index: how many
    equal jobs came before in this plan. Comments, `log` and `slurm` change nothing about the job, so they do not count.
    """

    _seen: Counter[int] = field(default_factory=Counter)

    def key(self, job: Job) -> str:
        options = job.options
        words = [word for word in job.argv if word != PLACEHOLDER]
        what = json.dumps([words, options.copy_before, options.copy_after, options.move_after])
        digest = hashlib.sha256(what.encode())
        # Eight bytes of the digest keep the memory of 10^6 jobs small
        short = int.from_bytes(digest.digest()[:8], "big")
        repeat = self._seen[short]
        self._seen[short] = repeat + 1
        digest.update(b"%d" % repeat)
        return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one job ended. `directory` is the experiment directory, None if none could be made.

    Exactly one of `exit_code` and `signal` is set when the job's process ended by itself or by a signal.
    `duration` is in seconds.
    """

    identifier: str
    script: str
    directory: str | None
    status: Status
    exit_code: int | None = None
    signal: int | None = None
    duration: float = 0.0
    problems: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()
    line: int = 0

    @classmethod
    def not_begun(cls, job: Job, status: Status, *problems: str) -> Outcome:
        """That of a job of which there is not even an experiment."""
        return cls("", job.script, None, status, problems=problems, argv=job.argv, line=job.line)

    @classmethod
    def from_metadata(cls, job: Job, directory: str, metadata: dict[str, Any]) -> Outcome:
        """That of an experiment that is final, though nobody has said so."""
        return cls(
            metadata["identifier"], job.script, directory, Status(metadata["status"]), metadata["exit_code"], metadata["signal"],
            metadata["duration"], tuple(metadata["problems"]), tuple(metadata["argv"]), job.line,
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


@dataclass(frozen=True, slots=True)
class RunResult:
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

    stopped: bool = False
    """Whether nothing more was started because the disk was full."""

    left: int = 0
    """Jobs that are with the cluster, queued or running, when the run was left."""

    replaced: tuple[str, ...] = ()
    """Identifiers of experiments that an earlier runner left unfinished and that came to nothing: their jobs were run again."""

    @property
    def ok(self) -> bool:
        """Whether all jobs ran and succeeded, without problems. A job that was lost and succeeded when it was run again did."""
        is_whole = not self.cancelled and not self.stopped and not self.failed_before
        return is_whole and all(outcome.ok for outcome in self.final)

    @property
    def final(self) -> list[Outcome]:
        """The outcomes of the jobs, without those that another has replaced."""
        return [outcome for outcome in self.outcomes if outcome.identifier not in self.replaced]

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.ok]


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
