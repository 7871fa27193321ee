"""Sweeps: how many jobs, in exact decimals, and lazily."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st

from hermes.errors import HermesFileError
from hermes.language.compiling import compile_text
from hermes.language.values import Range
from hermes.model import PLACEHOLDER

from ..support import times
from .helpers import (
    compiled,
    examples,
    write,
)


@pytest.mark.parametrize(
    ("entries", "count"),
    [
        ("[[t]]", 1),
        ("[[t]]\n[[t]]", 2),
        ("PROD([[t]], a=[1, 2], b=RANGE[0, 5])", 10),
        (
            "PROD([[t]], ZIP([[t]], [[t]], a=[1, 2], b=[3, 4]), c=[1, 2, 3])\n[[t]]",
            3 * (1 + 2 * 2) + 1,
        ),
    ],
)
def test_count_is_how_many_jobs_there_are(tmp_path: Path, entries: str, count: int) -> None:
    plan = compiled(tmp_path, f"EXEC\n{entries}\n")
    assert (plan.count, len(plan.jobs), len(list(plan.jobs))) == (count, count, count)


def test_large_sweeps_are_lazy(tmp_path: Path) -> None:
    write(tmp_path / "t.py", "")
    whole = "RANGE[0, 1000000000000, 1]"
    text = f"EXEC\nPROD([[python, t.py, {{a}} {{b}}],[-ca {{a}} -cb t.py]], a={whole}, b={whole})\n"
    text += f"ZIP([[python, t.py, {{c}}]], c={whole})\n"
    plan = compiled(tmp_path, text)
    assert plan.count == 10**24 + 10**12
    assert next(iter(plan.jobs)).argv == ("python", "t.py", PLACEHOLDER, "0", "0")
    assert [job.argv[-1] for job in islice(plan.jobs, 3)] == ["0", "1", "2"]
    assert plan.warnings == ()
    plan.check("name")


def decimal_text(units: int, decimals: int) -> str:
    digits = str(abs(units)).zfill(decimals + 1)
    whole = digits[: len(digits) - decimals]
    return ("-" if units < 0 else "") + whole + ("." + digits[-decimals:] if decimals else "")


numbers = st.builds(
    lambda units, decimals: (units, decimals), st.integers(-(10**7), 10**7), st.integers(0, 6)
)


@pytest.mark.once
@examples(200)
@given(
    start=numbers,
    step=numbers.filter(lambda number: number[0] != 0),
    length=st.integers(1, 40),
    rest=st.fractions(0, 1),
)
def test_range_is_exact(
    folder: Path, start: tuple[int, int], step: tuple[int, int], length: int, rest: Fraction
) -> None:
    first, stride = Fraction(start[0], 10 ** start[1]), Fraction(step[0], 10 ** step[1])
    # A stop of at most six decimals, which ends the range after `length` values or one later
    stop = Fraction(int((first + stride * (length + rest)) * 10**6), 10**6)
    assume(stop != first and (stop > first) == (stride > 0))
    expected = []
    value = first
    while value < stop if stride > 0 else value > stop:
        expected.append(value)
        value += stride

    stop_text = decimal_text(int(stop * 10**6), 6)
    values = f"RANGE[{decimal_text(*start)}, {stop_text}, {decimal_text(*step)}]"
    text = f"EXEC\nPROD([[t, x {{n}}]], n={values})\n"
    found = [job.argv[-1] for job in compiled(folder, text).jobs]
    assert [Fraction(word) for word in found] == expected
    assert all(re.fullmatch(r"-?\d+\.\d{6}", word) for word in found)
    assert all(not word.startswith("-") for word in found if Fraction(word) == 0)


@pytest.mark.parametrize(
    "numbers_of", [range(0, 10, 3), range(10, 0, -4), range(-3, 4), range(5, 6)]
)
@pytest.mark.parametrize("decimals", [0, 2])
def test_range_is_a_sequence(numbers_of: range, decimals: int) -> None:
    found = Range(
        start=numbers_of.start, stop=numbers_of.stop, step=numbers_of.step, decimals=decimals
    )
    expected = [decimal_text(number, decimals) for number in numbers_of]
    assert list(found) == expected
    assert len(found) == len(expected)
    assert [found[i] for i in range(-len(expected), len(expected))] == expected * 2
    for index in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            found[index]


PIECES = st.sampled_from([
    *"ab01 ,;:=-~#/\\'\"[](){}<>|&$*?!%.", "--lr", "--cfg=", "{", "}", '{"a":', "}}", "{b:1}",
    "{0}", "{}", "{a,b}", "${x}", "${zz}", "{identifier}", "{slot}", "\n", "\t", "\xa0",
    "ü", "//x", "# x", "train.py", "python", "$(x)", "\\\n", "},{", "[64,64]", "{{zz", "[{", "}]",
])  # fmt: skip
KEY_LIKE = re.compile(r"\{\{|(?<!\$)\{(?!identifier|slot|directory|gpus)[^\W\d]\w*(:[^{}]*)?\}")


@pytest.mark.once
@examples(times(400, 5_000))
@given(st.lists(PIECES, max_size=12).map("".join))
def test_what_is_accepted_outside_a_sweep_means_the_same_inside(folder: Path, words: str) -> None:
    """But for `{{` with its `}}`, and for keys."""
    # No file, for the disk of a busy machine takes longer than all else
    in_memory = partial(compile_text, working_directory=folder, root=folder)
    job = f"[[python, t.py x{words}]]"
    try:
        outside = list(in_memory(f"EXEC\n{job}\n").jobs)
    except HermesFileError:
        reject()
    if len(outside) > 1 or any(map(KEY_LIKE.search, outside[0].argv)):
        reject()
    inside = list(in_memory(f"EXEC\nPROD({job}\n, zz=[1])\n").jobs)
    assert [each.argv for each in inside] == [each.argv for each in outside]
    assert [each.script for each in inside] == [each.script for each in outside]
