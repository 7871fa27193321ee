"""The fixtures that the tests share: both event loops, working directories, a cluster; and what the
long suite reports.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from pathlib import Path

import pytest
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings

import hermes

from .executors.slurm.cluster import Cluster
from .support import Desk, MakeDesk, Project
from .support.endless import endless_jobs

# How long an example takes says more of the machine than of Hermes
settings.register_profile("hermes", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hermes")

HERMES = os.path.dirname(hermes.__file__)
TESTS = os.path.dirname(__file__)


def pytest_configure() -> None:
    # A script that starts the tests in the background ignores these for them and all they start
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def blocking_calls() -> Iterator[None]:
    """A call of Hermes that blocks the event loop is an error: it holds up the whole program.

    Only asyncio's is watched.
    """
    detector = BlockBuster("hermes")
    # Asks nothing of the system for an absolute path, and that of a plan is one
    detector.functions["os.path.abspath"].can_block_in("hermes/language/plan.py", "experiments")
    # Waits for a thread that does nothing
    detector.functions["threading.Lock.acquire"].can_block_in(
        "hermes/collection/watching.py", "_start_thread"
    )
    for function in detector.functions.values():
        function.can_block_predicate = _or_of_test(function.can_block_predicate)
    detector.activate()
    yield
    detector.deactivate()


def _or_of_test(can_block: Callable[..., bool]) -> Callable[..., bool]:
    """What a test calls itself in its loop, such as `load_experiment`, may block."""

    def may_block(*arguments: object, **options: object) -> bool:
        return can_block(*arguments, **options) or _is_of_test()

    return may_block


def _is_of_test() -> bool:
    """Whether a test calls, perhaps through plain functions of Hermes, rather than a coroutine."""
    frame = inspect.currentframe()
    while frame is not None:
        file, flags = frame.f_code.co_filename, frame.f_code.co_flags
        if file.startswith(TESTS) and file != __file__:
            return True
        if file.startswith(HERMES) and flags & (CO_COROUTINE | CO_ASYNC_GENERATOR):
            return False
        frame = frame.f_back
    return False


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_folder(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes folders that are resolved, for jobs see the working directory without links."""
    made = []

    def make(name: str) -> Path:
        path = tmp_path.resolve() / name
        path.mkdir()
        made.append(path)
        return path

    yield make
    # Folders may be too deep in it for pytest's own clean-up
    subprocess.run(["rm", "-rf", *made], check=False)


@pytest.fixture
def make_project(make_folder: Callable[[str], Path]) -> Callable[[str], Project]:
    """For tests that need several working directories."""
    return lambda name: Project(make_folder(name))


@pytest.fixture
def project(make_project: Callable[[str], Project]) -> Project:
    return make_project("project")


@pytest.fixture
def endless(project: Project) -> Iterator[Project]:
    """A project with jobs that do not end by themselves; none survives the test."""
    with endless_jobs(project):
        yield project


@pytest.fixture
def make_desk(make_folder: Callable[[str], Path]) -> MakeDesk:
    """For tests that need several desks."""
    return lambda name: Desk(make_folder(name))


@pytest.fixture
def desk(make_desk: MakeDesk) -> Desk:
    return make_desk("desk")


@pytest.fixture(scope="session")
def slurm() -> None:
    """For tests that need Slurm. Where HERMES_REQUIRE_SLURM is set it has to be there."""
    missing = Cluster.available()
    if missing and os.environ.get("HERMES_REQUIRE_SLURM"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


@pytest.fixture(scope="session")
def cluster(slurm: None) -> Iterator[Cluster]:
    """A Slurm cluster that the tests of one process share, so none may harm it."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def forbidding(tmp_path: Path) -> None:
    """For tests that need a system that forbids things, which it does not do to root."""
    (tmp_path / "closed").mkdir(mode=0)
    if os.access(tmp_path / "closed", os.R_OK):
        pytest.skip("nothing is forbidden to root")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("fault"):
            # The one thing of a test that reaches its report, from another process too
            item.user_properties += [("fault", row) for row in mark.args]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """In the long suite: which rows of the fault matrix were caused, how often, and which do not
    hold.
    """
    if not os.environ.get("HERMES_LONG_TESTS"):
        return
    tried: Counter[int] = Counter()
    failed: Counter[int] = Counter()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            times = [int(value) for name, value in report.user_properties if name == "tried"]
            for row in {int(value) for name, value in report.user_properties if name == "fault"}:
                tried[row] += sum(times) or 1
                failed[row] += outcome != "passed"
    terminalreporter.write_line(
        f"faults: {sum(not failed[row] for row in tried)} of {len(tried)} rows hold"
    )
    for row in sorted(tried):
        terminalreporter.write_line(
            f"  row {row}: caused {tried[row]} times, {failed[row]} tests failed"
        )


def pytest_report_header() -> str:
    return json.dumps(
        {
            "python": sys.version.split()[0],
            "anyio": _version("anyio"),
            "watchfiles": _version("watchfiles"),
        }
    )


def _version(distribution: str) -> str:
    from importlib.metadata import version

    return version(distribution)
