"""Several runners that go on with the same name at the same time: no job runs twice at once, and
none after its success.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from hermes import Status

from ..support import LIMIT, PYTHON, Desk, RecordProperty, some, tries, until

pytestmark = [pytest.mark.fault(27)]

JOB = """\
import os, sys, time
number = sys.argv[2]
# Fails if another one runs
os.mkdir(f"running{number}")
with open("ran", "a") as file:
    file.write(f"{number}\\n")
while os.path.exists("hold"):
    time.sleep(0.01)
time.sleep(float(sys.argv[3]))
os.rmdir(f"running{number}")
sys.exit(os.path.exists(f"failing{number}"))
"""
COUNT = 24


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.write("job.py", JOB)
    return desk


def sweep(desk: Desk, *, count: int = COUNT, threads: int = 2, supervise: bool = True) -> None:
    desk.write(
        "x.hermes",
        f"PRE\nthreads: {threads}\nsupervise: {supervise}\nEXEC\n"
        f"PROD([[{PYTHON}, job.py, {{n}} 0.01]], n=RANGE[0, {count}])\n",
    )


def ran(desk: Desk) -> list[int]:
    path = desk.path / "ran"
    return sorted(map(int, path.read_text().split())) if path.exists() else []


def starts_files(desk: Desk) -> list[Path]:
    return list(desk.experiments_folder.glob(".hermes/*.starts"))


def test_runners_that_begin_at_the_same_instant_share_the_jobs(
    desk: Desk, record_property: RecordProperty
) -> None:
    for attempt in tries(record_property, 2, 20):
        sweep(desk)
        name = f"n{attempt}"
        (desk.path / "ran").unlink(missing_ok=True)
        with ExitStack() as stack:
            runners = [
                stack.enter_context(desk.started("exec", "--resume", "-f", "x.hermes", "-n", name))
                for _ in range(4)
            ]
            said = [runner.communicate(timeout=LIMIT)[1] for runner in runners]
        assert [runner.returncode for runner in runners] == [0] * 4, said
        assert ran(desk) == list(range(COUNT))
        assert starts_files(desk) == []
        desk.hermes("exec", "--resume", "-f", "x.hermes", "-n", name)
        assert ran(desk) == list(range(COUNT))


def test_a_runner_that_comes_later_takes_only_what_is_not_begun(desk: Desk) -> None:
    sweep(desk, count=6)
    desk.write("hold")
    arguments = ("exec", "--resume", "-f", "x.hermes", "-n", "n")
    with desk.started(*arguments) as first:
        until(lambda: len(ran(desk)) == 2)
        with desk.started(*arguments) as second:
            until(lambda: len(ran(desk)) == 4)
            (desk.path / "hold").unlink()
            said = second.communicate(timeout=LIMIT)[1]
        first.communicate(timeout=LIMIT)
    assert (first.returncode, second.returncode) == (0, 0), said
    assert ran(desk) == list(range(6))
    assert "2 of these jobs run in `" in said


def test_what_failed_in_one_runner_is_tried_by_the_other(desk: Desk) -> None:
    sweep(desk, count=3, threads=1)
    desk.write("failing0")
    desk.write("hold")
    arguments = ("exec", "--resume", "-f", "x.hermes", "-n", "n")
    with desk.started(*arguments) as first:
        until(lambda: len(ran(desk)) == 1)
        (desk.path / "hold").unlink()
        first.communicate(timeout=LIMIT)
    assert first.returncode == 1
    (desk.path / "failing0").unlink()
    desk.hermes(*arguments)
    assert ran(desk) == [0, 0, 1, 2]


def test_a_resumed_run_beside_one_of_its_name(desk: Desk) -> None:
    sweep(desk, count=8)
    desk.write("hold")
    with desk.started("exec", "-f", "x.hermes", "-n", "n") as first:
        until(lambda: len(ran(desk)) == 2)
        first.send_signal(signal.SIGKILL)
        first.wait(LIMIT)
    with (
        desk.started("exec", "--resume", "-f", "x.hermes", "-n", "n") as other,
        desk.started("resume", "-n", "n") as resumed,
    ):
        until(lambda: len(ran(desk)) >= 4)
        (desk.path / "hold").unlink()
        said = [each.communicate(timeout=LIMIT)[1] for each in (other, resumed)]
    assert (other.returncode, resumed.returncode) == (0, 0), said
    assert ran(desk) == list(range(8))
    statuses = [experiment.status for experiment in desk.experiments()]
    assert statuses == [Status.FINISHED] * 8
    assert starts_files(desk) == []


def test_what_a_killed_runner_has_begun_runs_on_and_is_not_begun_again(desk: Desk) -> None:
    sweep(desk, count=4)
    desk.write("hold")
    arguments = ("exec", "--resume", "-f", "x.hermes", "-n", "n")
    with desk.started(*arguments) as first, desk.started(*arguments) as second:
        until(lambda: len(ran(desk)) == 4)
        first.send_signal(signal.SIGKILL)
        first.wait(LIMIT)
        (desk.path / "hold").unlink()
        second.communicate(timeout=LIMIT)
    desk.hermes(*arguments)
    desk.hermes("resume", "-n", "n")
    assert ran(desk) == list(range(4))
    assert starts_files(desk) == []


def test_success_that_nobody_has_written_down_yet_counts(desk: Desk) -> None:
    sweep(desk, count=2)
    desk.write("hold")
    with desk.started("exec", "-f", "x.hermes", "-n", "n") as first:
        until(lambda: len(ran(desk)) == 2)
        first.send_signal(signal.SIGKILL)
        first.wait(LIMIT)
    (desk.path / "hold").unlink()
    until(lambda: not list(desk.path.glob("running*")))
    until(lambda: all(
        path.read_text().count("\n") > 1
        for path in desk.experiments_folder.glob(".hermes/*/*_*_*")
        if not path.suffix
    ))  # fmt: skip
    desk.hermes("exec", "--resume", "-f", "x.hermes", "-n", "n")
    assert ran(desk) == [0, 1]
    desk.hermes("resume")
    assert [experiment.status for experiment in desk.experiments()] == [Status.FINISHED] * 2


def one_is_left(desk: Desk, *, supervise: bool = True) -> Path:
    """Two jobs of a killed runner that go on; gives the directory of the first."""
    sweep(desk, count=2, supervise=supervise)
    desk.write("hold")
    with desk.started("exec", "-f", "x.hermes", "-n", "n") as first:
        until(lambda: len(ran(desk)) == 2)
        first.send_signal(signal.SIGKILL)
        first.wait(LIMIT)
    return desk.experiments()[0].directory


def _put_folder(directory: Path) -> None:
    (directory / "hermes.json").unlink()
    (directory / "hermes.json").mkdir()


def _put_another(directory: Path) -> None:
    other = next(each for each in directory.parent.iterdir() if each != directory)
    shutil.copy(other / "hermes.json", directory)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "removed": shutil.rmtree,
    "moved": lambda directory: directory.rename(directory.parents[3] / "moved"),
    "renamed": lambda directory: directory.rename(f"{directory}_old"),
    "no metadata": lambda directory: (directory / "hermes.json").rename(directory / "hidden"),
    "torn metadata": lambda directory: (directory / "hermes.json").write_text('{"form'),
    "a folder": _put_folder,
    "another": _put_another,
    "all": lambda directory: shutil.rmtree(directory.parent),
}
"""What is done to a directory, or to its metadata, while its job runs and nobody watches."""


@pytest.mark.fault(25)
@pytest.mark.parametrize("what", some(DAMAGE, 4))
@pytest.mark.parametrize("supervise", [True, False], ids=["", "unsupervised"])
def test_a_job_that_is_alive_is_not_begun_again_whatever_became_of_its_directory(
    desk: Desk, what: str, supervise: bool
) -> None:
    directory = one_is_left(desk, supervise=supervise)
    DAMAGE[what](directory)
    done = desk.hermes("exec", "--resume", "-f", "x.hermes", "-n", "n")
    assert "2 of these jobs run in `" in done.stderr
    assert ran(desk) == [0, 1]
    with desk.started("resume") as resumed:
        assert resumed.stderr
        assert "resuming" in resumed.stderr.readline()
        assert ran(desk) == [0, 1]
        (desk.path / "hold").unlink()
        resumed.communicate(timeout=LIMIT)
    # What has succeeded is not repeated, if that is known
    assert ran(desk) == [0, 1] or not supervise


@pytest.mark.fault(25)
@pytest.mark.parametrize("what", ["no metadata", "torn metadata", "a folder"])
def test_a_success_whose_metadata_are_damaged_counts(desk: Desk, what: str) -> None:
    sweep(desk, count=2)
    desk.write("failing1")
    desk.hermes("exec", "-f", "x.hermes", "-n", "n", code=1)
    (desk.path / "failing1").unlink()
    first = next(each for each in desk.experiments() if each.status is Status.FINISHED)
    DAMAGE[what](first.directory)
    desk.hermes("exec", "--resume", "-f", "x.hermes", "-n", "n")
    assert ran(desk) == [0, 1, 1]
