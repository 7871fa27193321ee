"""Mean curves of groups; what was done to the numbers is told."""

from __future__ import annotations

import math

import pytest

from hermes import HermesError
from hermes.query.averaging import MOST_POINTS, Picture, pictured, smoothed
from hermes.query.grouping import by_default, grouped
from hermes.query.metrics.curves import Curve
from hermes.query.statistics import mean_interval

from .made import curve, row


def draw(*curves: Curve, smooth: int = 1, log_x: bool = False, log_y: bool = False) -> Picture:
    """One group of these curves, one a seed."""
    rows = [row({"seed": seed}) for seed in range(len(curves))]
    named = {each.identifier: made for each, made in zip(rows, curves, strict=True)}
    groups = grouped(rows, by_default(rows))
    return pictured(groups, named, "return", smooth=smooth, log_x=log_x, log_y=log_y)


def test_curves_of_equal_steps_are_averaged_as_they_are() -> None:
    picture = draw(curve([1, 2, 3], [10, 20, 30]), curve([3, 4, 8], [10, 20, 30]))
    (band,) = picture.bands
    assert band.steps == [10, 20, 30]
    assert band.means == [2, 3, 5.5]
    assert (band.low[2], band.high[2]) == mean_interval([3, 8])
    assert (band.n, band.whole, picture.notes) == (2, (0, 3), ())
    assert picture.title == "return: mean and 95 % interval"


def test_one_run_has_no_interval() -> None:
    picture = draw(curve([1, 2]))
    assert all(map(math.isnan, picture.bands[0].low))
    assert picture.title == "return"


def test_values_between_steps_are_interpolated_which_is_told() -> None:
    picture = draw(curve([0, 10], [0, 10]), curve([0, 2, 10], [0, 4, 10]))
    assert picture.bands[0].steps == [0, 4, 10]
    assert picture.bands[0].means == [0, 3, 10]
    assert picture.notes == (
        "runs have different steps, so that there are straight lines between their values: all",
    )


def test_a_run_that_ends_early_is_told_and_is_not_continued() -> None:
    picture = draw(curve([1, 1]), curve([3, 3, 3, 3]))
    (band,) = picture.bands
    assert band.means == [2, 2, 3, 3]
    assert (band.counts, band.whole) == ([2, 2, 1, 1], (0, 2))
    assert picture.notes == (
        "runs end at different steps, dotted where some are over: all: 1 to 3",
    )


def test_values_that_are_no_numbers_are_left_out_and_told() -> None:
    picture = draw(curve([1, math.nan, 3]), curve([1, 2, 3]))
    assert picture.bands[0].means == [1, 2, 3]
    assert "1 value left out: infinite or no number, lines go straight over them" in picture.notes


def test_a_step_that_was_written_again_counts_once() -> None:
    picture = draw(curve([1, 2, 20, 30], [0, 1, 1, 2]))
    assert picture.bands[0].means == [1, 20, 30]
    assert "1 value left out: written again at the same step, the last one counts" in picture.notes


def test_smoothing_says_so() -> None:
    picture = draw(curve([0, 2, 4, 6]), smooth=2)
    assert picture.bands[0].means == [0, 1, 3, 5]
    assert picture.title == "return, running mean of 2 values"
    with pytest.raises(HermesError, match="cannot smooth over 0 values"):
        draw(curve([1]), smooth=0)


def test_smoothing_is_the_mean_of_a_value_and_those_before_it() -> None:
    values = [float((n * 7919) % 101) for n in range(300)]
    found = smoothed(values, 100)
    assert found[0] == values[0]
    assert found[250] == pytest.approx(sum(values[151:251]) / 100)


def test_long_curves_are_thinned_and_that_is_told() -> None:
    count = 5 * MOST_POINTS
    picture = draw(curve([float(n) for n in range(count)]))
    steps = picture.bands[0].steps
    assert len(steps) <= MOST_POINTS
    assert (steps[0], steps[-1]) == (0, count - 1)
    assert picture.notes == (f"drawn at {MOST_POINTS} places: all has {count} steps",)


def test_a_log_axis_leaves_out_what_has_no_place_on_it() -> None:
    picture = draw(curve([1, -2, 3]), log_x=True, log_y=True)
    assert picture.bands[0].steps == [1, 2]
    assert picture.notes == (
        "1 value left out: no step, or none that the axis can have",
        "1 means are not positive: a log axis leaves them out",
    )


def test_another_metric_can_stand_on_the_x_axis() -> None:
    (one,) = rows = [row({"seed": 1})]
    picture = pictured(
        grouped(rows, by_default(rows)),
        {one.identifier: curve([1, 2, 3], [5, 6, 7])},
        "return",
        across={one.identifier: curve([0.5, 2.5], [5, 7])},
        x="hours",
    )
    assert picture.bands[0].steps == [0.5, 2.5]
    assert picture.bands[0].means == [1, 3]
    assert "1 value left out: no hours, or none that the axis can have" in picture.notes


def test_runs_without_the_metric_are_told() -> None:
    rows = [row({"seed": seed}) for seed in range(3)]
    picture = pictured(
        grouped(rows, by_default(rows)), {rows[0].identifier: curve([1.0])}, "return"
    )
    assert picture.notes == ("`return` is missing in 2 of 3 of all",)
    with pytest.raises(HermesError, match="none of the experiments has the metric `return`"):
        pictured(grouped(rows, by_default(rows)), {}, "return")
