"""What runs on a cluster's node for one task: it does for its job what a local run does, and tells the client by files.

Started by Slurm as `python -m hermes.executors.slurm.node <run folder> <submission>`; SLURM_ARRAY_TASK_ID says which task.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from types import FrameType

import anyio

from ...blocking import in_thread
from ...errors import HermesError
from ...events import JobStarted
from ...experiments.records import read_record
from ...experiments.store import PATCH, RunFolder, amend, experiments_of
from ...language.plan import Plan
from ...model import Job, Outcome, Status
from ..base import Leftover, Pending
from ..local import LocalExecution
from ..processes import group_members, processes_of, recorded_exit
from .commands import GOES_ON, MARK, Calls, cause_in, problem_of
from .tasks import Submission, Task, TaskFolder, ended_data, git_of, running_data

BEAT = 15.0
"""Seconds between two signs of life: Slurm itself does not notice when a job's processes are killed one by one."""

TELL = 0.5
"""Seconds between two looks at whether files have come in of which the client is to be told."""

MARGIN = 30.0
"""Seconds before the time limit at which the job is ended, so that there is time for its grace and for collecting its files."""

LATE = 0.3
"""Seconds that a job may be ahead of this process when Slurm sends SIGTERM to both."""

VISIBLE = 60.0
"""Seconds that a file may take from the client to this node, on NFS."""


class Endings:
    """What Slurm's signals mean. Handled at once, before the job's end is seen: it gets SIGTERM at the same time."""

    def __init__(self, folder: TaskFolder, task: Task) -> None:
        self._folder, self._task = folder, task
        self.cause: str | None = None
        """Why the job is to end: `TIMEOUT` or `CANCELLED`."""

        self.group: int | None = None
        """The process group of the job."""

        self.warned = False
        """Whether the time limit is near."""

        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: asyncio.Event | None = None
        signal.signal(signal.SIGTERM, self._told_to_end)
        signal.signal(signal.SIGUSR1, self._told_of_the_limit)

    def _told_to_end(self, *_: object) -> None:
        cause = cause_in(self._folder.log(self._task))
        if cause in GOES_ON:
            # The next start of this task goes on with what is there, or the client finishes it: nothing here is final.
            # The job has got the signal too and may have something to save; when this process ends, Slurm kills the others
            while self.group is not None and group_members(self.group):
                time.sleep(0.02)
            os._exit(0)
        self.cause = "TIMEOUT" if cause == "TIMEOUT" else self.cause or "CANCELLED"
        self._wake()

    def _told_of_the_limit(self, _number: int, _frame: FrameType | None) -> None:
        self.warned = True
        self._wake()

    def _wake(self) -> None:
        if self._loop is not None and self._news is not None:
            self._loop.call_soon_threadsafe(self._news.set)

    async def carry_out(self, execution: LocalExecution) -> None:
        """Ends the job when it is to end; shortly before the limit if there was a warning."""
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
        while self.cause is None and not self.warned:
            await self._news.wait()
            self._news.clear()
        if self.cause is None:
            left = await in_thread(Calls().seconds_left, os.environ["SLURM_JOB_ID"])
            with anyio.move_on_after(max(0.0, (left or 0.0) - MARGIN)):
                while self.cause is None:
                    await self._news.wait()
                    self._news.clear()
            self.cause = self.cause or "TIMEOUT"
        execution.cancel()


class NodeWork:
    """The work of one job, which the local executor does; what it tells goes into files."""

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        grace: float,
        todo: Pending | Leftover,
        tell: Teller,
        endings: Endings,
    ) -> None:
        self.plan, self.folder, self.grace = plan, folder, grace
        self.leftovers: Sequence[Leftover] = [todo] if isinstance(todo, Leftover) else []
        self.is_followed = True
        self.outcome: Outcome | None = None
        self._pending = [todo] if isinstance(todo, Pending) else []
        self._tell, self._endings = tell, endings

    def pending(self) -> Iterator[Pending]:
        return iter(self._pending)

    def again(self, leftover: Leftover) -> Pending:
        raise AssertionError("a node runs nothing again")

    def started(self, event: JobStarted) -> None:
        self._endings.group = event.pid
        self._tell.started(event)

    def collected(self, identifier: str, path: str) -> None:
        self._tell.collected.append(path)

    async def ended(self, index: int, outcome: Outcome, *, replaced: bool = False) -> None:
        self.outcome = outcome

    def warn(self, message: str) -> None:
        print(f"warning: {message}", file=sys.stderr)

    def queued(self, pending: int, running: int, reason: str) -> None:
        """Nothing waits here."""

    def stop(self) -> None:
        """The client sees by the missing outcome that the disk is full."""


class Teller:
    """Keeps the client informed by the file `running` of the task."""

    def __init__(self, folder: TaskFolder, task: Task, restarts: int) -> None:
        self._folder, self._task, self._restarts = folder, task, restarts
        self._event: JobStarted | None = None
        self._told = 0
        self.collected: list[str] = []

    def started(self, event: JobStarted) -> None:
        # In the loop's thread: a small file, and nothing else waits here
        self._event = event
        self._write()

    async def keep_telling(self) -> None:
        beat = time.monotonic()
        while True:
            await anyio.sleep(TELL)
            if self._event is not None and len(self.collected) > self._told:
                await in_thread(self._write)
                beat = time.monotonic()
            elif time.monotonic() - beat > BEAT:
                await in_thread(self._folder.touch, self._task)
                beat = time.monotonic()

    def _write(self) -> None:
        assert self._event is not None
        self._told = len(self.collected)
        node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        try:
            self._folder.write(
                self._task,
                "running",
                running_data(self._event, self.collected, node, self._restarts),
            )
        except OSError as exc:
            print(f"cannot tell the client: {exc}", file=sys.stderr)


