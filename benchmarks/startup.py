"""`startup`: what a person waits for before anything happens."""

from __future__ import annotations

from pathlib import Path

from .measure import HERMES, Contender, python, remove, take_turns, write_script
from .table import Row, Target, count

EXEC, HELP = "hermes exec of one job", "hermes --help"
BASE, TYPER, RICH_TYPER = (
    "its imports, and spawning the job",
    "smallest typer program --help",
    "the same with rich's boxes",
)

MOST_EXEC = 1.35
"""Times its imports and the spawning of the job, which nothing avoids. The rest is Hermes' own."""

MOST_HELP = 1.1
"""Times the smallest typer program: help must load nothing but typer."""

TURNS = 15
"""They are short."""

BASE_CODE = """\
import subprocess
import aiofiles
import anyio
import anyio._backends._asyncio
import typer
import watchfiles

async def main():
    with open("base.out", "wb") as out, open("base.err", "wb") as err:
        process = await anyio.open_process(
            ["./noop.sh"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    await process.wait()

anyio.run(main)
"""
"""What nobody who uses these libraries can go below."""

TYPER_CODE = """\
import typer

app = typer.Typer(rich_markup_mode={mode!r}, pretty_exceptions_enable=False)

@app.command()
def main() -> None:
    pass

app()
"""


def run(folder: Path, *, smoke: bool) -> Row:
    turns = 1 if smoke else TURNS
    write_script(folder / "noop.sh")
    (folder / "base.py").write_text(BASE_CODE)
    (folder / "plain.py").write_text(TYPER_CODE.format(mode=None))
    (folder / "boxes.py").write_text(TYPER_CODE.format(mode="rich"))
    took = take_turns(
        [
            Contender("python -c pass", python("-c", "pass"), folder),
            Contender(BASE, python("base.py"), folder),
            Contender(
                EXEC,
                [*HERMES, "exec", "-e", "./noop.sh", "--root", ".", "--quiet"],
                folder,
                remove(folder / "experiments"),
            ),
            # Hermes prints plain help. One that loads rich is slower for that reason alone
            Contender(TYPER, python("plain.py", "--help"), folder),
            Contender(HELP, [*HERMES, "--help"], folder),
            Contender(RICH_TYPER, python("boxes.py", "--help"), folder),
        ],
        turns,
        warm_up=True,
    )
    return Row(
        f"startup: whole processes; {count(turns)}",
        "python -c pass",
        took.times("python -c pass"),
        [
            Target(f"{EXEC} / {BASE}", "<=", MOST_EXEC, took.relative(EXEC, BASE)),
            Target(f"{HELP} / {TYPER}", "<=", MOST_HELP, took.relative(HELP, TYPER)),
        ],
        raw=took.raw(),
    )
