"""Who gets which GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.gpus.sharing import Request, choose, count_of, deal, share_of

HALF = Fraction(1, 2)
GPUS = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("amount", "used", "expected"),
    [
        (Fraction(1), {}, ("a",)),
        (Fraction(0), {"a": Fraction(1)}, ()),
        (Fraction(2), {"a": HALF}, ("b", "c")),
        (Fraction(3), {"a": HALF}, None),
        (Fraction(4), {}, None),
        (HALF, {"a": HALF}, ("b",)),
        (HALF, {"a": HALF, "b": Fraction(1), "c": Fraction(3, 4)}, ("a",)),
        (Fraction(1, 3), {"a": Fraction(2, 3), "b": Fraction(1), "c": Fraction(1)}, ("a",)),
        (HALF, {"a": Fraction(2, 3), "b": Fraction(1), "c": Fraction(1)}, None),
    ],
)
def test_the_least_used_gpus_come_first(
    amount: Fraction, used: dict[str, Fraction], expected: tuple[str, ...] | None
) -> None:
    assert choose(amount, GPUS, used) == expected


def test_the_oldest_keeps_free_what_it_needs_and_smaller_ones_pass_it_by() -> None:
    used = {"a": Fraction(1), "b": HALF}
    large, small, other = Request(Fraction(2)), Request(HALF), Request(Fraction(1))
    given = deal([large, small, other], GPUS, used)
    # b and c are the least used: they are kept free, and a is full
    assert given == {}
    assert large.kept_free == ("c", "b")
    # As soon as a is free, the smaller ones have it
    given = deal([large, small, other], GPUS, {"b": HALF})
    assert given == {large: ("a", "c"), small: ("b",)}


def test_older_requests_of_other_runs_come_first() -> None:
    request = Request(Fraction(1))
    assert deal([request], ["a"], {}, kept_free=["a"]) == {}
    assert deal([request], ["a", "b"], {}, kept_free=["a"]) == {request: ("b",)}


amounts = st.one_of(
    st.integers(0, 3).map(Fraction),
    st.integers(2, 5).map(lambda n: Fraction(1, n)),
    st.sampled_from([Fraction(3, 10), Fraction(7, 10)]),
)


@given(
    st.lists(st.tuples(amounts, st.integers(1, 9)), min_size=1, max_size=25),
    st.integers(3, 5),
    st.data(),
)
def test_no_gpu_is_over_its_share_and_no_job_starves(
    jobs: Sequence[tuple[Fraction, int]], count: int, data: st.DataObject
) -> None:
    """Jobs come in any order, and run for some turns: those that run when a job becomes the oldest
    that waits are all it has to wait for."""
    gpus = [str(number) for number in range(count)]
    coming = [(Request(amount), turns) for amount, turns in jobs]
    length = dict(coming)
    waiting: list[Request] = []
    running: dict[Request, tuple[tuple[str, ...], int]] = {}
    oldest: Request | None = None
    patience = 0
    while coming or waiting or running:
        for _ in range(data.draw(st.integers(0, 4)) if waiting or running else 1):
            if coming:
                waiting.append(coming.pop(0)[0])
        used: dict[str, Fraction] = {}
        for request, (held, _) in running.items():
            for gpu in held:
                used[gpu] = used.get(gpu, Fraction(0)) + share_of(request.amount)
        given_now = deal(waiting, gpus, used)
        for request, got in given_now.items():
            assert len(set(got)) == len(got) == count_of(request.amount)
            for gpu in got:
                used[gpu] = used.get(gpu, Fraction(0)) + share_of(request.amount)
            waiting.remove(request)
            running[request] = got, length[request]
        assert all(share <= 1 for share in used.values())
        if waiting and waiting[0] is not oldest:
            oldest = waiting[0]
            patience = max((turns for _, turns in running.values()), default=0)
        elif waiting:
            patience -= 1
            assert patience >= 0, "the oldest waits for jobs that came after it"
        running = {r: (g, turns - 1) for r, (g, turns) in running.items() if turns > 1}
