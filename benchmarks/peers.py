"""What users would pick instead: where it is, its version, and how it runs many no-op jobs.

Each of these contenders runs `./noop.sh 0`, `./noop.sh 1`, ... at most two at a time, and keeps of
every job what it keeps by itself.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from .measure import (
    ENVIRONMENT,
    THREADS,
    Contender,
    emptied,
    end,
    python,
    remove,
    wait_until,
    write_script,
)

BARE_LOOP = "bare anyio.open_process loop"
POSIX_SPAWN = "bare posix_spawn loop"
PARALLEL = "GNU parallel --results --joblog"
HYPERQUEUE = "HyperQueue, server is up already"
RLMATE = "rlmate 0.3.1"
TASK_SPOOLER = "task-spooler"
MOREUTILS = "moreutils' parallel (keeps nothing)"
XARGS = "xargs -P2 (keeps nothing)"

RLMATE_VARIABLE = "HERMES_BENCH_RLMATE"
"""Holds the path of rlmate's command.

It is called `hermes` too, so it must never be in the same environment as ours.
"""


@cache
def gnu_parallel() -> str | None:
    """Moreutils has a command of that name, too."""
    found = shutil.which("parallel")
    return found if found and _says(found, "--version").startswith("GNU parallel") else None


def moreutils_parallel() -> str | None:
    # Debian moves it aside where both are installed
    return shutil.which("parallel.moreutils") or (
        None if gnu_parallel() else shutil.which("parallel")
    )


def task_spooler() -> str | None:
    # On Debian `ts` is something else
    return shutil.which("tsp")


def rlmate() -> str | None:
    return shutil.which(os.environ.get(RLMATE_VARIABLE, ""))


def has_hyperqueue() -> bool:
    return importlib.util.find_spec("hyperqueue") is not None


def versions() -> dict[str, str | None]:
    """The versions of all peers, None of those that are absent."""
    parallel, tsp, xargs = gnu_parallel(), task_spooler(), shutil.which("xargs")
    return {
        PARALLEL: _says(parallel, "--version") if parallel else None,
        HYPERQUEUE: importlib.metadata.version("hyperqueue") if has_hyperqueue() else None,
        RLMATE: "0.3.1" if rlmate() else None,
        TASK_SPOOLER: _says(tsp, "-V") if tsp else None,
        MOREUTILS: _package_version("moreutils") if moreutils_parallel() else None,
        XARGS: _says(xargs, "--version") if xargs else None,
    }


def absent() -> list[str]:
    return [f"{name}: absent" for name, version in versions().items() if version is None]


@contextmanager
def contenders(folder: Path, jobs: int) -> Iterator[list[Contender]]:
    """All that are there. Their servers run while the block runs."""
    found = [_bare_loop(folder / "bare", jobs), _posix_spawn(folder / "spawn", jobs)]
    numbers = [str(number) for number in range(jobs)]
    if program := gnu_parallel():
        found.append(_parallel(folder / "parallel", program, numbers))
    if program := rlmate():
        found.append(_rlmate(folder / "rlmate", program, jobs))
    if program := shutil.which("xargs"):
        found.append(
            _fed(folder / "xargs", XARGS, f"{program} -n 1 -P {THREADS} ./noop.sh", numbers)
        )
    if program := moreutils_parallel():
        place = _place(folder / "moreutils")
        found.append(
            Contender(
                MOREUTILS,
                [program, "-j", str(THREADS), "./noop.sh", "--", *numbers],
                place,
                is_peer=True,
            )
        )
    spooler = task_spooler()
    if spooler:
        found.append(_task_spooler(folder / "tsp", spooler, jobs))
    try:
        if has_hyperqueue():
            with _hyperqueue(folder / "hq", jobs) as contender:
                yield [*found, contender]
        else:
            yield found
    finally:
        if spooler:
            _end_spooler(folder / "tsp", spooler)


def _bare_loop(folder: Path, jobs: int) -> Contender:
    (_place(folder) / "loop.py").write_text(BARE_LOOP_CODE)
    return Contender(
        BARE_LOOP, python("loop.py", str(jobs), str(THREADS)), folder, emptied(folder / "logs")
    )


BARE_LOOP_CODE = """\
import sys
import subprocess
import anyio

