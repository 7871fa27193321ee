"""Keys tell jobs apart, and are the same in every run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hermes.language.keys import Keys
from hermes.language.plan import Plan

from .helpers import (
    compiled,
)


def keys(plan: Plan) -> list[str]:
    found = Keys(plan.place)
    return [found.key(job) for job in plan.jobs]


def test_keys_are_the_same_in_every_run(tmp_path: Path) -> None:
    text = "STD-E\n-g 1\nEXEC\nPROD([[python, t.py, {n}],[-ca a{n}]], n=RANGE[0, 20])\n"
    found = keys(compiled(tmp_path, text))
    assert found == keys(compiled(tmp_path, text))
    assert len(set(found)) == 20
    assert all(re.fullmatch("[0-9a-f]{32}", key) for key in found)
    # Other entries, other lines, comments and what is shown make no other jobs
    others = "EXEC\n[[python, other.py]]\n\n\n" + text.partition("EXEC\n")[2].replace(
        "-ca a{n}", "-ca a{n} -c new -l false"
    )
    assert keys(compiled(tmp_path, "STD-E\n-g 1\n" + others))[1:] == found


@pytest.mark.parametrize("way", [lambda folder: None, lambda folder: folder])
def test_keys_cover_the_working_directory_relative_to_the_root(
    tmp_path: Path, way: Callable[[Path], Path | None]
) -> None:
    text = "EXEC\n[[python, t.py]]\n"
    found = []
    for top in (tmp_path / "one", tmp_path / "moved/two"):
        for below in (".", "a", "b", "a/b"):
            (top / below).mkdir(parents=True, exist_ok=True)
            (top / ".hermes_settings").touch()
            found.append(keys(compiled(top / below, text, root=way(top)))[0])
        (top / "link").symlink_to("a")
        # Reached by a link it is the same folder
        assert keys(compiled(top / "link", text, root=way(top)))[0] == found[-3]
    assert found[:4] == found[4:]
    assert len(set(found)) == 4


def test_keys_tell_repeats_apart(tmp_path: Path) -> None:
    once = keys(compiled(tmp_path, "EXEC\n[[python, t.py]]\n"))
    thrice = keys(compiled(tmp_path, "EXEC\nPROD([[python, t.py]], repeat=[1, 2, 3])\n"))
    assert len(set(thrice)) == 3
    assert thrice[:1] == once
    assert (
        keys(compiled(tmp_path, "EXEC\n[[python, t.py]]\n[[python, u.py]]\n[[python, t.py]]\n"))[
            ::2
        ]
        == thrice[:2]
    )


@pytest.mark.parametrize(
    "other",
    [
        "EXEC\n[[python, t.py, b a],[-ca x]]\n",
        "EXEC\n[[python, t.py, 'a b'],[-ca x]]\n",
        "EXEC\n[[python, t.py, a b],[-cb x]]\n",
        "EXEC\n[[python, t.py, a b],[-ma x]]\n",
        "EXEC\n[[python, t.py, a b],[-ca x -ca x]]\n",
        "EXEC\n[[python, t.py, a b]]\n",
        "STD-E\nc\nEXEC\n[[python, t.py, a b],[-ca x]]\n",
    ],
)
def test_keys_tell_jobs_apart(tmp_path: Path, other: str) -> None:
    assert keys(compiled(tmp_path, "EXEC\n[[python, t.py, a b],[-ca x]]\n")) != keys(
        compiled(tmp_path, other)
    )
