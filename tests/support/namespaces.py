"""A working directory in a mount namespace of its own: its disks may be small, full or read-only,
and no other process notices.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .desk import Desk
from .waiting import LIMIT

HOLDER = "echo held; read -r _"
"""Keeps a namespace for as long as its standard input is open."""


class NamespaceDesk(Desk):
    """A desk in a namespace, in which `hermes` runs: what is mounted or limited there concerns
    nobody else.

    `path` is the working directory as it is seen from outside, `inside` as it is seen from within.
    """

    def __init__(self, pid: int, inside: Path) -> None:
        super().__init__(Path(f"/proc/{pid}/root{inside}"))
        self.inside = inside
        self._pid = pid

    def at(self, inside: Path) -> NamespaceDesk:
        """Another desk in the same namespace."""
        return NamespaceDesk(self._pid, inside)

    def within(self, *command: str) -> list[str]:
        """What executes a command in the namespace, in the working directory."""
        enter = ["nsenter", f"--target={self._pid}", "--user", "--mount", "--preserve-credentials"]
        return [*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(self.inside), *command]

    def do(self, *command: str) -> None:
        subprocess.run(self.within(*command), check=True, capture_output=True, timeout=LIMIT)

    def command(self, *arguments: str) -> list[str]:
        return self.within(*super().command(*arguments))


@contextmanager
def namespace(inside: Path, setup: str) -> Iterator[NamespaceDesk]:
    """A namespace in which `setup` was executed, in the folder `inside`, which is the working
    directory there.
    """
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        f"cd {inside} && {setup} && {HOLDER}",
    ]
    pipes: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    try:
        holder: subprocess.Popen[str] = subprocess.Popen(command, **pipes)
    except FileNotFoundError:
        pytest.skip("there is no `unshare`")
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stderr is not None
        try:
            if holder.stdout.readline() != "held\n":
                pytest.skip(f"there are no namespaces here: {holder.stderr.read()}")
            yield NamespaceDesk(holder.pid, inside)
        finally:
            holder.stdin.close()
