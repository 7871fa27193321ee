"""Groups of experiments and what their metrics say; what is left out is told."""

from __future__ import annotations

import math

import pytest

from hermes import HermesError, Status
from hermes.query.comparing import Comparison, compared
from hermes.query.grouping import Columns, all_but, by_columns, by_default, differing, grouped
from hermes.query.rows import Column, Kind, Row
from hermes.query.tables import written

from .made import row


def columns(*names: str) -> list[tuple[str, Column]]:
    return [(name, Column(name, (Kind.PARAMETER, Kind.ARGUMENT))) for name in names]


def compare(rows: list[Row], chosen: Columns, *metrics: str, failed: bool = False) -> Comparison:
    return compared(grouped(rows, chosen, with_failed=failed), metrics)


def sweep(seeds: int = 3) -> list[Row]:
    return [
        row({"lr": lr, "env": env, "seed": seed}, {"return": 100 * lr + seed})
        for lr in (0.1, 0.01)
        for env in ("cartpole", "acrobot")
        for seed in range(seeds)
    ]


def test_groups_are_sorted_and_count_their_runs() -> None:
    rows = sweep()
    found = compare(rows, by_columns(rows, columns("lr", "env")), "return")
    assert [group.texts for group in found.groups] == [
        ("0.01", "acrobot"), ("0.01", "cartpole"), ("0.1", "acrobot"), ("0.1", "cartpole"),
    ]  # fmt: skip
    assert [entry.statistics.n for entry in found.entries["return"]] == [3, 3, 3, 3]
    assert [entry.statistics.mean for entry in found.entries["return"]] == [2, 2, 11, 11]
    assert found.notes == ()


def test_all_but_seed_is_what_else_differs() -> None:
    rows = sweep()
    found = all_but(rows, columns("seed"))
    assert [name for name, _ in found.shared] == ["lr", "env"]
    assert by_default(rows).shared == found.shared


def test_what_goes_with_the_seed_makes_no_groups() -> None:
    rows = [
        row({"lr": lr, "seed": seed}, {"return": 1.0}, arguments={"run": f"run_{seed}"})
        for lr in (1, 2)
        for seed in (1, 2)
    ]
    found = all_but(rows, columns("seed"))
    assert [name for name, _ in found.shared] == ["lr"]
    assert found.notes == ("`run` goes with `seed` and makes no groups",)


def test_an_argument_that_repeats_a_parameter_is_one_column_with_it() -> None:
    rows = [row({"lr": lr}, arguments={"lr": lr, "learning_rate": lr}) for lr in (1, 2)]
    assert [name for name, _ in differing(rows)] == ["lr"]


def test_a_parameter_and_an_argument_of_one_name_that_differ_are_two() -> None:
    rows = [row({"lr": lr}, arguments={"lr": other}) for lr, other in ((1, 1), (2, 5), (3, 5))]
    assert [name for name, _ in differing(rows)] == ["param:lr", "arg:lr"]


def test_one_is_not_true() -> None:
    assert len(differing([row({"x": 1}), row({"x": True})])) == 1
    assert differing([row({"x": 1}), row({"x": 1.0})]) == []


def test_what_is_averaged_over_is_told() -> None:
    rows = sweep()
    assert by_columns(rows, columns("lr")).notes == (
        "`env` differs within groups and is averaged over",
    )


def test_runs_that_failed_are_left_out_and_told() -> None:
    rows = [*sweep(), row({"lr": 0.1, "env": "acrobot", "seed": 3}, {"return": -1e9},
                          status=Status.FAILED)]  # fmt: skip
    rows.append(row({"lr": 0.1, "env": "acrobot", "seed": 4}, status=Status.LOST))
    chosen = by_columns(rows, columns("lr", "env"))
    found = compare(rows, chosen, "return")
    assert found.notes[0] == "1 failed, 1 lost left out; `--with-failed` includes them"
    assert found.entries["return"][2].statistics.max == 12
    assert found.tables()[0].rows[2][:4] == ("0.1", "acrobot", "3", "1 failed, 1 lost")
    assert found.rows[2]["left_out"] == 2
    included = compare(rows, chosen, "return", failed=True)
    entry = included.entries["return"][2]
    assert (entry.statistics.n, entry.statistics.min, entry.missing) == (4, -1e9, 1)
    assert any("`return` is missing in 1 of 5 of lr 0.1, env acrobot" in n for n in included.notes)


def test_a_group_of_which_nothing_has_finished_is_told() -> None:
    rows = [*sweep(), row({"lr": 5, "env": "acrobot", "seed": 0}, status=Status.FAILED)]
    found = compare(rows, by_default(rows), "return")
    assert found.notes == (
        "1 failed left out; `--with-failed` includes them",
        "nothing has finished of lr 5, env acrobot",
    )
    assert found.tables()[0].rows[-1][:4] == ("5", "acrobot", "0", "1 failed")


def test_missing_seeds_are_named() -> None:
    rows = sweep()
    del rows[4]
    found = compare(rows, by_default(rows), "return")
    assert found.notes == ("missing: lr 0.1, env acrobot lacks seed 1",)


