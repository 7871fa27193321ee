"""The program on a cluster's node: gives the job of one task to the local executor, and tells the
client by files.

Started by Slurm as `python -m hermes.executors.slurm.node <run folder> <submission>`;
SLURM_ARRAY_TASK_ID says which task.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType

import anyio
from msgspec.structs import replace

from ...blocking import in_thread
from ...errors import HermesError, escape
from ...events import JobStarted
from ...model import Job, Outcome, Status
from ...storage.files import Home, read_regular
from ...storage.git import Git
from ...storage.layout import PATCH
from ...storage.metadata import SlurmTask, amend
from ...storage.run_folder import RunFolder, experiments_of
from ...storage.run_record import read_record
from ...storage.writer import Experiment
from ...timing import TIMING
from ..base import Grace, Leftover, NotBegunError, OpenRun, Todo, outcome_of, wait_in_time
from ..local import LOCAL
from ..proc import group_members, processes_of
from ..processes import recorded_exit
from .commands import Commands
from .finishing import NoSlot
from .states import GOES_ON, MARK, cause_in, problem_of, with_problem
from .tasks import Ended, Running, Submission, Task, TaskFolder

SIGN_PAUSE = 15.0
"""Seconds between two signs of life: Slurm itself does not notice when a job's processes are
killed one by one."""

NEWS_PAUSE = 0.5
"""Seconds between two checks whether files have come in of which the client is to be told."""

MARGIN = 30.0
"""Seconds before the time limit at which the job is ended: there must be time for its grace, and
for collecting its files."""

LATE = 0.3
"""Seconds that a job may be ahead of this process when Slurm sends SIGTERM to both."""

VISIBLE = 60.0
"""Seconds that a file may take from the client to this node, on NFS."""


class Endings:
    """What Slurm's signals mean.

    They are handled at once, before the job's end is seen: it gets SIGTERM at the same time.
    """

    def __init__(self, folder: TaskFolder, task: Task) -> None:
        self._folder, self._task = folder, task
        self.cause: Status | None = None
        """Why the job is to end: `TIMEOUT` or `CANCELLED`."""

        self.group: int | None = None
        """The process group of the job."""

        self._is_warned = False
        """Whether the time limit is near."""

        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        signal.signal(signal.SIGTERM, self._on_end)
        signal.signal(signal.SIGUSR1, self._on_warning)

    def _on_end(self, *_: object) -> None:
        cause = cause_in(self._folder.log(self._task))
        if cause in GOES_ON:
            # The next start of this task goes on with what is there, or the client finishes it:
            # nothing here is final. The job has got the signal too and may have something to save;
            # when this process ends, Slurm kills the others
            while self.group is not None and group_members(self.group):
                time.sleep(0.02)
            os._exit(0)
        self.cause = Status.TIMEOUT if cause == "TIMEOUT" else self.cause or Status.CANCELLED
        self._wake()

    def _on_warning(self, _number: int, _frame: FrameType | None) -> None:
        self._is_warned = True
        self._wake()

    def _wake(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._news.set)

    async def cancel_in_time(self, job: anyio.CancelScope) -> None:
        """Cancels the job when it is to end; if there was a warning, shortly before the time
        limit."""
        self._loop = asyncio.get_running_loop()
        while self.cause is None and not self._is_warned:
            await self._next()
        if self.cause is None:
            commands = Commands()
            left = await in_thread(
                commands.seconds_left, os.environ["SLURM_JOB_ID"], abandon=commands.abandon
            )
            with anyio.move_on_after(max(0.0, (left or 0.0) - MARGIN)):
                while self.cause is None:
                    await self._next()
            self.cause = self.cause or Status.TIMEOUT
        job.cancel()

    def not_begun(self) -> NotBegunError:
        """Of a job that was ended before it had begun."""
        if self.cause is Status.TIMEOUT:
            return NotBegunError(problem_of("TIMEOUT"), Status.TIMEOUT)
        is_stopped = self._folder.is_stopped
        return NotBegunError(None if is_stopped else problem_of("CANCELLED"), Status.CANCELLED)

    async def _next(self) -> None:
        await self._news.wait()
        self._news.clear()


class Teller:
    """Tells the client what goes on, by the record `Running` of the task."""

    def __init__(self, folder: TaskFolder, task: Task, restarts: int) -> None:
        self._folder, self._task, self._restarts = folder, task, restarts
        self._event: JobStarted | None = None
        self._count = 0
        """Collected files of which the client has been told."""

        self.collected: list[str] = []

    def tell_start(self, event: JobStarted) -> None:
        # In the loop's thread: a small file, and nothing else waits here
        self._event = event
        self._write()

    async def keep_telling(self) -> None:
        last = time.monotonic()
        while True:
            await anyio.sleep(NEWS_PAUSE)
            if self._event is not None and len(self.collected) > self._count:
                await in_thread(self._write)
                last = time.monotonic()
            elif time.monotonic() - last > SIGN_PAUSE:
                await in_thread(self._folder.touch, self._task)
                last = time.monotonic()

    def _write(self) -> None:
        assert self._event is not None
        collected = tuple(self.collected)
        record = Running(
            event=self._event, collected=collected, node=_node(), restarts=self._restarts
        )
        try:
            self._folder.write(self._task, record)
            self._count = len(collected)
        except OSError as exc:
            print(f"cannot tell the client: {exc}", file=sys.stderr)


def main(arguments: Sequence[str]) -> int:
    """Executes one task. Returns the exit code for Slurm: that of the job, as a shell would give
    it."""
    run_folder, number = arguments
    folder = TaskFolder(run_folder)
    submission = _submission(folder, int(number))
    try:
        task = submission.task(int(os.environ["SLURM_ARRAY_TASK_ID"]))
    except IndexError:
        # Sent in a larger array, of which nobody knew that it had arrived
        print(f"{MARK}another submission has this task", file=sys.stderr)
        return 0
    job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{task.number}"
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    was_broken_off = cause_in(folder.log(task)) in GOES_ON
    print(f"{MARK}{job} is task {task.name}, start {restarts + 1}", file=sys.stderr, flush=True)
    endings = Endings(folder, task)
    is_claimed = folder.claimed_by(task) is not None
    is_over = bool(folder.names() & {f"{task.name}.ended", f"{task.name}.told"})
    if is_over or not folder.claim(task, job):
        print(f"{MARK}another job has done this, or is doing it", file=sys.stderr)
        return 0
    run = _attached(run_folder, submission, task, job)
    todo = _new(task, run.plan.jobs[task.index])
    next_step = _next_step(run, task, todo, was_broken_off) if is_claimed else todo
    teller = Teller(folder, task, restarts)
    if isinstance(next_step, Outcome):
        end: Outcome | NotBegunError = next_step
    else:
        end = _execute(run, submission.grace, next_step, teller, endings)
    if isinstance(end, Outcome):
        end = _explained(end, endings, folder)
    folder.write(task, Ended.of(end, tuple(teller.collected)))
    return _exit_code(end)


def _node() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def allocated_gpus(environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """The GPUs that Slurm has given to a job, as CUDA or ROCm calls them; None if it gave none.

    Without an allocation the variables may be those of the terminal in which it was submitted.
    """
    if not environment.get("SLURM_JOB_GPUS"):
        return None
    names = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "SLURM_JOB_GPUS")
    return tuple(next(environment[name] for name in names if environment.get(name)).split(","))


def _submission(folder: TaskFolder, number: int) -> Submission:
    ends = time.monotonic() + VISIBLE
    while True:
        try:
            return folder.submission(number)
        except FileNotFoundError:
            if time.monotonic() > ends:
                raise HermesError(f"`{escape(folder.path)}` is not there on {_node()}") from None
        folder.names()
        time.sleep(1)


def _attached(run_folder: str, submission: Submission, task: Task, job: str) -> RunFolder:
    """The run's folder. Raises `HermesError` if the job could not be executed here."""
    record = read_record(run_folder)
    plan = record.plan()
    if os.path.realpath(os.getcwd()) != os.path.realpath(plan.working_directory):
        # slurmd goes to /tmp then, and says so in this log
        where = escape(str(plan.working_directory))
        raise HermesError(f"the working directory `{where}` is not there on {_node()}")
    # Written when the run began
    patch = None
    if submission.has_patch:
        with suppress(OSError):
            patch = read_regular(f"{run_folder}/{PATCH}")
    git = Git(submission.git, patch)
    here = SlurmTask(
        job=job,
        task=task.name,
        node=os.environ.get("SLURMD_NODENAME"),
        cluster=os.environ.get("SLURM_CLUSTER_NAME"),
    )
    return RunFolder.attach(record, plan, git, here)


