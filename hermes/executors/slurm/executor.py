"""Jobs as tasks of a Slurm cluster: this side submits them as job arrays and follows them; `hermes.executors.slurm.node` executes them.

Nodes tell what happens by files, see `tasks`. Slurm itself is asked only about tasks of which no file tells the end, with one
`squeue` for all of them at growing intervals. That it does not know a task, or does not answer, says nothing yet.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import anyio

from ...blocking import in_thread
from ...errors import HermesError, escape
from ...events import JobStarted
from ...experiments.files import FULL
from ...experiments.store import RunFolder, amend, experiments_of
from ...language.plan import Plan, sbatch_words
from ...model import Job, Outcome, Status
from ..base import Executor, Leftover, Pending, Work
from ..local import LocalExecution
from .commands import (
    GONE,
    WAITING,
    Calls,
    LaterError,
    Limits,
    NoAnswerError,
    RefusedError,
    Row,
    UnclearError,
    cause_in,
    last_words,
    problem_of,
)
from .tasks import Submission, Task, TaskFolder, ended_data, held, outcome_of, started_event

FIRST_ASK, LAST_ASK = 2.0, 60.0
"""Seconds until `squeue` is called first, and between two calls in the end; each interval is twice the last one."""

ALIVE = 25.0
"""Seconds for which a sign of life counts; nodes give one every 15 s. As long as all tasks have given one there is nothing to ask."""

QUICK, SLOW = 0.1, 1.0
"""Seconds between two looks at the nodes' files: soon after something has changed, and when nothing does."""

SETTLE = 5.0
"""Seconds for which a node's last file may be on its way when Slurm says that its task is over."""

LOST_AFTER = 30.0
"""Seconds after which a task that Slurm does not know any more is given up, if it has said so more than once."""

STALE = 300.0
"""Seconds without a sign of life after which a task that Slurm takes for running is given up."""

LOOK_AGAIN = 2.0
"""Seconds between two looks at the file of a running task."""

WARNING = 90
"""Seconds before a time limit at which the node is warned, if the job's own options do not say `--signal`. Slurm may be a minute
early; the node waits then."""

WINDOW = 5000
"""Most tasks that are submitted at the same time; half of what the cluster takes if that is less."""


def check(plan: Plan) -> None:
    """Raises `HermesError` if Slurm would refuse a job of the plan, before anything is submitted or made."""
    calls = Calls()
    for words, line in plan.sbatch_options():
        try:
            said = calls.test(words)
        except NoAnswerError as exc:
            raise HermesError(
                f"Slurm does not answer: {exc}",
                hint="`sinfo` and `scontrol ping` tell whether the cluster is there",
            ) from None
        if said is not None:
            options = f"`{escape(shlex.join(words))}`" if words else "jobs without options"
            raise HermesError(
                f"Slurm refuses {options}: {said}",
                hint=f"the job of line {line} has these options of `sbatch`",
            )


@dataclass(slots=True)
class _Open:
    """A task of whose end nobody has been told yet."""

    task: Task
    job: Job | None = None
    earlier: bool = False
    """Whether an earlier client has submitted it."""

    event: JobStarted | None = None
    """Known once the job's process exists."""

    changed: int = 0
    alive: float = 0.0
    looked: float = -LOOK_AGAIN
    collected: int = 0
    restarts: int = 0
    row: Row | None = None
    gone: float | None = None
    """Since when Slurm says that it is over."""

    missing: float | None = None
    """Since when Slurm does not know it."""

    misses: int = 0
    killed: float | None = None
    """Since when it is known to have been killed, and Slurm may still say why."""


