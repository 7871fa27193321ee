"""What happens in a run: one class an event, with when it is published and what it holds."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec.structs import asdict

from .model import Outcome, Problem


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """`time` is in seconds since the epoch, taken when the event was made."""

    time: float = msgspec.field(default_factory=time.time)

    def as_json(self) -> dict[str, Any]:
        """The event as JSON types; `event` is its name in snake case, bytes are decoded as UTF-8
        with replacement."""
        data: dict[str, Any] = {"event": event_name(type(self))}
        data |= {name: _plain(value) for name, value in asdict(self).items()}
        return data


def event_name(kind: type[Event]) -> str:
    """The name of a kind of events in JSON: `job_started`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


class RunStarted(Event, frozen=True, kw_only=True):
    """The plan is checked and nothing has been started. `total` counts the jobs, but for those that
    a resumed run need not start."""

    run_id: str
    name: str
    total: int
    threads: int
    experiments: str


class JobStarted(Event, frozen=True, kw_only=True):
    """The job's process exists. `index` counts the jobs of the plan from 0; `slot` is its
    HERMES_SLOT, `gpus` are its GPUs as CUDA_VISIBLE_DEVICES calls them."""

    identifier: str
    script: str
    index: int
    slot: int
    pid: int
    argv: tuple[str, ...]
    arguments: tuple[str, ...]
    directory: str
    line: int
    log: bool
    gpus: tuple[str, ...] = ()


class LogChunk(Event, frozen=True, kw_only=True):
    """A job has printed something: up to 64 KiB of bytes as they are, not cut at line ends."""

    identifier: str
    stream: Literal["stdout", "stderr"]
    data: bytes


class FileCollected(Event, frozen=True, kw_only=True):
    """A file that carries the identifier is in the experiment directory, under `path` relative to
    it."""

    identifier: str
    path: str


class JobEnded(Event, frozen=True, kw_only=True):
    """The job has ended and its directory is final: files collected, copied and moved, metadata
    written. `tried_again_in` are the seconds until the job is started anew, because it has failed
    or nobody can tell how it ended; None if it is not."""

    index: int
    outcome: Outcome
    tried_again_in: float | None = None


class QueueChanged(Event, frozen=True, kw_only=True):
    """On a cluster: how many jobs wait in its queue and how many run, and why most of those wait,
    in the cluster's own words."""

    pending: int
    running: int
    reason: str


class RunChanged(Event, frozen=True, kw_only=True):
    """The run was changed while it goes on. `total` counts its jobs as in `RunStarted`, `threads`
    are the most at the same time from now on; if it `is_paused` nothing more is started."""

    total: int
    threads: int
    is_paused: bool


class RunWarning(Event, frozen=True, kw_only=True):
    """Something that concerns the whole run and harms no result, as exhausted watches do."""

    message: str


class RunEnded(Event, frozen=True, kw_only=True):
    """All jobs have ended, or the run was cancelled. Comes last. If all is `ok`, nothing is left to
    be done. `counts` says in words how many jobs ended how, and how many never started."""

    run_id: str
    started: int
    succeeded: int
    cancelled: bool
    ok: bool = False
    counts: Mapping[str, int] = msgspec.field(default_factory=dict)
    go_on: str = ""
    """What goes on with the run, or brings back what it lacks, in words; empty if nothing does."""


class RunStanding(Event, frozen=True, kw_only=True):
    """Where a run stands: the first event for those who look at it from outside, by `open_attached`
    alone.

    `total`, `done` and `failed` count as the run's own display does: `done` are all jobs that have
    ended, `failed` those of them that are not ok, and `undone` those of these that were cancelled
    or lost, and so have yet to be done. `whole` counts all jobs of the plan, `succeeded_before` and
    `failed_before` are those that need not start in a resumed run. `latest` are some jobs that
    ended last, `durations` are in seconds. `host`, `boot_id`, `namespace` and `pid` tell the
    runner's process; `part` counts how often this was written anew.
    """

    run_id: str
    name: str
    part: int
    host: str
    boot_id: str | None
    namespace: str | None
    pid: int
    began: float
    whole: int
    succeeded_before: int
    failed_before: int
    threads: int = 1
    is_paused: bool = False
    total: int = 0
    done: int = 0
    failed: int = 0
    undone: int = 0
    at_once: int = 1
    running: tuple[JobStarted, ...] = ()
    latest: tuple[tuple[JobStarted, Outcome], ...] = ()
    durations: tuple[float, ...] = ()
    queue: QueueChanged | None = None


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Event):
        return value.as_json()
    if isinstance(value, Outcome | Problem):
        return {name: _plain(each) for name, each in asdict(value).items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
