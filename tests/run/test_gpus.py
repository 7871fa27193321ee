"""Jobs that need GPUs, on pretended ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import anyio
import pytest

import hermes
from hermes import HermesError, JobStarted, Status
from hermes.executors.fake import FakeExecutor, FakeJob
from hermes.gpus.claims import own_folder
from hermes.language.plan import sbatch_words
from hermes.language.settings import Settings
from hermes.model import Options

from ..support import PYTHON, Desk, Project, until

JOB = """\
import os, sys, time
def note(what):
    line = f"{what} {os.environ['HERMES_IDENTIFIER']} {os.environ['CUDA_VISIBLE_DEVICES']}\\n"
    fd = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, line.encode())
    os.close(fd)
note("start")
time.sleep(0.1)
while os.path.exists("hold"): time.sleep(0.01)
note("end")
"""


def most_at_once(lines: Iterable[str], share: Fraction) -> dict[str, Fraction]:
    """The largest sum of shares that each GPU had, by what the jobs noted."""
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for line in lines:
        what, _, gpus = line.split(" ")
        for gpu in gpus.split(","):
            now[gpu] += 1 if what == "start" else -1
            most[gpu] = max(most[gpu], now[gpu])
    return {gpu: count * share for gpu, count in most.items()}


def test_no_gpu_is_over_its_share_over_runs_kills_and_resumes(desk: Desk) -> None:
    desk.write("job.py", JOB)
    settings = {"threads": 20, "gpus": "fake:2", "jobs_per_gpu": 2}
    entry = f"PROD([[{PYTHON}, job.py, {{n}}]], n=RANGE[0, 20])"
    desk.hermes_file(entry, settings=settings, name="one")
    desk.hermes_file(entry, settings=settings, name="two")
    desk.write("hold")
    log = desk.path / "log"
    with desk.started("exec", "-f", "one.hermes") as one:
        until(lambda: log.exists() and len(log.read_text().splitlines()) == 4)
        with desk.started("exec", "-f", "two.hermes") as two:
            # Its four live jobs hold their GPUs, whatever becomes of their runner
            one.kill()
            one.wait()
            desk.path.joinpath("hold").unlink()
            desk.hermes("resume", "-n", "one")
            assert two.wait() == 0
    lines = log.read_text().splitlines()
    assert len(lines) == 80
    assert len({line.split(" ")[1] for line in lines}) == 40
    assert most_at_once(lines, Fraction(1, 2)) == {"0": 1, "1": 1}
    assert {each.metadata.gpus for each in desk.experiments()} == {("0",), ("1",)}
    assert not [each for each in Path(own_folder()).iterdir() if str(desk.path) in each.name]


@pytest.mark.anyio
async def test_what_a_job_gets(project: Project) -> None:
    project.write(
        "job.sh",
        'echo "$CUDA_VISIBLE_DEVICES|$HIP_VISIBLE_DEVICES|$CUDA_DEVICE_ORDER|$2"\n',
    )
    entries = [f"[[sh, job.sh, {{gpus}}],[{options}]]" for options in ("", "-g 2", "-g 0")]
    async with project.open(*entries, gpus="fake:2", threads=1) as run:
        events = [event async for event in run if isinstance(event, JobStarted)]
    found = project.experiments()
    assert [each.stdout for each in found] == [
        "0|0|PCI_BUS_ID|0\n", "0,1|0,1|PCI_BUS_ID|0,1\n", "||PCI_BUS_ID|\n",
    ]  # fmt: skip
    assert [each.metadata.gpus for each in found] == [("0",), ("0", "1"), ()]
    assert [event.gpus for event in events] == [("0",), ("0", "1"), ()]
    again = (found[1].directory / "re_execution.hermes").read_text()
    assert "gpus: fake:2\n" in again or 'gpus: "fake:2"\n' in again
    assert "-g 2" in again


@pytest.mark.anyio
async def test_without_gpus_nothing_is_said_of_them(project: Project) -> None:
    project.write("job.sh", 'echo "$HERMES_GPU_CLAIM${CUDA_DEVICE_ORDER-unset}"\n')
    await project.run("[[sh, job.sh]]")
    assert project.experiment().stdout == "unset\n"
    assert project.experiment().metadata.gpus is None


@pytest.mark.anyio
async def test_small_jobs_pass_one_that_waits_and_it_waits_for_none_that_came_later(
    project: Project,
) -> None:
    project.write("job.sh")
    ends = {name: anyio.Event() for name in ("a", "b", "big", "c", "d")}
    started: list[str] = []

    async def behave(job: FakeJob) -> int:
        started.append(job.argv[-1])
        await ends[job.argv[-1]].wait()
        return 0

    entries = ["[[sh, job.sh, a]]", "[[sh, job.sh, b],[-g 0.5]]", "[[sh, job.sh, big],[-g 2]]",
               "[[sh, job.sh, c],[-g 0.5]]", "[[sh, job.sh, d],[-g 0]]"]  # fmt: skip
    async with project.open(
        *entries, gpus="fake:2", threads=5, executor=FakeExecutor(behave)
    ) as run:
        # `c` would fit beside `b`, but then `big` would have to wait for it
        await project.until(lambda: sorted(started) == ["a", "b", "d"])
        ends["a"].set()
        ends["d"].set()
        await anyio.sleep(0.05)
        assert sorted(started) == ["a", "b", "d"]
        ends["b"].set()
        await project.until(lambda: "big" in started)
        assert "c" not in started
        ends["big"].set()
        ends["c"].set()
    assert run.result.ok
    assert started[-1] == "c"


@pytest.mark.anyio
async def test_a_cancelled_run_leaves_no_claim(project: Project) -> None:
    project.write("job.sh")

    async def behave(job: FakeJob) -> int:
        await anyio.sleep_forever()
        return 0

    executor = FakeExecutor(behave)
    async with project.open(
        *["[[sh, job.sh]]"] * 4, gpus="fake:2", threads=4, executor=executor
    ) as run:
        async for event in run:
            if isinstance(event, JobStarted):
                run.cancel()
    assert {each.status for each in run.result.outcomes} == {Status.CANCELLED}
    assert len(run.result.outcomes) <= 2
    assert not [name for name in Path(own_folder()).iterdir() if run.run_id in name.name]


@pytest.mark.parametrize(
    ("settings", "options", "says"),
    [
        ({"gpus": "fake:2"}, "-g 3", ":7: the job needs 3 GPUs, and `gpus: fake:2` are 2"),
        ({}, "-g 1", ":6: `-g` says how many GPUs the job needs, but not which there are"),
    ],
)
@pytest.mark.anyio
async def test_gpus_that_are_not_there_are_told_before_anything_starts(
    project: Project, settings: dict[str, str], options: str, says: str
) -> None:
    project.write("job.sh")
    with pytest.raises(HermesError) as raised:
        await project.run(f"[[sh, job.sh],[{options}]]", settings={"threads": 1, **settings})
    assert says in str(raised.value)
    assert not project.experiments_folder.exists()


@pytest.mark.parametrize(
    ("slurm", "own", "gpus", "expected"),
    [
        ("", (), 2.0, ("--ntasks=1", "--gpus-per-task=2")),
        ("-p gpu", (), 1.0, ("--ntasks=1", "--gpus-per-task=1", "-p", "gpu")),
        ("--gres=gpu:a100:1", (), 2.0, ("--gres=gpu:a100:1",)),
        ("--gres=shard:2", (), 2.0, ("--ntasks=1", "--gpus-per-task=2", "--gres=shard:2")),
        ("", ("--gpus=1",), 2.0, ("--gpus=1",)),
        ("", ("-G 1",), 2.0, ("-G", "1")),
        ("", ("--gpus-per-node=1",), 2.0, ("--gpus-per-node=1",)),
        ("-p gpu", (), 0.0, ("-p", "gpu")),
        ("-p gpu", (), None, ("-p", "gpu")),
    ],
)
def test_on_slurm_they_are_its_own_options(
    slurm: str, own: tuple[str, ...], gpus: float | None, expected: tuple[str, ...]
) -> None:
    assert sbatch_words(Settings(slurm=slurm), Options(slurm=own, gpus=gpus)) == expected


def test_amounts_are_exact(tmp_path: Path) -> None:
    (tmp_path / "job.sh").touch()
    file = tmp_path / "x.hermes"
    jobs = "PROD([[sh, job.sh],[-g {g}]], g=[0.1, 1, 0, .5])\n[[sh, job.sh]]\n"
    file.write_text(f"PRE\njobs_per_gpu: 3\ngpus: fake:1\nEXEC\n{jobs}")
    plan = hermes.compile_file(file, working_directory=tmp_path)
    assert [amount for amount, _ in plan.gpu_amounts()] == [
        Fraction(1, 10), 1, 0, Fraction(1, 2), Fraction(1, 3),
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", ["1.5", "-1", "x", "nan", "1e3", ""])
def test_an_amount_that_nobody_can_have(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "job.sh").touch()
    file = tmp_path / "x.hermes"
    file.write_text(f'EXEC\n[[sh, job.sh],[-g "{wrong}"]]\n')
    with pytest.raises(HermesError, match=r"whole GPUs|a number of GPUs|unknown"):
        hermes.compile_file(file, working_directory=tmp_path)
