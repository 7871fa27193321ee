"""A report: one HTML file about many experiments that needs no network and no other file.

All that comes from jobs goes into a block of JSON, which the page's script shows as text. The page
may load nothing and execute nothing but that script.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import TypeAlias
from urllib.parse import quote

import msgspec

from ..errors import HermesError, escape, shortened
from ..model import FAILED, Status, signal_name
from ..query.found import Experiments
from ..query.metrics.curves import Curve
from ..query.reading import curve_of, metadata_of
from ..query.rows import Kind, Row, Value
from ..storage.files import read_regular, write_atomic
from ..storage.layout import EXPERIMENTS, STDERR, STDOUT, environment_file
from ..storage.metadata import Metadata, StoredFile
from .text import tail
from .thinning import CHARACTERS, packed

MARK = "<!-- A report by Hermes -->"
"""The second line of a report, by which it is known."""

CURVE_CHARACTERS = 1_800_000
"""Room for all curves: with it 1,000 experiments stay below 3 MB."""

MOST_POINTS, FEWEST_POINTS = 200, 24
"""Of a curve."""

TAIL_LINES = 20
TAIL_CHARACTERS = 3000
ALL_TAILS = 300_000
"""Characters of all last lines together."""

MOST_FILES = 25
"""Files of an experiment that have a link of their own."""

SHOWN_METRICS = 6
"""Metrics that are columns at once; others can be ticked."""

LONGEST = 2000
"""Characters of a command or a cell."""

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
ReadCurves: TypeAlias = "Callable[[str, Sequence[str]], Mapping[str, Curve]]"
ReadMetadata: TypeAlias = "Callable[[str], Metadata]"


class _Column(msgspec.Struct, frozen=True):
    name: str
    kind: Kind
    shown: bool
    groups: bool


class _Shared(msgspec.Struct):
    """What many experiments have in common, each stored once: the number of each by its text."""

    numbers: dict[str, int] = msgspec.field(default_factory=dict)

    def number(self, value: Json) -> int:
        return self.numbers.setdefault(_json(value), len(self.numbers))

    def written(self) -> str:
        return f"[{','.join(self.numbers)}]"


def is_report(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a report that may be replaced by a new one."""
    try:
        with open(path, "rb") as file:
            return MARK.encode() in file.read(200)
    except OSError:
        return False


def write_report(
    experiments: Experiments, path: str | os.PathLike[str], *, title: str | None = None
) -> None:
    """Writes a report about experiments: one HTML file that needs no network.

        hermes.write_report(hermes.experiments("name = test_agents"), "report.html")

    It stays below 3 MB for 1,000 experiments: curves are thinned to what a screen can show. Links
    lead to the experiment directories, relative to the file. A report that was there is replaced.
    Raises `HermesError` for a mistake in the filter, if another file is there, or if the file
    cannot be written.
    """
    report_rows(
        experiments.rows(),
        path,
        read_metadata=metadata_of,
        read_curves=_curves_of,
        title=title or experiments.where or "Experiments",
    )


def report_rows(
    rows: Sequence[Row],
    path: str | os.PathLike[str],
    *,
    read_metadata: ReadMetadata,
    read_curves: ReadCurves,
    title: str,
) -> None:
    """Writes a report about rows. Their curves are read one experiment after the other."""
    target = os.path.abspath(path)
    if os.path.lexists(target) and not is_report(target):
        raise HermesError(
            f"`{escape(os.fspath(path))}` is there already, and is no report",
            hint="choose another name, or delete it",
        )
    page = "".join(_page(rows, os.path.dirname(target), read_metadata, read_curves, title))
    try:
        write_atomic(target, page.encode(), sync=False)
    except OSError as exc:
        raise HermesError(f"cannot write `{escape(os.fspath(path))}`: {exc.strerror}") from None


def _curves_of(directory: str, names: Sequence[str]) -> dict[str, Curve]:
    found = {name: curve_of(directory, name) for name in names}
    return {name: curve for name, curve in found.items() if curve is not None}


def _page(
    rows: Sequence[Row],
    folder: str,
    read_metadata: ReadMetadata,
    read_curves: ReadCurves,
    title: str,
) -> Iterator[str]:
    style, script, template = (_resource(f"report.{kind}") for kind in ("css", "js", "html"))
    before, after = template.split("@data@")
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")
    texts = {
        "@mark@": MARK,
        "@style-hash@": _hash(style),
        "@script-hash@": _hash(script),
        "@style@": style,
        "@title@": html.escape(shortened(escape(title), 300)),
        "@made@": html.escape(made),
    }
    pattern = re.compile("|".join(map(re.escape, texts)))
    yield pattern.sub(lambda found: texts[found[0]], before)
    yield from _data(rows, folder, read_metadata, read_curves)
    yield after.replace("@script@", script)


