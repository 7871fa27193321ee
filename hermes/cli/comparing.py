"""`compare` and `plot`: how experiments differ in what came of them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

import hermes

from . import completing
from .app import Root, app, end_quietly, has_colours, say, write_csv, write_lines
from .looking import warn

GroupBy = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        metavar="A,B",
        autocompletion=completing.columns,
        help="Columns that make groups, or 'all-but seed': all that differ, but for these."
        "  [default: all but seeds]",
        show_default=False,
    ),
]
WithFailed = Annotated[
    bool, typer.Option("--with-failed", help="Include what has failed or not finished.")
]

LOWEST = 16
"""Lines of a plot, also where the terminal has not so many."""

PATCH_LINES = 40
"""Lines of a difference between patches that are printed."""


@app.command("compare")
def compare(
    where: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WHERE | ID ID]",
            autocompletion=completing.ids_or_where,
            help="Filter, quoted; or parts of the identifiers of two experiments.",
            show_default=False,
        ),
    ] = None,
    group_by: GroupBy = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            autocompletion=completing.metrics,
            help="Metric to compare, such as `return` (its last value) or `return.max`; "
            "repeatable.",
            show_default=False,
        ),
    ] = None,
    with_failed: WithFailed = False,
    pivot: Annotated[
        bool, typer.Option("--pivot", help="Put the last column's values, or metrics, on top.")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print a tabular of LaTeX.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    root: Root = None,
) -> None:
    """Compare groups of experiments by their metrics: how many there are, mean, 95 % interval of
    the mean (Student's t), standard deviation, interquartile mean (IQM) with a bootstrap interval.

    What is left out, missing or counted twice is told. Of two experiments: what is different in
    command, parameters, arguments, settings, code, packages and metrics.
    """
    end_quietly()
    words = where or []
    if len(words) == 2:
        if group_by or metric or with_failed or pivot or csv or latex or markdown:
            raise hermes.HermesError(
                "of two experiments all differences are told, whatever options say of groups",
                hint="a filter is one quoted argument: 'lr < 0.01 and env = cartpole'",
            )
        _tell_differences(words, root)
        return
    if len(words) > 2 or (words and words[0].isalnum()):
        told = f"{len(words)} words are" if len(words) > 1 else f"`{hermes.escape(words[0])}` is"
        raise hermes.HermesError(
            f"{told} neither a filter nor two experiments",
            hint="a filter is one quoted argument: 'lr < 0.01 and env = cartpole'",
        )
    if csv + latex + markdown > 1:
        raise hermes.HermesError("`--csv`, `--latex` and `--markdown` exclude each other")
    if csv and pivot:
        raise hermes.HermesError(
            "`--csv` has a row a group, and no `--pivot`",
            hint="`--markdown --pivot` and `--latex --pivot` can be pasted",
        )
    found = hermes.experiments(words[0] if words else None, root=root)
    warn(found)
    compared = found.compare(group_by, metric or (), with_failed=with_failed)
    _print(compared, pivot=pivot, csv=csv, latex=latex, markdown=markdown)


def _print(
    compared: hermes.Comparison, *, pivot: bool, csv: bool, latex: bool, markdown: bool
) -> None:
    import shutil

    from hermes.show import comparison

    if csv:
        write_csv(comparison.as_csv(compared))
        _say_notes(compared.notes)
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    blocks = []
    for table in compared.tables(pivot=pivot):
        lines = (
            comparison.as_latex(table)
            if latex
            else comparison.as_markdown(table)
            if markdown
            else comparison.as_text(table, width=width)
        )
        blocks.append("\n".join(lines))
    write_lines(["\n\n".join(blocks)])
    if latex:
        write_lines(comparison.latex_notes(compared.notes))
    elif markdown and compared.notes:
        write_lines(["", *comparison.markdown_notes(compared.notes)])
    else:
        _say_notes(compared.notes)


def _say_notes(notes: Iterable[str]) -> None:
    sys.stdout.flush()
    for note in notes:
        say(f"note: {hermes.escape(note)}")


def _tell_differences(words: list[str], root: Path | None) -> None:
    from hermes.show import comparison

    first, second = (hermes.find_experiment(word, root) for word in words)
    told = hermes.differences(first, second)
    write_lines(comparison.differences_as_text(told, patch_lines=PATCH_LINES))


@app.command("plot")
def plot(
    metric: Annotated[
        str,
        typer.Argument(metavar="METRIC", autocompletion=completing.metrics, show_default=False),
    ],
    where: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHERE | ID]",
            autocompletion=completing.ids_or_where,
            help="Filter, quoted: 'lr < 0.01 and env = cartpole'; or a part of an identifier, "
            "whatever its status.",
            show_default=False,
        ),
    ] = None,
    x: Annotated[
        str | None,
        typer.Option(
            "-x",
            metavar="METRIC",
            autocompletion=completing.metrics,
            help="What is on the x axis.  [default: step]",
            show_default=False,
        ),
    ] = None,
    group_by: GroupBy = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write FILE.png, FILE.svg or FILE.pdf instead.",
            show_default=False,
        ),
    ] = None,
    smooth: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Mean of N values, each with those before it."),
    ] = 1,
    log_x: Annotated[bool, typer.Option("--log-x", help="Logarithmic x axis.")] = False,
    log_y: Annotated[bool, typer.Option("--log-y", help="Logarithmic y axis.")] = False,
    with_failed: WithFailed = False,
    root: Root = None,
) -> None:
    """Draw the curves of a metric in the terminal, or into a file: a curve a group, the mean of its
    runs with the 95 % interval of the mean.

    What was interpolated, thinned, left out or is missing is told.
    """
    end_quietly()
    if where is not None and re.fullmatch(r"\w+", where):
        # Who names one wants to see it, also while it runs
        where, with_failed = f"identifier contains {where}", True
    found = hermes.experiments(where, root=root)
    warn(found)
    if output is not None:
        notes = hermes.write_plot(
            found,
            output,
            metric,
            x=x,
            group_by=group_by,
            smooth=smooth,
            log_x=log_x,
            log_y=log_y,
            with_failed=with_failed,
        )
        _say_notes(notes)
        return
    import shutil

    from hermes.show import plots

    picture = found.picture(
        metric,
        x=x,
        group_by=group_by,
        smooth=smooth,
        log_x=log_x,
        log_y=log_y,
        with_failed=with_failed,
    ).first(plots.MOST)
    size = shutil.get_terminal_size()
    below = sum(1 + len(f"note: {note}") // size.columns for note in picture.notes)
    write_lines(
        plots.as_text(
            picture,
            width=size.columns,
            height=max(min(size.lines - 1 - below, 40), LOWEST),
            colour=has_colours(sys.stdout),
        )
    )
    _say_notes(picture.notes)
