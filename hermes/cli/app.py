"""What the commands share: where they are taken up, common options, how they print."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, TextIO, TypedDict

import typer


class Options(TypedDict):
    rich_markup_mode: None
    pretty_exceptions_enable: bool


OPTIONS: Options = {"rich_markup_mode": None, "pretty_exceptions_enable": False}
"""Plain help: rich would take as long as all the rest of start-up, for boxes around the same
text."""

app = typer.Typer(**OPTIONS)
"""Takes up the commands of the modules that have been imported."""

Root = Annotated[
    Path | None,
    typer.Option(
        "--root", metavar="DIR", help="Folder that experiments/ goes into.", show_default=False
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print failures and nothing else.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def write_lines(lines: Iterable[str]) -> None:
    # A sweep may have millions of lines: no call per line, and no list of all
    from itertools import islice

    lines = iter(lines)
    while block := list(islice(lines, 1000)):
        sys.stdout.write("\n".join(block) + "\n")


def write_csv(rows: Iterable[Sequence[str]]) -> None:
    import csv

    csv.writer(sys.stdout, lineterminator="\n").writerows(rows)


def end_quietly() -> None:
    """Has a command that only prints end as other programs do when nobody reads on, as in
    `hermes ls | head`."""
    import signal

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def has_colours(stream: TextIO) -> bool:
    """Whether what is printed there may be coloured."""
    is_dumb = os.environ.get("TERM", "dumb") == "dumb"
    return stream.isatty() and not os.environ.get("NO_COLOR") and not is_dumb


def say(message: str) -> None:
    print(message, file=sys.stderr)


def coloured(text: str) -> str:
    if not has_colours(sys.stderr):
        return text
    colours = {"error:": "\033[1;31merror:\033[0m", "hint:": "\033[1;36mhint:\033[0m"}
    lines = []
    for line in text.split("\n"):
        word = line.partition(" ")[0]
        lines.append(colours[word] + line[len(word) :] if word in colours else line)
    return "\n".join(lines)
