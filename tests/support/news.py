"""Events of a pretended run, as a runner would tell them."""

from __future__ import annotations

from hermes import JobEnded, JobStarted, Outcome, RunStanding, Status


def started(number: int, **changes: object) -> JobStarted:
    """The start of the job of this number, counted from 0."""
    found: dict[str, object] = {
        "identifier": f"2026_03_04_{number:012}_1930e",
        "script": "train",
        "index": number,
        "slot": 0,
        "pid": 7,
        "argv": ("python", "train.py", str(number)),
        "arguments": (str(number),),
        "directory": f"/experiments/{number}",
        "line": 2,
        "log": True,
    }
    return JobStarted(**{**found, **changes})  # type: ignore[arg-type]


def ended(
    number: int, status: Status = Status.FINISHED, tried_again_in: float | None = None
) -> JobEnded:
    """The end of the job of this number."""
    outcome = Outcome(
        identifier=started(number).identifier,
        script="train",
        directory=f"/experiments/{number}",
        status=status,
        duration=2.5,
        argv=("python", "train.py", str(number)),
    )
    return JobEnded(index=number, outcome=outcome, tried_again_in=tried_again_in)


def standing(part: int = 1, **changes: object) -> RunStanding:
    """That of a run of ten jobs of which none has begun."""
    found: dict[str, object] = {
        "run_id": "20260304-120000-00000000",
        "name": "test",
        "part": part,
        "host": "somewhere",
        "boot_id": "b",
        "namespace": "n",
        "pid": 7,
        "began": 1000.0,
        "threads": 2,
        "is_paused": False,
        "whole": 10,
        "total": 10,
        "done": 0,
        "failed": 0,
        "undone": 0,
        "succeeded_before": 0,
        "failed_before": 0,
        "at_once": 1,
        "running": (),
        "latest": (),
        "durations": (),
        "queue": None,
    }
    return RunStanding(**{**found, **changes})  # type: ignore[arg-type]
