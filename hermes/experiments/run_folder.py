"""What the experiments of one run share, and the run's own folder.

The folder holds a record of the plan, and a lock that says that a process executes the run. It goes
when all jobs have succeeded; a run whose folder is left can be resumed. All functions here block.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from .. import __version__
from ..errors import HermesError, escape
from ..language.plan import Plan, from_recipe
from ..model import Job, Status
from ..timing import Timing
from . import layout
from .files import Home, has_room, open_regular, read_regular, remove_parts, write_atomic
from .identifiers import Clock
from .layout import LOCK, PATCH, RUN_RECORD
from .metadata import Metadata, SlurmTask, decoded, encoded
from .provenance import Git, boot_id, read_git, user_name, versions
from .query import experiments_named
from .writer import Experiment

RESERVE = 64 * 1024
"""Bytes that a run keeps, in its lock file, for the final metadata of jobs that end when the disk
is full."""


class RunFile(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in `run.json`. `recipe` is that of the run's plan."""

    format: int = layout.FORMATS[RUN_RECORD]
    run_id: str
    name: str
    recipe: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run that has not come to its good end, with the folder in which its record lies."""

    folder: str
    run_id: str
    name: str
    working_directory: str
    recipe: dict[str, object]

    def plan(self) -> Plan:
        """The plan of the run, as it was when the run began. Raises `HermesError`."""
        try:
            return from_recipe(self.recipe)
        except (KeyError, TypeError, AttributeError) as exc:
            path = f"{self.folder}/{RUN_RECORD}"
            raise HermesError(f"`{escape(path)}` does not hold a plan: {exc!r}") from None


def write_record(folder: str, run_id: str, name: str, plan: Plan) -> None:
    """Raises `OSError` if that is not possible."""
    record = RunFile(run_id=run_id, name=name, recipe=plan.recipe)
    write_atomic(f"{folder}/{RUN_RECORD}", encoded(record), sync=True)


def read_record(folder: str) -> RunRecord:
    """Raises `HermesError` for a record that is torn, foreign or newer; it is left as it is."""
    path = f"{folder}/{RUN_RECORD}"
    try:
        data = read_regular(path)
    except OSError as exc:
        raise HermesError(f"cannot read `{escape(path)}`: {exc.strerror}") from None
    record = decoded(data, RunFile, file=RUN_RECORD, path=path)
    working_directory = record.recipe.get("working_directory")
    if not isinstance(working_directory, str):
        raise HermesError(f"`{escape(path)}` does not hold a plan: no working directory")
    return RunRecord(
        folder=folder,
        run_id=record.run_id,
        name=record.name,
        working_directory=working_directory,
        recipe=record.recipe,
    )


def unfinished(
    experiments: str, working_directory: str, wanted: str | None, warn: Callable[[str], None]
) -> list[RunRecord]:
    """The runs of this working directory that may be resumed, the latest first.

    `wanted` is a name or a run's id, None for any. Records that cannot be read are told to `warn`.
    """
    runs = layout.runs_folder(experiments)
    try:
        with os.scandir(runs) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    found = []
    for name in sorted(names, reverse=True):
        try:
            record = read_record(f"{runs}/{name}")
        except HermesError as exc:
            warn(exc.message)
            continue
        is_wanted = wanted in (None, record.name, record.run_id)
        if is_wanted and record.working_directory == working_directory:
            found.append(record)
    return found


def lock(folder: str) -> int | None:
    """Takes the lock of a run and returns its file descriptor; None if another process has it.

    The lock goes with the process, however that ends. Where the file system has no locks everybody
    gets it. Raises `OSError`.
    """
    fd = open_regular(f"{folder}/{LOCK}", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        pass
    return fd


@dataclass(slots=True, eq=False, kw_only=True)
class RunFolder:
    """What all experiments of one run share, and the run's own folder.

    `folder` is `experiments/.hermes/<run id>`. `environment` is what all jobs get, in bytes, so
    that it is encoded once and not for every job. `template` are the metadata of a job of this run
    on this machine, without what is the job's own.
    """

    plan: Plan
    name: str
    run_id: str
    folder: str
    experiments: str
    clock: Clock
    git: Git
    environment: dict[bytes, bytes]
    template: Metadata
    continued: tuple[str, Metadata] | None = None
    """Directory and metadata of the experiment in which the next job goes on, with the next
    attempt, instead of beginning a new one."""

    _locked: int
    _real: str
    """The path of `experiments` without links, as the run began."""

    _parents: dict[str, Home] = field(default_factory=dict)
    _restoring: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def create(cls, plan: Plan, name: str, timing: Timing) -> RunFolder:
        """Makes the folder of a new run. Raises `HermesError` if that is not possible."""
        run_id = f"{datetime.now():%Y%m%d-%H%M%S}-{os.urandom(4).hex()}"
        folder = layout.run_folder(str(plan.experiments), run_id)
        return cls._open(plan, name, run_id, folder, timing, is_new=True)

    @classmethod
    def reopen(cls, record: RunRecord, plan: Plan, timing: Timing) -> RunFolder:
        """Goes on with a run that was left unfinished.

        Raises `HermesError` if another process executes it.
        """
        return cls._open(plan, record.name, record.run_id, record.folder, timing, is_new=False)

    @classmethod
    def _open(
        cls, plan: Plan, name: str, run_id: str, folder: str, timing: Timing, *, is_new: bool
    ) -> RunFolder:
        git = read_git(plan.working_directory, plan.experiments, timing.git)
        with contextlib.ExitStack() as opened:
            try:
                if is_new:
                    os.makedirs(os.path.dirname(folder), exist_ok=True)
                    os.mkdir(folder)
                locked = lock(folder)
                if locked is None:
                    raise HermesError(
                        f"the run `{escape(run_id)}` is still in progress",
                        hint="`hermes resume` takes it up when its process has ended",
                    )
                opened.callback(os.close, locked)
                if is_new:
                    write_record(folder, run_id, name, plan)
                _equip(folder, locked, git)
                clock = Clock(os.path.dirname(folder), git.suffix)
                opened.callback(clock.close)
                if not has_room(folder):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as exc:
                if is_new:
                    shutil.rmtree(folder, ignore_errors=True)
                raise HermesError(
                    f"cannot write to `{escape(str(plan.experiments))}`: {exc.strerror}",
                    hint="`--root DIR`, or `path_to_experiments` in PRE, puts experiments"
                    " elsewhere",
                ) from None
            opened.pop_all()
        return cls._made(plan, name, run_id, folder, clock, git, locked, None)

    @classmethod
    def attach(cls, record: RunRecord, plan: Plan, git: Git, slurm: SlurmTask | None) -> RunFolder:
        """All but the run's lock, for a process that executes jobs of a run that another follows.

        `git` is the state of the code as it was when the run began. Raises `OSError`.
        """
        clock = Clock(os.path.dirname(record.folder), git.suffix)
        # The same file, for its reserve
        locked = open_regular(f"{record.folder}/{LOCK}", os.O_RDWR | os.O_CREAT)
        return cls._made(plan, record.name, record.run_id, record.folder, clock, git, locked, slurm)

    @classmethod
    def _made(
        cls, plan: Plan, name: str, run_id: str, folder: str, clock: Clock, git: Git, locked: int,
        slurm: SlurmTask | None,
    ) -> RunFolder:  # fmt: skip
        return cls(
            plan=plan,
            name=name,
            run_id=run_id,
            folder=folder,
            experiments=str(plan.experiments),
            clock=clock,
            git=git,
            environment=_environment(name, run_id),
            template=_template(plan, name, run_id, git, slurm),
            _locked=locked,
            _real=os.path.realpath(plan.experiments),
        )

    def exit_file(self, identifier: str) -> str:
        """Where a supervised job leaves its exit status."""
        return layout.exit_file(self.folder, identifier)

    def links_file(self, identifier: str) -> str:
        """Where it is kept what was collected while a job runs."""
        return layout.links_file(self.folder, identifier)

    def experiment(self, job: Job, key: str, attempt: int = 1) -> Experiment:
        """Makes the directory of a new experiment, exclusively, and what stands in it before the
        job starts. Raises `OSError` if that is not possible."""
        if not os.path.isdir(self.folder):
            self._restore()
        if self.continued is not None:
            return self._continue(job, *self.continued)
        parent = layout.named_folder(self.experiments, job.script, self.name)
        while True:
            identifier = self.clock.identifier()
            directory = f"{parent}/{identifier}"
            above = self._parent(parent)
            try:
                os.mkdir(directory)
                break
            except (FileExistsError, FileNotFoundError):
                # Or somebody has cleaned up just now
                continue
        experiment = Experiment.new(
            run=self,
            job=job,
            key=key,
            attempt=attempt,
            identifier=identifier,
            home=Home.of(directory, f"{above.real}/{identifier}"),
        )
        try:
            experiment.begin()
        except OSError:
            experiment.discard()
            raise
        return experiment

    def _parent(self, path: str) -> Home:
        """The folder of all experiments of a script, made where it is missing. Raises `OSError`
        where a job has put a link in its place."""
        known = self._parents.get(path)
        try:
            if known is not None:
                known.check()
                return known
        except FileNotFoundError:
            # Somebody has cleaned up meanwhile
            pass
        if known is not None and os.path.realpath(path) != known.real:
            raise OSError(errno.ENOTDIR, "something else is in its place", path)
        self._check_experiments()
        os.makedirs(path, exist_ok=True)
        made = self._parents[path] = Home.of(path, follow=True)
        return made

    def _check_experiments(self) -> None:
        """Raises `OSError` if a job has put a link in the place of all experiments."""
        if os.path.realpath(self.experiments) != self._real:
            raise OSError(errno.ENOTDIR, "something else is in its place", self.experiments)

    def _continue(self, job: Job, directory: str, metadata: Metadata) -> Experiment:
        experiment = Experiment.reopen(self, job, directory, metadata)
        here = self.template
        experiment.metadata = msgspec.structs.replace(
            experiment.metadata,
            attempts=metadata.attempts + 1,
            pid=None,
            pid_start=None,
            boot_id=here.boot_id,
            host=here.host,
            user=here.user,
            versions=here.versions,
            slurm=here.slurm,
        )
        experiment.is_continued = True
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.exit_file(experiment.identifier))
        if experiment.home.is_there:
            remove_parts(directory)
        experiment.write(sync=False)
        experiment.open_logs()
        return experiment

    @property
    def has_room(self) -> bool:
        """Whether there is room on the disk for more."""
        return has_room(self.folder)

    def use_reserve(self) -> None:
        """Gives back the room that was kept for writing down how jobs end on a full disk."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._locked, 0)

    def recorded(self) -> set[str]:
        """Names in the run's folder: among them the identifiers of the jobs whose exit status
        still stands here, because their experiments could not be finished."""
        return set(os.listdir(self.folder))

    def _restore(self) -> None:
        """Makes the run's folder again, which somebody has removed with all experiments: the jobs
        that are still to come need it."""
        with self._restoring:
            if os.path.isdir(self.folder):
                return
            self._check_experiments()
            os.makedirs(self.folder)
            locked = lock(self.folder)
            if locked is not None:
                os.dup2(locked, self._locked, inheritable=False)
                os.close(locked)
            write_record(self.folder, self.run_id, self.name, self.plan)
            _equip(self.folder, self._locked, self.git)
            self.clock.renew(os.path.dirname(self.folder))

    def close(self, *, done: bool) -> None:
        """Ends the run. Its folder goes if all is `done`: the experiments tell everything then."""
        self.clock.close()
        with contextlib.suppress(OSError):
            if done:
                shutil.rmtree(self.folder)
        os.close(self._locked)


