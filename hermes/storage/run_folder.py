"""What the experiments of one run share, and the run's own folder.

The folder holds a record of the plan, and a lock that says that a process executes the run. It goes
when all jobs have succeeded; a run whose folder is left can be resumed. All functions here block.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..errors import HermesError, escape
from ..language.checks import find_program
from ..language.compiling import recorded_addition
from ..language.plan import Plan, with_threads
from ..model import Job
from ..timing import TIMING, Timing
from . import layout
from .code import Code, CodeAtStart
from .environments import Environments
from .files import Home, has_room, open_regular, remove_parts
from .frozen import Frozen, load_frozen
from .git import Git
from .identifiers import Clock
from .job_variables import job_variables
from .journal import JournalWriter, Machine, read_journal
from .layout import JOURNAL, LOCK, RUN_RECORD
from .metadata import Metadata, SlurmTask
from .provenance import metadata_of_run
from .query import experiments_named
from .run_record import RunRecord, keep_room, leave_pointer, lock, remove_pointer, write_record
from .wishes import Addition, additions, mark_taken, want_jobs, want_threads
from .writer import Experiment

if TYPE_CHECKING:
    from .code_then import CodeThen


class RunFolder(msgspec.Struct, eq=False, kw_only=True, weakref=True):
    """What all experiments of one run share, and the run's own folder.

    `folder` is `experiments/.hermes/<run id>`. `environment` is what all jobs get, in bytes, so
    that it is encoded once and not for every job. `way_back` leads from an experiment directory to
    the working directory. `template` are the metadata of a job of this run
    on this machine, without what is the job's own.
    """

    plan: Plan
    name: str
    run_id: str
    folder: str
    experiments: str
    way_back: str
    clock: Clock
    git: Git
    environment: dict[bytes, bytes]
    template: Metadata
    continued: tuple[str, Metadata] | None = None
    """Directory and metadata of the experiment in which the next job goes on, with the next
    attempt, instead of beginning a new one."""

    journal: JournalWriter | None
    """None where another process keeps it."""

    code: Code | None = None
    """Tells the state of the code; None where it was told by another process."""

    environments: Environments
    """Tells the Pythons of the jobs."""

    frozen: Frozen | None = None
    """The copy of the code in which the jobs run, if they run in one."""

    is_forgotten: bool = False
    """Whether the folder goes when the run is closed, although not all is done."""

    is_kept: bool = False
    """Whether it does not go, because it holds what jobs wrote and could not be put elsewhere."""

    _locked: int
    _real: str
    """The path of `experiments` without links, as the run began."""

    _find: Callable[[str], str | None]
    """The path of a program, looked for once."""

    _parents: dict[str, Home] = msgspec.field(default_factory=dict)
    _restoring: threading.Lock = msgspec.field(default_factory=threading.Lock)

    @classmethod
    def create(
        cls, plan: Plan, name: str, timing: Timing, *, then: CodeThen | None = None
    ) -> RunFolder:
        """Makes the folder of a new run, with the setting `freeze` in the code of `then`. Raises
        `HermesError` if that is not possible."""
        run_id = f"{datetime.now():%Y%m%d-%H%M%S}-{os.urandom(4).hex()}"
        folder = layout.run_folder(str(plan.experiments), run_id)
        return cls._open(plan, name, run_id, folder, timing, is_new=True, then=then)

    @classmethod
    def reopen(cls, record: RunRecord, plan: Plan, timing: Timing) -> RunFolder:
        """Goes on with a run that was left unfinished.

        Raises `HermesError` if another process executes it.
        """
        return cls._open(plan, record.name, record.run_id, record.folder, timing, is_new=False)

    @classmethod
    def _open(
        cls, plan: Plan, name: str, run_id: str, folder: str, timing: Timing, *, is_new: bool,
        then: CodeThen | None = None,
    ) -> RunFolder:  # fmt: skip
        code = Code(plan, timing.git)
        with contextlib.ExitStack() as opened:
            opened.callback(code.close)
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
                    leave_pointer(plan, folder, run_id)
                keep_room(locked)
                if not has_room(folder):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                frozen = load_frozen(folder, str(plan.working_directory), verify=True)
                if frozen is None and plan.settings.freeze and not read_journal(folder).jobs:
                    state = partial(code.kept_as_begun, folder)
                    # Here, because most runs freeze nothing
                    from .code_then import freeze_code

                    frozen = freeze_code(plan, folder, state, timing.freeze, then)
                git = frozen.git if frozen is not None else code.commit
                clock = Clock(os.path.dirname(folder), git.suffix)
                opened.callback(clock.close)
                journal = JournalWriter(folder, Machine.here())
                opened.callback(journal.close)
            except OSError as exc:
                if is_new:
                    shutil.rmtree(folder, ignore_errors=True)
                    remove_pointer(plan, run_id)
                raise HermesError(
                    f"cannot write to `{escape(str(plan.experiments))}`: {exc.strerror}",
                    hint="`--root DIR`, or `path_to_experiments` in PRE, puts experiments"
                    " elsewhere",
                ) from None
            opened.pop_all()
        if frozen is not None:
            # What git tells from now on is of other code
            code.close()
        made = cls._made(
            plan, name, run_id, folder, clock, git, locked, None, journal, timing, frozen
        )
        made.code = code if frozen is None else None
        return made

    @classmethod
    def attach(cls, record: RunRecord, plan: Plan, git: Git, slurm: SlurmTask | None) -> RunFolder:
        """All but the run's lock, for a process that executes jobs of a run that another follows.

        `git` is the state of the code as it was when the run began: what is told where git cannot
        be asked now. Raises `OSError`.
        """
        clock = Clock(os.path.dirname(record.folder), git.suffix)
        # The same file, for its reserve
        locked = open_regular(f"{record.folder}/{LOCK}", os.O_RDWR | os.O_CREAT)
        frozen = load_frozen(record.folder, str(plan.working_directory))
        made = cls._made(
            plan, record.name, record.run_id, record.folder, clock, git, locked, slurm, None,
            TIMING, frozen,
        )  # fmt: skip
        if frozen is None and git.state.commit is not None:
            code = Code(plan, TIMING.git)
            if code.commit.state.commit is not None:
                made.code = code
            else:
                code.close()
        return made

    @classmethod
    def _made(
        cls, plan: Plan, name: str, run_id: str, folder: str, clock: Clock, git: Git, locked: int,
        slurm: SlurmTask | None, journal: JournalWriter | None, timing: Timing,
        frozen: Frozen | None,
    ) -> RunFolder:  # fmt: skip
        experiments = str(plan.experiments)
        environment = job_variables(name, run_id, plan.settings, frozen)
        here = str(plan.working_directory) if frozen is None else frozen.working_directory
        find = cache(partial(_program, Path(here), environment.get(b"PATH"), frozen))
        made = cls(
            plan=plan,
            name=name,
            run_id=run_id,
            folder=folder,
            experiments=experiments,
            way_back=_way_back(experiments, str(plan.working_directory)),
            clock=clock,
            git=git,
            environment=environment,
            environments=Environments(experiments, here, environment, find, timing.packages),
            template=metadata_of_run(plan, name, run_id, git, slurm, frozen),
            journal=journal,
            frozen=frozen,
            _locked=locked,
            _find=find,
            _real=os.path.realpath(plan.experiments),
        )
        _OPEN.add(made)
        return made

    def exit_file(self, identifier: str) -> str:
        """Where a supervised job leaves its exit status."""
        return layout.exit_file(self.folder, identifier)

    def links_file(self, identifier: str) -> str:
        """Where it is kept what was collected while a job runs."""
        return layout.links_file(self.folder, identifier)

    def experiment(
        self,
        job: Job,
        key: str,
        *,
        attempt: int = 1,
        index: int = 0,
        slot: int = 0,
        gpus: tuple[str, ...] | None = None,
    ) -> Experiment:
        """Makes the directory of a new experiment, exclusively, and what stands in it before the
        job starts. Raises `OSError` if that is not possible."""
        if not os.path.isdir(self.folder):
            self._restore()
        if self.continued is not None:
            return self._continue(job, *self.continued)
        parent = layout.named_folder(self.experiments, job.script, self.name)
        told = self.code or self.frozen
        code = CodeAtStart.known(self.git) if told is None else told.at_start(job)
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
            slot=slot,
            gpus=gpus,
            file=self.plan.part_of(index),
            identifier=identifier,
            home=Home.of(directory, f"{above.real}/{identifier}"),
            code=code,
            python=self.environments.at_start(job),
            program=self._find(job.argv[0]),
        )
        try:
            if self.journal is not None:
                self.journal.start(identifier, key, attempt, index)
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
            restarts=metadata.restarts + 1,
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

    def want(self, addition: Addition) -> None:
        """Has the run take in more jobs. Blocks. Raises `HermesError`."""
        try:
            want_jobs(self.folder, addition)
        except OSError as exc:
            raise HermesError(f"cannot write to `{escape(self.folder)}`: {exc.strerror}") from None

    def added_since(self, known: int) -> list[Plan]:
        """What was added to the run, but for the first `known` additions. Blocks. Raises
        `HermesError`."""
        return [
            recorded_addition(self.plan, each.path, each.text)
            for each in additions(self.folder, known)
        ]

    def add(self, parts: Sequence[Plan]) -> None:
        """Takes more jobs into the plan."""
        self.plan = self.plan.with_added(*parts)

    def mark_taken(self, count: int) -> None:
        """Tells those who wait for it that so many additions are in the plan. Blocks."""
        with contextlib.suppress(OSError):
            mark_taken(self.folder, count)

    def set_threads(self, threads: int) -> None:
        """From now on experiments tell that so many jobs run at the same time."""
        self.plan = with_threads(self.plan, threads)
        self.template = msgspec.structs.replace(
            self.template, settings=self.plan.settings.as_json()
        )

    def code_as_begun(self) -> Git:
        """The state of the code as the run began, whose patch is put into the run's folder for
        those who execute its jobs elsewhere. Blocks until git has told it."""
        return self.git if self.code is None else self.code.kept_as_begun(self.folder)

    @property
    def working_directory(self) -> str:
        """Where the jobs' relative paths begin: the plan's, or the copy of it."""
        if self.frozen is not None:
            return self.frozen.working_directory
        return str(self.plan.working_directory)

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
            if self.frozen is not None:
                raise OSError(errno.ENOENT, "the frozen code of the run is gone", self.folder)
            if not os.path.isdir(self.plan.working_directory):
                # The project was renamed: made again, it would hide what went on elsewhere
                where = str(self.plan.working_directory)
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), where)
            self._check_experiments()
            os.makedirs(self.folder)
            locked = lock(self.folder)
            if locked is not None:
                os.dup2(locked, self._locked, inheritable=False)
                os.close(locked)
            write_record(self.folder, self.run_id, self.name, self.plan)
            want_threads(self.folder, self.plan.settings.threads)
            for part in self.plan.parts[1:]:
                want_jobs(self.folder, Addition(path=part.path, text=part.text))
            keep_room(self._locked)
            self.clock.renew(os.path.dirname(self.folder))
            if self.journal is not None:
                self.journal.renew(self.folder)

    def close(self, *, done: bool) -> None:
        """Ends the run. Its folder goes if all is `done`: the experiments tell everything then. A
        second time does nothing."""
        locked, self._locked = self._locked, -1
        if locked < 0:
            return
        _OPEN.discard(self)
        if self.code is not None:
            self.code.close()
        self.environments.close()
        self.clock.close()
        if self.journal is not None:
            self.journal.close()
        with contextlib.suppress(OSError):
            if (done or self.is_forgotten) and not self.is_kept:
                # In this order nobody takes what is left for the folder of a run
                for name in (JOURNAL, RUN_RECORD):
                    os.unlink(f"{self.folder}/{name}")
                shutil.rmtree(self.folder)
                remove_pointer(self.plan, self.run_id)
        os.close(locked)

    def forget_lock(self) -> None:
        """In a forked child of the process that executes the run: the lock is not the child's, and
        must not be held for as long as it lives."""
        with contextlib.suppress(OSError):
            self.clock.close()
            os.close(self._locked)
        self._locked = -1


_OPEN: weakref.WeakSet[RunFolder] = weakref.WeakSet()


def _after_fork() -> None:
    for folder in list(_OPEN):
        folder.forget_lock()
    _OPEN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def experiments_of(run: RunFolder) -> Iterator[tuple[str, Metadata]]:
    """Directory and metadata of all experiments of a run, in the order of their starts."""
    for directory, metadata in experiments_named(run.experiments, run.name):
        if metadata.run_id == run.run_id:
            yield directory, metadata


def _way_back(experiments: str, working_directory: str) -> str:
    """The way from an experiment directory to the working directory, links resolved."""
    directory = f"{os.path.realpath(experiments)}/script/name/identifier"
    return os.path.relpath(os.path.realpath(working_directory), directory)


def _program(
    working_directory: Path, search: bytes | None, frozen: Frozen | None, word: str
) -> str | None:
    path = find_program(
        word, working_directory, os.fsdecode(search) if search is not None else None
    )
    return path if path is None or frozen is None else frozen.behind_link(path)
