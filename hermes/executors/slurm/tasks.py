"""What a client and its nodes tell each other: small files in a run's folder, which all of them
see.

A submission is a numbered list of tasks, each a job of the plan. For task 3 of submission 0 there
are, as it goes on:

    0.json          Submission  by the client, before it submits: the tasks, and the name by which
                                Slurm knows them
    0.job           Accepted    by the client: Slurm has the submission
    0.3.claim       Claim       by a node, exclusively: which Slurm job has this task. Others leave
                                it alone, so nothing runs twice
    0.3.running     Running     by the node: the job's process exists. Replaced when files are
                                collected, touched as a sign of life
    0.3.ended       Ended       by the node: the outcome. The experiment directory is final
    0.3.told        Ended       by the client, by renaming: somebody has been told
    0.3.log                     by Slurm: what the node printed, and what Slurm says about its end

Each is written whole, as JSON, with the number of its format.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Set
from typing import TypeVar

import msgspec

from ...errors import HermesError, escape
from ...events import JobStarted
from ...model import Outcome, Problem, Status
from ...storage.files import NO_LINKS, open_regular, read_regular, write_atomic
from ...storage.layout import FORMATS, SLURM, stop_file
from ...storage.metadata import GitState, decoded, encoded
from ..base import NotBegunError

FORMAT = FORMATS[SLURM]

LOG_TAIL = 8192
"""Bytes at the end of a task's log that are read."""

FINAL = frozenset({Status.FINISHED, Status.FAILED, Status.TIMEOUT})
"""Jobs that ended like this are not started again by themselves."""

Record = TypeVar("Record", bound=msgspec.Struct)


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One job of the plan as it is submitted.

    `index` counts the jobs of the plan from 0, `attempt` the starts of this job in its run from 1.
    """

    submission: int
    number: int
    index: int
    key: str
    attempt: int

    @property
    def name(self) -> str:
        return f"{self.submission}.{self.number}"


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A task in the list of its submission, without its numbers."""

    index: int
    key: str
    attempt: int


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """One job array. `job_name` is that of the Slurm job, and nobody else's.

    `options` are the user's for `sbatch`. `git` is the state of the code when the run began, with
    `has_patch` if the run's folder holds the changes since the commit. `grace` is in seconds.
    """

    format: int = FORMAT
    number: int
    job_name: str
    options: tuple[str, ...]
    entries: tuple[Entry, ...]
    git: GitState
    has_patch: bool
    grace: float

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(self.task(number) for number in range(len(self.entries)))

    def task(self, number: int) -> Task:
        """Raises `IndexError` if there is none."""
        entry = self.entries[number]
        return Task(
            submission=self.number, number=number,
            index=entry.index, key=entry.key, attempt=entry.attempt,
        )  # fmt: skip

    def is_claimed(self, names: Set[str]) -> bool:
        """Whether a node has one of its tasks, by the names of the files that are there."""
        return any(f"{self.number}.{each}.claim" in names for each in range(len(self.entries)))


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """`array` is the id, for people: a controller that has forgotten one gives it to another
    job."""

    format: int = FORMAT
    array: str


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """`job` is that which Slurm runs, such as `12_3`; the same if it starts it again."""

    format: int = FORMAT
    job: str


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """`collected` are paths in the experiment directory, `restarts` how often Slurm has started
    the task again."""

    format: int = FORMAT
    event: JobStarted
    collected: tuple[str, ...]
    node: str
    restarts: int


