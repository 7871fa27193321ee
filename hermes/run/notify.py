"""Word of a run to those who are elsewhere, as the setting `notify` says: when it is done, and when
it stops early.

Nothing that goes wrong here harms the run: it is a warning.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import anyio
import anyio.lowlevel
import msgspec

from ..blocking import in_thread
from ..errors import HermesError, escape, shortened
from ..language.checks import find_program, why_not_runnable
from ..language.kinds import DURATION
from ..language.notify import Notify, expanded, shown_address, without
from ..language.plan import Plan
from ..model import Outcome, RunResult, shell_line, signal_name
from ..storage.asking import Answer, Patience, tell
from ..timing import Timing
from .apprise_sender import MISSING, UNKNOWN
from .news import News

GIVING_UP = "all jobs have ended; the message of `notify` is given up"

POLL = 0.05
"""Seconds between two checks whether some job goes on after an early stop: nothing tells that."""

MESSAGE_FORMAT = 1
"""Of what a command reads. New members change no number."""

MOST_TOLD = 20
"""Failures, and warnings, that a message tells one by one."""

MOST_SAID = 200
"""Characters of what a program has said that a warning shows."""

MOST_AT_ONCE = 8
"""Addresses that get a message at the same time."""

INSTALL = "pip install 'hermes-runner[notify]'"
SENDER = Path(__file__).with_name("apprise_sender.py")


class FailedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that did not succeed, or has problems. `how` is its end in words; `directory` is None
    if there is none; `duration` is in seconds."""

    identifier: str
    script: str
    how: str
    command: str
    duration: float
    directory: str | None
    problems: list[str]


class RunMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What a command of `notify` gets as JSON on its standard input.

    `event` is `done` when all jobs have come to an end, `stopped` when the run has ended before
    that, and `stopping` when nothing more is started and `running` jobs go on; then another message
    follows. `why` says why it stopped early. `title` and `text` are what an address of Apprise
    gets.

    `total` are the jobs of the run, `counts` what has become of them: how many by a few words, such
    as `finished`, `failed`, `timeout`, `finished before` and `never started`. `ok` says that all
    have succeeded. Of `failures` and `warnings` there are at most 20, `count_failures` counts all.
    `started` is when this call began with the run, and `duration` the seconds since.
    """

    format: int = MESSAGE_FORMAT
    event: Literal["done", "stopped", "stopping"]
    title: str
    text: str
    ok: bool
    why: str | None
    run_id: str
    name: str
    total: int
    running: int
    counts: dict[str, int]
    count_failures: int
    failures: list[FailedJob]
    warnings: list[str]
    started: datetime
    duration: float
    host: str
    working_directory: str
    experiments: str


class Told(Protocol):
    """The run of which word is sent."""

    cancelled: bool
    at_work: int

    @property
    def plan(self) -> Plan: ...

    @property
    def result(self) -> RunResult: ...


class Notifier:
    """Sends word of one run."""

    def __init__(self, run: Told, news: News, timing: Timing, *, is_ending: bool) -> None:
        self._run = run
        self._news = news
        self._is_ending = is_ending
        """Whether the run is only ended here: who does that knows."""

        self._limit = timing.notify
        self._is_over = threading.Event()
        """Set when nobody waits for a message any more."""

        self._began = datetime.now().astimezone(), time.monotonic()
        self._why: str | None = None
        self._ended_by: str | None = None
        self.has_ended = False
        """Whether all jobs have ended, and only a message is being sent."""

        self._stopping = anyio.Event()
        self._early: anyio.Event | None = None
        """Set when the message of an early stop is sent, None if there is none to be sent."""

    def stops(self, why: str) -> None:
        """Nothing more is started. What runs goes on."""
        self._why = why
        self._stopping.set()

    def take_cancel(self, why: str | None) -> bool:
        """The run is to end now, for people `why`; None if they know. True if its jobs have ended,
        and only a message is being sent: that is given up then."""
        if self.has_ended:
            self.give_up()
        else:
            self._ended_by = self._ended_by or why
        return self.has_ended

    def give_up(self) -> None:
        """Sends nothing more, and ends what is being sent."""
        self._is_over.set()

    @property
    def _is_wanted(self) -> bool:
        return self._run.plan.settings.notify is not None and not self._is_ending

    async def follow(self) -> None:
        """Sends word as soon as the run stops early, while some of its jobs go on."""
        if not self._is_wanted:
            return
        await self._stopping.wait()
        # The job whose end has stopped the run may be the last one, or others may be starting
        while self._run.at_work and not self._news.count_running:  # noqa: ASYNC110 (as above)
            await anyio.sleep(POLL)
        if self._news.count_running and not self.has_ended:
            self._early = anyio.Event()
            await self._send("stopping")
            self._early.set()

    async def end(self) -> None:
        """Sends word of the end of the run, after that of an early stop."""
        if not self._is_wanted or (self._run.cancelled and self._ended_by is None):
            return
        self.has_ended = True
        self._why = self._ended_by or self._why
        if self._early is not None:
            await self._early.wait()
        await self._send("done" if self._why is None else "stopped")

    async def _send(self, event: Literal["done", "stopped", "stopping"]) -> None:
        plan = self._run.plan
        notify = plan.settings.notify
        if notify is None or self._is_over.is_set():
            return
        started, began = self._began
        message = message_of(
            self._run.result,
            plan,
            event=event,
            why=self._why,
            running=self._news.count_running if event == "stopping" else 0,
            started=started,
            duration=time.monotonic() - began,
        )
        patience = Patience(self._limit, self._is_over)
        problems = await in_thread(
            send, notify, message, patience,
            limiter=anyio.CapacityLimiter(1), abandon=self._is_over.set,
        )  # fmt: skip
        for problem in problems if not self._is_over.is_set() else ():
            self._news.warn(problem)


def message_of(
    result: RunResult,
    plan: Plan,
    *,
    event: Literal["done", "stopped", "stopping"],
    why: str | None,
    running: int,
    started: datetime,
    duration: float,
) -> RunMessage:
    """What is told of a run."""
    failures, counts, total = result.failures, result.tally(plan.count), plan.count
    host = os.uname().nodename
    if running:
        counts["running"] = running
        counts["never started"] = counts.get("never started", 0) - running
        counts = {kind: count for kind, count in counts.items() if count > 0}
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    took = DURATION.write(round(duration) or round(duration, 1))
    jobs = f"{total} job" if total == 1 else f"{total} jobs"
    lines = [f"{jobs} on {host} in {took}: {told}", *([why] if why else [])]
    lines += [f"{each.how}: {shortened(shell_line(each.argv), 200)}" for each in failures[:5]]
    if len(failures) > 5:
        lines.append(f"and {len(failures) - 5} more")
    lines.append(f"results in {plan.experiments}")
    words = {"done": "done", "stopped": "stopped early", "stopping": "stops early"}
    good = "" if event != "done" or result.ok else f", {len(failures) or 'some'} failed"
    return RunMessage(
        event=event,
        title=escape(f"{result.name}: {words[event]}{good}"),
        text="\n".join(map(escape, lines)),
        ok=result.ok and event == "done",
        why=why,
        run_id=result.run_id,
        name=result.name,
        total=total,
        running=running,
        counts=counts,
        count_failures=len(failures),
        failures=[_failed(each) for each in failures[:MOST_TOLD]],
        warnings=list(result.warnings[:MOST_TOLD]),
        started=started,
        duration=round(duration, 3),
        host=host,
        working_directory=str(plan.working_directory),
        experiments=str(plan.experiments),
    )


def _failed(outcome: Outcome) -> FailedJob:
    return FailedJob(
        identifier=outcome.identifier,
        script=outcome.script,
        how=outcome.how,
        command=shell_line(outcome.argv),
        duration=round(outcome.duration, 3),
        directory=outcome.directory,
        problems=[problem.text for problem in outcome.problems],
    )


def check(plan: Plan, timing: Timing) -> None:
    """Raises `HermesError` if it is known already that no word can be sent. Blocks."""
    notify = plan.settings.notify
    if notify is None:
        return
    if notify.command:
        program = notify.command[0]
        wrong = why_not_runnable(program, plan.working_directory, None)
        if wrong:
            raise HermesError(f"`notify`: the program `{escape(program)}` {wrong}")
        return
    patience = Patience(timing.notify, threading.Event())
    for address, problem in _by_apprise(notify, None, patience):
        if problem in (MISSING, UNKNOWN) or isinstance(problem, HermesError):
            raise _error(address, problem)


def why_not(plan: Plan, timing: Timing) -> list[str]:
    """The same as a warning, if there is one: a run that goes on does not fail for it. Blocks."""
    try:
        check(plan, timing)
    except HermesError as exc:
        return [_in_a_line(exc)]
    return []


def send(notify: Notify, message: RunMessage, patience: Patience) -> list[str]:
    """Sends a message, and returns what went wrong, for people. Blocks."""
    if notify.command:
        problem = _tell_command(notify, message, patience)
        return [] if problem is None else [f"`notify` has sent nothing: {problem}"]
    found = _by_apprise(notify, message, patience)
    return [_in_a_line(_error(address, problem)) for address, problem in found if problem]


def _error(address: str, problem: str | HermesError) -> HermesError:
    if isinstance(problem, HermesError):
        return problem
    if problem == MISSING:
        return HermesError(
            "`notify` needs Apprise, which is not installed",
            hint=f"`{INSTALL}`, or `command: ...`",
        )
    did = "cannot use" if problem == UNKNOWN else "has sent nothing to"
    return HermesError(f"`notify` {did} `{shown_address(address)}`: {problem}")


def _in_a_line(error: HermesError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message


def _by_apprise(
    notify: Notify, message: RunMessage | None, patience: Patience
) -> list[tuple[str, str | HermesError | None]]:
    """The addresses, as they were written, each with what went wrong. Without a message it is only
    looked whether they can be used."""
    # At the same time: one that hangs holds up no other
    with ThreadPoolExecutor(MOST_AT_ONCE) as threads:
        work = partial(_ask_apprise, message=message, patience=patience)
        return list(zip(notify.addresses, threads.map(work, notify.addresses), strict=True))


def _ask_apprise(
    address: str, message: RunMessage | None, patience: Patience
) -> str | HermesError | None:
    try:
        whole = expanded(address, os.environ)
    except KeyError as exc:
        return HermesError(
            f"`notify` names the environment variable `{exc.args[0]}`, which is not set",
            hint=f"`export {exc.args[0]}=...`",
        )
    request = {
        "address": whole,
        "title": "" if message is None else message.title,
        "text": None if message is None else message.text,
    }
    # By its standard input: others may read the words of a command
    answer = tell(
        [sys.executable, "-P", str(SENDER)], json.dumps(request).encode(), patience,
        name="Apprise", folder="/", environment=os.environb,
    )  # fmt: skip
    last = _last_line(answer)
    try:
        problem = json.loads(last) if answer.failed is None else answer.failed
    except ValueError:
        problem = f"Apprise failed: {last}"
    if problem in (None, MISSING, UNKNOWN):
        return problem
    # The scheme of an address is no secret
    return _said(str(problem), [whole.partition("://")[2] or whole])


def _tell_command(notify: Notify, message: RunMessage, patience: Patience) -> str | None:
    program, *rest = notify.command
    found = find_program(program, Path(message.working_directory)) or program
    answer = tell(
        [found, *rest], msgspec.json.encode(message), patience,
        name=f"`{escape(program)}`", folder=message.working_directory, environment=os.environb,
    )  # fmt: skip
    if answer.failed is not None or answer.code == 0:
        return answer.failed
    how = f"exit code {answer.code}" if answer.code > 0 else f"signal {signal_name(-answer.code)}"
    return f"`{escape(program)}`: {how}: {_said(_last_line(answer), rest)}".rstrip(": ")


def _last_line(answer: Answer) -> str:
    lines = answer.output.decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _said(text: str, secrets: Iterable[str]) -> str:
    """What a program has said, without the secrets that it was given."""
    return escape(shortened(without(text, secrets), MOST_SAID))
