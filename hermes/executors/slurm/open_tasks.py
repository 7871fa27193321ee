"""What a client knows of the tasks whose end has not been told yet, and what follows from that.
Nothing here does I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum, auto

import anyio
import msgspec

from ...events import JobStarted
from ...model import Outcome
from ...timing import Timing
from ..base import NotBegunError, Todo
from .commands import Row
from .states import GONE, WAITING
from .tasks import Submission, Task


class Signs(msgspec.Struct, kw_only=True):
    """What a node's files and Slurm's queue say of one task that has not ended. Times are
    monotonic."""

    is_earlier: bool = False
    """Whether an earlier client has submitted it, so that it may have been silent for long."""

    changed: int = 0
    """When the node gave its last sign of life, in ns by the file server's clock."""

    alive: float | None = None
    """When that was seen; None while there has been no sign, or none since it waits again."""

    row: Row | None = None
    """What Slurm said of it last, None if it did not know it."""

    gone_since: float | None = None
    missing_since: float | None = None
    misses: int = 0
    """How often in a row Slurm has said that it does not know the task."""

    def note_file(self, changed: int, now: float) -> None:
        """The node's file is there. `changed` is when it was written or touched."""
        if changed != self.changed:
            if self.changed or not self.is_earlier:
                self.alive = now
            self.changed = changed

    def note_rows(self, rows: Sequence[Row], now: float) -> None:
        """Slurm has answered. `rows` are those of this task: several if it was submitted twice."""
        alive = [row for row in rows if row.state not in GONE]
        self.row = next(iter(alive or rows), None)
        if rows:
            self.missing_since, self.misses = None, 0
        else:
            self.missing_since, self.misses = self.missing_since or now, self.misses + 1
        self.gone_since = None if alive or not rows else self.gone_since or now
        if alive and alive[0].state == "RUNNING" and self.alive is None:
            # A sign of life of the controller's, until there is one of the node's
            self.alive = now
        elif alive and alive[0].state in WAITING:
            self.alive = None

    def note_sent_again(self) -> None:
        self.missing_since, self.misses = None, 0

    def is_alive(self, now: float, timing: Timing) -> bool:
        return self.alive is not None and now - self.alive < timing.slurm_alive

    @property
    def is_doubtful(self) -> bool:
        """Whether Slurm has said that it is over, or that it does not know it."""
        return self.gone_since is not None or self.missing_since is not None

    def is_given_up(self, now: float, timing: Timing, *, is_ending: bool) -> bool:
        """Whether its node will say nothing any more."""
        if self.gone_since is not None:
            return now - self.gone_since > timing.slurm_settle
        if self.missing_since is not None:
            limit = timing.slurm_settle if is_ending else timing.slurm_lost_after
            return self.misses > 1 and now - self.missing_since > limit
        if self.alive is not None and self.row is not None and self.row.state == "RUNNING":
            return now - self.alive > timing.slurm_stale
        return False


class Fate(Enum):
    """What becomes of a task that is given up before a node has taken it."""

    WAIT = auto()
    """Nothing yet: its submission has just been sent again, or has not been accepted."""

    SEND_AGAIN = auto()
    """Its whole submission is sent again: a controller that was killed has forgotten what it
    took."""

    START_ANEW = auto()
    """It was never started, and whether to start it anew is the runner's to decide."""

    CANCELLED = auto()
    FAILED = auto()
    """The node could not start it."""


def fate_of(signs: Signs, *, is_ending: bool, is_accepted: bool, may_send_again: bool) -> Fate:
    """`is_accepted`: Slurm has the submission. `may_send_again`: neither Slurm nor a node knows
    anything of it, and that has not been tried before.
    """
    row = signs.row
    if row is None and signs.missing_since is None:
        return Fate.WAIT
    is_cancelled = row is None or row.state == "CANCELLED"
    if is_cancelled and (is_ending or signs.is_earlier):
        # Nobody saw it go, or this client itself is bringing the run to its end
        return Fate.START_ANEW
    if row is None and may_send_again:
        return Fate.SEND_AGAIN
    if not is_accepted:
        return Fate.WAIT
    return Fate.CANCELLED if is_cancelled else Fate.FAILED