class Unbegun(msgspec.Struct, frozen=True, kw_only=True):
    """There is no experiment. `problem` is why, None if the job is to be started anew."""

    problem: Problem | None
    status: Status


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly one of `outcome` and `unbegun` is there."""

    format: int = FORMAT
    outcome: Outcome | None = None
    unbegun: Unbegun | None = None
    collected: tuple[str, ...] = ()

    @classmethod
    def of(cls, end: Outcome | NotBegunError, collected: tuple[str, ...] = ()) -> Ended:
        if isinstance(end, NotBegunError):
            return cls(unbegun=Unbegun(problem=end.problem, status=end.status))
        return cls(outcome=end, collected=collected)

    @property
    def end(self) -> Outcome | NotBegunError:
        """What an executor gives or raises."""
        if self.outcome is not None:
            return self.outcome
        if self.unbegun is None:
            return NotBegunError(None)
        return NotBegunError(self.unbegun.problem, self.unbegun.status)


class TaskFolder:
    """These files of one run. All functions block."""

    def __init__(self, run_folder: str) -> None:
        self.path = f"{run_folder}/{SLURM}"
        self._stop = stop_file(run_folder)

    def names(self) -> set[str]:
        """The names of all these files, as they are now; none if there is no folder.

        Raises `HermesError` if it cannot be read.
        """
        with contextlib.suppress(OSError):
            # On NFS a listing, and that a file is not there, may be remembered for a minute; a
            # folder that changes is read anew
            os.utime(self.path)
        try:
            return set(os.listdir(self.path))
        except FileNotFoundError:
            return set()
        except OSError as exc:
            raise _unreadable(self.path, exc) from None

    def is_there(self) -> bool:
        return os.path.isdir(self.path)

    # Submissions

    def add(self, submission: Submission) -> None:
        """Raises `OSError` if that is not possible."""
        with contextlib.suppress(FileExistsError):
            # Not the run's folder too: a node finds nothing in one that was removed and made again
            os.mkdir(self.path)
        self._write(f"{submission.number}.json", submission, sync=True)

    def submission(self, number: int) -> Submission:
        """Raises `OSError` if there is none, and `HermesError` if it cannot be read."""
        path = f"{self.path}/{number}.json"
        return decoded(read_regular(path), Submission, file=SLURM, path=path)

    def submissions(self) -> Iterator[Submission]:
        """All submissions of the run, in their order. Raises `HermesError` if one cannot be
        read."""
        stems = {name.removesuffix(".json") for name in self.names() if name.endswith(".json")}
        for number in sorted(int(stem) for stem in stems if stem.isdigit()):
            try:
                yield self.submission(number)
            except OSError as exc:
                raise _unreadable(f"{self.path}/{number}.json", exc) from None

    def mark_accepted(self, number: int, array: str) -> None:
        with contextlib.suppress(OSError):
            self._write(f"{number}.job", Accepted(array=array))

    def open_tasks(self) -> Iterator[Task]:
        """The tasks of whose end nobody has been told yet. Raises as `submissions` does."""
        submissions = list(self.submissions())
        names = self.names()
        for submission in submissions:
            yield from (task for task in submission.tasks if f"{task.name}.told" not in names)

    # A node's part

    def claim(self, task: Task, job: str) -> bool:
        """Takes a task for the Slurm job `job`.

        False if another one has it; true for the same one started again. Raises `OSError`.
        """
        path, own = f"{self.path}/{task.name}.claim", f"{self.path}/{task.name}.{job}.tmp"
        data = encoded(Claim(job=job))
        with open(own, "wb") as file:
            file.write(data)
        try:
            # Whole and exclusive at once, on NFS too
            os.link(own, path)
            return True
        except FileExistsError:
            return self.claimed_by(task) == job
        except OSError as exc:
            if exc.errno not in NO_LINKS:
                raise
            return self._claim_without_links(path, data) or self.claimed_by(task) == job
        finally:
            os.unlink(own)

    def _claim_without_links(self, path: str, data: bytes) -> bool:
        try:
            with open(path, "xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        return True

    def claimed_by(self, task: Task) -> str | None:
        """The Slurm job that has a task, None if there is none or nobody can tell."""
        claim = self._read(f"{task.name}.claim", Claim)
        return claim.job if claim is not None else None

    def write(self, task: Task, record: Running | Ended) -> None:
        """Raises `OSError` if that is not possible."""
        kind = "ended" if isinstance(record, Ended) else "running"
        # What ends a task is on the disk before anybody relies on it
        self._write(f"{task.name}.{kind}", record, sync=kind == "ended")

    def touch(self, task: Task) -> None:
        """The node's sign of life."""
        with contextlib.suppress(OSError):
            os.utime(f"{self.path}/{task.name}.running")

    # A client's part

    def changed(self, task: Task) -> int:
        """When the node gave its last sign of life, in ns by the file server's clock; 0 if it
        has not."""
        try:
            return os.stat(f"{self.path}/{task.name}.running").st_mtime_ns
        except OSError:
            return 0

    def running(self, task: Task) -> Running | None:
        return self._read(f"{task.name}.running", Running)

    def ended(self, task: Task) -> Ended | None:
        return self._read(f"{task.name}.ended", Ended)

    def mark_told(self, task: Task, end: Outcome | NotBegunError | None = None) -> None:
        """Nothing is to be told of a task any more. `end` is there if no node has written it."""
        try:
            os.replace(f"{self.path}/{task.name}.ended", f"{self.path}/{task.name}.told")
        except OSError:
            # A node that comes late finds that there is nothing left to do
            with contextlib.suppress(OSError):
                self._write(f"{task.name}.told", Ended() if end is None else Ended.of(end))
        with contextlib.suppress(OSError):
            os.unlink(f"{self.path}/{task.name}.running")

    def log(self, task: Task) -> str:
        """The end of what the node printed and Slurm said."""
        try:
            with open(open_regular(f"{self.path}/{task.name}.log", os.O_RDONLY), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    @property
    def is_stopped(self) -> bool:
        """Whether somebody has called `hermes stop`."""
        return os.path.exists(self._stop)

    # Records

    def _write(self, name: str, record: msgspec.Struct, *, sync: bool = False) -> None:
        write_atomic(f"{self.path}/{name}", encoded(record), sync=sync)

    def _read(self, name: str, kind: type[Record]) -> Record | None:
        """None if there is no such record that can be read."""
        path = f"{self.path}/{name}"
        try:
            return decoded(read_regular(path), kind, file=SLURM, path=path)
        except (OSError, HermesError):
            return None


def _unreadable(path: str, error: OSError) -> HermesError:
    return HermesError(f"`{escape(path)}` cannot be read: {error.strerror}")


def open_keys(folder: TaskFolder) -> Iterator[tuple[str, bool]]:
    """The jobs that are with Slurm, or have ended there unnoticed: their keys, and whether they
    have succeeded. Those that have ended otherwise are left out."""
    names = folder.names()
    for task in folder.open_tasks():
        if f"{task.name}.ended" not in names:
            yield task.key, False
            continue
        ended = folder.ended(task)
        outcome = ended.outcome if ended is not None else None
        if outcome is not None and outcome.status is Status.FINISHED:
            yield task.key, True


def held(folder: TaskFolder, *, failed: bool) -> set[str]:
    """The keys of the jobs that a resumed run need not start: they are with Slurm, or have ended
    there unnoticed.

    Tasks whose jobs are started again, with `failed` the failed ones too, are marked as told.
    """
    keys = set()
    names = folder.names()
    final = {Status.FINISHED} if failed else FINAL
    for task in folder.open_tasks():
        if f"{task.name}.ended" in names:
            ended = folder.ended(task)
            # One that could not even make a directory has nothing to show for it
            if ended is None or ended.outcome is None or ended.outcome.status not in final:
                folder.mark_told(task)
                continue
        keys.add(task.key)
    return keys
