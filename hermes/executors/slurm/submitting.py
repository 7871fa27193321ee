"""Submitting tasks: jobs that are asked for at about the same moment become job arrays, each
submitted once."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import anyio
import msgspec

from ...blocking import in_thread
from ...errors import HermesError, escape
from ...language.plan import sbatch_words
from ...model import Problem, ProblemKind
from ...storage.git import Git
from ..base import NotBegunError, OpenRun, Todo
from .commands import Commands, Limits, NoAnswerError, NotTakenError
from .open_tasks import OpenTask, OpenTasks
from .pacing import Pacer
from .refusals import Meaning
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


class _Request(msgspec.Struct, eq=False):
    todo: Todo
    answered: anyio.Event = msgspec.field(default_factory=anyio.Event)
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
        pacer: Pacer,
        on_accepted: Callable[[], object],
    ) -> None:
        self._run = run
        self._folder = folder
        self._commands = commands
        self._limits = limits
        self._tasks = tasks
        self._threads = threads
        self._pacer = pacer
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
        if self._pacer.is_taken_back:
            raise NotBegunError(None)
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

    def take_back(self) -> None:
        """Submits nothing any more."""
        for request in self._requests.values():
            request.give(NotBegunError(None))
        self._requests = {}

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
        unclear = sorted(self._tasks.numbers - self._tasks.arrays.keys())
        # An earlier client was killed while it submitted
        for submission in await self._lost([self._tasks.submissions[each] for each in unclear]):
            await self._send(submission, may_be_there=True)
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            again, self._to_send_again = self._to_send_again, []
            for number in again:
                await self._send(self._tasks.submissions[number], may_be_there=True)
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
        git = await in_thread(self._run.folder.code_as_begun, limiter=self._threads)
        submission = self._submission(options, todos, git)
        added = self._tasks.add(submission, todos)
        for request, each in zip(requests, added, strict=True):
            request.give(each)
        if await self._is_written(submission):
            await self._send(submission)

    async def _is_written(self, submission: Submission) -> bool:
        """Tells the nodes of a submission. If that is not possible, its jobs have failed."""
        try:
            await in_thread(self._folder.add, submission, limiter=self._threads)
        except OSError as exc:
            text = f"cannot write to `{escape(self._folder.path)}`: {exc.strerror}"
            self._fail(submission, Problem.of(ProblemKind.NO_DIRECTORY, text, exc))
            return False
        return True

    def _fail(self, submission: Submission, problem: Problem) -> None:
        for each in self._tasks.of_submission(submission.number):
            each.finish(NotBegunError(problem))

    def _submission(self, options: tuple[str, ...], todos: Sequence[Todo], git: Git) -> Submission:
        number = self._tasks.next_number
        return Submission(
            number=number,
            job_name=self._job_name(number),
            options=options,
            entries=tuple(Entry(todo.index, todo.key, todo.attempt) for todo in todos),
            git=git.state,
            has_patch=git.patch is not None,
            grace=self._run.grace.seconds,
        )

    def _job_name(self, number: int) -> str:
        # The run's id is unique
        return f"hermes-{self._run.folder.run_id}-{number}"

    async def _send(self, submission: Submission, *, may_be_there: bool = False) -> None:
        """Calls `sbatch` until Slurm has the submission, or refuses it.

        `may_be_there`: it has been sent before, and may still arrive.
        """
        pause, is_first = FIRST_RETRY, True
        while True:
            if self._pacer.is_taken_back and not may_be_there:
                for each in self._tasks.of_submission(submission.number):
                    each.finish(NotBegunError(None))
                return
            try:
                words = await self._words(submission)
                array = await in_thread(self._call, submission, words, limiter=self._threads)
            except NoAnswerError as exc:
                meaning, said = Meaning.LATER, str(exc)
            except NotTakenError as exc:
                meaning, said = exc.meaning, exc.said
            else:
                self._tasks.arrays.setdefault(submission.number, set()).add(array)
                self._on_accepted()
                self._pacer.note_submitted()
                return
            may_be_there |= meaning is Meaning.UNCLEAR
            # What has arrived late may itself be what fills the queue
            is_asked = may_be_there and meaning is not Meaning.LATER
            if is_asked and not await self._lost([submission]):
                return
            is_one, is_too_large = len(submission.entries) == 1, meaning is Meaning.TOO_LARGE
            if meaning is Meaning.REFUSED or (is_too_large and is_one):
                text = f"Slurm refused it: {said}"
                self._fail(submission, Problem(ProblemKind.REFUSED, text))
                return
            # What may still arrive is not halved: a node might have one of its tasks already
            fits_in_part = is_too_large or (meaning is Meaning.FULL and not may_be_there)
            if fits_in_part and not is_one:
                # In this order: a client that is killed in between has no job in two of them
                for half in self._halved(submission):
                    if await self._is_written(half):
                        await self._send(half)
                return
            if is_first:
                self._run.warn(f"Slurm takes no jobs now, trying again: {said}")
                is_first = False
            one_less = self._tasks.one_less
            await anyio.sleep(FIRST_RETRY)
            with anyio.move_on_after(pause - FIRST_RETRY):
                # There is room as soon as a job of this run has ended
                await one_less.wait()
                pause = FIRST_RETRY
            pause = min(LAST_RETRY, 2 * pause)

    def _halved(self, submission: Submission) -> tuple[Submission, Submission]:
        """Makes two submissions of one that has not been submitted."""
        half = len(submission.entries) // 2
        first = msgspec.structs.replace(submission, entries=submission.entries[:half])
        number = self._tasks.next_number
        second = msgspec.structs.replace(
            submission,
            number=number,
            job_name=self._job_name(number),
            entries=submission.entries[half:],
        )
        self._tasks.split(first, second)
        return first, second

    def _call(self, submission: Submission, words: Sequence[str]) -> str:
        array = self._commands.submit(words)
        self._folder.mark_accepted(submission.number, array)
        return array

    async def _words(self, submission: Submission) -> list[str]:
        """What follows `sbatch`. Raises `NoAnswerError`."""
        return submission_words(
            submission,
            run_folder=self._run.folder.folder,
            task_folder=self._folder.path,
            working_directory=str(self._run.plan.working_directory),
            threads=self._pacer.most,
            after=await self._arrays_before(submission),
        )

    async def _arrays_before(self, submission: Submission) -> Sequence[str]:
        """The arrays that have to end before this one, by their ids.

        Each array has its own throttle; one after the other, they keep to `threads` together.
        """
        others = [each for each in self._tasks.all if each.task.submission != submission.number]
        if len(others) + len(submission.entries) <= self._pacer.most:
            return ()
        arrays = self._tasks.arrays
        numbers = {each.task.submission for each in others} & arrays.keys()
        unknown = [number for number in numbers if not arrays[number]]
        if unknown:
            # An earlier client's
            names = [self._tasks.submissions[number].job_name for number in unknown]
            self._tasks.note_arrays(
                await in_thread(self._commands.queue, names, limiter=self._threads)
            )
        return sorted({array for number in numbers for array in arrays[number]}, key=int)

    async def _lost(self, submissions: Sequence[Submission]) -> Sequence[Submission]:
        """Those that Slurm has not got, of some that may have arrived. It may be slow to take
        what it was sent."""
        lost, answers, is_told = submissions, 0, False
        while lost and answers < 2:
            if answers:
                await anyio.sleep(2 * self._limits.message_timeout)
            try:
                names = [each.job_name for each in lost]
                rows = await in_thread(self._commands.queue, names, limiter=self._threads)
                files = await in_thread(self._folder.names, limiter=self._threads)
            except (NoAnswerError, HermesError) as exc:
                if not is_told:
                    said = str(exc).removeprefix("error: ")
                    self._run.warn(f"nobody knows yet what was submitted, asking again: {said}")
                is_told = True
                await anyio.sleep(self._run.timing.slurm_first_ask)
                continue
            answers += 1
            known = {row.name for row in rows}
            found = [each for each in lost if each.job_name in known or each.is_claimed(files)]
            self._tasks.arrays |= {each.number: set() for each in found}
            self._tasks.note_arrays(rows)
            lost = [each for each in lost if each not in found]
        return lost

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
    # Without `--parsable`: "Submitted batch job 12" is told from a banner, a number alone is not
    words = [
        f"--wrap=exec {shlex.join(node)}",
        "--requeue",
        "--export=ALL",
        f"--signal=B:USR1@{WARNING}",
        *submission.options,
        f"--job-name={submission.job_name}",
        f"--array=0-{count - 1}%{min(threads, count)}",
        f"--chdir={working_directory}",
        f"--output={task_folder.replace('%', '%%')}/{number}.%a.log",
        "--open-mode=append",
    ]
    if after:
        words.append(f"--dependency=afterany:{':'.join(after)}")
    return words
