"""Which run is meant: a table."""

from __future__ import annotations

from itertools import product

import pytest

from hermes.run.finding import SHOWN, FoundRun, Purpose, State, choose, listed
from hermes.storage.run_record import RunRecord

RESUME, STOP, FORGET, CHANGE, WATCH = Purpose
LED, LEFT, ENDED = State


def a_run(run_id: str, name: str, state: State, where: str) -> FoundRun:
    """`where` is "here", "near", in another folder of the project, or "far", above it."""
    record = RunRecord(
        folder="/x", run_id=run_id, name=name, working_directory=f"/{where}", recipe={}
    )
    return FoundRun(
        record=record, state=state, is_here=where == "here", is_near=where in ("here", "near")
    )


def runs(text: str) -> list[FoundRun]:
    """`id name state where; ...`, the latest first."""
    states = {"led": LED, "left": LEFT, "ended": ENDED}
    rows = [row.split() for row in text.split(";") if row.strip()]
    return [a_run(each[0], each[1], states[each[2]], each[3]) for each in rows]


@pytest.mark.parametrize(
    ("known", "wanted", "purpose", "expected"),
    [
        ("", None, RESUME, "there is no unfinished run of"),
        ("", "a", STOP, "there is no unfinished run `a` of"),
        # Of this working directory first, the latest; to resume, what nobody executes
        ("r2 n ended here; r1 n ended here", None, RESUME, "r2"),
        ("r2 n led here; r1 n ended here", None, RESUME, "r1"),
        ("r2 n led here; r1 n left here", None, RESUME, "r1"),
        ("r2 n led here", None, RESUME, "r2"),
        ("r2 n ended near; r1 n ended here", None, RESUME, "r1"),
        ("r2 n ended far; r1 n ended here", None, RESUME, "r1"),
        # Elsewhere in the project only where nothing else can be meant
        ("r1 n ended near", None, RESUME, "r1"),
        ("r2 n ended near; r1 n led near", None, RESUME, "r2"),
        ("r2 n ended near; r1 n ended near", None, RESUME, "several runs could be meant"),
        ("r1 n ended far", None, RESUME, "there is no unfinished run of"),
        # To stop, what is in progress, then what is without a runner, else nothing
        ("r2 n ended here; r1 n led here", None, STOP, "r1"),
        ("r2 n left here; r1 n led here", None, STOP, "r1"),
        ("r2 n ended here; r1 n left here", None, STOP, "r1"),
        ("r3 n led here; r2 n led here", None, STOP, "r3"),
        ("r1 n ended here", None, STOP, "no run of"),
        ("r2 n ended here; r1 n led near", None, STOP, "no run of"),
        ("r1 n led near", None, STOP, "r1"),
        ("r1 n led far", None, STOP, "there is no unfinished run of"),
        ("r2 n led near; r1 n led near", None, STOP, "several runs could be meant"),
        # Names
        ("r3 a ended here; r2 b ended here; r1 b ended here", "b", RESUME, "r2"),
        ("r3 b ended near; r1 b ended here", "b", RESUME, "r1"),
        ("r3 b ended near; r1 b led near", "b", STOP, "r1"),
        ("r3 b ended near; r1 b ended near", "b", STOP, "several runs could be meant"),
        ("r2 b ended here; r1 b led here", "b", STOP, "r1"),
        ("r1 b ended here", "b", STOP, "r1"),
        ("r1 b ended far", "b", RESUME, "there is no unfinished run `b` of"),
        ("r1 b ended here", "c", RESUME, "there is no unfinished run `c` of"),
        # Ids, and parts of them, wherever they are; a whole one beats a part, a name beats it too
        ("r2 n ended here; r1 n ended far", "r1", RESUME, "r1"),
        ("r12 n ended here; r1 n led near", "r1", RESUME, "r1"),
        ("r12 n ended here; r3 n led near", "2", RESUME, "r12"),
        ("r12 n ended here; r21 n ended here", "2", RESUME, "several runs have `2` in their ids"),
        ("r12 n ended here; r3 2 ended here", "2", RESUME, "r3"),
        ("r12 n ended here", "", RESUME, "there is no unfinished run `` of"),
        # What is put away must be meant
        ("r1 n ended here", None, FORGET, "r1"),
        ("r2 n led here; r1 n ended here", None, FORGET, "r2"),
        ("r2 n ended here; r1 n ended here", None, FORGET, "several runs could be meant"),
        ("r2 n ended here; r1 n ended here", "n", FORGET, "r2"),
        ("r2 n ended here; r1 n ended here", "r1", FORGET, "r1"),
    ],
)
def test_which_run_is_meant(
    known: str, wanted: str | None, purpose: Purpose, expected: str
) -> None:
    choice = choose(runs(known), wanted, purpose)
    if choice.run is not None:
        assert choice.run.run_id == expected
        assert choice.run not in choice.others
    else:
        assert choice.why.startswith(expected)


@pytest.mark.parametrize("purpose", Purpose)
def test_of_all_situations_none_takes_what_was_not_meant(purpose: Purpose) -> None:
    kinds = [f"n {state} {where}" for state, where in product(
        ("led", "left", "ended"), ("here", "near", "far")
    )]  # fmt: skip
    for three in product(kinds, repeat=3):
        known = runs(";".join(f"r{3 - index} {kind}" for index, kind in enumerate(three)))
        chosen = choose(known, None, purpose).run
        if chosen is None:
            continue
        assert chosen.is_near
        assert chosen.is_here or not any(run.is_here for run in known)
        if purpose is STOP:
            assert chosen.state is not ENDED
        if purpose is RESUME and chosen.state is LED:
            assert all(run.state is LED for run in known if run.is_here)


def test_many_runs_are_listed_in_a_few_lines() -> None:
    known = [a_run(f"20261126-00404{n}-ab", "n", ENDED, "here") for n in range(9)]
    lines = listed(known)
    assert len(lines) == SHOWN + 1
    assert lines[0] == "20261126-004040-ab (n, began 2026-11-26 00:40:40, unfinished)"
    assert lines[-1] == "and 4 more"
    assert "\x1b" not in str(a_run("r\x1b", "\x1b", LED, "near"))
