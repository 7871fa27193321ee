"""Which experiments were removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes.storage.layout import FORMATS, REMOVALS, removals_file
from hermes.storage.removals import Removed, read_removals, settled_keys, write_removals


def test_what_is_written_is_read_also_behind_half_a_line(tmp_path: Path) -> None:
    assert FORMATS[REMOVALS] == 1
    top = str(tmp_path)
    assert read_removals(top, "a name") == {}
    write_removals(top, "a name", {"1": "k1", "2": "k2"}, again=False)
    with open(removals_file(top, "a name"), "a") as file:
        file.write("removed 3 k")
    write_removals(top, "a name", {"2": "k2", "4": "k4"}, again=True)
    assert read_removals(top, "a name") == {
        "1": Removed("k1", False),
        "2": Removed("k2", True),
        "4": Removed("k4", True),
    }
    assert read_removals(top, "another") == {}


@pytest.mark.parametrize(
    ("removed", "there", "settled"),
    [
        ({}, [("1", "k")], set()),
        ({"2": Removed("k", False)}, [], {"k"}),
        ({"2": Removed("k", False)}, [("1", "k"), ("3", "other")], {"k"}),
        ({"2": Removed("k", False)}, [("3", "k")], set()),
        # It could not be removed after all
        ({"2": Removed("k", False)}, [("2", "k")], set()),
        ({"2": Removed("k", True)}, [], set()),
        ({"1": Removed("k", False), "2": Removed("k", True)}, [], set()),
        ({"1": Removed("k", True), "2": Removed("k", False)}, [], {"k"}),
    ],
)
def test_the_latest_experiment_of_a_job_counts(
    removed: dict[str, Removed], there: list[tuple[str, str]], settled: set[str]
) -> None:
    assert settled_keys(removed, there) == settled
