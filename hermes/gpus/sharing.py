"""Who gets which GPUs: plain functions of values.

Shares are exact fractions: three jobs with a third each fill a GPU.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction

import msgspec

Amount = Fraction
"""How much a job needs: a whole number of GPUs for itself, or a part of one GPU."""


class Request(msgspec.Struct, eq=False):
    """A job that waits for `amount`.

    `kept_free` are the GPUs that nobody who came later is given while it waits.
    """

    amount: Amount
    kept_free: tuple[str, ...] = msgspec.field(default=())


def share_of(amount: Amount) -> Fraction:
    """The part of each of its GPUs that a job holds."""
    return min(amount, Fraction(1))


def count_of(amount: Amount) -> int:
    """Of how many GPUs a job holds a part."""
    return int(amount) if amount >= 1 else int(amount > 0)


def choose(
    amount: Amount, gpus: Sequence[str], used: Mapping[str, Fraction]
) -> tuple[str, ...] | None:
    """The GPUs for a job, the least used first, and then in their order; None if it has to wait.

    `used` is the sum of the shares on each GPU, where there are any.
    """
    share, count = share_of(amount), count_of(amount)
    fitting = [gpu for gpu in gpus if used.get(gpu, Fraction(0)) + share <= 1]
    if len(fitting) < count:
        return None
    chosen = sorted(fitting, key=lambda gpu: used.get(gpu, Fraction(0)))[:count]
    return tuple(sorted(chosen, key=gpus.index))


def deal(
    waiting: Sequence[Request],
    gpus: Sequence[str],
    used: Mapping[str, Fraction],
    kept_free: Collection[str] = (),
) -> dict[Request, tuple[str, ...]]:
    """Which of those that wait, the oldest first, get which GPUs now.

    The oldest that has to wait keeps as many GPUs free as it needs, so it waits at most until the
    jobs end that use these now; smaller ones pass it by on the others. `kept_free` are those that
    older requests of other runs keep free.
    """
    now = dict(used)
    closed = set(kept_free)
    has_oldest = False
    given: dict[Request, tuple[str, ...]] = {}
    for request in waiting:
        chosen = choose(request.amount, [gpu for gpu in gpus if gpu not in closed], now)
        if chosen is not None:
            given[request] = chosen
            request.kept_free = ()
            for gpu in chosen:
                now[gpu] = now.get(gpu, Fraction(0)) + share_of(request.amount)
        elif not has_oldest:
            has_oldest = True
            count = count_of(request.amount)
            if len(request.kept_free) < count:
                by_use = sorted(gpus, key=lambda gpu: (gpu in closed, now.get(gpu, Fraction(0))))
                request.kept_free = tuple(by_use[:count])
            closed.update(request.kept_free)
    return given
