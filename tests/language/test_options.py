"""Hermes options: the table, and what a job's options come to."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import fields

from hermes.errors import HermesFileError
from hermes.language.options import FLAGS, OPTIONS
from hermes.model import Options

from .helpers import (
    compiled,
    only_job,
    readme_table,
)


def test_comments_of_the_call_come_last(tmp_path: Path) -> None:
    text = "STD-H\n-c first\nEXEC\nPROD([[python, train.py],[-c {n}]], n=[1, 2])\n"
    plan = compiled(tmp_path, text, comments=["last", "{n}"])
    assert [job.options.comments for job in plan.jobs] == [
        ("first", "1", "last", "{n}"),
        ("first", "2", "last", "{n}"),
    ]


def only_options(folder: Path, words: str) -> Options:
    return only_job(compiled(folder, f"EXEC\n[[t],[{words}]]\n")).options


def test_readme_lists_the_options_of_the_table() -> None:
    rows = [("option", "meaning")]
    for option in OPTIONS:
        value = f" [{option.kind.metavar}]" if option.alone else f" {option.kind.metavar}"
        long = option.long + (value if option.field else "")
        rows.append((f"`{option.short}`, `{long}`", option.meaning))
    assert readme_table("### Hermes options") == rows


def test_the_table_sets_every_field_of_options() -> None:
    default = Options()
    assert {option.field for option in OPTIONS} - {None} == {each.name for each in fields(Options)}
    assert len(FLAGS) == 2 * len(OPTIONS)
    for option in OPTIONS:
        if option.field is not None:
            assert isinstance(getattr(default, option.field), tuple) == option.repeatable


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", Options()),
        ("-cb a --copy-before b", Options(copy_before=("a", "b"))),
        ("--copy-before=a -ca -x", Options(copy_before=("a",), copy_after=("-x",))),
        ("-l", Options()),
        ("-l no", Options(log=False)),
        ("-l no -l", Options()),
        ("--log=off -c x", Options(log=False, comments=("x",))),
        ("-l perhaps -l no", Options(log=False)),
        ("-c ''", Options(comments=("",))),
        ("-leg -c a=b --legacy", Options(comments=("a=b",))),
        ("-m -ca a --message", Options(copy_after=("a",))),
        ("-ca=a -l=no -c=", Options(copy_after=("a",), log=False, comments=("",))),
        ("-c -c=x", Options(comments=("-c=x",))),
        ("-s '-p gpu --mem 1G'", Options(slurm=("-p gpu --mem 1G",))),
    ],
)
def test_words_give_options(tmp_path: Path, words: str, expected: Options) -> None:
    assert only_options(tmp_path, words) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-ca", "`-ca` needs a path after it"),
        ("-ca -cb x", "`-ca` needs a path after it"),
        ("--move-after=", "`--move-after` needs a path after it"),
        ("-c", "`-c` needs a text after it"),
        ("-s", "`-s` needs options of `sbatch` after it"),
        ("-s gpu", "bad value `gpu` for `-s`: expected `sbatch` options, such as `--time=2:00:00`"),
        (
            "-s --wait",
            "bad value `--wait` for `-s`: `--wait` is what Hermes itself gives to `sbatch`",
        ),
        ("-s -D/x", "bad value `-D/x` for `-s`: `-D` is what Hermes itself gives to `sbatch`"),
        ("-l perhaps", "bad value `perhaps` for `-l`: expected `true` or `false`"),
    ],
)
def test_words_that_give_no_options(tmp_path: Path, words: str, message: str) -> None:
    with pytest.raises(HermesFileError) as caught:
        only_options(tmp_path, words)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-ca {x}", "`-ca` needs a path, a value of the sweep gives none"),
        ("-s {x}", "bad value `no` for `-s`: expected `sbatch` options, such as `--time=2:00:00`"),
        ("-l {x}", "bad value `` for `-l`: expected `true` or `false`"),
    ],
)
def test_values_of_a_sweep_that_give_no_options(tmp_path: Path, words: str, message: str) -> None:
    with pytest.raises(HermesFileError) as caught:
        compiled(tmp_path, f"EXEC\nPROD([[t],[{words}]], x=['', no])\n")
    assert caught.value.message == message


def test_options_as_json_leave_out_what_only_a_cluster_knows() -> None:
    assert Options(copy_after=("a",)).as_json() == {
        "copy_after": ["a"],
        "copy_before": [],
        "move_after": [],
        "log": True,
        "comments": [],
    }
    assert Options(slurm=("-p gpu",)).as_json()["slurm"] == ["-p gpu"]