def _new(task: Task, job: Job) -> Todo:
    return Todo(index=task.index, job=job, key=task.key, attempt=task.attempt)


def _next_step(run: RunFolder, task: Task, todo: Todo, was_broken_off: bool) -> Todo | Outcome:
    """What a task still has to do that was started before, on this node or another.

    If Slurm broke it off to start it again, how it ended then counts for nothing: it was told to
    end.
    """
    found = [
        Leftover(directory=directory, metadata=metadata)
        for directory, metadata in experiments_of(run)
        if metadata.slurm is not None and metadata.slurm.task == task.name
    ]
    if not found:
        return todo
    last = found[-1]
    metadata = last.metadata
    if metadata.status is not Status.RUNNING and metadata.exit_code is not None:
        return outcome_of(
            Experiment(run=run, job=todo.job, home=Home.of(last.directory), metadata=metadata)
        )
    end = recorded_exit(run.exit_file(metadata.identifier))
    has_exited = end is not None and end.code is not None
    if metadata.status is Status.RUNNING and has_exited and not was_broken_off:
        # It came to its end, only nobody was left to finish it
        return replace(todo, attempt=metadata.attempts, is_taken_up=True, leftover=last)
    for pid in processes_of("HERMES_IDENTIFIER").get(metadata.identifier, ()):
        # What outlived its node program on this very machine must not go on beside its restart
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    run.continued = (last.directory, metadata)
    return replace(todo, attempt=metadata.attempts)


