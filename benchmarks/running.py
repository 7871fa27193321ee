"""`logs`, `live` and `idle`: what the runner takes while jobs run."""

from __future__ import annotations

import os
import pty
import subprocess
import termios
import threading
import time
from pathlib import Path

from .measure import (
    ENVIRONMENT,
    HAS_PROC,
    NO_PROC,
    TURNS,
    Contender,
    Sample,
    differences,
    emptied,
    end,
    exec_file,
    own_cpu,
    python,
    quotients,
    remove,
    take_turns,
    wait_until,
    write_script,
)
from .table import Figures, Row, Target, count

LOGS_WALL = 1.03
"""At most, times the shell's `>`: the job writes its log file itself, and Hermes only starts up."""

LIVE_SHARE = 15.0
"""At most, in percent of a core: 6,400 lines a second are read, prefixed and drawn."""

IDLE_SHARE = 0.35
"""At most, in percent of a core: watching every 10 ms takes 0.31 %."""

PRINTING = """\
import os, sys
line = b"x" * 99 + b"\\n"
for _ in range(int(sys.argv[-1])):
    os.write(1, line)
"""
"""Every line is written by itself, as by a job that wants its log to be up to date."""

TALKING = """\
import os, sys, time
ready, lines, rate = sys.argv[-3], int(sys.argv[-2]), int(sys.argv[-1])
open(os.path.join(ready, str(os.getpid())), "w").close()
while not os.path.exists(ready + "/go"):
    time.sleep(0.02)
began = time.perf_counter()
for number in range(lines):
    os.write(1, b"step %d: loss 0.123456, accuracy 0.654321\\n" % number)
    time.sleep(max(0, began + (number + 1) / rate - time.perf_counter()))
"""


def logs(folder: Path, *, smoke: bool) -> Row:
    lines, turns = (100_000, 1) if smoke else (10_000_000, TURNS)
    ours, shell = "hermes exec", "sh -c 'JOB > FILE'"
    ours_empty, shell_empty = f"{ours}, the job prints nothing", f"{shell}, the job prints nothing"

    def under_hermes(place: Path, name: str, count: int) -> Contender:
        return _job(exec_file(place, name, f"[[{', '.join(python('job.py'))}, {count}]]"), PRINTING)

    def under_shell(place: Path, name: str, count: int) -> Contender:
        place.mkdir(parents=True)
        command = [
            "/bin/sh",
            "-c",
            '"$@" > stdout.log 2> stderr.log',
            "sh",
            *python("job.py", str(count)),
        ]
        return _job(
            Contender(
                name, command, place, remove(place / "stdout.log"), {"PYTHONUNBUFFERED": "1"}
            ),
            PRINTING,
        )

    took = take_turns(
        [
            under_hermes(folder / "hermes", ours, lines),
            under_shell(folder / "shell", shell, lines),
            under_hermes(folder / "hermes_empty", ours_empty, 0),
            under_shell(folder / "shell_empty", shell_empty, 0),
        ],
        turns,
    )
    whole = took.relative(ours, shell)
    beyond = {
        name: differences(took.seconds(name), took.seconds(empty))
        for name, empty in ((ours, ours_empty), (shell, shell_empty))
    }
    cpu, cpu_empty = _cpu(took.samples[ours]), _cpu(took.samples[ours_empty])
    row = Row(
        f"logs: a job prints {lines / 1e7:g} GB in lines of 100 bytes, not shown live; "
        f"{count(turns)}",
        shell,
        [
            *took.times(shell),
            Figures(
                f"{ours}, beyond an empty run",
                beyond[ours],
                ratios=quotients(beyond[ours], beyond[shell]),
            ),
        ],
        [Target("wall time / the shell's >", "<=", LOGS_WALL, whole)],
        [] if HAS_PROC else [NO_PROC],
        took.raw(),
    )
    if cpu and cpu_empty:
        row.figures += [
            Figures("the runner's CPU", cpu),
            Figures("the runner's CPU, the job prints nothing", cpu_empty),
        ]
    return row


