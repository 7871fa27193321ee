"""`ls`, `show` and `logs`: look at what came of experiments."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import hermes

from . import completing
from .app import AsJson, Root, app, end_quietly, say, write_csv, write_lines

Where = Annotated[
    str | None,
    typer.Argument(
        metavar="[WHERE]",
        help="Filter, quoted: 'lr < 0.01 and env = cartpole'.",
        show_default=False,
        autocompletion=completing.where,
    ),
]

MOST_WARNINGS = 5

FEW = 4
"""Metrics that a table shows if nothing else is asked for."""


@app.command("ls")
def ls(
    where: Where = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Sort by a column; `-COLUMN`: the largest first.",
            show_default=False,
            autocompletion=completing.column,
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Show the first N alone.", show_default=False),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Show these columns.",
            show_default=False,
            autocompletion=completing.columns,
        ),
    ] = None,
    all_columns: Annotated[
        bool, typer.Option("--all-columns", help="Show all columns there are.")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json: AsJson = False,
    root: Root = None,
) -> None:
    """List experiments, the newest first, with the parameters and arguments that differ.

    A filter compares columns: `status = failed and not env in [pong, maze]`, `duration > 2h`,
    `start since yesterday`, `lr is defined`, `name contains test`.
    """
    import shutil

    from hermes.show import cells, table

    end_quietly()
    found = hermes.experiments(where, root)
    rows = [each.row for each in (found.sorted_by(sort) if sort and found else found)]
    warn(found)
    if not rows:
        say("no experiments" if not where else "no experiment passes the filter")
        return
    names = [name for name in (columns or "").split(",") if name.strip()]
    chosen = cells.chosen(found, [name.strip() for name in names], all_columns=all_columns)
    rows = rows[:top]
    if json:
        write_lines(cells.as_json(rows, chosen))
    elif csv:
        write_csv(cells.as_csv(rows, chosen))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        few = None if names or all_columns else FEW
        texts, numbers = cells.as_texts(found, rows, chosen, most_metrics=few)
        write_lines(table.lines(texts, right=numbers, width=width))


@app.command("show")
def show(
    part: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]",
            help="Identifier, or a part of it; the latest one by default.",
            show_default=False,
            autocompletion=completing.ids,
        ),
    ] = None,
    json: AsJson = False,
    root: Root = None,
) -> None:
    """Show all about one experiment: how it ended, its command, metrics, files, code and machine.

    `hermes show ID --json` prints all of `hermes.json`, with the metrics.
    """
    from hermes.show import detail

    end_quietly()
    found = hermes.find_experiment(part, root)
    write_lines([detail.as_json(found)] if json else detail.lines(found))


@app.command("logs")
def logs(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID|WHERE]...",
            help="Parts of identifiers, or quoted filters; the latest experiment by default.",
            show_default=False,
            autocompletion=completing.ids_or_where,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the jobs have ended.")
    ] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that failed.")] = False,
    tail: Annotated[
        int | None,
        typer.Option(
            "--tail",
            metavar="N",
            min=0,
            help="Only the last N lines of each stream.",
            show_default=False,
        ),
    ] = None,
    stdout: Annotated[bool, typer.Option("--stdout", help="Only standard output.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Only standard error.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Print the bytes as they are.")] = False,
    root: Root = None,
) -> None:
    """Print what jobs have printed, whoever executes them: standard output, then standard error.

    Of several experiments each line begins with the short identifier, followed by `|`, or by `!`
    for standard error. Control characters are shown as escapes, unless `--raw`.
    """
    from .printing import print_logs

    streams = ("stdout", "stderr") if stdout == stderr else ("stdout",) if stdout else ("stderr",)
    found = _meant(words or [], root, failed=failed)
    if not found:
        say("no experiment failed" if not words else "no such experiment")
        return
    print_logs(found, root, streams, follow=follow, tail=tail, raw=raw)


def _meant(words: Sequence[str], root: Root, *, failed: bool) -> list[hermes.FoundExperiment]:
    """The experiments whose logs are asked for, the oldest first."""
    if not words and not failed:
        latest = hermes.find_experiment(None, root)
        say(hermes.escape(f"{latest.identifier}  {latest.script}  {latest.name}  {latest.status}"))
        return [latest]
    is_failed = "status in [failed, timeout]"
    found = hermes.find_experiments(words or [is_failed], root)
    if failed:
        bad = (hermes.Status.FAILED, hermes.Status.TIMEOUT)
        found = [each for each in found if each.row.status in bad]
    return found[::-1]


def warn(found: hermes.Experiments) -> None:
    """Says what could not be read."""
    warnings = found.warnings
    for text in warnings[:MOST_WARNINGS]:
        say(f"warning: {text}")
    if len(warnings) > MOST_WARNINGS:
        say(f"warning: and {len(warnings) - MOST_WARNINGS} more")
