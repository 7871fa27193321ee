"""How long a run still takes."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Sequence

import pytest

from hermes.run.estimate import time_left


@pytest.mark.parametrize(
    ("durations", "running", "waiting", "at_once", "expected"),
    [
        ([], [1.0], 5, 2, None),
        ([4.0], [], 0, 2, 0.0),
        ([4.0], [1.0], 0, 2, 3.0),
        ([4.0], [1.0, 3.0], 2, 2, 7.0),
        # It has run for longer than any other
        ([4.0], [9.0], 0, 1, 0.0),
        ([4.0], [1.0, 3.0], 3, 2, 9.0),
        # One of the longer ones, as it seems
        ([1.0, 1.0, 10.0], [2.0], 0, 4, 8.0),
        ([4.0], [0.0], 1, 0, 8.0),
    ],
)
def test_by_the_durations_of_those_that_ended(
    durations: Sequence[float], running: Sequence[float], waiting: int, at_once: int,
    expected: float | None,
) -> None:  # fmt: skip
    assert time_left(durations, running, waiting, at_once) == expected


def estimates(lengths: Sequence[float], threads: int) -> list[tuple[float, float]]:
    """What is told each second of a run, beside what is true."""
    ends: list[float] = []
    starts: list[float] = []
    for length in lengths:
        begin = heapq.heappop(ends) if len(ends) == threads else 0.0
        starts.append(begin)
        heapq.heappush(ends, begin + length)
    jobs = [(start, start + length) for start, length in zip(starts, lengths, strict=True)]
    over = max(end for _, end in jobs)
    told = []
    for now in range(int(over)):
        durations = [end - start for start, end in jobs if end <= now]
        running = [now - start for start, end in jobs if start <= now < end]
        waiting = sum(start > now for start, _ in jobs)
        estimate = time_left(durations, running, waiting, threads)
        if estimate is not None:
            told.append((estimate, over - now))
    return told


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_it_counts_down_where_all_take_the_same(threads: int) -> None:
    told = estimates([20.0] * 35, threads)
    assert len(told) > 20
    for estimate, truth in told:
        assert abs(estimate - truth) <= max(0.1 * truth, 1.0)
    values = [estimate for estimate, _ in told]
    assert all(later <= earlier for earlier, later in itertools.pairwise(values))


def test_it_comes_close_where_they_differ() -> None:
    lengths = [random.Random(3).uniform(5, 30) for _ in range(100)]
    told = estimates(lengths, 4)
    middle = told[len(told) // 4 : -len(told) // 4]
    assert all(abs(estimate - truth) < 0.25 * truth for estimate, truth in middle)