def _execute(
    run: RunFolder, grace: float, todo: Todo, teller: Teller, endings: Endings
) -> Outcome | NotBegunError:
    """Brings one job to its end, or ends it when it has to."""

    slot = NoSlot(gpus=allocated_gpus(os.environ))

    async def execute() -> Outcome | NotBegunError:
        opened = OpenRun(
            plan=run.plan,
            folder=run,
            grace=Grace(grace),
            timing=TIMING,
            is_cancelled=lambda: endings.cause is not None,
            collected=lambda _, path: teller.collected.append(path),
            warn=lambda message: print(f"warning: {message}", file=sys.stderr),
            queued=lambda *_: None,
        )
        end: Outcome | NotBegunError
        async with anyio.create_task_group() as services:
            services.start_soon(teller.keep_telling)
            async with LOCAL.opened(opened) as place:
                until_end = anyio.CancelScope()
                services.start_soon(endings.cancel_in_time, until_end)
                try:
                    job = None
                    with until_end:
                        async with place.job(todo, slot) as job:
                            if job.started is not None:
                                endings.group = job.started.pid
                                teller.tell_start(job.started)
                            await wait_in_time(job)
                    outcome = job.outcome if job is not None else None
                    end = outcome or endings.not_begun()
                except NotBegunError as exc:
                    end = exc
            services.cancel_scope.cancel()
        return end

    return anyio.run(execute, backend="asyncio")


def _explained(outcome: Outcome, endings: Endings, folder: TaskFolder) -> Outcome:
    """The outcome with what is known of why it ended: Slurm's own signal, or the one that was
    passed on."""
    if outcome.signal == signal.SIGTERM and endings.cause is None:
        time.sleep(LATE)
    if endings.cause is None or outcome.status is Status.FINISHED:
        return outcome
    explained = replace(outcome, status=endings.cause)
    if endings.cause is Status.CANCELLED and not folder.is_stopped:
        explained = with_problem(explained, problem_of("CANCELLED"))
    assert outcome.directory is not None
    if explained != outcome:
        amend(outcome.directory, explained.status, explained.problems)
    return explained


def _exit_code(end: Outcome | NotBegunError) -> int:
    if isinstance(end, NotBegunError):
        return 1
    if end.signal is not None:
        return 128 + end.signal
    return end.exit_code if end.exit_code is not None else int(not end.ok)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (HermesError, OSError) as exc:
        # The client tells the last line of what a node has printed
        sys.exit(str(exc))
