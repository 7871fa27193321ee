"""Compiling: what a plan tells, and that any text gives a plan or an error."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shlex
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hermes.errors import HermesError, HermesFileError, PlanError
from hermes.language.compiling import compile_command, compile_file, from_recipe
from hermes.model import PLACEHOLDER

from ..support import RecordProperty, times
from .helpers import (
    GOLDEN,
    JOB,
    check_re_execution,
    compiled,
    examples,
    mutated,
    only_job,
    problems,
    random_bytes,
    random_text,
    tree,
    values,
    write,
)


def test_compiling_is_pure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    write(inner / "my sweep.hermes", JOB)
    before = tree(tmp_path)
    plan = compile_file("my sweep.hermes", root=tmp_path)
    assert list(plan.jobs) == list(plan.jobs)
    assert tree(tmp_path) == before
    assert Path.cwd() == inner
    assert (plan.path, plan.working_directory, plan.default_name) == (
        "my sweep.hermes",
        inner,
        "my sweep",
    )
    assert plan.sha256 == hashlib.sha256(JOB.encode()).hexdigest()


@pytest.mark.parametrize("name", ["missing.hermes", "", "a\0b", "x" * 5000, "/dev/zero"])
def test_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(HermesError, match="cannot read"):
        compile_file(name, working_directory=tmp_path)


def test_command_is_a_file_with_one_job(tmp_path: Path) -> None:
    plan = compile_command(
        "python train.py --text 'two words' -x \"it's\"",
        working_directory=tmp_path,
        root=tmp_path,
        threads=2,
    )
    job = only_job(plan)
    assert job.argv == ("python", "train.py", PLACEHOLDER, "--text", "two words", "-x", "it's")
    assert (job.script, plan.path, plan.default_name, plan.settings.threads) == (
        "train",
        None,
        "command",
        2,
    )


@pytest.mark.once
@examples(100)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
        min_size=1,
        max_size=6,
    )
)
@example(["python", "a\r\nb"])
@example(["EXEC"])
def test_command_keeps_its_words(folder: Path, words: list[str]) -> None:
    job = only_job(compile_command(shlex.join(words), working_directory=folder, root=folder))
    assert [
        word for item in job.items for word in item if word != "{identifier}" or word in words
    ] == words


@pytest.mark.parametrize("command", ["", "  ", "python 'train.py", "python \\", "python a\0b"])
def test_bad_command(tmp_path: Path, command: str) -> None:
    with pytest.raises(HermesError):
        compile_command(command, working_directory=tmp_path, root=tmp_path)


def test_recipe_makes_the_same_plan_when_the_files_have_changed(tmp_path: Path) -> None:
    (tmp_path / ".hermes_settings").write_text("threads: 3\n")
    (tmp_path / "a.hermes").write_text("STD-E\n-x 1\nEXEC\nPROD([[python, t.py, {n}]], n=[a, b])\n")
    plan = compile_file("a.hermes", working_directory=tmp_path, comments=["c"], supervise=False)
    recipe = json.loads(json.dumps(plan.recipe))
    (tmp_path / ".hermes_settings").write_text("threads: 5\n")
    (tmp_path / "a.hermes").unlink()
    again = from_recipe(recipe)
    assert list(again.jobs) == list(plan.jobs)
    assert (again.settings, again.sha256, again.experiments) == (
        plan.settings,
        plan.sha256,
        plan.experiments,
    )


def test_job_gives_its_command_and_arguments(tmp_path: Path) -> None:
    job = only_job(compiled(tmp_path, "STD-E\n-g 1\nEXEC\n[[python, train.py, -x]]\n"))
    assert job.command(values("ID")) == ["python", "train.py", "ID", "-g", "1", "-x"]
    assert job.argv[job.position] == "train.py"
    assert job.arguments == ("-g", "1", "-x")
    placed = only_job(
        compiled(tmp_path, "EXEC\n[[python, train.py, --id={identifier}/{identifier}]]\n")
    )
    assert placed.command(values("ID")) == ["python", "train.py", "--id=ID/ID"]


def test_what_stands_in_braces_gets_its_value_when_the_job_starts(tmp_path: Path) -> None:
    words = "{slot}-{gpus} out={directory}/x {identifier} ${slot} '$'{slot} {{slot}} {slots}"
    job = only_job(compiled(tmp_path, f"EXEC\n[[python, train.py, {words}]]\n"))
    assert job.command(values("ID")) == [
        "python", "train.py", "3-0,1", "out=/e/ID/x", "ID", "${slot}", "${slot}", "{3}", "{slots}",
    ]  # fmt: skip
    assert not job.is_given
    swept = only_job(
        compiled(tmp_path, "EXEC\nPROD([[python, {a}.py, {slot}{a} ${identifier}]], a=[x])\n")
    )
    assert swept.command(values("ID")) == ["python", "x.py", "ID", "3x", "${identifier}"]


def test_arguments_are_what_says_what_the_job_is(tmp_path: Path) -> None:
    words = "--name {identifier} --lr 1 run={directory} --out {directory}/x {slot} --port {slot}"
    job = only_job(compiled(tmp_path, f"EXEC\n[[python, train.py, {words} -v]]\n"))
    assert job.arguments == ("--lr", "1", "--out", "{directory}/x", "-v")


@pytest.mark.parametrize(
    ("command", "files"),
    [
        ("python train.py", (0, 1)),
        ("./train.sh -x", (0,)),
        ("nice -n 5 ./bin/python -u train.py", (0, 3, 5)),
        ("python -m train", (0,)),
        ("python -c code", (0,)),
        ("docker run image python train.py", (0,)),
        ("torchrun --nproc-per-node 2 train.py", (0, 3)),
        ("torchrun -m train", (0, 1)),
        ("echo train", (0,)),
    ],
)
def test_program_and_script_that_are_files_here(
    command: str, files: tuple[int, ...], tmp_path: Path
) -> None:
    assert only_job(compiled(tmp_path, f"EXEC\n[[{command}]]\n")).files == files


@pytest.mark.fault(22)
def test_nothing_unprintable_reaches_a_terminal(tmp_path: Path) -> None:
    for text in (
        "EXEC\n\x1b[31m\n",
        "PRE\nthre\x1bads: 1\n" + JOB,
        "PRE\nthreads: \x07\n" + JOB,
        "EXEC\n[[t],[-\x1b]]\n",
    ):
        with pytest.raises(HermesFileError) as caught:
            compiled(tmp_path, text)
        assert all(line.isprintable() for line in str(caught.value).split("\n"))
    write(tmp_path / "train\x1b.py", "")
    scripts = ["trainx.py"]
    if sys.platform == "linux":
        # Elsewhere file systems may refuse names that are not UTF-8
        os.close(os.open(os.fsencode(tmp_path) + b"/\xffeval.py", os.O_CREAT | os.O_WRONLY))
        scripts.append("xeval.py")
    for script in scripts:
        with pytest.raises(PlanError) as caught_plan:
            compiled(tmp_path, f"EXEC\n[[python, {script}]]\n").check("name")
        assert "did you mean" in str(caught_plan.value)
        assert all(line.isprintable() for line in str(caught_plan.value).split("\n"))


@pytest.mark.once
@pytest.mark.fault(20)
@pytest.mark.parametrize("seed", range(10))
def test_any_text_gives_a_plan_or_an_error(
    tmp_path: Path, record_property: RecordProperty, seed: int
) -> None:
    chance = random.Random(seed)
    work, twins = tmp_path / "work", tmp_path / "twins"
    work.mkdir()
    twins.mkdir()
    tried = times(100, 1000)
    record_property("tried", tried)
    corpus = [file.read_bytes() for file in sorted(GOLDEN.glob("good/*.hermes"))]
    plans = 0
    errors = []
    for _ in range(tried):
        kinds = (
            lambda: mutated(chance.choice(corpus), chance),
            lambda: random_text(chance),
            lambda: random_bytes(chance),
        )
        data = chance.choices(kinds, (75, 15, 10))[0]()
        (work / "fuzz.hermes").write_bytes(data)
        # Of this process alone: the others on this machine are none of its business
        began = time.process_time()
        try:
            plan = compile_file("fuzz.hermes", working_directory=work, root=work)
            jobs = list(islice(plan.jobs, 20))
            problems(plan)
        except HermesError as error:
            errors.append(str(error))
            continue
        finally:
            assert time.process_time() - began < 1, data
        plans += 1
        assert plan.count >= len(jobs) >= 1
        assert isinstance(plan.warnings, tuple)
        for job in jobs[:2]:
            check_re_execution(twins, job, plan.settings)
    assert os.listdir(work) == ["fuzz.hermes"]
    assert all(re.match(r"error: .*\n +--> fuzz.hermes:\d+:\d+\n", error) for error in errors)
    assert all(line.isprintable() for error in errors for line in error.split("\n"))
    # Texts that are all wrong would test little
    assert plans > 3
