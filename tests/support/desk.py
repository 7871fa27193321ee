"""Hermes as people use it: the command in a folder of its own, and a terminal that shows what it
prints.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hermes import Status
from hermes.executors.proc import processes_of

from .project import Project
from .terminal import Terminal
from .waiting import LIMIT
from .words import IDENTIFIER

T = TypeVar("T")

HERMES = (sys.executable, "-m", "hermes")

LEFT_BEHIND = "left processes behind: "
"""What stands before the process ids in a problem that names them."""

UNWANTED = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "PYTEST_CURRENT_TEST")


MakeDesk = Callable[[str], "Desk"]
"""The fixture `make_desk`."""


def environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """The environment of a person at a terminal with colours; None takes a variable away."""
    found: dict[str, str | None] = {
        **os.environ,
        **dict.fromkeys(UNWANTED),
        "TERM": "xterm-256color",
        **(changes or {}),
    }
    return {name: value for name, value in found.items() if value is not None}


class Desk(Project):
    """A working directory, and the command `hermes` in it."""

    def command(self, *arguments: str) -> list[str]:
        """A call of `hermes`."""
        return [*HERMES, *arguments]

    def hermes(
        self,
        *arguments: str,
        code: int = 0,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Calls `hermes`, which has to end with this exit code."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=cwd or self.path,
            env=environment(env),
            **(
                ({} if "input" in options else {"stdin": subprocess.DEVNULL})
                | {
                    "capture_output": True,
                    "timeout": LIMIT,
                    "check": False,
                    "text": True,
                }
                | options
            ),
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    @contextmanager
    def started(self, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """A call of `hermes` that goes on in the background; it is killed if the test leaves it
        behind.
        """
        pipes = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
        }
        with subprocess.Popen(
            self.command(*arguments), cwd=self.path, env=environment(), **(pipes | options)
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def terminal(
        self,
        *arguments: str,
        rows: int = 24,
        columns: int = 100,
        env: Mapping[str, str | None] | None = None,
    ) -> Terminal:
        return Terminal(self.command(*arguments), self.path, environment(env), rows, columns)


def check_always(desk: Desk, *said: str) -> None:
    """What holds after every fault; `said` is what Hermes printed. Jobs that have no final status
    yet get one by `hermes resume`.
    """
    told = list(said)
    for run_id in sorted(
        {str(each["run_id"]) for each in all_metadata(desk) if each["status"] == Status.RUNNING}
    ):
        with desk.started("resume", run_id) as resumed:
            told += resumed.communicate(timeout=LIMIT)
        assert resumed.returncode in (0, 1), told[-1]
    traces = [text for text in told if "Traceback" in text]
    assert not traces, traces[0]
    metadata = all_metadata(desk)
    assert [
        each["identifier"]
        for each in metadata
        if each["status"] not in set(Status) - {Status.RUNNING}
    ] == []
    identifiers = [
        folder.name
        for folder in desk.experiments_folder.glob("*/*/*/")
        if IDENTIFIER.fullmatch(folder.name)
    ]
    assert [identifier for identifier, count in Counter(identifiers).items() if count > 1] == []
    # A process that the metadata tell of may live on, but none of which nobody knows
    problems = [
        problem
        for each in metadata
        for problem in (each["text"] for each in each["problems"])
        if problem.startswith(LEFT_BEHIND)
    ]
    known = {
        int(pid) for problem in problems for pid in problem.removeprefix(LEFT_BEHIND).split(", ")
    }
    runs = {str(each["run_id"]) for each in metadata} | {
        path.name for path in desk.experiments_folder.glob(".hermes/*/")
    }
    alive = {
        pid
        for run_id, pids in processes_of("HERMES_RUN_ID").items()
        if run_id in runs
        for pid in pids
    }
    assert alive <= known


def all_metadata(desk: Desk) -> list[dict[str, Any]]:
    """The metadata of all experiments, each of which has to be whole."""
    found = []
    for path in sorted(desk.experiments_folder.glob("*/*/*/hermes.json")):
        metadata = json.loads(path.read_bytes())
        assert metadata["identifier"] == path.parent.name
        found.append(metadata)
    return found
