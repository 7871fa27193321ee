"""Filters: what they say, how they are printed, and which rows pass."""

from __future__ import annotations

import operator
import random
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hermes import HermesError
from hermes.query.columns import Columns
from hermes.query.filters import (
    All,
    Any,
    Compare,
    Defined,
    Filter,
    In,
    Literal,
    Name,
    Not,
    parse,
)
from hermes.query.rows import Kind, Row

from .simple import predicate, row

UNHURRIED = settings(deadline=None, suppress_health_check=list(HealthCheck))
"""The machine may be busy."""

NOW = datetime(2026, 11, 25, 12, 0).astimezone()
"""A Wednesday."""


def passing(where: str, rows: list[Row]) -> list[int]:
    passes = predicate(parse(where), Columns(rows), NOW)
    return [place for place, each in enumerate(rows) if passes(each)]


ROWS = [
    row({"lr": 0.001, "env": "cartpole", "flag": True, "layers": (64, 32)}, {"return": [1, 9, 5]}),
    row({"lr": 0.1, "env": "pong", "n": 5}),
    row({"lr": "auto", "env": "my pong"}, {"return": [7]}),
]


@pytest.mark.parametrize(
    ("where", "places"),
    [
        ("lr < 0.01", [0]),
        ("lr<0.01 or env=pong", [0, 1]),
        ("lr = 1e-3", [0]),
        ("lr != 0.1", [0]),
        ("not lr != 0.1", [1, 2]),
        ("lr = auto", [2]),
        ('lr = "0.1"', []),
        ("not lr is defined", []),
        ("n is defined", [1]),
        ("n is not defined", [0, 2]),
        ("env in [pong, 'my pong']", [1, 2]),
        ("env not in [pong]", [0, 2]),
        ("env in []", []),
        ("env contains pong", [1, 2]),
        ("layers contains 64", [0]),
        ("layers contains 6", []),
        ("flag = true", [0]),
        ("flag = 1", []),
        ("env == pong AND NOT lr > 1", [1]),
        ("(lr < 1)", [0, 1]),
        ("return > 4", [0, 2]),
        ("return.max >= 9", [0]),
        ("metric:return.mean = 5", [0]),
        ("param:lr < 0.01 and return = 5", [0]),
        ("lr < 0.01 or lr = 0.1 and env = nothing", [0]),
        ("status = finished", []),
    ],
)
def test_what_passes(where: str, places: list[int]) -> None:
    assert passing(where, ROWS) == places


@pytest.mark.parametrize(
    ("where", "places"),
    [
        ("duration > 2h", [1]),
        ("duration <= 7200", [0]),
        ("duration < 1d12h", [0, 1]),
        ("start since yesterday", [0]),
        ("start since 2h", []),
        ("start since monday", [0, 1]),
        ("start >= 2026-11-01", [0, 1]),
        ("start < 2026-11-24T12:00:00", [1]),
        ("start = yesterday", [0]),
        ("commit = 1234567", [0]),
        ("commit != 1234567", [1]),
        ("exit_code = 0", [0]),
    ],
)
def test_metadata(where: str, places: list[int]) -> None:
    rows = [
        row(
            meta={
                "duration": 7200.0,
                "start": NOW - timedelta(hours=20),
                "commit": "1234567",
                "exit_code": 0,
            }
        ),
        row(meta={"duration": 7200.5, "start": NOW - timedelta(days=2), "commit": "abc"}),
        row(),
    ]
    assert passing(where, rows) == places


@pytest.mark.parametrize(
    ("where", "message", "start"),
    [
        ("", "the filter is empty", 0),
        ("lr", "expected a comparison behind `lr`", 2),
        ("lr <", "expected a value", 4),
        ("lr < 1 env = a", "expected `and`, `or` or the end", 7),
        ("lr < 1 and", "expected a column", 10),
        ("(lr < 1", "expected `)`", 7),
        ("lr in 1", "expected `[`", 6),
        ("lr in [1", "expected `,`", 8),
        ('env = "a', "this quote is never closed", 6),
        ("lr ! 1", "expected a column, a value or a comparison", 3),
        ("start since soon", "`soon` is no time", 12),
        ("lr is 5", "expected `defined`", 6),
        ("env = in", "expected a value", 6),
        ("(" * 200 + "lr = 1" + ")" * 200, "this is nested too deeply", 100),
    ],
)
def test_mistakes_are_shown_with_a_caret(where: str, message: str, start: int) -> None:
    with pytest.raises(HermesError) as caught:
        parse(where)
    assert caught.value.message == message
    lines = str(caught.value).splitlines()
    assert lines[0] == f"error: {message}"
    if len(where) < 100:
        assert lines[2] == f"  | {where}"
        assert lines[3].index("^") == 4 + start


