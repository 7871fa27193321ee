"""The checks are checked: with the atomic replace, the group kill or the final scan taken out, the
tests of those faults fail.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

API, PROCESSES = "tests/test_api.py::test", "tests/executors/test_processes.py::test"
LOCAL, FILES = "tests/executors/test_local.py::test", "tests/faults/test_odd_files.py::test"

TESTS = {
    "replace": [f"{API}_metadata_parses_at_every_moment"],
    "group": [
        f"{PROCESSES}_cancel_by_the_host_ends_all_groups",
        f"{PROCESSES}_kill_by_the_run_ends_all_groups_at_once",
        f"{LOCAL}_a_daemon_that_holds_the_output_does_not_hold_the_job",
    ],
    "scan": [
        f"{FILES}_odd_kinds_are_not_followed_and_not_opened",
        f"{FILES}_a_folder_that_moves_in_is_collected_whole_and_once",
    ],
}
"""The tests, each by its function, that must notice what is missing."""

CHOSEN = {"replace": "asyncio", "group": "asyncio", "scan": "asyncio and final-scan"}
"""Which of their parameters."""

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("missing", TESTS)
@pytest.mark.once
def test_the_tests_of_a_fault_notice_what_is_missing(missing: str) -> None:
    options = [
        "-n",
        "0",
        "-p",
        "tests.faults.sabotage",
        "-rA",
        "--tb=no",
        "--timeout=20",
        "-k",
        CHOSEN[missing],
    ]
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