def live(folder: Path, *, smoke: bool) -> Row:
    jobs, lines, rate, turns = (4, 100, 100, 1) if smoke else (64, 1000, 100, TURNS)
    title = (
        f"live: {jobs} jobs at once, each printing {rate} lines a second for {lines // rate} s, "
        f"all followed on a terminal; {count(turns)}"
    )
    if not HAS_PROC:
        return Row(
            title,
            targets=[Target("the runner's CPU", "<=", LIVE_SHARE, None, "%")],
            notes=[NO_PROC],
        )
    ready = folder / "ready"
    place = folder / "place"
    job = f"{', '.join(python('-I', '-S', 'job.py'))}, {{identifier}} {{n}} {ready} {lines} {rate}"
    entry = f"PROD([[{job}],[-l false]], n=RANGE[0, {jobs}])"
    contender = _job(exec_file(place, "live", entry, threads=jobs), TALKING)
    shares, seen = [], []
    for _ in range(turns):
        contender.reset()
        emptied(ready)()
        # All are shown, with the progress bar
        terminal = _Terminal([word for word in contender.command if word != "--quiet"], place)
        try:
            wait_until(lambda: len(os.listdir(ready)) == jobs, "all jobs run")
            (ready / "go").touch()
            time.sleep(0.1 * lines / rate)
            shares.append(_shares([terminal.process.pid], 0.8 * lines / rate)[0])
            terminal.process.wait(timeout=120)
        finally:
            seen.append(terminal.close())
    contender.reset()
    return Row(
        title,
        figures=[
            Figures("the runner's CPU, share of a core", shares, "%"),
            Figures(f"of {jobs * lines:,} lines, came to the terminal", seen, "lines"),
        ],
        targets=[Target("the runner's CPU, share of a core", "<=", LIVE_SHARE, shares, "%")],
    )


class _Terminal:
    """A process on a pseudo terminal that somebody reads."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (50, 160))
        environment = {**ENVIRONMENT, "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self._lines = 0
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        rest = b""
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return
            if not data:
                return
            whole, mark, after = (rest + data).rpartition(b"\n")
            self._lines += whole.count(b" | step ")
            rest = after if mark else rest + data

    def close(self) -> float:
        """Ends the process if it has not ended. How many of the jobs' lines came."""
        if self.process.poll() is None:
            end(self.process)
        self._reader.join()
        os.close(self._master)
        return float(self._lines)


def idle(folder: Path, *, smoke: bool) -> Row:
    seconds, turns = (1, 1) if smoke else (60, TURNS)
    title = (
        f"idle: one job that sleeps for {seconds} s, without start-up; "
        f"{count(turns)}, at the same time"
    )
    if not HAS_PROC:
        return Row(
            title,
            targets=[Target("the runner's CPU", "<=", IDLE_SHARE, None, "%")],
            notes=[NO_PROC],
        )
    processes = []
    try:
        for number in range(turns):
            place = folder / f"place{number}"
            contender = exec_file(place, "idle", "[[./sleep.sh]]")
            # Longer than it is watched
            write_script(place / "sleep.sh", f": > started\nexec sleep {seconds + 10}\n")
            processes.append(
                subprocess.Popen(
                    contender.command,
                    cwd=place,
                    env=ENVIRONMENT,
                    stdin=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        wait_until(
            lambda: all((folder / f"place{number}/started").exists() for number in range(turns)),
            "the jobs run",
        )
        time.sleep(min(2, seconds))
        shares = _shares([process.pid for process in processes], seconds)
    finally:
        for process in processes:
            end(process)
    return Row(
        title,
        figures=[Figures("the runner's CPU, share of a core", shares, "%")],
        targets=[Target("the runner's CPU, share of a core", "<=", IDLE_SHARE, shares, "%")],
    )


def _shares(pids: list[int], seconds: float) -> list[float]:
    """How many percent of a core each of these processes takes in the seconds that come."""
    began, before = time.perf_counter(), [own_cpu(pid) for pid in pids]
    time.sleep(seconds)
    passed, after = time.perf_counter() - began, [own_cpu(pid) for pid in pids]
    return [100 * used / passed for used in differences(after, before)]


def _cpu(samples: list[Sample]) -> list[float] | None:
    values = [sample.own_cpu for sample in samples if sample.own_cpu is not None]
    return values if len(values) == len(samples) else None


def _job(contender: Contender, code: str) -> Contender:
    (contender.folder / "job.py").write_text(code)
    return contender
