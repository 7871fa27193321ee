"""How a run in progress is told to end: by a file, which works on every machine and for every
program."""

from __future__ import annotations

import os
from typing import Protocol

import anyio

from ..blocking import in_thread
from ..storage.layout import stop_file
from ..storage.run_folder import RunFolder
from ..timing import Timing


class Controlled(Protocol):
    """What of a run is controlled from outside."""

    def cancel(self) -> None: ...

    def warn(self, message: str) -> None: ...


async def cancel_when_asked(run: Controlled, folder: RunFolder, timing: Timing) -> None:
    """Cancels a run when `hermes stop` asks for that."""
    limiter = anyio.CapacityLimiter(1)
    while True:
        await anyio.sleep(timing.stop_poll)
        if await in_thread(os.path.exists, stop_file(folder.folder), limiter=limiter):
            run.warn("stopped by `hermes stop`")
            run.cancel()
            return
