"""Many jobs, few file descriptors, and a system that has no processes left."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hermes import Status
from hermes.executors.proc import processes_of

from ..support import (
    HERMES,
    LIMIT,
    Desk,
    RecordProperty,
    check_always,
    environment,
    times,
    until,
)
from ..support.disks import MANY, TRACE, all_recorded, ledger, traced
from ..support.waiting import process_state

pytestmark = [pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks into /proc")]


# Row 9: read-only, gone


# Row 18: many jobs, few descriptors, few processes

SLOT = """\
# Nobody else may be in this slot, and there are only so many
mkdir "slot$HERMES_SLOT" || exit 9
: > "made_$1"
rmdir "slot$HERMES_SLOT"
[ "$HERMES_SLOT" -lt "$2" ]
"""


def watched(process: subprocess.Popen[str], look: Callable[[], object]) -> None:
    """Looks again and again until a command has ended."""
    while process.poll() is None:
        look()
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue


@pytest.mark.fault(18)
@MANY
def test_many_jobs_all_end_and_cost_little_memory(
    desk: Desk, record_property: RecordProperty
) -> None:
    count, threads = times(300, 10_000), 8
    desk.write("slot.sh", SLOT)
    desk.write(
        "s.hermes",
        f"PRE\nthreads: {threads}\nEXEC\n"
        f"PROD([[sh, slot.sh, {threads} {{n}}]], n=RANGE[0, {count}])\n",
    )
    memory, alive = [0], [0]

    with (
        desk.path.with_name("said").open("w+") as said,
        desk.started("exec", "-f", "s.hermes", "-q", stdout=said, stderr=said) as process,
    ):

        def look() -> None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                # Each thread has those that it has started
                started = [
                    path.read_text()
                    for path in Path(f"/proc/{process.pid}/task").glob("*/children")
                ]
                children = " ".join(started).split()
                # One that has ended and was not fetched yet is not alive
                alive.append(sum(process_state(int(pid)) != "Z" for pid in children))
            except OSError:
                return
            memory.extend(
                int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")
            )

        watched(process, look)
        said.seek(0)
        told = said.read()
    record_property("tried", count)
    record_property("peak_mb", max(memory) // 1024)
    assert process.returncode == 0, told
    assert 0 < max(memory) < 200 * 1024
    assert 0 < max(alive) <= threads
    check_always(desk, told)
    experiments = desk.experiments()
    assert [each.status for each in experiments] == [Status.FINISHED] * count
    assert {each.argv[-1] for each in experiments} == set(map(str, range(count)))
    assert all((each.directory / f"made_{each.identifier}").exists() for each in experiments)


@pytest.mark.fault(18)
@pytest.mark.parametrize("shown", ["true", "false"], ids=["shown", "silent"])
def test_64_descriptors_are_enough(desk: Desk, record_property: RecordProperty, shown: str) -> None:
    count, threads = times(40, 400), 8
    log = "false" if shown == "true" else "true"
    desk.write("slot.sh", SLOT)
    desk.write(
        "s.hermes",
        f"PRE\nthreads: {threads}\nSTD-H\n-l {log}\nEXEC\n"
        f"PROD([[sh, slot.sh, {threads} {{n}}]], n=RANGE[0, {count}])\n",
    )
    few = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))}
    with desk.started("exec", "-f", "s.hermes", "-q", **few) as process:
        out, err = process.communicate(timeout=10 * LIMIT)
    record_property("tried", count)
    assert process.returncode == 0, err
    check_always(desk, out, err)
    assert [each.status for each in desk.experiments()] == [Status.FINISHED] * count


ALONE = 54_321
"""A user that nobody else is, for limits that are counted by user."""


def alone() -> list[str]:
    """What executes a command as a user whose processes are few, and who is bound by a limit of
    them, unlike root.
    """
    if os.geteuid():
        return ["unshare", "--user", "--map-root-user"]
    # The interpreter and the tests may be root's own
    keep = "-all,+dac_override,+dac_read_search"
    return [
        "setpriv",
        f"--reuid={ALONE}",
        "--clear-groups",
        f"--inh-caps={keep}",
        f"--ambient-caps={keep}",
    ]


def limit_processes(pid: int, soft: str) -> None:
    """Sets how many processes the user may have when this one starts another; without a number as
    many as ever.
    """
    hard = (
        ""
        if resource.getrlimit(resource.RLIMIT_NPROC)[1] < 0
        else str(resource.getrlimit(resource.RLIMIT_NPROC)[1])
    )
    as_the_user = [] if os.geteuid() else alone()
    subprocess.run(
        [*as_the_user, "prlimit", f"--pid={pid}", f"--nproc={soft or hard or 'unlimited'}:"],
        check=True,
        timeout=LIMIT,
    )


def is_watching(pid: int) -> bool:
    """Whether a process has asked the system to tell it of files, with inotify."""
    fds = subprocess.run(
        ["ls", "-l", f"/proc/{pid}/fd"], capture_output=True, check=False, timeout=LIMIT
    )
    return b"anon_inode:inotify" in fds.stdout


@pytest.mark.fault(18)
@pytest.mark.parametrize("threads", [1, 4])
def test_a_system_that_starts_no_processes_for_a_while_delays_the_jobs(
    desk: Desk, tmp_path: Path, threads: int
) -> None:
    count = 12
    traced(desk, tmp_path, count, *range(threads))
    # A new folder has to be watched, for which Linux needs no thread
    desk.write("job.sh", TRACE + 'mkdir "new$2" && : > "new$2/late_$1"\n')
    said_path = tmp_path / "said"
    with said_path.open("w+") as said:
        command = [*alone(), *HERMES, "exec", "-f", "s.hermes", "--threads", str(threads)]
        with subprocess.Popen(
            command,
            cwd=desk.path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        ) as process:
            try:
                until(
                    lambda: (
                        process.poll() is not None or len(ledger(tmp_path, "started")) == threads
                    )
                )
                assert process.poll() is None, said_path.read_text()
                until(lambda: all_recorded(desk))
                # A thread for the first watches is taken before, or never asked for
                until(lambda: is_watching(process.pid))
                limit_processes(process.pid, "1")
                for number in range(threads):
                    (tmp_path / f"hold{number}").unlink()
                # The next ones are made, and cannot be started
                until(
                    lambda: (
                        process.poll() is not None
                        or len(list(desk.experiments_folder.glob("*/*/*/hermes.json")))
                        == 2 * threads
                    )
                )
                assert process.poll() is None, said_path.read_text()
                until(
                    lambda: (
                        not processes_of("HERMES_IDENTIFIER").keys()
                        & {own for _, own in ledger(tmp_path, "started")}
                    )
                )
                assert len(ledger(tmp_path, "started")) == threads
                limit_processes(process.pid, "")
                assert process.wait(LIMIT) == 0, said_path.read_text()
            finally:
                process.kill()
        said.seek(0)
        told = said.read()
    assert "warning:" not in told
    check_always(desk, told)
    assert sorted(int(number) for number, _ in ledger(tmp_path, "wrote")) == list(range(count))
    for each in desk.experiments():
        assert each.status is Status.FINISHED
        assert [file.path.partition("_")[0] for file in each.files] == [
            "made",
            f"new{each.argv[-2]}/late",
        ]
