"""What is different between two experiments, whatever is known of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

import hermes
from hermes import Differences, Options
from hermes.query.lookup import read_experiment
from hermes.show.comparison import differences_as_text
from hermes.storage.layout import METADATA, PATCH, environment_file
from hermes.storage.metadata import Environment, GitState, Packages

from .simple import experiment, identifier


class Two:
    """Two experiments that are alike, but for what a test changes in the second one."""

    def __init__(self, root: Path) -> None:
        self.experiments = root / "experiments"
        self._same: dict[str, Any] = {
            "argv": ("python", "train.py", "-lr", "0.1"),
            "arguments": ("-lr", "0.1"),
            "parameters": {"lr": "0.1"},
            "settings": {"threads": 2, "env": {"A": "1"}},
            "git": GitState(commit="a" * 40, branch="main", dirty=False),
            "python": "3.11.7",
            "environment": self.environment("same", {"numpy": "2.0"}),
        }
        self.first = experiment(self.experiments, 0, **self._same)
        self.second = self.first

    def environment(self, digest: str, packages: dict[str, str]) -> Environment:
        path = Path(environment_file(str(self.experiments), digest))
        path.parent.mkdir(parents=True, exist_ok=True)
        record = Packages(python="3.11.7", implementation="cpython", packages=packages)
        path.write_bytes(msgspec.json.encode(record))
        return Environment(interpreter="/bin/python", digest=digest)

    def differ_in(self, **changes: Any) -> None:
        self.second = experiment(self.experiments, 1, **(self._same | changes))

    @property
    def found(self) -> Differences:
        return hermes.differences(
            read_experiment(str(self.first)), read_experiment(str(self.second))
        )

    @property
    def told(self) -> list[tuple[str, str, str | None, str | None]]:
        return [(each.part, each.name, each.first, each.second) for each in self.found]


@pytest.fixture
def two(tmp_path: Path) -> Two:
    return Two(tmp_path)


def test_alike(two: Two) -> None:
    two.differ_in()
    found = two.found
    assert not found
    assert repr(found) == f"<Differences between {identifier(0)} and {identifier(1)}: 0>"
    assert (len(found), found.patch, found.notes) == (0, (), ())
    assert found.alike == (
        "experiment", "command", "parameters", "arguments", "options", "settings", "code",
        "python", "packages",
    )  # fmt: skip
    assert list(differences_as_text(found))[3] == "no difference"


def test_a_parameter_is_told_once(two: Two) -> None:
    words = ("-lr", "0.2", "-x")
    two.differ_in(argv=("python", "train.py", *words), arguments=words, parameters={"lr": "0.2"})
    assert two.told == [
        ("command", "", "python train.py -lr 0.1", "python train.py -lr 0.2 -x"),
        ("parameters", "lr", "0.1", "0.2"),
        ("arguments", "x", None, "true"),
    ]


def test_settings_code_and_packages(two: Two) -> None:
    two.differ_in(
        settings={"threads": 4, "env": {"A": "1"}},
        options=Options(copy_after=("a", "b"), timeout=60.0),
        git=GitState(commit="b" * 40, branch="main", dirty=True),
        environment=two.environment("other", {"numpy": "2.1", "torch": "2.9"}),
    )
    assert two.told == [
        ("options", "copy-after", None, "a b"),
        ("options", "timeout", None, "60.0"),
        ("settings", "threads", "2", "4"),
        ("code", "commit", "a" * 40, "b" * 40),
        ("code", "uncommitted", "false", "true"),
        ("packages", "numpy", "2.0", "2.1"),
        ("packages", "torch", None, "2.9"),
    ]
    assert two.found.notes == (
        f"`git diff {'a' * 40} {'b' * 40}` shows what was committed between them",
    )


def test_changes_in_no_commit(two: Two) -> None:
    two.differ_in()
    (two.second / PATCH).write_text("+print(1)\n")
    found = two.found
    assert found
    assert found.patch == (
        f"--- {identifier(0)}/{PATCH}",
        f"+++ {identifier(1)}/{PATCH}",
        "@@ -0,0 +1 @@",
        "++print(1)",
    )
    assert "code" not in found.alike
    assert "  and 1 more lines" in differences_as_text(found, patch_lines=3)


def test_metrics_tell_whether_a_run_was_repeated_exactly(two: Two) -> None:
    two.differ_in()
    (two.first / "a.csv").write_text("step,loss,same,only\n1,0.12345678,5,1\n")
    (two.second / "a.csv").write_text("step,loss,same\n1,0.12345679,5\n")
    assert two.told == [
        ("metrics", "loss", "0.12345678", "0.12345679"),
        ("metrics", "only", "1.0", None),
    ]
    lines = list(differences_as_text(two.found))
    assert "  loss  0.12345678 -> 0.12345679" in lines
    (two.second / "a.csv").write_text("step,loss,same,only\n1,0.3,5,1\n")
    assert "  loss  0.123457 -> 0.3" in differences_as_text(two.found)


@pytest.mark.parametrize("what", ["missing", "damaged", "newer"])
def test_packages_that_cannot_be_read_are_no_difference(two: Two, what: str) -> None:
    two.differ_in(environment=two.environment("other", {"numpy": "2.1"}))
    path = Path(environment_file(str(two.experiments), "other"))
    if what == "missing":
        path.unlink()
    else:
        path.write_bytes(b"{" if what == "damaged" else b'{"format":99}')
    assert two.told == []
    (note,) = two.found.notes
    assert note.startswith(f"the packages of `{identifier(1)}` cannot be read from")


def test_what_is_not_known_is_no_difference(two: Two) -> None:
    two.differ_in(settings={}, environment=None, git=GitState(), host="")
    assert [each[:2] for each in two.told] == [
        ("experiment", "host"), ("code", "commit"), ("code", "branch"), ("code", "uncommitted"),
        ("python", "interpreter"),
    ]  # fmt: skip
    assert two.found.notes == (f"the packages of `{identifier(1)}` are not known",)


def test_a_patch_that_cannot_be_read_blocks_nothing(two: Two) -> None:
    two.differ_in()
    os.mkfifo(two.second / PATCH)
    assert two.found.patch == ()
    (two.second / PATCH).unlink()
    (two.second / PATCH).write_bytes(b"x" * (2**20 + 1))
    assert two.found.notes[0].endswith("is too large to be compared")


def test_metadata_that_are_gone_are_an_error(two: Two) -> None:
    two.differ_in()
    first, second = (read_experiment(str(each)) for each in (two.first, two.second))
    (two.second / METADATA).unlink()
    with pytest.raises(hermes.HermesError, match="is no experiment directory"):
        hermes.differences(first, second)


def test_a_notebook_and_a_terminal_show_it_escaped(two: Two) -> None:
    words = ("-lr", "<b>\033[31m" + "x" * 80)
    two.differ_in(argv=("python", "train.py", *words), arguments=words, parameters={"lr": "0.1"})
    (two.second / PATCH).write_text("<script>\033[2J\n")
    page = two.found._repr_html_()
    text = "\n".join(differences_as_text(two.found))
    assert "\033" not in page + text
    assert "&lt;b&gt;\\x1b[31m" in page
    assert "<pre>" in page
    assert "<script>" not in page
    assert "  lr\n  - 0.1\n  + <b>\\x1b[31mxxx" in text
