"""Jobs that fail because memory runs out."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path

import pytest

from hermes.executors.exits import Exit
from hermes.executors.local import LocalExecutor
from hermes.executors.memory import (
    CHILD_KILLED,
    KILLED,
    OF_GPU,
    UNKNOWN,
    MemoryKills,
    counting_file,
    out_of_memory,
)
from hermes.model import Problem, Status
from hermes.storage.metadata import read_metadata

from ..support import PYTHON, Project

SIGKILL = Exit(signal=signal.SIGKILL)

TORCH = (
    b"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total "
    b"capacity of 79.11 GiB of which 1.00 GiB is free.\n"
)

GPU_MESSAGES = [
    TORCH,
    b"RuntimeError: CUDA out of memory. Tried to allocate 2.00 MiB (GPU 0; 7.79 GiB total)\n",
    b"torch.cuda.OutOfMemoryError: CUDA out of memory.\n",
    b"torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 MiB\n",
    b"RuntimeError: CUDA error: out of memory\n",
    b"pycuda._driver.MemoryError: cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY\n",
    b"numba: [2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY\n",
    b"hipErrorOutOfMemory\n",
    b"jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to "
    b"allocate 17179869184 bytes.\n",
    b"ResourceExhaustedError: {{function_node}} OOM when allocating tensor with shape[1,2]\n",
]


@pytest.mark.parametrize(
    ("end", "kills", "words", "expected"),
    [
        (Exit(code=1), 0, b"", None),
        (Exit(code=1), None, b"", None),
        (Exit(code=1), 1, b"", CHILD_KILLED),
        (Exit(signal=signal.SIGSEGV), 0, b"", None),
        (SIGKILL, 0, b"", None),
        (SIGKILL, 1, b"", KILLED),
        (SIGKILL, None, b"", UNKNOWN),
        (Exit(code=137), 2, b"", KILLED),
        (Exit(code=137), None, b"", UNKNOWN),
        (Exit(code=1), None, b"MemoryError: out of memory, said the script\n", None),
        *((Exit(code=1), 0, message, OF_GPU) for message in GPU_MESSAGES),
        (Exit(code=1), 0, TORCH + b"\nTraceback of another process\n" * 100, OF_GPU),
    ],
)
def test_out_of_memory_is_named(
    end: Exit, kills: int | None, words: bytes, expected: Problem | None
) -> None:
    assert out_of_memory(end, kills, words) == expected


@pytest.mark.parametrize(
    ("groups", "file"),
    [
        ("0::/user.slice/a.scope\n", "user.slice/a.scope/memory.events"),
        ("0::/\n", "memory.events"),
        ("5:cpu,memory:/a\n0::/\n", "memory/a/memory.oom_control"),
        ("4:memory:/a:b\n", "memory/a:b/memory.oom_control"),
    ],
)
def test_the_file_that_counts_is_found(groups: str, file: str, tmp_path: Path) -> None:
    assert counting_file(groups, str(tmp_path)) is None
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("low 0\noom 3\noom_kill 1\n")
    assert counting_file(groups, str(tmp_path)) == str(tmp_path / file)


def test_kills_are_counted_for_all_that_ran_then(tmp_path: Path) -> None:
    file = tmp_path / "memory.events"
    file.write_text("oom 1\noom_kill 4\noom_group_kill 0\n")
    before = time.monotonic()
    kills = MemoryKills(str(file))
    early = time.monotonic()
    assert kills.since(early) == 0
    file.write_text("oom 2\noom_kill 6\noom_group_kill 0\n")
    assert kills.since(early) == 2
    # Another job that was killed at the same time is finished later
    assert kills.since(early) == 2
    assert kills.since(time.monotonic()) == 0
    assert kills.since(before) is None
    assert kills.since(-math.inf) is None
    file.unlink()
    assert kills.since(early) is None
    assert MemoryKills(None).since(early) is None


@pytest.mark.anyio
async def test_a_job_that_the_gpu_has_no_memory_for(project: Project) -> None:
    project.write(
        "job.py",
        f"import sys\nprint({TORCH.decode()!r}, file=sys.stderr)\nsys.exit('ok' not in sys.argv)\n",
    )
    result = await project.run(f"[[{PYTHON}, job.py]]", f"[[{PYTHON}, job.py, ok]]")
    failed = next(each for each in result.outcomes if each.status is Status.FAILED)
    assert failed.problems == (OF_GPU,)
    # Who goes on in spite of it has not failed
    assert sum(each.ok for each in result.outcomes) == 1
    assert failed.directory is not None
    assert read_metadata(failed.directory).problems == [OF_GPU]


@pytest.mark.anyio
async def test_a_job_that_the_kernel_has_killed(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "memory.events"
    file.write_text("oom_kill 0\n")
    project.write(
        "job.py",
        "import os, signal, sys\n"
        f"if 'counted' in sys.argv: open({str(file)!r}, 'w').write('oom_kill 1\\n')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
    )
    result = await project.run(
        f"[[{PYTHON}, job.py]]",
        f"[[{PYTHON}, job.py, counted]]",
        executor=LocalExecutor(lambda: MemoryKills(str(file))),
    )
    problems = {each.argv[-1] == "counted": each.problems for each in result.outcomes}
    assert problems == {False: (), True: (KILLED,)}
