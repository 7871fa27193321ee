"""`hermes.experiments`: which are found where, and what can be asked of them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import hermes
from hermes import HermesError, Status
from hermes.query.rows import Kind

from .simple import experiment, identifier


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A root with three experiments."""
    for number, rate in enumerate(["0.1", "0.01", "1e-3"]):
        experiment(
            tmp_path / "experiments",
            number,
            parameters={"lr": rate},
            arguments=("-lr", rate, "--env", "<b>"),
            status=Status.FAILED if number == 1 else Status.FINISHED,
        )
    return tmp_path


def test_the_newest_are_first(made: Path) -> None:
    found = hermes.experiments(root=made)
    assert len(found) == 3
    assert bool(found)
    assert [each.identifier for each in found] == [identifier(number) for number in (2, 1, 0)]
    first = found[0]
    assert first.parameters == {"lr": 0.001}
    assert first.options == {"lr": 0.001, "env": "<b>"}
    assert (first.metadata.name, first.duration, first.directory.name) == (
        "test",
        2.0,
        identifier(2),
    )
    assert found.one("120000000001").status is Status.FAILED
    assert found.warnings == []
    assert found[:2] == list(found)[:2]


def test_filtering(made: Path) -> None:
    found = hermes.experiments("lr < 0.05 and status = finished", root=made)
    assert [row.identifier for row in found.rows()] == [identifier(2)]
    assert len(hermes.experiments(" ", root=made)) == 3
    with pytest.raises(HermesError, match="expected a comparison"):
        hermes.experiments("lr")
    later = hermes.experiments("lrr = 1", root=made)
    with pytest.raises(HermesError, match="no experiment has a column `lrr`"):
        len(later)


def test_identifiers_that_do_not_say_which(made: Path) -> None:
    found = hermes.experiments(root=made)
    with pytest.raises(HermesError, match="no experiment has `xyz`"):
        found.one("xyz")
    with pytest.raises(HermesError, match=r"`2026` may be `2026_.*`, `2026_.*`, `2026_.*`"):
        found.one("2026")


def test_places(made: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    def count(root: Path | None, working_directory: Path | None = None) -> int:
        return len(hermes.experiments(None, root, working_directory))

    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / ".hermes_settings").write_text(f"path_to_experiments: {made}\n")
    (elsewhere / "inner").mkdir()
    assert count(made / "experiments") == 3
    assert count(made / "experiments" / "train") == 3
    assert count(made / "experiments" / "train" / "test") == 3
    assert count(None, made / "experiments") == 3
    assert count(None, made / "experiments" / "train" / "test") == 3
    assert count(None, elsewhere / "inner") == 3
    assert count(elsewhere) == 3
    assert count(None, made.parent) == 0
    with pytest.raises(HermesError, match="there is no folder"):
        count(made / "nowhere")


def test_what_is_no_experiment_is_told(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # However slow this machine is, but not since 1970
    monkeypatch.setattr("hermes.query.reading.NEW", 1e6)
    folder = made / "experiments" / "train" / "test"
    shutil.copytree(folder / identifier(0), folder / "a copy")
    shutil.copytree(folder / identifier(0), folder / identifier(7))
    (folder / identifier(8)).mkdir()
    os.utime(folder / identifier(8), (0, 0))
    (folder / identifier(9)).mkdir()
    (folder / identifier(9) / "hermes.json").write_text("{")
    (made / "experiments" / ".hermes").mkdir()
    # The job of this one is being started
    (folder / identifier(10)).mkdir()
    found = hermes.experiments(root=made)
    assert len(found) == 3
    told = "\n".join(sorted(found.warnings))
    assert len(found.warnings) == 4
    assert "a copy` is no identifier" in told
    assert f"{identifier(7)}` holds the metadata of `{identifier(0)}`" in told
    assert f"{identifier(8)}` is no experiment directory" in told
    assert "is not JSON" in told


def test_experiments_of_rlmate(made: Path) -> None:
    name = "2021_07_25_160008326976_3_1930e"
    directory = made / "experiments" / "train" / "old" / name
    directory.mkdir(parents=True)
    (directory / "hermes.info").write_text(
        "commit_hash:abcdef1930e\nstart_time:2021_07_25_160008326976\ncomments:a:b\n"
        "end_time:2021_07_25_160108326976\nexecution_time:60.5\n"
    )
    (directory / "exec_arguments").write_text("word\n--fast\n-lr 0.5\n")
    (old,) = hermes.experiments("name = old", root=made)
    assert old.identifier == name
    assert old.options == {"fast": True, "lr": 0.5}
    assert (old.duration, old.status, old.script) == (60.5, Status.FINISHED, "train")
    assert old.comments == ("a:b",)
    assert len(hermes.experiments("start < 2022-01-01 and arg:lr = 0.5", root=made)) == 1
    (directory / f"{name}.scores").write_text("1.0\n3.0\n")
    (made / "experiments" / "train" / "test" / identifier(0) / "a.csv").write_text("score\n7\n")
    compared = hermes.experiments("lr >= 0.1", root=made).compare("lr", ["score", "score.mean"])
    assert [(row["lr"], row["n"], row["mean"]) for row in compared.rows] == [
        (0.1, 1, 7.0), (0.5, 1, 3.0), (0.1, 1, 7.0), (0.5, 1, 2.0),
    ]  # fmt: skip
    assert "1 of rlmate's: it does not keep whether a job has failed" in compared.notes
    (directory / "hermes.info").write_text("no colon\n")
    assert hermes.experiments("name = old", root=made)[0].status is Status.LOST


def test_frames(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = hermes.experiments(root=made)
    records = found.records()
    assert [record["lr"] for record in records] == [0.001, 0.01, 0.1]
    assert "signal" not in records[0]

    def frame(values: dict[str, list[object]], **_: object) -> dict[str, list[object]]:
        return values

    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=frame))
    assert found.frame()["status"] == ["finished", "failed", "finished"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "polars", SimpleNamespace(DataFrame=frame))
    assert found.frame()["lr"] == [0.001, 0.01, 0.1]
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(HermesError, match="neither pandas nor polars"):
        found.frame()


def test_a_notebook_shows_a_table_in_which_all_is_escaped(made: Path) -> None:
    experiment(made / "experiments", 5, parameters={"<i>": "<b>\x1b[31m"})
    page = hermes.experiments(root=made)._repr_html_()
    assert "<b>" not in page
    assert "<i>" not in page
    assert "\x1b" not in page
    assert "&lt;b&gt;\\x1b[31m" in page
    assert page.count("<tr>") == 5


def test_whole_numbers_of_any_length_are_sorted(tmp_path: Path) -> None:
    texts = ["7", "1" + "0" * 390, "-1" + "0" * 390]
    for number, text in enumerate(texts):
        experiment(tmp_path / "experiments", number, parameters={"n": text})
    found = hermes.experiments(root=tmp_path).sorted_by("n")
    assert [each.row.raw[Kind.PARAMETER]["n"] for each in found] == [texts[2], texts[0], texts[1]]
