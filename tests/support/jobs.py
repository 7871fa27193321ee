"""Jobs that tell what they get, and how they ended."""

from __future__ import annotations

import json
from typing import Any

import pytest

import hermes
from hermes import Status

SUPERVISED = pytest.mark.parametrize("supervise", [True, False], ids=["supervised", "alone"])


def in_words(outcome: hermes.Outcome) -> tuple[Status, int | None, int | None]:
    return outcome.status, outcome.exit_code, outcome.signal


TELL = """\
import json, os, sys
with open(os.environ["HERMES_EXPERIMENT_DIR"] + "/told.json", "w") as file:
    json.dump({
        "environment": {
            name.decode("utf-8", "surrogateescape"): value.decode("utf-8", "surrogateescape")
            for name, value in os.environb.items()
        },
        "argv": sys.argv, "stdin": sys.stdin.read(), "cwd": os.getcwd(),
        "group": os.getpgrp(), "session": os.getsid(0),
    }, file)
"""


def told(experiment: hermes.Experiment) -> Any:
    return json.loads((experiment.directory / "told.json").read_text())
