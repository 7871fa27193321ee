"""Word of a run is sent once when it is done and once more when it stops early, and nothing that
goes wrong with it harms the run."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import hermes
from hermes.executors.fake import FakeExecutor, FakeJob
from hermes.timing import Timing

from ..support import LIMIT, Project
from ..support.waiting import is_alive

pytestmark = pytest.mark.anyio

SECRET = "s3cret-T0KEN"

TELL = """\
import json, os, sys
with open("told", "a") as file:
    file.write(json.dumps(json.load(sys.stdin)) + chr(10))
"""
"""A command that keeps what it is told, a message a line."""


def telling(project: Project) -> str:
    project.write("tell.py", TELL)
    return f"command: {sys.executable} -S tell.py"


def told(project: Project) -> list[hermes.RunMessage]:
    path = project.path / "told"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=hermes.RunMessage) for line in lines]


def sweep(project: Project, count: int = 3) -> Path:
    return project.write("s.hermes", f"EXEC\nPROD([[true, s.hermes {{n}}]], n=RANGE[0, {count}])\n")


async def run(
    project: Project, notify: str | list[str], job: Any, *, count: int = 3, **options: Any
) -> hermes.RunResult:
    with anyio.fail_after(LIMIT):
        return await hermes.run_file(
            sweep(project, count), working_directory=project.path, root=project.path,
            executor=FakeExecutor(job), notify=notify, **options,
        )  # fmt: skip


async def second_fails(job: FakeJob) -> int:
    return 3 if job.argv[-1] == "1" else 0


async def test_a_command_gets_the_result_once(project: Project) -> None:
    result = await run(project, telling(project), second_fails)
    (message,) = told(project)
    assert (message.format, message.event, message.ok, message.why) == (1, "done", False, None)
    assert (message.name, message.run_id, message.total) == ("s", result.run_id, 3)
    assert (message.counts, message.count_failures) == ({"finished": 2, "failed": 1}, 1)
    (failed,) = message.failures
    (outcome,) = result.failures
    assert (failed.identifier, failed.how) == (outcome.identifier, "exit code 3")
    assert failed.command.startswith("true s.hermes ")
    assert message.title == "s: done, 1 failed"
    assert "2 finished" in message.text
    assert f"exit code 3: {failed.command}" in message.text
    assert message.working_directory == str(project.path)
    assert not result.warnings


async def test_an_early_stop_is_told_at_once_and_the_end_too(project: Project) -> None:
    first = anyio.Event()

    async def job(job: FakeJob) -> int:
        if job.argv[-1] == "1":
            return 1
        await first.wait()
        return 0

    async def let_go() -> None:
        await project.until(lambda: told(project))
        first.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(let_go)
        result = await run(project, telling(project), job, count=5, threads=2, max_failures=1)
    early, last = told(project)
    why = "1 failed: nothing more is started"
    assert (early.event, early.running, early.why) == ("stopping", 1, why)
    assert early.counts == {"failed": 1, "running": 1, "never started": 3}
    assert (last.event, last.running, last.why) == ("stopped", 0, why)
    assert last.counts == {"failed": 1, "finished": 1, "never started": 3}
    assert (early.ok, last.ok, last.title) == (False, False, "s: stopped early")
    assert result.too_many_failed
    # Where nothing goes on, one message tells all
    (project.path / "told").unlink()
    await run(project, telling(project), job, count=5, threads=1, max_failures=1)
    assert [each.event for each in told(project)] == ["stopped"]


@pytest.mark.parametrize(
    ("command", "warning"),
    [
        ("sh -c 'cat > /dev/null; echo no {} >&2; exit 3'", "`sh`: exit code 3: no ***"),
        ("sh -c 'kill -9 $$'", "`sh`: signal 9 (SIGKILL)"),
        ("sh -c 'sleep 600 & echo $! > pid; sleep 600'", "`sh` took longer than 1 s"),
        ("sh -c 'yes & echo $! > pid; yes >&2'", "`sh` printed more than 1 MB"),
    ],
)
async def test_a_command_that_goes_wrong_is_a_warning(
    project: Project, command: str, warning: str
) -> None:
    async def job(job: FakeJob) -> int:
        return 0

    patient = Timing(notify=1.0 if "sleep" in command else 60.0)
    result = await run(project, f"command: {command.format(SECRET)}", job, count=1, timing=patient)
    assert result.ok
    assert result.warnings == (f"`notify` has sent nothing: {warning}",)
    if (project.path / "pid").exists():
        pid = int((project.path / "pid").read_text())
        await project.until(lambda: not is_alive(pid))


async def test_who_ends_the_run_is_told_nothing_and_waits_for_nothing(project: Project) -> None:
    async def job(job: FakeJob) -> int:
        await anyio.sleep_forever()
        return 0

    options: dict[str, Any] = {"working_directory": project.path, "executor": FakeExecutor(job)}
    for why in (None, "ended by SIGTERM"):
        async with hermes.open_run(sweep(project), notify=telling(project), **options) as going:
            going.cancel(why)
    assert [(each.event, each.why) for each in told(project)] == [("stopped", "ended by SIGTERM")]
    with anyio.move_on_after(0.3):
        await run(project, telling(project), job)
    assert len(told(project)) == 1

    # All is done, and a message hangs: whoever does not wait for it spoils no result
    hangs = "command: sh -c 'echo > begun; sleep 600'"
    options["executor"] = FakeExecutor(second_fails)
    async with hermes.open_run(sweep(project, 1), notify=hangs, **options) as going:
        await project.until((project.path / "begun").exists)
        assert "given up" in going.cancelling
        going.cancel()
    assert going.result.ok
    assert not going.result.warnings


@contextmanager
def server() -> Iterator[tuple[int, list[tuple[str, dict[str, str]]]]]:
    """A port, and what is posted to it: path and JSON."""
    posted: list[tuple[str, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append((self.path, json.loads(body)))
            self.send_response(401 if "refused" in self.path else 200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield http.server_port, posted
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


async def test_addresses_of_apprise_get_title_and_text(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("apprise")
    monkeypatch.setenv("TOKEN", SECRET)
    with server() as (port, posted):
        good = f"json://127.0.0.1:{port}/good/$TOKEN"
        bad = f"json://127.0.0.1:{port}/refused/{SECRET}"
        result = await run(project, [good, bad], second_fails)
    assert sorted(path for path, _ in posted) == [f"/good/{SECRET}", f"/refused/{SECRET}"]
    for _, body in posted:
        assert body["title"] == "s: done, 1 failed"
        assert "2 finished" in body["message"]
    (warning,) = result.warnings
    assert warning.startswith("`notify` has sent nothing to `json://***`: ")
    assert "401" in warning
    assert SECRET not in warning
    # The run is kept, because a job failed: what it needs to go on is for its owner alone
    kept = [path for path in project.path.rglob("*") if path.is_file()]
    holding = [path for path in kept if SECRET.encode() in path.read_bytes()]
    assert [path.name for path in holding] == ["notify"]
    assert holding[0].stat().st_mode & 0o777 == 0o600


async def test_what_cannot_be_sent_is_an_error_before_the_run(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    for notify, message in (
        ("command: no-such-program x", "the program `no-such-program` was not found"),
        ("json://$NOT_SET/x", "the environment variable `NOT_SET`, which is not set"),
    ):
        with pytest.raises(hermes.HermesError, match=message):
            await run(project, notify, second_fails)
    # As if it were not installed
    project.write("modules/apprise.py", "raise ImportError")
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(project.path / "modules"))
        with pytest.raises(hermes.HermesError, match="needs Apprise") as caught:
            await run(project, f"json://{SECRET}", second_fails)
        assert "pip install" in str(caught.value.hint)
    pytest.importorskip("apprise")
    with pytest.raises(hermes.HermesError, match=r"`tgrm://\*\*\*`: Apprise does not know"):
        await run(project, f"tgrm://{SECRET}", second_fails)
    assert not project.experiments_folder.exists()
