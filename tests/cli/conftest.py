"""The commands, as a shell calls them: what they do, what they print where, and how they end."""

from __future__ import annotations

import pytest

from ..support import JOB, TRAIN, Desk


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.write("train.py", TRAIN)
    desk.write("sweep.hermes", f"EXEC\n{JOB}\n")
    return desk
