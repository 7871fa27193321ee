"""Following tasks: what their nodes tell by files is passed on, and tasks whose nodes say
nothing any more are ended."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence, Set
from contextlib import suppress
from typing import NamedTuple

import anyio

from ...blocking import in_thread
from ...errors import HermesError, escape
from ...model import Outcome, Problem, ProblemKind, Status
from ...storage.files import Home
from ...storage.metadata import amend
from ...storage.run_folder import experiments_of
from ...storage.writer import Experiment
from ..base import Leftover, NotBegunError, OpenRun, Todo, outcome_of
from .commands import Commands, NoAnswerError
from .finishing import Finished, Finisher
from .open_tasks import Fate, OpenTask, OpenTasks, fate_of
from .pacing import Pacer
from .states import (
    GONE,
    cause_in,
    final_state,
    is_by_slurm_alone,
    is_killed,
    judged,
    last_words,
    problem_of,
    with_problem,
)
from .submitting import Submitter
from .tasks import Ended, Running, TaskFolder

QUICK, SLOW = 0.1, 1.0
"""Seconds between two times that the nodes' files are read: soon after something has changed,
and when nothing does."""

READ_PAUSE = 2.0
"""Seconds between two times that the file of a running task is read."""


class News(NamedTuple):
    """What the files of one task say. `changed` is 0 if that of the running job was not read."""

    task: OpenTask
    changed: int = 0
    running: Running | None = None
    ended: Ended | None = None


class Follower:
    """Brings the tasks of one run from their submission to their ends."""

    def __init__(
        self,
        *,
        run: OpenRun,
        folder: TaskFolder,
        commands: Commands,
        tasks: OpenTasks,
        submitter: Submitter,
        pacer: Pacer,
        finisher: Finisher,
        threads: anyio.CapacityLimiter,
    ) -> None:
        self._run = run
        self._timing = run.timing
        self._folder = folder
        self._commands = commands
        self._tasks = tasks
        self._submitter = submitter
        self._pacer = pacer
        self._finisher = finisher
        self._threads = threads
        self._told_queue: tuple[int, int, str] | None = None
        self._tried_again: set[str] = set()
        """The keys of jobs that Slurm once failed to start."""

        self._is_removed = False
        """Whether somebody has removed the folder by which the nodes tell what happens."""

    async def serve(self) -> None:
        pause = QUICK
        async with anyio.create_task_group() as self._jobs:
            while True:
                has_news = await self._read()
                has_news |= await self._judge()
                self._tell_queue()
                pause = QUICK if has_news else min(SLOW, 1.3 * pause)
                await anyio.sleep(pause)

    def _tell_queue(self) -> None:
        """Tells how many jobs wait and run, and why most of those wait, whenever that changes."""
        tasks = self._tasks.all
        if not tasks:
            return
        waiting = [each for each in tasks if each.event is None]
        reasons = Counter(each.signs.row.reason for each in waiting if each.signs.row is not None)
        del reasons[""], reasons["None"]
        reason = reasons.most_common(1)[0][0] if reasons else ""
        state = (len(waiting), len(tasks) - len(waiting), reason)
        if state != self._told_queue:
            self._told_queue = state
            self._run.queued(*state)

    # What nodes tell

    async def _read(self) -> bool:
        """Takes the nodes' news; true if there were some."""
        followed = [each for each in self._tasks.followed if not each.is_finishing]
        if not followed:
            return False
        now = time.monotonic()
        found = await in_thread(read_news, self._folder, followed, now, limiter=self._threads)
        for news in found:
            if news.changed:
                news.task.read_at = now
                news.task.signs.note_file(news.changed, now)
            if news.running is not None:
                self._take_running(news.task, news.running)
            if news.ended is not None:
                await self._take_ended(news.task, news.ended)
        return any(news.running is not None or news.ended is not None for news in found)

    def _take_running(self, each: OpenTask, running: Running) -> None:
        event = running.event
        if running.restarts > each.restarts and each.event is not None:
            self._run.warn(f"Slurm has started {event.identifier} again on {running.node}")
            each.collected = []
        each.restarts = running.restarts
        if each.event is None:
            each.begin(event)
        self._tell_collected(each, event.identifier, running.collected)

    def _tell_collected(self, each: OpenTask, identifier: str, paths: Sequence[str]) -> None:
        """Tells of the files that have come in since the last time: `paths` are all so far."""
        for path in paths[len(each.collected) :]:
            each.collected.append(path)
            if self._run.follow_files:
                self._run.collected(identifier, path)

    async def _take_ended(self, each: OpenTask, ended: Ended) -> None:
        end = ended.end
        if isinstance(end, Outcome):
            if is_killed(end):
                explained = await self._why_killed(each, end)
                if explained is None:
                    return
                end = explained
            self._tell_collected(each, end.identifier, ended.collected)
        each.finish(end)

    async def _why_killed(self, each: OpenTask, outcome: Outcome) -> Outcome | None:
        """Adds what Slurm says about a killed job. None as long as it may still say something: it
        does so when the node's process is gone.
        """
        if cause_in(await self._log(each)) == "OUT_OF_MEMORY":
            explained = with_problem(outcome, problem_of("OUT_OF_MEMORY"))
            await self._amend(outcome, explained)
            return explained
        now = time.monotonic()
        each.killed_since = each.killed_since or now
        return outcome if now - each.killed_since > self._timing.slurm_settle else None

    async def _log(self, each: OpenTask) -> str:
        return await in_thread(self._folder.log, each.task, limiter=self._threads)

    async def _amend(self, before: Outcome, after: Outcome) -> None:
        """Writes what has changed about an outcome into the metadata."""
        if after == before or after.directory is None:
            return
        # What cannot be written is told all the same
        with suppress(OSError, HermesError):
            await in_thread(
                amend, after.directory, after.status, after.problems, limiter=self._threads
            )

    # Tasks whose nodes say nothing any more

    async def _judge(self) -> bool:
        """Ends the tasks of which Slurm says that nothing will come any more. True if there were
        some."""
        now, is_ending = time.monotonic(), self._run.is_ending
        given_up = [
            each
            for each in self._tasks.followed
            if not each.is_finishing
            and each.signs.is_given_up(now, self._timing, is_ending=is_ending)
        ]
        if not given_up:
            return False
        try:
            names = await in_thread(self._folder.names, limiter=self._threads)
        except HermesError:
            # A disk that is away for a moment says nothing about them
            return False
        if await self._check_removed(names):
            return self._end_untold(given_up)
        # What has ended meanwhile tells for itself, if that can be read
        named = [each for each in given_up if f"{each.name}.ended" in names]
        ended = await in_thread(read_ends, self._folder, named, limiter=self._threads)
        given_up = [each for each in given_up if each.name not in ended]
        await self._cancel_stale(given_up)
        unbegun = [each for each in given_up if f"{each.name}.claim" not in names]
        forgotten = self._forgotten({each.task.submission for each in unbegun}, names)
        for each in unbegun:
            await self._end_unbegun(each, is_forgotten=each.task.submission in forgotten)
        begun = [each for each in given_up if f"{each.name}.claim" in names]
        for each in begun:
            each.is_finishing = True
        if begun:
            # It may take its time, and the others go on
            self._jobs.start_soon(self._end_begun, begun)
        return bool(given_up)

    async def _check_removed(self, names: Set[str]) -> bool:
        """Whether the folder is there no more. The user is told once."""
        if not names and not await in_thread(self._folder.is_there, limiter=self._threads):
            if not self._is_removed:
                self._run.warn(
                    f"`{escape(self._folder.path)}` was removed: jobs that wait cannot start any"
                    " more, and how running ones end is not known"
                )
            self._is_removed = True
        return self._is_removed

    def _end_untold(self, given_up: Sequence[OpenTask]) -> bool:
        """Ends tasks that Slurm does not run any more, and whose nodes cannot say how they ended.

        What runs goes on: its files may be there.
        """
        over = [each for each in given_up if each.signs.is_doubtful]
        for each in over:
            if each.event is None:
                text = "the node could not start it: the run's folder was removed"
                each.finish(NotBegunError(Problem(ProblemKind.NOT_STARTED, text)))
                continue
            text = "the run's folder was removed while it ran: how it ended is not known"
            problem = Problem(ProblemKind.CLUSTER, text)
            each.finish(
                Outcome(
                    identifier=each.event.identifier,
                    script=each.event.script,
                    directory=each.event.directory,
                    status=Status.LOST,
                    problems=(problem,),
                    argv=each.event.argv,
                    line=each.event.line,
                )
            )
        return bool(over)

    async def _cancel_stale(self, given_up: Sequence[OpenTask]) -> None:
        """Cancels what Slurm takes for running."""
        rows = [each.signs.row for each in given_up]
        stale = [
            f"{row.array}_{row.task}"
            for row in rows
            if row is not None and row.task is not None and row.state not in GONE
        ]
        if not stale:
            return
        try:
            await in_thread(self._commands.cancel_tasks, stale, limiter=self._threads)
        except NoAnswerError as exc:
            self._run.warn(f"could not cancel {', '.join(stale)}: {exc}")

    def _forgotten(self, numbers: Set[int], names: Set[str]) -> set[int]:
        """The submissions of which neither Slurm nor a node knows anything."""
        known = {each.task.submission for each in self._tasks.all if each.signs.row is not None}
        return {
            number
            for number in numbers - known
            if not self._tasks.submissions[number].is_claimed(names)
        }

    async def _end_unbegun(self, each: OpenTask, *, is_forgotten: bool) -> None:
        """Ends a task that no node has taken, or has its submission sent again."""
        number, row = each.task.submission, each.signs.row
        fate = fate_of(
            each.signs,
            is_ending=self._run.is_ending or self._pacer.is_taken_back,
            is_accepted=number in self._tasks.arrays,
            may_send_again=is_forgotten and self._submitter.may_send_again(number),
        )
        if fate is Fate.START_ANEW:
            each.finish(NotBegunError(None))
        elif fate is Fate.SEND_AGAIN:
            self._submitter.send_again(number)
        elif fate is Fate.CANCELLED:
            text = "cancelled while it was queued, by `scancel` or an administrator"
            problem = Problem(ProblemKind.CLUSTER, text)
            each.finish(NotBegunError(problem, Status.CANCELLED))
        elif fate is Fate.FAILED and row is not None:
            log = await self._log(each)
            if is_by_slurm_alone(log) and each.task.key not in self._tried_again:
                # No node has it: there is nothing that could be repeated
                self._tried_again.add(each.task.key)
                self._run.warn(f"Slurm could not start a job, trying again: {last_words(log)}")
                each.finish(NotBegunError(None))
            else:
                each.finish(_failed_start(log, row.state, row.reason))

    async def _end_begun(self, tasks: Sequence[OpenTask]) -> None:
        """Does what the nodes could not: finishes their experiments, with what is on the disk."""
        found = await in_thread(self._left_by, tasks, limiter=self._threads)
        async with anyio.create_task_group() as jobs:
            for each in tasks:
                jobs.start_soon(self._end_experiment, each, found.get(each.name))

    def _left_by(self, tasks: Sequence[OpenTask]) -> dict[str, Leftover]:
        """The experiments of tasks, by the tasks' names."""
        names = {each.name for each in tasks}
        return {
            metadata.slurm.task: Leftover(directory=directory, metadata=metadata)
            for directory, metadata in experiments_of(self._run.folder)
            if metadata.slurm is not None and metadata.slurm.task in names
        }

    async def _end_experiment(self, each: OpenTask, leftover: Leftover | None) -> None:
        row, log = each.signs.row, await self._log(each)
        state = final_state(row.state if row is not None else None, cause_in(log))
        reason = row.reason if row is not None else ""
        finished = await self._finished(each, leftover) if leftover is not None else None
        if finished is None:
            each.finish(_failed_start(log, state, reason))
            return
        outcome = judged(finished.outcome, state, reason, is_stopped=self._run.is_ending)
        await self._amend(finished.outcome, outcome)
        self._tell_collected(each, outcome.identifier, [*each.collected, *finished.collected])
        each.finish(outcome)

    async def _finished(self, each: OpenTask, leftover: Leftover) -> Finished | None:
        """The final experiment; None if it came to nothing."""
        assert each.todo is not None
        metadata = leftover.metadata
        if metadata.status is not Status.RUNNING:
            # The node was killed after it had finished this, and before it could say so
            files = [file.path for file in metadata.files if file.origin == "collected"]
            outcome = outcome_of(
                Experiment(
                    run=self._run.folder,
                    job=each.todo.job,
                    home=Home.of(leftover.directory),
                    metadata=metadata,
                )
            )
            return Finished(outcome, files[len(each.collected) :])
        todo = Todo(
            index=each.todo.index,
            job=each.todo.job,
            key=each.todo.key,
            attempt=metadata.attempts,
            is_taken_up=True,
            leftover=leftover,
        )
        try:
            return await self._finisher.finish(todo)
        except NotBegunError:
            return None


