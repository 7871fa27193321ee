"""How a run is executed, beside what its plan says."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..language.plan import Plan
from ..timing import Timing
from .news import FollowLogs

INNER_SHARE = 0.7
"""A run in a job of another run has this share of that job's grace."""


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is executed, and what is told of it beside the states of its jobs.

    `grace` is in seconds, None for that of the settings.
    """

    grace: float | None
    follow_logs: FollowLogs
    follow_files: bool
    timing: Timing

    def grace_of(self, plan: Plan) -> float:
        """Seconds between SIGTERM and SIGKILL for the jobs of a plan."""
        return plan.settings.grace if self.grace is None else self.grace


def within_outer(grace: float, environment: Mapping[str, str]) -> float:
    """The grace of a run that may itself be in a job of another run: shorter than the grace of that
    job, so that jobs which do not obey are killed, and told, before their runner is.
    """
    try:
        outer = float(environment["HERMES_GRACE"])
    except (KeyError, ValueError):
        return grace
    return min(grace, INNER_SHARE * outer) if outer > 0 else grace
