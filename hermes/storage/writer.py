"""The experiment directory of one job: made once and exclusively, its metadata replaced whole.

All functions here block; callers run them in worker threads, one call for all file work of a phase.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Protocol

import msgspec

from ..errors import HermesError
from ..language.plan import Plan
from ..language.settings import find_root
from ..language.writing import re_execution
from ..model import Job, Problem, Status
from .code import CodeAtStart
from .environments import NOT_YET, PythonOfJob
from .files import (
    Home,
    Stamp,
    entries_of,
    everything_below,
    lstat,
    open_own,
    open_regular,
    put_aside,
    size_of,
    write_all,
    write_atomic,
)
from .frozen import Frozen
from .git import Git
from .gpu_variables import claim_name, gpu_variables
from .layout import METADATA, OWN, PATCH, RE_EXECUTION, STDERR, STDOUT
from .mending import leads_to, led_anew, replace_link
from .metadata import Environment, HermesFile, Metadata, StoredFile, read_metadata, write_metadata

SYNC_AFTER = 1.0
"""Seconds of work that are worth an fsync (0.3 ms on ext4) of their final metadata."""


class Run(Protocol):
    """What an experiment takes from its run: a `RunFolder`."""

    @property
    def plan(self) -> Plan: ...

    @property
    def working_directory(self) -> str: ...

    @property
    def way_back(self) -> str: ...

    @property
    def environment(self) -> dict[bytes, bytes]: ...

    @property
    def template(self) -> Metadata: ...

    @property
    def frozen(self) -> Frozen | None: ...


class Experiment(msgspec.Struct, eq=False, kw_only=True):
    """One job's execution on the disk.

    Whoever changes `metadata` calls `write` afterwards.
    """

    run: Run
    job: Job
    home: Home
    """The directory; nothing is written there once something else is in its place."""

    metadata: Metadata
    logs: list[int] = msgspec.field(default_factory=list)
    """File descriptors of `stdout.log` and `stderr.log` until the job has been started."""

    code: CodeAtStart | None = None
    """The state of the code as the job starts, until the metadata hold it."""

    python: Future[PythonOfJob] | None = None
    """The Python that executes the job, until the metadata hold it."""

    written: Stamp | None = None
    """The metadata as they were written last; None if others are there."""

    is_continued: bool = False
    """Whether this attempt goes on where an earlier one was broken off, with what that has left."""

    @classmethod
    def new(
        cls, *, run: Run, job: Job, key: str, attempt: int, slot: int,
        gpus: tuple[str, ...] | None, file: Plan, identifier: str, home: Home,
        code: CodeAtStart, python: Future[PythonOfJob], program: str | None,
    ) -> Experiment:  # fmt: skip
        """The experiment of a job that has not been started. The directory is there, and empty.

        `file` is the part of the plan that holds the job.
        """
        values = placeholders(run, identifier, home.path, slot, gpus)
        metadata = msgspec.structs.replace(
            run.template,
            identifier=identifier,
            script=job.script,
            argv=command_of(run, job, values),
            arguments=job.arguments,
            parameters=dict(job.parameters),
            template=job.template,
            program=program,
            environment=Environment(reason=NOT_YET),
            slot=slot,
            gpus=gpus,
            git=code.so_far.state,
            options=job.options,
            comments=job.options.comments,
            key=key,
            attempts=attempt,
            hermes_file=HermesFile(path=file.path, line=job.line, sha256=file.sha256),
            files=[],
            problems=[],
        )
        return cls(run=run, job=job, home=home, metadata=metadata, code=code, python=python)

    @classmethod
    def reopen(cls, run: Run, job: Job, directory: str, metadata: Metadata) -> Experiment:
        """An unfinished experiment of an earlier process. How it ended is to be found out again.

        What is known of its start stays: commit, machine and versions are those that it began with.
        """
        metadata = msgspec.structs.replace(
            metadata,
            status=Status.RUNNING,
            end=None,
            exit_code=None,
            signal=None,
            duration=None,
            files=[file for file in metadata.files if file.origin == "copied-before"],
            metrics=None,
            problems=[],
        )
        written = stamp_of_metadata(directory, metadata.identifier)
        # A job may have moved its directory, and left a link that leads there
        home = Home.of(directory, follow=written is not None)
        return cls(run=run, job=job, home=home, metadata=metadata, written=written)

    @property
    def directory(self) -> str:
        return self.home.path

    @property
    def identifier(self) -> str:
        return self.metadata.identifier

    @property
    def argv(self) -> tuple[str, ...]:
        """The words that go to the operating system."""
        return self.metadata.argv

    def begin(self) -> None:
        """Writes what stands in the directory before the job starts. Raises `OSError`."""
        self.take_in()
        self.written = write_metadata(self.directory, self.metadata, sync=False)
        again = re_execution(self.job, self.run.plan.settings, self.run.way_back)
        _write_new(f"{self.directory}/{RE_EXECUTION}", again.encode("utf-8", "surrogateescape"))
        # Now, or something copied before the start could take their place
        self.open_logs(os.O_EXCL)

    @property
    def is_asking(self) -> bool:
        """Whether the metadata lack something that was asked for in the background."""
        return self.code is not None or self.python is not None

    def take_in(self) -> bool:
        """Puts into the metadata what was asked for in the background and is known by now. False if
        there is nothing new. Does not wait."""
        is_new = False
        if self.python is not None and self.python.done():
            self.metadata.python, self.metadata.environment, _ = self.python.result()
            self.python, is_new = None, True
        if self.code is not None and self.code.is_known:
            self._take_in_code(self.code.git)
            self.code, is_new = None, True
        return is_new

    def _take_in_code(self, git: Git) -> None:
        if git.patch is not None:
            try:
                self._write_patch(git.patch)
            except OSError as exc:
                git = git.with_reason(f"the patch could not be written: {exc.strerror}")
        self.metadata.git = git.state

    def _write_patch(self, patch: bytes) -> None:
        self.home.check()
        # Not a hard link to one for all: who edits one would edit those of others
        path = f"{self.directory}/{PATCH}"
        if os.path.lexists(path):
            # The job's own
            put_aside(path)
        write_atomic(path, patch, sync=False)

    def open_logs(self, flags: int = 0) -> None:
        """Opens the files for the job's output. Raises `OSError`.

        Both append, so that all who write to them keep in order.
        """
        for log in (STDOUT, STDERR):
            path = f"{self.directory}/{log}"
            opened = open_regular if flags & os.O_EXCL else open_own
            self.logs.append(opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | flags))

    def close_logs(self) -> None:
        while self.logs:
            os.close(self.logs.pop())

    @property
    def is_untouched(self) -> bool:
        """Whether the directory holds nothing but what stands in it before the job starts."""
        found = dict(everything_below(self.directory))
        logs = [found.get(f"{self.directory}/{log}") for log in (STDOUT, STDERR)]
        is_ours = all(
            path[len(self.directory) + 1 :] in OWN and stat.S_ISREG(status.st_mode)
            for path, status in found.items()
        )
        return is_ours and not any(log.st_size for log in logs if log is not None)

    def discard(self) -> None:
        """Takes the directory away again; the job has not been started."""
        self.close_logs()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def placeholders(self) -> dict[str, str]:
        """What stands for `PLACEHOLDERS`."""
        metadata = self.metadata
        return placeholders(self.run, self.identifier, self.directory, metadata.slot, metadata.gpus)

    @property
    def working_directory(self) -> str:
        """Where the job's process is started."""
        own = self.run.plan.settings.cwd == "experiment"
        return self.directory if own else self.run.working_directory

    def environment(self) -> dict[bytes, bytes]:
        """What the job gets."""
        environment = dict(self.run.environment)
        for key, value in self.job.parameters:
            environment[f"HERMES_PARAM_{key.upper()}".encode()] = os.fsencode(value)
        environment[b"HERMES_IDENTIFIER"] = self.identifier.encode()
        environment[b"HERMES_EXPERIMENT_DIR"] = os.fsencode(self.directory)
        environment[b"HERMES_SLOT"] = b"%d" % self.metadata.slot
        # What Slurm has given, it has told by variables of its own
        if self.metadata.gpus is not None and self.metadata.slurm is None:
            claim = claim_name(self.metadata.run_id, self.metadata.key, self.metadata.attempts)
            environment.update(gpu_variables(self.metadata.gpus, claim))
        if self.run.plan.settings.cwd == "experiment":
            # What a module or a script imports from the folder in which it is executed otherwise
            folders = (os.fsencode(self.run.working_directory), environment.get(b"PYTHONPATH"))
            environment[b"PYTHONPATH"] = os.fsencode(os.pathsep).join(filter(None, folders))
        return environment

    def _list_files(self) -> None:
        """Adds what the job has put there itself to the files."""
        before = [self._measured(file) for file in self.metadata.files]
        listed = {file.path for file in before}
        start = len(self.directory) + 1
        written: list[StoredFile] = []
        folders = [self.directory]
        for folder in folders:
            try:
                entries = entries_of(folder)
            except OSError:
                # Closed by the job: what is in it is not known
                if folder != self.directory:
                    written.append(StoredFile(folder[start:], 0, "written"))
                continue
            for entry in entries:
                path = entry.path[start:]
                if path in listed or (path in OWN and entry.is_file(follow_symlinks=False)):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                    continue
                if entry.is_symlink() and not os.path.exists(entry.path):
                    self._mend(entry.path)
                if (status := lstat(entry.path)) is not None:
                    written.append(StoredFile(path, status.st_size, "written"))
        self.metadata.files = before + sorted(written, key=lambda file: file.path)

    def _mend(self, link: str) -> None:
        """Leads a link of the job's own to where what it led to has been collected."""
        tops = {self.run.working_directory, str(self.run.plan.working_directory)}
        tops |= set(map(os.path.realpath, tops))
        folder, target = os.path.dirname(link), ""
        with suppress(OSError):
            target = os.readlink(link)
        led = leads_to(folder, target, [(top, "") for top in sorted(tops)])
        if led is not None and os.path.lexists(place := f"{self.directory}/{led}"):
            replace_link(link, target, led_anew(folder, target, place))

    def _measured(self, file: StoredFile) -> StoredFile:
        """What was copied before the job has its size when the job has ended."""
        path = f"{self.directory}/{file.path}"
        if file.origin != "copied-before" or not os.path.lexists(path):
            return file
        return StoredFile(file.path, size_of(path), file.origin)

    def add_problem(self, problem: Problem) -> None:
        """Adds a problem to the metadata, unless it is there already."""
        if problem not in self.metadata.problems:
            self.metadata.problems.append(problem)

    def complete(self) -> None:
        """Puts into the metadata what is known only when the job has ended: the list of files, and
        what was asked for in the background. That is waited for; not if the job was cancelled,
        because somebody waits for its end. Raises `OSError`."""
        if self.metadata.status is not Status.CANCELLED:
            if self.code is not None:
                self.code.wait()
            if self.python is not None:
                self.python.result()
        self.home.check()
        self._keep_others()
        self._list_files()

    def write(self, *, sync: bool) -> None:
        """Replaces the metadata. Raises `OSError` if that fails; the old ones are whole then."""
        self.home.check()
        self._keep_others()
        self.take_in()
        self.written = write_metadata(self.directory, self.metadata, sync=sync)

    def _keep_others(self) -> None:
        """Puts aside what the job has written under the name of the metadata."""
        path = f"{self.directory}/{METADATA}"
        status = lstat(path)
        if status is None or Stamp.of(status) == self.written:
            return
        # Not if somebody has only put back an older state
        if stamp_of_metadata(self.directory, self.identifier) is None:
            put_aside(path)


