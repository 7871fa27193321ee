"""What the rows share: contenders that take turns, and what each of their processes took."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .table import Figures

TURNS = 5
"""Turns that count; one in a smoke run."""

THREADS = 2

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
"""Everybody's: this checkout of Hermes is measured, wherever another may be installed."""

# As installed: modules are compiled once, and not anew by every process
ENVIRONMENT.pop("PYTHONDONTWRITEBYTECODE", None)


def find_tmpfs(enough: int = 2**29) -> Path | None:
    """A folder on a tmpfs that has room, and in which programs may be executed.

    Containers often have a small `/dev/shm`, and one in which nothing may be executed.
    """
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return None
    kinds = {words[1]: (words[2], words[3].split(",")) for words in mounts}
    for place in ("/dev/shm", f"/run/user/{os.getuid()}", "/tmp"):
        kind, options = kinds.get(place, ("", []))
        usable = kind == "tmpfs" and "noexec" not in options and os.access(place, os.W_OK)
        if usable and shutil.disk_usage(place).free >= enough:
            return Path(place)
    return None


TMPFS = find_tmpfs()

_GONE = tempfile.TemporaryDirectory(prefix="hermes-bench-gone-")
_NUMBERS = itertools.count()

_SCRIPT = Path(sys.executable).with_name("hermes")
HERMES = [str(_SCRIPT)] if _SCRIPT.exists() else [sys.executable, "-m", "hermes"]

HAS_PROC = os.path.exists("/proc/self/stat")
NO_PROC = "the runner's own CPU time is not measured here: there is no /proc"

MAXRSS_PER_MB = 2**20 if sys.platform == "darwin" else 2**10
"""`ru_maxrss` is in bytes on macOS, in kB elsewhere."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work: `command` in `folder`.

    Before every turn, `reset` brings the folder back to its beginning.
    """

    name: str
    command: Sequence[str]
    folder: Path
    reset: Callable[[], None] = lambda: None
    environment: dict[str, str] = field(default_factory=dict)
    is_peer: bool = False
    """Whether others have made it; if it fails, it is left out and named."""


@dataclass(frozen=True)
class Sample:
    """What one process took."""

    seconds: float
    own_cpu: float | None
    """User and system time of the process without its children; None where there is no `/proc`."""
    peak_memory: float
    """In MB, of the process alone. Where there is no `/proc`, its largest child may count."""


@dataclass
class Turns:
    """The samples of contenders by their names, as many of each, and what went wrong."""

    samples: dict[str, list[Sample]]
    failures: list[str] = field(default_factory=list)

    def seconds(self, name: str) -> list[float]:
        return [sample.seconds for sample in self.samples[name]]

    def relative(self, name: str, reference: str) -> list[float]:
        """How many times as long it took as the reference, turn by turn."""
        return quotients(self.seconds(name), self.seconds(reference))

    def times(self, reference: str = "") -> list[Figures]:
        return [
            Figures(
                name,
                self.seconds(name),
                ratios=self.relative(name, reference) if reference in self.samples else None,
            )
            for name in self.samples
        ]

    def raw(self) -> dict[str, Any]:
        return {
            name: [asdict(sample) for sample in samples] for name, samples in self.samples.items()
        }


def quotients(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(above, below, strict=True)]


def differences(left: Sequence[float], right: Sequence[float]) -> list[float]:
    return [one - other for one, other in zip(left, right, strict=True)]


def take_turns(contenders: Sequence[Contender], turns: int, *, warm_up: bool = False) -> Turns:
    """Lets all run one after the other, `turns` times.

    Raises `RuntimeError` if one fails that is not a peer.
    """
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    failures = []
    for turn in range(-1 if warm_up else 0, turns):
        for contender in contenders:
            if contender.name not in samples:
                continue
            contender.reset()
            try:
                sample = run_once(contender)
            except (OSError, RuntimeError) as exc:
                if not contender.is_peer:
                    raise
                failures.append(f"{contender.name}: failed, left out: {exc}")
                del samples[contender.name]
                continue
            if turn >= 0:
                samples[contender.name].append(sample)
    for contender in contenders:
        contender.reset()
    return Turns(samples, failures)


def run_once(contender: Contender) -> Sample:
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            contender.command,
            cwd=contender.folder,
            env={**ENVIRONMENT, **contender.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        own = peak = None
        try:
            if HAS_PROC:
                with _watched_memory(process.pid) as peaks:
                    # Dead, but not fetched yet: its times can still be read
                    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
                    seconds = time.perf_counter() - began
                own, peak = own_cpu(process.pid), max(peaks, default=None)
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if own is None:
            seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(
                f"{contender.name}: exit code {process.returncode}{f': {said[-1]}' if said else ''}"
            )
    return Sample(seconds, own, usage.ru_maxrss / MAXRSS_PER_MB if peak is None else peak)


@contextmanager
def _watched_memory(pid: int) -> Iterator[list[float]]:
    """Collects a process's peak memory in MB while the block runs.

    `ru_maxrss` does not do, because it is never below the memory of this process itself.
    """
    ended, peaks = threading.Event(), list[float]()

    def watch() -> None:
        while not ended.wait(0.05):
            # Gone with the process
            with suppress(OSError, StopIteration):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                peaks.append(
                    next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
                )

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        ended.set()
        watcher.join()


def own_cpu(pid: int) -> float:
    """User and system time of a process so far, without its children. Counted in 10 ms."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(
    condition: Callable[[], bool], what: str, *, seconds: float = 120, pause: float = 0.01
) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {seconds:g} s")
        time.sleep(pause)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that may have ended already: gently, and if that is not enough, at once."""
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def write_script(path: Path, text: str = "") -> Path:
    """A shell script; by default one that does nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)
    return path


def remove(*paths: Path) -> Callable[[], None]:
    """Something that takes these folders and files away, if they are there.

    On a disk they are deleted when all is measured: for half a minute after many files were
    deleted, ext4 takes 0.2 ms more to make one.
    """

    def removing() -> None:
        for path in paths:
            if TMPFS and path.is_relative_to(TMPFS):
                _delete(path)
            elif path.exists():
                path.rename(f"{_GONE.name}/{next(_NUMBERS)}")

    return removing


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def emptied(folder: Path) -> Callable[[], None]:
    def emptying() -> None:
        remove(folder)()
        folder.mkdir(parents=True)

    return emptying


def exec_file(
    folder: Path,
    name: str,
    entries: str,
    *,
    threads: int = 1,
    supervise: bool = True,
    environment: dict[str, str] | None = None,
) -> Contender:
    """`hermes exec` of a file with these entries, in `folder`.

    What it has made is removed before every turn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = f"{name.replace(' ', '_').replace(':', '').replace(',', '')}.hermes"
    (folder / file).write_text(
        f"PRE\nthreads: {threads}\nsupervise: {str(supervise).lower()}\nEXEC\n{entries}\n"
    )
    command = [*HERMES, "exec", "-f", file, "-n", "bench", "--root", ".", "--quiet"]
    return Contender(name, command, folder, remove(folder / "experiments"), environment or {})


def exec_jobs(folder: Path, name: str, jobs: int, *, supervise: bool = True) -> Contender:
    """`hermes exec` of so many jobs that do nothing."""
    write_script(folder / "noop.sh")
    return exec_file(
        folder,
        name,
        f"PROD([[./noop.sh, {{n}}]], n=RANGE[0, {jobs}])",
        threads=THREADS,
        supervise=supervise,
    )


def python(*words: str) -> list[str]:
    return [sys.executable, *words]
