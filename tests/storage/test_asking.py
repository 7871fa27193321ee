"""Other programs that are asked something."""

from __future__ import annotations

import os
from pathlib import Path

from hermes.storage.asking import Answer, Patience, ask


def asked(script: str, folder: Path, stdin: bytes | None = None, limit: float = 60) -> Answer:
    return ask(
        ["sh", "-c", script],
        Patience(limit),
        name="it",
        folder=str(folder),
        environment=os.environb,
        stdin=stdin,
    )


def test_a_program_may_be_given_more_than_it_reads_at_once(tmp_path: Path) -> None:
    slow = "sleep 0.2; wc -c"
    assert asked(slow, tmp_path, bytes(1_000_000)).output.split() == [b"1000000"]
    assert asked(slow, tmp_path).output.split() == [b"0"]
    assert asked("exit 3", tmp_path, bytes(1_000_000)) == Answer(code=3)
    assert asked("sleep 60", tmp_path, limit=0.1).failed == "it took longer than 0.1 s"