def placeholders(
    run: Run, identifier: str, directory: str, slot: int, gpus: tuple[str, ...] | None
) -> dict[str, str]:
    """What stands for `PLACEHOLDERS` in the words and paths of one experiment."""
    return {
        "identifier": identifier,
        "directory": directory,
        "slot": str(slot),
        "gpus": ",".join(gpus)
        if gpus is not None
        else os.fsdecode(run.environment.get(b"CUDA_VISIBLE_DEVICES", b"")),
    }


def command_of(run: Run, job: Job, values: Mapping[str, str]) -> tuple[str, ...]:
    """The words that go to the operating system, `values` put in for `PLACEHOLDERS`.

    Where a job runs in its own directory, the paths of its program and its script are absolute.
    With frozen code they lead to the copy.
    """
    words = job.command(values)
    if run.plan.settings.cwd == "experiment":
        for index in job.files:
            path = os.path.join(run.working_directory, words[index])
            if "/" in words[index] or (index and os.path.exists(path)):
                words[index] = path
    if run.frozen is not None:
        for index in job.files:
            if os.path.isabs(words[index]):
                words[index] = run.frozen.copy_of(words[index]) or words[index]
    return tuple(words)


def rerun_command(directory: str, name: str, plan: Plan) -> str:
    """The shell command that runs an experiment's job again, from the run's working directory."""
    path = os.path.relpath(f"{directory}/{RE_EXECUTION}", plan.working_directory)
    overruled = plan.root != find_root(plan.working_directory)
    root = ["--root", os.path.relpath(plan.root, plan.working_directory)] if overruled else []
    return shlex.join(["hermes", "exec", "-f", path, "-n", name, *root])


def stamp_of_metadata(directory: str, identifier: str) -> Stamp | None:
    """The metadata that are there; None if they are not those of this experiment."""
    status = lstat(f"{directory}/{METADATA}")
    try:
        is_ours = read_metadata(directory).identifier == identifier
    except HermesError:
        return None
    return Stamp.of(status) if is_ours and status is not None else None


def _write_new(path: str, data: bytes) -> None:
    fd = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        write_all(fd, data)
    finally:
        os.close(fd)
