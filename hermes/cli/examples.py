"""`create` and `demo`: something to start from."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

import hermes

from .app import app, say


@app.command("create")
def create(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of the new file; `.hermes` is added.", show_default=False
        ),
    ],
    scripts: Annotated[
        list[str] | None,
        typer.Option(
            "-s",
            "--script",
            metavar="SCRIPT",
            help="Script to execute; repeatable.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a commented hermes file to start from. Never overwrites."""
    from .templates import new_file

    path = Path(name if name.endswith(".hermes") else f"{name}.hermes")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(new_file(scripts or ()))
    except FileExistsError:
        raise hermes.HermesError(
            f"`{hermes.escape(str(path))}` exists already, it was left as it is"
        ) from None
    except (OSError, ValueError) as exc:
        told = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise hermes.HermesError(f"cannot write `{hermes.escape(str(path))}`: {told}") from None
    print(path)
    say(
        f"edit it, look at it with `hermes compile {path}`, "
        f"run it with `hermes exec -f {path} -n NAME`"
    )


@app.command("demo")
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder for the example.")] = Path(
        "hermes_demo"
    ),
) -> None:
    """Write a small example, two agents that learn to balance a pole, and run it.

    Takes a few seconds.
    """
    from .run import run
    from .templates import write_demo

    write_demo(folder)
    say(
        f"the example is in `{folder}`: a hermes file, two training scripts "
        "and the network they share"
    )
    say(f"$ cd {shlex.quote(str(folder))} && hermes exec -f example_file.hermes -n test_agents")
    plan = hermes.compile_file("example_file.hermes", working_directory=folder)
    run(
        lambda: hermes.open_run(plan, "test_agents", follow_logs="shown", follow_files=False),
        after=_show_results,
    )


def _show_results(result: hermes.RunResult) -> None:
    from .display import Writer

    out = Writer(sys.stdout)
    for outcome in result.outcomes:
        if outcome.directory is not None:
            out.line(os.path.relpath(outcome.directory))
            for stored in hermes.load_experiment(outcome.directory).files:
                out.line(
                    f"    {hermes.escape(stored.path)}  ({stored.origin}, {stored.bytes} bytes)"
                )
