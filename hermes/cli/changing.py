"""`set`, `pause`, `continue` and `add`: commands that change a run in progress."""

from __future__ import annotations

from typing import Annotated

import typer

import hermes

from . import completing
from .app import Quiet, Root, app

RunId = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]",
        autocompletion=completing.names,
        help="Id of a run, a part of it, or its name.",
        show_default=False,
    ),
]


@app.command("set")
def set_(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN] threads=N",
            help="Id of a run, a part of it, or its name; and what to change.",
            show_default=False,
        ),
    ],
    root: Root = None,
    quiet: Quiet = False,
) -> None:
    """Change how many jobs of the latest run in progress go on at once.

    More start within half a second. Of those that run too many none is ended: they run out. It
    holds for a run that is resumed, too.
    """
    *runs, change = words
    key, equals, value = change.partition("=")
    if not equals or len(runs) > 1:
        raise hermes.HermesError(
            f"expected `threads=N`, not `{hermes.escape(change)}`", hint="`hermes set threads=8`"
        )
    if key != "threads":
        raise hermes.HermesError(
            f"`{hermes.escape(key)}` cannot be changed while a run is in progress",
            hint="`threads` can",
        )
    if not value.isdecimal() or int(value) < 1:
        raise hermes.HermesError(
            f"`threads` has to be a number of at least 1, not `{hermes.escape(value)}`"
        )
    _change(runs[0] if runs else None, root, quiet, f"at most {int(value)} jobs at the same time:",
            threads=int(value))  # fmt: skip


@app.command("pause")
def pause(run_id: RunId = None, root: Root = None, quiet: Quiet = False) -> None:
    """Start no more jobs of the latest run in progress, until `hermes continue`.

    What runs goes on.
    """
    _change(run_id, root, quiet, "pausing", is_paused=True)


@app.command("continue")
def continue_(run_id: RunId = None, root: Root = None, quiet: Quiet = False) -> None:
    """Start jobs again after `hermes pause`."""
    _change(run_id, root, quiet, "going on with", is_paused=False)


@app.command("add")
def add(
    file: Annotated[
        str,
        typer.Option(
            "-f", "--file", metavar="FILE", help="Hermes file with the jobs.", show_default=False
        ),
    ],
    run_id: RunId = None,
    root: Root = None,
    quiet: Quiet = False,
) -> None:
    """Add the jobs of a hermes file at the end of the latest run in progress.

    They run where its other jobs do, and with the settings of the run.
    """
    import anyio

    from .run import find

    async def execute() -> int:
        found = await find(run_id, "change", root, "adding to", quiet=quiet)
        return await hermes.add_to_run(file, found)

    count = anyio.run(execute)
    if not quiet:
        print(f"{count} job{'s' if count != 1 else ''} added")


def _change(
    run_id: str | None,
    root: Root,
    quiet: bool,
    doing: str,
    *,
    threads: int | None = None,
    is_paused: bool | None = None,
) -> None:
    import anyio

    from .run import find

    async def execute() -> None:
        found = await find(run_id, "change", root, doing, quiet=quiet)
        await hermes.change_run(found, threads=threads, is_paused=is_paused)

    anyio.run(execute)
