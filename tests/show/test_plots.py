"""Curves in the terminal: what stands where, in what room, and how numbers are written."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import pytest

from hermes.query.averaging import Picture, pictured
from hermes.query.grouping import by_default, grouped
from hermes.query.metrics.curves import Curve
from hermes.show.plots import LETTERS, as_text
from hermes.show.table import width_of
from hermes.show.ticks import compact, ticks

from ..query.made import curve, row

STYLE = re.compile(r"\033\[[\d;]*m")


def picture(
    *groups: Sequence[Curve], name: str = "lr", log_x: bool = False, log_y: bool = False
) -> Picture:
    """A picture of groups of runs, which are named 1, 2 and so on."""
    runs = [
        (row({name: number, "seed": seed}, {"return": 1.0}), each)
        for number, group in enumerate(groups, 1)
        for seed, each in enumerate(group)
    ]
    rows = [found for found, _ in runs]
    curves = {found.identifier: each for found, each in runs}
    return pictured(grouped(rows, by_default(rows)), curves, "return", log_x=log_x, log_y=log_y)


def lines(shown: Picture, width: int = 60, height: int = 16) -> list[str]:
    return list(as_text(shown, width=width, height=height))


RISING = curve([n / 10 for n in range(101)])
FALLING = curve([10 - n / 10 for n in range(101)])


def area(shown: Sequence[str]) -> list[str]:
    """What stands right of the y axis."""
    return [re.split("[┤│]", line, maxsplit=1)[1] for line in shown if re.search("[┤│]", line)]


def test_a_rising_curve_rises() -> None:
    shown = lines(picture([RISING]))
    assert shown[0] == "return"
    drawn = area(shown)
    assert len(drawn) == 11
    first = [len(line) - len(line.lstrip(" ")) for line in drawn]
    assert first == sorted(first, reverse=True)
    # From one end of the axes to the other
    assert first[-1] == 0
    assert len(drawn[0].rstrip()) == max(map(len, drawn))
    assert shown[0 + 1].startswith("10 ┤")
    assert shown[11].startswith(" 0 ┤")
    assert re.sub(" +", " ", shown[13]) == " 0 50 100"
    assert shown[-1] == "  all  n 1  10 at 100"


def test_groups_are_told_apart_without_colours() -> None:
    shown = lines(picture([RISING, RISING], [FALLING, FALLING]))
    assert shown[0] == "return: mean and 95 % interval"
    assert shown[1].endswith(" a")
    assert shown[10].endswith(" b")
    assert shown[-2:] == ["a lr 1  n 2  10 ± 0 at 100", "b lr 2  n 2  0 ± 0 at 100"]


def test_colours_add_nothing_but_colours() -> None:
    found = picture([RISING], [FALLING])
    coloured = "\n".join(as_text(found, width=60, height=16, colour=True))
    assert STYLE.sub("", coloured).splitlines() == lines(found)
    assert len(set(STYLE.findall(coloured))) == 3
    assert coloured.count("\033[0m") >= len(area(lines(found)))


def test_curves_that_end_together_keep_their_letters() -> None:
    shown = lines(picture(*[[RISING]] * 4))
    ends = [line[-1] for line in shown if line[-2:-1] == " " and line[-1] in LETTERS]
    assert sorted(ends) == list("abcd")


def test_more_groups_than_letters_are_told() -> None:
    found = picture(*[[RISING]] * 11)
    assert lines(found)[-1].startswith("h lr 8")
    assert "8 of 11 groups are drawn" in found.first(len(LETTERS)).notes[-1]


def dots(shown: Sequence[str]) -> int:
    return sum((ord(char) - 0x2800).bit_count() for char in "".join(shown) if char >= "\u2800")


def test_an_interval_is_an_area_or_bars() -> None:
    wide = [curve([float(height)] * 101) for height in (0, 30)]
    alone, one = (dots(lines(picture(wide[:count]))) for count in (1, 2))
    three = dots(lines(picture(*[wide] * 3)))
    assert alone == dots(area(lines(picture(wide[:1]))))
    assert one > 5 * alone
    assert alone < three < one


def test_where_runs_are_over_a_mean_is_dotted() -> None:
    flat = [curve([1.0] * count) for count in (51, 101)]
    (line,) = [line for line in area(lines(picture(flat))) if dots([line])]
    middle = len(line) // 2
    assert dots([line[:middle]]) > 3 * dots([line[middle:]]) > 0


def test_a_log_axis_leaves_out_what_it_cannot_show() -> None:
    values = [-1.0, 0.0, *(10.0**-n for n in range(7))]
    found = picture([curve(values)], log_y=True)
    assert found.notes == ("2 means are not positive: a log axis leaves them out",)
    shown = lines(found)
    assert shown[1].startswith("    1 ┤")
    assert shown[11].startswith("1e-06 ┤")
    assert any("no step, or none" in each for each in picture([RISING], log_x=True).notes)


@pytest.mark.parametrize("count", [1, 3])
def test_a_single_step_is_a_point_with_a_bar(count: int) -> None:
    shown = lines(picture(*[[curve([1.0]), curve([2.0])]] * count))
    assert shown[-1].endswith("n 2  1.5 ± 6.4 at 0")
    columns = {at for line in area(shown) for at, char in enumerate(line) if char >= "\u2800"}
    assert len(columns) >= count
    assert sum(char in LETTERS for char in "".join(area(shown))) == (count if count > 1 else 0)
    assert [line.strip() for line in shown if line.strip() == "0"] == ["0"]


def test_a_constant_is_in_the_middle() -> None:
    for value in (0.0, -5.0, 1e300, 1e-300):
        drawn = area(lines(picture([curve([value] * 5)])))
        assert [bool(dots([line])) for line in drawn].index(True) in (4, 5, 6)


def test_lines_fit_and_nothing_in_them_moves_the_cursor() -> None:
    names = ["学習環境" * 30, "x" * 200, "\033[31mred"]
    rows = [row({"env": name}, {"return": 1.0}) for name in names]
    curves = {each.identifier: RISING for each in rows}
    found = pictured(grouped(rows, by_default(rows)), curves, "return\033[2J")
    for width in (30, 80, 200):
        shown = lines(found, width=width)
        assert max(map(width_of, shown)) <= width
        assert "\033" not in "".join(shown)
        assert dots(shown) > 0


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [
        (0.0, None, "0"),
        (1234.5, None, "1234"),
        (20_000, 5000, "20k"),
        (1_500_000, 500_000, "1.5M"),
        (2e9, 1e9, "2G"),
        (3e12, 1e12, "3e+12"),
        (0.30000000000000004, 0.1, "0.3"),
        (-1e-17, 0.1, "0"),
        (2e-7, 1e-7, "2e-07"),
    ],
)
def test_numbers_on_axes_are_short(value: float, step: float | None, text: str) -> None:
    assert compact(value, step) == text


def test_ticks_are_round_and_few() -> None:
    assert ticks(0, 103, most=6, log=False) == [
        (20.0 * n, str(20 * n)) for n in range(6)
    ]  # fmt: skip
    assert [text for _, text in ticks(1, 1000, most=4, log=True)] == ["1", "10", "100", "1000"]
    # Less than a decade has the ticks of a linear axis
    assert [text for _, text in ticks(2.2, 2.9, most=4, log=True)] == ["2.2", "2.4", "2.6", "2.8"]
    for low, high in ((0, 1e-300), (-3e8, 5.5), (1e15, 1e15 + 64)):
        found = ticks(low, high, most=5, log=False)
        assert 1 <= len(found) <= 6
        assert all(math.isfinite(value) for value, _ in found)
