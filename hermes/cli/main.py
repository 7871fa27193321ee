"""The command line: `main` executes one command.

What a command needs is imported when it runs, so that each starts at once.
"""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, NoReturn

import typer

import hermes

from .app import OPTIONS, app, coloured, say
from .commands import Commands

top = typer.Typer(
    name="hermes",
    cls=Commands,
    help="Run the jobs of a hermes file, each with an identifier, a directory and logs of its own.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    **OPTIONS,
)

WRONG_CALL = 2
"""The exit code after a call that typer has not understood."""


def _version(wanted: bool) -> None:
    if wanted:
        from .predecessor import installed

        print(f"hermes {hermes.__version__}")
        if beside := installed():
            say(beside)
        raise typer.Exit


@top.callback(no_args_is_help=True, invoke_without_command=True)
def _hermes(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run the jobs of a hermes file, each with an identifier, a directory and logs of its own."""


@app.command("help")
def help_(
    context: typer.Context,
    command: Annotated[
        str | None,
        typer.Argument(metavar="[COMMAND]", help="Command to explain.", show_default=False),
    ] = None,
) -> None:
    """Show help for hermes or for one of its commands."""
    parent = context.parent
    assert parent is not None, "a command always has the group above it"
    if command is None:
        print(parent.get_help())
        return
    group = typer.main.get_command(top)
    found = getattr(group, "commands", {}).get(command)
    if found is None:
        raise hermes.HermesError(
            f"no command `{command}`",
            hint=hermes.did_you_mean(command, getattr(group, "commands", {})),
        )
    with found.make_context(command, [], parent=parent, resilient_parsing=True) as own:
        print(own.get_help())


def main() -> NoReturn:
    """Executes the command line, and exits."""
    # Whoever starts Hermes with SIGCHLD ignored would make every job end with exit code 255
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Closed by the caller: the next file that is opened would get its number, and with it
            # all that is printed
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # Names are bytes: what is not UTF-8 in them must not end the program
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    try:
        top(prog_name="hermes")
    except hermes.HermesError as exc:
        sys.stdout.flush()
        say(coloured(str(exc)))
        sys.exit(2)
    except OSError as exc:
        _cannot_write(exc)
    except SystemExit as exc:
        if exc.code == WRONG_CALL:
            _hint(sys.argv[1:])
        try:
            sys.stdout.flush()
        except OSError as error:
            _cannot_write(error)
        raise
    sys.exit(0)


def _cannot_write(error: OSError) -> NoReturn:
    """Says that the disk to which the output goes is full, and exits."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise error
    say(coloured(f"error: cannot write: {error.strerror}"))
    # What is still to be written would fail once more when the interpreter ends
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(1)


def _hint(words: Sequence[str]) -> None:
    """Says more about a wrong call, which typer has already told."""
    from .predecessor import hints

    commands = getattr(typer.main.get_command(top), "commands", {})
    options = {
        name: {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
        for name, command in commands.items()
    }
    for hint in (*hints(words, options), *_hints_of_files(words)):
        say(coloured(f"hint: {hint}"))


def _hints_of_files(words: Sequence[str]) -> Iterator[str]:
    """How a hermes file is given, which is another way for `exec` than for `compile`."""
    for before, word in pairwise(words):
        if not os.path.isfile(word):
            continue
        if (words[0], before) == ("exec", "exec"):
            yield f"write `hermes exec -f {shlex.quote(word)}`"
        elif words[0] == "exec" and os.path.isfile(before):
            yield "one hermes file makes a run; each of several needs its own `hermes exec -f FILE`"
        elif (words[0], before) == ("compile", "-f"):
            yield f"write `hermes compile {shlex.quote(word)}`"
