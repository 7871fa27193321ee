"""From text to words: as a shell splits them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from hermes.errors import HermesFileError

from .helpers import (
    compiled,
    examples,
    only_job,
)


@examples(300)
@given(st.text("ab ,=-[]{}()\t'\"\\", max_size=30))
@example("")
@example("a\\")
@example("'")
@example("''")
@example('"\\a\\"\\\\"')
def test_standard_arguments_are_split_as_a_shell_does(folder: Path, line: str) -> None:
    text = f"STD-E\n{line}\nEXEC\n[[t]]\n"
    try:
        expected = shlex.split(line)
    except ValueError:
        with pytest.raises(HermesFileError):
            compiled(folder, text)
    else:
        assert list(only_job(compiled(folder, text)).standard) == expected


@examples(300)
@given(st.text("ab =-\t\n'\"\\", max_size=30))
def test_items_are_split_as_a_shell_does(folder: Path, item: str) -> None:
    # `shlex` keeps the end of a continued line; a shell drops it
    assume("\\\n" not in item)
    try:
        expected = shlex.split(item)
    except ValueError:
        return
    assume(expected)
    assert list(only_job(compiled(folder, f"EXEC\n[[{item} ]]\n")).items[0]) == expected


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("a \\\n b", ["a", "b"]),
        ("a\\\nb", ["ab"]),
        ("a\\\n b", ["a", "b"]),
        ("a \\\n\\\n b", ["a", "b"]),
        ("a \\\n", ["a"]),
        ('"a\\\nb"', ["ab"]),
        ("'a\\\nb'", ["a\\\nb"]),
        ("a \\\n# b\n c", ["a", "c"]),
    ],
)
def test_lines_are_continued_as_in_a_shell(tmp_path: Path, item: str, words: list[str]) -> None:
    assert list(only_job(compiled(tmp_path, f"EXEC\n[[{item}]]\n")).items[0]) == words


def test_sweeps_nest_deep_but_not_without_end(tmp_path: Path) -> None:
    def nested(depth: int) -> str:
        entry = "[[t]]"
        for level in range(depth):
            entry = f"PROD({entry}, k{level}=[1])"
        return f"EXEC\n{entry}\n"

    assert compiled(tmp_path, nested(100)).count == 1
    with pytest.raises(HermesFileError, match="nested deeper"):
        compiled(tmp_path, nested(3000))
    with pytest.raises(HermesFileError, match="nested deeper"):
        compiled(tmp_path, f"EXEC\n[[t, {'[' * 3000}{']' * 3000}]]\n")
