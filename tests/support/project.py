"""A working directory of a test, and what a test does with it: puts jobs into it, runs them, looks
at what they left.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import anyio

import hermes

from .waiting import LIMIT
from .words import PYTHON

T = TypeVar("T")

PUPPET = """\
import os, sys, time, traceback
identifier, control = sys.argv[1], sys.argv[2]
folder = os.environ["HERMES_EXPERIMENT_DIR"]
strings = control + "/" + identifier
scope = {"os": os, "time": time, "identifier": identifier, "folder": folder}
os.makedirs(strings)
step = 0
while True:
    step += 1
    order = strings + "/%d" % step
    while not os.path.exists(order + ".py"):
        time.sleep(0.002)
    said = ""
    try:
        with open(order + ".py") as file:
            exec(file.read(), scope)
    except Exception:
        said = traceback.format_exc()
    with open(order + ".tmp", "w") as file:
        file.write(said)
    os.rename(order + ".tmp", order + ".done")
"""
"""A job that does what the test tells it, step by step."""


class Puppet:
    """A running job that does what it is told."""

    def __init__(self, project: Project, run: hermes.Run, strings: Path) -> None:
        self.project = project
        self.run = run
        self.identifier = strings.name
        (metadata,) = project.experiments_folder.glob(f"*/*/{self.identifier}/hermes.json")
        self.directory = metadata.parent
        self._strings = strings
        self._step = 0

    async def do(self, code: str) -> None:
        """Returns when the job has executed `code`, in which `identifier`, `folder` (its experiment
        directory) and `os` are known.
        """
        self._step += 1
        order = self._strings / f"{self._step}"
        order.with_suffix(".new").write_text(code)
        order.with_suffix(".new").rename(order.with_suffix(".py"))
        done = order.with_suffix(".done")
        await self.project.until(done.exists)
        said = done.read_text()
        assert not said, said

    def end(self, code: str = "") -> None:
        """Lets the job execute `code` and end; does not wait for that."""
        self._step += 1
        order = self._strings / f"{self._step}"
        order.with_suffix(".new").write_text(f"{code}\nos._exit(0)")
        order.with_suffix(".new").rename(order.with_suffix(".py"))

    @property
    def outcome(self) -> hermes.Outcome:
        """How the job ended; known when the run's block is left."""
        (outcome,) = [
            each for each in self.run.result.outcomes if each.identifier == self.identifier
        ]
        return outcome

    @property
    def stored(self) -> dict[str, str]:
        """What collection has brought, as `Project.tree` shows it."""
        return self.project.tree(self.directory, own=True)

    def named(self, template: str) -> Path:
        """A path below the experiment directory, `@` in it standing for the identifier."""
        return self.directory / template.replace("@", self.identifier)

    def left(self, template: str) -> Path:
        """A path below the working directory, `@` in it standing for the identifier."""
        return self.project.path / template.replace("@", self.identifier)


