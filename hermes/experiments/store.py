"""The experiment directory: made once and exclusively, its metadata replaced whole, its provenance beside the results.

All functions here block; callers run them in worker threads, one call for all that a phase has to do.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import json
import os
import shlex
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import HermesError, escape
from ..language.plan import Plan
from ..language.settings import find_root
from ..language.writing import re_execution
from ..model import Job, Options, Status
from .files import has_room, remove_parts, write_all, write_atomic
from .provenance import Git, boot_id, machine, read_git
from .records import LOCK, RECORDS, Record, lock, write_record

FORMAT = 1
"""Version of `hermes.json`. A reader takes what it knows and ignores other keys."""

METADATA = "hermes.json"
STDOUT = "stdout.log"
STDERR = "stderr.log"
RE_EXECUTION = "re_execution.hermes"
PATCH = "uncommitted.patch"
OWN = frozenset({METADATA, STDOUT, STDERR, RE_EXECUTION, PATCH})
"""What stands in every experiment directory before the job starts."""

SYNC_AFTER = 1.0
"""Seconds of work that are worth an fsync (0.3 ms on ext4) of their final metadata."""

RESERVE = 64 * 1024
"""Bytes that a run keeps, in its lock file, for the final metadata of jobs that end when the disk is full."""

_encode = json.JSONEncoder().encode
_STAMP = "%Y_%m_%d_%H%M%S%f"
_MICROSECOND = timedelta(microseconds=1)
_FAR_AHEAD = timedelta(hours=2)


class Clock:
    """Gives identifiers that no other process of this root gives, also when clocks step back.

    The last stamp is kept in a file under a lock; a stamp that is not later than it counts on from it by microseconds. So
    identifiers sort in the order of their starts, through the end of summer time too. A last stamp more than two hours ahead
    comes from a clock that was wrong, and is ignored. Where locks do not work, the exclusive `mkdir` remains.
    """

    def __init__(self, folder: str, suffix: str) -> None:
        self._fd = os.open(f"{folder}/clock", os.O_RDWR | os.O_CREAT, 0o666)
        self._suffix = suffix
        # The file lock keeps other processes out, and other openings of the file in this one
        self._lock = threading.Lock()

    def identifier(self) -> str:
        with self._lock:
            locked = self._try(fcntl.LOCK_EX)
            try:
                stamp = self._next()
                os.pwrite(self._fd, stamp.encode(), 0)
            finally:
                if locked:
                    self._try(fcntl.LOCK_UN)
        return f"{stamp}_{self._suffix}"

    def renew(self, folder: str) -> None:
        """Goes on in a folder that was made again."""
        with self._lock:
            fd = os.open(f"{folder}/clock", os.O_RDWR | os.O_CREAT, 0o666)
            os.dup2(fd, self._fd, inheritable=False)
            os.close(fd)

    def _try(self, operation: int) -> bool:
        try:
            fcntl.flock(self._fd, operation)
        except OSError:
            return False
        return True

    def _next(self) -> str:
        now = datetime.now()
        stamp = f"{now.year}_{now.month:02}_{now.day:02}_{now.hour:02}{now.minute:02}{now.second:02}{now.microsecond:06}"
        last = os.pread(self._fd, 64, 0).decode("ascii", "replace")
        if stamp > last:
            return stamp
        try:
            then = datetime.strptime(last, _STAMP)
        except ValueError:
            return stamp
        return stamp if then - now > _FAR_AHEAD else (then + _MICROSECOND).strftime(_STAMP)

    def close(self) -> None:
        os.close(self._fd)


@dataclass(slots=True, eq=False)
class RunFolder:
    """What all experiments of one run share, and the run's own folder `experiments/.hermes/<run id>`."""

    plan: Plan
    name: str
    run_id: str
    folder: str
    clock: Clock
    git: Git
    shared: str
    """The part of the metadata that is the same for every job of the run, as JSON lines."""

    environment: dict[bytes, bytes]
    """What all jobs get; in bytes, so that it is encoded once and not for every job."""

    experiments: str
    _locked: int
    continued: tuple[str, dict[str, Any]] | None = None
    """Directory and metadata of the experiment in which the next job goes on, with the next attempt, instead of beginning a new one."""

    _parents: set[str] = field(default_factory=set)
    _restoring: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def create(cls, plan: Plan, name: str) -> RunFolder:
        """Makes the folder of a new run. Raises `HermesError` if that is not possible."""
        run_id = f"{datetime.now():%Y%m%d-%H%M%S}-{os.urandom(4).hex()}"
        return cls._open(plan, name, run_id, is_new=True)

    @classmethod
    def reopen(cls, record: Record, plan: Plan) -> RunFolder:
        """Goes on with a run that was left unfinished. Raises `HermesError` if somebody else is at it."""
        return cls._open(plan, record.name, record.run_id, is_new=False)

    @classmethod
    def _open(cls, plan: Plan, name: str, run_id: str, *, is_new: bool) -> RunFolder:
        git = read_git(plan.working_directory, plan.experiments)
        records = f"{plan.experiments}/{RECORDS}"
        folder = f"{records}/{run_id}"
        with contextlib.ExitStack() as opened:
            try:
                if is_new:
                    os.makedirs(records, exist_ok=True)
                    os.mkdir(folder)
                locked = lock(folder)
                if locked is None:
                    raise HermesError(
                        f"the run `{run_id}` is still in progress", hint="`hermes resume` takes it up when its process has ended"
                    )
                opened.callback(os.close, locked)
                if is_new:
                    write_record(folder, run_id, name, plan)
                _equip(folder, locked, git)
                clock = Clock(records, git.suffix)
                opened.callback(clock.close)
                if not has_room(folder):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as exc:
                if is_new:
                    shutil.rmtree(folder, ignore_errors=True)
                raise HermesError(
                    f"cannot write to `{escape(str(plan.experiments))}`: {exc.strerror}",
                    hint="`--root DIR`, or `path_to_experiments` in PRE, puts experiments elsewhere",
                ) from None
            opened.pop_all()
        shared, environment = _shared(plan, name, run_id, git), _environment(name, run_id)
        return cls(plan, name, run_id, folder, clock, git, shared, environment, str(plan.experiments), locked)

    @classmethod
    def attach(cls, record: Record, plan: Plan, git: Git, extra: dict[str, Any]) -> RunFolder:
        """What somebody needs who executes jobs of a run that another process follows: all but the run's lock.

        `git` is the state of the code as it was when the run began, `extra` goes into the metadata. Raises `OSError`.
        """
        clock = Clock(os.path.dirname(record.folder), git.suffix)
        shared = _shared(plan, record.name, record.run_id, git, extra)
        # The same file, for its reserve
        lock_file = os.open(f"{record.folder}/{LOCK}", os.O_RDWR | os.O_CREAT, 0o666)
        environment = _environment(record.name, record.run_id)
        experiments = str(plan.experiments)
        return cls(plan, record.name, record.run_id, record.folder, clock, git, shared, environment, experiments, lock_file)

    def exit_file(self, identifier: str) -> str:
        """Where a supervised job leaves its exit status."""
        return f"{self.folder}/{identifier}"

    def experiment(self, job: Job, key: str, attempts: int = 1) -> Experiment:
        """Makes the directory of a new experiment, exclusively, and what stands in it before the job starts.

        Raises `OSError` if that is not possible.
        """
        if not os.path.isdir(self.folder):
            self._restore()
        if self.continued is not None:
            return self._continue(job, *self.continued)
        parent = f"{self.experiments}/{job.script}/{self.name}"
        if parent not in self._parents:
            os.makedirs(parent, exist_ok=True)
            self._parents.add(parent)
        while True:
            identifier = self.clock.identifier()
            directory = f"{parent}/{identifier}"
            try:
                os.mkdir(directory)
                break
            except FileExistsError:
                continue
            except FileNotFoundError:
                # Somebody has cleaned up meanwhile
                os.makedirs(parent, exist_ok=True)
        experiment = Experiment(self, job, key, identifier, directory, attempts)
        try:
            experiment.begin()
        except OSError:
            experiment.discard()
            raise
        return experiment

    def _continue(self, job: Job, directory: str, metadata: dict[str, Any]) -> Experiment:
        experiment = Experiment.reopen(self, job, directory, metadata)
        experiment.attempts += 1
        experiment.is_continued = True
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.exit_file(experiment.identifier))
        remove_parts(directory)
        experiment.write(sync=False)
        experiment.open_logs()
        return experiment

    @property
    def has_room(self) -> bool:
        """Whether there is room on the disk for more."""
        return has_room(self.folder)

    def use_reserve(self) -> None:
        """Gives back the room that was kept for writing down how the running jobs end on a full disk."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._locked, 0)

    def recorded(self) -> set[str]:
        """Identifiers of the jobs whose exit status still stands here, because their experiments could not be finished."""
        return set(os.listdir(self.folder))

    def _restore(self) -> None:
        """Makes the run's folder again. Somebody has removed it with all experiments; the jobs that are still to come need it."""
        with self._restoring:
            if os.path.isdir(self.folder):
                return
            os.makedirs(self.folder)
            locked = lock(self.folder)
            if locked is not None:
                os.dup2(locked, self._locked, inheritable=False)
                os.close(locked)
            write_record(self.folder, self.run_id, self.name, self.plan)
            _equip(self.folder, self._locked, self.git)
            self.clock.renew(os.path.dirname(self.folder))

    def close(self, *, done: bool) -> None:
        """Ends the run. Its folder goes if all is `done`, for then the experiment directories tell everything."""
        self.clock.close()
        with contextlib.suppress(OSError):
            if done:
                shutil.rmtree(self.folder)
        os.close(self._locked)


