"""`rm` and `rerun`: take experiments away, and make more of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Unpack

import typer

import hermes

from . import completing
from .app import AsJson, Quiet, Root, app, say, write_lines
from .execute import Comments, with_settings

MOST_SHOWN = 20
"""Experiments that are listed before somebody is asked."""


@app.command("rm")
def rm(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="ID|WHERE...",
            help="Parts of identifiers, or quoted filters.",
            show_default=False,
            autocompletion=completing.ids_or_where,
        ),
    ],
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Let `resume` and `--resume` run their jobs again.")
    ] = False,
    root: Root = None,
    quiet: Quiet = False,
) -> None:
    """Remove experiments, after they were shown and you were asked.

    What runs is never removed, in whatever run or process, nor what may run elsewhere. The jobs of
    what was removed count as done with: `hermes resume` and `hermes exec --resume` do not start
    them again, unless `--again`.
    """
    from hermes.show.amounts import size

    finished = hermes.finish_removals(root)
    if finished and not quiet:
        say(f"deleted what was left of {_counted(finished)} that an earlier `hermes rm` removed")
    removal = hermes.plan_removal(hermes.find_experiments(words, root))
    _tell_kept(removal.kept)
    if not removal.experiments:
        if not removal.kept:
            say("no such experiment")
        raise typer.Exit(1 if removal.kept else 0)
    what = f"{_counted(len(removal.experiments))}, {size(removal.bytes)}"
    if not yes:
        _ask(removal, what, root, again=again)
    removed = removal.execute(again=again)
    _tell_kept(removed.kept)
    for path, why in removed.left.items():
        say(f"could not delete all of `{hermes.escape(path)}`: {why}")
    if not quiet:
        count = len(removed.identifiers)
        say(f"removed {what if count == len(removal.experiments) else _counted(count)}")
    if removal.kept or removed.kept or removed.left:
        raise typer.Exit(1)


@app.command("rerun")
@with_settings
def rerun(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="ID [KEY=VALUE]...",
            help="Identifier, or a part of it; parameters and arguments to change.",
            show_default=False,
            autocompletion=completing.id_or_changes,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "-n",
            "--name",
            metavar="NAME",
            help="Another name.",
            show_default=False,
            autocompletion=completing.names,
        ),
    ] = None,
    comments: Comments = None,
    code: Annotated[
        str, typer.Option("--code", metavar="now|then", help="Which code the job is run with.")
    ] = "now",
    root: Root = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    **settings: Unpack[hermes.PlanArguments],
) -> None:
    """Run the job of an experiment again, as a new experiment of the same name.

    `lr=0.1` changes the parameter `lr`, or else the argument `-lr` or `--lr`. Settings are those of
    then, unless they are given. With `--code then` the job runs in a copy of the code as it was:
    its commit, its `uncommitted.patch`, and what has not changed since. Exit codes are those of
    `hermes exec`.
    """
    from .run import run

    part, *given = words
    changes = dict(_change_of(word) for word in given)
    planned = hermes.plan_rerun(
        hermes.find_experiment(part, root),
        changes,
        name=name,
        comments=comments or (),
        code=code,
        **settings,
    )
    for line in () if quiet else planned.told:
        say(hermes.escape(line))
    run(
        lambda: hermes.open_rerun(planned, follow_logs="shown", follow_files=as_json),
        quiet=quiet,
        as_json=as_json,
    )


def _change_of(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise hermes.HermesError(
            f"expected `key=value`, not `{hermes.escape(word)}`", hint="`hermes rerun ID lr=0.1`"
        )
    return key, value


def _ask(removal: hermes.Removal, what: str, root: Root, *, again: bool) -> None:
    """Shows what would go, and ends the command unless somebody agrees."""
    import shutil

    from hermes.show import removals

    if not sys.stdin.isatty():
        raise hermes.HermesError(
            f"this removes {what}; there is no terminal to ask on", hint="`--yes` removes them"
        )
    width = shutil.get_terminal_size().columns
    shown = removal.experiments[:MOST_SHOWN]
    shorts = hermes.short_names([each.identifier for each in shown], root)
    write_lines(removals.lines(shown, shorts, width))
    more = len(removal.experiments) - MOST_SHOWN
    if more > 0:
        print(f"and {more} more")
    sys.stdout.flush()
    if not again:
        say("`resume` and `--resume` will not start their jobs again; with `--again` they will")
    if not typer.confirm(f"Remove {what}?", err=True):
        say("nothing was removed")
        raise typer.Exit(1)


def _tell_kept(kept: Mapping[str, str]) -> None:
    for identifier, why in kept.items():
        say(hermes.escape(f"kept {identifier}: {why}"))


def _counted(count: int) -> str:
    return f"{count} experiment{'' if count == 1 else 's'}"