class Project:
    """A working directory of its own, and what a test does with it."""

    OWN = frozenset(
        {"hermes.json", "stdout.log", "stderr.log", "re_execution.hermes", "uncommitted.patch"}
    )
    """What Hermes itself puts into an experiment directory."""

    PYTHON = PYTHON

    def __init__(self, path: Path) -> None:
        self.path = path
        self.experiments_folder = path / "experiments"
        self.control = path.parent / f"{path.name}.control"

    def write(self, name: str, content: str | bytes = "") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def program(self, name: str, content: str | bytes) -> Path:
        """An executable file."""
        path = self.write(name, content)
        path.chmod(0o755)
        return path

    def hermes_file(
        self,
        *entries: str,
        settings: Mapping[str, object] | None = None,
        arguments: str = "",
        name: str = "x",
    ) -> Path:
        """Writes a hermes file with these entries of EXEC, lines of PRE and words of STD-E."""
        pre = "".join(f"{key}: {value}\n" for key, value in (settings or {}).items())
        return self.write(
            f"{name}.hermes", f"PRE\n{pre}STD-E\n{arguments}\nEXEC\n" + "\n".join(entries) + "\n"
        )

    def open(
        self,
        *entries: str,
        settings: Mapping[str, object] | None = None,
        arguments: str = "",
        name: str = "test",
        **options: Any,
    ) -> AbstractAsyncContextManager[hermes.Run]:
        path = self.hermes_file(*entries, settings=settings, arguments=arguments)
        return hermes.open_run(
            path, name, **({"working_directory": self.path, "root": self.path} | options)
        )

    async def run(
        self,
        *entries: str,
        settings: Mapping[str, object] | None = None,
        arguments: str = "",
        name: str = "test",
        **options: Any,
    ) -> hermes.RunResult:
        path = self.hermes_file(*entries, settings=settings, arguments=arguments)
        with anyio.fail_after(LIMIT):
            return await hermes.run_file(
                path, name, **({"working_directory": self.path, "root": self.path} | options)
            )

    @asynccontextmanager
    async def puppets(
        self, count: int = 1, *, options: Sequence[str] = (), **arguments: Any
    ) -> AsyncIterator[list[Puppet]]:
        """Runs jobs that do what the test tells them. Leaving the block lets them end."""
        self.write("puppet.py", PUPPET)
        self.control.mkdir(exist_ok=True)
        before = set(self.control.iterdir())
        entry = f"[[{PYTHON}, puppet.py {hermes.quote(str(self.control))}],[{', '.join(options)}]]"
        with anyio.fail_after(LIMIT):
            async with self.open(*[entry] * count, **({"threads": count} | arguments)) as run:
                await self.until(lambda: len(set(self.control.iterdir()) - before) == count)
                puppets = [
                    Puppet(self, run, each) for each in sorted(set(self.control.iterdir()) - before)
                ]
                try:
                    yield puppets
                finally:
                    for puppet in puppets:
                        puppet.end()

    @asynccontextmanager
    async def puppet(self, *options: str, **arguments: Any) -> AsyncIterator[Puppet]:
        async with self.puppets(options=options, **arguments) as (puppet,):
            yield puppet

    def experiments(self) -> list[hermes.Experiment]:
        """All experiments, in the order of their starts."""
        found = [
            hermes.load_experiment(path.parent)
            for path in self.experiments_folder.glob("*/*/*/hermes.json")
        ]
        return sorted(found, key=lambda experiment: experiment.identifier)

    def experiment(self) -> hermes.Experiment:
        (experiment,) = self.experiments()
        return experiment

    def tree(self, folder: Path, *, own: bool = False) -> dict[str, str]:
        """Everything below a folder: `/` for folders, `-> target` for links, the content of files.

        With `own`, what Hermes itself puts into an experiment directory is left out.
        """
        found: dict[str, str] = {}
        pending = [""]
        while pending:
            top = pending.pop()
            for name in os.listdir(folder / top):
                path = f"{top}{name}"
                # Jobs may still be at it
                with suppress(FileNotFoundError):
                    if not (own and path in self.OWN):
                        found[path] = _shown(f"{folder}/{path}")
                        if found[path] == "/":
                            pending.append(f"{path}/")
        return found

    def leftovers(self, identifier: str) -> list[str]:
        """Paths in the working directory whose name carries an identifier."""
        found = self.tree(self.path)
        return sorted(
            path
            for path in found
            if identifier in os.path.basename(path) and not path.startswith("experiments/")
        )

    async def until(self, condition: Callable[[], T | None]) -> T:
        """Waits until `condition` gives something true, and returns that."""
        with anyio.fail_after(LIMIT):
            while not (found := condition()):  # noqa: ASYNC110 (nothing tells what a job has done)
                await anyio.sleep(0.005)
        return found


def _shown(path: str) -> str:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return f"-> {os.readlink(path)}"
    if stat.S_ISDIR(mode):
        return "/"
    return (
        Path(path).read_bytes().decode("utf-8", "surrogateescape")
        if stat.S_ISREG(mode)
        else "special"
    )
