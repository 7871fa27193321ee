"""What a client and its nodes tell each other: small files in a run's folder, each written whole, on a file system that all of them see.

A submission is a numbered list of tasks, each a job of the plan. For task 3 of submission 0 there are, as it goes on:

| file | written by | says |
|---|---|---|
| `0.json` | the client, before it submits | the tasks of the submission, and the name by which Slurm knows it |
| `0.3.claim` | a node, exclusively | which Slurm job has this task: any other leaves it alone, so nothing runs twice |
| `0.3.running` | the node | the job's process exists; it is replaced when files are collected, and touched as a sign of life |
| `0.3.ended` | the node, or the client in its place | the outcome; the experiment directory is final |
| `0.3.told` | the client, by renaming | the same, and somebody has been told |
| `0.3.log` | Slurm | what the node itself printed, and what Slurm says about its end |
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ...events import JobStarted
from ...experiments.files import NO_LINKS, write_atomic
from ...experiments.provenance import Git
from ...experiments.records import STOP
from ...model import Outcome, Status

FOLDER = "slurm"
"""The folder in a run's folder that holds these files."""

TELLING = 8192
"""Bytes at the end of a task's log that are looked at."""

Kind = Literal["claim", "running", "ended", "told", "log"]


@dataclass(frozen=True, slots=True)
class Task:
    """One job of the plan as it is submitted: `index` counts the jobs from 0, `attempt` its starts in this run from 1."""

    submission: int
    number: int
    index: int
    key: str
    attempt: int

    @property
    def name(self) -> str:
        return f"{self.submission}.{self.number}"


@dataclass(frozen=True, slots=True)
class Submission:
    """One job array. `name` is that of the Slurm job, and nobody else's; `options` are the user's for `sbatch`.

    `git` is the state of the code when the run began, and `grace` as in `open_run`.
    """

    number: int
    name: str
    options: tuple[str, ...]
    tasks: tuple[Task, ...]
    git: dict[str, Any]
    has_patch: bool
    grace: float

    def write(self, folder: TaskFolder) -> None:
        """Raises `OSError` if that is not possible."""
        tasks = [[task.index, task.key, task.attempt] for task in self.tasks]
        data = {
            "name": self.name, "options": self.options, "tasks": tasks, "git": self.git, "has_patch": self.has_patch, "grace": self.grace,
        }  # fmt: skip
        write_atomic(folder.path(f"{self.number}.json"), json.dumps(data).encode(), sync=True)

    def is_claimed(self, names: Set[str]) -> bool:
        """Whether a node has one of its tasks, by the names of the files that are there."""
        return any(f"{task.name}.claim" in names for task in self.tasks)


