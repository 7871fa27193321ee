"""Blocking calls in worker threads, and services that outlast a cancellation."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
from blockbuster import BlockingError

import hermes
from hermes import blocking
from hermes.blocking import in_thread, shielded

pytestmark = pytest.mark.anyio


async def test_in_thread_returns_and_raises_what_the_function_does() -> None:
    def divide(one: int, other: int) -> tuple[float, int]:
        return one / other, threading.get_ident()

    result, thread = await in_thread(divide, 6, 4)
    assert result == 1.5
    assert thread != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await in_thread(divide, 1, 0)


async def test_in_thread_uses_the_limiter() -> None:
    limiter = anyio.CapacityLimiter(1)
    assert await in_thread(lambda: limiter.borrowed_tokens, limiter=limiter) == 1
    assert limiter.borrowed_tokens == 0


async def test_in_thread_tries_again_while_there_is_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, refused = anyio.to_thread.run_sync, 0

    async def refuse(*arguments: object, **options: object) -> object:
        nonlocal refused
        if refused < 3:
            refused += 1
            raise RuntimeError("can't start new thread")
        return await real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(anyio.to_thread, "run_sync", refuse)
    monkeypatch.setattr(blocking, "FIRST_PAUSE", 0.001)
    calls: list[int] = []
    await in_thread(calls.append, 1)
    assert (refused, calls) == (3, [1])


async def test_in_thread_never_calls_twice() -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await in_thread(fail)
    assert calls == [1]


async def test_cancel_does_not_end_what_is_shielded() -> None:
    asked, ended = anyio.Event(), False

    async def service() -> None:
        nonlocal ended
        await asked.wait()
        ended = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(shielded, service)
        await anyio.sleep(0)
        tasks.cancel_scope.cancel()
        asked.set()
    assert ended


BLOCKS = """
import time

async def block(call):
    call()

def plain():
    time.sleep(0)
"""


async def test_the_detector_finds_what_hermes_does_and_not_what_tests_do(
    anyio_backend: str,
) -> None:
    if anyio_backend != "asyncio":
        pytest.skip("only asyncio's loop is watched")
    ours: dict[str, Any] = {}
    exec(compile(BLOCKS, f"{os.path.dirname(hermes.__file__)}/made_up.py", "exec"), ours)
    # A coroutine of Hermes, through its plain functions
    with pytest.raises(BlockingError):
        await ours["block"](ours["plain"])
    # A test that calls a plain function of Hermes, or is called by Hermes
    ours["plain"]()
    await ours["block"](lambda: time.sleep(0))
    # Not in a thread
    await in_thread(ours["plain"])


async def test_in_thread_abandons_a_call_when_its_task_is_cancelled() -> None:
    begun, is_abandoned, ended = threading.Event(), threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        is_abandoned.wait(30)
        ended.set()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(in_thread, wait, abandon=is_abandoned.set))
            await in_thread(begun.wait, 20)
            tasks.cancel_scope.cancel()
    assert ended.is_set()


async def test_in_thread_abandons_a_call_that_asyncio_cancels(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("only asyncio cancels tasks one by one")
    begun, is_abandoned, ended = threading.Event(), threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        is_abandoned.wait(30)
        time.sleep(0.1)
        ended.set()

    task = asyncio.ensure_future(in_thread(wait, abandon=is_abandoned.set))
    await in_thread(begun.wait, 20)
    task.cancel()
    await anyio.sleep(0.02)
    # A second time, while it is waited for
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
