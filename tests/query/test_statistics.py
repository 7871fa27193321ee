"""Statistics of a few numbers, against those of scipy and rliable.

The numbers of `MADE` were made once with scipy 1.17.1, numpy 2.4.6 and rliable 1.2.0:

    low, high = stats.t.interval(0.95, n - 1, loc=a.mean(), scale=stats.sem(a))
    iqm = stats.trim_mean(a, 0.25)
    _, interval = library.get_interval_estimates(
        {"x": a[:, None]}, lambda x: np.array([metrics.aggregate_iqm(x)]),
        reps=200000, random_state=np.random.RandomState(0),
    )
"""

from __future__ import annotations

import importlib
import importlib.util
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes.query.statistics import (
    Statistics,
    bootstrap_interval,
    drawn_means,
    interquartile_mean,
    mean_interval,
    mean_of,
    percentile,
    std_of,
    student_t,
)

MADE: list[tuple[list[float], dict[str, float]]] = [
    (
        [181.0, 195.5, 200.0],
        {
            "mean": 192.16666666666666,
            "std": 9.928914005737653,
            "low": 167.50187694828773,
            "high": 216.83145638504558,
            "iqm": 192.16666666666666,
            "iqm_low": 181.0,
            "iqm_high": 200.0,
        },
    ),
    (
        [12.5, 14.0, 13.25, 80.0, 11.75],
        {
            "mean": 26.3,
            "std": 30.030921564281044,
            "low": -10.988314139248839,
            "high": 63.58831413924884,
            "iqm": 13.25,
            "iqm_low": 12.0,
            "iqm_high": 58.0,
        },
    ),
    (
        [195.3, 201.0, 188.4, 199.9, 20.1, 210.7, 190.2, 205.5, 198.8, 193.6],
        {
            "mean": 180.34999999999997,
            "std": 56.70942014633312,
            "low": 139.7825246647286,
            "high": 220.91747533527132,
            "iqm": 196.4666666666667,
            "iqm_low": 164.13333333333333,
            "iqm_high": 202.13333333333333,
        },
    ),
    (
        [-1.2, 0.4, 3.3, 0.0, -7.5, 2.2, 1.1, 0.9, -0.3, 5.6, 2.8, -2.4, 1.7],
        {
            "mean": 0.5076923076923078,
            "std": 3.16477001230251,
            "low": -1.404759070457477,
            "high": 2.420143685842093,
            "iqm": 0.8571428571428571,
            "iqm_low": -0.6428571428571427,
            "iqm_high": 2.128571428571429,
        },
    ),
]

QUANTILES = [
    (0.975, 1, 12.706204736174694),
    (0.975, 2, 4.302652729749462),
    (0.975, 4, 2.7764451051977934),
    (0.975, 9, 2.262157162798205),
    (0.975, 29, 2.045229642132703),
    (0.975, 99, 1.9842169515864174),
    (0.975, 1000, 1.9623390808264083),
    (0.975, 250000, 1.9599734736701353),
    (0.95, 3, 2.3533634348018233),
    (0.995, 7, 3.4994832973504924),
    (0.9995, 5, 6.868826625881276),
]
"""`scipy.stats.t.ppf(probability, freedom)`."""


@pytest.mark.parametrize(("values", "made"), MADE)
def test_numbers_are_those_of_scipy(values: list[float], made: dict[str, float]) -> None:
    found = Statistics.of(values)
    assert found.n == len(values)
    assert (found.min, found.max) == (min(values), max(values))
    for name in ("mean", "std", "low", "high", "iqm"):
        assert getattr(found, name) == pytest.approx(made[name], rel=1e-9), name


@pytest.mark.parametrize(("values", "made"), MADE)
def test_the_interval_of_the_interquartile_mean_is_that_of_rliable(
    values: list[float], made: dict[str, float]
) -> None:
    # Other random numbers, so equal only as far as a bootstrap is
    width = made["iqm_high"] - made["iqm_low"]
    means = drawn_means(values, 50_000)
    assert percentile(means, 0.025) == pytest.approx(made["iqm_low"], abs=0.03 * width)
    assert percentile(means, 0.975) == pytest.approx(made["iqm_high"], abs=0.03 * width)
    found = Statistics.of(values)
    assert found.iqm_low == pytest.approx(made["iqm_low"], abs=0.1 * width)
    assert found.iqm_high == pytest.approx(made["iqm_high"], abs=0.1 * width)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=7))
@settings(max_examples=20)
def test_counting_all_samples_is_what_drawing_comes_to(values: list[float]) -> None:
    drawn = drawn_means(values, 4000)
    for found, share in zip(bootstrap_interval(values), (0.025, 0.975), strict=True):
        assert percentile(drawn, share - 0.015) - 1e-6 <= found
        assert found <= percentile(drawn, share + 0.015) + 1e-6


@pytest.mark.parametrize(("probability", "freedom", "made"), QUANTILES)
def test_student_t_is_that_of_scipy(probability: float, freedom: int, made: float) -> None:
    assert student_t(probability, freedom) == pytest.approx(made, rel=1e-9)


@pytest.mark.skipif(importlib.util.find_spec("scipy") is None, reason="needs scipy")
def test_student_t_is_that_of_the_scipy_that_is_here() -> None:
    stats = importlib.import_module("scipy.stats")
    for probability in (0.6, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9999):
        for freedom in (*range(1, 40), 99, 1000, 99_999, 100_000, 10**7):
            assert student_t(probability, freedom) == pytest.approx(
                float(stats.t.ppf(probability, freedom)), rel=1e-9
            )


def test_equal_numbers_have_equal_intervals() -> None:
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    assert Statistics.of(values) == Statistics.of(values[::-1])


def test_of_one_number_nothing_is_known_but_itself() -> None:
    found = Statistics.of([7.5])
    assert (found.n, found.mean, found.min, found.max, found.iqm) == (1, 7.5, 7.5, 7.5, 7.5)
    assert all(math.isnan(each) for each in (found.std, found.low, found.high, found.iqm_low))
    assert Statistics.of([]).n == 0
    assert math.isnan(Statistics.of([]).mean)


def test_equal_numbers_have_no_spread() -> None:
    found = Statistics.of([0.1] * 7)
    assert (found.mean, found.std, found.low, found.high) == (0.1, 0.0, 0.1, 0.1)
    assert found.iqm_low == pytest.approx(0.1)
    assert found.iqm_high == pytest.approx(0.1)


def test_large_numbers_do_not_overflow() -> None:
    largest = 1.7e308
    assert mean_of([largest, largest]) == largest
    assert std_of([largest, largest / 2]) == pytest.approx(largest / 2 / math.sqrt(2))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12))
def test_means_lie_where_they_can(values: list[float]) -> None:
    low, high = mean_interval(values)
    assert low <= mean_of(values) <= high
    ordered = sorted(values)
    assert ordered[0] - 1e-9 <= interquartile_mean(ordered) <= ordered[-1] + 1e-9


def test_percentiles_are_interpolated_as_numpy_does() -> None:
    assert percentile([1.0, 2.0, 4.0, 8.0], 0.5) == 3.0
    assert percentile([1.0, 2.0, 4.0, 8.0], 0.025) == pytest.approx(1.075)
    assert percentile([1.0, 2.0, 4.0, 8.0], 1.0) == 8.0
