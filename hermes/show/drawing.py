"""Plots as files for papers and pages: PNG, SVG and PDF."""

from __future__ import annotations

import os
from typing import Unpack

from ..errors import HermesError, escape
from ..query.averaging import PlotArguments
from ..query.found import Experiments
from ..storage.files import write_atomic

FORMATS = (".png", ".svg", ".pdf")
"""Endings of files that can be written."""


def write_plot(
    experiments: Experiments,
    path: str | os.PathLike[str],
    metric: str,
    **options: Unpack[PlotArguments],
) -> tuple[str, ...]:
    """Writes what `experiments.plot(metric, ...)` draws into a file, whose ending says which format
    it gets: `.png`, `.svg` or `.pdf`. A file that was there is replaced.

        hermes.write_plot(hermes.experiments("env = pong"), "pong.pdf", "return", smooth=10)

    Returns notes: what was left out, interpolated or is missing. Raises `HermesError`, also if
    matplotlib is not installed.
    """
    name = os.fspath(path)
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in FORMATS:
        raise HermesError(
            f"`{escape(name)}` does not say what to write",
            hint="its name has to end in `.png`, `.svg` or `.pdf`",
        )
    drawn = experiments.plot(metric, **options)
    data = drawn.written(suffix[1:])
    try:
        write_atomic(os.path.realpath(name), data, sync=False)
    except OSError as exc:
        raise HermesError(f"cannot write `{escape(name)}`: {exc.strerror}") from None
    return drawn.notes
