"""Slurm's commands: how they are called, and what their output means. Known from Slurm 22.05; newer states are known too.

`squeue` is asked with `-O` and separators, which all versions since 2018 have; its JSON ignores the choice of jobs, and
needs a plugin. `sacct` is not used, for many clusters have no accounting.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...errors import HermesError, escape

CALL_LIMIT = 180.0
"""Seconds after which a command is given up. `sbatch` itself waits 120 s on a cluster that has all the jobs it takes."""

ASK_LIMIT = 60.0
"""The same for commands that only ask."""

UNWANTED = frozenset(
    f"SBATCH_{name}"
    for name in (
        "ARRAY_INX", "CLUSTERS", "ERROR", "EXPORT", "GET_USER_ENV", "INPUT", "JOB_NAME", "NO_REQUEUE", "OPEN_MODE", "OUTPUT", "REQUEUE",
        "SIGNAL", "WAIT",
    )
) | {"SLURM_CLUSTERS", "SLURM_TIME_FORMAT"}  # fmt: skip
"""Variables that would change how Hermes submits. Others, such as SBATCH_ACCOUNT, are people's way to say what their cluster wants."""

UNWANTED_KINDS = ("SQUEUE_", "SCANCEL_", "SCONTROL_")

GONE = frozenset(
    {
        "COMPLETED",
        "FAILED",
        "CANCELLED",
        "TIMEOUT",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "BOOT_FAIL",
        "DEADLINE",
        "PREEMPTED",
        "REVOKED",
    }
)
"""States in which nothing of a job runs any more and nothing will; all others, unknown ones too, mean that it goes on."""

WAITING = frozenset(
    {
        "PENDING",
        "REQUEUED",
        "REQUEUE_HOLD",
        "REQUEUE_FED",
        "SPECIAL_EXIT",
        "RESV_DEL_HOLD",
        "CONFIGURING",
    }
)
"""States in which a job has not started yet, or not again."""

UNCLEAR = (
    "timed out",
    "zero bytes",
    "communication",
    "connection reset",
    "connection closed",
    "unexpected message",
)
"""What `sbatch` says when its message may have arrived all the same: an answer that came too late is no refusal."""

