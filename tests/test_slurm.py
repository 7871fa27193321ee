"""Faults on a real Slurm cluster: the client, the controller, nodes, limits, and people with `scancel`. And how Slurm's output is read.

What every executor has to do is in `test_contract.py`.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import pytest

import hermes
from hermes import Status
from hermes.executors.processes import processes_of
from hermes.executors.slurm import executor as slurm_module
from hermes.executors.slurm.commands import (
    Limits,
    Row,
    cause_in,
    last_line,
    parse_duration,
    parse_limits,
    parse_queue,
)
from hermes.executors.slurm.executor import judged
from hermes.model import Outcome

from .cluster import NODES, Cluster
from .support import LONG, Desk, RecordProperty, times, until

WAIT = 90.0
"""Seconds for a whole run: Slurm itself takes up to 30 s to look at a time limit, and 6 s to start a requeued job."""

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]

JOB = """\
echo "$HERMES_IDENTIFIER $2" >> ledger
echo "attempt on $SLURMD_NODENAME"
[ -e "state_$1.txt" ] && echo "goes on"
echo early > "state_$1.txt"
while [ -e "hold$2" ]; do sleep 0.02; done
echo "$2" >> ended
exit "${3:-0}"
"""
"""A job that leaves a line when it starts and one when it comes to its end. In between it waits as long as there is a file `hold` with its
number."""


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.write("job.sh", JOB)
    return desk


@pytest.fixture
def cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster that tests share, for whatever the test starts."""
    use(cluster, monkeypatch)
    return cluster