def test_a_seed_that_is_there_once_for_each_of_what_is_averaged_over_is_there_once() -> None:
    rows = sweep()
    found = compare(rows, by_columns(rows, columns("lr")), "return")
    assert found.notes == ("`env` differs within groups and is averaged over",)
    rows.append(row({"lr": 0.1, "env": "acrobot", "seed": 2}, {"return": 0.0}))
    notes = compare(rows, by_columns(rows, columns("lr")), "return").notes
    assert notes[1:] == ("counted more than once: lr 0.1 has seed 2",)


def test_a_seed_that_is_there_twice_is_told() -> None:
    rows = [*sweep(), row({"lr": 0.1, "env": "acrobot", "seed": 2}, {"return": 0.0})]
    found = compare(rows, by_default(rows), "return")
    assert found.notes == ("counted more than once: lr 0.1, env acrobot has seed 2",)


def test_values_that_are_no_numbers_are_left_out_and_told() -> None:
    rows = [row({"lr": 1}, {"loss": value}) for value in (1.0, math.nan, math.inf, 3.0)]
    found = compare(rows, by_columns(rows, columns("lr")), "loss")
    (entry,) = found.entries["loss"]
    assert (entry.statistics.n, entry.statistics.mean, entry.not_finite) == (2, 2.0, 2)
    assert found.notes == ("`loss` is infinite or no number in 2 of 4 of lr 1: left out",)


def test_lengths_that_differ_are_told() -> None:
    rows = [row({"lr": 1, "seed": n}, {"return": [1.0] * n}) for n in (5, 9)]
    found = compare(rows, by_default(rows), "return.max")
    assert found.notes == ("`return.max` ends at different steps: all: 4 to 8",)


def test_a_column_that_is_different_in_each_run_is_named() -> None:
    rows = [
        row({"lr": lr, "seed": seed}, {"r": 1.0}, arguments={"out": f"{lr}_{seed}"})
        for lr in (1, 2)
        for seed in (1, 2)
    ]
    notes = compare(rows, by_default(rows)).notes
    assert "every group has one run, because `out` is different in each" in notes


def test_what_rounds_to_zero_has_no_sign() -> None:
    assert [written(number, 0) for number in (-0.3, -0.0, 0.3, -0.6, -1e8)] == [
        "0", "0", "0", "-1", "-100000000",
    ]  # fmt: skip


def test_what_is_not_there_is_a_group_of_its_own() -> None:
    rows = [row({"lr": 1}, {"r": 1.0}), row({}, {"r": 2.0}), row({"lr": 0}, {"r": 3.0})]
    found = compare(rows, by_columns(rows, columns("lr")))
    assert [group.values for group in found.groups] == [(0,), (1,), (None,)]
    assert [line[0] for line in found.tables()[0].rows] == ["0", "1", "-"]


def test_without_a_metric_the_first_few_are_compared() -> None:
    rows = [row({"lr": 1}, {f"m{n}": 1.0 for n in range(10)})]
    found = compare(rows, by_columns(rows, columns("lr")))
    assert found.metrics == tuple(f"m{n}" for n in range(8))
    assert found.notes == ("there are more metrics: `m8`, `m9`",)


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(HermesError, match="no experiment to compare"):
        compare([], Columns(shared=()))
    with pytest.raises(HermesError, match="none of the experiments has finished") as caught:
        compare([row({}, {"r": 1.0}, status=Status.FAILED)], Columns(shared=()))
    assert caught.value.hint == "`--with-failed` includes the others"
    with pytest.raises(HermesError, match="none of 1 experiments has a metric"):
        compare([row({})], Columns(shared=()))


def test_a_pivot_has_the_last_column_on_top() -> None:
    rows = sweep()[:-3]
    (table,) = compare(rows, by_columns(rows, columns("lr", "env")), "return").tables(pivot=True)
    assert table.head == ("lr", "env acrobot", "env cartpole")
    assert table.rows == (
        ("0.01", "-", "2.0 ± 2.5 (n 3)"),
        ("0.1", "11.0 ± 2.5 (n 3)", "11.0 ± 2.5 (n 3)"),
    )


def test_a_pivot_of_one_column_has_the_metrics_on_top() -> None:
    rows = [row({"lr": lr}, {"a": 1.5, "b": lr}) for lr in (1, 2)]
    (table,) = compare(rows, by_columns(rows, columns("lr"))).tables(pivot=True)
    assert table.head == ("lr", "a", "b")
    assert table.rows == (("1", "1.5 (n 1)", "1 (n 1)"), ("2", "1.5 (n 1)", "2 (n 1)"))


def test_a_notebook_shows_it_escaped() -> None:
    rows = [row({"lr": "<b>"}, {"r": 1.0}, status=status)
            for status in (Status.FINISHED, Status.FAILED)]  # fmt: skip
    found = compare(rows, by_columns(rows, columns("lr")))
    assert repr(found) == "<Comparison of 1 group by r>"
    page = found._repr_html_()
    assert "<td>&lt;b&gt;</td>" in page
    assert "1 failed left out" in page
