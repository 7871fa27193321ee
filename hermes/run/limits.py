"""When a failed job is tried again, and when so many have failed that nothing more is started.

Plain functions of values.
"""

from __future__ import annotations

from ..executors.base import Todo
from ..language.settings import Settings
from ..model import FAILED, Options, Status
from ..timing import Timing

SHARE_FROM = 10
"""A share of failed jobs is looked at when so many have ended."""


def retries_of(options: Options, settings: Settings) -> int:
    """How often a job with these options is tried again."""
    return settings.retries if options.retries is None else options.retries


def pause_before_retry(
    todo: Todo, status: Status, settings: Settings, timing: Timing
) -> float | None:
    """Seconds until a job that has ended so is tried again; None if it is not."""
    if status not in FAILED or todo.failures >= retries_of(todo.job.options, settings):
        return None
    # So large a power would be no number any more
    return min(timing.first_retry * 2.0 ** min(todo.failures, 10), timing.last_retry)


def are_too_many(failed: int, ended: int, limit: str | None) -> bool:
    """Whether so many jobs have failed, of those that have ended, that the rest is not started.

    `limit` is the setting `max_failures`.
    """
    if limit is None or not failed:
        return False
    if limit.endswith("%"):
        return ended >= SHARE_FROM and 100 * failed >= int(limit[:-1]) * ended
    return failed >= int(limit)
