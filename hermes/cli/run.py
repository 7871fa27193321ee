"""Executing a run from the command line: signals in, one of the displays out, an exit code at the
end."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NoReturn

import anyio

import hermes

from .display import Display, JsonDisplay, PlainDisplay

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

AT_ONCE = 0.2
"""Signals that come within so many seconds of the one before are the same request: GNU `timeout`
and some schedulers signal a process and then its group."""

_DOING = {"resume": "resuming", "stop": "stopping", "forget": "putting away"}

PATIENCE = 2.0
"""Seconds for which a run that was ended by a signal waits for who reads its last lines."""


def run(
    opening: Callable[[], AbstractAsyncContextManager[hermes.Run]],
    *,
    quiet: bool = False,
    as_json: bool = False,
    after: Callable[[hermes.RunResult], None] | None = None,
    is_stop: bool = False,
    detach: bool = False,
) -> NoReturn:
    """Executes the run that `opening` opens, and exits: 0 if all went well, 1 if not, by the signal
    if one ended the run.

    With `is_stop` all goes well if the run ends. With `detach` the run goes on in another process.
    """
    if detach:
        from .detaching import detached

        opening, as_json = detached(opening, quiet=quiet, as_json=as_json), False
    _use_pidfds()
    result, ended_by = anyio.run(
        _execute, opening, lambda plan: display_for(plan, quiet or is_stop, as_json)
    )
    if result is not None and after is not None:
        after(result)
    leave(ended_by, 0 if result is not None and (result.ok or is_stop) else 1)


@asynccontextmanager
async def named(
    wanted: str | None,
    purpose: str,
    root: Path | None,
    opening: Callable[[hermes.FoundRun], AbstractAsyncContextManager[hermes.Run]],
    *,
    quiet: bool,
) -> AsyncIterator[hermes.Run]:
    """Opens the run that is meant, after it has said which one that is, and what else there is."""
    found = await find(wanted, purpose, root, _DOING[purpose], quiet=quiet)
    async with opening(found) as run:
        yield run


async def find(
    wanted: str | None, purpose: str, root: Path | None, doing: str, *, quiet: bool
) -> hermes.FoundRun:
    """The run that is meant; says which one that is, what is done to it, and what else there is."""
    found = await hermes.find_run(wanted, purpose=purpose, root=root)
    lines = [f"warning: {warning}" for warning in found.warnings]
    if not quiet:
        lines.append(f"{doing} {found}")
        lines += [f"    also there: {other}" for other in found.others_shown]
    # Messages go to stderr, also beside JSON
    for line in lines:
        print(line, file=sys.stderr, flush=True)
    return found


def _use_pidfds() -> None:
    """On Python 3.11 asyncio would wait for each child in a thread of its own, which takes a fifth
    of the time of a short job. The choice is for the whole process, so only the command may make
    it.
    """
    if sys.version_info < (3, 12) and hasattr(os, "pidfd_open"):
        import asyncio

        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())


def display_for(plan: hermes.Plan, quiet: bool, as_json: bool) -> Display:
    if as_json:
        return JsonDisplay()
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return PlainDisplay(plan, quiet=quiet)
    from .progress import ProgressDisplay

    return ProgressDisplay(plan)


async def _execute(
    opening: Callable[[], AbstractAsyncContextManager[hermes.Run]],
    display_of: Callable[[hermes.Plan], Display],
) -> tuple[hermes.RunResult | None, int | None]:
    """The result, None if there was none yet, and the signal that ended the run, if one did."""
    control = _Control()
    failure: hermes.HermesError | None = None
    async with anyio.create_task_group() as outer:
        # Outlives the clean-up of the jobs, and is entered before the first one starts
        await outer.start(control.receive)
        with anyio.CancelScope() as control.opening:
            try:
                async with opening() as run:
                    control.display = display_of(run.plan)
                    control.run = run
                    for warning in run.plan.warnings:
                        control.display.note(f"warning: {warning}")
                    if control.has_hung_up:
                        control.display.hang_up()
                    # From here a signal ends the jobs, not this task
                    if control.ended_by is not None:
                        run.cancel(_why(control.ended_by))
                    with anyio.CancelScope(shield=True):
                        await control.display.show(run)
            except hermes.HermesError as exc:
                failure = exc
        outer.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if control.run is None or control.display is None:
        return None, control.ended_by
    result = control.run.result
    control.display.summary(result)
    # A pager may take its time, but nobody who has told this to end should have to end the pager
    # first
    control.display.drain(None if control.ended_by is None else PATIENCE)
    return result, control.ended_by


class _Control:
    """What signals do: the first ends the run gently, the second at once, the third leaves
    everything as it is. SIGHUP ends nothing."""

    def __init__(self) -> None:
        self.display: Display | None = None
        self.run: hermes.Run | None = None
        self.opening = anyio.CancelScope()
        self.ended_by: int | None = None
        self.has_hung_up = False

    def _hang_up(self) -> None:
        """The terminal is gone: the run goes on without it."""
        self.has_hung_up = True
        if self.display is not None and self.run is not None:
            self.display.hang_up()
            self.run.warn("the terminal is gone; the run goes on without it")

    async def receive(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        # Whoever ignores one, such as `nohup`, wants the run to go on
        heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        try:
            with anyio.open_signal_receiver(*heeded) as received:
                task_status.started()
                count, last = 0, -math.inf
                async for number in received:
                    if number == signal.SIGHUP:
                        self._hang_up()
                        continue
                    if time.monotonic() < last + AT_ONCE:
                        continue
                    count, last = count + 1, time.monotonic()
                    self.ended_by = number
                    if count > 2:
                        if self.display is not None:
                            self.display.leave()
                            self.display.drain(0.2)
                        leave(number, 1)
                    elif self.run is None or self.display is None:
                        self.opening.cancel()
                    elif count == 1:
                        self.display.note(self.run.cancelling)
                        self.run.cancel(_why(number))
                    else:
                        self.display.note(self.run.killing)
                        self.run.kill()
        finally:
            for number in heeded:
                # The loop would give SIGINT back to Python, which says so by a traceback, even
                # while it ends
                signal.signal(number, signal.SIG_DFL)


def _why(number: int) -> str | None:
    """Why a run ends, for those to whom word is sent. Who presses Ctrl-C knows."""
    return None if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"


def leave(ended_by: int | None, code: int) -> NoReturn:
    """Exits; after a signal by the same signal, so that a shell loop around it ends too."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # The terminal is gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if ended_by is not None:
        signal.signal(ended_by, signal.SIG_DFL)
        os.kill(os.getpid(), ended_by)
        # The first process of a container does not get it
        code = 128 + ended_by
    sys.exit(code)