def main(arguments: Sequence[str]) -> int:
    """Runs one task, and returns the exit code for Slurm: that of the job, as a shell would give it."""
    run_folder, number = arguments
    folder = TaskFolder(run_folder)
    submission = _submission(folder, int(number))
    task = submission.tasks[int(os.environ["SLURM_ARRAY_TASK_ID"])]
    job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{task.number}"
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    was_broken_off = cause_in(folder.log(task)) in GOES_ON
    print(f"{MARK}{job} is task {task.name}, start {restarts + 1}", file=sys.stderr, flush=True)
    endings = Endings(folder, task)
    is_claimed = folder.claimed_by(task) is not None
    if folder.names() & {f"{task.name}.ended", f"{task.name}.told"} or not folder.claim(task, job):
        print(f"{MARK}somebody else has done this, or is doing it", file=sys.stderr)
        return 0
    record = read_record(run_folder)
    plan = record.plan()
    if os.path.realpath(os.getcwd()) != os.path.realpath(plan.working_directory):
        # slurmd goes to /tmp then, and says so in this log
        raise HermesError(
            f"the working directory `{plan.working_directory}` is not there on {socket.gethostname()}"
        )
    where = {
        "job": job,
        "task": task.name,
        "node": os.environ.get("SLURMD_NODENAME"),
        "cluster": os.environ.get("SLURM_CLUSTER_NAME"),
    }
    patch = b"" if submission.has_patch and os.path.exists(f"{run_folder}/{PATCH}") else None
    run = RunFolder.attach(record, plan, git_of(submission.git, patch), {"slurm": where})
    the_job = next(islice(iter(plan.jobs), task.index, None))
    teller = Teller(folder, task, restarts)
    todo = (
        _todo(run, task, the_job, was_broken_off)
        if is_claimed
        else Pending(task.index, the_job, task.key, task.attempt)
    )
    if isinstance(todo, Outcome):
        outcome: Outcome | None = todo
    else:
        outcome = _run(
            NodeWork(plan, run, submission.grace, todo, teller, endings), teller, endings
        )
    if outcome is None and endings.cause is not None:
        # Before the job had begun
        outcome = Outcome.not_begun(the_job, Status(endings.cause.lower()))
    elif outcome is not None:
        outcome = _final(outcome, endings, folder)
    folder.write(task, "ended", ended_data(outcome, teller.collected))
    return _exit_code(outcome)


def _submission(folder: TaskFolder, number: int) -> Submission:
    ends = time.monotonic() + VISIBLE
    while True:
        try:
            return folder.submission(number)
        except FileNotFoundError:
            if time.monotonic() > ends:
                raise
        folder.names()
        time.sleep(1)


def _todo(
    run: RunFolder, task: Task, job: Job, was_broken_off: bool
) -> Pending | Leftover | Outcome:
    """What a task still has to do that was started before, on this node or another.

    If Slurm broke it off to start it again, how it ended then counts for nothing: it was told to end.
    """
    found = [
        each for each in experiments_of(run) if each[1].get("slurm", {}).get("task") == task.name
    ]
    if not found:
        return Pending(task.index, job, task.key, task.attempt)
    directory, metadata = found[-1]
    exit_ = recorded_exit(run.exit_file(metadata["identifier"]))
    if metadata["status"] != Status.RUNNING and metadata.get("exit_code") is not None:
        return Outcome.from_metadata(job, directory, metadata)
    if (
        metadata["status"] == Status.RUNNING
        and exit_ is not None
        and exit_.code is not None
        and not was_broken_off
    ):
        # It came to its end, only nobody was left to finish it
        return Leftover(task.index, job, directory, metadata, again=False, failed=False)
    for pid in processes_of("HERMES_IDENTIFIER").get(metadata["identifier"], ()):
        # What outlived its watcher on this very node must not go on beside the next attempt
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    run.continued = (directory, metadata)
    return Pending(task.index, job, task.key, metadata["attempts"] + 1)


def _run(work: NodeWork, teller: Teller, endings: Endings) -> Outcome | None:
    async def execute() -> None:
        execution = LocalExecution(work)
        async with anyio.create_task_group() as services:
            services.start_soon(teller.keep_telling)
            services.start_soon(endings.carry_out, execution)
            await execution.run()
            services.cancel_scope.cancel()

    anyio.run(execute, backend="asyncio")
    return work.outcome


def _final(outcome: Outcome, endings: Endings, folder: TaskFolder) -> Outcome:
    """The outcome with what is known of why it ended: Slurm's own signal, or the one that was passed on."""
    if outcome.signal == signal.SIGTERM and endings.cause is None:
        time.sleep(LATE)
    if endings.cause is None or outcome.status is Status.FINISHED or not outcome.identifier:
        return outcome
    problems = outcome.problems
    if endings.cause == "CANCELLED" and not folder.is_stopped:
        problems = (*problems, problem_of(endings.cause))
    outcome = replace(outcome, status=Status(endings.cause.lower()), problems=problems)
    assert outcome.directory is not None
    amend(outcome.directory, outcome.status, outcome.problems)
    return outcome


def _exit_code(outcome: Outcome | None) -> int:
    if outcome is None:
        return 1
    if outcome.signal is not None:
        return 128 + outcome.signal
    return outcome.exit_code if outcome.exit_code is not None else int(not outcome.ok)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except HermesError as exc:
        sys.exit(str(exc))
