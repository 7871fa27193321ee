"""Looking on at a run that another process executes: the displays of `hermes exec`, which leave the
run alone."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

import anyio
import anyio.to_thread

import hermes
from hermes.show.status import finished

from .display import Display
from .run import PATIENCE, display_for, find, leave

LEAVING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def attach(wanted: str | None, root: Path | None, *, quiet: bool, as_json: bool) -> NoReturn:
    """Shows the run that is meant until it ends, or somebody leaves; exits with its exit code, or
    by the signal."""

    async def execute() -> tuple[int | None, int]:
        visit = _Visit(quiet=quiet, as_json=as_json)
        code = await visit.look_on(wanted, root)
        return visit.left_by, code

    leave(*anyio.run(execute))


class _Visit:
    """One look at a run. Signals end it, and not the run."""

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self.left_by: int | None = None
        self._quiet = quiet
        self._as_json = as_json
        self._display: Display | None = None
        self._looking = anyio.CancelScope()

    async def look_on(self, wanted: str | None, root: Path | None) -> int:
        """The exit code."""
        failure: hermes.HermesError | None = None
        code = 1
        async with anyio.create_task_group() as outer:
            await outer.start(self._receive)
            with self._looking:
                try:
                    found = await find(wanted, "watch", root, "attached to", quiet=self._quiet)
                    code = await self._show(found)
                except hermes.HermesError as exc:
                    over = await self._over(wanted, root)
                    if over is None:
                        failure = exc
                    else:
                        code = 0 if over.ok else 1
            outer.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if self._display is not None:
            if self.left_by is not None and not self._quiet:
                short = found.run_id.rpartition("-")[2]
                self._display.note(
                    f"left: `{found.name}` goes on; `hermes attach {short}` shows it again"
                )
            self._display.drain(None if self.left_by is None else PATIENCE)
        return code

    async def _show(self, found: hermes.FoundRun) -> int:
        async with hermes.open_attached(found, follow_logs=True) as run:
            self._display = display = display_for(run.plan, self._quiet, self._as_json)
            await display.show(run)
        if run.ended is not None:
            display.summary_of(run.ended)
            return 0 if run.ended.ok else 1
        short = run.run_id.rpartition("-")[2]
        display.note(
            f"the runner of `{run.name}` was killed; jobs that it has started may go on: "
            f"`hermes resume {short}` takes them up, and goes on with the run"
        )
        return 1

    async def _over(self, wanted: str | None, root: Path | None) -> hermes.FinishedRun | None:
        """Tells of a run that has come to its end before anybody looked on."""
        if wanted is None:
            return None
        over = await anyio.to_thread.run_sync(hermes.finished_run, wanted, root)
        if over is not None and not self._quiet:
            print(finished(over), file=sys.stderr)
        return over

    async def _receive(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        heeded = [each for each in LEAVING if signal.getsignal(each) is not signal.SIG_IGN]
        heeded += [signal.SIGTSTP, signal.SIGCONT]
        try:
            with anyio.open_signal_receiver(*heeded) as received:
                task_status.started()
                async for number in received:
                    if number == signal.SIGTSTP:
                        self._suspend()
                    elif number == signal.SIGCONT:
                        self._go_on()
                    else:
                        self.left_by = number
                        self._looking.cancel()
        finally:
            for number in heeded:
                # The loop would give SIGINT back to Python, which says so by a traceback
                signal.signal(number, signal.SIG_DFL)

    def _suspend(self) -> None:
        if self._display is not None:
            self._display.leave()
            self._display.drain(PATIENCE)
        # As it would be done without us: where no shell could continue this, nothing happens
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._go_on()

    def _go_on(self) -> None:
        """After a suspension; in the background nothing is drawn."""
        if self._display is not None and _is_in_foreground():
            self._display.enter()


def _is_in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except OSError:
        return False
