"""Slurm's commands: how they are called, and how their output is read.

`squeue` is asked with `-O` and separators, which all versions since 2018 have; its JSON ignores the
choice of jobs, and needs a plugin. `sacct` is not used, for many clusters have no accounting. What
`sbatch` refuses has the exit code 1 whatever the reason, so its messages have to be read.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ...errors import HermesError, escape

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

UNCLEAR = (
    "timed out",
    "zero bytes",
    "communication",
    "connection reset",
    "connection closed",
    "unexpected message",
)
"""What `sbatch` says when its message may have arrived all the same: an answer that came too
late is no refusal."""

LATER = (
    "unable to contact", "connect failure", "connection refused", "temporarily", "try again",
    "submit limit", "submitlimit", "maxsubmit", "maximum number of jobs", "not responding",
    "in standby", "protocol authentication", "slurm backup controller",
)  # fmt: skip
"""What it says when nothing was submitted, but may be in a while."""

_FORMAT = "JobArrayID:|,State:|,Reason:|,RestartCnt:|,NodeList:|,Name:"


class RefusedError(Exception):
    """Slurm does not take the job. `said` is why, in its words."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


class LaterError(RefusedError):
    """Nothing was submitted; later it may work."""


class UnclearError(RefusedError):
    """Nobody knows whether the job was submitted: look for its name."""


class NoAnswerError(Exception):
    """Slurm does not answer, so nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What `squeue` says of one task.

    `array` is the job array's id. A controller that has forgotten an id gives it to another job.
    """

    array: str
    task: int
    state: str
    reason: str = ""
    restarts: int = 0
    nodes: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the cluster takes: tasks of one array, jobs at all; and for how many seconds it may
    owe an answer."""

    array: int = 1001
    jobs: int = 10_000
    message_timeout: float = 10.0


class Commands:
    """Calls Slurm's commands; each call blocks. `abandon` ends those that are under way, and all
    later ones."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._is_abandoned = False

    def call(
        self, words: Sequence[str], limit: float, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Raises `NoAnswerError` if it takes longer than `limit` seconds, and `HermesError`
        without Slurm."""
        with self._lock:
            if self._is_abandoned:
                raise NoAnswerError(f"`{words[0]}` was not called any more")
            process = _start(words, environment or {})
            self._running.add(process)
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.communicate()
            raise NoAnswerError(f"`{words[0]}` did not answer for {limit:g} s") from None
        finally:
            with self._lock:
                self._running.discard(process)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

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
            said = last_line(done.stderr)
            if said_one_of(said, (*UNCLEAR, *LATER)):
                raise NoAnswerError(said)
            return said
        # What would never start "starts" in the year 4069
        found = re.search(r"to start at (\d{4})-", done.stderr)
        never = found is not None and int(found[1]) > 3000
        return "it would never start, say for its time limit" if never else None

    def submit(self, words: Sequence[str]) -> str:
        """Calls `sbatch` and returns the id of the job.

        Raises `RefusedError`, or what is derived from it.
        """
        try:
            done = self.call(["sbatch", *words], CALL_LIMIT)
        except NoAnswerError as exc:
            raise UnclearError(str(exc)) from None
        job = parse_submitted(done.stdout)
        if done.returncode == 0 and job is not None:
            return job
        said = last_line(done.stderr)
        if done.returncode <= 0 or not said or said_one_of(said, UNCLEAR):
            raise UnclearError(said or "it was interrupted")
        raise (LaterError if said_one_of(said, LATER) else RefusedError)(said)

    # Asking

    def queue(self, names: Iterable[str]) -> list[Row]:
        """All tasks that Slurm knows of these jobs, given by name, with one call. Raises
        `NoAnswerError`."""
        # Not by id, of which a single unknown one is an error. Without `-r` the list of pending
        # tasks is cut without any sign
        done = self.call(
            ["squeue", "-h", "-r", "-t", "all", "-O", _FORMAT, f"--name={','.join(names)}"],
            ASK_LIMIT,
        )
        if done.returncode:
            raise NoAnswerError(last_line(done.stderr))
        return parse_queue(done.stdout)

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
        return parse_duration(done.stdout.strip())

    # Cancelling

    def cancel_named(self, names: Iterable[str]) -> None:
        """Cancels all of these jobs. Raises `NoAnswerError`."""
        for name in names:
            self._cancel([f"--name={name}"])

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


def _start(words: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=_clean(os.environ) | dict(environment),
            # Ctrl-C is for the client: what is being submitted is submitted
            start_new_session=True,
        )
    except FileNotFoundError:
        raise HermesError(
            f"`{words[0]}` was not found on PATH: there is no Slurm here",
            hint="`executor: local` runs jobs on this machine",
        ) from None


def _kill(process: subprocess.Popen[str]) -> None:
    # The whole group: a site's wrapper may have started the real command, which holds the pipes
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name not in UNWANTED and not name.startswith(UNWANTED_KINDS)
    }


# Reading what they print


def said_one_of(said: str, texts: Sequence[str]) -> bool:
    lowered = said.lower()
    return any(text in lowered for text in texts)


def last_line(text: str) -> str:
    """What a command says in the end, without its name before it."""
    lines = [line for line in text.splitlines() if line.strip()]
    return escape(re.sub(r"^\w+: (error: )?", "", lines[-1])) if lines else ""


def parse_submitted(text: str) -> str | None:
    """The job's id in the output of `sbatch --parsable`: `123`, on a federation `123;cluster`.

    Sites print banners before it.
    """
    found = re.findall(r"^(\d+)(?:;\S*)?\s*$", text, re.MULTILINE)
    return found[-1] if found else None


def parse_queue(text: str) -> list[Row]:
    """The lines of `squeue -O` in the format above; what is no array's task is none of ours."""
    rows = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|", 5)]
        if len(fields) != 6:
            continue
        identity, state, reason, restarts, nodes, name = fields
        array, underscore, task = identity.partition("_")
        if underscore and task.isdigit():
            rows.append(
                Row(
                    array=array,
                    task=int(task),
                    # Newer versions write `CANCELLED by 1000` in places
                    state=state.split()[0] if state else "",
                    reason=reason,
                    restarts=int(restarts) if restarts.isdigit() else 0,
                    nodes=nodes,
                    name=name,
                )
            )
    return rows


def parse_limits(text: str) -> Limits:
    """The output of `scontrol show config`."""
    names = "MaxArraySize|MaxJobCount|MessageTimeout"
    found = dict(re.findall(rf"^({names})\s*=\s*(\d+)", text, re.MULTILINE))
    default = Limits()
    return Limits(
        max(1, int(found.get("MaxArraySize", default.array))),
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
