"""Runs and experiments on the disk without anything that executes them."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hermes.language.compiling import compile_file
from hermes.language.plan import Plan
from hermes.model import PLACEHOLDER, Job, Options
from hermes.storage.metadata import Metadata, read_metadata
from hermes.storage.run_folder import RunFolder
from hermes.storage.writer import Experiment
from hermes.timing import Timing


@dataclass
class Lab:
    """A working directory, and runs in it whose jobs are never started."""

    path: Path
    timing: Timing = field(default_factory=Timing)

    @property
    def experiments(self) -> Path:
        return self.path / "experiments"

    def write(self, name: str, content: str | bytes = "") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def program(self, name: str, content: str) -> Path:
        path = self.write(name, content)
        path.chmod(0o755)
        return path

    def plan(self, working_directory: Path | None = None) -> Plan:
        base = working_directory or self.path
        (base / "job.sh").touch()
        path = self.write("x.hermes", "EXEC\n[[sh, job.sh, 1]]\n")
        return compile_file(path, working_directory=base, root=self.path)

    def run(self, plan: Plan | None = None, name: str = "test") -> RunFolder:
        return RunFolder.create(plan or self.plan(), name, self.timing)

    @contextmanager
    def experiment(self, job: Job | None = None) -> Iterator[Experiment]:
        """One that has begun, in a run of its own, which ends with the block."""
        run = self.run()
        experiment = run.experiment(job or a_job(), "key")
        try:
            yield experiment
        finally:
            experiment.close_logs()
            run.close(done=True)

    def begun(self, plan: Plan | None = None) -> tuple[Path, Metadata]:
        """Directory and metadata of one that has begun, with all that was asked about its start;
        its run is over."""
        run = self.run(plan)
        experiment = run.experiment(a_job(), "key")
        experiment.close_logs()
        experiment.complete()
        experiment.write(sync=False)
        run.close(done=True)
        return Path(experiment.directory), read_metadata(experiment.directory)


def a_job(*arguments: str, options: Options | None = None, script: str = "job.sh") -> Job:
    return Job(
        argv=("sh", script, PLACEHOLDER, *arguments),
        script=script,
        line=2,
        options=options or Options(),
        position=1,
        lengths=(1, 1, *([len(arguments)] if arguments else [])),
        standard=(),
    )


@pytest.fixture
def lab(make_folder: Callable[[str], Path]) -> Lab:
    return Lab(make_folder("lab"))


@pytest.fixture
def repository(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A working directory under version control, with one commit."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    git(lab.path, "init", "--quiet", "--initial-branch", "trunk")
    lab.write("job.sh", "")
    lab.write(".gitignore", "ignored\n*.hermes\n")
    lab.write("data.bin", bytes(range(256)))
    git(lab.path, "add", "--all")
    git(lab.path, "commit", "--quiet", "--message", "first")
    return lab


def git(folder: Path, *words: str) -> str:
    # No background work that outlives the test
    command = ["git", "-c", "gc.auto=0", "-c", "core.fsmonitor=false", *words]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than `tmp_path`."""
    shared = Path("/dev/shm")
    if (
        not shared.is_dir()
        or not os.access(shared, os.W_OK)
        or shared.stat().st_dev == tmp_path.stat().st_dev
    ):
        pytest.skip("there is no other file system to write to")
    folder = shared / f"hermes-{os.getpid()}-{threading.get_ident()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)
