"""What would be removed, as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..query.columns import Columns
from ..query.found import FoundExperiment
from . import table
from .amounts import duration


def lines(found: Sequence[FoundExperiment], shorts: Mapping[str, str], width: int) -> Iterator[str]:
    """A line an experiment: id, script, name, status, duration, and in what they differ."""
    rows = [each.row for each in found]
    columns = Columns(rows).differing(rows)
    yield from table.lines(
        [
            ["id", "script", "name", "status", "duration", *(each.name for each in columns)],
            *(
                [
                    shorts[each.identifier],
                    each.script,
                    each.name,
                    each.status,
                    "-" if each.duration is None else duration(each.duration),
                    *(each.row.text(column) or "-" for column in columns),
                ]
                for each in found
            ),
        ],
        width=width,
    )
