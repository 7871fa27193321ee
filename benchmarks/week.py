"""`week`: a week of training in small. 200 jobs share 4 pretended GPUs, two on each, while they
fail, hang and are tried again, `threads` is changed three times, the code is edited, the run is
paused once, and its runner is killed twice. Prints the attempts and GPUs of every job, and ends
with an error if a rule is broken.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from .measure import ENVIRONMENT, HERMES, python, wait_until
from .table import Figures, Row, Target

JOBS = 200
GPUS = 4
SHARED_BY = 2
THREADS = 8
TIMEOUT = 1.5
"""Seconds of a job; those that hang would take a minute."""

SOON = 0.5
"""Seconds after a change of the run from which it has to hold: what has a slot may still start."""

EXPECTED: Mapping[str, Sequence[str]] = {
    "good": ["finished"],
    "flaky": ["failed", "finished"],
    "bad": ["failed", "failed"],
    "slow": ["timeout", "finished"],
    "hangs": ["timeout", "timeout"],
}
"""How the attempts of each kind of job end. `retries` is 1."""

CODE = "VERSION = {}\n"

JOB = """\
import os, signal, sys, time
import code_of_the_run
identifier, kind, number, notes = sys.argv[1:]
def note(what, *words):
    line = " ".join(map(str, (what, number, identifier, time.time(), *words)))
    fd = os.open(notes + "/ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(fd, (line + chr(10)).encode())
    os.close(fd)
def leave(code):
    note("end", code)
    os._exit(code)
signal.signal(signal.SIGTERM, lambda *_: leave(143))
fd = os.open(notes + "/" + number, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
os.write(fd, b"x")
is_first = os.fstat(fd).st_size == 1
note("start", code_of_the_run.VERSION, os.environ.get("CUDA_VISIBLE_DEVICES") or "-")
print("job", number, identifier, flush=True)
with open("result_" + identifier + ".txt", "w") as file:
    file.write(number)
    file.flush()
    time.sleep(60 if kind == "hangs" or (kind == "slow" and is_first) else 0.2)
leave(int(kind == "bad" or (kind == "flaky" and is_first)))
"""
"""Notes its start with the version of the code that it runs and its GPUs, and its end, in a ledger
that Hermes knows nothing of."""


@dataclass
class Execution:
    """One start of a job, as the ledger tells it. Times are seconds since 1970."""

    number: int
    identifier: str
    start: float
    version: str
    gpus: tuple[str, ...]
    end: float | None = None


@dataclass
class Week:
    """A folder with its jobs, and what was done to the run meanwhile."""

    folder: Path
    kinds: list[str]
    told: list[str] = field(default_factory=list)
    paused: tuple[float, float] | None = None
    """When the pause had been taken in, and when `hermes continue` was called."""

    threads: list[tuple[float, float, int]] = field(default_factory=list)
    """When a number of threads had been taken in, when the next change began, and the number."""

    runner: subprocess.Popen[bytes] | None = None

    @property
    def notes(self) -> Path:
        return self.folder.parent / "notes"

    # What a person does

    def prepare(self) -> None:
        self.folder.mkdir()
        self.notes.mkdir()
        (self.folder / "job.py").write_text(JOB)
        (self.folder / "code_of_the_run.py").write_text(CODE.format(1))
        jobs = "".join(
            f"[[{', '.join(python('-S', 'job.py'))}, {kind} {number} {self.notes}],[-g {amount}]]\n"
            for number, kind in enumerate(self.kinds)
            for amount in [amount_of(number)]
        )
        settings = {
            "threads": THREADS, "gpus": f"fake:{GPUS}", "jobs_per_gpu": SHARED_BY, "retries": 1,
            "timeout": f"{TIMEOUT}s", "freeze": "true",
        }  # fmt: skip
        lines = "".join(f"{key}: {value}\n" for key, value in settings.items())
        (self.folder / "week.hermes").write_text(f"PRE\n{lines}EXEC\n{jobs}")
        for words in ("init -q", "add .", f"{AS_SOMEBODY} commit -qm start"):
            self._git(words)

    def _git(self, words: str) -> None:
        subprocess.run(["git", *words.split()], cwd=self.folder, check=True, env=ENVIRONMENT)

    def begin(self, *words: str) -> None:
        with open(self.notes / "said", "ab") as said:
            self.runner = subprocess.Popen(
                [*HERMES, *words], cwd=self.folder, env=ENVIRONMENT,
                stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            )  # fmt: skip
        self._tell(" ".join(["hermes", *words]))

    def hermes(self, *words: str) -> tuple[float, float]:
        """When the command began and ended. Raises `CalledProcessError`."""
        began = time.time()
        subprocess.run(
            [*HERMES, *words, "--quiet"], cwd=self.folder, env=ENVIRONMENT, check=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self._tell(" ".join(["hermes", *words]))
        return began, time.time()

    def set_threads(self, threads: int) -> None:
        began, ended = self.hermes("set", "week", f"threads={threads}")
        if self.threads:
            since, _, before = self.threads[-1]
            self.threads[-1] = since, began, before
        self.threads.append((ended + SOON, float("inf"), threads))

    def pause(self, seconds: float) -> None:
        _, ended = self.hermes("pause", "week")
        time.sleep(seconds)
        self.paused = ended + SOON, time.time()
        self.hermes("continue", "week")

    def kill(self) -> None:
        assert self.runner is not None
        if self.runner.poll() is not None:
            raise RuntimeError("the run was over before its runner was killed")
        os.kill(self.runner.pid, signal.SIGKILL)
        self.runner.wait()
        self._tell("the runner is killed")
        time.sleep(0.3)

    def edit(self, version: int, *, commit: bool = False) -> None:
        (self.folder / "code_of_the_run.py").write_text(CODE.format(version))
        if commit:
            self._git(f"{AS_SOMEBODY} commit -qam edited")
        self._tell(f"the code is version {version}{' and committed' if commit else ''}")

    def delete(self) -> None:
        (self.folder / "code_of_the_run.py").unlink()
        (self.folder / "job.py").write_text("raise SystemExit('the code of another time')\n")
        self._tell("the code is deleted")

    def reached(self, started: int) -> None:
        """Waits until so many jobs have started."""
        runner = self.runner
        assert runner is not None
        wait_until(
            lambda: len(self.executions()) >= started or runner.poll() is not None,
            f"{started} starts",
        )

    def _tell(self, what: str) -> None:
        self.told.append(f"after {len(self.executions()):3} starts: {what}")

    # What has come of it

    def executions(self) -> list[Execution]:
        path = self.notes / "ledger"
        found: dict[str, Execution] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            what, number, identifier, at, *more = line.split()
            if what == "start":
                gpus = () if more[1] == "-" else tuple(more[1].split(","))
                found[identifier] = Execution(int(number), identifier, float(at), more[0], gpus)
            else:
                found[identifier].end = float(at)
        return list(found.values())

    def metadata(self) -> dict[str, dict[str, Any]]:
        """Of all experiments, by identifier, in the order of their starts."""
        paths = sorted(self.folder.glob("experiments/job/*/*/hermes.json"), key=lambda p: p.parent)
        return {path.parent.name: json.loads(path.read_bytes()) for path in paths}


AS_SOMEBODY = "-c user.name=nobody -c user.email=nobody@localhost"


def amount_of(number: int) -> float:
    """How many GPUs a job needs: most share one, some need one or two, some none."""
    return {3: 1, 5: 0, 9: 2}.get(number % 13, 1 / SHARED_BY)


def kind_of(number: int) -> str:
    kinds = {7: "flaky", 11: "bad", 16: "slow", 19: "hangs"}
    return kinds.get(number % 20, "good")


def run(folder: Path, *, smoke: bool) -> Row:
    jobs = 40 if smoke else JOBS
    week = Week(folder / "week", [kind_of(number) for number in range(jobs)])
    week.prepare()
    began = time.monotonic()
    steps: list[Callable[[], None]] = [
        lambda: week.edit(2),
        lambda: week.set_threads(3),
        week.kill,
        lambda: week.begin("resume"),
        lambda: week.set_threads(6),
        lambda: week.edit(3, commit=True),
        lambda: week.pause(2.0),
        week.delete,
        week.kill,
        lambda: week.begin("resume"),
        lambda: week.edit(4),
        lambda: week.set_threads(THREADS),
    ]
    week.begin("exec", "-f", "week.hermes")
    try:
        for number, step in enumerate(steps, 1):
            week.reached(number * jobs // (len(steps) + 1))
            step()
        assert week.runner is not None
        code = week.runner.wait(timeout=300)
    finally:
        if week.runner is not None and week.runner.poll() is None:
            week.runner.kill()
            week.runner.wait()
    took = time.monotonic() - began
    log, broken = [*week.told, *each_job(week)], broken_rules(week)
    if code != 1:
        broken.append(f"the exit code is {code}, though some jobs failed for good")
    if broken:
        print("", *log, "", "broken rules:", *broken, sep="\n  ")
        print((week.notes / "said").read_text(errors="replace")[-5000:])
        raise SystemExit(f"week: {len(broken)} rules are broken")
    executions = week.executions()
    return Row(
        f"week: {jobs} jobs on {GPUS} pretended GPUs, {SHARED_BY} on each; changes, kills, a pause",
        figures=[
            Figures("all of it", [took]),
            Figures("jobs", [float(jobs)], ""),
            Figures("attempts", [float(len(executions))], ""),
            Figures("most at once", [float(most_at_once(executions))], ""),
        ],
        targets=[
            Target("largest share of a GPU", "<=", 1, [largest_share(week)[1]], ""),
            Target("broken rules", "<=", 0, [0.0], ""),
        ],
        notes=log,
        raw={"log": log},
    )


def each_job(week: Week) -> list[str]:
    """A line a job: its attempts, how they ended, on which GPUs, and when they began."""
    found, first = attempts(week), min(each.start for each in week.executions())
    starts = {each.identifier: each.start - first for each in week.executions()}
    lines = []
    for number, kind in enumerate(week.kinds):
        told = [
            f"{each['status']} on {','.join(each['gpus'] or ()) or 'no GPU'}"
            f" at {starts.get(each['identifier'], 0):.1f} s"
            for each in found[number]
        ]
        lines.append(f"job {number:3} {kind:5} {amount_of(number):3g} GPU: {'; '.join(told)}")
    return lines


def attempts(week: Week) -> dict[int, list[dict[str, Any]]]:
    """Metadata of the experiments of each job, in the order of their starts."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for metadata in week.metadata().values():
        found[int(metadata["arguments"][1])].append(metadata)
    return found


def broken_rules(week: Week) -> list[str]:
    """What must never be, and is; nothing, if all is well."""
    executions, metadata = week.executions(), week.metadata()
    return [
        *_lost_or_repeated(week, executions),
        *_mixed_up(week, executions, metadata),
        *_over_their_share(week, executions, metadata),
        *_against_a_wish(week, executions),
    ]


def decided(identifier: str) -> float:
    """When Hermes began to start a job, in seconds since 1970: its identifier says so."""
    stamp, _, _ = identifier.rpartition("_")
    return datetime.strptime(stamp, "%Y_%m_%d_%H%M%S%f").astimezone().timestamp()


def _lost_or_repeated(week: Week, executions: Sequence[Execution]) -> Iterable[str]:
    started, found = Counter(each.number for each in executions), attempts(week)
    for number, kind in enumerate(week.kinds):
        # What had an experiment when its runner was killed, but no process, is begun again
        known = [each for each in found[number] if each["status"] != "lost"]
        ended = [each["status"] for each in known]
        if ended != list(EXPECTED[kind]):
            yield f"job {number} ({kind}) has ended {ended}, expected {EXPECTED[kind]}"
        if started[number] != len(EXPECTED[kind]):
            yield f"job {number} ({kind}) was executed {started[number]} times"
        numbers = [each["attempts"] for each in found[number]]
        if sorted(set(numbers)) != numbers:
            yield f"job {number} has the attempts {numbers}"
    by_number: dict[int, list[Execution]] = defaultdict(list)
    for each in sorted(executions, key=lambda each: each.start):
        if each.end is None:
            yield f"job {each.number}: `{each.identifier}` never ended"
        by_number[each.number].append(each)
    for number, own in by_number.items():
        for one, next_one in pairwise(own):
            if next_one.start < (one.end or 0):
                yield f"job {number} was executed twice at the same time"


def _mixed_up(
    week: Week, executions: Sequence[Execution], metadata: Mapping[str, dict[str, Any]]
) -> Iterable[str]:
    for each in executions:
        where = f"job {each.number}, `{each.identifier}`"
        if each.version != "1":
            yield f"{where}: ran version {each.version} of the code"
        if each.identifier not in metadata:
            yield f"{where}: there is no experiment"
            continue
        (folder,) = week.folder.glob(f"experiments/job/*/{each.identifier}")
        if (folder / "stdout.log").read_text() != f"job {each.number} {each.identifier}\n":
            yield f"{where}: the log is another's"
        results = [path.name for path in folder.rglob("result_*")]
        if results != [f"result_{each.identifier}.txt"]:
            yield f"{where}: its directory holds {results}"
        told = metadata[each.identifier]
        if int(told["arguments"][1]) != each.number:
            yield f"{where}: the metadata are those of job {told['arguments'][1]}"
        if tuple(told["gpus"] or ()) != each.gpus:
            yield f"{where}: had the GPUs {each.gpus}, its metadata say {told['gpus']}"
    left = list(week.folder.glob("result_*"))
    if left:
        yield f"{len(left)} files were left in the working directory"


def _over_their_share(
    week: Week, executions: Sequence[Execution], metadata: Mapping[str, dict[str, Any]]
) -> Iterable[str]:
    for each in executions:
        if len(each.gpus) != -(-amount_of(each.number) // 1):
            yield f"job {each.number} needs {amount_of(each.number)} GPUs and had {each.gpus}"
    gpu, share = largest_share(week)
    if share > 1:
        yield f"the shares of GPU {gpu} added up to {share}"


def largest_share(week: Week) -> tuple[str, float]:
    """The GPU of which most was ever in use, and how much."""
    changes: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for each in week.executions():
        for gpu in each.gpus:
            share = min(1.0, amount_of(each.number))
            changes[gpu] += [(each.start, share), (each.end or each.start, -share)]
    most = ("", 0.0)
    for gpu, own in changes.items():
        used = 0.0
        for _, share in sorted(own):
            used += share
            most = max(most, (gpu, used), key=lambda each: each[1])
    return most


def most_at_once(executions: Sequence[Execution]) -> int:
    changes = [(each.start, 1) for each in executions]
    changes += [(each.end or each.start, -1) for each in executions]
    most = running = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most


def _against_a_wish(week: Week, executions: Sequence[Execution]) -> Iterable[str]:
    """A job that was started while the run was paused, or while as many ran as there may be."""
    # On a busy machine a process needs a while until it can note its start
    spans = [(decided(each.identifier), each.end or 0) for each in executions]
    for each, (start, _) in zip(executions, spans, strict=True):
        if week.paused is not None and week.paused[0] < start < week.paused[1]:
            yield f"job {each.number} was started {start - week.paused[0]:.2f} s after the pause"
        at_once = sum(begin <= start < end for begin, end in spans)
        for since, until, threads in week.threads:
            if since < start < until and at_once > threads:
                yield f"job {each.number} was started with {at_once} at once, at most {threads}"
