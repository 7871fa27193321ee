"""`hermes export`: experiments and their curves as files for other programs."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

import hermes
from hermes import HermesError

from ..query.simple import experiment, identifier
from ..support import Desk


@pytest.fixture
def desk(desk: Desk) -> Desk:
    for number, rate in enumerate(["1e-2", "0.5", "7"]):
        folder = experiment(
            desk.path / "experiments",
            number,
            parameters={"lr": rate, "step": "abc"[number]},
            arguments=("--tag", 'a,"b"\n\x1b' if number == 0 else "5", "--big", str(2**70)),
            **({"signal": 9, "exit_code": None} if number == 2 else {}),
        )
        (folder / "progress.csv").write_text(f"step,loss\n10,0.5\n20.5,{number}\n")
    return desk


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_an_experiment(desk: Desk) -> None:
    done = desk.hermes("export", "out.csv")
    assert (done.stdout, done.stderr) == ("", "3 experiments in `out.csv`\n")
    last, middle, first = rows(desk.path / "out.csv")
    assert next(iter(first)) == "identifier"
    assert (first["identifier"], first["lr"], first["tag"]) == (
        identifier(0),
        "0.01",
        'a,"b"\n\x1b',
    )
    assert (last["signal"], last["exit_code"], middle["signal"]) == ("9", "", "")
    assert [float(each["loss"]) for each in (last, middle, first)] == [2, 1, 0]
    assert middle["start"] == "2026-11-20T12:01:00+01:00"
    desk.hermes("export", "lr < 1", "out.jsonl", "--quiet")
    told = [json.loads(line) for line in (desk.path / "out.jsonl").read_text().splitlines()]
    assert [each["lr"] for each in told] == [0.5, 0.01]
    assert told[0]["tag"] == 5
    assert "signal" not in told[0]


def test_curves(desk: Desk) -> None:
    done = desk.hermes("export", "lr > 0.1", "out.csv", "--curves")
    assert done.stderr == "4 values in `out.csv`\n"
    first = rows(desk.path / "out.csv")[0]
    # What is the same in all is left out
    assert list(first) == ["identifier", "lr", "param:step", "metric", "step", "value"]
    assert list(first.values()) == [identifier(2), "7", "c", "loss", "10", "0.5"]
    assert rows(desk.path / "out.csv")[-1]["step"] == "20.5"


def test_only_an_export_is_replaced(desk: Desk) -> None:
    for name in ("out.csv", "out.jsonl"):
        for words in ((), ("--curves",), ("lr = 7",)):
            desk.hermes("export", *words, name)
        (desk.path / name).write_text("id,other\n")
        done = desk.hermes("export", name, code=2)
        assert "is there already, and is no export" in done.stderr
        assert (desk.path / name).read_text() == "id,other\n"
    # Nothing is left of what could not be written either
    names = set(desk.tree(desk.path))
    assert not any(name.endswith("hermes-part") for name in names)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("out.xlsx",), "ends in `.csv`, `.jsonl` or `.parquet`"),
        (("lr = 8", "out.csv"), "there is no such experiment"),
        (("lr", "=", "8", "out.csv"), "hermes export 'lr = 8' FILE.csv"),
        (("nowhere/out.csv",), "cannot write `nowhere/out.csv`: No such file or directory"),
    ],
)
def test_mistakes(desk: Desk, words: tuple[str, ...], told: str) -> None:
    assert told in desk.hermes("export", *words, code=2).stderr


@pytest.mark.parametrize("without", [(), ("pyarrow", "pyarrow.parquet")])
def test_parquet(desk: Desk, without: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    if without:
        pytest.importorskip("polars")
    found = hermes.experiments(root=desk.path)
    for curves, count in ((False, 3), (True, 6)):
        path = desk.path / f"{curves}.parquet"
        with monkeypatch.context() as patched:
            for name in without:
                patched.setitem(sys.modules, name, None)
            for _ in range(2):
                assert hermes.write_export(found, path, curves=curves) == count
        table = parquet.read_table(path)
        last, first = table.to_pylist()[0], table.to_pylist()[-1]
        assert (last["identifier"], last["lr"], first["lr"]) == (identifier(2), 7.0, 0.01)
        if curves:
            assert (first["step"], first["value"]) == (20.5, 0)
        else:
            # Values of several types are text in a column that has one
            assert (first["tag"], last["tag"]) == ('a,"b"\n\x1b', "5")
            assert last["big"] == str(2**70)
            assert (last["signal"], first["signal"]) == (9, None)
            assert last["start"] == found[0].start


def test_parquet_without_a_library(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyarrow.parquet", "polars", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(HermesError) as caught:
        hermes.write_export(hermes.experiments(root=desk.path), desk.path / "x.parquet")
    assert caught.value.hint is not None
    assert "`pip install pyarrow`" in caught.value.hint
    assert not (desk.path / "x.parquet").exists()
