"""Slurm's commands: how they are called, and how their output is read.

`squeue` is asked with `-O` and separators, which all versions since 2018 have; its JSON ignores the
choice of jobs, and needs a plugin. `sacct` is not used, for many clusters have no accounting. Sites
print what they like before, after and around an answer, so each is found by a form that only Slurm
gives it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import IO

import msgspec

from ...errors import HermesError
from .refusals import Meaning, last_line, read_refusal

CALL_LIMIT = 180.0
"""Seconds after which a command is given up. `sbatch` itself waits 120 s on a cluster that has
all the jobs it takes."""

ASK_LIMIT = 60.0
"""The same for commands that only ask."""

UNWANTED = frozenset(
    f"SBATCH_{name}"
    for name in (
        "ARRAY_INX", "CLUSTERS", "ERROR", "EXPORT", "GET_USER_ENV", "INPUT", "JOB_NAME",
        "NO_REQUEUE", "OPEN_MODE", "OUTPUT", "REQUEUE", "SIGNAL", "WAIT",
    )
) | {"SLURM_CLUSTERS", "SLURM_TIME_FORMAT"}  # fmt: skip
"""Variables that would change how Hermes submits. Others, such as SBATCH_ACCOUNT, are people's
way to say what their cluster wants."""

UNWANTED_KINDS = ("SQUEUE_", "SCANCEL_", "SCONTROL_")

KILLED = 0.3
"""Seconds that one which was killed may take to be gone."""

NAMES_AT_ONCE = 1000
"""Names of jobs in one call: the system takes no argument of more than 128 KiB."""

SUBMITTED = "Submitted batch job"

_FORMAT = "JobArrayID:|,State:|,Reason:|,RestartCnt:|,NodeList:|,Name:"
_FIELDS = _FORMAT.count("|") + 1


class NotTakenError(Exception):
    """Slurm does not say that it has taken the job. `said` is why, in its words."""

    def __init__(self, meaning: Meaning, said: str) -> None:
        super().__init__(said)
        self.meaning = meaning
        self.said = said


class NoAnswerError(Exception):
    """Slurm does not answer, so nothing is known."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What `squeue` says of one task.

    `array` is the job array's id. A controller that has forgotten an id gives it to another job.
    `task` is None for an array that was cancelled as a whole: none of its tasks has a row.
    """

    array: str
    task: int | None
    state: str
    reason: str = ""
    restarts: int = 0
    nodes: str = ""
    name: str = ""


class Limits(msgspec.Struct, frozen=True):
    """What the cluster takes: tasks of one array, jobs at all; and for how many seconds it may
    owe an answer."""

    array: int = 1001
    jobs: int = 10_000
    message_timeout: float = 10.0


class Commands:
    """Calls Slurm's commands; each call blocks. `abandon` ends those that are under way, and all
    later ones."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._is_abandoned = False

    def call(self, words: Sequence[str], limit: float) -> subprocess.CompletedProcess[str]:
        """Raises `NoAnswerError` if it takes longer than `limit` seconds, or cannot be called."""
        # Files, not pipes: what a site's wrapper leaves behind would keep a pipe open
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = self._start(words, out, err)
            try:
                self._wait(words[0], process, limit)
            finally:
                with self._lock:
                    self._running.discard(process)
            return subprocess.CompletedProcess(words, process.returncode, _text(out), _text(err))

    def _start(
        self, words: Sequence[str], out: IO[bytes], err: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._is_abandoned:
                raise NoAnswerError(f"`{words[0]}` was not called any more")
            try:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    env=_clean(os.environ),
                    # Ctrl-C is for the client: what is being submitted is submitted
                    start_new_session=True,
                )
            except OSError as exc:
                raise NoAnswerError(f"`{words[0]}` cannot be called: {exc.strerror}") from None
            self._running.add(process)
            return process

    def _wait(self, name: str, process: subprocess.Popen[bytes], limit: float) -> None:
        ends, pause = time.monotonic() + limit, 0.001
        while process.poll() is None:
            is_late = time.monotonic() > ends
            if is_late or self._is_abandoned:
                _kill(process)
                with suppress(subprocess.TimeoutExpired):
                    # One that hangs in the kernel dies later
                    process.wait(KILLED)
                why = f"did not answer for {limit:g} s" if is_late else "was not waited for"
                raise NoAnswerError(f"`{name}` {why}")
            time.sleep(pause)
            pause = min(0.05, 2 * pause)

    def abandon(self) -> None:
        with self._lock:
            self._is_abandoned = True
            for process in self._running:
                _kill(process)

    # Submitting

    def test(self, options: Sequence[str]) -> str | None:
        """Why Slurm would not take a job with these options, in its words; None if it would.

        Raises `NoAnswerError`.
        """
        # With `--wrap` a word that is no option is an error; otherwise it would be taken for the
        # script
        done = self.call(["sbatch", "--wrap=:", *options, "--test-only", "--array=0"], CALL_LIMIT)
        if done.returncode:
            refusal = read_refusal(done.stderr.strip() or done.stdout)
            if refusal.meaning is Meaning.FULL:
                # It will be submitted when there is room
                return None
            if refusal.meaning in (Meaning.LATER, Meaning.UNCLEAR):
                raise NoAnswerError(refusal.said)
            return refusal.said
        # What would never start "starts" in the year 4069
        found = re.search(r"to start at (\d{4})-", done.stderr)
        never = found is not None and int(found[1]) > 3000
        return "it would never start, say for its time limit" if never else None

    def submit(self, words: Sequence[str]) -> str:
        """Calls `sbatch` and returns the id of the job. Raises `NotTakenError`."""
        try:
            done = self.call(["sbatch", *words], CALL_LIMIT)
        except NoAnswerError as exc:
            raise NotTakenError(Meaning.UNCLEAR, str(exc)) from None
        job = parse_submitted(done.stdout)
        if done.returncode == 0 and job is not None:
            return job
        meaning, said = read_refusal(done.stderr.strip() or done.stdout)
        if done.returncode not in range(1, 128) or SUBMITTED in done.stdout:
            # Killed, silent, or a site's wrapper that failed behind the real command
            meaning = Meaning.UNCLEAR
        raise NotTakenError(meaning, said)

    # Asking

    def queue(self, names: Iterable[str]) -> list[Row]:
        """All tasks that Slurm knows of these jobs, given by name, with one call. Raises
        `NoAnswerError`."""
        rows: list[Row] = []
        rest = iter(names)
        while some := list(islice(rest, NAMES_AT_ONCE)):
            # Not by id, of which a single unknown one is an error. Without `-r` the list of pending
            # tasks is cut without any sign. With the heading, which tells an answer from none
            done = self.call(
                ["squeue", "-r", "-t", "all", "-O", _FORMAT, f"--name={','.join(some)}"],
                ASK_LIMIT,
            )
            found = parse_queue(done.stdout)
            if done.returncode or found is None:
                raise NoAnswerError(last_line(done.stderr) or "`squeue` gave no list of jobs")
            rows += found
        return rows

    def limits(self) -> Limits:
        """What the cluster takes; Slurm's defaults if it does not tell."""
        try:
            done = self.call(["scontrol", "show", "config"], ASK_LIMIT)
        except NoAnswerError:
            return Limits()
        return parse_limits(done.stdout)

    def seconds_left(self, job: str) -> float | None:
        """Until a running job's time limit; None if it has none, or nobody tells."""
        try:
            done = self.call(["squeue", "-h", "-j", job, "-o", "%L"], ASK_LIMIT)
        except NoAnswerError:
            return None
        found = [parse_duration(line.strip()) for line in done.stdout.splitlines()]
        return next((seconds for seconds in found if seconds is not None), None)

    # Changing

    def set_pace(self, name: str, most: int, is_held: bool) -> None:
        """Lets at most so many tasks of the arrays of this name run at once, and holds those that
        have not started, or lets them go. Raises `NoAnswerError`."""
        hold = "hold" if is_held else "release"
        for words in (
            ["update", f"JobName={name}", f"ArrayTaskThrottle={most}"],
            [hold, f"jobname={name}"],
        ):
            done = self.call(["scontrol", *words], ASK_LIMIT)
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
            # What has ended meanwhile needs nothing: `1_0-1: Job has already finished`
            refused = [line for line in lines if not _NEEDS_NOTHING.search(line)]
            if done.returncode and (refused or not lines):
                raise NoAnswerError(
                    last_line("\n".join(refused)) or f"`scontrol {words[0]}` failed"
                )

    # Cancelling

    def cancel_named(self, names: Iterable[str]) -> None:
        """Cancels all of these jobs. Raises `NoAnswerError`."""
        for name in names:
            self._cancel([f"--name={name}"])

    def cancel_pending_named(self, name: str) -> None:
        """Cancels what of the jobs of this name has not started. Raises `NoAnswerError`."""
        self._cancel(["--state=PENDING", f"--name={name}"])

    def cancel_tasks(self, tasks: Sequence[str]) -> None:
        """Cancels tasks such as `12_3`. Raises `NoAnswerError`."""
        self._cancel(tasks)

    def cancel_pending(self, job: str) -> None:
        """Cancels what of a job has not started. Raises `NoAnswerError`."""
        self._cancel(["--state=PENDING", job])

    def _cancel(self, words: Sequence[str]) -> None:
        done = self.call(["scancel", *words], ASK_LIMIT)
        if done.returncode:
            raise NoAnswerError(last_line(done.stderr))