class TaskFolder:
    """These files of one run. All functions block."""

    def __init__(self, run_folder: str) -> None:
        self._folder = f"{run_folder}/{FOLDER}"

    def path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def make(self) -> None:
        os.makedirs(self._folder, exist_ok=True)

    def submissions(self) -> Iterator[Submission]:
        """All submissions of the run, in their order."""
        numbers = [
            int(stem)
            for name in self.names()
            for stem, dot, end in [name.partition(".")]
            if end == "json" and stem.isdigit()
        ]
        for number in sorted(numbers):
            yield self.submission(number)

    def submission(self, number: int) -> Submission:
        """Raises `OSError` if there is none."""
        with open(self.path(f"{number}.json"), "rb") as file:
            data = json.load(file)
        tasks = tuple(Task(number, position, *each) for position, each in enumerate(data["tasks"]))
        return Submission(
            number,
            data["name"],
            tuple(data["options"]),
            tasks,
            data["git"],
            data["has_patch"],
            data["grace"],
        )

    def names(self) -> set[str]:
        """The names of all these files, as they are now."""
        with contextlib.suppress(OSError):
            # On NFS a listing, and that a file is not there, may be remembered for a minute; a folder that changes is looked at anew
            os.utime(self._folder)
        try:
            return set(os.listdir(self._folder))
        except OSError:
            return set()

    def claim(self, task: Task, job: str) -> bool:
        """Takes a task for the Slurm job `job`. False if another one has it; true for the same one started again."""
        path, own = self.path(f"{task.name}.claim"), self.path(f"{task.name}.{job}.tmp")
        with open(own, "w") as file:
            file.write(job)
        try:
            # Whole and exclusive at once, on NFS too
            os.link(own, path)
            return True
        except FileExistsError:
            return self.claimed_by(task) == job
        except OSError as exc:
            if exc.errno not in NO_LINKS:
                raise
            return self._claim_without_links(path, task, job)
        finally:
            os.unlink(own)

    def _claim_without_links(self, path: str, task: Task, job: str) -> bool:
        try:
            with open(path, "x") as file:
                file.write(job)
            return True
        except FileExistsError:
            return self.claimed_by(task) == job

    def claimed_by(self, task: Task) -> str | None:
        try:
            with open(self.path(f"{task.name}.claim")) as file:
                return file.read()
        except OSError:
            return None

    def write(self, task: Task, kind: Kind, data: dict[str, Any]) -> None:
        """Raises `OSError` if that is not possible."""
        # What ends a task is on the disk before anybody relies on it
        write_atomic(
            self.path(f"{task.name}.{kind}"), json.dumps(data).encode(), sync=kind == "ended"
        )

    def read(self, task: Task, kind: Kind) -> dict[str, Any] | None:
        try:
            with open(self.path(f"{task.name}.{kind}"), "rb") as file:
                data = json.load(file)
        except (OSError, ValueError):
            return None
        return data if isinstance(data, dict) else None

    def touch(self, task: Task) -> None:
        """The node's sign of life."""
        with contextlib.suppress(OSError):
            os.utime(self.path(f"{task.name}.running"))

    def changed(self, task: Task) -> int:
        """When the node wrote or touched what says that the task runs, by the file server's clock; 0 if it has not."""
        try:
            return os.stat(self.path(f"{task.name}.running")).st_mtime_ns
        except OSError:
            return 0

    def mark_told(self, task: Task) -> None:
        with contextlib.suppress(OSError):
            os.replace(self.path(f"{task.name}.ended"), self.path(f"{task.name}.told"))
        with contextlib.suppress(OSError):
            os.unlink(self.path(f"{task.name}.running"))

    def log(self, task: Task) -> str:
        """The end of what the node printed and Slurm said."""
        try:
            with open(self.path(f"{task.name}.log"), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TELLING))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    @property
    def is_stopped(self) -> bool:
        """Whether somebody has called `hermes stop`."""
        return os.path.exists(f"{os.path.dirname(self._folder)}/{STOP}")

    def open_tasks(self) -> Iterator[Task]:
        """The tasks of whose end nobody has been told yet."""
        names = self.names()
        for submission in self.submissions():
            yield from (task for task in submission.tasks if f"{task.name}.told" not in names)


def held(folder: TaskFolder, *, failed: bool) -> set[str]:
    """The keys of the jobs that a resumed run need not start because they are with Slurm, or have ended there and nobody was told.

    Tasks whose jobs are started again, with `failed` the failed ones too, are done with.
    """
    keys = set()
    names = folder.names()
    final = {Status.FINISHED} if failed else {Status.FINISHED, Status.FAILED, Status.TIMEOUT}
    for task in folder.open_tasks():
        if f"{task.name}.ended" in names:
            outcome = outcome_of(folder.read(task, "ended"))
            # One that could not even make a directory has nothing to show for it
            if outcome is None or outcome.status not in final or not outcome.identifier:
                folder.mark_told(task)
                continue
        keys.add(task.key)
    return keys


def git_of(data: dict[str, Any], patch: bytes | None) -> Git:
    return Git(data["commit"], data["branch"], data["dirty"], data.get("reason"), patch)


def started_event(data: dict[str, Any]) -> JobStarted:
    """The event of a `running` file."""
    event = data["event"]
    return JobStarted(
        **event | {"argv": tuple(event["argv"]), "arguments": tuple(event["arguments"])}
    )


def running_data(
    event: JobStarted, collected: Sequence[str], node: str, restarts: int
) -> dict[str, Any]:
    return {
        "event": asdict(event),
        "collected": list(collected),
        "node": node,
        "restarts": restarts,
    }


def outcome_of(data: dict[str, Any] | None) -> Outcome | None:
    """The outcome of an `ended` file; None if there was none, for lack of room on the disk."""
    if data is None or data["outcome"] is None:
        return None
    told = data["outcome"]
    changes = {
        "status": Status(told["status"]),
        "problems": tuple(told["problems"]),
        "argv": tuple(told["argv"]),
    }
    return Outcome(**told | changes)


def ended_data(outcome: Outcome | None, collected: Sequence[str]) -> dict[str, Any]:
    return {"outcome": None if outcome is None else asdict(outcome), "collected": list(collected)}
