"""Whether a job failed because memory ran out: the machine's, as the kernel counts, or a GPU's, as
the job says. All of this blocks.

Sources: the kernel's `Documentation/admin-guide/cgroup-v2.rst` (`memory.events`, whose `oom_kill`
counts the processes of a control group and of those below it that any out-of-memory killer has
ended) and `cgroup-v1/memory.rst` (`memory.oom_control`). The messages are those of PyTorch, JAX,
TensorFlow, CUDA and ROCm.
"""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress

from ..model import Problem, ProblemKind
from ..storage.files import open_regular, read_regular
from .exits import Exit

TAIL = 64 * 1024
"""Bytes at the end of a failed job's stderr in which a GPU's message is looked for: tracebacks of
several processes come after it."""

_KILLED_CODE = 128 + signal.SIGKILL
"""The exit code of a shell or a launcher whose child was killed."""

_GPU_MESSAGES = re.compile(
    rb"(CUDA|HIP) out of memory|\bOutOfMemoryError: (CUDA|HIP)\b"
    rb"|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|hipErrorOutOfMemory"
    rb"|CUDA error: out of memory|HIP error: out of memory"
    rb"|RESOURCE_EXHAUSTED: (Out of memory|Failed to allocate)"
    rb"|ResourceExhaustedError.*\bOOM when allocating tensor"
)

OF_GPU = Problem(ProblemKind.OUT_OF_MEMORY, "out of memory on the GPU, as `stderr.log` says")
KILLED = Problem(ProblemKind.OUT_OF_MEMORY, "out of memory: the kernel killed it")
CHILD_KILLED = Problem(
    ProblemKind.OUT_OF_MEMORY, "possibly out of memory: the kernel killed a process of this run"
)
UNKNOWN = Problem(
    ProblemKind.OUT_OF_MEMORY, "possibly out of memory: it was killed, `dmesg` may say why"
)


def out_of_memory(end: Exit, kills: int | None, last_words: bytes) -> Problem | None:
    """Why a job failed, if memory ran out.

    `kills` is how many processes of its run the kernel has ended for lack of memory while it ran,
    None if nobody can tell. `last_words` is the end of its stderr.
    """
    if _GPU_MESSAGES.search(last_words):
        return OF_GPU
    was_killed = end.signal == signal.SIGKILL or end.code == _KILLED_CODE
    if was_killed and kills is None:
        return UNKNOWN
    if was_killed and kills:
        return KILLED
    return CHILD_KILLED if kills else None


class MemoryKills:
    """Counts the processes that the kernel has ended for lack of memory, among those of this
    control group, which jobs share with their runner."""

    def __init__(self, file: str | None) -> None:
        self._file = file
        # Only those that differ from the one before: a process may be that of any job that ran then
        self._readings = [(time.monotonic(), self._count())]

    @classmethod
    def here(cls) -> MemoryKills:
        """Those of the control group of this process."""
        try:
            groups = read_regular("/proc/self/cgroup").decode("utf-8", "surrogateescape")
        except OSError:
            return cls(None)
        return cls(counting_file(groups))

    def since(self, began: float) -> int | None:
        """How many there were since `began`, by the monotonic clock, and perhaps shortly before.

        None if that cannot be told, as of a time before this was made.
        """
        count = self._count()
        before = [reading for at, reading in self._readings if at <= began]
        if count != self._readings[-1][1]:
            self._readings.append((time.monotonic(), count))
        if count is None or not before or before[-1] is None:
            return None
        return max(0, count - before[-1])

    def _count(self) -> int | None:
        if self._file is None:
            return None
        with suppress(OSError, ValueError):
            for line in read_regular(self._file).splitlines():
                name, _, count = line.partition(b" ")
                if name == b"oom_kill":
                    return int(count)
        return None


def counting_file(groups: str, top: str = "/sys/fs/cgroup") -> str | None:
    """The file that counts for the control groups in the text of `/proc/self/cgroup`; None if there
    is none, as in the outermost group."""
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            file = f"{top}{path.rstrip('/')}/memory.events"
        elif "memory" in controllers.split(","):
            file = f"{top}/memory{path.rstrip('/')}/memory.oom_control"
        else:
            continue
        if os.path.isfile(file):
            return file
    return None


def last_words(path: str) -> bytes:
    """The end of a log; nothing if that cannot be read."""
    try:
        with open(open_regular(path, os.O_RDONLY), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            return file.read(TAIL)
    except OSError:
        return b""