def test_an_unknown_column_is_a_mistake() -> None:
    with pytest.raises(HermesError, match="no experiment has a column `envv`") as caught:
        passing("lr < 1 and envv = pong", ROWS)
    assert str(caught.value).splitlines()[1:] == [
        "  |",
        "  | lr < 1 and envv = pong",
        "  |            ^^^^",
        "hint: did you mean `env`?",
    ]
    assert passing("envv = pong", []) == []


def test_a_name_for_different_values_is_a_mistake() -> None:
    rows = [row({"lr": 1, "seed": 3}, arguments={"lr": 2, "seed": 3})]
    assert passing("seed = 3", rows) == [0]
    with pytest.raises(HermesError, match="`param:lr` and `arg:lr`"):
        passing("lr = 1", rows)
    assert passing("arg:lr = 2 and param:lr = 1", rows) == [0]


def test_what_is_no_time_is_told() -> None:
    with pytest.raises(HermesError, match="`start` is a time, and `soon` is none"):
        passing("start > soon", ROWS)
    with pytest.raises(HermesError, match="`lr` is no time"):
        passing("lr since monday", ROWS)


names = st.one_of(st.sampled_from(["lr", "arg:env", "return.max"]), st.text(min_size=1)).map(Name)
literals = st.one_of(
    st.text().map(lambda text: Literal(text, is_quoted=True)),
    st.sampled_from(["5", "-1e3", "true", "cartpole-v1", "2h", "a.b"]).map(Literal),
)
times = st.sampled_from(["yesterday", "2h", "2026-11-01"]).map(Literal)
filters: st.SearchStrategy[Filter] = st.recursive(
    st.one_of(
        st.builds(
            Compare,
            names,
            st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "contains"]),
            literals,
        ),
        st.builds(Compare, names, st.just("since"), times),
        st.builds(In, names, st.lists(literals, max_size=3).map(tuple)),
        st.builds(Defined, names),
    ),
    lambda part: st.one_of(
        st.builds(Not, part),
        st.builds(All, st.lists(part, min_size=2, max_size=3).map(tuple)),
        st.builds(Any, st.lists(part, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)


@UNHURRIED
@given(filters)
def test_what_is_printed_reads_back(made: Filter) -> None:
    assert parse(str(made)) == made


@UNHURRIED
@given(st.text())
def test_any_text_is_a_filter_or_a_mistake(text: str) -> None:
    said = ""
    try:
        found = parse(text)
    except HermesError as exc:
        said = str(exc)
    if said:
        assert "^" in said
    else:
        assert parse(str(found)) == found


SIGNS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def test_a_filter_agrees_with_a_plain_loop() -> None:
    chance = random.Random(5)
    rows = [
        row(
            {
                "lr": chance.choice([0.1, 0.01, 1e-3, "auto"]),
                **({"seed": chance.randrange(10)} if chance.random() < 0.8 else {}),
                "env": chance.choice(["cartpole", "pong", "maze"]),
            },
            {"return": [chance.gauss(0, 50)]} if chance.random() < 0.9 else {},
        )
        for _ in range(10_000)
    ]
    columns = Columns(rows)
    for _ in range(20):
        sign, other = chance.choice(list(SIGNS)), chance.choice(list(SIGNS))
        lr, floor = chance.choice([0.01, 0.05, 1]), chance.randrange(-60, 60)
        seeds = chance.sample(range(10), 3)
        where = f"(lr {sign} {lr} and return {other} {floor}) or not seed in {seeds} and env = maze"
        expected = []
        for each in rows:
            cells = each.cells[Kind.PARAMETER]
            rate, seed = cells["lr"], cells.get("seed")
            has_rate = isinstance(rate, float) and SIGNS[sign](rate, lr)
            summary = each.metrics.get("return")
            has_return = summary is not None and SIGNS[other](summary.last, floor)
            if (has_rate and has_return) or (seed not in seeds and cells["env"] == "maze"):
                expected.append(each.identifier)
        passes = predicate(parse(where), columns, NOW)
        assert [each.identifier for each in rows if passes(each)] == expected
