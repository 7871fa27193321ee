"""Jobs that an earlier runner has started and that outlived it, or ended while nobody watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio

from ..blocking import in_thread
from ..experiments.files import read_regular
from ..experiments.metadata import Metadata
from ..experiments.provenance import boot_id, process_start
from .exits import Exit, parse_supervisor_pid
from .proc import group_members, group_of, is_zombie, processes_of
from .processes import Group, recorded_exit


def adopt(
    metadata: Metadata, exit_file: str, alive: Mapping[str, Sequence[int]], poll: float
) -> AdoptedProcess | None:
    """The process of a job of an earlier runner, dead or alive; None if it was never started.

    `alive` are the live processes of jobs by identifier, `poll` the seconds between two checks
    whether it has ended. Blocks.
    """
    identifier = metadata.identifier
    leaders = [pid for pid in alive.get(identifier, ()) if group_of(pid) == pid]
    if leaders:
        pid, started = leaders[0], process_start(leaders[0])
    else:
        found = metadata.pid or recorded_pid(exit_file)
        if found is None:
            return None
        # After a restart of the machine, or without a recorded start, the number may be anybody's
        is_known = metadata.pid_start is not None and metadata.boot_id == boot_id()
        pid, started = found, metadata.pid_start if is_known else ""
    return AdoptedProcess(
        identifier=identifier, pid=pid, started=started, exit_file=exit_file, poll=poll
    )


def recorded_pid(exit_file: str) -> int | None:
    """The process id of a job's supervisor; None if it has not come to that. Blocks."""
    try:
        return parse_supervisor_pid(read_regular(exit_file).decode("utf-8", "replace"))
    except OSError:
        return None


class AdoptedProcess(Group):
    """A process that is not our child: how it ended is known only by the record that it leaves."""

    def __init__(
        self, *, identifier: str, pid: int, started: str | None, exit_file: str, poll: float
    ) -> None:
        super().__init__(pid)
        self._identifier = identifier
        self._started = started
        self._exit_file = exit_file
        self._poll = poll

    async def has_ended(self) -> bool:
        return await in_thread(self._is_gone)

    def _is_gone(self) -> bool:
        # A later process may have the same id
        return process_start(self.pid) != self._started or is_zombie(self.pid)

    async def wait(self) -> Exit | None:
        while not await self.has_ended():  # noqa: ASYNC110 (only a parent is told)
            await anyio.sleep(self._poll)
        return await in_thread(recorded_exit, self._exit_file)

    def is_early(self) -> bool:
        # Its runner would have to have died within a millisecond
        return False

    def left_behind(self) -> list[int]:
        own = set(processes_of("HERMES_IDENTIFIER").get(self._identifier, ()))
        return [pid for pid in group_members(self.pid) if pid in own]

    def signal(self, number: int) -> bool:
        # Never to a group of the same number that belongs to somebody else
        is_ours = not self._is_gone() or bool(self.left_behind())
        return is_ours and super().signal(number)
