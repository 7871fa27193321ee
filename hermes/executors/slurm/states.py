"""What Slurm's states and messages mean for a job. Known from Slurm 22.05; newer states are
known too. Nothing here does I/O."""

from __future__ import annotations

import re
from signal import SIGKILL

from msgspec.structs import replace

from ...errors import escape
from ...model import Outcome, Problem, ProblemKind, Status

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
"""In these states nothing of a job runs any more and nothing will. All others, unknown ones too,
mean that it goes on."""

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
"""In these states a job has not started yet, or not again."""

MARK = "hermes.executors.slurm.node: "
"""Begins the line that a node prints when it starts: what an earlier start left in the same log
stands before it."""

CAUSES = (
    ("OUT_OF_MEMORY", r"oom[-_]kill event|out-of-memory handler|[Ee]xceeded (job )?memory limit"),
    ("TIMEOUT", r"DUE TO TIME LIMIT"),
    ("REQUEUED", r"DUE TO JOB REQUEUE"),
    ("PREEMPTED", r"DUE TO PREEMPTION"),
    ("NODE_FAIL", r"DUE TO NODE FAILURE"),
    ("CANCELLED", r"\*\*\* (JOB|STEP) \S+ ON \S+ CANCELLED AT \S+ \*\*\*"),
)
"""States, and the words of slurmstepd in a job's output by which they can be told. It writes
them before it sends the first signal, and nothing but this text tells a node why it is ended."""

GOES_ON = frozenset({"REQUEUED", "PREEMPTED", "NODE_FAIL"})
"""After these Slurm may start the job again, so nothing of it is final."""

_PROBLEMS = {
    "OUT_OF_MEMORY": "out of memory: Slurm killed it",
    "NODE_FAIL": "the node failed",
    "BOOT_FAIL": "the node could not be started",
    "PREEMPTED": "preempted by another job",
    "DEADLINE": "it would not have ended before its deadline",
    "CANCELLED": "cancelled from outside: by `scancel`, or by an administrator",
}


def cause_in(log: str) -> str | None:
    """The state in which Slurm ends, or is about to end, the job that prints this log; None if
    it does not say."""
    latest = log.rpartition(MARK)[2]
    return next((state for state, pattern in CAUSES if re.search(pattern, latest)), None)


def last_words(log: str) -> str:
    """The last line of a job's log that is not a node's own, empty if there is none."""
    lines = [line for line in log.splitlines() if line.strip() and MARK not in line]
    return escape(lines[-1]) if lines else ""


def is_by_slurm_alone(log: str) -> bool:
    """Whether the last word in a job's log is Slurm's, which could not even start the node's
    program: as when it removes the job's folder on the node just then, after a restart."""
    return MARK not in log and last_words(log).startswith("slurmstepd")


def problem_of(state: str | None, reason: str = "") -> Problem:
    """What the state in which a job has ended means to its user; None for a job that Slurm does
    not know."""
    if state is None:
        return Problem(ProblemKind.CLUSTER, "Slurm does not know it any more")
    kind = ProblemKind.OUT_OF_MEMORY if state == "OUT_OF_MEMORY" else ProblemKind.CLUSTER
    said = f" ({escape(reason)})" if reason not in ("", "None") else ""
    return Problem(kind, _PROBLEMS.get(state, f"Slurm says {escape(state)}{said}"))


def final_state(state: str | None, cause: str | None) -> str | None:
    """In which state a job ended, from the state that Slurm gives and the cause in its log."""
    known = state if state in GONE else cause
    # What it writes into the log says more than a plain failure
    return cause if known in (None, "FAILED", "COMPLETED") and cause is not None else known


def judged(
    outcome: Outcome, state: str | None, reason: str, *, is_stopped: bool = False
) -> Outcome:
    """The outcome of an experiment whose node could not say how it ended, with what Slurm says
    about it.

    With `is_stopped` somebody has stopped the run, so that a cancelled job needs no explanation.
    """
    status, says_why = outcome.status, True
    if status is Status.FINISHED:
        says_why = state == "OUT_OF_MEMORY"
    elif state in ("TIMEOUT", "DEADLINE"):
        status, says_why = Status.TIMEOUT, state == "DEADLINE"
    elif state in ("CANCELLED", "PREEMPTED"):
        status, says_why = Status.CANCELLED, not is_stopped
    elif state == "OUT_OF_MEMORY":
        status = Status.FAILED
    elif status is Status.FAILED:
        # It ended by itself, as its exit status tells
        says_why = False
    else:
        status = Status.LOST
    changed = replace(outcome, status=status)
    return with_problem(changed, problem_of(state, reason)) if says_why else changed


def with_problem(outcome: Outcome, problem: Problem) -> Outcome:
    """The outcome with one more problem, if it has not got that already.

    What Slurm says of memory takes the place of what the node has found or supposed.
    """
    kept = [
        each
        for each in outcome.problems
        if each.kind is not problem.kind or each.kind is not ProblemKind.OUT_OF_MEMORY
    ]
    return replace(outcome, problems=tuple(dict.fromkeys((*kept, problem))))


def timed_out(outcome: Outcome) -> Outcome:
    """The outcome of a job that the runner had cancelled because its time was over."""
    if outcome.status is not Status.CANCELLED:
        return outcome
    problems = (each for each in outcome.problems if each.kind is not ProblemKind.CLUSTER)
    return replace(outcome, status=Status.TIMEOUT, problems=tuple(problems))


def is_killed(outcome: Outcome) -> bool:
    """Whether a job was killed, so that Slurm may still say that it was for want of memory."""
    by_signal = outcome.signal == SIGKILL or outcome.exit_code == 128 + SIGKILL
    return outcome.status is Status.FAILED and by_signal
