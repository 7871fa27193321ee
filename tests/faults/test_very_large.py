"""Sweeps, words and commands that are far larger than anybody writes them."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ..support import LIMIT, PYTHON, Desk, check_always, times, until

pytestmark = pytest.mark.fault(33)

MOST_TOLD = 20_000
"""Characters of a message, whatever it is about."""

A_BILLION = "a=RANGE[0, 1000], b=RANGE[0, 1000], c=RANGE[0, 1000]"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks into /proc")
@pytest.mark.parametrize(
    ("sweep", "options"),
    [
        (f"PROD([[sh, job.sh, {{a}} {{b}} {{c}}]], {A_BILLION})", ["--resume"]),
        ("ZIP([[sh, job.sh, {a}]], a=RANGE[0, 1000000000])", ["--resume"]),
        ("PROD([[sh, job.sh, {a}],[-c {a}]], a=RANGE[0, 1000000000])", []),
        ("PROD([[sh, job.sh, {a}]], a=RANGE[0, 1000000000])", ["--threads", "100000000"]),
    ],
)
def test_a_billion_jobs_begin_at_once_in_flat_memory_and_heed_ctrl_c(
    desk: Desk, sweep: str, options: list[str]
) -> None:
    desk.write("job.sh", "")
    desk.hermes_file(sweep, settings={"threads": 2})
    for extra in ([], options):
        before = len(desk.experiments())
        with desk.started("exec", "-f", "x.hermes", "--quiet", *extra) as runner:
            until(partial(have_begun, desk, before + 3))
            status = Path(f"/proc/{runner.pid}/status").read_text()
            runner.send_signal(signal.SIGINT)
            _, told = runner.communicate(timeout=LIMIT)
        # As a shell does, which calls it 130
        assert runner.returncode == -signal.SIGINT
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
        assert found
        assert int(found[1]) < 150_000
        assert len(told) < MOST_TOLD
        check_always(desk, told)


def have_begun(desk: Desk, count: int) -> bool:
    return len(desk.experiments()) > count


LARGE = "x" * times(1_000_000, 10_000_000)

FILES: dict[str, Callable[[], str]] = {
    "an option": lambda: f"EXEC\n[[true],[-{LARGE}]]\n",
    "a setting": lambda: f"PRE\nthreads: {LARGE}\nEXEC\n[[true]]\n",
    "the name of a setting": lambda: f"PRE\n{LARGE}: 1\nEXEC\n[[true]]\n",
    "a script": lambda: f"EXEC\n[[{PYTHON}, {LARGE}.py]]\n",
    "a program": lambda: f"EXEC\n[[{LARGE}]]\n",
    "a key": lambda: f"EXEC\nPROD([[true, {{{LARGE}}}]], a=[1])\n",
    "a value": lambda: f"EXEC\nPROD([[true, {{a}}]], a=RANGE[0, {LARGE}])\n",
    "a path": lambda: f"EXEC\n[[true],[-cb {LARGE}]]\n",
    "an argument": lambda: f"EXEC\n[[true, {LARGE}]]\n",
    "many arguments": lambda: f"EXEC\n[[true, {'x ' * times(50_000, 500_000)}{LARGE}]]\n",
    "a line without end": lambda: LARGE,
}


@pytest.mark.parametrize("kind", FILES)
def test_messages_about_large_words_are_cut(desk: Desk, kind: str) -> None:
    desk.write("x.hermes", FILES[kind]())
    with desk.started("exec", "-f", "x.hermes") as runner:
        said = runner.communicate(timeout=LIMIT)
    assert runner.returncode in (1, 2), said[1][:1000]
    assert 0 < len("".join(said)) < MOST_TOLD
    check_always(desk, *said)
