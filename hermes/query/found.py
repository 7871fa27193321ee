"""Experiments that pass a filter: `hermes.experiments("status = finished and lr < 0.01")`."""

from __future__ import annotations

import html
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

from ..errors import HermesError, did_you_mean, escape
from ..storage.metadata import Metadata, Summary
from ..storage.query import Experiment
from .columns import Columns
from .filters import parse
from .listing import Listing
from .metrics.curves import Curve
from .metrics.sinks import as_float
from .places import folders_of
from .reading import curve_of, metadata_of
from .rows import ASPECTS, Column, Kind, Row, Value, as_text

if TYPE_CHECKING:
    # What only some calls need is imported by them: a list of experiments is to be there at once
    from .averaging import Picture, PlotArguments
    from .comparing import Comparison
    from .figures import Figure
    from .grouping import Grouping

MOST_NAMED = 8
"""Metrics that are named to somebody who has asked for one that there is not."""

MOST_SHOWN = 100
"""Experiments that a notebook shows; how many more there are is told."""

LEADING = ("identifier", "script", "name", "status", "duration")
"""Metadata that a table begins with."""


class FoundExperiment(Experiment):
    """An experiment and its row. `metadata` is read again when it is asked for."""

    row: Row

    def __init__(self, row: Row) -> None:
        object.__setattr__(self, "row", row)

    @cached_property
    def directory(self) -> Path:
        return Path(self.row.directory)

    @cached_property
    def metadata(self) -> Metadata:
        return metadata_of(self.row.directory)

    @property
    def identifier(self) -> str:
        return self.row.identifier

    @property
    def parameters(self) -> Mapping[str, Value]:
        """The values of the sweeps around the job, by their keys."""
        return self.row.cells.get(Kind.PARAMETER, {})

    @property
    def options(self) -> Mapping[str, Value]:
        """The arguments of its command by their names without dashes."""
        return self.row.cells.get(Kind.ARGUMENT, {})

    @property
    def metrics(self) -> Mapping[str, Summary]:
        """What sums up its curves."""
        return self.row.metrics

    def curves(self, name: str) -> Curve | None:
        """A curve that the job left, None if there is none of that name."""
        return curve_of(self.row.directory, name)

    def __repr__(self) -> str:
        return f"<FoundExperiment {self.row.identifier} {self.row.status}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FoundExperiment) and self.row.directory == other.row.directory

    def __hash__(self) -> int:
        return hash(self.row.directory)


