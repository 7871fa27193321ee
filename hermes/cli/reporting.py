"""`report`: a page about experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import hermes

from .app import Quiet, Root, app, say


@app.command(short_help="Write an HTML page about experiments.")
def report(
    where: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHERE]",
            help='Which experiments, such as "status = finished and lr < 0.01"; all by default.',
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.html", help="File to write.")
    ] = Path("report.html"),
    root: Root = None,
    quiet: Quiet = False,
) -> None:
    """Write one HTML file about experiments that needs no network: a table that sorts and filters,
    curves, failures with their last lines, and where everything comes from.

    An earlier report of that name is replaced, another file is not.
    """
    found = hermes.experiments(where, root=root)
    for warning in found.warnings:
        say(f"warning: {warning}")
    if not found:
        raise hermes.HermesError(
            "there is no such experiment" if where else "there are no experiments yet"
        )
    hermes.write_report(found, output)
    if not quiet:
        count = len(found)
        name = hermes.escape(str(output))
        say(f"{count} experiment{'' if count == 1 else 's'} in `{name}`")
