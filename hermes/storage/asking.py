"""Other programs that are asked or told something, and never for longer than somebody waits."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import IO, NamedTuple, TypeVar

T = TypeVar("T")

MOST_PRINTED = 1 << 20
"""Bytes that a program may print which is told something."""

DYING = 2.0
"""Seconds for which a killed program is waited for."""

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

    def __init__(self, limit: float, is_over: threading.Event | None = None) -> None:
        self.limit = limit
        self._ends = time.monotonic() + limit
        self._is_over = is_over or threading.Event()

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
    environment: Mapping[bytes, bytes], stdin: bytes | None = None,
) -> Answer:  # fmt: skip
    """Executes a program in a process group of its own, so that nothing of it is left behind.

    Never raises. `name` stands for it in messages, `stdin` is what it reads.
    """
    try:
        # A file, because `communicate` goes on with no input that it could not write in time
        with _as_file(stdin) if stdin else open(os.devnull, "rb") as read:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=read,
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


def tell(
    command: Sequence[str], message: bytes, patience: Patience, *, name: str, folder: str,
    environment: Mapping[bytes, bytes],
) -> Answer:  # fmt: skip
    """Executes a program that gets `message` on its standard input, in a process group of its own.
    `Answer.output` is what it has printed, on its standard error too.

    If it takes too long, or prints too much, its group is killed; what it has started and left
    behind by itself goes on. Never raises. `name` stands for it in messages.
    """
    try:
        with _as_file(message) as file:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except (OSError, ValueError) as exc:
        return Answer(failed=f"{name} cannot be executed: {getattr(exc, 'strerror', exc)}")
    output, code, failed = b"", None, None
    assert process.stdout is not None
    with process.stdout:
        os.set_blocking(process.stdout.fileno(), False)
        while code is None and failed is None:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(POLL)
            # After the question: what it printed before its end is there by now
            output += _read_what_is_there(process.stdout.fileno(), MOST_PRINTED + 1 - len(output))
            if len(output) > MOST_PRINTED:
                failed = f"{name} printed more than {MOST_PRINTED >> 20} MB"
            elif code is None and not patience.left:
                failed = f"{name} took longer than {patience.limit:g} s"
    if code is None:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        # A disk that does not answer can hold it for longer
        with suppress(subprocess.TimeoutExpired):
            process.wait(DYING)
    return Answer(output=output, code=code or 0, failed=failed)


def _as_file(message: bytes) -> IO[bytes]:
    """A file that holds a message, where possible not on a disk: that may be full. Nothing waits
    for a program that does not read it."""
    if hasattr(os, "memfd_create"):
        file: IO[bytes] = os.fdopen(os.memfd_create("message"), "w+b")
    else:
        # Here, because Linux needs it for nothing
        import tempfile

        file = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    file.write(message)
    file.seek(0)
    return file


def _read_what_is_there(fd: int, most: int) -> bytes:
    """What can be read without waiting, at most so many bytes."""
    found = b""
    with suppress(BlockingIOError):
        while len(found) < most and (piece := os.read(fd, most - len(found))):
            found += piece
    return found
