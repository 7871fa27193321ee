"""What a shell offers when somebody presses Tab: ids, names and columns.

Only names of directories are read for ids and names, and for columns what `hermes ls` keeps. What
cannot be read is not offered, and nothing is told: there is nobody to read it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import typer

import hermes

MOST = 200
"""Ids that are offered, the newest."""

Offered = list[tuple[str, str]]
"""What is offered, each with what it is, which some shells show."""

Complete = Callable[[typer.Context, str], Offered]


def _quiet(complete: Complete) -> Complete:
    @functools.wraps(complete)
    def quiet(ctx: typer.Context, incomplete: str) -> Offered:
        try:
            return complete(ctx, incomplete)
        except (hermes.HermesError, OSError):
            return []

    return quiet


@_quiet
def ids(ctx: typer.Context, incomplete: str) -> Offered:
    """Experiments, by the short forms of their identifiers, or by the beginnings of the whole."""
    known = hermes.experiment_directories(_root(ctx))
    newest = [each for each in known if incomplete in each][:MOST]
    shorts = hermes.short_names(newest, _root(ctx))
    found = []
    for each in newest:
        word = shorts[each] if shorts[each].startswith(incomplete) else each
        if word.startswith(incomplete):
            *_, script, name, _ = Path(known[each]).parts
            found.append((word, f"{script} {name}"))
    return found


@_quiet
def names(ctx: typer.Context, incomplete: str) -> Offered:
    """The names of experiments."""
    known = hermes.experiment_directories(_root(ctx))
    found = dict.fromkeys(Path(directory).parent.name for directory in known.values())
    return _starting(found, incomplete)


@_quiet
def where(ctx: typer.Context, incomplete: str) -> Offered:
    """The last word of a filter: a column, or a name behind `name =`."""
    before, last = _last_word(incomplete)
    if re.search(r"\bname\s*(=|==|!=)\s*$", before):
        offered = names(ctx, last)
    else:
        offered = _starting(hermes.experiments(root=_root(ctx)).columns, last)
    return [(f"{before}{word}", told) for word, told in offered]


@_quiet
def where_or_file(ctx: typer.Context, incomplete: str) -> Offered:
    """A filter once it has begun; before that nothing, so that the shell offers files."""
    return where(ctx, incomplete) if " " in incomplete else []


@_quiet
def ids_or_where(ctx: typer.Context, incomplete: str) -> Offered:
    """Ids, or a filter once it has begun with a letter."""
    return where(ctx, incomplete) if incomplete[:1].isalpha() else ids(ctx, incomplete)


@_quiet
def column(ctx: typer.Context, incomplete: str) -> Offered:
    """A column to sort by, perhaps behind a `-`."""
    dash = incomplete[:1] if incomplete.startswith("-") else ""
    known = hermes.experiments(root=_root(ctx)).columns
    return [(dash + word, told) for word, told in _starting(known, incomplete[len(dash) :])]


@_quiet
def columns(ctx: typer.Context, incomplete: str) -> Offered:
    """The last of several columns."""
    before, comma, last = incomplete.rpartition(",")
    known = hermes.experiments(root=_root(ctx)).columns
    return [(before + comma + word, told) for word, told in _starting(known, last)]


@_quiet
def id_or_changes(ctx: typer.Context, incomplete: str) -> Offered:
    """An id, and then what of its job can be changed."""
    words = ctx.params.get("words") or []
    if not words:
        return ids(ctx, incomplete)
    found = hermes.find_experiment(words[0], _root(ctx))
    known = dict.fromkeys([*found.parameters, *found.options])
    return _starting((f"{name}=" for name in known), incomplete)


@_quiet
def metrics(ctx: typer.Context, incomplete: str) -> Offered:
    return _starting(hermes.experiments(root=_root(ctx)).metrics, incomplete)


def _root(ctx: typer.Context) -> Path | None:
    root = ctx.params.get("root")
    return Path(root) if root else None


def _last_word(text: str) -> tuple[str, str]:
    """What stands before the last word of a filter, and that."""
    match = re.search(r"[\w.:\-/]*$", text)
    place = match.start() if match else len(text)
    return text[:place], text[place:]


def _starting(words: Iterable[str], start: str) -> Offered:
    return [(word, "") for word in words if word.startswith(start)]
