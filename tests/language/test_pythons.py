"""Which program executes the script, behind launchers too."""

from __future__ import annotations

import shlex

import pytest

from hermes.language.pythons import Interpreter, interpreter_of, of_first_line


@pytest.mark.parametrize(
    ("command", "word", "chosen_by"),
    [
        ("python train.py", "python", None),
        ("/opt/conda/bin/python3.12 -u train.py", "/opt/conda/bin/python3.12", None),
        ("./train.py", "./train.py", None),
        ("sh job.sh", "sh", None),
        ("nice -n 5 nohup stdbuf -oL python train.py", "python", None),
        ("env A=1 B=2 timeout -k 5 60 python train.py", "python", None),
        ("srun -n 1 python train.py", "python", None),
        ("nice", "nice", None),
        ("env", "env", None),
        # An environment of its own
        ("env PATH=/x python train.py", None, "env"),
        ("env PYTHONPATH=lib python train.py", None, "env"),
        ("env -i python train.py", None, "env"),
        ("env -i sh job.sh", None, None),
        ("conda run -n x python train.py", None, "conda"),
        ("docker run image python train.py", None, "docker"),
        ("docker run image nice python train.py", None, "docker"),
        ("docker run image ./train", None, None),
        # Python scripts themselves, or programs that choose one
        ("torchrun --nnodes 1 train.py", "torchrun", "torchrun"),
        ("nice accelerate launch train.py", "accelerate", "accelerate"),
        ("uv run train.py", "uv", "uv"),
        ("poetry run torchrun train.py", None, "poetry"),
    ],
)
def test_the_interpreter(command: str, word: str | None, chosen_by: str | None) -> None:
    assert interpreter_of(shlex.split(command)) == Interpreter(word, chosen_by)


@pytest.mark.parametrize(
    ("line", "python"),
    [
        (b"#!/usr/bin/python3\n", "/usr/bin/python3"),
        (b"#! /venv/bin/python -u\n", "/venv/bin/python"),
        (b"#!/usr/bin/env python3\n", "python3"),
        (b"#!/usr/bin/env -S A=1 python3 -u\n", "python3"),
        (b"#!/bin/sh\n", None),
        (b"#!/usr/bin/env bash\n", None),
        (b"#!\n", None),
        (b"\x7fELF\x02", None),
        (b"", None),
        (b"import sys  # python\n", None),
    ],
)
def test_a_script_names_its_python(line: bytes, python: str | None) -> None:
    assert of_first_line(line) == python
