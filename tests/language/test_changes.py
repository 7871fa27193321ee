"""Jobs with parameters and arguments changed."""

from __future__ import annotations

import os

import pytest

import hermes
from hermes.language.changes import changed
from hermes.language.writing import re_execution
from hermes.model import Job

SWEPT = """\
STD-E
--gamma 0.9 --verbose
EXEC
PROD([[nice, python t.py, --lr {lr:.2f} --layers 64 32, '--cfg={{"a": 1}}', --env={env} a.csv k=v]],
    lr=[1], env=[pong])
"""
PLAIN = "EXEC\n[[python t.py, -x 1 -x 2 --amp, --tag '{a}' -b -5 name={identifier}]]\n"


def job_of(text: str) -> Job:
    (job,) = hermes.compile_text(text).jobs
    return job


def command(text: str, **changes: str) -> str:
    """The command of the job, changed, as the hermes file says that is written of it."""
    plan = hermes.compile_text(text)
    job, _ = changed(job_of(text), changes)
    written = re_execution(job, plan.settings, os.curdir)
    return next(iter(hermes.compile_text(written).jobs)).shell


@pytest.mark.parametrize(
    ("changes", "old", "new"),
    [
        ({"lr": "0.125"}, "--lr 1.00", "--lr 0.12"),
        ({"param:lr": "2"}, "--lr 1.00", "--lr 2.00"),
        ({"arg:lr": "2"}, "--lr 1.00", "--lr 2.00"),
        ({"env": "maze one"}, "--env=pong", "'--env=maze one'"),
        ({"gamma": "1"}, "--gamma 0.9", "--gamma 1"),
        ({"verbose": "false"}, " --verbose", ""),
        ({"verbose": "true"}, "", ""),
        ({"verbose": "2"}, "--verbose", "--verbose 2"),
        ({"layers": "1 2"}, "--layers 64 32", "--layers 1 2"),
        ({"layers": "1"}, "--layers 64", "--layers 1"),
        ({"cfg": '{"b": {}}'}, '{"a": 1}', '{"b": {}}'),
        ({"k": "{w}"}, "k=v", "'k={w}'"),
        ({"k": "a=b", "gamma": "", "lr": "3"}, "", None),
    ],
)
def test_one_place_changes(changes: dict[str, str], old: str, new: str | None) -> None:
    before = command(SWEPT)
    after = command(SWEPT, **changes)
    if new is not None:
        assert after == (before.replace(old, new) if old else before)
    else:
        assert "--gamma ''" in after
        assert "--lr 3.00" in after
        assert "k=a=b" in after
    plan = hermes.compile_text(SWEPT)
    job, told = changed(job_of(SWEPT), changes)
    assert len(told) == len(changes)
    # What is not changed is the same job, with the same key
    assert dict(job.parameters).keys() == {"lr", "env"}
    assert plan.settings == hermes.compile_text(re_execution(job, plan.settings, ".")).settings


def test_outside_of_sweeps() -> None:
    before = command(PLAIN)
    assert command(PLAIN, tag="{b}") == before.replace("{a}", "{b}")
    assert command(PLAIN, b="-7") == before.replace("-b -5", "-b -7")
    assert command(PLAIN, amp="false") == before.replace(" --amp", "")


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        (PLAIN, {"x": "3"}, "`x` is given 2 times: `-x 1`, `-x 2`"),
        (PLAIN, {"taq": "3"}, "no parameter and no argument `taq`"),
        (SWEPT, {"param:gamma": "3"}, "no parameter and no argument `param:gamma`"),
        (SWEPT, {"layers": "1 2 3"}, "`--layers 64 32` has 2 values, and `1 2 3` is 3"),
    ],
)
def test_mistakes(text: str, changes: dict[str, str], message: str) -> None:
    with pytest.raises(hermes.HermesError) as caught:
        changed(job_of(text), changes)
    assert message in caught.value.message
    if "taq" in changes:
        assert caught.value.hint == "did you mean `tag`?"


def test_changes_that_the_command_does_not_show_are_told() -> None:
    text = "EXEC\nPROD([[python t.py, {amp}],[-ca m_{size}0.txt]], amp=[''], size=[12])\n"
    _, told = changed(job_of(text), {"amp": "--amp", "size": "13"})
    assert [line for line in told if line.startswith("warning")] == [
        "warning: `{amp}` stands nowhere in the command as it was: only HERMES_PARAM_AMP changes",
        "warning: `{size}` stands nowhere in the command as it was: only HERMES_PARAM_SIZE changes",
        "warning: the path `m_120.txt` of an option stays as it is",
    ]
