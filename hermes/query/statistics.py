"""What a few numbers say of where they come from: mean, spread, and how sure that is.

Plain functions of numbers, which have to be finite.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, combinations_with_replacement
from statistics import NormalDist

import msgspec

LEVEL = 0.95
"""How often an interval is meant to hold the true mean."""

REPETITIONS = 5000
"""How often a sample is drawn again for the interval of an interquartile mean. With 50,000, as
rliable has by default, the ends of the interval move by about 1 % of its width."""

MOST_DRAWS, FEWEST = 5_000_000, 200
"""Of many numbers, samples are drawn less often: that many in all, that many samples at least."""

FEW = 7
"""Of so many numbers at most, all samples are counted: there are 1716."""

SEED = 0
"""Of the random numbers for that: equal numbers have equal intervals."""

MANY = 10**5
"""From so many degrees of freedom on, a series for Student's t is exact to more than 12 digits."""


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What `n` numbers say. NaN is not known: of one number there is no `std` and no interval.

    `std` is that of a sample (divided by n-1). `low` and `high` are the 95 % interval of the mean
    by Student's t. `iqm` is the interquartile mean, that of the middle half; `iqm_low` and
    `iqm_high` are its 95 % interval by a percentile bootstrap, the same every time.
    """

    n: int
    mean: float = math.nan
    std: float = math.nan
    min: float = math.nan
    max: float = math.nan
    low: float = math.nan
    high: float = math.nan
    iqm: float = math.nan
    iqm_low: float = math.nan
    iqm_high: float = math.nan

    @classmethod
    def of(cls, values: Sequence[float]) -> Statistics:
        """The statistics of finite numbers, also of none."""
        if not values:
            return cls(n=0)
        ordered = sorted(values)
        mean = mean_of(ordered)
        low, high = mean_interval(ordered)
        iqm_low, iqm_high = bootstrap_interval(ordered)
        return cls(
            n=len(ordered),
            mean=mean,
            std=std_of(ordered),
            min=ordered[0],
            max=ordered[-1],
            low=low,
            high=high,
            iqm=interquartile_mean(ordered),
            iqm_low=iqm_low,
            iqm_high=iqm_high,
        )


def mean_of(values: Sequence[float]) -> float:
    """The mean of finite numbers, at least one. It is infinite only where no number can hold it."""
    try:
        return math.fsum(values) / len(values)
    except OverflowError:
        return math.fsum(value / len(values) for value in values)


def std_of(values: Sequence[float]) -> float:
    """The standard deviation of a sample, NaN of fewer than two numbers."""
    if len(values) < 2:
        return math.nan
    mean = mean_of(values)
    # Of numbers near the largest that there are, the squares would be infinite
    largest = max(abs(value - mean) for value in values)
    if largest == 0 or math.isinf(largest):
        return largest
    squares = math.fsum(((value - mean) / largest) ** 2 for value in values)
    return largest * math.sqrt(squares / (len(values) - 1))


def mean_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """The interval of the mean by Student's t, NaN of fewer than two numbers."""
    if len(values) < 2:
        return math.nan, math.nan
    half = std_of(values) / math.sqrt(len(values)) * student_t(0.5 + level / 2, len(values) - 1)
    mean = mean_of(values)
    return mean - half, mean + half


def interquartile_mean(ordered: Sequence[float]) -> float:
    """The mean of the middle half of sorted numbers: a quarter, rounded down, is left out at either
    end. As `scipy.stats.trim_mean(values, 0.25)`.
    """
    cut = len(ordered) // 4
    return mean_of(ordered[cut : len(ordered) - cut])


def bootstrap_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """The interval of the interquartile mean by a percentile bootstrap, NaN of fewer than two
    numbers. What rliable does for one task.

    Of few numbers all samples that can be drawn are counted, of more `REPETITIONS` are drawn.
    """
    count = len(values)
    if count < 2:
        return math.nan, math.nan
    rest = (1 - level) / 2
    if count <= FEW:
        ordered = sorted(values)
        return counted_percentile(ordered, rest), counted_percentile(ordered, 1 - rest)
    means = drawn_means(values, max(FEWEST, min(REPETITIONS, MOST_DRAWS // count)))
    return percentile(means, rest), percentile(means, 1 - rest)


def drawn_means(values: Sequence[float], repetitions: int) -> list[float]:
    """The interquartile means of samples of these numbers, sorted."""
    count = len(values)
    draw = random.Random(SEED).choices
    cut = count // 4
    kept = count - 2 * cut
    return sorted(
        sum(sorted(draw(values, k=count))[cut : count - cut]) / kept for _ in range(repetitions)
    )


def counted_percentile(ordered: Sequence[float], share: float) -> float:
    """The percentile of the interquartile means of all samples of sorted numbers."""
    means = sorted(
        (interquartile_mean([ordered[place] for place in places]), weight)
        for places, weight in _samples(len(ordered))
    )
    below = list(accumulate(weight for _, weight in means))
    return means[bisect_left(below, share)][0]


@lru_cache(maxsize=FEW)
def _samples(count: int) -> tuple[tuple[tuple[int, ...], float], ...]:
    """All samples of so many sorted numbers, by their places, and how likely each is."""
    return tuple(
        (
            places,
            math.factorial(count)
            / math.prod(math.factorial(number) for number in Counter(places).values())
            / count**count,
        )
        for places in combinations_with_replacement(range(count), count)
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The number below which this share of sorted numbers lies, interpolated between two of them
    as numpy does by default.
    """
    place = share * (len(ordered) - 1)
    below = min(math.floor(place), len(ordered) - 1)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


@lru_cache(maxsize=1024)
def student_t(probability: float, freedom: int) -> float:
    """The number below which Student's t lies with this probability, at so many degrees of freedom.

    Its relative error is below 1e-9 for probabilities from 0.6 to 0.9999.
    """
    normal = NormalDist().inv_cdf(probability)
    guess = _by_series(normal, freedom)
    if freedom >= MANY:
        return guess
    # By bisection between bounds: Newton's steps alone leave the range where freedom is 1 or 2
    low, high = 0.0, max(1.0, guess)
    while _student_cdf(high, freedom) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _student_cdf(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _by_series(z: float, freedom: int) -> float:
    """Student's t from the same point of the normal distribution (Abramowitz and Stegun 26.7.5)."""
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / float(freedom) ** (n + 1) for n, term in enumerate(terms))


def _student_cdf(t: float, freedom: int) -> float:
    """The probability that Student's t is below `t`, which is not negative."""
    share = freedom / (freedom + t * t)
    if share > 0.5:
        # Near 1 the digits of `share` that count are lost
        return 0.5 + _incomplete_beta(0.5, freedom / 2, t * t / (freedom + t * t)) / 2
    return 1 - _incomplete_beta(freedom / 2, 0.5, share) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function, by its continued fraction."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(logarithm + a * math.log(x) + b * math.log1p(-x)) / a
    # From its front, as Lentz does; `tiny` stands in for a zero that would be divided by
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    result = d
    for step in range(1, 10000):
        for factor in (
            step * (b - step) * x / ((a + 2 * step - 1) * (a + 2 * step)),
            -(a + step) * (a + b + step) * x / ((a + 2 * step) * (a + 2 * step + 1)),
        ):
            d = 1 / (1 + factor * d or tiny)
            c = 1 + factor / c or tiny
            result *= c * d
        if abs(1 - c * d) < 1e-16:
            break
    return front * result