@pytest.fixture
def own(slurm: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster that a test may harm."""
    with Cluster({"MessageTimeout": "2"}) as cluster:
        use(cluster, monkeypatch)
        yield cluster


def use(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)


def sweep(desk: Desk, count: int, threads: int = 4, options: str = "", extra: str = "") -> None:
    pre = f"PRE\nexecutor: slurm\nthreads: {threads}\nslurm: {options or '--time=60'}\n"
    desk.write("x.hermes", f"{pre}EXEC\nPROD([[sh, job.sh, {{n}} {extra}]], n=RANGE[0, {count}])\n")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def started(desk: Desk) -> list[str]:
    """The numbers of the jobs that were started, once for each start."""
    return sorted(line.split()[1] for line in lines(desk.path / "ledger"))


@contextmanager
def held_client(desk: Desk, count: int = 1, *, threads: int = 4) -> Iterator[subprocess.Popen[str]]:
    """A client of so many jobs, the first of which runs and waits until `hold0` is gone."""
    sweep(desk, count, threads)
    desk.write("hold0")
    with desk.started("exec", "-f", "x.hermes") as client:
        until(lambda: started(desk) == ["0"])
        until(lambda: desk.experiment().metadata.get("pid_start"))
        yield client


def ended(desk: Desk) -> list[str]:
    return sorted(lines(desk.path / "ended"), key=int)


def arrays(desk: Desk, cluster: Cluster) -> set[str]:
    """The ids of all arrays that Slurm knows."""
    found = cluster.call("squeue", "-h", "-r", "-t", "all", "-o", "%F").stdout
    return set(found.split())


def check_once(desk: Desk, count: int) -> None:
    """Every job ran once, from its start to its end, and everything is where it belongs."""
    numbers = [str(number) for number in range(count)]
    assert ended(desk) == numbers
    assert sorted(started(desk), key=int) == numbers
    experiments = desk.experiments()
    assert sorted((each.argv[-1] for each in experiments), key=int) == numbers
    for each in experiments:
        assert (each.status, each.exit_code, each.problems) == (Status.FINISHED, 0, ())
        assert desk.tree(each.directory, own=True) == {f"state_{each.identifier}.txt": "early\n"}
        assert each.stdout.startswith("attempt on n")
        assert desk.leftovers(each.identifier) == []


# The client


@pytest.mark.fault(1)
@pytest.mark.timeout(times(150, 900))
def test_a_client_that_is_killed_again_and_again_loses_nothing_and_repeats_nothing(
    desk: Desk, own: Cluster, record_property: RecordProperty
) -> None:
    count, kills, restarts = times(16, 200), times(2, 10), times(1, 3)
    record_property("tried", kills)
    desk.write("job.sh", JOB.replace("while", "sleep 0.3\nwhile"))
    # Or the run might end before it is killed
    desk.write("hold0")
    sweep(desk, count, threads=4)
    moments = random.Random(5)
    restart_at = set(moments.sample(range(kills), restarts))
    arguments = ["exec", "-f", "x.hermes"]
    for number in range(kills):
        with desk.started(*arguments) as client:
            # No more than a moment to choose: whatever has happened by then, everything below must hold
            with suppress(subprocess.TimeoutExpired):
                client.wait(timeout=moments.random() * times(3, 5) + (0.5 if number else 0.2))
            assert client.poll() is None, "not even killed"
            if number in restart_at:
                own.restart_controller()
            client.kill()
            client.wait()
        if list(desk.experiments_folder.glob(".hermes/*/run.json")):
            arguments = ["resume"]
    (desk.path / "hold0").unlink()
    desk.hermes(*arguments, timeout=times(100, 800))
    check_once(desk, count)


@pytest.mark.fault(3)
def test_ctrl_c_leaves_the_jobs_and_says_how_to_come_back(desk: Desk, cluster: Cluster) -> None:
    with held_client(desk, 3, threads=1) as client:
        client.send_signal(signal.SIGINT)
        _, told = client.communicate(timeout=WAIT)
    assert client.returncode == -signal.SIGINT
    assert "`hermes resume` follows them again, `hermes stop` ends them" in told
    assert "3 still with the cluster; results in experiments; `hermes resume` goes on" in told
    assert desk.experiment().status == Status.RUNNING
    (desk.path / "hold0").unlink()
    # Nobody follows, and they come to their end
    until(lambda: ended(desk) == ["0", "1", "2"])
    told = desk.hermes("resume", timeout=WAIT).stderr
    assert told.count("finished job.sh") == 3
    assert "x: 3 jobs in" in told
    check_once(desk, 3)
    assert "no unfinished run" in desk.hermes("resume", code=2).stderr


# Submitting


SBATCH = """\
#!/bin/sh
case " $* " in
*" --test-only "*) ;;
*) if [ -e "$0.trap" ]; then mv "$0.trap" "$0.sprung"; . "$0.sprung"; fi;;
esac
exec {real} "$@"
"""
"""Instead of `sbatch`: executes some shell code before the first submission."""


def trap(desk: Desk, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    real = shutil.which("sbatch")
    assert real
    folder = desk.path.parent / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(SBATCH.format(real=real))
    (folder / "sbatch").chmod(0o755)
    (folder / "sbatch.trap").write_text(code.replace("REAL", real))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def controller_of(cluster: Cluster) -> int:
    return cluster._daemons["slurmctld"].pid


def test_accepted_though_it_timed_out(
    desk: Desk, own: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller that hangs takes the job when it goes on; `sbatch` has given up by then."""
    pid = controller_of(own)
    trap(desk, monkeypatch, f"kill -STOP {pid}; (sleep 4; kill -CONT {pid}) >/dev/null 2>&1 &")
    sweep(desk, 3)
    told = desk.hermes("exec", "-f", "x.hermes", timeout=WAIT).stderr
    assert "3 finished" in told
    check_once(desk, 3)
    assert len(arrays(desk, own)) == 1