async def main(jobs, threads):
    limiter = anyio.CapacityLimiter(threads)

    async def job(number):
        async with limiter:
            with open(f"logs/{number}.out", "wb") as out, open(f"logs/{number}.err", "wb") as err:
                process = await anyio.open_process(
                    ["./noop.sh", str(number)],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
            await process.wait()

    async with anyio.create_task_group() as tasks:
        for number in range(jobs):
            tasks.start_soon(job, number)

anyio.run(main, int(sys.argv[1]), int(sys.argv[2]))
"""
"""What `anyio.open_process` takes by itself, with files as stdout and stderr."""


def _posix_spawn(folder: Path, jobs: int) -> Contender:
    (_place(folder) / "loop.py").write_text(POSIX_SPAWN_CODE)
    return Contender(
        POSIX_SPAWN, python("loop.py", str(jobs), str(THREADS)), folder, emptied(folder / "logs")
    )


POSIX_SPAWN_CODE = """\
import os
import sys

jobs, threads = int(sys.argv[1]), int(sys.argv[2])
flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
running = 0
for number in range(jobs):
    if running == threads:
        os.wait()
        running -= 1
    files = [
        (os.POSIX_SPAWN_OPEN, 1, f"logs/{number}.out", flags, 0o644),
        (os.POSIX_SPAWN_OPEN, 2, f"logs/{number}.err", flags, 0o644),
    ]
    os.posix_spawn("./noop.sh", ["./noop.sh", str(number)], os.environ, file_actions=files)
    running += 1
while running:
    os.wait()
    running -= 1
"""
"""About the least that a Python program can do."""


def _parallel(folder: Path, program: str, numbers: list[str]) -> Contender:
    contender = _fed(
        folder,
        PARALLEL,
        f"{program} --results results --joblog joblog -j{THREADS} ./noop.sh",
        numbers,
    )
    # It keeps files of its own in the home directory otherwise
    return Contender(
        contender.name,
        contender.command,
        folder,
        remove(folder / "results", folder / "joblog"),
        {"PARALLEL_HOME": str(folder)},
        True,
    )


def _fed(folder: Path, name: str, command: str, numbers: list[str]) -> Contender:
    """A command that reads the arguments, one a line."""
    (_place(folder) / "numbers").write_text("".join(f"{number}\n" for number in numbers))
    return Contender(name, ["/bin/sh", "-c", f"exec {command} < numbers"], folder, is_peer=True)


def _rlmate(folder: Path, program: str, jobs: int) -> Contender:
    entries = "".join(f"[[./noop.sh, {number}],[]]\n" for number in range(jobs))
    (_place(folder) / "jobs.hermes").write_text(
        f"PRE\nthreads:{THREADS}\nSTD-H\nSTD-E\nEXEC\n{entries}"
    )
    command = [program, "exec", "-f", "jobs.hermes", "-n", "bench", "--root", "."]
    # Ours is not meant for its environment
    return Contender(
        RLMATE,
        command,
        folder,
        remove(folder / "experiments", folder / ".hermes_pids"),
        {"PYTHONPATH": ""},
        True,
    )


def _task_spooler(folder: Path, program: str, jobs: int) -> Contender:
    write_script(
        _place(folder) / "queue.sh",
        f'for number in $(seq 0 {jobs - 1}); do {program} ./noop.sh "$number"; done\n'
        f"exec {program} -w\n",
    )

    def reset() -> None:
        _end_spooler(folder, program)
        emptied(folder / "out")()

    return Contender(
        TASK_SPOOLER, ["./queue.sh"], folder, reset, _spooler_environment(folder), True
    )


def _spooler_environment(folder: Path) -> dict[str, str]:
    # A server of its own, which the first command starts
    return {
        "TS_SOCKET": str(folder / "socket"),
        "TS_SAVELIST": str(folder / "saved"),
        "TS_SLOTS": str(THREADS),
        "TMPDIR": str(folder / "out"),
    }


def _end_spooler(folder: Path, program: str) -> None:
    if (folder / "socket").exists():
        environment = {**os.environ, **_spooler_environment(folder)}
        subprocess.run(
            [program, "-K"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
        (folder / "socket").unlink(missing_ok=True)


@contextmanager
def _hyperqueue(folder: Path, jobs: int) -> Iterator[Contender]:
    """Server and worker are up before anything is timed, as they are for its users."""
    (_place(folder) / "server.py").write_text(HYPERQUEUE_SERVER)
    (folder / "client.py").write_text(HYPERQUEUE_CLIENT)
    with open(folder / "server.log", "wb") as log:
        server = subprocess.Popen(
            python("server.py"),
            cwd=folder,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    assert server.stdin is not None
    try:
        wait_until(
            lambda: (folder / "ready").exists() or server.poll() is not None, "HyperQueue's server"
        )

        def reset() -> None:
            emptied(folder / "logs")()
            remove(folder / "done")()

        yield Contender(HYPERQUEUE, python("client.py", str(jobs)), folder, reset, is_peer=True)
    finally:
        server.stdin.close()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            end(server)


HYPERQUEUE_SERVER = f"""\
import os
import sys
import time
from hyperqueue import LocalCluster
from hyperqueue.cluster import WorkerConfig

folder = os.path.abspath("server")
cluster = LocalCluster(server_dir=folder)
# It says that it is there a moment before it can be found
while not os.path.exists(f"{{folder}}/hq-current/access.json"):
    time.sleep(0.01)
cluster.start_worker(WorkerConfig(cores={THREADS}))
open("ready", "w").close()
sys.stdin.read()
cluster.stop()
"""
"""Runs until its standard input ends."""

HYPERQUEUE_CLIENT = """\
import os
import sys
import time
from hyperqueue import Job
from hyperqueue.client import Client

client = Client(os.path.abspath("server"))
job = Job(default_workdir=".")
tasks = [
    job.program(
        ["./noop.sh", str(number)], stdout=f"logs/{number}.out", stderr=f"logs/{number}.err"
    )
    for number in range(int(sys.argv[1]))
]
job.program(["touch", "done"], deps=tasks, stdout="logs/done.out", stderr="logs/done.err")
client.submit(job)
while not os.path.exists("done"):
    time.sleep(0.005)
"""
"""A last task tells that all are done.

HyperQueue's own `wait_for_jobs` asks once a second, which would be counted against it.
"""


def _place(folder: Path) -> Path:
    write_script(folder / "noop.sh")
    return folder


def _says(program: str, option: str) -> str:
    """The first line of what a program says of its version."""
    ran = subprocess.run(
        [program, option],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    return ran.stdout.decode(errors="replace").partition("\n")[0]


def _package_version(name: str) -> str:
    """Of a package that does not tell its version itself."""
    dpkg = shutil.which("dpkg-query")
    if dpkg is None:
        return "unknown"
    ran = subprocess.run(
        [dpkg, "-W", "-f", "${Version}", name],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout.strip() or "unknown"
