"""Columns: what an experiment's metadata say as typed cells, and which column a name means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from ..errors import HermesError, did_you_mean, escape
from ..storage.metadata import Metadata, Summary
from .rows import ASPECTS, Column, Kind, Row, Value, comparable

META = (
    "identifier", "script", "name", "status", "duration", "start", "end", "exit_code", "signal",
    "problems", "comments", "commit", "branch", "dirty", "host", "user", "run_id", "attempts",
    "slot", "gpus", "working_directory", "python", "hermes", "rerun_of",
)  # fmt: skip
"""Metadata that are columns; `problems` is how many there are, `duration` is in seconds."""

SHORT = "id"
"""Stands for the column `identifier`, as it does above a table, unless there is one that is called
so."""

TIMES = frozenset({"start", "end"})
DURATIONS = frozenset({"duration"})

NUMBER = re.compile(
    r"[+-]?(?:(?:0|[1-9][0-9]*)(?P<fraction>\.[0-9]*)?|(?P<bare>\.[0-9]+))(?P<exponent>[eE][+-]?[0-9]+)?"
)
_NO_FINITE_NUMBER = re.compile(r"[+-]?(?:inf|infinity|nan)", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"\+*([A-Za-z_][\w.\-/]*)=(.*)", re.DOTALL)
_LONGEST_NUMBER = 400
"""Characters; longer ones are text."""


@lru_cache(maxsize=10_000)
def typed(text: str) -> Value:
    """The value of a text: `5` is an int, `1e-3` a float, `true` a bool, all else stays text."""
    if not text or len(text) > _LONGEST_NUMBER:
        return text
    lower = text.lower()
    if lower in ("true", "false"):
        return lower == "true"
    if found := NUMBER.fullmatch(text):
        is_whole = not (found["fraction"] or found["bare"] or found["exponent"])
        return int(text) if is_whole else float(text)
    return float(text) if _NO_FINITE_NUMBER.fullmatch(text) else text


def arguments_of(words: Sequence[str]) -> dict[str, list[str]]:
    """The values of options by their names without dashes, in the order of the words.

    `-lr 0.001`, `--lr=0.001` and `lr=0.001` are alike, a flag alone is `true`, and a negative
    number is a value. Words that belong to no option are left out.
    """
    found: dict[str, list[str]] = {}
    # The option that takes the next word, if that is a value
    waiting = ""
    for word in words:
        if word[:1] == "-" and _is_option(word):
            if waiting:
                found.setdefault(waiting, []).append("true")
                waiting = ""
            if word == "--":
                break
            name, equals, value = word.lstrip("-").partition("=")
            if not equals:
                waiting = name
            elif name:
                found.setdefault(name, []).append(value)
        elif waiting:
            found.setdefault(waiting, []).append(word)
            waiting = ""
        elif "=" in word and (assigned := _ASSIGNMENT.fullmatch(word)):
            found.setdefault(assigned[1], []).append(assigned[2])
    if waiting:
        found.setdefault(waiting, []).append("true")
    return found


def _is_option(word: str) -> bool:
    """Whether a word with a dash at its start is an option, and not a negative number."""
    return len(word) > 1 and not isinstance(typed(word), int | float)


def row_of(directory: str, metadata: Metadata, metrics: Mapping[str, Summary] | None = None) -> Row:
    """An experiment as a row."""
    options = arguments_of(metadata.arguments)
    parameters = metadata.parameters
    cells: dict[Kind, Mapping[str, Value]] = {
        Kind.PARAMETER: {name: typed(text) for name, text in parameters.items()},
        Kind.ARGUMENT: {
            name: typed(texts[0]) if len(texts) == 1 else tuple(map(typed, texts))
            for name, texts in options.items()
        },
        Kind.META: meta_of(metadata),
    }
    raw: dict[Kind, Mapping[str, str]] = {
        Kind.PARAMETER: parameters,
        Kind.ARGUMENT: {name: " ".join(texts) for name, texts in options.items()},
    }
    return Row(
        identifier=metadata.identifier,
        directory=directory,
        status=metadata.status,
        cells=cells,
        raw=raw,
        metrics=metrics or {},
    )


def meta_of(metadata: Metadata) -> dict[str, Value]:
    """The metadata that are columns, in the order of `META`."""
    values: dict[str, Value | None] = {
        "identifier": metadata.identifier,
        "script": metadata.script,
        "name": metadata.name,
        "status": str(metadata.status),
        "duration": metadata.duration,
        "start": metadata.start,
        "end": metadata.end,
        "exit_code": metadata.exit_code,
        "signal": metadata.signal,
        "problems": len(metadata.problems),
        "comments": metadata.comments or None,
        "commit": metadata.git.commit,
        "branch": metadata.git.branch,
        "dirty": metadata.git.dirty,
        "host": metadata.host or None,
        "user": metadata.user or None,
        "run_id": metadata.run_id or None,
        "attempts": metadata.attempts,
        "slot": metadata.slot,
        "gpus": metadata.gpus or None,
        "working_directory": metadata.working_directory or None,
        "python": metadata.python,
        "hermes": metadata.versions.hermes or None,
        "rerun_of": metadata.rerun_of,
    }
    return {name: value for name, value in values.items() if value is not None}


class Columns:
    """The columns that some experiments have, and what a name means among them.

    >>> experiments.columns.find("lr")
    Column(name='lr', kinds=(<Kind.PARAMETER: 'param'>, <Kind.ARGUMENT: 'arg'>))
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        """Of rows that have the same columns with the same clashes one will do."""
        self._names: dict[Kind, dict[str, None]] = {kind: {} for kind in Kind}
        self._names[Kind.META] = dict.fromkeys(META)
        self._clashes: dict[str, set[Kind]] = {}
        self.count = 0
        """How many rows were looked at."""
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Takes up the columns of one more row."""
        self.count += 1
        for kind, found in row.names.items():
            if not self._names[kind].keys() >= {*found}:
                self._names[kind].update(dict.fromkeys(found))
        for name, *kinds in row.clashes:
            self._clashes.setdefault(name, set()).update(kinds)

    def names(self, kind: Kind) -> tuple[str, ...]:
        """The names of one kind, in the order in which they were first seen."""
        return tuple(self._names[kind])

    def clashes(self, name: str) -> tuple[Kind, ...]:
        """Where a name stands for different values; empty if it is clear."""
        kinds = self._clashes.get(name, ())
        return tuple(kind for kind in Kind if kind in kinds)

    def find(self, text: str) -> Column:
        """The column of a name: `lr`, `arg:lr`, `return.max`.

        Raises `HermesError` if there is none, or if the name stands for different values.
        """
        prefix, colon, name = text.partition(":")
        if colon and prefix in set(Kind):
            kinds = self._having(name, (Kind(prefix),))
        else:
            name = text
            kinds = self._having(name, tuple(Kind))
            clashing = self.clashes(name)
            if clashing:
                names = [f"`{kind}:{escape(name)}`" for kind in clashing]
                raise HermesError(
                    f"`{escape(name)}` stands for different values: {' and '.join(names)}",
                    hint="write the one that you mean",
                )
        if not kinds and text in (SHORT, f"{Kind.META}:{SHORT}"):
            return Column("identifier", (Kind.META,))
        if not kinds:
            raise HermesError(
                f"no experiment has a column `{escape(text)}`", hint=did_you_mean(text, self)
            )
        return Column(name, kinds)

    def _having(self, name: str, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
        found = tuple(kind for kind in kinds if name in self._names[kind])
        metric, _, aspect = name.rpartition(".")
        if not found and Kind.METRIC in kinds and aspect in ASPECTS:
            return (Kind.METRIC,) if metric in self._names[Kind.METRIC] else ()
        return found

    def __iter__(self) -> Iterator[str]:
        """All names, those that clash with their prefixes."""
        seen: dict[str, None] = {}
        for kind, names in self._names.items():
            for name in names:
                seen[f"{kind}:{name}" if kind in self.clashes(name) else name] = None
        return iter(seen)

    def differing(self, rows: Sequence[Row]) -> list[Column]:
        """Parameters and arguments that are not the same in all of these rows."""
        found: dict[str, Column] = {}
        for kind in (Kind.PARAMETER, Kind.ARGUMENT):
            for name in self._names[kind]:
                of_both = (Kind.PARAMETER, Kind.ARGUMENT)
                is_clear = not {*of_both} & {*self.clashes(name)}
                column = Column(name, of_both if is_clear else (kind,))
                if is_clear and name in found:
                    continue
                if _differ(row.value(column) for row in rows):
                    found[name if is_clear else f"{kind}:{name}"] = column
        return list(found.values())


def _differ(values: Iterator[Value | None]) -> bool:
    first = next(values, None)
    expected = comparable(first)
    return any(value is not first and comparable(value) != expected for value in values)