_NEEDS_NOTHING = re.compile(r"No error|already (finish|complet|done)|Invalid job", re.IGNORECASE)
"""A line of `scontrol` on a task that has been changed, or has ended."""


def require_slurm() -> None:
    """Raises `HermesError` where there is none. Blocks."""
    if shutil.which("sbatch") is None:
        raise HermesError(
            "`sbatch` was not found on PATH: there is no Slurm here",
            hint="`executor: local` runs jobs on this machine",
        )


def _kill(process: subprocess.Popen[bytes]) -> None:
    # The whole group: a site's wrapper may have started the real command
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _text(file: IO[bytes]) -> str:
    """What was written into it, without colours."""
    file.seek(0)
    text = file.read().decode("utf-8", "replace")
    return re.sub(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z^_])", "", text)


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name not in UNWANTED and not name.startswith(UNWANTED_KINDS)
    }


# Reading what they print


def parse_submitted(text: str) -> str | None:
    """The job's id in what `sbatch` prints."""
    found = re.findall(rf"\b{SUBMITTED} (\d+)\b", text)
    # A wrapper that prints as with `--parsable`; on a federation `123;cluster`
    found = found or re.findall(r"^\s*(\d+)(?:;\S*)?\s*$", text, re.MULTILINE)
    return found[-1] if found else None


