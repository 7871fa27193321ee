"""Which word of a command is its script."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from hermes.language.plan import compile_command

from .helpers import (
    compiled,
    only_job,
    problems,
)


@pytest.mark.parametrize(
    ("command", "script", "argv"),
    [
        ("python train.py --lr 1,2", "train", "python train.py {identifier} --lr 1,2"),
        ("python -u train.py x", "train", "python -u train.py {identifier} x"),
        ("python -m pkg.train -x", "pkg.train", "python -m pkg.train {identifier} -x"),
        ("bash -c 'exit 3' x", "bash", "bash -c 'exit 3' {identifier} x"),
        ("bash -c 'echo {identifier}'", "bash", "bash -c 'echo {identifier}'"),
        ("./run.sh a", "run.sh", "./run.sh {identifier} a"),
        ("hostname", "hostname", "hostname {identifier}"),
    ],
)
def test_command_finds_its_script(tmp_path: Path, command: str, script: str, argv: str) -> None:
    job = only_job(compile_command(command, working_directory=tmp_path, root=tmp_path))
    assert (job.script, list(job.argv)) == (script, shlex.split(argv))


@pytest.mark.parametrize(
    ("entry", "warned"),
    [
        ("[[python, -c 'print()']]", ["python"]),
        ("[[bash, -c 'train > log']]", ["bash"]),
        ("[[bash, -c 'train {identifier}']]", []),
        ("[[python, train.py]]", []),
        ("[[train, -x]]", []),
        ("PROD([[{p}, -u]], p=[python3, tool, ruby])", ["python3", "ruby"]),
    ],
)
def test_interpreter_that_gets_the_identifier_is_warned_about(
    tmp_path: Path, entry: str, warned: list[str]
) -> None:
    plan = compiled(tmp_path, f"EXEC\n{entry}\n")
    assert list(plan.warnings) == [
        f"x.hermes:2: `{word}` itself gets the identifier as its first argument; "
        "write `{identifier}` where the script expects it"
        for word in warned
    ]


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
        ("env, train", None),
        ("python, -m train", None),
        ("python -m, train.now", None),
        ("env -m, a/b.py", None),
        ("python, {identifier}.py", None),
    ],
)
def test_script_words_that_count_as_files(tmp_path: Path, job: str, missing: str | None) -> None:
    found = [
        text for text in problems(compiled(tmp_path, f"EXEC\n[[{job}]]\n")) if "script" in text
    ]
    # A path as the first word is a program and a script at once
    expected = (
        []
        if missing is None or job.startswith("/")
        else [f"script file `{missing}` does not exist"]
    )
    assert found == expected
