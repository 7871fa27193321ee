"""Comparisons as text: for terminals, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io

import pytest

from hermes.query.comparing import Comparison, compared
from hermes.query.grouping import by_default, grouped
from hermes.query.rows import Value
from hermes.query.tables import Table
from hermes.show.comparison import (
    as_csv,
    as_latex,
    as_markdown,
    as_text,
    latex_notes,
    markdown_notes,
)

from ..query.made import row

TABLE = Table(
    title="return",
    head=("lr", "env", "n", "mean", "95 % interval", "IQM", "95 % interval of IQM"),
    rows=(("0.1", "pong", "5", "195.5", "[186.3, 204.8]", "196.2", "[187.4, 202.8]"),),
    texts=2,
    joined=frozenset({4, 6}),
)


def comparison(name: str = "lr") -> Comparison:
    values: tuple[Value, ...] = (0.1, "<b>&_$")
    rows = [
        row({name: value, "seed": seed}, {"return": 10.0 * seed + shift})
        for shift, value in enumerate(values)
        for seed in range(3)
    ]
    return compared(grouped(rows, by_default(rows)))


def test_a_table_that_fits_is_one() -> None:
    assert list(as_text(TABLE)) == list(as_text(TABLE, width=80)) == [
        "return",
        "lr   env   n   mean   95 % interval    IQM  95 % interval of IQM",
        "0.1  pong  5  195.5  [186.3, 204.8]  196.2        [187.4, 202.8]",
    ]  # fmt: skip


def test_a_table_that_is_too_wide_is_folded_and_keeps_what_belongs_together() -> None:
    assert list(as_text(TABLE, width=50)) == [
        "return",
        "lr   env   n   mean   95 % interval",
        "0.1  pong  5  195.5  [186.3, 204.8]",
        "",
        "lr   env     IQM  95 % interval of IQM",
        "0.1  pong  196.2        [187.4, 202.8]",
    ]
    for width in range(5, 80):
        assert all(len(line) <= width for line in list(as_text(TABLE, width=width))[1:])


@pytest.mark.parametrize("width", [38, 45])
def test_no_number_is_cut(width: int) -> None:
    assert "…" not in "".join(as_text(TABLE, width=width))


def test_csv_has_all_digits_and_the_texts_as_they_were() -> None:
    text = io.StringIO()
    csv.writer(text).writerows(as_csv(comparison("n")))
    first, second = csv.DictReader(io.StringIO(text.getvalue()))
    assert (first["group:n"], first["n"], second["group:n"]) == ("0.1", "3", "<b>&_$")
    assert float(first["mean"]) == 10.0
    assert float(second["std"]) == 10.0
    alone = compared(grouped([row({}, {"r": 1.0})], by_default([])))
    (single,) = list(as_csv(alone))[1:]
    assert single[-3:] == ["1.0", "", ""]


def test_markdown_and_latex_are_escaped() -> None:
    (table,) = comparison().tables()
    assert r"| \<b\>&\_\$ | 3 |" in "\n".join(as_markdown(table))
    latex = "\n".join(as_latex(table))
    assert r"\textless{}b\textgreater{}\&\_\$ & 3 & 11" in latex
    assert r"[$-$14, 36]" in latex
    assert list(markdown_notes(["`a_b` is missing in lr <1>"])) == [
        r"- `a_b` is missing in lr \<1\>"
    ]
    assert list(latex_notes(["a\nb"])) == [r"% a\nb"]
