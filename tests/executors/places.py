"""The places where the contract is tested. A new executor is one more class in PLACES.

Jobs are written in a small language that each place understands, so that one test is for all:
`make:NAME` makes a file NAME_identifier, `out:TEXT` and `err:TEXT` print a line, `note:TEXT`
appends a line to the file `ledger`, `count` prints how many jobs are at it at the same time, `hold`
waits as long as there is a file `hold`, `exit:N` ends the job.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

import hermes
from hermes.executors.base import Executor
from hermes.executors.fake import FakeExecutor, FakeJob

from ..support import Project

WAIT = 60.0
"""Seconds for a whole run: a cluster starts jobs once a second, and machines that test are busy."""

ACT = """\
identifier=$1
shift
for act in "$@"; do
    word=${act#*:}
    case $act in
        make:*) echo "$word" > "${word}_$identifier" ;;
        out:*) echo "$word" ;;
        err:*) echo "$word" >&2 ;;
        note:*) echo "$word" >> ledger ;;
        count) : > "running/$identifier"; ls running | wc -l; sleep 0.3; rm "running/$identifier" ;;
        hold) while [ -e hold ]; do sleep 0.02; done ;;
        exit:*) exit "$word" ;;
    esac
done
"""
"""What executes these jobs where they are processes."""


def act(*words: str) -> str:
    """An entry of EXEC."""
    return f"[[sh, act.sh, {' '.join(map(hermes.quote, words))}]]"


class Place:
    """Where jobs run in a test, as processes unless the class says otherwise."""

    name = ""
    collects = True
    """Whether files that carry the identifier come into the experiment directory."""

    def __init__(self, project: Project) -> None:
        self.project = project
        project.write("act.sh", ACT)
        (project.path / "running").mkdir()

    @property
    def options(self) -> dict[str, Any]:
        """What `open_run` and its kin are given beside the plan."""
        return {"working_directory": self.project.path, "root": self.project.path}

    @property
    def settings(self) -> dict[str, object]:
        """Of the hermes file."""
        return {"executor": self.name}

    async def run(
        self, *entries: str, threads: int = 4, arguments: str = "", **options: Any
    ) -> hermes.RunResult:
        """Executes jobs to their end."""
        path = self.hermes_file(*entries, threads=threads, arguments=arguments)
        with anyio.fail_after(WAIT):
            return await hermes.run_file(path, "test", **(self.options | options))

    def hermes_file(self, *entries: str, threads: int, arguments: str = "") -> os.PathLike[str]:
        settings = {**self.settings, "threads": threads}
        return self.project.hermes_file(*entries, settings=settings, arguments=arguments)

    def ledger(self) -> Sequence[str]:
        """What jobs have noted so far."""
        path = self.project.path / "ledger"
        return sorted(path.read_text().split()) if path.exists() else []

    def hold(self) -> None:
        self.project.write("hold")

    def release(self) -> None:
        (self.project.path / "hold").unlink()


class LocalPlace(Place):
    """This machine."""

    name = "local"


class SlurmPlace(Place):
    """The cluster that the tests of one process share."""

    name = "slurm"


class FakePlace(Place):
    """Functions in the event loop."""

    name = "fake"
    collects = False

    @property
    def options(self) -> dict[str, Any]:
        executor: Executor = FakeExecutor(self._behave)
        return {**super().options, "executor": executor}

    @property
    def settings(self) -> dict[str, object]:
        # No setting has its name
        return {}

    async def _behave(self, job: FakeJob) -> int:
        running = self.project.path / "running" / job.identifier
        for act in job.argv[3:]:
            kind, _, word = act.partition(":")
            if kind == "make":
                job.write(f"{word}_{job.identifier}", f"{word}\n")
            elif kind in ("out", "err"):
                job.write(f"std{kind}.log", f"{word}\n")
            elif kind == "note":
                with (self.project.path / "ledger").open("a") as file:
                    file.write(f"{word}\n")
            elif kind == "count":
                running.touch()
                job.write("stdout.log", f"{len(list(running.parent.iterdir()))}\n")
                await anyio.sleep(0.05)
                running.unlink()
            elif kind == "hold":
                await self.project.until(lambda: not (self.project.path / "hold").exists())
            elif kind == "exit":
                return int(word)
        return 0


PLACES: dict[str, type[Place]] = {each.name: each for each in (LocalPlace, FakePlace, SlurmPlace)}

PROCESSES = [name for name in PLACES if name != "fake"]
"""Places where jobs are processes, and which a setting or an option of the command can name."""


def use(name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a place available to whatever this test starts."""
    if name == "slurm":
        for variable, value in request.getfixturevalue("cluster").env.items():
            monkeypatch.setenv(variable, value)
