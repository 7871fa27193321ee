"""Notifications that overflow, and watches that run out."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ..support import (
    LIMIT,
    PYTHON,
    Desk,
    RecordProperty,
    check_always,
    namespace,
    times,
    until,
)
from ..support.disks import MANY
from ..support.waiting import process_state

pytestmark = [pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks into /proc")]


FLOOD = """\
import os, sys, time
identifier, folder, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
def wait(name):
    open(f"{folder}/at_{name}", "w").close()
    while not os.path.exists(f"{folder}/{name}"):
        time.sleep(0.005)
wait("go")
for number in range(count):
    parent = f"{number % 7}/" if number % 3 else ""
    with open(f"{parent}f{number}_{identifier}", "w") as file:
        file.write(str(number))
wait("end")
"""


@pytest.mark.fault(15)
@MANY
@pytest.mark.once
def test_notifications_that_overflow_cost_no_file(
    tmp_path: Path, desk: Desk, record_property: RecordProperty
) -> None:
    # Each file is opened, written and closed, and the system keeps 16,384 notifications by default
    count = times(6_000, 50_000)
    for number in range(7):
        (desk.path / f"{number}").mkdir()
    desk.write("flood.py", FLOOD)
    desk.write("s.hermes", f"EXEC\n[[{PYTHON}, flood.py {tmp_path} {count}]]\n")
    with desk.started("exec", "-f", "s.hermes") as process:
        until((tmp_path / "at_go").exists)
        process.send_signal(signal.SIGSTOP)
        until(lambda: process_state(process.pid) == "T")
        (tmp_path / "go").touch()
        patiently((tmp_path / "at_end").exists)
        process.send_signal(signal.SIGCONT)
        (experiment,) = desk.experiments()
        # While the job runs, not only at its end
        patiently(lambda: sum(len(names) for _, _, names in os.walk(experiment.directory)) >= count)
        (tmp_path / "end").touch()
        out, err = process.communicate(timeout=10 * LIMIT)
    record_property("tried", count)
    assert process.returncode == 0, err
    assert err.count("warning:") <= 1
    check_always(desk, out, err)
    found = desk.tree(experiment.directory, own=True)
    expected = {
        f"{number % 7}/f{number}_@" if number % 3 else f"f{number}_@": str(number)
        for number in range(count)
    }
    expected |= {f"{number}": "/" for number in range(7)}
    assert found == {
        name.replace("@", experiment.identifier): content for name, content in expected.items()
    }
    assert desk.leftovers(experiment.identifier) == []
    assert len(desk.experiment().files) == count


def patiently(condition: Callable[[], object]) -> None:
    """Waits for something that takes longer with the long figures."""
    for _ in range(10):
        try:
            until(condition)
        except AssertionError:
            continue
        return
    raise AssertionError("waited in vain for very long")


@pytest.mark.fault(15)
@pytest.mark.parametrize("limit", ["max_inotify_watches", "max_inotify_instances"])
def test_exhausted_watch_limits_cost_time_and_no_file(tmp_path: Path, limit: str) -> None:
    count, folders = 200, 20
    allowed = 5 if limit == "max_inotify_watches" else 0
    path = tmp_path.resolve() / "desk"
    path.mkdir()
    # The limits of this namespace alone
    with namespace(path, f"echo {allowed} > /proc/sys/user/{limit}") as desk:
        for number in range(folders):
            (desk.path / f"{number}").mkdir()
        desk.write("flood.py", FLOOD.replace("% 7", f"% {folders}"))
        desk.write("s.hermes", f"EXEC\n[[{PYTHON}, flood.py {tmp_path} {count}]]\n")
        (tmp_path / "go").touch()
        with desk.started("exec", "-f", "s.hermes") as process:
            (experiment,) = until(desk.experiments)
            until(lambda: sum(len(names) for _, _, names in os.walk(experiment.directory)) >= count)
            (tmp_path / "end").touch()
            out, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, err
        assert err.count("warning:") == 1
        assert "collected later" in err
        check_always(desk, out, err)
        assert len(desk.experiment().files) == count
        assert desk.leftovers(experiment.identifier) == []
