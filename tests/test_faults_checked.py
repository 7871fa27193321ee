"""The checks are checked: with the atomic replace, the group kill or the final look taken out, the tests of those faults fail."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

RUNNING, COLLECTING = "tests/test_running.py::test", "tests/test_collecting.py::test"

TESTS = {
    "replace": [f"{RUNNING}_metadata_parses_at_every_moment"],
    "group": [
        f"{RUNNING}_cancelled_by_the_host",
        f"{RUNNING}_killed_by_the_run",
        f"{RUNNING}_a_daemon_that_holds_the_output_does_not_hold_the_job",
    ],
    "look": [
        f"{COLLECTING}_a_watcher_that_fails",
        f"{COLLECTING}_a_watcher_that_breaks_down_harms_nothing",
    ],
}
"""The tests, each by its function, that must notice what is missing."""

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("missing", TESTS)
def test_the_tests_of_a_fault_notice_what_is_missing(missing: str) -> None:
    options = ["-n", "0", "-p", "tests.sabotage", "-rA", "--tb=no", "--timeout=20", "-k", "asyncio"]
    told = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *TESTS[missing]],
        cwd=ROOT,
        env={**os.environ, "SABOTAGE": missing, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    outcomes = dict.fromkeys(TESTS[missing], "did not run")
    for outcome, test in re.findall(r"^(PASSED|FAILED|ERROR) (\S+?)\[", told, re.MULTILINE):
        outcomes[test] = outcome
    assert set(outcomes.values()) == {"FAILED"}, told
