"""Jobs that print and name files by what moves cursors or changes pages."""

from __future__ import annotations

import random

import hermes

from . import (
    PYTHON,
    Desk,
)

PIECES = (
    "\x1b[2J", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\", "\x1bP1$r\x1b\\", "\x9b31m",
    "\x9d0;x\x9c", "\x1b[?1049h", "\x1b[6n", "\x1bc",
    "\b\b\b", "\x07", "\x7f", "\x0e", "\u202e", "\u2066", "\u200b", "\u2028", "\ufeff", "\x85",
    "\xad", "\xa0", "[bold]", "[/bold]",
    "[/]", "[link=http://x]", "\\[red]", "[red on blue]", "[@click=app.bell]", ":smile:", "<b>",
    "</td>", "<script>alert(1)</script>",
    "&lt;", "<img src=x onerror=y>", "'", '"', "$x", "`x`", "%s", "#", "word", "  ",
)  # fmt: skip
"""What moves cursors, changes colours or means something to rich or to a browser, if anybody lets
it.
"""

SHOUT = """\
import os, sys, time
own, said = sys.argv[1:3]
name = said.replace("/", "_") + own
os.mkfifo(name)
with open("file_" + name, "w"):
    pass
for stream in (1, 2):
    os.write(stream, os.fsencode(said) + b"\\n")
while not os.path.exists("go"):
    time.sleep(0.01)
sys.exit(1)
"""
"""A job that says its argument, names files by it, and fails."""

SCRIPT = "shout [red]<b>\u202e.py"


def shouts(seed: int, count: int) -> list[str]:
    chance = random.Random(seed)
    return [
        f"<{number}>{''.join(chance.choices(PIECES, k=chance.randint(1, 4)))}."
        for number in range(count)
    ]


def shouting(desk: Desk, said: list[str]) -> None:
    """A hermes file with a job for each of the texts, all at the same time, their output shown."""
    (desk.path / "go").unlink(missing_ok=True)
    desk.write(SCRIPT, SHOUT)
    values = ", ".join(hermes.quote(each) for each in said)
    desk.hermes_file(
        f"PROD([[{PYTHON}, {hermes.quote(SCRIPT)}, {{said}}],[-l false]], said=[{values}])",
        settings={"threads": len(said)},
    )


def fifo_of(said: str) -> str:
    """What the name of a job's FIFO starts with, as it is shown."""
    return f"`{hermes.escape(said.replace('/', '_'))}"