@dataclass(frozen=True)
class Experiments:
    """The experiments that pass a filter, newest first.

    Nothing is read before they are asked for, and then once: what changes on the disk after that
    is seen by a new call of `experiments`. Iterating, `len` and `[0]` work as on a list. Each
    method may raise `HermesError` for a mistake in the filter.
    """

    where: str | None = None
    root: str | os.PathLike[str] | None = None
    working_directory: str | os.PathLike[str] | None = None

    @cached_property
    def _all(self) -> tuple[Listing, list[str]]:
        """All there are, and the warnings."""
        warnings: dict[str, None] = {}

        def warn(text: str) -> None:
            warnings[escape(text)] = None

        folders = folders_of(self.root, self.working_directory, warn)
        return Listing(folders, warn), list(warnings)

    @cached_property
    def _rows(self) -> list[Row]:
        listing, _ = self._all
        is_filtered = self.where is not None and self.where.strip()
        return listing.rows(parse(self.where or "") if is_filtered else None)

    def rows(self) -> list[Row]:
        """The experiments as rows, newest first."""
        return list(self._rows)

    @property
    def columns(self) -> Columns:
        """The columns of all experiments there are; `columns.find("lr")` is one."""
        return self._all[0].columns

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics of all experiments there are."""
        return self.columns.names(Kind.METRIC)

    @property
    def warnings(self) -> list[str]:
        """What could not be read, and which directories are no experiments."""
        return list(self._all[1])

    def __len__(self) -> int:
        return len(self._rows)

    def __bool__(self) -> bool:
        return bool(self._rows)

    def __iter__(self) -> Iterator[FoundExperiment]:
        return map(FoundExperiment, self._rows)

    @overload
    def __getitem__(self, index: int) -> FoundExperiment: ...
    @overload
    def __getitem__(self, index: slice) -> list[FoundExperiment]: ...
    def __getitem__(self, index: int | slice) -> FoundExperiment | list[FoundExperiment]:
        if isinstance(index, slice):
            return [FoundExperiment(row) for row in self._rows[index]]
        return FoundExperiment(self._rows[index])

    def one(self, part: str) -> FoundExperiment:
        """The experiment whose identifier holds `part`. Raises `HermesError` if that is not one."""
        found = [row for row in self._rows if part in row.identifier]
        if len(found) == 1:
            return FoundExperiment(found[0])
        if not found:
            raise HermesError(
                f"no experiment has `{escape(part)}` in its identifier",
                hint="`hermes ls` lists them",
            )
        names = [f"`{row.identifier}`" for row in found[:3]]
        more = [f"{len(found) - 3} more"] if len(found) > 3 else []
        raise HermesError(f"`{escape(part)}` may be {', '.join(names + more)}")

    @cached_property
    def _short(self) -> Counter[str]:
        return Counter(map(_time_of_day, self._all[0].identifiers))

    def short(self, identifier: str) -> str:
        """The part of an identifier that tells it from those of all experiments, also from those
        that the filter leaves out: its time of day, or all of it."""
        short = _time_of_day(identifier)
        return short if self._short[short] == 1 else identifier

    def sorted_by(self, column: str) -> list[FoundExperiment]:
        """The experiments by the values of a column, the smallest first, or by `-column`, the
        largest first. Those without a value come last; numbers stand before texts."""
        is_falling = column.startswith("-")
        wanted = self.columns.find(column.removeprefix("-"))
        with_keys = [(_key(row.value(wanted)), row) for row in self._rows]
        keyed = [(key, row) for key, row in with_keys if key is not None]
        keyed.sort(key=lambda pair: pair[0], reverse=is_falling)
        rest = [row for key, row in with_keys if key is None]
        return [FoundExperiment(row) for row in [*(row for _, row in keyed), *rest]]

    def curves(self, metric: str) -> dict[str, Curve]:
        """The curve of a metric by the identifiers of the experiments that have one."""
        found = {row.identifier: curve_of(row.directory, metric) for row in self._rows}
        return {name: curve for name, curve in found.items() if curve is not None}

    def compare(
        self,
        group_by: str | Sequence[str] | None = None,
        metric: str | Sequence[str] = (),
        *,
        with_failed: bool = False,
    ) -> Comparison:
        """Groups of experiments, and the statistics of their metrics.

            hermes.experiments().compare("lr,env", "return.max")

        `group_by` names columns, or `all-but seed`: all in which the experiments differ, but for
        these; without, all but for seeds. `metric` is one or several of them; without, the first
        there are. Only what has finished counts, or everything `with_failed`. The comparison's
        `notes` say what was left out. Raises `HermesError`.
        """
        from .comparing import compared

        named = (metric,) if isinstance(metric, str) else metric
        metrics = [self._metric(each, ASPECTS) for each in named]
        return compared(self._grouped(group_by, with_failed), metrics)

    def picture(
        self,
        metric: str,
        *,
        x: str | None = None,
        group_by: str | Sequence[str] | None = None,
        smooth: int = 1,
        log_x: bool = False,
        log_y: bool = False,
        with_failed: bool = False,
    ) -> Picture:
        """The numbers of what `plot` draws: the mean curve of each group, with its interval."""
        from .averaging import pictured

        name = self._metric(metric)
        across = None if x is None else self._metric(x)
        return pictured(
            self._grouped(group_by, with_failed),
            self.curves(name),
            name,
            across=None if across is None else self.curves(across),
            x=across or "step",
            smooth=smooth,
            log_x=log_x,
            log_y=log_y,
        )

    def plot(self, metric: str, **options: Unpack[PlotArguments]) -> Figure:
        """Draws the curve of a metric as a figure of matplotlib, which a notebook shows: a line a
        group, the mean of its runs, with the 95 % interval of the mean around it.

            hermes.experiments("env = cartpole").plot("return", smooth=10).savefig("return.pdf")

        Options are `x`, the metric on the x axis, by default the step; `group_by` and `with_failed`
        as `compare` takes them; `log_x` and `log_y`; and `smooth`: each value of a run is the mean
        of so many, itself and those before it, and the title says so. The figure's `notes` say what
        was left out. Raises `HermesError`, also if matplotlib is not installed.
        """
        try:
            from .figures import figure
        except ImportError as exc:
            is_missing = exc.name == "matplotlib"
            raise HermesError(
                "matplotlib is not installed"
                if is_missing
                else f"matplotlib cannot be imported: {exc}",
                hint="`pip install 'hermes-runner[plots]'`",
            ) from None
        return figure(self.picture(metric, **options))

    def _grouped(self, group_by: str | Sequence[str] | None, with_failed: bool) -> Grouping:
        from .grouping import chosen, grouped

        columns = chosen(self._rows, group_by, self.columns.find)
        return grouped(self._rows, columns, with_failed=with_failed)

    def _metric(self, text: str, aspects: Sequence[str] = ()) -> str:
        """The name of a metric, perhaps with an aspect: `return.max`. Raises `HermesError` if no
        experiment has it."""
        name = text.removeprefix(f"{Kind.METRIC}:")
        known = self.metrics
        metric, _, aspect = name.rpartition(".")
        if name in known or (metric in known and aspect in aspects):
            return name
        raise HermesError(
            f"no experiment has a metric `{escape(text)}`",
            hint=did_you_mean(name, known) or _list_of(known),
        )

    def shown_columns(self) -> list[Column]:
        """What a table shows if nothing else is asked for: identifier, script, name, status and
        duration; parameters and arguments that differ; metrics that there are."""
        rows = self._rows
        metrics = dict.fromkeys(name for row in rows for name in row.names[Kind.METRIC])
        return [
            *(Column(name, (Kind.META,)) for name in LEADING),
            *self.columns.differing(rows),
            *(Column(name, (Kind.METRIC,)) for name in metrics),
        ]

    def records(self) -> list[dict[str, Value]]:
        """A mapping an experiment: its values by the names of the columns, those that clash with
        their prefixes. Of a metric it is the last value. What is missing is left out."""
        columns = {name: self.columns.find(name) for name in self.columns}
        return [
            {
                name: value
                for name, column in columns.items()
                if (value := row.value(column)) is not None
            }
            for row in self._rows
        ]

    def frame(self) -> Any:
        """A data frame of pandas, or of polars if only that is installed; a row an experiment.

        Raises `HermesError` if neither is there.
        """
        records = self.records()
        names = dict.fromkeys(name for record in records for name in record)
        values = {name: [record.get(name) for record in records] for name in names}
        try:
            return import_module("pandas").DataFrame(values)
        except ImportError:
            pass
        try:
            polars = import_module("polars")
        except ImportError:
            raise HermesError(
                "neither pandas nor polars is installed",
                hint="`pip install pandas`, or `.records()`, which needs neither",
            ) from None
        return polars.DataFrame(
            {
                # Each value has a type of its own, which polars does not know
                name: each if len({type(one) for one in each if one is not None}) < 2
                else [None if one is None else str(one) for one in each]
                for name, each in values.items()
            },
            strict=False,
        )  # fmt: skip

    def _repr_html_(self) -> str:
        columns, rows = self.shown_columns(), self._rows
        head = "".join(f"<th>{html.escape(escape(each.name))}</th>" for each in columns)
        body = "".join(
            f"<tr>{''.join(_cell(row, column) for column in columns)}</tr>"
            for row in rows[:MOST_SHOWN]
        )
        more = len(rows) - MOST_SHOWN
        note = f"<div>and {more} more</div>" if more > 0 else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def _list_of(metrics: Iterable[str]) -> str:
    names = [f"`{escape(name)}`" for name in metrics]
    shown = ", ".join(names[:MOST_NAMED])
    more = len(names) - MOST_NAMED
    if not names:
        return "none of them has any metric"
    return f"there are {shown}" + (f" and {more} more" if more > 0 else "")


def _time_of_day(identifier: str) -> str:
    # Behind `2026_11_20_`, in rlmate's too
    return identifier[11:23]


def _key(value: Value | None) -> tuple[int, float, str] | None:
    """By which values are sorted, whatever their types; None if there is nothing to sort by."""
    if isinstance(value, bool):
        return 1, float(value), ""
    if isinstance(value, int | float):
        return None if value != value else (0, as_float(value), "")
    if isinstance(value, datetime):
        return 2, value.timestamp(), ""
    return None if value is None else (3, 0.0, as_text(value))


def _cell(row: Row, column: Column) -> str:
    return f"<td>{html.escape(escape(row.text(column)))}</td>"


def experiments(
    where: str | None = None,
    root: str | os.PathLike[str] | None = None,
    working_directory: str | os.PathLike[str] | None = None,
) -> Experiments:
    """The experiments of a root that pass a filter, newest first; all of them without one.

        for each in hermes.experiments("status = finished and lr < 0.01"):
            print(each.identifier, each.parameters, each.duration)

    `root` may also be a folder called `experiments`, or one that holds experiment directories, such
    as somebody has copied. Raises `HermesError` for a mistake in the filter; an unknown column is
    told when the experiments are asked for.
    """
    if where is not None and where.strip():
        parse(where)
    return Experiments(where, root, working_directory)
