"""What the hermes files of tests are made of."""

from __future__ import annotations

import re
import sys

import hermes

PYTHON = f"{hermes.quote(sys.executable)} -S"
"""An interpreter that starts fast, as the first item of a job."""

IDENTIFIER = re.compile(r"\d{4}_\d\d_\d\d_\d{12}_[0-9a-f]{5}")

TRAIN = """\
import os, sys
identifier, *arguments = sys.argv[1:]
with open("model_" + identifier + ".txt", "w") as file:
    file.write(" ".join(arguments))
"""
"""A job that saves a file named by its identifier."""

JOB = f"[[{PYTHON}, train.py, --lr 0.1]]"

FAIL = """\
import sys
print("on stdout")
for number in range(1, 31):
    print("line", number, file=sys.stderr)
sys.exit(3)
"""
"""A job that prints and fails."""