LATER = (
    "unable to contact", "connect failure", "connection refused", "temporarily", "try again", "submitlimit", "maxsubmit",
    "maximum number of jobs", "not responding", "in standby", "protocol authentication", "slurm backup controller",
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


@dataclass(frozen=True, slots=True)
class Row:
    """What `squeue` says of one task. `array` is the job array's id; ids are used again by a controller that has forgotten them."""

    array: str
    task: int
    state: str
    reason: str
    restarts: int
    nodes: str
    name: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What the cluster takes: tasks of one array, jobs at all, and how long an answer may take it, in seconds."""

    array: int = 1001
    jobs: int = 10_000
    message_timeout: float = 10.0


class Calls:
    """Calls commands, one at a time in each worker thread. `abandon` ends those that are under way."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self.count = 0
        """How many times `squeue` was called."""

    def call(
        self, words: Sequence[str], limit: float, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Raises `NoAnswerError` if that takes longer than `limit`, and `HermesError` without Slurm."""
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=_clean(os.environ) | dict(environment or {}),
                # Ctrl-C is for the client: what is being submitted is submitted
                start_new_session=True,
            )
        except FileNotFoundError:
            raise HermesError(
                f"`{words[0]}` was not found on PATH: there is no Slurm here",
                hint="`executor: local` runs jobs on this machine",
            ) from None
        with self._lock:
            self._running.add(process)
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise NoAnswerError(f"`{words[0]}` did not answer for {limit:g} s") from None
        finally:
            with self._lock:
                self._running.discard(process)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def abandon(self) -> None:
        with self._lock:
            for process in self._running:
                process.kill()

    # Submitting

    def test(self, options: Sequence[str]) -> str | None:
        """Why Slurm would not take a job with these options, in its words; None if it would. Raises `NoAnswerError`."""
        # With `--wrap` a word that is no option is an error; otherwise it would be taken for the script
        done = self.call(["sbatch", "--wrap=:", *options, "--test-only", "--array=0"], CALL_LIMIT)
        if done.returncode:
            said = last_line(done.stderr)
            if said_one_of(said, (*UNCLEAR, *LATER)):
                raise NoAnswerError(said)
            return said
        # What would never start "starts" in the year 4069
        found = re.search(r"to start at (\d{4})-", done.stderr)
        return (
            "it would never start, say for its time limit"
            if found and int(found[1]) > 3000
            else None
        )

    def submit(self, words: Sequence[str]) -> str:
        """Calls `sbatch`, and returns the id of the job. Raises `RefusedError`, or what is derived from it."""
        try:
            done = self.call(["sbatch", *words], CALL_LIMIT)
        except NoAnswerError as exc:
            raise UnclearError(str(exc)) from None
        # On a federation it is `123;cluster`
        job = done.stdout.strip().partition(";")[0]
        if done.returncode == 0 and job.isdigit():
            return job
        said = last_line(done.stderr)
        if done.returncode < 0 or not said or said_one_of(said, UNCLEAR):
            raise UnclearError(said or "it was interrupted")
        raise (LaterError if said_one_of(said, LATER) else RefusedError)(said)

    # Asking

    def queue(self, names: Iterable[str]) -> list[Row]:
        """All tasks, of these jobs by name, that Slurm knows of, with one call. Raises `NoAnswerError`."""
        self.count += 1
        # Not by id, of which a single unknown one is an error. Without `-r` the list of pending tasks is cut without any sign
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


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name not in UNWANTED and not name.startswith(UNWANTED_KINDS)
    }


def said_one_of(said: str, texts: Sequence[str]) -> bool:
    lowered = said.lower()
    return any(text in lowered for text in texts)


def last_line(text: str) -> str:
    """What a command says in the end, without its name before it."""
    lines = [line for line in text.splitlines() if line.strip()]
    return escape(re.sub(r"^\w+: (error: )?", "", lines[-1])) if lines else ""


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
            # Newer versions write `CANCELLED by 1000` in places
            rows.append(
                Row(
                    array,
                    int(task),
                    state.split()[0] if state else "",
                    reason,
                    int(restarts) if restarts.isdigit() else 0,
                    nodes,
                    name,
                )
            )
    return rows


def parse_limits(text: str) -> Limits:
    """The output of `scontrol show config`."""
    found = dict(
        re.findall(r"^(MaxArraySize|MaxJobCount|MessageTimeout)\s*=\s*(\d+)", text, re.MULTILINE)
    )
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


MARK = "hermes.executors.slurm.node: "
"""Begins the line that a node prints when it starts, so that what an earlier start left in the same log is told apart."""

CAUSES = (
    ("OUT_OF_MEMORY", r"oom[-_]kill event|out-of-memory handler|[Ee]xceeded (job )?memory limit"),
    ("TIMEOUT", r"DUE TO TIME LIMIT"),
    ("REQUEUED", r"DUE TO JOB REQUEUE"),
    ("PREEMPTED", r"DUE TO PREEMPTION"),
    ("NODE_FAIL", r"DUE TO NODE FAILURE"),
    ("CANCELLED", r"\*\*\* (JOB|STEP) \S+ ON \S+ CANCELLED AT \S+ \*\*\*"),
)
"""States, and by which words of slurmstepd in a job's output they can be told; it writes them before it sends the first signal."""


GOES_ON = frozenset({"REQUEUED", "PREEMPTED", "NODE_FAIL"})
"""Causes after which Slurm may start the job again: nothing of it is final."""


def cause_in(log: str) -> str | None:
    """Why Slurm has ended, or is about to end, what prints into this log; None if it says nothing."""
    latest = log.rpartition(MARK)[2]
    return next((state for state, pattern in CAUSES if re.search(pattern, latest)), None)


def last_words(log: str) -> str:
    """The last line of a job's log that is not a node's own, empty if there is none."""
    lines = [line for line in log.splitlines() if line.strip() and MARK not in line]
    return escape(lines[-1]) if lines else ""


_PROBLEMS = {
    "OUT_OF_MEMORY": "out of memory: Slurm killed it",
    "NODE_FAIL": "the node failed",
    "BOOT_FAIL": "the node could not be started",
    "PREEMPTED": "preempted by another job",
    "DEADLINE": "it would not have ended before its deadline",
    "CANCELLED": "cancelled from outside: by `scancel`, or by an administrator",
}


def problem_of(state: str | None, reason: str = "") -> str:
    """What the state in which a job has ended means to its user; None stands for a job that Slurm does not know."""
    if state is None:
        return "Slurm does not know it any more"
    said = f" ({escape(reason)})" if reason not in ("", "None") else ""
    return _PROBLEMS.get(state, f"Slurm says {escape(state)}{said}")
