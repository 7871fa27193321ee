"""Rows of cells as aligned lines."""

from __future__ import annotations

from hermes.show.table import cut, lines, width_of

ROWS = [["of", "lr"], ["abc", "0.5"], ["a longer one", "10"]]


def test_columns_are_aligned() -> None:
    assert list(lines(ROWS, right={1})) == [
        "of             lr",
        "abc           0.5",
        "a longer one   10",
    ]
    assert list(lines([])) == []


def test_lines_fit_the_width() -> None:
    assert list(lines(ROWS, right={1}, width=13)) == [
        "of         lr",
        "abc       0.5",
        "a longe…   10",
    ]
    assert list(lines([["id", "text"], ["154025", "a longer one"]], width=13)) == [
        "id      text",
        "154025  a lo…",
    ]
    narrow = list(lines([["x" * 50, "y" * 50, "z" * 50]], width=15))
    assert narrow == ["xxxxx…  yyyyy……"]


def test_what_is_in_cells_is_escaped() -> None:
    assert list(lines([["\x1b[31m", "a\nb"]])) == [r"\x1b[31m  a\nb"]


def test_wide_characters_take_two_columns() -> None:
    assert width_of("日本") == 4
    assert list(lines([["日本", "x"], ["abcd", "y"]])) == ["日本  x", "abcd  y"]
    assert cut("日本語", 4) == "日…"
    assert cut("abc", 0) == ""
