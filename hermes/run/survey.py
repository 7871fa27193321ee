"""What is known of the jobs of a plan before the first one is started."""

from __future__ import annotations

from collections import Counter
from enum import Enum

import msgspec

from ..executors.base import Todo


class Reason(Enum):
    """Why a job is not started."""

    SUCCEEDED = "has succeeded"
    FAILED = "has failed, and failed jobs are not run again"
    REMOVED = "its experiment was removed"
    TAKEN_UP = "an earlier runner has begun it, and it is brought to its end"
    RUNNING = "another run executes it"
    UNKNOWN = "it may be alive where nobody can see it from here"


class Survey(msgspec.Struct, eq=False):
    """What is known of the jobs of a plan before the first one is started."""

    settled: dict[str, Reason] = msgspec.field(default_factory=dict)
    """By their keys, the jobs that are not started, and why."""

    taken_up: list[Todo] = msgspec.field(default_factory=list)
    """Jobs that an earlier runner has begun and not finished."""

    attempts: dict[str, int] = msgspec.field(default_factory=dict)
    """How many times a job has been started in this run."""

    failures: dict[str, int] = msgspec.field(default_factory=dict)
    """How many of these attempts have failed, as far as they count."""

    warnings: list[str] = msgspec.field(default_factory=list)

    may_be_alive: dict[str, str] = msgspec.field(default_factory=dict)
    """By their keys, experiments of other runs that may be alive."""

    spelled: dict[str, tuple[str, int]] = msgspec.field(default_factory=dict)
    """By their keys, experiments that have succeeded, each with the hash of its arguments: a job
    may be the same with its numbers written otherwise."""

    counted: Counter[Reason] = msgspec.field(default_factory=Counter)
    """How many jobs of the plan are not started, as far as that is known in advance."""

    @property
    def succeeded(self) -> int:
        return self.counted[Reason.SUCCEEDED]

    @property
    def failed(self) -> int:
        return self.counted[Reason.FAILED]
