"""Curves of groups as a figure of matplotlib, which is an extra of Hermes: `plots`.

Nothing of matplotlib's global state is used, so that a program's own figures are left alone.
"""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as _Figure

from .averaging import Band, Picture
from .tables import as_html

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Those of Okabe and Ito, which people who see few colours tell apart, without the yellow, which is
too light for a line."""

STYLES = ("-", "--", "-.")
"""Of lines: when all colours have been used, they come again with the next style."""

MOST = len(COLOURS) * len(STYLES)

LONGEST_LABEL = 60
"""Characters of a label in the legend."""

FEW = 6
"""So many labels stand in the picture at most; more stand beside it."""


class Figure(_Figure):
    """A figure that a notebook shows, also where nobody has set up matplotlib's pyplot.

    `notes` say what has to be known of it: what was left out, interpolated or is missing. A
    notebook shows them below it.
    """

    notes: tuple[str, ...] = ()

    def written(self, kind: str, **options: Any) -> bytes:
        """The content of a file of this kind, such as `png`; options are those of `savefig`."""
        file = io.BytesIO()
        with warnings.catch_warnings():
            # About letters that the font has not: they are boxes then
            warnings.simplefilter("ignore")
            self.savefig(file, format=kind, **options)
        return file.getvalue()

    def _repr_mimebundle_(self, **_: object) -> dict[str, object]:
        image = base64.b64encode(self.written("png", dpi=110)).decode()
        shown: dict[str, object] = {"image/png": image}
        if self.notes:
            tag = f'<img src="data:image/png;base64,{image}">'
            shown["text/html"] = tag + as_html((), self.notes)
        return shown


def figure(picture: Picture) -> Figure:
    """Draws the bands of a picture; if there are more than `MOST`, a note says so."""
    drawn = picture.first(MOST)
    made = Figure(figsize=(7.2, 4.4), dpi=150, layout="constrained")
    axes: Axes = made.subplots()
    if all(band.is_point for band in drawn.bands):
        _draw_points(axes, drawn.bands)
    else:
        for number, band in enumerate(drawn.bands):
            _draw(axes, band, *_look(number), log_y=drawn.log_y)
        _set_limits(axes, drawn)
        axes.margins(x=0.01)
    axes.set_title(_plain(drawn.title), fontsize=11)
    axes.set_xlabel(_plain(drawn.x))
    axes.set_ylabel(_plain(drawn.metric))
    if drawn.log_x:
        axes.set_xscale("log")
    if drawn.log_y:
        axes.set_yscale("log", nonpositive="mask")
    axes.grid(visible=True, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    _add_legend(made, axes, drawn.bands)
    made.notes = drawn.notes
    return made


def _set_limits(axes: Axes, drawn: Picture) -> None:
    """Gives the y axis the heights that it has to hold, and a little room."""
    heights = drawn.heights()
    low, high = min(heights, default=0.0), max(heights, default=0.0)
    if low == high:
        return
    if drawn.log_y:
        room = (high / low) ** 0.04
        axes.set_ylim(low / room, high * room)
    else:
        room = (high - low) * 0.04
        axes.set_ylim(low - room, high + room)


def _look(number: int) -> tuple[str, str]:
    """The colour and the style of a line."""
    return COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS)]


def _legend_of(band: Band) -> str:
    label = band.label
    if len(label) > LONGEST_LABEL:
        label = label[: LONGEST_LABEL - 1] + "…"
    return _plain(f"{label} (n {band.n})")


def _draw_points(axes: Axes, bands: Sequence[Band]) -> None:
    """Means with the bars of their intervals, beside each other where they share a step."""
    steps = sorted({band.steps[0] for band in bands})
    room = min((after - before for before, after in pairwise(steps)), default=1.0)
    apart = room / (2 * len(bands))
    for number, band in enumerate(bands):
        colour, _ = _look(number)
        half = (band.high[0] - band.low[0]) / 2
        axes.errorbar(
            [band.steps[0] + (number - (len(bands) - 1) / 2) * apart],
            [band.means[0]],
            yerr=None if math.isnan(half) else [half],
            fmt="o",
            capsize=3,
            color=colour,
            label=_legend_of(band),
        )
    axes.set_xlim(steps[0] - room, steps[-1] + room)
    axes.set_xticks(steps)


def _draw(axes: Axes, band: Band, colour: str, style: str, *, log_y: bool) -> None:
    first, end = band.whole
    axes.plot(
        band.steps[first:end],
        band.means[first:end],
        style,
        color=colour,
        marker="o" if end - first == 1 else "",
        linewidth=1.6,
        label=_legend_of(band),
    )
    # Where some runs are over, or have not begun, a mean is one of other runs
    for part in (slice(0, first + 1), slice(end - 1, None)):
        if len(band.steps[part]) > 1:
            axes.plot(band.steps[part], band.means[part], ":", color=colour, linewidth=1.2)
    low = band.low
    if log_y:
        # What reaches below zero would be cut out of the band as a whole: to below the axis instead
        smallest = min((mean for mean in band.means if mean > 0), default=1.0)
        low = [max(each, smallest / 1e6) for each in band.low]
    axes.fill_between(
        band.steps[first:end],
        low[first:end],
        band.high[first:end],
        where=[mean > 0 or not log_y for mean in band.means[first:end]],
        color=colour,
        alpha=0.18,
        linewidth=0,
    )


def _add_legend(made: Figure, axes: Axes, bands: Sequence[Band]) -> None:
    if len(bands) == 1 and bands[0].label == "all":
        axes.set_title(f"{axes.get_title()} (n {bands[0].n})", fontsize=11)
    elif len(bands) <= FEW:
        axes.legend(fontsize=8, frameon=True, framealpha=0.85, edgecolor="none", loc="best")
    else:
        made.legend(fontsize=8, frameon=False, loc="outside right upper")


def _plain(text: str) -> str:
    """A text in which nothing is a formula, and nothing moves a cursor in an SVG's reader."""
    shown = "".join(char if char.isprintable() else "�" for char in text)
    return shown.replace("$", r"\$")
