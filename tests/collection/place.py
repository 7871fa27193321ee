"""A working directory whose jobs are plain processes of a test, and a collector for them: no run,
no metadata.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from hermes.collection.collector import Collected, Collector
from hermes.model import ProblemKind
from hermes.storage.metadata import StoredFile

from ..support import LIMIT, Project

PUPPET = """\
import os, sys, time, traceback
identifier, folder = sys.argv[1], os.environ["HERMES_EXPERIMENT_DIR"]
scope = {"os": os, "time": time, "identifier": identifier, "folder": folder}
for line in sys.stdin:
    said = ""
    try:
        exec(bytes.fromhex(line), scope)
    except Exception:
        said = traceback.format_exc()
    print(said.encode().hex(), flush=True)
"""
"""A job that executes what it is told, line by line."""


both_ways = pytest.mark.parametrize(
    "watched", [True, False], ids=["watched", "final-scan"], indirect=True
)
"""Runs a test with notifications and without: in the end they make no difference."""


class FakeJob:
    """A job that may have a process. `collected` is known when it has been finished."""

    def __init__(self, place: Place, identifier: str) -> None:
        self.place = place
        self.identifier = identifier
        self.directory = place.experiments_folder / identifier
        self.directory.mkdir(parents=True)
        self.collected = Collected([], [], [])
        self.is_finished = False
        self.brought: list[StoredFile] = []
        """What options have brought."""

        self._process: subprocess.Popen[str] | None = None

    async def do(self, code: str) -> None:
        """Returns when the job's process has executed `code`, in which `identifier`, `folder` (its
        experiment directory) and `os` are known.
        """
        await anyio.to_thread.run_sync(self._do, code)

    def _do(self, code: str) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-E", "-c", PUPPET, self.identifier],
                cwd=self.place.path,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{code.encode().hex()}\n")
        self._process.stdin.flush()
        said = bytes.fromhex(self._process.stdout.readline()).decode()
        assert not said, said

    async def execute(self, *command: str) -> None:
        """Returns when a command has ended, whose last word is the identifier."""
        await anyio.run_process(
            [*command, self.identifier],
            cwd=self.place.working_directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
        )

    def end(self) -> None:
        """Ends the process."""
        if self._process is not None:
            # Leaving its block closes the pipes, which ends it, and waits for that
            with self._process:
                pass

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"HERMES_EXPERIMENT_DIR": str(self.directory)}

    @property
    def stored(self) -> dict[str, str]:
        """What the experiment directory holds, as `Project.tree` shows it."""
        return self.place.tree(self.directory)

    @property
    def files(self) -> dict[str, int]:
        return dict(self.collected.files)

    @property
    def problems(self) -> list[str]:
        return [problem.text for problem in self.collected.problems]

    @property
    def kinds(self) -> set[ProblemKind]:
        return {problem.kind for problem in self.collected.problems}

    def named(self, template: str) -> Path:
        """A path below the experiment directory, `@` in it standing for the identifier."""
        return self.directory / template.replace("@", self.identifier)

    def left(self, template: str) -> Path:
        """A path below the working directory, `@` in it standing for the identifier."""
        return self.place.path / template.replace("@", self.identifier)


class Place(Project):
    """A working directory and its collector. `watched` False: the final scan alone has to do."""

    def __init__(self, path: Path, *, watched: bool = True) -> None:
        super().__init__(path)
        self.watched = watched
        self.options: dict[str, Any] = {}
        """Given to the collector."""

        self.working_directory = str(path)
        self.announced: list[tuple[str, str]] = []
        self.warnings: list[str] = []
        self._thread = threading.get_ident()
        self._count = 0
        self._collector: Collector | None = None

    @property
    def collector(self) -> Collector:
        if self._collector is None:
            self._collector = Collector(
                working_directory=self.working_directory,
                experiments=str(self.experiments_folder),
                on_files=self._on_files,
                on_warning=self.warnings.append,
                **self.options,
            )
        return self._collector

    def _on_files(self, files: list[tuple[str, str]]) -> None:
        assert threading.get_ident() == self._thread, "not in the thread of the loop"
        self.announced += files

    def new_job(self) -> FakeJob:
        """A job without an own process; from now on its files are collected."""
        self._count += 1
        job = FakeJob(self, f"2021_07_25_{self._count:012d}_1930e")
        self.collector.add(job.identifier, str(job.directory))
        return job

    def finish(self, *jobs: FakeJob) -> None:
        """The final scan, one for all these jobs."""
        for job in jobs:
            job.end()
        collected = self.collector.finish([job.identifier for job in jobs])
        for job in jobs:
            job.collected = collected[job.identifier]
            job.is_finished = True

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Collects as files appear, if this place is watched."""
        stop = anyio.Event()
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as tasks:
                if self.watched:
                    tasks.start_soon(self.collector.watch, stop)
                try:
                    yield
                finally:
                    stop.set()

    @asynccontextmanager
    async def jobs(self, count: int = 1) -> AsyncIterator[list[FakeJob]]:
        """Jobs that do what the test tells them. Leaving the block finishes them, one after the
        other.
        """
        async with self.watching():
            jobs = [self.new_job() for _ in range(count)]
            try:
                yield jobs
            finally:
                for job in jobs:
                    if not job.is_finished:
                        await anyio.to_thread.run_sync(self.finish, job)

    @asynccontextmanager
    async def job(self) -> AsyncIterator[FakeJob]:
        async with self.jobs() as (job,):
            yield job

    async def execute(self, *command: str) -> FakeJob:
        """Runs a command as a job, its identifier being the last word, and finishes that."""
        async with self.job() as job:
            await job.execute(*command)
        return job

    async def run_script(self, name: str) -> FakeJob:
        """Runs a script of the working directory as a job; its last argument is the identifier."""
        python = [sys.executable, "-S", "-E"]
        return await self.execute(*(python if name.endswith(".py") else ["sh"]), name)
