"""Identifiers, and how outcomes are told."""

from __future__ import annotations

from typing import Any

import pytest

from hermes.model import IDENTIFIER, Outcome, Status, signal_name


def test_identifiers_are_found_even_where_they_overlap() -> None:
    one = "2021_07_25_160008326976_1930e"
    two = "2021_07_25_160008438012_00000"
    assert IDENTIFIER.findall(f"model_{one}.pt") == [one]
    assert IDENTIFIER.findall(f"{one}{two}") == [one, two]
    assert IDENTIFIER.findall("2021_07_25_1600083269_1930e") == []


def outcome(status: Status, **facts: Any) -> Outcome:
    return Outcome(identifier="i", script="s", directory=None, status=status, **facts)


@pytest.mark.parametrize(
    ("outcome", "how", "ok"),
    [
        (outcome(Status.FINISHED, exit_code=0), "finished", True),
        (outcome(Status.FINISHED, exit_code=0, problems=("lost",)), "finished", False),
        (outcome(Status.FAILED, exit_code=3), "exit code 3", False),
        (outcome(Status.FAILED, signal=9), "signal 9 (SIGKILL)", False),
        (outcome(Status.CANCELLED), "cancelled", False),
    ],
)
def test_outcomes_say_how_the_job_ended(outcome: Outcome, how: str, ok: bool) -> None:
    assert (outcome.how, outcome.ok) == (how, ok)
    assert signal_name(1000) == "1000"
