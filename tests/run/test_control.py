"""A run is asked to end by a file."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from hermes.run.control import cancel_when_asked
from hermes.storage.layout import stop_file
from hermes.timing import Timing

from ..support import LIMIT, Project
from ..support.labs import Lab

pytestmark = pytest.mark.anyio

SOON = Timing(stop_poll=0.01)


class Controlled:
    """A run that notes what is done to it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def cancel(self) -> None:
        self.done.append("cancelled")

    def warn(self, message: str) -> None:
        self.done.append(message)


async def test_stop_file_cancels_the_run_once_and_says_why(project: Project) -> None:
    lab, run = Lab(project, 1), Controlled()
    try:
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel_when_asked, run, lab.folder, SOON)
                await anyio.sleep(5 * SOON.stop_poll)
                assert run.done == []
                Path(stop_file(lab.folder.folder)).touch()
        assert run.done == ["stopped by `hermes stop`", "cancelled"]
    finally:
        lab.close()


async def test_stop_file_of_another_run_means_nothing(project: Project) -> None:
    lab, run = Lab(project, 1), Controlled()
    other = Lab(project, 1, name="other")
    try:
        Path(stop_file(other.folder.folder)).touch()
        with anyio.move_on_after(10 * SOON.stop_poll):
            await cancel_when_asked(run, lab.folder, SOON)
        assert run.done == []
    finally:
        lab.close()
        other.close()
