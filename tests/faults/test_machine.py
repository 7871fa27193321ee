"""A random sequence of everything that happens to a run: jobs that write and end, kills,
interrupts, a full disk, resuming.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import data, integers, lists, sampled_from

from hermes import Status

from ..support import LONG, all_metadata, check_always, namespace, times, until

pytestmark = [
    pytest.mark.fault(1, 2, 3, 8),
    pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc"),
]

DISK = 8
"""Size of the disk in MB."""

JOB = """\
echo "started $2"
n=0
while [ -e "../outside/hold$2" ]; do
  if [ -e "../outside/write$2" ]; then
    n=$((n + 1))
    echo "piece $n of $2" > "piece$n.$1.txt" && rm "../outside/write$2"
  fi
  sleep 0.01
done
echo "$2 $1" >> ../outside/ledger
exit "$3"
"""
"""A job that waits for its turn to end and writes when it is told to. What tells it stands on a
disk that is never full.
"""


class Life(RuleBasedStateMachine):
    """The life of a desk on a small disk. The model: which jobs there are, and how each ends when
    it is let go.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="hermes-life-")))
        (folder / "disk").mkdir()
        (folder / "outside").mkdir()
        setup = (
            f"mount -t tmpfs -o size={DISK}m none disk && cd disk && mkdir desk outside && mount "
            f"--bind ../outside outside"
        )
        found = self.stack.enter_context(namespace(folder, setup))
        self.desk = found.at(folder / "disk" / "desk")
        self.outside = folder / "outside"
        self.desk.write("job.sh", JOB)
        self.codes: dict[int, int] = {}
        self.runs: list[str] = []
        self.runner: subprocess.Popen[str] | None = None
        self.said: list[Path] = []
        self.full = False

    # What happens

    @rule(codes=lists(sampled_from([0, 0, 3]), min_size=1, max_size=3), threads=integers(1, 2))
    @precondition(lambda self: self.runner is None and not self.full and len(self.runs) < 3)
    def begin(self, codes: list[int], threads: int) -> None:
        name = f"run{len(self.runs)}"
        entries = []
        for code in codes:
            number = len(self.codes)
            self.codes[number] = code
            (self.outside / f"hold{number}").touch()
            entries.append(f"[[sh, job.sh, {number} {code}]]")
        self.desk.write(
            f"{name}.hermes", f"PRE\nthreads: {threads}\nEXEC\n" + "\n".join(entries) + "\n"
        )
        self.runs.append(name)
        self.start("exec", "-f", f"{name}.hermes")

    @rule(chosen=data())
    @precondition(lambda self: self.held())
    def let_go(self, chosen) -> None:  # type: ignore[no-untyped-def]
        (self.outside / f"hold{chosen.draw(sampled_from(self.held()))}").unlink()

    @rule(chosen=data())
    @precondition(lambda self: self.held())
    def write(self, chosen) -> None:  # type: ignore[no-untyped-def]
        (self.outside / f"write{chosen.draw(sampled_from(self.held()))}").touch()

    @rule()
    @precondition(lambda self: self.runner is not None)
    def kill(self) -> None:
        assert self.runner is not None
        self.runner.kill()
        self.end()

    @rule(number=sampled_from([signal.SIGINT, signal.SIGTERM]))
    @precondition(lambda self: self.runner is not None)
    def interrupt(self, number: signal.Signals) -> None:
        assert self.runner is not None
        self.runner.send_signal(number)
        self.end()

    @rule(chosen=data(), failed=sampled_from([[], ["--failed"]]))
    @precondition(lambda self: self.runner is None and self.runs)
    def resume(self, chosen, failed: list[str]) -> None:  # type: ignore[no-untyped-def]
        self.start("resume", "-n", chosen.draw(sampled_from(self.runs)), *failed)

    @rule()
    @precondition(lambda self: not self.full)
    def fill(self) -> None:
        self.full = True
        try:
            with open(self.desk.path.parent / "filler", "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError:
            pass

    @rule()
    @precondition(lambda self: self.full)
    def make_room(self) -> None:
        (self.desk.path.parent / "filler").unlink()
        self.full = False

    # What always holds

    @invariant()
    def metadata_are_whole(self) -> None:
        metadata = all_metadata(self.desk)
        assert len({each["identifier"] for each in metadata}) == len(metadata)

    def teardown(self) -> None:
        """Whatever has happened: with room on the disk and some patience, every job comes to its
        end once.
        """
        try:
            if self.full:
                self.make_room()
            for number in self.held():
                (self.outside / f"hold{number}").unlink()
            if self.runner is not None:
                self.end()
            for name in self.runs:
                # Twice: what failed on a full disk is first finished, and then run again
                for _ in range(2):
                    self.start("resume", "-n", name, "--failed")
                    self.end()
            check_always(self.desk, *(said.read_text() for said in self.said))
            self.check_ends()
        finally:
            if self.runner is not None:
                self.runner.kill()
            self.stack.close()

    def check_ends(self) -> None:
        metadata = all_metadata(self.desk)
        for number, code in self.codes.items():
            own = [each for each in metadata if each["arguments"][0] == f"{number}"]
            last = own[-1]
            assert (last["status"], last["exit_code"]) == (
                Status.FAILED if code else Status.FINISHED,
                code,
            ), own
            # What has succeeded is not repeated
            assert [each["status"] for each in own].count(Status.FINISHED) <= 1
        ledger = (
            [line.split() for line in (self.outside / "ledger").read_text().splitlines()]
            if self.codes
            else []
        )
        ended = {each["identifier"] for each in metadata if each["exit_code"] is not None}
        # Ended while the disk was so full that not even an exit status could be left there, or told
        # to end just before its last step
        untold = {
            each["identifier"]
            for each in metadata
            if each["status"] in (Status.LOST, Status.CANCELLED)
        }
        known = {identifier for _, identifier in ledger}
        strange = [
            each
            for each in metadata
            if each["identifier"] in known ^ ended and each["identifier"] not in untold
        ]
        assert not strange, strange
        assert len(ledger) == len({identifier for _, identifier in ledger})
        for each in metadata:
            for file in each["files"]:
                text = (
                    self.desk.experiments_folder
                    / each["script"]
                    / each["name"]
                    / each["identifier"]
                    / file["path"]
                ).read_text()
                assert text in (
                    "",
                    f"piece {file['path'][5:].partition('.')[0]} of {each['arguments'][0]}\n",
                )
        assert [path.name for path in self.desk.path.glob("piece*")] == []

    # Means

    def start(self, *arguments: str) -> None:
        said = self.outside / f"said{len(self.said)}"
        with said.open("w") as file:
            self.runner = self.stack.enter_context(self.desk.started(*arguments, stderr=file))
        self.said.append(said)
        # Not before: while Python itself starts, a Ctrl-C makes it print a traceback
        until(lambda: self.dead() or said.stat().st_size)

    def end(self) -> None:
        assert self.runner is not None
        self.runner.wait(timeout=60)
        self.runner = None

    def dead(self) -> bool:
        return self.runner is None or self.runner.poll() is not None

    def held(self) -> list[int]:
        return sorted(int(path.name.removeprefix("hold")) for path in self.outside.glob("hold*"))


@pytest.mark.timeout(900 if LONG else 120)
def test_whatever_happens_every_job_comes_to_its_end_once() -> None:
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    # Not made smaller: processes never do quite the same twice
    chosen = settings(
        max_examples=times(3, 60),
        stateful_step_count=times(12, 20),
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=checks,
    )
    run_state_machine_as_test(Life, settings=chosen)
