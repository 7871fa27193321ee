"""Other programs that are asked something, and never for longer than somebody waits."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import NamedTuple, TypeVar

T = TypeVar("T")

POLL = 0.05
"""Seconds between two checks whether anybody still waits for a program that has not answered."""


def give(answer: Future[T], found: T) -> None:
    """Gives an answer to those who wait for it. The first one counts."""
    with suppress(InvalidStateError):
        answer.set_result(found)


def given(found: T) -> Future[T]:
    """An answer that nobody has to wait for."""
    answer: Future[T] = Future()
    answer.set_result(found)
    return answer


class Patience:
    """How long answers are waited for, all together: `limit` seconds from now, or until `is_over`
    is set."""

    def __init__(self, limit: float, is_over: threading.Event) -> None:
        self.limit = limit
        self._ends = time.monotonic() + limit
        self._is_over = is_over

    @property
    def left(self) -> float:
        """Seconds, none if it is over."""
        return 0.0 if self._is_over.is_set() else max(0.0, self._ends - time.monotonic())


class Answer(NamedTuple):
    """What a program has printed; `failed` is why it is of no use."""

    output: bytes = b""
    errors: bytes = b""
    code: int = 0
    failed: str | None = None


def ask(
    command: Sequence[str], patience: Patience, *, name: str, folder: str,
    environment: Mapping[bytes, bytes],
) -> Answer:  # fmt: skip
    """Executes a program in a process group of its own, so that nothing of it is left behind.

    Never raises. `name` stands for it in messages.
    """
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError:
        return Answer(failed=f"{name} is not installed")
    except (OSError, ValueError) as exc:
        return Answer(failed=f"{name} cannot be executed: {getattr(exc, 'strerror', exc)}")
    with process:
        while True:
            try:
                output, errors = process.communicate(timeout=min(POLL, patience.left))
                return Answer(output, errors, process.returncode)
            except subprocess.TimeoutExpired:
                if patience.left:
                    continue
                with suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                return Answer(failed=f"{name} took longer than {patience.limit:g} s")
