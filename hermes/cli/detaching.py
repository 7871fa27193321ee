"""`--detach`: a run goes on in a process of its own, without the terminal."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import NoReturn

import hermes

Opening = Callable[[], AbstractAsyncContextManager[hermes.Run]]


def detached(opening: Opening, *, quiet: bool, as_json: bool) -> Opening:
    """Goes on in a new process, in a session of its own, which opens the run.

    Only there this returns. The process that was called tells the run's id as soon as the run has
    begun, and exits; if it does not begin, it exits as the new one does, which has said why.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    try:
        child = os.fork()
    except OSError as exc:
        raise hermes.HermesError(f"cannot start a process: {exc.strerror}") from None
    if child:
        os.close(writing)
        _tell(child, reading, quiet=quiet, as_json=as_json)
    os.close(reading)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    return partial(_opened, opening, writing)


@asynccontextmanager
async def _opened(opening: Opening, writing: int) -> AsyncIterator[hermes.Run]:
    async with opening() as run:
        for warning in run.plan.warnings:
            print(f"warning: {hermes.escape(warning)}", file=sys.stderr)
        sys.stderr.flush()
        output = os.open(run.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        told = {
            "run_id": run.run_id,
            "name": run.name,
            "pid": os.getpid(),
            "output": run.output,
        }
        try:
            os.write(writing, json.dumps(told).encode())
        except BrokenPipeError:
            # Who wanted it knows nothing of it
            run.cancel("given up before it had begun")
        os.close(writing)
        yield run


def _tell(child: int, reading: int, *, quiet: bool, as_json: bool) -> NoReturn:
    # A terminal that is closed now ends nothing either
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with open(reading, "rb") as pipe:
        data = pipe.read()
    if not data:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
            os.kill(os.getpid(), os.WTERMSIG(status))
        sys.exit(os.WEXITSTATUS(status))
    told = json.loads(data)
    run_id = str(told["run_id"])
    print(json.dumps(told) if as_json else run_id)
    if not quiet:
        short = run_id.rpartition("-")[2]
        print(
            f"`{hermes.escape(told['name'])}` goes on without this terminal: "
            f"`hermes attach {short}` shows it, `hermes stop {short}` ends it",
            file=sys.stderr,
        )
    sys.exit(0)
