"""In a notebook: runs with top-level await in a real kernel, progress below the cell, and what
interrupting it does.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

import hermes

from ..support import (
    IDENTIFIER,
    LIMIT,
    PYTHON,
    TRAIN,
    Desk,
    RecordProperty,
    check_always,
    environment,
    is_alive,
    times,
    until,
)
from ..support.shouts import fifo_of, shouting, shouts

SLEEP = """\
import os, sys, time
with open("partial_" + sys.argv[1], "w") as file:
    file.write("half")
with open("new_" + sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
os.rename("new_" + sys.argv[1], "pid_" + sys.argv[1])
while True:
    time.sleep(600)
"""

FOLLOW = """\
import os, time
print("<b>waiting</b>", flush=True)
while not os.path.exists("go"):
    time.sleep(0.005)
"""


@dataclass(frozen=True)
class Display:
    """A message with something to show below the cell: `identifier` says which of the things that
    are there it replaces.
    """

    kind: str
    identifier: str | None
    text: str
    html: str


@dataclass
class Cell:
    """What the execution of a cell has brought so far."""

    request: str
    displays: list[Display] = field(default_factory=list)
    printed: str = ""
    result: str = ""
    html: str = ""
    error: str = ""
    traceback: list[str] = field(default_factory=list)
    done: bool = False

    @property
    def shown(self) -> str:
        return self.displays[-1].text if self.displays else ""


class Notebook:
    """A running kernel of this interpreter."""

    def __init__(self, folder: Path) -> None:
        self._manager = KernelManager()
        # Not one of those that are installed: whichever they are, they need not belong to this
        # interpreter
        spec = KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="",
            language="python",
        )
        self._manager._kernel_spec = spec
        self._manager.start_kernel(cwd=str(folder), env=environment())
        self._client: BlockingKernelClient = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=LIMIT)

    def shut_down(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()

    def start(self, code: str) -> Cell:
        return Cell(self._client.execute(code))

    def until(self, cell: Cell, condition: Callable[[], object]) -> None:
        """Takes what the cell brings until `condition` is true."""
        while not condition():
            message = self._client.get_iopub_msg(timeout=LIMIT)
            if message["parent_header"].get("msg_id") == cell.request:
                self._take(cell, message["msg_type"], message["content"])

    def run(self, code: str) -> Cell:
        cell = self.start(code)
        self.until(cell, lambda: cell.done)
        return cell

    def _take(self, cell: Cell, kind: str, content: dict[str, object]) -> None:
        match content:
            case {
                "transient": transient,
                "data": {"text/plain": str(text), "text/html": str(html)},
            }:
                assert isinstance(transient, dict)
                cell.displays.append(Display(kind, transient.get("display_id"), text, html))
            case {"text": str(text)}:
                cell.printed += text
            case {"data": {"text/plain": str(text), **others}}:
                cell.result, cell.html = text, str(others.get("text/html", ""))
            case {"ename": str(name), "traceback": [*lines]}:
                cell.error, cell.traceback = name, list(map(str, lines))
            case {"execution_state": "idle"}:
                cell.done = True


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """One for all tests, for it takes long to start."""
    notebook = Notebook(tmp_path_factory.mktemp("kernel"))
    try:
        notebook.run("import hermes, os")
        yield notebook
    finally:
        notebook.shut_down()


@pytest.fixture
def desk(desk: Desk, kernel: Notebook) -> Desk:
    kernel.run(f"os.chdir({str(desk.path)!r})")
    return desk


def test_the_result_is_there_in_the_next_cell(kernel: Notebook, desk: Desk) -> None:
    desk.write("train.py", TRAIN)
    desk.write("fail.py", "raise SystemExit(3)")
    desk.hermes_file(f"[[{PYTHON}, train.py, --lr 0.1]]", f"[[{PYTHON}, fail.py]]")
    cell = kernel.run("result = await hermes.run_file('x.hermes', 'cell')")
    # A job that fails raises nothing, and nothing is printed
    assert (cell.error, cell.printed) == ("", "")
    assert (
        kernel.run("[outcome.how for outcome in result.outcomes], result.ok").result
        == "(['finished', 'exit code 3'], False)"
    )
    train, fail = desk.experiments()
    assert (
        kernel.run("hermes.load_experiment(result.outcomes[0].directory).arguments").result
        == "('--lr', '0.1')"
    )
    assert (train.directory / f"model_{train.identifier}.txt").exists()
    # A table, what failed first
    table = kernel.run("result")
    assert table.result == "<RunResult 'cell': 1 finished, 1 failed>"
    rows = re.findall(r"<tr><td>(\w+)</td><td>(\w+)</td><td>([\w ]+)</td>", table.html)
    assert rows == [
        ("fail", fail.identifier, "exit code 3"),
        ("train", train.identifier, "finished"),
    ]
    # What is left below the cell: the summary and the failure
    assert re.match(
        "cell: 2 jobs in .*: 1 finished, 1 failed; results in experiments\n", cell.shown
    )
    assert f"failed: fail {fail.identifier}: exit code 3" in cell.shown
    assert fail.identifier in cell.displays[-1].html
    assert len(IDENTIFIER.findall(cell.shown)) > 1


@pytest.mark.fault(22)
def test_progress_is_updated_in_place(kernel: Notebook, desk: Desk) -> None:
    desk.write("follow.py", FOLLOW)
    desk.hermes_file(
        f"PROD([[{PYTHON}, follow.py, --env {{env}}, --gamma 1]], env=['<i>a</i>', b])",
        settings={"threads": 2},
    )
    cell = kernel.start("result = await hermes.run_file('x.hermes')")
    kernel.until(
        cell,
        lambda: "0/2 done, 2 running, 0 failed" in cell.shown and cell.shown.count("waiting") == 2,
    )
    # One line a job: in what it differs, elapsed time, what it printed last
    assert re.search(
        r"^follow  --env <i>a</i>  \d+\.\d s  <b>waiting</b>$", cell.shown, re.MULTILINE
    )
    assert "&lt;b&gt;waiting&lt;/b&gt;" in cell.displays[-1].html
    assert "<b>" not in cell.displays[-1].html
    assert "<i>" not in cell.displays[-1].html
    desk.write("go")
    kernel.until(cell, lambda: cell.done)
    assert "2 finished" in cell.shown
    assert "follow  --env" not in cell.shown
    first, *updates = cell.displays
    assert first.kind == "display_data"
    assert first.identifier
    assert {(display.kind, display.identifier) for display in updates} == {
        ("update_display_data", first.identifier)
    }


class Parts(HTMLParser):
    """What a browser makes of a cell: its elements and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: set[tuple[str, ...]] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add((tag, *(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def check_shouting(kernel: Notebook, desk: Desk, said: list[str]) -> None:
    shouting(desk, said)
    cell = kernel.start("result = await hermes.run_file('x.hermes', '[bold]<i>')")
    # Each job's argument, and what it said last
    rows = [
        re.compile(
            rf"{re.escape(hermes.escape(each))}  \d+\.\d s  {re.escape(hermes.escape(each))}$",
            re.MULTILINE,
        )
        for each in said
    ]
    kernel.until(cell, lambda: all(row.search(cell.shown) for row in rows))
    html = Parts(cell.displays[-1].html).text
    assert all(html.count(hermes.escape(each)) == 2 for each in said)
    desk.write("go")
    kernel.until(cell, lambda: cell.done)
    assert cell.error == ""
    assert f"[bold]<i>: {len(said)} jobs in" in cell.shown
    for display in cell.displays:
        assert display.text.replace("\n", "").isprintable()
        assert display.html.replace("\n", "").isprintable()
        elements = {
            ("div",),
            ("progress", "value", "max", "style"),
            ("table",),
            ("tr",),
            ("td", "style"),
            ("pre", "style"),
        }
        assert Parts(display.html).elements <= elements
    # Of some failures all is told
    told = [each for each in said if f"problem: {fifo_of(each)}" in cell.shown]
    assert len(told) == 5
    for each in told:
        assert f"stderr | {hermes.escape(each)}\n" in cell.shown
        assert f"stderr | {hermes.escape(each)}\n" in Parts(cell.displays[-1].html).text


@pytest.mark.fault(22)
def test_escapes_and_markup_are_text_in_a_cell(
    kernel: Notebook, desk: Desk, record_property: RecordProperty
) -> None:
    rounds, count = times(1, 10), times(8, 20)
    record_property("tried", rounds * count)
    for number in range(rounds):
        check_shouting(kernel, desk, shouts(200 + number, count))


def test_two_runs_in_one_cell(kernel: Notebook, desk: Desk) -> None:
    desk.write("train.py", TRAIN)
    desk.hermes_file(f"[[{PYTHON}, train.py]]")
    cell = kernel.run(
        "import asyncio\nboth = await asyncio.gather(hermes.run_file('x.hermes', 'one'), "
        "hermes.run_file('x.hermes', 'two'))"
    )
    assert cell.error == ""
    assert len({display.identifier for display in cell.displays}) == 2
    assert len([display for display in cell.displays if display.kind == "display_data"]) == 2
    assert [
        experiment.name for experiment in desk.experiments() if experiment.status == "finished"
    ] in (["one", "two"], ["two", "one"])


def test_who_takes_the_events_shows_them(kernel: Notebook, desk: Desk) -> None:
    desk.write("train.py", TRAIN)
    desk.hermes_file(f"[[{PYTHON}, train.py]]")
    cell = kernel.run(
        "async with hermes.open_run('x.hermes', 'mine') as run:\n    async for event in run:\n"
        "        print(type(event).__name__, end=' ')"
    )
    assert cell.error == ""
    assert cell.displays == []
    assert cell.printed.split() == [
        "RunStarted",
        "JobStarted",
        "FileCollected",
        "JobEnded",
        "RunEnded",
    ]


def test_an_error_is_raised_in_the_cell(kernel: Notebook, desk: Desk) -> None:
    desk.hermes_file("[[no-such-program]]")
    cell = kernel.run("await hermes.run_file('x.hermes')")
    assert cell.error == "PlanError"
    assert not desk.experiments_folder.exists()
    # The message first, and the line of the cell, in place of the way through Hermes
    assert cell.traceback[0] == "error: program `no-such-program` was not found on PATH"
    assert cell.traceback[-1] == "in line 1 of the cell: await hermes.run_file('x.hermes')"
    assert len(cell.traceback) < 10


def check_interrupt(kernel: Notebook, desk: Desk, name: str) -> None:
    cell = kernel.start(f"result = None\nresult = await hermes.run_file('x.hermes', '{name}')")
    until(lambda: len(list(desk.path.glob("pid_*"))) == 3)
    jobs = [int(path.read_text()) for path in desk.path.glob("pid_*")]
    kernel.until(cell, lambda: "3 running" in cell.shown)
    interrupted = time.monotonic()
    kernel.interrupt()
    until(lambda: not any(map(is_alive, jobs)))
    # Not after the ten seconds that a job has which does not listen; a busy machine may take its
    # time
    assert time.monotonic() - interrupted < times(5, 1)
    kernel.until(cell, lambda: cell.done)
    assert cell.error in ("CancelledError", "KeyboardInterrupt")
    assert "3 cancelled, 1 never started" in cell.shown
    experiments = [experiment for experiment in desk.experiments() if experiment.name == name]
    assert [experiment.status for experiment in experiments] == ["cancelled"] * 3
    for experiment in experiments:
        own = experiment.identifier
        assert desk.tree(experiment.directory, own=True).keys() == {f"partial_{own}", f"pid_{own}"}
        assert (experiment.directory / f"partial_{own}").read_text() == "half"
        assert desk.leftovers(own) == []
    check_always(desk)


@pytest.mark.fault(24)
def test_interrupting_the_cell_ends_the_jobs(
    kernel: Notebook, desk: Desk, record_property: RecordProperty
) -> None:
    tried = times(1, 10)
    record_property("tried", tried)
    desk.write("sleep.py", SLEEP)
    desk.hermes_file(*[f"[[{PYTHON}, sleep.py]]"] * 4, settings={"threads": 3})
    for number in range(tried):
        check_interrupt(kernel, desk, f"n{number}")
    # The kernel is as it was
    desk.write("train.py", TRAIN)
    desk.hermes_file(f"[[{PYTHON}, train.py]]")
    assert kernel.run("(await hermes.run_file('x.hermes')).ok").result == "True"
