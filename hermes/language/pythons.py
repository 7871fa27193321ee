"""Which word of a command is the program that executes the script, as far as that can be told."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from .launchers import PYTHONS, launcher_of
from .scripts import behind_launcher

SAME_PROGRAMS = frozenset({
    "env", "nice", "ionice", "nohup", "time", "timeout", "gtimeout", "stdbuf", "unbuffer", "setsid",
    "setarch", "chrt", "taskset", "numactl", "prlimit", "flock", "xvfb-run", "catchsegv",
    "caffeinate", "ltrace", "strace", "valgrind", "perf", "nsys", "ncu", "py-spy", "srun", "mpirun",
    "mpiexec", "mpiexec.hydra", "mpirun.openmpi", "orterun", "prterun",
})  # fmt: skip
"""Launchers behind which a name stands for the same program as before them. Others choose an
environment of their own, as `uv run` and `docker run` do."""

_OTHER_PROGRAMS = re.compile(r"(?!\w+=)|(?:PATH|PYTHON\w*)=", re.ASCII)
"""Words of `env` behind which that is not so: options and these variables."""


class Interpreter(NamedTuple):
    """`word` is the program: a Python, a script of one, or neither. `chosen_by` is the launcher
    that chooses the Python, if `word` is None or neither."""

    word: str | None
    chosen_by: str | None = None


def interpreter_of(words: Sequence[str]) -> Interpreter:
    """The program behind the launchers of a command."""
    at, chosen_by = 0, None
    while (launcher := launcher_of(words[at])) is not None and not launcher.runs_python:
        behind = behind_launcher(words, at, launcher)
        if behind is None or behind >= len(words):
            break
        name = os.path.basename(words[at])
        keeps = name in SAME_PROGRAMS and not (
            name == "env" and any(map(_OTHER_PROGRAMS.match, words[at + 1 : behind]))
        )
        chosen_by = chosen_by or (None if keeps else name)
        at = behind
    name = os.path.basename(words[at])
    if launcher is not None and launcher.runs_python:
        # Either a Python script itself, as `torchrun` is, or it chooses one, as `uv run` does
        return Interpreter(None if chosen_by else words[at], chosen_by or name)
    if chosen_by is None:
        return Interpreter(words[at])
    return Interpreter(None, chosen_by if is_python(name) else None)


def is_python(word: str) -> bool:
    """Whether a program is called like a Python."""
    return PYTHONS.match(os.path.basename(word)) is not None


def of_first_line(line: bytes) -> str | None:
    """The Python that the first line of a script names; None if it names none."""
    words = line[2:].decode("utf-8", "surrogateescape").split() if line[:2] == b"#!" else []
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    return words[0] if words and is_python(words[0]) else None