def _failed_start(log: str, state: str | None, reason: str) -> NotBegunError:
    """The node has made no experiment: what it said last tells why, or Slurm does."""
    why = last_words(log) or problem_of(state, reason).text
    return NotBegunError(Problem(ProblemKind.NOT_STARTED, f"the node could not start it: {why}"))


def read_news(folder: TaskFolder, tasks: Sequence[OpenTask], now: float) -> list[News]:
    """What the files of these tasks say that was not known before. Blocks; changes nothing."""
    try:
        names = folder.names()
    except HermesError:
        return []
    found = []
    for each in tasks:
        is_over = f"{each.name}.ended" in names
        is_due = each.read_at is None or now - each.read_at > READ_PAUSE
        changed, running = 0, None
        if f"{each.name}.running" in names and (is_over or is_due):
            changed = folder.changed(each.task)
            if changed != each.signs.changed:
                running = folder.running(each.task)
        ended = folder.ended(each.task) if is_over else None
        if changed or ended is not None:
            found.append(News(each, changed, running, ended))
    return found


def read_ends(folder: TaskFolder, tasks: Sequence[OpenTask]) -> set[str]:
    """The names of those whose nodes have said how they ended. Blocks."""
    return {each.name for each in tasks if folder.ended(each.task) is not None}