def experiments_of(run: RunFolder) -> Iterator[tuple[str, Metadata]]:
    """Directory and metadata of all experiments of a run, in the order of their starts."""
    for directory, metadata in experiments_named(run.experiments, run.name):
        if metadata.run_id == run.run_id:
            yield directory, metadata


def _equip(folder: str, locked: int, git: Git) -> None:
    """Puts into a run's folder what its experiments need: the reserve, and the patch."""
    os.pwrite(locked, bytes(RESERVE), 0)
    if git.patch is not None:
        write_atomic(f"{folder}/{PATCH}", git.patch, sync=False)


def _template(plan: Plan, name: str, run_id: str, git: Git, slurm: SlurmTask | None) -> Metadata:
    return Metadata(
        identifier="",
        script="",
        argv=(),
        key="",
        status=Status.RUNNING,
        run_id=run_id,
        name=name,
        working_directory=str(plan.working_directory),
        root=str(plan.root),
        settings=plan.settings.as_json(),
        git=git.state,
        boot_id=boot_id(),
        host=os.uname().nodename,
        user=user_name(),
        versions=versions(__version__),
        slurm=slurm,
    )


def _environment(name: str, run_id: str) -> dict[bytes, bytes]:
    environment = {**os.environ, "HERMES_NAME": name, "HERMES_RUN_ID": run_id}
    environment.setdefault("PYTHONUNBUFFERED", "1")
    return {os.fsencode(key): os.fsencode(value) for key, value in environment.items()}