def _data(
    rows: Sequence[Row], folder: str, read_metadata: ReadMetadata, read_curves: ReadCurves
) -> Iterator[str]:
    columns = _columns(rows)
    metrics, left_out = _metrics(rows)
    count = sum(name in row.metrics for row in rows for name in metrics)
    points = max(FEWEST_POINTS, min(MOST_POINTS, CURVE_CHARACTERS // (max(1, count) * CHARACTERS)))
    bad = sum(row.status in FAILED or row.status is Status.LOST for row in rows)
    tail_room = max(200, min(TAIL_CHARACTERS, ALL_TAILS // max(1, bad)))
    shared, tails, packages = _Shared(), _Shared(), _Shared()
    shorts = _short_names(rows)
    yield '{"rows":['
    for number, row in enumerate(rows):
        told: dict[str, Json] = {
            "id": escape(row.identifier),
            "short": shorts[number],
            "href": _link(row.directory, folder),
            "status": str(row.status),
            "cells": [_cell(row, column) for column in columns],
            "curves": _curves(row, metrics, points, read_curves),
            "tail": None,
        }
        if row.status in FAILED or row.status is Status.LOST:
            last = _last_lines(row.directory, tail_room)
            told["tail"] = tails.number(last) if last else None
        told |= _of_metadata(row, read_metadata, shared, packages)
        yield ("," if number else "") + "\n" + _json(told)
    yield f'],\n"columns":{_json([_of_column(each) for each in columns])}'
    yield f',\n"metrics":{_json([escape(name) for name in metrics])}'
    yield f',\n"leftOut":{_json(left_out)}'
    yield f',\n"shared":{shared.written()},\n"tails":{tails.written()}'
    yield f',\n"packages":{packages.written()}}}'


def _json(value: Json) -> str:
    # With `<` escaped, nothing in it can end the block; ASCII, so that no encoding matters
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _resource(name: str) -> str:
    return files("hermes.show").joinpath("report_files", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _short_names(rows: Sequence[Row]) -> list[str]:
    """The time in an identifier where that is clear, else all of it."""
    parts = [row.identifier.split("_") for row in rows]
    times = [each[3] if len(each) == 5 else "" for each in parts]
    counts = Counter(times)
    return [
        time if time and counts[time] == 1 else escape(row.identifier)
        for time, row in zip(times, rows, strict=True)
    ]


def _columns(rows: Sequence[Row]) -> list[_Column]:
    """All columns: first those of parameters and arguments, one for both where they agree."""
    names = {
        kind: list(dict.fromkeys(name for row in rows for name in row.cells.get(kind, {})))
        for kind in (Kind.META, Kind.PARAMETER, Kind.ARGUMENT)
    }
    found: list[_Column] = []
    for name in ("status", "name", "script"):
        if name in names[Kind.META]:
            differs = _differs(rows, Kind.META, name)
            found.append(_Column(name, Kind.META, differs or name == "status", differs))
    for kind in (Kind.PARAMETER, Kind.ARGUMENT):
        for name in names[kind]:
            if kind is Kind.ARGUMENT and _agrees(rows, name):
                continue
            differs = _differs(rows, kind, name)
            found.append(_Column(name, kind, differs, differs))
    metrics = Counter(name for row in rows for name in row.metrics)
    ranked = {name: place for place, (name, _) in enumerate(metrics.most_common())}
    for name in metrics:
        found.append(_Column(name, Kind.METRIC, ranked[name] < SHOWN_METRICS, False))
    found.append(_Column("duration", Kind.META, True, False))
    found.append(_Column("start", Kind.META, True, False))
    seen = {each.name for each in found if each.kind is Kind.META} | {"identifier"}
    for name in names[Kind.META]:
        # What is the same everywhere is told below the table
        if name not in seen and _differs(rows, Kind.META, name):
            found.append(_Column(name, Kind.META, False, True))
    return found


def _of_column(column: _Column) -> dict[str, Json]:
    return {
        "name": escape(column.name),
        "kind": str(column.kind),
        "shown": column.shown,
        "groups": column.groups,
    }


def _value(row: Row, kind: Kind, name: str) -> Value | None:
    if kind is Kind.METRIC:
        summary = row.metrics.get(name)
        return summary.last if summary else None
    return row.cells.get(kind, {}).get(name)


def _differs(rows: Sequence[Row], kind: Kind, name: str) -> bool:
    return len({str(_value(row, kind, name)) for row in rows}) > 1


def _agrees(rows: Sequence[Row], name: str) -> bool:
    """Whether an argument says nothing but what a parameter of this name says."""
    arguments = [_value(row, Kind.ARGUMENT, name) for row in rows]
    parameters = [_value(row, Kind.PARAMETER, name) for row in rows]
    return arguments == parameters


def _cell(row: Row, column: _Column) -> Json:
    value = _value(row, column.kind, column.name)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        # JSON has no infinity, and a browser no whole numbers beyond 2^53
        exact = math.isfinite(value) and (isinstance(value, float) or abs(value) < 2**53)
        return _digits(value) if exact else str(value)
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")[:19]
    if isinstance(value, tuple):
        return shortened(escape(" ".join(map(str, value))), LONGEST)
    return None if value is None else shortened(escape(value), LONGEST)


def _digits(value: float) -> float:
    return float(f"{value:.9g}") if isinstance(value, float) else value


def _metrics(rows: Sequence[Row]) -> tuple[list[str], str]:
    """The metrics whose curves fit in, the most common ones first, and what to say of the rest."""
    counts = Counter(name for row in rows for name in row.metrics)
    room = CURVE_CHARACTERS // (FEWEST_POINTS * CHARACTERS)
    kept: list[str] = []
    for name, count in counts.most_common():
        room -= count
        if room < 0 and kept:
            break
        kept.append(name)
    more = len(counts) - len(kept)
    left_out = f"Curves of {more} more metrics are left out: the page would be too large."
    return kept, left_out if more else ""


def _curves(row: Row, metrics: Sequence[str], points: int, read: ReadCurves) -> dict[str, Json]:
    wanted = [name for name in metrics if name in row.metrics]
    found = read(row.directory, wanted) if wanted else {}
    small = {
        str(metrics.index(name)): packed(found[name], points) for name in wanted if name in found
    }
    return {name: list(each) for name, each in small.items() if each is not None}


def _last_lines(directory: str, room: int) -> dict[str, Json] | None:
    for name in (STDERR, STDOUT):
        if lines := tail(f"{directory}/{name}", TAIL_LINES):
            return {"file": name, "text": "\n".join(lines)[-room:]}
    return None


def _link(path: str, folder: str) -> str:
    """A relative link; names are bytes, and none may look like a scheme."""
    return "./" + quote(os.fsencode(os.path.relpath(path, folder)))


def _of_metadata(
    row: Row, read: ReadMetadata, shared: _Shared, packages: _Shared
) -> dict[str, Json]:
    try:
        metadata = read(row.directory)
    except HermesError as exc:
        problems: list[Json] = [escape(exc.message)]
        return {"command": "", "problems": problems, "files": [], "shared": None, "ended": None}
    logs = [name for name in (STDOUT, STDERR) if os.path.lexists(f"{row.directory}/{name}")]
    listed: list[Json] = [[name, None] for name in logs]
    listed += [_file(each) for each in metadata.files[:MOST_FILES]]
    return {
        "command": shortened(escape(shlex.join(metadata.argv)), LONGEST),
        "comments": shortened(escape("; ".join(metadata.comments)), LONGEST),
        "ended": _ended(metadata),
        "problems": [shortened(escape(each.text), LONGEST) for each in metadata.problems[:20]],
        "files": listed,
        "moreFiles": max(0, len(metadata.files) - MOST_FILES),
        "shared": shared.number(_provenance(row.directory, metadata, packages)),
    }


def _file(file: StoredFile) -> list[Json]:
    """Path and size; and the path as it stands in a link, where the page cannot tell it itself."""
    told: list[Json] = [escape(file.path), file.bytes]
    is_plain = file.path.isascii() and file.path.isprintable()
    return told if is_plain else [*told, quote(os.fsencode(file.path))]


def _ended(metadata: Metadata) -> str | None:
    if metadata.status is Status.TIMEOUT:
        return "its time was over"
    if metadata.signal is not None:
        return f"ended by {signal_name(metadata.signal)}"
    return f"exit code {metadata.exit_code}" if metadata.exit_code else None


def _provenance(directory: str, metadata: Metadata, packages: _Shared) -> Json:
    git, environment = metadata.git, metadata.environment
    texts: dict[str, str | None] = {
        "commit": git.commit,
        "branch": git.branch,
        "reason": git.reason,
        "host": metadata.host,
        "user": metadata.user,
        "working_directory": metadata.working_directory,
        "hermes_file": metadata.hermes_file.path if metadata.hermes_file else None,
        "run_id": metadata.run_id,
        "python": metadata.python,
        "interpreter": environment.interpreter if environment else None,
        "program": metadata.program,
        "platform": metadata.versions.platform,
        "hermes": metadata.versions.hermes,
    }
    told: dict[str, Json] = {name: escape(text) for name, text in texts.items() if text}
    told["dirty"] = git.dirty
    told["settings"] = {
        escape(key): shortened(escape(value if isinstance(value, str) else str(value)), 500)
        for key, value in metadata.settings.items()
    }
    listed = _packages(directory, environment.digest if environment else None)
    told["packages"] = packages.number(listed) if listed else None
    return told


def _packages(directory: str, digest: str | None) -> list[Json]:
    experiments = os.path.dirname(os.path.dirname(os.path.dirname(directory)))
    if not digest or os.path.basename(experiments) != EXPERIMENTS:
        return []
    try:
        found = msgspec.json.decode(read_regular(environment_file(experiments, digest)))
        named = dict(found["packages"])
    except (OSError, ValueError, KeyError, TypeError, msgspec.DecodeError):
        return []
    return [escape(f"{name} {version}") for name, version in named.items()]
