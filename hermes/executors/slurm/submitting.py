"""Submitting tasks: jobs that are asked for at about the same moment become job arrays, each
submitted once."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import anyio

from ...blocking import in_thread
from ...language.plan import sbatch_words
from ...model import Problem, ProblemKind
from ..base import NotBegunError, OpenRun, Todo
from .commands import (
    Commands,
    LaterError,
    Limits,
    NoAnswerError,
    RefusedError,
    UnclearError,
)
from .open_tasks import OpenTask, OpenTasks
from .tasks import Entry, Submission, TaskFolder

GATHER = 0.1
"""Seconds: jobs that are asked for within this time of each other are submitted together."""

BATCH_PAUSE = 1.0
"""Seconds between two batches, so that jobs which end one by one are not submitted one by one."""

FIRST_RETRY, LAST_RETRY = 1.0, 60.0
"""Seconds until something that Slurm does not take now is tried again; each pause is twice the
last."""

WARNING = 90
"""Seconds before a time limit at which the node is warned, if the job's own options do not say
`--signal`. Slurm may be a minute early; the node waits then."""


@dataclass(slots=True, eq=False)
class _Request:
    todo: Todo
    answered: anyio.Event = field(default_factory=anyio.Event)
    answer: OpenTask | NotBegunError | None = None

    def give(self, answer: OpenTask | NotBegunError) -> None:
        self.answer = answer
        self.answered.set()


class Submitter:
    """Submits the tasks of one run, and sees to it that Slurm has each of them once."""

    def __init__(
        self,
        *,
        run: OpenRun,
        folder: TaskFolder,
        commands: Commands,
        limits: Limits,
        tasks: OpenTasks,
        threads: anyio.CapacityLimiter,
        on_accepted: Callable[[], object],
    ) -> None:
        self._run = run
        self._folder = folder
        self._commands = commands
        self._limits = limits
        self._tasks = tasks
        self._threads = threads
        self._on_accepted = on_accepted
        self._requests: dict[str, _Request] = {}
        """What has not been submitted yet, by the keys of the jobs."""

        self._to_send_again: list[int] = []
        self._sent_again: set[int] = set()
        self._work = anyio.Event()

    async def submit(self, todo: Todo) -> OpenTask:
        """Returns when the job is on its way to Slurm. Raises `NotBegunError`.

        If this is cancelled before that, the job is not submitted.
        """
        request = self._requests[todo.key] = _Request(todo)
        self._work.set()
        try:
            await request.answered.wait()
        finally:
            if self._requests.get(todo.key) is request:
                del self._requests[todo.key]
        if isinstance(request.answer, NotBegunError):
            raise request.answer
        assert request.answer is not None
        return request.answer

    def may_send_again(self, number: int) -> bool:
        return number not in self._sent_again

    def send_again(self, number: int) -> None:
        """Sends a submission that Slurm has forgotten. Not more than once."""
        self._sent_again.add(number)
        self._tasks.arrays.pop(number, None)
        for each in self._tasks.of_submission(number):
            each.signs.note_sent_again()
        self._to_send_again.append(number)
        self._work.set()

    async def serve(self) -> None:
        if self._run.is_ending:
            await self._cancel_all()
            return
        for number in sorted(self._tasks.numbers - self._tasks.arrays.keys()):
            # An earlier client was killed while it submitted
            if not await self._is_there(self._tasks.submissions[number]):
                await self._send(self._tasks.submissions[number])
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            again, self._to_send_again = self._to_send_again, []
            for number in again:
                await self._send(self._tasks.submissions[number])
            await self._gather()
            requests, self._requests = self._requests, {}
            # Requests come from tasks that start in any order
            await self._submit_all(sorted(requests.values(), key=lambda each: each.todo.index))
            await anyio.sleep(BATCH_PAUSE)

    async def _gather(self) -> None:
        """Waits until no more jobs are asked for."""
        count = 0
        while len(self._requests) != count:
            count = len(self._requests)
            await anyio.sleep(GATHER)

    async def _submit_all(self, requests: Iterable[_Request]) -> None:
        """Submits jobs, those of equal options together in arrays."""
        groups: dict[tuple[str, ...], list[_Request]] = {}
        for request in requests:
            options = sbatch_words(self._run.plan.settings, request.todo.job.options)
            groups.setdefault(options, []).append(request)
        for options, group in groups.items():
            rest = iter(group)
            while array := list(islice(rest, self._limits.array)):
                await self._submit_array(options, array)

    async def _submit_array(self, options: tuple[str, ...], requests: Sequence[_Request]) -> None:
        todos = [request.todo for request in requests]
        submission = self._submission(options, todos)
        try:
            await in_thread(self._folder.add, submission, limiter=self._threads)
        except OSError as exc:
            text = f"cannot write to `{self._folder.path}`: {exc.strerror}"
            for request in requests:
                problem = Problem.of(ProblemKind.NO_DIRECTORY, text, exc)
                request.give(NotBegunError(problem))
            return
        self._tasks.submissions[submission.number] = submission
        for request, each in zip(requests, self._tasks.add(submission, todos), strict=True):
            request.give(each)
        await self._send(submission)

    def _submission(self, options: tuple[str, ...], todos: Sequence[Todo]) -> Submission:
        folder, number = self._run.folder, self._tasks.next_number
        return Submission(
            number=number,
            # The run's id is unique
            job_name=f"hermes-{folder.run_id}-{number}",
            options=options,
            entries=tuple(Entry(todo.index, todo.key, todo.attempt) for todo in todos),
            git=folder.git.state,
            has_patch=folder.git.patch is not None,
            grace=self._run.grace.seconds,
        )

    async def _send(self, submission: Submission) -> None:
        """Calls `sbatch` until Slurm has the submission, or refuses it."""
        pause, is_first = FIRST_RETRY, True
        while True:
            words = self._words(submission)
            try:
                array = await in_thread(self._call, submission, words, limiter=self._threads)
            except UnclearError as exc:
                said = exc.said
                if await self._is_there(submission):
                    return
            except LaterError as exc:
                said = exc.said
            except RefusedError as exc:
                problem = Problem(ProblemKind.REFUSED, f"Slurm refused it: {exc.said}")
                for each in self._tasks.of_submission(submission.number):
                    each.finish(NotBegunError(problem))
                return
            else:
                self._tasks.arrays.setdefault(submission.number, set()).add(array)
                self._on_accepted()
                return
            if is_first:
                self._run.warn(f"Slurm takes no jobs now, trying again: {said}")
                is_first = False
            await anyio.sleep(pause)
            pause = min(LAST_RETRY, 2 * pause)

    def _call(self, submission: Submission, words: Sequence[str]) -> str:
        array = self._commands.submit(words)
        self._folder.mark_accepted(submission.number, array)
        return array

    def _words(self, submission: Submission) -> list[str]:
        """What follows `sbatch`."""
        mine = submission.number
        others = [each for each in self._tasks.all if each.task.submission != mine]
        before = {
            array for each in others for array in self._tasks.arrays.get(each.task.submission, ())
        }
        threads = self._run.plan.settings.threads
        # Each array has its own throttle; one after the other, they keep to `threads` together
        waits = len(others) + len(submission.entries) > threads
        return submission_words(
            submission,
            run_folder=self._run.folder.folder,
            task_folder=self._folder.path,
            working_directory=str(self._run.plan.working_directory),
            threads=threads,
            after=sorted(before) if waits else (),
        )

    async def _is_there(self, submission: Submission) -> bool:
        """Whether Slurm has a submission that may have arrived. It may be slow to take what it
        was sent."""
        answers = 0
        while answers < 2:
            if answers:
                await anyio.sleep(2 * self._limits.message_timeout)
            try:
                rows = await in_thread(
                    self._commands.queue, [submission.job_name], limiter=self._threads
                )
            except NoAnswerError:
                await anyio.sleep(self._run.timing.slurm_first_ask)
                continue
            names = await in_thread(self._folder.names, limiter=self._threads)
            if rows or submission.is_claimed(names):
                arrays = self._tasks.arrays.setdefault(submission.number, set())
                arrays.update(row.array for row in rows)
                return True
            answers += 1
        return False

    async def _cancel_all(self) -> None:
        """Cancels all that is open by its name: also what nobody knows to have arrived."""
        numbers = sorted(self._tasks.numbers)
        names = [self._tasks.submissions[number].job_name for number in numbers]
        while True:
            try:
                await in_thread(self._commands.cancel_named, names, limiter=self._threads)
                break
            except NoAnswerError as exc:
                self._run.warn(f"Slurm does not answer, trying again: {exc}")
                await anyio.sleep(self._run.timing.slurm_first_ask)
        for number in numbers:
            self._tasks.arrays.setdefault(number, set())


def submission_words(
    submission: Submission,
    *,
    run_folder: str,
    task_folder: str,
    working_directory: str,
    threads: int,
    after: Sequence[str],
) -> list[str]:
    """What follows `sbatch`. Later words overrule earlier ones: defaults, the user's, what Hermes
    relies upon.

    At most `threads` tasks of it run at once, and none before the arrays `after` have ended.
    """
    number, count = submission.number, len(submission.entries)
    node = [
        sys.executable,
        "-P",
        "-X",
        "utf8",
        "-m",
        "hermes.executors.slurm.node",
        run_folder,
        str(number),
    ]
    words = [
        f"--wrap=exec {shlex.join(node)}",
        "--requeue",
        "--export=ALL",
        f"--signal=B:USR1@{WARNING}",
        *submission.options,
        "--parsable",
        f"--job-name={submission.job_name}",
        f"--array=0-{count - 1}%{min(threads, count)}",
        f"--chdir={working_directory}",
        f"--output={task_folder.replace('%', '%%')}/{number}.%a.log",
        "--open-mode=append",
    ]
    if after:
        words.append(f"--dependency=afterany:{':'.join(after)}")
    return words