def parse_queue(text: str) -> list[Row] | None:
    """The lines of `squeue -O` in the format above; None without their heading, which says that
    there was an answer at all."""
    rows, has_heading = [], False
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|", _FIELDS - 1)]
        if len(fields) != _FIELDS:
            continue
        identity, state, reason, restarts, nodes, name = fields
        has_heading |= (state, name) == ("STATE", "NAME")
        if (found := re.search(r"(\d+)(?:_(\d+))?$", identity)) and state:
            array, task = found.groups()
            rows.append(
                Row(
                    array=array,
                    task=int(task) if task else None,
                    # Newer versions write `CANCELLED by 1000` in places
                    state=state.split()[0],
                    reason=reason,
                    restarts=int(restarts) if restarts.isdigit() else 0,
                    nodes=nodes,
                    name=name,
                )
            )
    return rows if has_heading else None


def parse_limits(text: str) -> Limits:
    """The output of `scontrol show config`."""
    names = "MaxArraySize|MaxJobCount|MessageTimeout"
    found = dict(re.findall(rf"^\s*({names})\s*=\s*(\d+)", text, re.MULTILINE))
    default = Limits()
    # An option of `SchedulerParameters`
    tasks = re.search(r"\bmax_array_tasks=(\d+)", text)
    array = int(found.get("MaxArraySize", default.array))
    return Limits(
        max(1, min(array, int(tasks[1]) if tasks else array)),
        max(1, int(found.get("MaxJobCount", default.jobs))),
        float(found.get("MessageTimeout", default.message_timeout)),
    )


def parse_duration(text: str) -> float | None:
    """`1-02:03:04`, `2:03:04` or `3:04` in seconds; None for anything else, such as `UNLIMITED`."""
    match = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", text)
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
