"""Jobs that an earlier runner has started and that outlived it, or ended while nobody watched."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime

import anyio

from ..blocking import in_thread
from ..errors import escape
from ..model import Problem, ProblemKind
from ..storage.files import read_regular
from ..storage.journal import Machine, may_be_alive
from ..storage.metadata import Metadata
from ..storage.provenance import boot_id, process_start
from .exits import Exit, parse_supervisor_pid
from .proc import (
    group_members,
    group_of,
    is_zombie,
    orphans_of,
    processes_of,
    still_alive,
)
from .processes import Group, recorded_exit


def adopt(
    metadata: Metadata, exit_file: str, alive: Mapping[str, Sequence[int]], poll: float
) -> AdoptedProcess | None:
    """The process of a job of an earlier runner, dead or alive; None if it was never started.

    `alive` are the live processes of jobs by identifier, `poll` the seconds between two checks
    whether it has ended. Blocks.
    """
    identifier = metadata.identifier
    found = metadata.pid or recorded_pid(exit_file)
    if found is not None and found <= 1:
        # Nonsense, and to signal it would be dangerous
        found = None
    leaders = [pid for pid in alive.get(identifier, ()) if group_of(pid) == pid]
    if leaders and recorded_exit(exit_file) is None:
        # Its own daemons lead groups too
        pid = found if found in leaders else leaders[0]
        started = process_start(pid)
    else:
        if found is None:
            return None
        # After a restart of the machine, or without a recorded start, the number may be anybody's
        is_known = metadata.pid_start is not None and metadata.boot_id == boot_id()
        pid, started = found, metadata.pid_start if is_known else ""
    return AdoptedProcess(
        identifier=identifier,
        pid=pid,
        started=started,
        is_of_this_boot=metadata.boot_id == boot_id(),
        exit_file=exit_file,
        poll=poll,
    )


def left_alone(identifier: str, machine: Machine | None, exit_file: str) -> Problem | None:
    """That a job may be alive on a machine whose processes cannot be seen from here; None if it
    cannot be. `machine` is where it was started, if that is known. Blocks."""
    if machine is None or not may_be_alive(machine, Machine.here()):
        return None
    if recorded_exit(exit_file) is not None:
        return None
    where = f"on `{escape(machine.host)}`"
    if machine.host == os.uname().nodename:
        where += ", in another container or before it was started anew"
    text = (
        f"`{identifier}` was started {where}, and may be alive: it was left as it is; resume the "
        "run there"
    )
    return Problem(ProblemKind.MAY_BE_ALIVE, text)


def recorded_pid(exit_file: str) -> int | None:
    """The process id of a job's supervisor; None if it has not come to that. Blocks."""
    try:
        return parse_supervisor_pid(read_regular(exit_file).decode("utf-8", "replace"))
    except OSError:
        return None


def outlives(exit_file: str) -> bool:
    """Whether a job that was started here lives on although its supervisor was killed. Blocks."""
    pid = recorded_pid(exit_file)
    return pid is not None and pid > 1 and not recorded_exit(exit_file) and bool(orphans_of(pid))


def adopted_end(exit_file: str, start: datetime | None) -> tuple[datetime, float]:
    """When an adopted job ended, as its exit file tells, and how long it ran, in seconds by the
    clock of day, for there is no better. Blocks.
    """
    try:
        end = datetime.fromtimestamp(os.stat(exit_file).st_mtime).astimezone()
    except OSError:
        end = datetime.now().astimezone()
    return end, 0.0 if start is None else max(0.0, (end - start).total_seconds())


class AdoptedProcess(Group):
    """A process that is not our child: how it ended is known only by the record that it leaves."""

    def __init__(
        self, *, identifier: str, pid: int, started: str | None, is_of_this_boot: bool,
        exit_file: str, poll: float,
    ) -> None:  # fmt: skip
        super().__init__(pid, identifier)
        self._started = started
        self._is_of_this_boot = is_of_this_boot
        self._exit_file = exit_file
        self._poll = poll

    async def has_ended(self) -> bool:
        return await in_thread(self._is_gone)

    def _is_gone(self) -> bool:
        if recorded_exit(self._exit_file) is not None:
            # What still lives has outlived it
            return True
        # A later process may have the same id
        leader_is_gone = process_start(self.pid) != self._started or is_zombie(self.pid)
        # If the supervisor was killed, the job may go on without it
        return leader_is_gone and not (self._is_supervised and self._own_processes())

    @property
    def _is_supervised(self) -> bool:
        return os.path.exists(self._exit_file)

    def _own_processes(self) -> set[int]:
        own = processes_of("HERMES_IDENTIFIER").get(self.identifier, ())
        # Those that have emptied their environment are known by their group
        return {*own, *(orphans_of(self.pid) if self._is_of_this_boot else ())}

    async def wait(self) -> Exit | None:
        while not await self.has_ended():  # noqa: ASYNC110 (only a parent is told)
            await anyio.sleep(self._poll)
        return await in_thread(recorded_exit, self._exit_file)

    def is_early(self) -> bool:
        # Its runner would have to have died within a millisecond
        return False

    def left_behind(self) -> list[int]:
        own = self._own_processes()
        members = [pid for pid in group_members(self.pid) if pid in own]
        return [*members, *still_alive(self._strays)]

    def _leader(self) -> int | None:
        return None if self._is_gone() else self.pid

    def signal(self, number: int) -> bool:
        # Never to a group of the same number that belongs to somebody else
        is_ours = not self._is_gone() or bool(self.left_behind())
        return is_ours and super().signal(number)
