"""Where a run stands, by the events that it has told."""

from __future__ import annotations

from hermes import Status
from hermes.run.standing import Standing

from ..support.news import ended, standing, started


def test_what_was_cancelled_is_no_failure() -> None:
    stands = Standing()
    stands.take(standing())
    for number, status in enumerate((Status.FINISHED, Status.FAILED, Status.CANCELLED)):
        stands.take(started(number))
        stands.take(ended(number, status))
    assert (stands.done, stands.failures) == (3, 1)