@dataclass(slots=True, eq=False)
class Experiment:
    """One job's execution on the disk."""

    run: RunFolder
    job: Job
    key: str
    identifier: str
    directory: str
    attempts: int = 1
    """How many times the job has been started in this run, this time included."""

    state: dict[str, Any] = field(default_factory=lambda: {"status": "running"})
    """The part of the metadata that changes."""

    files: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    logs: list[int] = field(default_factory=list)
    """File descriptors of `stdout.log` and `stderr.log` until the job has been started."""

    is_continued: bool = False
    """Whether this attempt goes on where an earlier one was broken off: what was copied before that is there, and what it left."""

    argv: tuple[str, ...] = field(init=False)
    """The words that go to the operating system."""

    _fixed: str = ""
    """The part of the metadata that stays as it is, as JSON lines."""

    def __post_init__(self) -> None:
        self.argv = tuple(self.job.command(self.identifier))

    @classmethod
    def reopen(cls, run: RunFolder, job: Job, directory: str, metadata: dict[str, Any]) -> Experiment:
        """An experiment of an earlier process of this run that has not been finished. How it ended is to be found out again."""
        state = {"status": "running"} | {key: metadata.get(key) for key in ("start", "pid", "pid_start")}
        files = [each for each in metadata["files"] if each["origin"] == "copied-before"]
        return cls(run, job, metadata["key"], metadata["identifier"], directory, metadata["attempts"], state, files)

    def begin(self) -> None:
        """Writes what stands in the directory before the job starts. Raises `OSError` if that is not possible."""
        self.write(sync=False)
        again = re_execution(self.job, self.run.plan.settings).encode("utf-8", "surrogateescape")
        fd = os.open(f"{self.directory}/{RE_EXECUTION}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            write_all(fd, again)
        finally:
            os.close(fd)
        # Now, or something copied before the start could take their place
        self.open_logs(os.O_EXCL)
        if self.run.git.patch is not None:
            _link_or_copy(f"{self.run.folder}/{PATCH}", f"{self.directory}/{PATCH}")

    def open_logs(self, flags: int = 0) -> None:
        """Opens the files for the job's output. Both append, so that all who write to them keep in order. Raises `OSError`."""
        for log in (STDOUT, STDERR):
            self.logs.append(os.open(f"{self.directory}/{log}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | flags, 0o666))

    def close_logs(self) -> None:
        while self.logs:
            os.close(self.logs.pop())

    @property
    def is_untouched(self) -> bool:
        """Whether the directory holds nothing but what stands in it before the job starts."""
        logs = [f"{self.directory}/{log}" for log in (STDOUT, STDERR)]
        return OWN.issuperset(os.listdir(self.directory)) and not any(os.path.getsize(log) for log in logs if os.path.exists(log))

    def discard(self) -> None:
        """Takes the directory away again; the job has not been started."""
        self.close_logs()
        shutil.rmtree(self.directory, ignore_errors=True)

    def environment(self, slot: int) -> dict[bytes, bytes]:
        return {
            **self.run.environment,
            b"HERMES_IDENTIFIER": self.identifier.encode(),
            b"HERMES_EXPERIMENT_DIR": os.fsencode(self.directory),
            b"HERMES_SLOT": b"%d" % slot,
        }

    def problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)

    def write(self, *, sync: bool) -> None:
        """Replaces the metadata. Raises `OSError` if that fails; the old one is whole then."""
        self._fixed = self._fixed or self._facts()
        own = _lines({**self.state, "files": self.files, "problems": self.problems})
        text = f"{{\n{self._fixed},\n{own},\n{self.run.shared}\n}}\n"
        write_atomic(f"{self.directory}/{METADATA}", text.encode(), sync=sync)

    def _facts(self) -> str:
        job, plan = self.job, self.run.plan
        what = {
            "format": FORMAT,
            "identifier": self.identifier,
            "script": job.script,
            "argv": self.argv,
            "arguments": [word.replace("{identifier}", self.identifier) for word in job.arguments],
        }
        which = {
            "key": self.key,
            "attempts": self.attempts,
            "hermes_file": {"path": plan.path, "line": job.line, "sha256": plan.sha256},
        }
        return f"{_lines(what)},\n{_options(job.options)},\n{_lines(which)}"


def amend(directory: str, status: Status, problems: Sequence[str]) -> None:
    """Replaces status and problems of an experiment that was finished by somebody who did not know all. Raises `OSError`."""
    with open(f"{directory}/{METADATA}", "rb") as file:
        metadata = json.load(file)
    metadata |= {"status": status.value, "problems": list(problems)}
    write_atomic(f"{directory}/{METADATA}", f"{{\n{_lines(metadata)}\n}}\n".encode(), sync=True)


def rerun_command(directory: str, name: str, plan: Plan) -> str:
    """The shell command that runs an experiment's job again, from the run's working directory."""
    path = os.path.relpath(f"{directory}/{RE_EXECUTION}", plan.working_directory)
    overruled = plan.root != find_root(plan.working_directory)
    root = ["--root", os.path.relpath(plan.root, plan.working_directory)] if overruled else []
    return shlex.join(["hermes", "exec", "-f", path, "-n", name, *root])


def read_metadata(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata of an experiment directory. Raises `HermesError` if there is none that can be read."""
    path = Path(directory) / METADATA
    try:
        data = json.loads(path.read_bytes())
    except OSError as exc:
        raise HermesError(f"`{escape(os.fspath(directory))}` is no experiment directory: {exc.strerror}: `{METADATA}`") from None
    except ValueError as exc:
        raise HermesError(f"`{escape(str(path))}` is not JSON: {exc}") from None
    if not isinstance(data, dict) or not isinstance(data.get("format"), int):
        raise HermesError(f"`{escape(str(path))}` was not written by Hermes")
    if data["format"] > FORMAT:
        raise HermesError(f"`{escape(str(path))}` was written by a newer Hermes (format {data['format']}, this one reads {FORMAT})")
    return data


def experiments_named(experiments: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Directory and metadata of all experiments of a name, in the order of their starts; those that cannot be read are passed over."""
    pattern = f"{glob.escape(experiments)}/*/{glob.escape(name)}/*/{METADATA}"
    for path in sorted(glob.glob(pattern), key=lambda path: os.path.basename(os.path.dirname(path))):
        directory = os.path.dirname(path)
        with contextlib.suppress(HermesError):
            yield directory, read_metadata(directory)


def experiments_of(run: RunFolder) -> Iterator[tuple[str, dict[str, Any]]]:
    """Directory and metadata of all experiments of a run, in the order of their starts."""
    for directory, metadata in experiments_named(run.experiments, run.name):
        if metadata.get("run_id") == run.run_id:
            yield directory, metadata


def _equip(folder: str, locked: int, git: Git) -> None:
    """Puts into a run's folder what its experiments need beside the record: the reserve, in the lock file, and the patch."""
    os.pwrite(locked, bytes(RESERVE), 0)
    if git.patch is not None:
        write_atomic(f"{folder}/{PATCH}", git.patch, sync=False)


def _shared(plan: Plan, name: str, run_id: str, git: Git, extra: dict[str, Any] | None = None) -> str:
    """What stands in the metadata of every job of a run, on this machine."""
    own = {
        "run_id": run_id,
        "name": name,
        "working_directory": str(plan.working_directory),
        "root": str(plan.root),
        "settings": plan.settings.as_json(),
        "git": git.as_json(),
        "boot_id": boot_id(),
    }
    return _lines(own | machine(__version__) | (extra or {}))


def _environment(name: str, run_id: str) -> dict[bytes, bytes]:
    environment = {**os.environ, "HERMES_NAME": name, "HERMES_RUN_ID": run_id}
    environment.setdefault("PYTHONUNBUFFERED", "1")
    return {os.fsencode(key): os.fsencode(value) for key, value in environment.items()}


def _lines(values: dict[str, Any]) -> str:
    """JSON members, one a line: readable, and ten times as fast as `json.dumps` with `indent`."""
    return ",\n".join([f' "{key}": {_encode(value)}' for key, value in values.items()])


@lru_cache(maxsize=100)
def _options(options: Options) -> str:
    # Nearly all jobs of a run share them
    return _lines({"options": options.as_json(), "comments": options.comments})


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def now() -> str:
    """The time of day in ISO 8601 with offset, to the microsecond."""
    return datetime.now().astimezone().isoformat(timespec="microseconds")
