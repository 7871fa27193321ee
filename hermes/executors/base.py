"""Where jobs run. An executor brings the jobs of a run from their start to their final metadata; what becomes of that is the run's.

A new one, say for Kubernetes, is a module with a class like `local.LocalExecution`: it takes the jobs from a `Work`, which
the runner gives it, and tells that `Work` what happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..events import JobStarted
from ..experiments.store import RunFolder
from ..language.plan import Plan
from ..model import Job, Outcome


@dataclass(frozen=True, slots=True)
class Leftover:
    """An experiment that has no final status: its runner ended before it."""

    index: int
    job: Job
    directory: str
    metadata: dict[str, Any]
    again: bool
    """Whether to run the job again if it is lost; not if that has been done before."""

    failed: bool
    """Whether to run it again also if it failed."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A job that is to be started. `index` counts the jobs of the plan from 0, `attempt` its starts in this run from 1."""

    index: int
    job: Job
    key: str
    attempt: int


class Work(Protocol):
    """What an executor is given to do, and whom it tells. All of this is called in the event loop's thread, but `pending` in any one."""

    @property
    def plan(self) -> Plan: ...

    @property
    def folder(self) -> RunFolder: ...

    @property
    def leftovers(self) -> Sequence[Leftover]:
        """Experiments that an earlier runner has started and not finished: to be finished first."""
        ...

    @property
    def grace(self) -> float:
        """Seconds between SIGTERM and SIGKILL for jobs that are cancelled; 0 when they are to be killed."""
        ...

    @property
    def is_followed(self) -> bool:
        """Whether anybody wants to know of collected files. If not, `collected` need not be called."""
        ...

    def pending(self) -> Iterator[Pending]:
        """The jobs that are still to be started, lazily, in the order of the plan. Ends early when nothing more is to be started."""
        ...

    def again(self, leftover: Leftover) -> Pending:
        """A job whose leftover came to nothing, to be started anew."""
        ...

    def started(self, event: JobStarted) -> None:
        """The job's process exists."""
        ...

    def collected(self, identifier: str, path: str) -> None:
        """A file has come into a job's experiment directory, `path` relative to it. May come before `started`."""
        ...

    async def ended(self, index: int, outcome: Outcome, *, replaced: bool = False) -> None:
        """The job's directory is final. With `replaced`, another experiment of the same job is what counts."""
        ...

    def warn(self, message: str) -> None:
        """Something that concerns the whole run and harms no result."""
        ...

    def queued(self, pending: int, running: int, reason: str) -> None:
        """How many jobs wait in somebody's queue, how many run, and why they wait, in the queue's own words. For those that have one."""
        ...

    def stop(self) -> None:
        """Starts nothing more, because the disk is full."""
        ...


class Execution(Protocol):
    """An executor at work on one run."""

    @property
    def cancelling(self) -> str:
        """What `cancel` does, for people."""
        ...

    @property
    def killing(self) -> str:
        """What `kill` does, for people."""
        ...

    @property
    def left(self) -> int:
        """Jobs that go on without this process, once `run` has returned."""
        ...

    async def run(self) -> None:
        """Returns when nothing is left to do. Cancelled from outside, it does as `cancel` says before it raises."""
        ...

    def cancel(self) -> None:
        """Starts nothing more, and `run` returns soon. What runs is ended as `Work.grace` says, and finished; or, where jobs go on by
        themselves, it is left alone for whoever resumes the run."""
        ...

    def kill(self) -> None:
        """As `cancel`, but at once, also if that is under way already."""
        ...


def _accept(_plan: Plan) -> None:
    """The `check` of an executor that can execute every plan."""


def _hold_none(_folder: RunFolder, _failed: bool) -> set[str]:
    """The `held` of an executor whose jobs end, or are taken up, with the process that runs them."""
    return set()


@dataclass(frozen=True, slots=True)
class Executor:
    """A place where jobs can run.

    `execution` is called once a run, in the event loop's thread. `check` raises `HermesError` if a plan cannot be executed there; it is
    called before anything is made. `held` tells, when a run is resumed (with `failed`: failed jobs too), the keys of the jobs that this
    executor goes on with by itself. Both block.
    """

    execution: Callable[[Work], Execution]
    check: Callable[[Plan], None] = _accept
    held: Callable[[RunFolder, bool], set[str]] = _hold_none
