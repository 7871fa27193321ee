"""The journal of a run: which jobs its runners have started, and how these ended.

It lies in the run's own folder, out of the reach of jobs, so that a job is known even if it
damages, moves or deletes its experiment directory. One line is one fact, appended in one write:

    runner <host> <boot id> <process id namespace>
    start <identifier> <key> <attempt> <index>
    ending <identifier> <status>
    end <identifier> <status>

All functions here block.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from ..model import Status
from .files import open_regular, read_regular, write_all
from .layout import JOURNAL
from .provenance import boot_id

NONE = "-"
"""Stands for a value that is not known."""


class Machine(NamedTuple):
    """Where processes can be seen: a host since its last start, and a namespace of process ids,
    which is another one in a container."""

    host: str
    boot_id: str | None = None
    namespace: str | None = None

    @classmethod
    def here(cls) -> Machine:
        try:
            namespace = os.readlink("/proc/self/ns/pid")
        except OSError:
            namespace = None
        return cls(os.uname().nodename, boot_id(), namespace)


def may_be_alive(there: Machine, here: Machine) -> bool:
    """Whether a process that was started `there`, and cannot be seen `here`, may be alive.

    Here its absence is known. After a restart of the same host it is dead. On another host, or in
    another container of this one, nobody here can tell.
    """
    if None in (there.boot_id, here.boot_id):
        return there.host != here.host
    if there.boot_id != here.boot_id:
        return there.host != here.host
    return None not in (there.namespace, here.namespace) and there.namespace != here.namespace


class Started(msgspec.Struct, eq=False, kw_only=True):
    """A job that a runner has started, or was about to.

    `index` counts the jobs of the plan from 0. `reason` is why a runner was ending it, `status` how
    it ended; both None if that is not known.
    """

    identifier: str
    key: str
    attempt: int
    index: int
    machine: Machine | None
    reason: Status | None = None
    status: Status | None = None


class Journal(msgspec.Struct, eq=False):
    """What a journal says, by identifier in the order of the starts."""

    jobs: dict[str, Started] = msgspec.field(default_factory=dict)
    _machine: Machine | None = None

    def add(self, lines: Iterable[str]) -> None:
        """Takes further lines in. Those that make no sense are passed over."""
        for line in lines:
            kind, *words = line.split(" ")
            with contextlib.suppress(ValueError, KeyError):
                self._add(kind, words)

    def _add(self, kind: str, words: list[str]) -> None:
        if kind == "runner":
            host, boot, namespace = (None if word == NONE else word for word in words)
            self._machine = Machine(host or "", boot, namespace)
        elif kind == "start":
            identifier, key, attempt, index = words
            self.jobs[identifier] = Started(
                identifier=identifier,
                key=key,
                attempt=int(attempt),
                index=int(index),
                machine=self._machine,
            )
        elif kind == "ending":
            self.jobs[words[0]].reason = Status(words[1])
        elif kind == "end":
            self.jobs[words[0]].status = Status(words[1])


def read_journal(folder: str) -> Journal:
    """The journal in a run's folder; an empty one if there is none to be read."""
    journal = Journal()
    with contextlib.suppress(OSError):
        text = read_regular(f"{folder}/{JOURNAL}").decode("utf-8", "replace")
        # A line without its end was not written whole
        journal.add(text.split("\n")[:-1])
    return journal


class JournalWriter:
    """Appends to the journal in a run's folder. Raises `OSError`."""

    def __init__(self, folder: str, machine: Machine) -> None:
        self._machine = machine
        self._fd = self._open(folder)

    def _open(self, folder: str) -> int:
        fd = open_regular(f"{folder}/{JOURNAL}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        host, boot, namespace = (word or NONE for word in self._machine)
        try:
            # The end of a line that a killed runner may have begun
            write_all(fd, f"\nrunner {host} {boot} {namespace}\n".encode())
        except OSError:
            os.close(fd)
            raise
        return fd

    def renew(self, folder: str) -> None:
        """Goes on in a folder that was made again."""
        fd = self._open(folder)
        os.dup2(fd, self._fd, inheritable=False)
        os.close(fd)

    def start(self, identifier: str, key: str, attempt: int, index: int) -> None:
        self._append(f"start {identifier} {key} {attempt} {index}\n")

    def ending(self, identifier: str, status: Status) -> None:
        """Tells that the runner is about to end a job. Never raises."""
        with contextlib.suppress(OSError):
            self._append(f"ending {identifier} {status}\n")

    def end(self, identifier: str, status: Status) -> None:
        """Tells how a job has ended. Never raises: its experiment tells it too."""
        with contextlib.suppress(OSError):
            self._append(f"end {identifier} {status}\n")

    def _append(self, line: str) -> None:
        write_all(self._fd, line.encode())

    def close(self) -> None:
        os.close(self._fd)
