"""A run goes on while a block runs, however the block is left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio

from ..blocking import has_loop, in_thread
from ..storage.run_folder import RunFolder
from .runner import Run


@asynccontextmanager
async def in_progress(run: Run, folder: RunFolder) -> AsyncIterator[Run]:
    """Executes a run while the block runs. Leaving the block waits for the jobs; leaving it by an
    exception ends them first. The exception is raised as it is.
    """
    is_done = False
    failure: BaseException | None = None
    host = anyio.get_current_task()
    try:
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(anyio.create_task_group())
            tasks.start_soon(run.execute)
            try:
                yield run
            except anyio.get_cancelled_exc_class():
                raise
            except GeneratorExit:
                # The generator around the block was dropped
                run.cancel()
                if has_loop():
                    with anyio.CancelScope(shield=True):
                        await run.ended.wait()
                    if anyio.get_current_task() != host:
                        # The group cannot be left by another task than that which entered it
                        stack.pop_all()
                raise
            except BaseException as exc:
                # Raised outside of the group, which would wrap it
                failure = exc
                run.cancel()
            finally:
                run.leave()
        is_done = run.result.ok
        if failure is not None:
            raise failure
    finally:
        try:
            if has_loop():
                with anyio.CancelScope(shield=True):
                    await in_thread(run.close, is_done)
        finally:
            # However this is broken off, the lock is given back
            folder.close(done=False)
