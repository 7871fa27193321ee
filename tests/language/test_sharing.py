"""Fixed names that jobs copy or move after are warned of before the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from .helpers import compiled, write

SHARED = [
    "[[true, 1],[-ma model.txt]]\n[[true, 2],[-ma model.txt]]",
    "[[true, 1],[-ma model.txt]]\n[[true, 2],[-ma ./model.txt]]",
    "[[true, 1],[-ma model.txt]]\n[[true, 2],[-ca model.txt]]",
    "[[true]]\n[[true, 1],[-ca model.txt]]\n[[true, 2],[-ca model.txt -l]]",
    "PROD([[true, {x}],[-ma model.txt]], x=[1, 2])",
    "PROD([[true, {x}],[-ma model_{y}.txt]], x=[1, 2], y=[1, 2])",
    "PROD([[true, {x}],[-ma model_{x}.txt]], x=[1, 1])",
    "ZIP([[true, {x}],[-ma model_{y}.txt]], x=[1, 2], y=[3, 3])",
    "PROD(PROD([[true, {x}],[-ma model_{x}.txt]], x=[1, 2]), y=[1, 2])",
    "PROD([[true, {x}],[-ma out/*.txt]], x=[1, 2])",
    "PROD([[true, {x}],[-ma there.txt]], x=[1, 2])",
    "PROD([[true, {x}],[-ma model.txt]], x=RANGE[0, 1000000], y=RANGE[0, 1000000])",
]

APART = [
    "[[true],[-ma model.txt]]",
    "[[true, 1],[-ma one.txt]]\n[[true, 2],[-ma two.txt]]",
    "[[true, 1],[-ma model.txt -ca model.txt]]",
    "PROD([[true, {x}],[-ma model_{identifier}.txt]], x=[1, 2])",
    "PROD([[true, {x}],[-ma model_{x}.txt]], x=[1, 2])",
    "PROD([[true, {x}],[-ma {x}]], x=['{identifier}.txt', '{identifier}.pt'])",
    "ZIP([[true, {x}],[-ma model_{x}.txt]], x=[1, 2], y=[3, 3])",
    "PROD([[true, {x}],[-ma model_{y}_{x}.txt]], x=[1, 2], y=[1, 2])",
    "PROD([[true, {x}],[-cb there.txt]], x=[1, 2])",
    "PROD([[true, {x}],[-ca there.txt]], x=[1, 2])",
    "PROD([[true, {x}],[-ca 'th*.txt']], x=[1, 2])",
    "PROD([[true, {x}],[-ma model_{x}.txt]], x=RANGE[0, 1000000000])",
]


def warnings(tmp_path: Path, entries: str, threads: int = 2) -> list[str]:
    write(tmp_path / "there.txt", "")
    plan = compiled(tmp_path, f"PRE\nthreads: {threads}\nEXEC\n{entries}\n")
    return [each for each in plan.warnings if "same file" in each]


@pytest.mark.parametrize("entries", SHARED)
def test_a_fixed_name_that_two_live_jobs_write_is_warned_of(tmp_path: Path, entries: str) -> None:
    (warning,) = warnings(tmp_path, entries)
    assert "{identifier}" in warning
    assert "threads: 2" in warning
    assert warnings(tmp_path, entries, threads=1) == []


@pytest.mark.parametrize("entries", APART)
def test_names_that_jobs_have_for_themselves_are_not(tmp_path: Path, entries: str) -> None:
    assert warnings(tmp_path, entries) == []


def test_what_to_write_instead_is_said(tmp_path: Path) -> None:
    (warning,) = warnings(tmp_path, "PROD([[true, {x}],[-ma out/model.txt]], x=[1, 2])")
    assert "`out/model_{identifier}.txt`" in warning
    assert ":4:" in warning


def test_large_sweeps_are_not_walked(tmp_path: Path) -> None:
    # To walk one would take hours
    for entries in (SHARED[-1], APART[-1]):
        warnings(tmp_path, entries)