class SlurmExecution:
    """Brings the jobs of one run to a Slurm cluster and follows them."""

    cancelling = "leaving: the jobs stay with Slurm; `hermes resume` follows them again, `hermes stop` ends them"
    killing = "leaving at once"

    def __init__(self, work: Work) -> None:
        self._work = work
        self._plan, self._run_folder = work.plan, work.folder
        self._folder = TaskFolder(work.folder.folder)
        self._calls = Calls()
        self._limits = Limits()
        self._scope = anyio.CancelScope()
        self._submissions: dict[int, Submission] = {}
        self._open: dict[str, _Open] = {}
        self._known: dict[int, set[str]] = {}
        """The ids of the arrays of a submission that Slurm has accepted: more than one if it was slow to say so."""

        self._again: list[Pending] = []
        self._resent: set[int] = set()
        self._spared: set[str] = set()
        self._all_submitted = False
        self._stopping = False
        self._pause, self._ask_at = FIRST_ASK, 0.0
        self._silent = False
        self._told_queue: tuple[int, int, str] | None = None

    @property
    def left(self) -> int:
        """Jobs that are with Slurm when nobody follows them any more."""
        return len(self._open)

    async def run(self) -> None:
        with self._scope:
            await in_thread(self._load)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._submit_all)
                await self._follow()

    def cancel(self) -> None:
        self._scope.cancel()

    def kill(self) -> None:
        self.cancel()
        self._calls.abandon()

    def _load(self) -> None:
        """What earlier clients have submitted, and what the cluster takes."""
        self._folder.make()
        self._stopping = self._folder.is_stopped
        self._limits = self._calls.limits()
        self._submissions = {each.number: each for each in self._folder.submissions()}
        self._open = {task.name: _Open(task, earlier=True) for task in self._folder.open_tasks()}
        names = self._folder.names()
        for number in {each.task.submission for each in self._open.values()}:
            if self._submissions[number].is_claimed(names) or f"{number}.job" in names:
                self._known[number] = set()

    # Submitting

    async def _submit_all(self) -> None:
        try:
            if self._stopping:
                await self._cancel_all()
                return
            await self._finish_leftovers()
            for number in sorted(
                {each.task.submission for each in self._open.values()} - self._known.keys()
            ):
                # An earlier client was killed while it submitted
                if not await self._is_there(self._submissions[number]):
                    await self._send(self._submissions[number])
            await self._submit_pending()
        finally:
            self._all_submitted = True

    async def _submit_pending(self) -> None:
        """Submits the jobs of the plan. No more are made than fit the window: there may be millions."""
        window = max(1, min(WINDOW, self._limits.jobs // 2))
        pending = self._work.pending()
        while True:
            room = max(0, window - len(self._open))
            batch = list(islice(pending, room))
            await self._submit(batch)
            if len(batch) < room:
                return
            await anyio.sleep(SLOW)

    async def _submit(self, batch: Iterable[Pending]) -> None:
        """Submits jobs, those of equal options together in arrays."""
        groups: dict[tuple[str, ...], list[Pending]] = {}
        for pending in batch:
            groups.setdefault(sbatch_words(self._plan.settings, pending.job.options), []).append(
                pending
            )
        for options, group in groups.items():
            for start in range(0, len(group), self._limits.array):
                await self._submit_array(options, group[start : start + self._limits.array])

    async def _submit_array(self, options: tuple[str, ...], group: Sequence[Pending]) -> None:
        number = max(self._submissions, default=-1) + 1
        tasks = tuple(
            Task(number, place, each.index, each.key, each.attempt)
            for place, each in enumerate(group)
        )
        git = self._run_folder.git
        # The run's id is unique
        name = f"hermes-{self._run_folder.run_id}-{number}"
        submission = Submission(
            number, name, options, tasks, git.as_json(), git.patch is not None, self._work.grace
        )
        # Before anybody else can take the same number: what is run again is submitted beside what is pending
        self._submissions[number] = submission
        try:
            await in_thread(submission.write, self._folder)
        except OSError as exc:
            if exc.errno in FULL:
                self._work.stop()
                return
            for each in group:
                problem = f"cannot write to `{self._run_folder.folder}`: {exc.strerror}"
                await self._work.ended(
                    each.index, Outcome.not_begun(each.job, Status.FAILED, problem)
                )
            return
        self._open |= {
            task.name: _Open(task, each.job) for task, each in zip(tasks, group, strict=True)
        }
        await self._send(submission)

    async def _send(self, submission: Submission) -> None:
        """Submits, until Slurm has the job or refuses it."""
        pause, warned = 1.0, False
        while True:
            try:
                array = await in_thread(self._calls.submit, self._words(submission))
            except UnclearError as exc:
                said = exc.said
                if await self._is_there(submission):
                    return
            except LaterError as exc:
                said = exc.said
            except RefusedError as exc:
                await self._refused(submission, exc.said)
                return
            else:
                self._accepted(submission.number, array)
                return
            if not warned:
                self._work.warn(f"Slurm takes no jobs now, trying again: {said}")
                warned = True
            await anyio.sleep(pause)
            pause = min(60.0, 2 * pause)

    def _words(self, submission: Submission) -> list[str]:
        """What follows `sbatch`. Later words overrule earlier ones: defaults, the user's, what Hermes relies upon."""
        threads, count = self._plan.settings.threads, len(submission.tasks)
        folder = os.path.dirname(self._folder.path("x"))
        command = shlex.join(
            [
                sys.executable,
                "-P",
                "-m",
                "hermes.executors.slurm.node",
                self._run_folder.folder,
                str(submission.number),
            ]
        )
        words = [
            f"--wrap=exec {command}",
            "--requeue",
            "--export=ALL",
            f"--signal=B:USR1@{WARNING}",
            *submission.options,
        ]
        words += [
            "--parsable", f"--job-name={submission.name}", f"--array=0-{count - 1}%{min(threads, count)}",
            f"--chdir={self._plan.working_directory}", f"--output={folder.replace('%', '%%')}/{submission.number}.%a.log",
            "--open-mode=append",
        ]  # fmt: skip
        others = [each for each in self._open.values() if each.task.submission != submission.number]
        arrays = {array for each in others for array in self._known.get(each.task.submission, ())}
        if arrays and len(others) + count > threads:
            # Each array has its own throttle; one after the other, they keep to `threads` together
            words.append(f"--dependency=afterany:{':'.join(sorted(arrays))}")
        return words

    def _accepted(self, number: int, array: str) -> None:
        self._known.setdefault(number, set()).add(array)
        self._pause, self._ask_at = FIRST_ASK, time.monotonic() + FIRST_ASK
        with open(self._folder.path(f"{number}.job"), "w") as file:
            file.write(array)

    async def _is_there(self, submission: Submission) -> bool:
        """Whether Slurm has a submission of which nobody knows whether it has arrived. It may be slow to take what it was sent."""
        looks = 0
        while looks < 2:
            if looks:
                await anyio.sleep(2 * self._limits.message_timeout)
            try:
                rows = await in_thread(self._calls.queue, [submission.name])
            except NoAnswerError:
                await anyio.sleep(FIRST_ASK)
                continue
            names = await in_thread(self._folder.names)
            if rows or submission.is_claimed(names):
                self._known.setdefault(submission.number, set()).update(row.array for row in rows)
                return True
            looks += 1
        return False

    async def _refused(self, submission: Submission, said: str) -> None:
        for task in submission.tasks:
            job = await self._job(self._open[task.name])
            problem = f"Slurm refused it: {said}"
            await self._end(self._open[task.name], Outcome.not_begun(job, Status.FAILED, problem))

    async def _cancel_all(self) -> None:
        numbers = {each.task.submission for each in self._open.values()}
        while True:
            try:
                await in_thread(
                    self._calls.cancel_named, [self._submissions[number].name for number in numbers]
                )
                # Also those of which nobody knows whether they have arrived
                self._known = {number: self._known.get(number, set()) for number in numbers}
                return
            except NoAnswerError as exc:
                self._work.warn(f"Slurm does not answer, trying again: {exc}")
                await anyio.sleep(FIRST_ASK)

    # Following

    async def _follow(self) -> None:
        tick = QUICK
        while self._open or not self._all_submitted or self._again:
            again, self._again = self._again, []
            await self._submit(again)
            changed = await self._look()
            if self._open and time.monotonic() >= self._ask_at and not self._all_alive():
                await self._ask()
            changed |= await self._judge()
            self._tell_queue()
            tick = QUICK if changed else min(SLOW, 1.3 * tick)
            await anyio.sleep(tick)

    async def _look(self) -> bool:
        """Takes the nodes' news; true if there were some."""
        looked = list(self._open.values())
        running, ended = await in_thread(self._read, looked)
        for each, data in running:
            self._take_running(each, data)
        for each, data in ended:
            await self._take_ended(each, data)
        return bool(running or ended)

    def _read(
        self, looked: list[_Open]
    ) -> tuple[list[tuple[_Open, dict[str, object]]], list[tuple[_Open, dict[str, object]]]]:
        names, now = self._folder.names(), time.monotonic()
        running, ended = [], []
        for each in looked:
            name = each.task.name
            is_over = f"{name}.ended" in names
            if f"{name}.running" in names and (is_over or now - each.looked > LOOK_AGAIN):
                each.looked = now
                changed = self._folder.changed(each.task)
                if changed != each.changed:
                    # What an earlier client has submitted may have been silent for long
                    if each.changed or not each.earlier:
                        each.alive = now
                    each.changed = changed
                    data = self._folder.read(each.task, "running")
                    if data is not None:
                        running.append((each, data))
            if is_over:
                data = self._folder.read(each.task, "ended")
                if data is not None:
                    ended.append((each, data))
        return running, ended

    def _take_running(self, each: _Open, data: dict[str, object]) -> None:
        event, collected, restarts = started_event(data), data["collected"], data["restarts"]
        assert isinstance(collected, list)
        assert isinstance(restarts, int)
        if each.event is None:
            each.event = event
            self._work.started(event)
        elif restarts > each.restarts:
            self._work.warn(f"Slurm has started {event.identifier} again on {data['node']}")
            each.collected = 0
        each.restarts = restarts
        for path in collected[each.collected :]:
            self._work.collected(event.identifier, path)
        each.collected = len(collected)

    async def _take_ended(self, each: _Open, data: dict[str, object]) -> None:
        outcome = outcome_of(data)
        if outcome is None:
            self._work.stop()
            await self._forget(each)
            return
        if outcome.status is Status.FAILED and (
            outcome.signal == signal.SIGKILL or outcome.exit_code == 128 + signal.SIGKILL
        ):
            outcome = await self._why_killed(each, outcome)
            if outcome is None:
                return
        collected = data["collected"]
        assert isinstance(collected, list)
        for path in collected[each.collected :]:
            self._work.collected(outcome.identifier, path)
        is_again = each.earlier and outcome.status is Status.LOST and not self._stopping
        await self._work.ended(each.task.index, outcome, replaced=is_again)
        await self._forget(each)
        if is_again:
            await self._run_again(each, each.task.attempt + 1)

    async def _why_killed(self, each: _Open, outcome: Outcome) -> Outcome | None:
        """Adds what Slurm says about a killed job; None as long as it may still say something: it does when the node's process is gone."""
        if await in_thread(self._cause, each.task) == "OUT_OF_MEMORY":
            problem = problem_of("OUT_OF_MEMORY")
            if outcome.directory is not None and problem not in outcome.problems:
                outcome = replace(outcome, problems=(*outcome.problems, problem))
                await in_thread(amend, outcome.directory or "", outcome.status, outcome.problems)
            return outcome
        each.killed = each.killed or time.monotonic()
        return outcome if time.monotonic() - each.killed > SETTLE else None

    def _cause(self, task: Task) -> str | None:
        return cause_in(self._folder.log(task))

    async def _forget(self, each: _Open) -> None:
        del self._open[each.task.name]
        await in_thread(self._folder.mark_told, each.task)

    # Asking Slurm

    def _all_alive(self) -> bool:
        """Whether every task has given a sign of life, so that there is nothing to ask."""
        now = time.monotonic()
        return self._all_submitted and all(
            each.alive and now - each.alive < ALIVE for each in self._open.values()
        )

    async def _ask(self) -> None:
        numbers = {each.task.submission for each in self._open.values()} & self._known.keys()
        if not numbers:
            return
        try:
            rows = await in_thread(
                self._calls.queue, [self._submissions[number].name for number in sorted(numbers)]
            )
        except NoAnswerError as exc:
            if not self._silent:
                self._work.warn(f"Slurm does not answer, asking again: {exc}")
            self._silent = True
        else:
            self._silent = False
            await self._take_rows(numbers, rows)
        self._pause = min(LAST_ASK, 2 * self._pause)
        doubtful = any(
            each.gone is not None or each.missing is not None for each in self._open.values()
        )
        wait = (
            FIRST_ASK
            if self._stopping
            else min(self._pause, LOST_AFTER / 3)
            if doubtful
            else self._pause
        )
        self._ask_at = time.monotonic() + wait

    async def _take_rows(self, numbers: set[int], rows: list[Row]) -> None:
        of_name = {self._submissions[number].name: number for number in numbers}
        found: dict[str, list[Row]] = {}
        for row in rows:
            number = of_name.get(row.name)
            if number is not None:
                self._known[number].add(row.array)
                found.setdefault(f"{number}.{row.task}", []).append(row)
        await self._cancel_doubles(numbers)
        now = time.monotonic()
        for name, each in self._open.items():
            if each.task.submission in numbers:
                self._take_state(each, found.get(name, []), now)

    def _take_state(self, each: _Open, rows: list[Row], now: float) -> None:
        alive = [row for row in rows if row.state not in GONE]
        each.row = next(iter(alive or rows), None)
        each.missing = None if rows else each.missing or now
        each.misses = 0 if rows else each.misses + 1
        each.gone = None if alive or not rows else each.gone or now
        if alive and alive[0].state == "RUNNING" and not each.alive:
            # A sign of life of the controller's, until there is one of the node's
            each.alive = now
        elif alive and alive[0].state in WAITING:
            each.alive = 0.0

    async def _cancel_doubles(self, numbers: set[int]) -> None:
        """What was submitted twice, because an answer came too late, starts nothing twice; but it would wait in the queue, and not
        keep to `threads`."""
        for number in numbers:
            for array in sorted(self._known[number], key=int)[1:]:
                if array not in self._spared:
                    self._spared.add(array)
                    try:
                        await in_thread(self._calls.cancel_pending, array)
                    except NoAnswerError:
                        self._spared.discard(array)

    # Tasks whose nodes say nothing any more

    async def _judge(self) -> bool:
        """Ends the tasks of which Slurm says that nothing will come any more. True if there were some."""
        now = time.monotonic()
        lost_after = SETTLE if self._stopping else LOST_AFTER
        judged = [
            each
            for each in self._open.values()
            if (each.gone is not None and now - each.gone > SETTLE)
            or (each.missing is not None and each.misses > 1 and now - each.missing > lost_after)
            or (
                each.alive
                and each.row is not None
                and each.row.state == "RUNNING"
                and now - each.alive > STALE
            )
        ]
        if not judged:
            return False
        names = await in_thread(self._folder.names)
        # What has ended meanwhile tells for itself
        judged = [each for each in judged if f"{each.task.name}.ended" not in names]
        await self._end_stale(judged, now)
        started = [each for each in judged if f"{each.task.name}.claim" in names]
        for each in judged:
            if each not in started:
                await self._end_unstarted(each)
        if started:
            await self._end_started(started)
        return bool(judged)

    async def _end_stale(self, judged: list[_Open], now: float) -> None:
        stale = [
            f"{each.row.array}_{each.row.task}"
            for each in judged
            if each.row is not None and each.row.state not in GONE
        ]
        if stale:
            try:
                await in_thread(self._calls.cancel_tasks, stale)
            except NoAnswerError as exc:
                self._work.warn(f"could not cancel {', '.join(stale)}: {exc}")

    async def _end_unstarted(self, each: _Open) -> None:
        number, row = each.task.submission, each.row
        if row is None and each.missing is None:
            # Its whole submission has just been sent again
            return
        is_cancelled = row is None or row.state == "CANCELLED"
        if is_cancelled and (self._stopping or each.earlier):
            # It was never started. If nobody saw it go, this client is to bring the run to its end
            await in_thread(self._folder.write, each.task, "ended", ended_data(None, ()))
            await self._forget(each)
            if not self._stopping:
                await self._run_again(each, each.task.attempt)
        elif row is None and number not in self._resent and not await self._is_partly_known(number):
            # A controller that was killed has forgotten what it took just before
            self._resent.add(number)
            del self._known[number]
            for other in self._open.values():
                if other.task.submission == number:
                    other.missing, other.misses = None, 0
            await self._send(self._submissions[number])
        elif number in self._known and is_cancelled:
            problem = "cancelled while it was queued, by `scancel` or an administrator"
            await self._end(
                each, Outcome.not_begun(await self._job(each), Status.CANCELLED, problem)
            )
        elif number in self._known and row is not None:
            await self._end_failed_start(each, row.state, row.reason)

    async def _end_failed_start(self, each: _Open, state: str | None, reason: str) -> None:
        """The node has made no experiment; what it said last tells why, or Slurm does."""
        why = last_words(await in_thread(self._folder.log, each.task)) or problem_of(state, reason)
        await self._end(
            each,
            Outcome.not_begun(
                await self._job(each), Status.FAILED, f"the node could not start it: {why}"
            ),
        )

    async def _is_partly_known(self, number: int) -> bool:
        """Whether Slurm or a node knows anything of a submission."""
        names = await in_thread(self._folder.names)
        mine = [each for each in self._open.values() if each.task.submission == number]
        return any(each.row is not None for each in mine) or self._submissions[number].is_claimed(
            names
        )

    async def _end_started(self, started: list[_Open]) -> None:
        """Finishes what the nodes could not: the client does what they would have done, with what is on the disk."""
        leftovers = await in_thread(self._left_by, started)
        found = [leftover for leftover in leftovers.values() if leftover is not None]
        outcomes = await self._finish(
            [each for each in found if each.metadata["status"] == Status.RUNNING]
        )
        for each in found:
            if each.metadata["identifier"] not in outcomes:
                # The node was killed after it had finished this, and before it could say so
                files = [
                    file["path"] for file in each.metadata["files"] if file["origin"] == "collected"
                ]
                outcomes[each.metadata["identifier"]] = (
                    Outcome.from_metadata(each.job, each.directory, each.metadata),
                    files,
                )
        await self._end_with(started, leftovers, outcomes)

    async def _end_with(
        self,
        started: list[_Open],
        leftovers: dict[str, Leftover | None],
        outcomes: dict[str, tuple[Outcome, list[str]]],
    ) -> None:
        """Writes the outcomes, with what Slurm says about why they came to that."""
        for each in started:
            leftover = leftovers[each.task.name]
            cause = await in_thread(self._cause, each.task)
            state = each.row.state if each.row is not None and each.row.state in GONE else cause
            # What it writes into the log says more than a plain failure
            state = cause if state in (None, "FAILED", "COMPLETED") and cause is not None else state
            reason = each.row.reason if each.row is not None else ""
            if leftover is None:
                await self._end_failed_start(each, state, reason)
                continue
            outcome, collected = outcomes[leftover.metadata["identifier"]]
            outcome = judged(outcome, state, reason, is_stopped=self._stopping)
            if outcome.directory is not None:
                await in_thread(amend, outcome.directory, outcome.status, outcome.problems)
            await self._end(each, outcome, collected)

    def _left_by(self, started: list[_Open]) -> dict[str, Leftover | None]:
        jobs = self._jobs({each.task.index for each in started})
        tasks = {each.task.name: each.task for each in started}
        found: dict[str, Leftover | None] = dict.fromkeys(tasks)
        for directory, metadata in experiments_of(self._run_folder):
            name = metadata.get("slurm", {}).get("task")
            if name in tasks:
                task = tasks[name]
                found[name] = Leftover(
                    task.index, jobs[task.index], directory, metadata, again=False, failed=False
                )
        return found

    async def _finish(self, leftovers: list[Leftover]) -> dict[str, tuple[Outcome, list[str]]]:
        """Finishes experiments as a resumed local run does. Outcomes and collected files by identifier."""
        work = _Finishing(self._work, leftovers)
        if leftovers:
            work.execution = LocalExecution(work)
            await work.execution.run()
        return {
            identifier: (outcome, work.files.get(identifier, []))
            for identifier, outcome in work.outcomes.items()
        }

    async def _finish_leftovers(self) -> None:
        """Experiments of the run that are no task's any more."""
        outcomes = await self._finish(list(self._work.leftovers))
        for leftover in self._work.leftovers:
            outcome, _ = outcomes[leftover.metadata["identifier"]]
            again = leftover.again and outcome.status is Status.LOST
            await self._work.ended(leftover.index, outcome, replaced=again or not leftover.again)
            if again:
                self._again.append(self._work.again(leftover))

    async def _end(self, each: _Open, outcome: Outcome, collected: Sequence[str] = ()) -> None:
        """Writes the end in the node's place; it is told of like any other."""
        await in_thread(self._folder.write, each.task, "ended", ended_data(outcome, collected))

    # Jobs of the plan

    async def _job(self, each: _Open) -> Job:
        if each.job is None:
            each.job = (await in_thread(self._jobs, {each.task.index}))[each.task.index]
        return each.job

    def _jobs(self, indices: set[int]) -> dict[int, Job]:
        found = enumerate(islice(iter(self._plan.jobs), max(indices) + 1))
        return {index: job for index, job in found if index in indices}

    async def _run_again(self, each: _Open, attempt: int) -> None:
        # Submitted by `_follow`, with whatever else is to be run again by then
        self._again.append(Pending(each.task.index, await self._job(each), each.task.key, attempt))

    def _tell_queue(self) -> None:
        """Tells how many jobs wait and run, and why most of those wait, whenever that changes."""
        waiting = [each for each in self._open.values() if each.event is None]
        reasons = Counter(
            each.row.reason
            for each in waiting
            if each.row is not None and each.row.reason not in ("", "None")
        )
        reason = reasons.most_common(1)[0][0] if reasons else ""
        state = (len(waiting), len(self._open) - len(waiting), reason)
        if state != self._told_queue:
            self._told_queue = state
            self._work.queued(*state)


@dataclass(slots=True)
class _Finishing:
    """The work of finishing what nodes have left: nothing is started, and what still runs is killed."""

    whole: Work
    leftovers: Sequence[Leftover]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    execution: LocalExecution | None = None
    is_followed: bool = False
    grace: float = 0.0

    @property
    def plan(self) -> Plan:
        return self.whole.plan

    @property
    def folder(self) -> RunFolder:
        return self.whole.folder

    def pending(self) -> Iterator[Pending]:
        return iter(())

    def again(self, leftover: Leftover) -> Pending:
        raise AssertionError("nothing is run again here")

    def started(self, event: JobStarted) -> None:
        """It was announced before."""

    def collected(self, identifier: str, path: str) -> None:
        self.files.setdefault(identifier, []).append(path)

    async def ended(self, index: int, outcome: Outcome, *, replaced: bool = False) -> None:
        self.outcomes[outcome.identifier] = outcome

    def warn(self, message: str) -> None:
        self.whole.warn(message)

    def queued(self, pending: int, running: int, reason: str) -> None:
        """Nothing waits here."""

    def stop(self) -> None:
        self.whole.stop()


def judged(
    outcome: Outcome, state: str | None, reason: str, *, is_stopped: bool = False
) -> Outcome:
    """The outcome of an experiment of which its node could not say how it ended, with why Slurm says that it did."""
    status, says_why = outcome.status, True
    if status is Status.FINISHED:
        says_why = state == "OUT_OF_MEMORY"
    elif state in ("TIMEOUT", "DEADLINE"):
        status, says_why = Status.TIMEOUT, state == "DEADLINE"
    elif state in ("CANCELLED", "PREEMPTED"):
        status, says_why = Status.CANCELLED, not is_stopped
    elif state == "OUT_OF_MEMORY":
        status = Status.FAILED
    elif status is Status.FAILED:
        # It ended by itself, as its exit status tells
        says_why = False
    else:
        status = Status.LOST
    problems = (*outcome.problems, problem_of(state, reason)) if says_why else outcome.problems
    return replace(outcome, status=status, problems=tuple(dict.fromkeys(problems)))


def _held(folder: RunFolder, failed: bool) -> set[str]:
    # Also to find out in time whether there is a Slurm
    Calls().limits()
    return held(TaskFolder(folder.folder), failed=failed)


SLURM = Executor(SlurmExecution, check, _held)
"""The Slurm cluster whose commands are on PATH."""
