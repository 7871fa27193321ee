"""Messages: the nearest word, and a line cut around its mistake."""

from __future__ import annotations

import pytest

from hermes.errors import HermesError, HermesFileError, Place, did_you_mean


@pytest.mark.parametrize(
    ("wrong", "known", "near"),
    [
        ("-cc", ["-c", "-ca", "-cb", "-leg"], "-ca"),
        ("-log", ["-l", "-leg", "--log"], "--log"),
        ("-l1", ["-leg", "-l", "-ca"], "-l"),
        ("thread", ["path_to_experiments", "threads", "supervise"], "threads"),
        ("trian.py", ["train.py.bak", "train.py", "eval.py"], "train.py"),
        ("xyz", ["threads"], None),
        ("xyz", [], None),
    ],
)
def test_did_you_mean(wrong: str, known: list[str], near: str | None) -> None:
    expected = None if near is None else f"did you mean `{near}`?"
    assert did_you_mean(wrong, known) == did_you_mean(wrong, reversed(known)) == expected


def test_long_lines_are_cut_around_the_caret() -> None:
    error = HermesFileError("wrong", Place("x", 1, 1001, 3, "a" * 1000 + "bad" + "c" * 1000))
    _, place, _, text, caret = str(error).split("\n")
    assert place == "  --> x:1:1001"
    assert len(text) < 200
    assert text[caret.index("^") :][:3] == "bad"
    assert caret.count("^") == 3


def test_what_is_huge_is_named_by_its_beginning_and_its_end() -> None:
    huge = "x" * 10**6
    place = Place("x", 1, 1, 10**6, huge)
    message = f"cannot read `{huge}`: gone"
    for error in (
        HermesError(message, hint=message),
        HermesFileError(message, place, hint=message),
    ):
        told = str(error)
        assert len(told) < 10_000
        assert told.count("`: gone") == 2
        assert "(1000020 characters)" in told