def test_accepted_and_nobody_said_so(
    desk: Desk, own: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap(
        desk,
        monkeypatch,
        'REAL "$@"; echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1',
    )
    sweep(desk, 3)
    desk.hermes("exec", "-f", "x.hermes", timeout=WAIT)
    check_once(desk, 3)
    assert len(arrays(desk, own)) == 1


def test_accepted_so_late_that_it_was_submitted_again(
    desk: Desk, own: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = '(sleep 7; REAL "$@") >/dev/null 2>&1 & echo "sbatch: error: Batch job submission failed: Socket timed out" >&2; exit 1'
    trap(desk, monkeypatch, late)
    desk.write("job.sh", JOB.replace('while [ -e "hold$2" ]; do sleep 0.02; done', "sleep 1"))
    sweep(desk, 6, threads=1)
    desk.hermes("exec", "-f", "x.hermes", timeout=WAIT)
    assert len(arrays(desk, own)) == 2
    check_once(desk, 6)


def test_a_client_killed_while_it_submits(
    desk: Desk, own: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The `sbatch` that it has started goes on, and nobody takes the id."""
    pid = controller_of(own)
    trap(desk, monkeypatch, f"kill -STOP {pid}; (sleep 3; kill -CONT {pid}) >/dev/null 2>&1 &")
    sweep(desk, 3)
    with desk.started("exec", "-f", "x.hermes") as client:
        until(lambda: (desk.path.parent / "bin" / "sbatch.sprung").exists())
        client.kill()
        client.wait()
    desk.hermes("resume", timeout=WAIT)
    check_once(desk, 3)


def test_the_controller_is_down_when_jobs_are_submitted(
    desk: Desk, own: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap(desk, monkeypatch, f"kill -KILL {controller_of(own)}; sleep 0.2")
    sweep(desk, 3)
    with desk.started("exec", "-f", "x.hermes") as client:
        until(lambda: (desk.path.parent / "bin" / "sbatch.sprung").exists())
        time.sleep(3)
        assert client.poll() is None
        own.stop_controller()
        own.start_controller()
        _, told = client.communicate(timeout=WAIT)
    assert client.returncode == 0, told
    check_once(desk, 3)


def test_a_controller_that_forgets_what_it_took(
    desk: Desk, own: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed right after it has said yes. Its next job gets the same id."""
    monkeypatch.setattr(slurm_module, "LOST_AFTER", 2.0)
    trap(desk, monkeypatch, f'REAL "$@"; kill -KILL {controller_of(own)}; exit 0')
    sweep(desk, 2)

    async def execute() -> hermes.RunResult:
        with anyio.fail_after(WAIT):
            async with hermes.open_run(
                desk.path / "x.hermes", working_directory=desk.path, root=desk.path
            ) as run:
                await anyio.sleep(2)
                own.stop_controller()
                shutil.rmtree(own.folder / "state")
                (own.folder / "state").mkdir()
                own.start_controller()
            return run.result

    result = anyio.run(execute)
    assert result.ok, result
    check_once(desk, 2)


def test_no_controller_at_all_is_told_and_nothing_is_made(desk: Desk, own: Cluster) -> None:
    own.stop_controller()
    sweep(desk, 1)
    told = desk.hermes("exec", "-f", "x.hermes", code=2, timeout=WAIT).stderr
    assert told.startswith("error: Slurm does not answer: ")
    assert not desk.experiments_folder.exists()


def test_without_slurm_that_is_told(desk: Desk) -> None:
    sweep(desk, 1)
    (desk.path.parent / "empty").mkdir()
    for program in ("sh", "python3"):
        (desk.path.parent / "empty" / program).symlink_to(shutil.which(program) or "")
    told = desk.hermes(
        "exec", "-f", "x.hermes", code=2, env={"PATH": str(desk.path.parent / "empty")}
    ).stderr
    assert (
        told
        == "error: `sbatch` was not found on PATH: there is no Slurm here\nhint: `executor: local` runs jobs on this machine\n"
    )
    assert not desk.experiments_folder.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--partition=nowhere", "Invalid partition name specified"),
        ("--nodes=3", "Requested node configuration is not available"),
        ("--no-such-option", "unrecognized option '--no-such-option'"),
        ("--mem=100 job.sh", "Script arguments not permitted with --wrap option"),
    ],
)
def test_options_that_slurm_refuses(desk: Desk, cluster: Cluster, options: str, said: str) -> None:
    desk.write(
        "x.hermes",
        f"PRE\nexecutor: slurm\nEXEC\n[[sh, job.sh, 1]]\n[[sh, job.sh, 2],[-s '{options}']]\n",
    )
    before = arrays(desk, cluster)
    told = desk.hermes("exec", "-f", "x.hermes", code=2).stderr
    assert told.startswith(f"error: Slurm refuses `{options}`: ")
    assert "line 5" in told
    assert said in told or "--help" in told
    assert not desk.experiments_folder.exists()
    assert arrays(desk, cluster) == before


def test_options_are_passed_on_and_group_the_jobs(
    desk: Desk, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What Hermes relies upon cannot be changed by the environment
    for name, value in (
        ("SBATCH_ARRAY_INX", "0-3"),
        ("SBATCH_WAIT", "1"),
        ("SBATCH_JOB_NAME", "x"),
        ("SQUEUE_FORMAT", "%i"),
        ("SQUEUE_STATES", "F"),
    ):
        monkeypatch.setenv(name, value)
    desk.write("job.sh", 'scontrol show job "$SLURM_JOB_ID"\n')
    desk.write(
        "x.hermes",
        "PRE\nexecutor: slurm\nthreads: 4\nslurm: --time=5 --comment='from PRE'\nSTD-H\n-s --time=6\nEXEC\n"
        "[[sh, job.sh, 0],[-s '--cpus-per-task=2 --nice=7']]\n[[sh, job.sh, 1]]\n[[sh, job.sh, 2],[--slurm=--time=7]]\n[[sh, job.sh, 3]]\n",
    )
    desk.hermes("exec", "-f", "x.hermes", timeout=WAIT)
    shown = {
        each.argv[-1]: dict(re.findall(r"(\w+)=(\S*)", each.stdout)) for each in desk.experiments()
    }
    assert [shown[str(n)]["TimeLimit"] for n in range(4)] == [
        "00:06:00",
        "00:06:00",
        "00:07:00",
        "00:06:00",
    ]
    assert [shown[str(n)]["NumCPUs"] for n in range(4)] == ["2", "1", "1", "1"]
    assert len({shown[str(n)]["ArrayJobId"] for n in range(4)}) == 3
    assert shown["1"]["ArrayJobId"] == shown["3"]["ArrayJobId"]
    options = {each.argv[-1]: each.metadata["options"]["slurm"] for each in desk.experiments()}
    assert options["0"] == ["--time=6", "--cpus-per-task=2 --nice=7"]
    again = (
        next(each.directory for each in desk.experiments() if each.argv[-1] == "0")
        / "re_execution.hermes"
    )
    plan = hermes.compile_file(again, working_directory=desk.path)
    assert [job.options.slurm for job in plan.jobs] == [("--time=6", "--cpus-per-task=2 --nice=7")]
    assert plan.settings.slurm == "--time=5 --comment='from PRE'"


def test_arrays_are_split_and_still_keep_to_threads(
    desk: Desk, slurm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 'mkdir -p running; touch "running/$1"; ls running | wc -l; sleep 0.4; rm "running/$1"\n'
    desk.write("job.sh", count + JOB.replace('while [ -e "hold$2" ]; do sleep 0.02; done', ":"))
    sweep(desk, 8, threads=2)
    with Cluster({"MaxArraySize": "3"}) as cluster:
        use(cluster, monkeypatch)
        desk.hermes("exec", "-f", "x.hermes", timeout=WAIT)
        assert len(arrays(desk, cluster)) == 3
    assert sorted(started(desk)) == [str(n) for n in range(8)]
    assert max(int(each.stdout.split()[0]) for each in desk.experiments()) <= 2


# Nodes, limits, and people


def test_a_node_that_fails_gives_its_job_to_another(desk: Desk, own: Cluster) -> None:
    with held_client(desk) as client:
        node = until(lambda: re.search(r"attempt on (n\d)", desk.experiment().stdout))
        own.fail_node(node[1])
        until(lambda: len(started(desk)) == 2)
        (desk.path / "hold0").unlink()
        _, told = client.communicate(timeout=WAIT)
    assert client.returncode == 0, told
    other = next(each for each in NODES if each != node[1])
    experiment = desk.experiment()
    assert experiment.stdout == f"attempt on {node[1]}\nattempt on {other}\ngoes on\n"
    assert (
        experiment.status,
        experiment.metadata["attempts"],
        experiment.metadata["slurm"]["node"],
    ) == ("finished", 2, other)
    assert ended(desk) == ["0"]
    assert desk.leftovers(experiment.identifier) == []
    assert set(desk.tree(experiment.directory, own=True)) == {f"state_{experiment.identifier}.txt"}


def test_a_node_that_fails_with_a_job_that_must_not_be_repeated(desk: Desk, own: Cluster) -> None:
    sweep(desk, 1, options="--no-requeue")
    desk.write("hold0")

    def fail() -> None:
        until(lambda: started(desk) == ["0"])
        node = until(lambda: re.search(r"attempt on (n\d)", desk.experiment().stdout))
        own.fail_node(node[1])

    failing = threading.Thread(target=fail)
    failing.start()
    result = execute_with_an_impatient_client(desk)
    failing.join()
    assert not result.ok
    (desk.path / "hold0").unlink()
    lost = desk.experiment()
    assert (lost.status, lost.problems) == (Status.LOST, ("the node failed",))
    assert set(desk.tree(lost.directory, own=True)) == {f"state_{lost.identifier}.txt"}
    assert desk.leftovers(lost.identifier) == []
    desk.hermes("resume", timeout=WAIT)
    assert [each.status for each in desk.experiments()] == [Status.LOST, Status.FINISHED]


def test_a_job_that_was_lost_while_nobody_followed_is_run_again(desk: Desk, own: Cluster) -> None:
    sweep(desk, 2, options="--no-requeue", threads=2)
    desk.write("hold0")
    with desk.started("exec", "-f", "x.hermes") as client:
        # Both may be on the node that is to fail
        until(lambda: sorted(each.status for each in desk.experiments()) == ["finished", "running"])
        client.kill()
        client.wait()
    (first,) = [each for each in desk.experiments() if each.argv[-1] == "0"]
    own.fail_node(first.metadata["slurm"]["node"])
    (desk.path / "hold0").unlink()
    told = desk.hermes("resume", timeout=WAIT).stderr
    assert "problem: the node failed" in told
    assert "x: 2 jobs in" in told
    assert ended(desk) == ["0", "1"]
    assert Counter(each.status for each in desk.experiments()) == {"lost": 1, "finished": 2}
    assert max(each.metadata["attempts"] for each in desk.experiments()) == 2


def test_a_node_killed_between_its_last_two_words(desk: Desk, cluster: Cluster) -> None:
    """The experiment is final, and what tells the client so is missing."""
    with held_client(desk) as client:
        client.kill()
        client.wait()
    (desk.path / "hold0").unlink()
    sign = until(lambda: next(desk.experiments_folder.glob(".hermes/*/slurm/0.0.ended"), None))
    sign.unlink()
    assert "1 finished; results" in desk.hermes("resume", timeout=WAIT).stderr
    check_once(desk, 1)


def test_folders_may_have_any_name(tmp_path: Path, cluster: Cluster) -> None:
    path = tmp_path.resolve() / "a 'b' %a $HOME"
    path.mkdir()
    desk = Desk(path)
    desk.write("job.sh", JOB)
    sweep(desk, 1)
    desk.hermes("exec", "-f", "x.hermes", "-n", "ä b", timeout=WAIT)
    check_once(desk, 1)


def test_a_requeued_job_goes_on_in_its_directory(desk: Desk, cluster: Cluster) -> None:
    desk.write("job.sh", f"trap 'echo saved > \"saved_$1.txt\"; exit 143' TERM\n{JOB}")
    with held_client(desk) as client:
        first = desk.experiment()
        cluster.requeue(first.metadata["slurm"]["job"])
        until(lambda: len(started(desk)) == 2)
        (desk.path / "hold0").unlink()
        _, told = client.communicate(timeout=WAIT)
    assert client.returncode == 0, told
    experiment = desk.experiment()
    assert experiment.identifier == first.identifier
    assert (experiment.status, experiment.exit_code, experiment.metadata["attempts"]) == (
        "finished",
        0,
        2,
    )
    assert experiment.stdout.count("attempt on") == 2
    assert experiment.stdout.endswith("goes on\n")
    assert set(desk.tree(experiment.directory, own=True)) == {
        f"{kind}_{experiment.identifier}.txt" for kind in ("state", "saved")
    }
    assert {file.path for file in experiment.files} == set(
        desk.tree(experiment.directory, own=True)
    )
    assert desk.leftovers(experiment.identifier) == []


def test_scancel_from_outside(desk: Desk, cluster: Cluster) -> None:
    with held_client(desk, 3, threads=1) as client:
        array, _, _ = desk.experiment().metadata["slurm"]["job"].partition("_")
        cluster.call("scancel", array)
        _, told = client.communicate(timeout=WAIT)
    assert client.returncode == 1
    experiment = desk.experiment()
    assert experiment.status == Status.CANCELLED
    assert experiment.problems == ("cancelled from outside: by `scancel`, or by an administrator",)
    assert set(desk.tree(experiment.directory, own=True)) == {f"state_{experiment.identifier}.txt"}
    assert told.count("cancelled while it was queued") == 2
    (desk.path / "hold0").unlink()
    desk.hermes("resume", timeout=WAIT)
    assert Counter(each.status for each in desk.experiments()) == {"cancelled": 1, "finished": 3}


def test_a_time_limit_leaves_partial_results(desk: Desk, cluster: Cluster) -> None:
    with held_client(desk) as client:
        cluster.expire(desk.experiment().metadata["slurm"]["job"])
        _, told = client.communicate(timeout=WAIT)
    assert client.returncode == 1
    assert told.splitlines()[-1].startswith("x: 1 job in ")
    assert "1 timeout" in told
    experiment = desk.experiment()
    assert (experiment.status, experiment.problems) == (Status.TIMEOUT, ())
    assert set(desk.tree(experiment.directory, own=True)) == {f"state_{experiment.identifier}.txt"}
    assert desk.leftovers(experiment.identifier) == []


@pytest.mark.skipif(not LONG, reason="takes a minute: only in `nox -s faults`")
def test_the_warning_before_a_time_limit_is_passed_on(desk: Desk, cluster: Cluster) -> None:
    # It leaves when it is told to, and takes longer than the cluster would give it at the limit itself
    desk.write("job.sh", f"trap 'sleep 3; echo saved > \"saved_$1.txt\"; exit 143' TERM\n{JOB}")
    sweep(desk, 1, options="--time=1")
    desk.write("hold0")
    assert "1 timeout" in desk.hermes("exec", "-f", "x.hermes", code=1, timeout=120).stderr
    experiment = desk.experiment()
    assert (experiment.status, experiment.exit_code) == (Status.TIMEOUT, 143)
    assert set(desk.tree(experiment.directory, own=True)) == {
        f"{kind}_{experiment.identifier}.txt" for kind in ("state", "saved")
    }


EATER = "import sys\nopen('part_' + sys.argv[1], 'w').close()\nwanted = b'x' * (600 << 20)\nimport time\ntime.sleep(60)\n"


def execute_with_an_impatient_client(desk: Desk) -> hermes.RunResult:
    """Silence makes it ask after 3 s."""

    async def execute() -> hermes.RunResult:
        with anyio.fail_after(WAIT), pytest.MonkeyPatch.context() as patch:
            patch.setattr(slurm_module, "ALIVE", 3.0)
            patch.setattr(slurm_module, "LAST_ASK", 3.0)
            return await hermes.run_file(
                desk.path / "x.hermes", working_directory=desk.path, root=desk.path
            )

    return anyio.run(execute)


def check_out_of_memory(desk: Desk) -> None:
    desk.write("eat.py", EATER)
    desk.write("x.hermes", "PRE\nexecutor: slurm\nslurm: --mem=200\nEXEC\n[[python, eat.py]]\n")
    execute_with_an_impatient_client(desk)
    experiment = desk.experiment()
    assert (experiment.status, experiment.problems) == (
        Status.FAILED,
        ("out of memory: Slurm killed it",),
    )
    assert set(desk.tree(experiment.directory, own=True)) == {f"part_{experiment.identifier}"}
    assert desk.leftovers(experiment.identifier) == []


def test_out_of_memory_kills_the_node_s_process_too(desk: Desk, cluster: Cluster) -> None:
    check_out_of_memory(desk)


@pytest.mark.skipif(
    Cluster.no_memory_cgroups() is not None, reason=str(Cluster.no_memory_cgroups())
)
def test_out_of_memory_in_a_cgroup(
    desk: Desk, slurm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cluster(memory_cgroups=True) as cluster:
        use(cluster, monkeypatch)
        check_out_of_memory(desk)


def test_a_node_that_says_nothing_any_more(
    desk: Desk, own: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What watches the job is killed with it, and Slurm goes on to say that it runs."""
    monkeypatch.setattr(slurm_module, "STALE", 3.0)
    monkeypatch.setattr(slurm_module, "ALIVE", 2.0)
    monkeypatch.setattr(slurm_module, "LAST_ASK", 2.0)
    sweep(desk, 1)
    desk.write("hold0")

    async def execute() -> hermes.RunResult:
        with anyio.fail_after(WAIT):
            async with hermes.open_run(
                desk.path / "x.hermes", working_directory=desk.path, root=desk.path
            ) as run:
                await desk.until(lambda: started(desk))
                alive = processes_of("SLURM_CONF")
                pids = {pid for node in NODES for pid in alive.get(f"{own.folder}/{node}.conf", ())}
                for pid in pids - {process.pid for process in own._daemons.values()}:
                    os.kill(pid, signal.SIGKILL)
            return run.result

    result = anyio.run(execute)
    (outcome,) = result.outcomes
    assert outcome.status == Status.LOST
    assert set(desk.tree(desk.experiment().directory, own=True)) == {
        f"state_{outcome.identifier}.txt"
    }


def test_a_node_that_cannot_start_a_job_says_why(desk: Desk, cluster: Cluster) -> None:
    sweep(desk, 1)
    desk.write("broken/anyio.py", "raise SystemExit('this node is not as the client is')\n")
    desk.write(
        "sitecustomize.py",
        "import os, sys\nif 'SLURM_JOB_ID' in os.environ: sys.path.insert(0, 'broken')\n",
    )
    path = os.pathsep.join(filter(None, [str(desk.path), os.environ.get("PYTHONPATH")]))
    told = desk.hermes(
        "exec", "-f", "x.hermes", code=1, env={"PYTHONPATH": path}, timeout=WAIT
    ).stderr
    assert "problem: the node could not start it: this node is not as the client is" in told
    assert "Traceback" not in told


# Figures


@pytest.mark.skipif(not LONG, reason="takes two minutes: only in `nox -s faults`")
@pytest.mark.timeout(300)
def test_squeue_is_called_seldom(
    desk: Desk, own: Cluster, monkeypatch: pytest.MonkeyPatch, record_property: RecordProperty
) -> None:
    real = shutil.which("squeue")
    desk.program("bin/squeue", f'#!/bin/sh\necho >> {desk.path}/asked\nexec {real} "$@"\n')
    monkeypatch.setenv("PATH", f"{desk.path}/bin{os.pathsep}{os.environ['PATH']}")
    sweep(desk, 1000)
    with own.held(), desk.started("exec", "-f", "x.hermes") as client:
        until(lambda: lines(desk.path / "asked"))
        time.sleep(120)
        count = len(lines(desk.path / "asked"))
        client.send_signal(signal.SIGINT)
        client.communicate(timeout=WAIT)
    record_property("calls_in_two_minutes", count)
    assert count <= 8
    desk.hermes("stop", timeout=WAIT)


# Slurm's output


QUEUE = """\
3_0|CANCELLED|None|0|n2|hermes-a
3_6|PENDING|JobArrayTaskLimit|0||hermes-a
3_5|PENDING|JobArrayTaskLimit,JobHeldAdmin|1||hermes-a
3_1|OUT_OF_MEMORY|OutOfMemory|0|n1|hermes-a
3_2|NODE_FAIL|NodeDown|0|n1|a|b, "c"
3_[7-9%3]|PENDING|Priority|0||hermes-a
4|COMPLETED|None|0|n1|job.sh
5_1|CANCELLED by 1000|launch failed requeued held|0|n1|hermes-a
"""
"""Of Slurm 22.05; a list of tasks that is not taken apart, and what is no array's, are none of ours."""


def test_the_queue_is_read() -> None:
    assert parse_queue(QUEUE) == [
        Row("3", 0, "CANCELLED", "None", 0, "n2", "hermes-a"),
        Row("3", 6, "PENDING", "JobArrayTaskLimit", 0, "", "hermes-a"),
        Row("3", 5, "PENDING", "JobArrayTaskLimit,JobHeldAdmin", 1, "", "hermes-a"),
        Row("3", 1, "OUT_OF_MEMORY", "OutOfMemory", 0, "n1", "hermes-a"),
        Row("3", 2, "NODE_FAIL", "NodeDown", 0, "n1", 'a|b, "c"'),
        Row("5", 1, "CANCELLED", "launch failed requeued held", 0, "n1", "hermes-a"),
    ]
    assert parse_queue("") == parse_queue("slurm_load_jobs error: Invalid job id specified\n") == []


def test_the_configuration_is_read() -> None:
    lines = (
        "Configuration data as of 2026-11-22T17:22:43",
        "MaxArraySize            = 11",
        "MaxJobCount = 9",
        "MessageTimeout          = 5 sec",
    )
    assert parse_limits("\n".join(lines)) == Limits(11, 9, 5.0)
    assert parse_limits("") == Limits(1001, 10_000, 10.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:29", 29),
        ("1:00", 60),
        ("2:03:04", 7384),
        ("1-00:00:01", 86401),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_durations_are_read(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid name\n",
         "Batch job submission failed: Invalid name"),
        ("allocation failure: Requested node configuration is not available\n\n",
         "allocation failure: Requested node configuration is not available"),
        ("slurm_load_jobs error: Unable to contact slurm controller\n", "slurm_load_jobs error: Unable to contact slurm controller"),
        ("\n", ""),
    ],
)  # fmt: skip
def test_the_last_line_says_why(text: str, line: str) -> None:
    assert last_line(text) == line


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-22T17:30:44 ***\n", "CANCELLED"),
        ("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-22 DUE TO TIME LIMIT ***\n", "TIMEOUT"),
        ("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-22 DUE TO JOB REQUEUE ***\n", "REQUEUED"),
        ("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-22 DUE TO PREEMPTION ***\n", "PREEMPTED"),
        ("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-22 DUE TO NODE FAILURE, SEE SLURMCTLD LOG ***\n", "NODE_FAIL"),
        ("slurmstepd-n1: error: StepId=1.batch exceeded memory limit (329801728 > 104857600), being killed\n", "OUT_OF_MEMORY"),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=1.batch. Some of your processes\n", "OUT_OF_MEMORY"),
        # 23.02 and later
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=1.batch. Some of the step tasks\n", "OUT_OF_MEMORY"),
        ("hello\n", None),
        # What an earlier start has left
        ("*** JOB 7 ON n1 CANCELLED AT x DUE TO JOB REQUEUE ***\nhermes.executors.slurm.node: 7_0 is task 0.0, start 2\n", None),
    ],
)  # fmt: skip
def test_why_slurm_ends_a_job(log: str, cause: str | None) -> None:
    assert cause_in(log) == cause


@pytest.mark.parametrize(
    ("state", "status", "problem"),
    [
        ("TIMEOUT", "timeout", None),
        ("DEADLINE", "timeout", "it would not have ended before its deadline"),
        ("CANCELLED", "cancelled", "cancelled from outside: by `scancel`, or by an administrator"),
        ("PREEMPTED", "cancelled", "preempted by another job"),
        ("OUT_OF_MEMORY", "failed", "out of memory: Slurm killed it"),
        ("NODE_FAIL", "lost", "the node failed"),
        ("BOOT_FAIL", "lost", "the node could not be started"),
        ("FAILED", "lost", "Slurm says FAILED (why)"),
        ("SOMETHING_NEW", "lost", "Slurm says SOMETHING_NEW (why)"),
        (None, "lost", "Slurm does not know it any more"),
    ],
)
def test_what_becomes_of_a_job_that_its_node_could_not_finish(
    state: str | None, status: str, problem: str | None
) -> None:
    outcome = judged(Outcome("x", "x", "/x", Status.LOST), state, "why")
    assert (outcome.status, outcome.problems) == (status, () if problem is None else (problem,))
    # Its own exit status says more
    assert (
        judged(Outcome("x", "x", "/x", Status.FINISHED, 0), state, "why").status == Status.FINISHED
    )


def test_own_options_cannot_be_given(desk: Desk) -> None:
    for option in (
        "--array=0-3",
        "-a 1",
        "--wrap=x",
        "-o x",
        "--job-name y",
        "--dependency=afterok:1",
    ):
        desk.write("x.hermes", f"EXEC\n[[sh, job.sh],[-s '{option}']]\n")
        told = desk.hermes("exec", "-f", "x.hermes", code=2).stderr
        assert "is what Hermes itself gives to `sbatch`" in told
        assert "--> x.hermes:2:" in told
    desk.write("x.hermes", "PRE\nslurm: -p 'a\nEXEC\n[[sh, job.sh]]\n")
    assert "cannot be split into words" in desk.hermes("exec", "-f", "x.hermes", code=2).stderr
    desk.write("x.hermes", "PRE\nexecutor: cloud\nEXEC\n[[sh, job.sh]]\n")
    assert "expected `local` or `slurm`" in desk.hermes("exec", "-f", "x.hermes", code=2).stderr
