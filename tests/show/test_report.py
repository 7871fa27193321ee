from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hermes import HermesError, Status
from hermes.model import Problem, ProblemKind
from hermes.query.columns import row_of
from hermes.query.metrics.curves import Curve
from hermes.query.rows import Row
from hermes.show.report import is_report, report_rows
from hermes.show.thinning import DIGITS, packed, thinned
from hermes.storage.metadata import GitState, Metadata, StoredFile, Versions

from ..query.made import curve, summary_of

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&amp; \x1b[31m \u202e x"


def a_page(
    folder: Path, count: int = 6, *, changes: Mapping[str, Any] | None = None, path: str = "r.html"
) -> Path:
    """A report of experiments with the parameters `lr` and `seed`; every third has failed.

    Each has a curve `return` that rises to its number. `changes` go into the metadata of the first.
    """
    folder.mkdir(exist_ok=True)
    metadata: dict[str, Metadata] = {}
    rows: list[Row] = []
    curves: dict[str, Curve] = {}
    for number in range(count):
        identifier = f"2026_01_02_{100000000000 + number}_00000"
        directory = f"{folder}/experiments/train/test/{identifier}"
        failed = number % 3 == 2
        parameters = {"lr": ["0.1", "0.01"][number % 2], "seed": str(number)}
        told: dict[str, Any] = {
            "identifier": identifier,
            "script": "train",
            "name": "test",
            "argv": ("python", "train.py", identifier),
            "parameters": parameters,
            "key": "k",
            "status": Status.FAILED if failed else Status.FINISHED,
            "exit_code": int(failed),
            "duration": 1.5,
            "run_id": "run",
            "working_directory": "/work",
            "root": "/work",
            "host": "here",
            "user": "me",
            "git": GitState(commit="abcdef0123456789", branch="main", dirty=False),
            "versions": Versions(hermes="1", python="3", platform="Linux"),
        }
        if not number:
            told |= changes or {}
        metadata[directory] = Metadata(**told)
        curves[directory] = curve([number * step / 49 for step in range(50)])
        rows.append(
            row_of(directory, metadata[directory], {"return": summary_of(curves[directory])})
        )
        if failed:
            Path(directory).mkdir(parents=True)
            Path(directory, "stderr.log").write_text(f"first\nlast words {HOSTILE}\n")
    target = folder / path
    report_rows(
        rows,
        target,
        read_metadata=metadata.__getitem__,
        read_curves=lambda directory, names: dict.fromkeys(names, curves[directory]),
        title="those of a test",
    )
    return target


def data_of(page: Path) -> dict[str, Any]:
    """What the page's script gets."""
    found = re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def points_of(stored: Sequence[Any]) -> list[tuple[float, float]]:
    """The points that a page draws."""
    x0, x1, y0, y1, text = stored
    levels = [
        (DIGITS.index(text[i]) * 64 + DIGITS.index(text[i + 1])) / 4095
        for i in range(0, len(text), 2)
    ]
    pairs = zip(levels[::2], levels[1::2], strict=True)
    return [(x0 + (x1 - x0) * x, y0 + (y1 - y0) * y) for x, y in pairs]


def test_no_peak_is_lost() -> None:
    values = [0.0] * 10_000
    values[4321], values[7654] = 5.0, -7.0
    points = thinned(curve(values), 60)
    assert len(points) <= 60
    assert {(4321, 5.0), (7654, -7.0), (0, 0.0), (9999, 0.0)} <= set(points)
    assert points == sorted(points)


def test_short_curves_are_kept() -> None:
    assert thinned(curve([3, 1, 2]), 24) == [(0, 3), (1, 1), (2, 2)]


def test_what_is_not_finite_is_left_out() -> None:
    assert thinned(curve([1, math.nan, math.inf, 2]), 24) == [(0, 1), (3, 2)]
    assert packed(curve([math.nan]), 24) is None


def test_a_packed_curve_reads_back() -> None:
    values = [math.sin(step / 30) * 1e-6 for step in range(100)]
    stored = packed(curve(values), 200)
    assert stored
    found = points_of(stored)
    assert [round(step) for step, _ in found] == list(range(100))
    assert [value for _, value in found] == pytest.approx(values, abs=1e-9)


@pytest.mark.parametrize("values", [[5.0], [2.0, 2.0], [-9e299, 9e299], [3, 1e308]])
def test_curves_without_width_and_without_end(values: list[float]) -> None:
    stored = packed(curve(values), 24)
    assert stored
    assert points_of(stored)[0] == (0, values[0])


def test_what_is_shared_is_stored_once(tmp_path: Path) -> None:
    data = data_of(a_page(tmp_path, 9))
    assert [row["shared"] for row in data["rows"]] == [0] * 9
    assert len(data["shared"]) == len(data["tails"]) == 1
    assert data["shared"][0]["commit"] == "abcdef0123456789"


def test_columns_that_differ_are_shown(tmp_path: Path) -> None:
    columns = {each["name"]: each["shown"] for each in data_of(a_page(tmp_path))["columns"]}
    shown = {name for name, is_shown in columns.items() if is_shown}
    assert shown == {"status", "lr", "seed", "return", "duration", "start"}
    assert not columns["name"]


def test_links_are_relative(tmp_path: Path) -> None:
    odd = "a b#?%\udcff:ä.txt"
    files = [StoredFile(path=odd, bytes=1, origin="written")]
    row = data_of(a_page(tmp_path, changes={"files": files}))["rows"][0]
    assert row["href"] == f"./experiments/train/test/{row['id']}"
    assert row["files"] == [["a b#?%\\xff:ä.txt", 1, "a%20b%23%3F%25%FF%3A%C3%A4.txt"]]


def test_an_earlier_report_is_replaced_and_another_file_is_not(tmp_path: Path) -> None:
    page = a_page(tmp_path / "a")
    assert is_report(page)
    other = tmp_path / "b" / "r.html"
    other.parent.mkdir()
    other.write_text("<html>mine")
    with pytest.raises(HermesError, match="is no report"):
        a_page(other.parent)
    assert other.read_text() == "<html>mine"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(HermesError, match="cannot write"):
        a_page(tmp_path, path="gone/r.html")


def test_experiments_that_cannot_be_read_are_in_it(tmp_path: Path) -> None:
    def refuse(directory: str) -> Metadata:
        raise HermesError("it is damaged")

    row = Row(
        identifier="2026_01_02_100000000000_00000", directory=f"{tmp_path}/x",
        status=Status.LOST, cells={}, raw={},
    )  # fmt: skip
    report_rows(
        [row], tmp_path / "r.html", read_metadata=refuse, read_curves=lambda *_: {}, title="t"
    )
    assert data_of(tmp_path / "r.html")["rows"][0]["problems"] == ["it is damaged"]


def test_nothing_hostile_stands_in_the_file(tmp_path: Path) -> None:
    problem = Problem(ProblemKind.DISK_FULL, HOSTILE)
    page = a_page(tmp_path, changes={"name": HOSTILE, "problems": [problem], "host": HOSTILE})
    text = page.read_text()
    assert text.count("<script") == text.count("</script>") == 2
    assert "<img" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
