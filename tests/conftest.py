"""The fixtures that the tests share: both event loops, working directories, a cluster; and what the long suite reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .cluster import Cluster
from .project import Project
from .support import Desk, MakeDesk


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
    """In the long suite: which rows of the fault matrix were caused, how often, and which do not hold."""
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