class OpenTask(msgspec.Struct, eq=False, kw_only=True):
    """A task whose end has not been told yet."""

    task: Task
    signs: Signs = msgspec.field(default_factory=Signs)
    todo: Todo | None = None
    """The runner's order to follow it. Tasks that nobody follows are left alone."""

    event: JobStarted | None = None
    end: Outcome | NotBegunError | None = None
    begun: anyio.Event = msgspec.field(default_factory=anyio.Event)
    """Set when the job's process exists, or the task has ended."""

    over: anyio.Event = msgspec.field(default_factory=anyio.Event)
    """Set when `end` is known."""

    collected: list[str] = msgspec.field(default_factory=list)
    """Files of which the runner has been told, in this start of the job."""

    restarts: int = 0
    read_at: float | None = None
    """When the node's file was read last."""

    killed_since: float | None = None
    """Since when it is known to have been killed, and Slurm may still say why."""

    is_finishing: bool = False
    """Whether this client finishes what the node could not."""

    @property
    def name(self) -> str:
        return self.task.name

    def begin(self, event: JobStarted) -> None:
        self.event = event
        self.begun.set()

    def finish(self, end: Outcome | NotBegunError) -> None:
        self.end = end
        self.begun.set()
        self.over.set()


class OpenTasks:
    """All of them, by their names, and the submissions to which they belong."""

    def __init__(
        self, submissions: Iterable[Submission] = (), earlier: Iterable[Task] = ()
    ) -> None:
        self.submissions = {each.number: each for each in submissions}
        self.arrays: dict[int, set[str]] = {}
        """The ids of the arrays of a submission that Slurm has accepted, as far as they are known.
        There are several if it was so slow to say so that it was sent again."""

        self._tasks = {
            task.name: OpenTask(task=task, signs=Signs(is_earlier=True)) for task in earlier
        }
        self._of_key = {each.task.key: each for each in self._tasks.values()}
        self.one_less = anyio.Event()
        """Set when the next task has ended."""

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def all(self) -> list[OpenTask]:
        return list(self._tasks.values())

    @property
    def followed(self) -> list[OpenTask]:
        """Those that the runner follows and that have not ended."""
        return [each for each in self._tasks.values() if each.todo and each.end is None]

    @property
    def numbers(self) -> set[int]:
        """The numbers of their submissions."""
        return {each.task.submission for each in self._tasks.values()}

    @property
    def next_number(self) -> int:
        return max(self.submissions, default=-1) + 1

    def of_submission(self, number: int) -> list[OpenTask]:
        return [each for each in self._tasks.values() if each.task.submission == number]

    def follow(self, todo: Todo) -> OpenTask | None:
        """The task of a job that an earlier client has submitted, None if there is none."""
        found = self._of_key.pop(todo.key, None)
        if found is not None:
            found.todo = todo
        return found

    def add(self, submission: Submission, todos: Sequence[Todo]) -> list[OpenTask]:
        """The tasks of a new submission, in the order of their todos."""
        self.submissions[submission.number] = submission
        added = [
            OpenTask(task=task, todo=todo)
            for task, todo in zip(submission.tasks, todos, strict=True)
        ]
        self._tasks |= {each.name: each for each in added}
        return added

    def split(self, first: Submission, second: Submission) -> None:
        """The tasks of `first` that it has no more are those of `second` now."""
        self.submissions |= {each.number: each for each in (first, second)}
        count = len(first.entries)
        for each in self.of_submission(first.number):
            if each.task.number >= count:
                del self._tasks[each.name]
                each.task = second.task(each.task.number - count)
                self._tasks[each.name] = each

    def note_arrays(self, rows: Sequence[Row]) -> dict[int, list[Row]]:
        """Takes the ids of arrays from what Slurm has answered, for those submissions that it has
        accepted. Returns the rows of each."""
        number_of = {self.submissions[number].job_name: number for number in self.arrays}
        found: dict[int, list[Row]] = {}
        for row in rows:
            if row.name in number_of:
                found.setdefault(number_of[row.name], []).append(row)
        for number, own in found.items():
            # In place of what `sbatch` has said: these are known to be ours
            self.arrays[number] = {row.array for row in own}
        return found

    def remove(self, each: OpenTask) -> None:
        self._tasks.pop(each.name, None)
        self.one_less.set()
        self.one_less = anyio.Event()
