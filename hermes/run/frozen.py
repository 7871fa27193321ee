"""A run whose jobs run in frozen code: what is told of it, and what the jobs leave in it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager

import anyio

from ..blocking import has_loop, in_thread
from ..errors import HermesError, escape
from ..storage.code import script_of
from ..storage.environments import PythonOfJob
from ..storage.frozen import Frozen
from ..storage.run_folder import RunFolder
from ..timing import Timing

SHOWN = 5
"""Files and folders that are named in a message."""


def require_frozen(folder: RunFolder) -> None:
    """Raises `HermesError` if the jobs of a run cannot run in the code with which it began."""
    if folder.plan.settings.freeze and folder.frozen is None:
        where = escape(f"{folder.folder}")
        raise HermesError(
            f"the frozen code of the run `{escape(folder.run_id)}` is not in `{where}` any more",
            hint="`hermes exec --resume` with the same file and name runs what is left with the "
            "code as it is now; `hermes stop --forget` puts the run away",
        )


@asynccontextmanager
async def in_frozen_code(
    folder: RunFolder, warn: Callable[[str], object], timing: Timing, *, is_ending: bool
) -> AsyncIterator[None]:
    """Around all jobs of a run. When they have ended, what they wrote into the copy of the code,
    and was not collected, comes to the working directory. If the run `is_ending`, nothing is
    started, and nobody needs to know what is not frozen."""
    frozen = folder.frozen
    if frozen is None:
        yield
        return
    if frozen.record.named and not is_ending:
        warn(_linked(frozen))
    # Here, because most runs freeze nothing
    from ..storage.bringing_back import bring_back

    imports = Imports(folder, frozen, warn)
    failure: Exception | None = None
    try:
        async with anyio.create_task_group() as services:
            if not is_ending:
                services.start_soon(imports.watch, timing.ask_poll)
            try:
                yield
            except Exception as exc:
                # Raised outside of the group, which would wrap it
                failure = exc
            services.cancel_scope.cancel()
    finally:
        if has_loop():
            with anyio.CancelScope(shield=True):
                await imports.check()
                brought = await in_thread(bring_back, frozen)
                folder.is_kept = not brought.is_all
                for message in brought.told:
                    warn(message)
    if failure is not None:
        raise failure


def _linked(frozen: Frozen) -> str:
    named = frozen.record.named
    names = ", ".join(f"`{escape(each)}`" for each in named[:SHOWN])
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    return f"`freeze` has linked and not copied {names}{more}: changes there do reach the jobs"


class Imports:
    """Warns once if the Python of the first job imports code that was copied from where it is
    developed, as with `pip install -e`."""

    def __init__(self, folder: RunFolder, frozen: Frozen, warn: Callable[[str], object]) -> None:
        self._folder = folder
        self._frozen = frozen
        self._warn = warn
        self._asked: Future[PythonOfJob] | None = None
        self._script: str | None = None
        self._is_checked = False

    async def watch(self, pause: float) -> None:
        """Warns as soon as the Python has answered; it is asked every `pause` seconds."""
        await in_thread(self._ask)
        while not self._is_checked:
            await anyio.sleep(pause)
            await self.check()

    async def check(self) -> None:
        """Warns if the Python has answered."""
        if self._asked is None or self._is_checked or not self._asked.done():
            return
        self._is_checked = True
        message = await in_thread(self._message, self._asked.result().imports)
        if message is not None:
            self._warn(message)

    def _ask(self) -> None:
        plan = self._folder.plan
        job = next(iter(plan.jobs))
        self._script = script_of(plan, job)
        self._asked = self._folder.environments.at_start(job)

    def _message(self, imports: tuple[str, ...]) -> str | None:
        found = _imported_from_outside(self._frozen, imports, self._script)
        if found is None:
            return None
        place = os.path.relpath(found, self._folder.plan.working_directory)
        return (
            f"Python imports from `{escape(found)}`, and not from the copy that `freeze` has made: "
            f"changes there do reach the jobs; `env: PYTHONPATH={escape(place)}` imports the copy"
        )


def _imported_from_outside(
    frozen: Frozen, imports: tuple[str, ...], script: str | None
) -> str | None:
    """A folder with code that was copied, of which a Python imports the original. Blocks.

    What lies beside the script, or is on the path, is imported from the copy in any case.
    """
    known = {os.path.dirname(script) if script is not None else None}
    real = set(map(os.path.realpath, imports))
    for each in imports:
        if not os.path.isabs(each) or frozen.copy_of(each) is None:
            continue
        # A finder names packages, and what is imported from is the folder above
        path = os.path.dirname(each) if os.path.exists(f"{each}/__init__.py") else each
        if path not in known and os.path.realpath(frozen.copy_of(path) or "") not in real:
            return path
    return None
