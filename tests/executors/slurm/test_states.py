"""What Slurm's states and messages mean for a job."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hermes.executors.slurm.states import (
    cause_in,
    final_state,
    is_by_slurm_alone,
    is_killed,
    judged,
    last_words,
    problem_of,
    timed_out,
)
from hermes.model import Outcome, Problem, ProblemKind, Status

LOST = Outcome(identifier="x", script="x", directory="/x", status=Status.LOST)


BROKEN_OFF = "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-22T17:30:44 DUE TO "
KILLED = "slurmstepd-n1: error: StepId=1.batch exceeded memory limit (329801728 > 104857600)"
NEXT_START = "hermes.executors.slurm.node: 7_0 is task 0.0, start 2\n"


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-22 ***\n", "CANCELLED"),
        (f"{BROKEN_OFF}TIME LIMIT ***\n", "TIMEOUT"),
        (f"{BROKEN_OFF}JOB REQUEUE ***\n", "REQUEUED"),
        (f"{BROKEN_OFF}PREEMPTION ***\n", "PREEMPTED"),
        (f"{BROKEN_OFF}NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***\n", "NODE_FAIL"),
        (f"{KILLED}, being killed\n", "OUT_OF_MEMORY"),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=1.batch.\n", "OUT_OF_MEMORY"),
        # 23.02 and later
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=1.batch.\n", "OUT_OF_MEMORY"),
        ("hello\n", None),
        # What an earlier start has left
        (f"{BROKEN_OFF}JOB REQUEUE ***\n{NEXT_START}", None),
    ],
)
def test_the_log_says_why_slurm_ends_a_job(log: str, cause: str | None) -> None:
    assert cause_in(log) == cause


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        ("hermes.executors.slurm.node: 7_0 is task 0.0, start 1\n", ""),
        ("hermes.executors.slurm.node: 7_0 is task 0.0, start 1\nno module\n\n", "no module"),
        ("bad \x1b[31m\n", "bad \\x1b[31m"),
    ],
)
def test_the_last_words_of_a_log(log: str, words: str) -> None:
    assert last_words(log) == words


@pytest.mark.parametrize(
    ("state", "cause", "final"),
    [
        (None, None, None),
        (None, "TIMEOUT", "TIMEOUT"),
        ("FAILED", "OUT_OF_MEMORY", "OUT_OF_MEMORY"),
        ("COMPLETED", "REQUEUED", "REQUEUED"),
        ("FAILED", None, "FAILED"),
        ("TIMEOUT", "CANCELLED", "TIMEOUT"),
        # It says that it runs, which is not how it ended
        ("RUNNING", None, None),
        ("RUNNING", "NODE_FAIL", "NODE_FAIL"),
    ],
)
def test_the_state_in_which_a_job_ended(
    state: str | None, cause: str | None, final: str | None
) -> None:
    assert final_state(state, cause) == final


CANCELLED_FROM_OUTSIDE = "cancelled from outside: by `scancel`, or by an administrator"
OOM, CLUSTER = ProblemKind.OUT_OF_MEMORY, ProblemKind.CLUSTER


@pytest.mark.parametrize(
    ("state", "status", "kind", "text"),
    [
        ("TIMEOUT", "timeout", None, None),
        ("DEADLINE", "timeout", CLUSTER, "it would not have ended before its deadline"),
        ("CANCELLED", "cancelled", CLUSTER, CANCELLED_FROM_OUTSIDE),
        ("PREEMPTED", "cancelled", CLUSTER, "preempted by another job"),
        ("OUT_OF_MEMORY", "failed", OOM, "out of memory: Slurm killed it"),
        ("NODE_FAIL", "lost", CLUSTER, "the node failed"),
        ("BOOT_FAIL", "lost", CLUSTER, "the node could not be started"),
        ("FAILED", "lost", CLUSTER, "Slurm says FAILED (why)"),
        ("SOMETHING_NEW", "lost", CLUSTER, "Slurm says SOMETHING_NEW (why)"),
        (None, "lost", CLUSTER, "Slurm does not know it any more"),
    ],
)
def test_what_becomes_of_a_job_that_its_node_could_not_finish(
    state: str | None, status: str, kind: ProblemKind | None, text: str | None
) -> None:
    outcome = judged(LOST, state, "why")
    problems = () if kind is None or text is None else (Problem(kind, text),)
    assert (outcome.status, outcome.problems) == (status, problems)
    # It is told once
    assert judged(outcome, state, "why").problems == problems
    # Its own exit status says more
    finished = replace(LOST, status=Status.FINISHED, exit_code=0)
    assert judged(finished, state, "why").status is Status.FINISHED


@pytest.mark.parametrize("state", [None, "FAILED", "NODE_FAIL"])
def test_a_job_that_failed_by_itself_is_not_explained(state: str | None) -> None:
    failed = replace(LOST, status=Status.FAILED, exit_code=3)
    assert judged(failed, state, "why") == failed


def test_a_stopped_run_explains_why_its_jobs_are_cancelled() -> None:
    assert judged(LOST, "CANCELLED", "", is_stopped=True).problems == ()


def test_a_job_whose_time_was_over_is_not_cancelled_from_outside() -> None:
    own = Problem(ProblemKind.NOT_COPIED, "none")
    cancelled = replace(LOST, status=Status.CANCELLED, problems=(own, problem_of("CANCELLED")))
    assert timed_out(cancelled) == replace(LOST, status=Status.TIMEOUT, problems=(own,))
    # It came to its end in the same moment
    assert timed_out(LOST) == LOST


@pytest.mark.parametrize(
    ("status", "exit_code", "signal", "expected"),
    [
        ("failed", None, 9, True),
        ("failed", 137, None, True),
        ("failed", 1, None, False),
        ("failed", None, 15, False),
        ("cancelled", None, 9, False),
    ],
)
def test_a_killed_job_may_have_been_out_of_memory(
    status: str, exit_code: int | None, signal: int | None, expected: bool
) -> None:
    outcome = replace(LOST, status=Status(status), exit_code=exit_code, signal=signal)
    assert is_killed(outcome) is expected


@pytest.mark.parametrize(
    ("log", "is_slurm"),
    [
        ("slurmstepd-n1: error: rmdir(/spool/job00002): No such file or directory\n", True),
        ("slurmstepd: error: execve(): bad interpreter(/usr/bin/no): No such file\n\n", True),
        ("", False),
        ("/bin/sh: 1: exec: /no/python: not found\n", False),
        # Then it was started, and what went wrong has another cause
        (f"{NEXT_START}slurmstepd-n1: error: Unable to remove it\n", False),
    ],
)
def test_what_slurm_alone_could_not_start(log: str, is_slurm: bool) -> None:
    assert is_by_slurm_alone(log) is is_slurm
