"""`report` and `export`: files about experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import hermes

from . import completing
from .app import Quiet, Root, app, say
from .looking import warn


@app.command("report")
def report(
    where: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHERE]",
            help='Which experiments, such as "status = finished and lr < 0.01"; all by default.',
            show_default=False,
            autocompletion=completing.where,
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
    warn(found)
    if not found:
        raise _nothing_to_write(where)
    hermes.write_report(found, output)
    if not quiet:
        count = len(found)
        name = hermes.escape(str(output))
        say(f"{count} experiment{'' if count == 1 else 's'} in `{name}`")


@app.command("export")
def export(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[WHERE] FILE",
            help="Filter, quoted; and a file that ends in .csv, .jsonl or .parquet.",
            show_default=False,
            autocompletion=completing.where_or_file,
        ),
    ],
    curves: Annotated[
        bool, typer.Option("--curves", help="A row for each value of each metric.")
    ] = False,
    root: Root = None,
    quiet: Quiet = False,
) -> None:
    """Write experiments into a file for other programs: parameters, arguments, metadata and the
    last values of metrics, a row an experiment.

    An earlier export of that name is replaced, another file is not. Parquet needs pyarrow, polars
    or pandas.
    """
    *where, file = words
    if len(where) > 1:
        raise hermes.HermesError(
            f"expected one filter and a file, not {len(words)} words",
            hint=f"quote the filter: `hermes export '{hermes.escape(' '.join(where))}' FILE.csv`",
        )
    found = hermes.experiments(where[0] if where else None, root=root)
    warn(found)
    if not found:
        raise _nothing_to_write(where)
    count = hermes.write_export(found, file, curves=curves)
    if not quiet:
        what = "value" if curves else "experiment"
        say(f"{count} {what}{'' if count == 1 else 's'} in `{hermes.escape(file)}`")


def _nothing_to_write(where: object) -> hermes.HermesError:
    return hermes.HermesError(
        "there is no such experiment" if where else "there are no experiments yet"
    )
