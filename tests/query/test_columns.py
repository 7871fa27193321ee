"""What metadata say as typed cells, and which column a name means."""

from __future__ import annotations

import math

import pytest

from hermes import HermesError
from hermes.query.columns import Columns, arguments_of, row_of, typed
from hermes.query.rows import Column, Kind, Value

from .simple import START, metadata, row


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("-5", -5), ("0.10", 0.1), ("1e-3", 0.001), (".5", 0.5), ("5.", 5.0),
        ("true", True), ("False", False), ("00500", "00500"), ("1_000", "1_000"), ("", ""),
        ("inf", math.inf), ("5x", "5x"), ("9" * 500, "9" * 500), ("None", "None"), ("٣", "٣"),
    ],
)  # fmt: skip
def test_values_are_typed_one_by_one(text: str, value: Value) -> None:
    assert typed(text) == value
    assert type(typed(text)) is type(value)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["-lr", "0.001", "--env", "cartpole"], {"lr": ["0.001"], "env": ["cartpole"]}),
        (["--flag"], {"flag": ["true"]}),
        (["--flag", "-x", "1"], {"flag": ["true"], "x": ["1"]}),
        (["--low", "-1e-3"], {"low": ["-1e-3"]}),
        (["k=v", "--k=w"], {"k": ["v", "w"]}),
        (["--empty=", "a=b=c"], {"empty": [""], "a": ["b=c"]}),
        (["word", "-5", "-", "=x"], {}),
        (["--lr", "1", "--", "--env", "x"], {"lr": ["1"]}),
        (["--tag", "a", "--tag", "b"], {"tag": ["a", "b"]}),
        (["optim.lr=1", "+seed=2"], {"optim.lr": ["1"], "seed": ["2"]}),
    ],
)
def test_arguments(words: list[str], found: dict[str, list[str]]) -> None:
    assert arguments_of(words) == found


def test_a_row_keeps_the_text_and_the_value() -> None:
    made = row_of(
        "somewhere",
        metadata(1, parameters={"lr": "1e-3"}, arguments=("--tag", "a", "--tag", "5", "--fast")),
    )
    lr = Column("lr", (Kind.PARAMETER,))
    assert (made.value(lr), made.text(lr)) == (0.001, "1e-3")
    assert made.cells[Kind.ARGUMENT] == {"tag": ("a", 5), "fast": True}
    assert made.raw[Kind.ARGUMENT] == {"tag": "a 5", "fast": "true"}
    meta = made.cells[Kind.META]
    assert (meta["status"], meta["problems"], meta["duration"]) == ("finished", 0, 2.0)
    assert made.text(Column("start", (Kind.META,))) == "2026-11-20T12:01:00+01:00"
    assert "signal" not in meta
    assert "commit" not in meta
    assert START.tzinfo is not None


def test_a_name_finds_its_column() -> None:
    columns = Columns(
        [
            row({"lr": 0.5, "seed": 1}, {"return": [1.0], "a.b": [2.0]}, arguments={"lr": 0.5}),
            row({"seed": 2}, arguments={"seed": "2"}),
            row({"lr": 0.1}, arguments={"env": "pong"}),
        ]
    )
    both = (Kind.PARAMETER, Kind.ARGUMENT)
    assert columns.find("lr") == Column("lr", both)
    assert columns.find("arg:lr") == Column("lr", (Kind.ARGUMENT,))
    assert columns.find("return.max") == Column("return.max", (Kind.METRIC,))
    assert columns.find("metric:a.b") == Column("a.b", (Kind.METRIC,))
    assert columns.find("status") == Column("status", (Kind.META,))
    assert columns.find("id") == columns.find("meta:id") == columns.find("identifier")
    assert Columns([row({"id": 3})]).find("id") == Column("id", (Kind.PARAMETER,))
    with pytest.raises(HermesError, match="`param:seed` and `arg:seed`"):
        columns.find("seed")
    with pytest.raises(HermesError, match="no experiment has a column `statu`") as caught:
        columns.find("statu")
    assert caught.value.hint == "did you mean `status`?"
    for unknown in ("return.best", "arg:return", "param:status", "x.max"):
        with pytest.raises(HermesError, match="no experiment has a column"):
            columns.find(unknown)
    assert {"param:seed", "arg:seed", "lr", "return"} <= set(columns)


def test_columns_that_differ() -> None:
    rows = [
        row({"lr": 0.5, "same": 1, "flag": True}, arguments={"lr": 0.5, "x": math.nan}),
        row({"lr": 0.1, "same": 1, "flag": 1}, arguments={"lr": 0.1, "x": math.nan, "new": 1}),
    ]
    found = Columns(rows).differing(rows)
    assert [column.name for column in found] == ["lr", "flag", "new"]
    assert Columns(rows[:1]).differing(rows[:1]) == []
