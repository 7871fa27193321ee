"""Experiments by parts of their identifiers, and by filters."""

from __future__ import annotations

from pathlib import Path

import pytest

import hermes

from .simple import experiment, identifier


def test_words_are_parts_of_identifiers_or_filters(tmp_path: Path) -> None:
    for number in range(5):
        experiment(tmp_path / "experiments", number, parameters={"lr": str(number)})

    def found(*words: str) -> list[str]:
        return [each.identifier for each in hermes.find_experiments(words, tmp_path)]

    assert found("lr < 2", "0004", "lr = 1") == [identifier(4), identifier(1), identifier(0)]
    assert found() == []
    assert found("lr > 9") == []
    with pytest.raises(hermes.HermesError, match="no experiment has `status` in its identifier"):
        found("status", "=", "failed")
    assert hermes.find_experiment(None, tmp_path).identifier == identifier(4)
    assert hermes.find_experiment(identifier(2), tmp_path).parameters == {"lr": 2}


def test_short_names(tmp_path: Path) -> None:
    same = ["2026_11_20_120000000001_aaaaa", "2026_11_21_120000000001_aaaaa"]
    other = "2026_11_20_120000000002_aaaaa"
    for each in (*same, other):
        experiment(tmp_path / "experiments", 0, identifier=each)
    assert hermes.short_names([*same, other], tmp_path) == {
        same[0]: same[0],
        same[1]: same[1],
        other: "120000000002",
    }
