"""How long a run still takes: a plain function of values."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum


def time_left(
    durations: Sequence[float], running: Sequence[float], waiting: int, at_once: int
) -> float | None:
    """Seconds until all jobs have ended; None while none has, for then nothing is known.

    `durations` are those of jobs that have ended, in seconds, the latest ones if they are many.
    `running` is for how many seconds each running job has run, `waiting` how many have not been
    started, `at_once` how many run at the same time. A running job is taken for one of those that
    took longer than it has run, and for about to end if there is none.
    """
    if not durations:
        return None
    typical = fsum(durations) / len(durations)
    rests = sorted(_rest(durations, elapsed) for elapsed in running)
    free_in = [0.0] * (max(1, at_once) - len(rests)) + rests
    # Each round gives every slot one more job; what is left then goes to those that are free first
    rounds, left = divmod(waiting, len(free_in))
    last = free_in[left - 1] + typical if left else 0.0
    return rounds * typical + max(free_in[-1], last)


def _rest(durations: Sequence[float], elapsed: float) -> float:
    longer = [duration for duration in durations if duration > elapsed]
    return fsum(longer) / len(longer) - elapsed if longer else 0.0
