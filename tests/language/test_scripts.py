"""Which word of a command is its script."""

from __future__ import annotations

import random
import shlex
from pathlib import Path

import pytest

from hermes.language.compiling import compile_command
from hermes.language.plan import Plan
from hermes.language.writing import quote
from hermes.model import PLACEHOLDER

from .helpers import (
    GOLDEN,
    compiled,
    only_job,
    problems,
)

COMMANDS = [
    line
    for line in (GOLDEN / "commands.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


def check(plan: Plan, golden: str) -> None:
    """That the identifier, and the folder, are those of a line of the golden commands."""
    folder, _, command = golden.removeprefix("!").partition(": ")
    job = only_job(plan)
    assert (job.script, list(job.argv)) == (folder, shlex.split(command))
    assert any("is no script" in text for text in plan.warnings) == golden.startswith("!")


@pytest.mark.once
@pytest.mark.parametrize("golden", COMMANDS)
def test_script_is_found_however_items_are_cut(tmp_path: Path, golden: str) -> None:
    words = shlex.split(golden.partition(": ")[2])
    words.remove(PLACEHOLDER)
    check(compile_command(shlex.join(words), working_directory=tmp_path, root=tmp_path), golden)
    chance = random.Random(golden)
    whole = [" ".join(map(quote, words))]
    for items in (whole, [*map(quote, words)], *(cut(words, chance) for _ in range(5))):
        job = f"[[{', '.join(items)}]]"
        check(compiled(tmp_path, f"EXEC\n{job}\n"), golden)
        check(compiled(tmp_path, f"EXEC\nPROD({job}, repeat=[1])\n"), golden)


def cut(words: list[str], chance: random.Random) -> list[str]:
    """Items of one or more words, cut anywhere."""
    items = [quote(words[0])]
    for word in words[1:]:
        if chance.random() < 0.5:
            items.append(quote(word))
        else:
            items[-1] += f" {quote(word)}"
    return items


def test_there_are_enough_golden_commands() -> None:
    assert len(set(COMMANDS)) == len(COMMANDS) >= 60


@pytest.mark.parametrize(
    ("items", "script"),
    [
        ("tool --fast, train.py", "train"),
        ("tool --fast, fit.m", "fit.m"),
        ("tool --fast, here", "here"),
        ("tool --fast, nowhere", "tool"),
        ("tool --fast, '{x}.sh'", "tool"),
        ("tool a.py, b.sh", "b.sh"),
        ("tool a.py, -x b.sh", "a"),
        ("python a.py, b.sh", "a"),
        ("tool --config a.py", "tool"),
    ],
)
def test_second_item_may_be_the_script(tmp_path: Path, items: str, script: str) -> None:
    (tmp_path / "here").touch()
    assert only_job(compiled(tmp_path, f"EXEC\n[[{items}]]\n")).script == script


@pytest.mark.parametrize(
    ("entry", "warned"),
    [
        ("[[python, -c 'print()']]", []),
        ("[[bash, -c 'train {identifier}']]", []),
        ("[[touch {identifier}]]", []),
        ("[[python, train.py]]", []),
        ("[[train, -x]]", ["train"]),
        ("PROD([[{p}, -u]], p=[python3, tool, ruby, touch])", ["python3", "tool", "ruby", "touch"]),
    ],
)
def test_program_that_gets_the_identifier_is_warned_about(
    tmp_path: Path, entry: str, warned: list[str]
) -> None:
    plan = compiled(tmp_path, f"EXEC\n{entry}\n")
    assert list(plan.warnings) == [
        f"x.hermes:2: `{word}` is no script, and gets the identifier as its first argument; "
        "write `{identifier}` where it belongs, or `identifier: none` in PRE"
        for word in warned
    ]
    assert compiled(tmp_path, f"PRE\nidentifier: none\nEXEC\n{entry}\n").warnings == ()


def test_identifier_can_be_kept_away(tmp_path: Path) -> None:
    text = "PRE\nidentifier: none\nSTD-E\n-g 1\nEXEC\n[[python, train.py, -x]]\n[[t {identifier}]]"
    jobs = list(compiled(tmp_path, text).jobs)
    assert [job.argv for job in jobs] == [
        ("python", "train.py", "-g", "1", "-x"),
        ("t", "-g", "1", PLACEHOLDER),
    ]
    assert jobs[0].items == (("python",), ("train.py",), ("-x",))
    assert jobs[0].arguments == ("-g", "1", "-x")


@pytest.mark.parametrize(
    ("job", "missing"),
    [
        ("python, train.py", "train.py"),
        ("python, train", "train"),
        ("python -u, train", "train"),
        ("python train", "train"),
        ("/usr/bin/env python, exp/train", "exp/train"),
        ("env python, exp/train", "exp/train"),
        ("env python, train.py", "train.py"),
        ("nice -n 5 bash run.sh", "run.sh"),
        ("env, train", None),
        ("python, -m train", None),
        ("python -m, train.now", None),
        ("python, -c 'x.py'", None),
        ("env -m, a/b.py", None),
        ("env -C x python, {identifier}.py", None),
        ("ssh node python train.py", None),
        ("apptainer exec image.sif python train.py", None),
        ("torchrun train.py", None),
    ],
)
def test_script_words_that_count_as_files(tmp_path: Path, job: str, missing: str | None) -> None:
    found = [
        text for text in problems(compiled(tmp_path, f"EXEC\n[[{job}]]\n")) if "script" in text
    ]
    assert found == ([] if missing is None else [f"script file `{missing}` does not exist"])
