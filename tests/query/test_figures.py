"""Curves as figures of matplotlib: what is drawn, and how a notebook and a file get it."""

from __future__ import annotations

import base64
import math
import sys
from pathlib import Path
from typing import Any

import pytest

import hermes
from hermes import HermesError
from hermes.query.averaging import Picture

from ..show.test_plots import FALLING, RISING, picture
from .made import curve
from .simple import experiment

pytest.importorskip("matplotlib", reason="needs `plots`, an extra")

from hermes.query.figures import MOST, Figure, figure


def along_x(line: Any) -> list[float]:
    return list(line.get_xdata())


def along_y(line: Any) -> list[float]:
    return list(line.get_ydata())


def legend(drawn: Figure) -> list[str]:
    (axes,) = drawn.axes
    found = axes.get_legend() or drawn.legends[0]
    return [text.get_text() for text in found.get_texts()]


def shown(found: Picture) -> str:
    """The figure as SVG, whose texts are texts."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none"}):
        return figure(found).written("svg").decode()


def test_a_line_a_group_with_its_interval() -> None:
    drawn = figure(picture([RISING, FALLING], [RISING]))
    (axes,) = drawn.axes
    assert axes.get_title() == "return: mean and 95 % interval"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "return")
    assert legend(drawn) == ["lr 1 (n 2)", "lr 2 (n 1)"]
    mean, single = axes.lines
    assert along_y(mean) == pytest.approx([5.0] * 101)
    assert along_y(single) == list(RISING.values)
    assert mean.get_color() != single.get_color()


def test_a_wide_interval_does_not_squeeze_the_curves() -> None:
    spikes = [curve([*RISING.values[:50], height, *RISING.values[51:]]) for height in (-1e3, 1e3)]
    low, high = figure(picture(spikes)).axes[0].get_ylim()
    assert -20 < low < 0 < 10 < high < 30


def test_where_runs_are_over_the_line_is_dotted() -> None:
    (axes,) = figure(picture([curve([1.0] * 5), curve([3.0] * 9)])).axes
    solid, dotted = axes.lines
    assert (along_x(solid), solid.get_linestyle()) == ([0, 1, 2, 3, 4], "-")
    assert (along_x(dotted), dotted.get_linestyle()) == ([4, 5, 6, 7, 8], ":")
    (area,) = axes.collections
    assert area.get_paths()[0].get_extents().x1 == 4


def test_log_axes() -> None:
    values = [0.0, -1.0, 1e-3, 1e-2, 1e-1]
    drawn = figure(picture([curve(values), curve(values)], log_x=True, log_y=True))
    (axes,) = drawn.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert drawn.written("png")
    assert all(math.isfinite(each) for each in (*axes.get_xlim(), *axes.get_ylim()))
    low, high = axes.get_ylim()
    assert 5e-4 < low < 1e-3
    assert 0.1 < high < 0.2
    assert "a log axis leaves them out" in drawn.notes[-1]


@pytest.mark.parametrize("runs", [1, 3])
def test_a_single_step_is_a_point_with_a_bar(runs: int) -> None:
    groups = [[curve([float(group + seed)], [50]) for seed in range(runs)] for group in range(2)]
    (axes,) = figure(picture(*groups)).axes
    bars: list[Any] = list(axes.containers)
    assert len(bars) == 2
    assert [bool(each.has_yerr) for each in bars] == [runs > 1] * 2
    assert list(axes.get_xticks()) == [50]
    places = [along_x(each.lines[0])[0] for each in bars]
    assert places[0] < 50 < places[1]


def test_many_groups_have_their_legend_aside_and_too_many_are_told() -> None:
    drawn = figure(picture(*[[RISING]] * (MOST + 5)))
    assert len(drawn.axes[0].lines) == MOST
    looks = {(line.get_color(), line.get_linestyle()) for line in drawn.axes[0].lines}
    assert len(looks) == MOST
    assert len(legend(drawn)) == MOST
    assert f"{MOST} of {MOST + 5} groups are drawn" in drawn.notes[-1]


def test_names_are_shown_as_they_are() -> None:
    page = shown(picture([RISING], [FALLING], name=r"$x_1$ <b> \alpha" + "\033"))
    assert r"$x_1$ &lt;b&gt; \alpha�" in page
    assert "\033" not in page


def test_long_and_strange_names_do_no_harm(recwarn: pytest.WarningsRecorder) -> None:
    drawn = figure(picture([RISING], [FALLING], name="学習" * 50))
    assert max(map(len, legend(drawn))) < 80
    assert drawn.written("png").startswith(b"\x89PNG")
    assert not recwarn.list


def test_a_notebook_shows_the_figure_and_its_notes() -> None:
    bundle = figure(picture([RISING]))._repr_mimebundle_()
    assert bundle.keys() == {"image/png"}
    told = figure(picture([curve([1.0] * 5), curve([3.0] * 9)]))._repr_mimebundle_()
    image, page = str(told["image/png"]), str(told["text/html"])
    assert base64.b64decode(image).startswith(b"\x89PNG")
    assert image in page
    assert "<li>runs end at different steps" in page


def test_a_program_s_own_figures_are_left_alone() -> None:
    before = "matplotlib.pyplot" in sys.modules
    figure(picture([RISING])).written("png")
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_experiments_are_drawn_and_written(tmp_path: Path) -> None:
    for number, rate in enumerate(["0.1", "0.2"]):
        directory = experiment(tmp_path / "experiments", number, parameters={"lr": rate})
        (directory / "a.csv").write_text("step,hours,loss\n1,0.5,9\n2,1.0,7\n3,2.0,4\n")
    found = hermes.experiments(root=tmp_path)
    drawn = found.plot("loss", x="hours", smooth=2, group_by=["lr"])
    (axes,) = drawn.axes
    assert axes.get_title() == "loss, running mean of 2 values"
    assert along_x(axes.lines[0]) == [0.5, 1.0, 2.0]
    assert along_y(axes.lines[0]) == [9, 8, 5.5]
    (tmp_path / "link.svg").symlink_to("real.svg")
    for name in ("real.svg", "link.svg"):
        notes = hermes.write_plot(found, tmp_path / name, "loss", log_y=True)
        assert notes == ("every group has one run",)
    assert (tmp_path / "link.svg").is_symlink()
    assert (tmp_path / "real.svg").read_text().startswith("<?xml")
    hermes.write_plot(found, tmp_path / "loss.PDF", "loss")
    assert (tmp_path / "loss.PDF").read_bytes().startswith(b"%PDF")
    for wrong in ("loss", "loss.gif"):
        with pytest.raises(HermesError, match="does not say what to write"):
            hermes.write_plot(found, tmp_path / wrong, "loss")
    with pytest.raises(HermesError, match="cannot write"):
        hermes.write_plot(found, tmp_path / "no" / "loss.png", "loss")
