"""Nodes, limits and people with `scancel`, on a real cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

import hermes
from hermes import Status
from hermes.executors.proc import processes_of
from hermes.timing import Timing

from ...support import LONG, Desk, until
from .clients import (
    JOB,
    WAIT,
    check_once,
    ended,
    held_client,
    opened,
    started,
    sweep,
    texts,
    use,
    where,
)
from .cluster import NODES, Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]


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
        experiment.metadata.attempts,
        experiment.metadata.restarts,
        where(experiment).node,
    ) == ("finished", 1, 1, other)
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
    assert (lost.status, texts(lost)) == (Status.LOST, ["the node failed"])
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
    own.fail_node(where(first).node or "")
    (desk.path / "hold0").unlink()
    told = desk.hermes("resume", timeout=WAIT).stderr
    assert "problem: the node failed" in told
    assert "x: 2 jobs in" in told
    assert ended(desk) == ["0", "1"]
    assert Counter(each.status for each in desk.experiments()) == {"lost": 1, "finished": 2}
    assert max(each.metadata.attempts for each in desk.experiments()) == 2


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
        cluster.requeue(where(first).job)
        until(lambda: len(started(desk)) == 2)
        (desk.path / "hold0").unlink()
        _, told = client.communicate(timeout=WAIT)
    assert client.returncode == 0, told
    experiment = desk.experiment()
    assert experiment.identifier == first.identifier
    assert (experiment.status, experiment.exit_code) == ("finished", 0)
    assert (experiment.metadata.attempts, experiment.metadata.restarts) == (1, 1)
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
        array, _, _ = where(desk.experiment()).job.partition("_")
        cluster.call("scancel", array)
        _, told = client.communicate(timeout=WAIT)
    assert client.returncode == 1
    experiment = desk.experiment()
    assert experiment.status == Status.CANCELLED
    assert texts(experiment) == ["cancelled from outside: by `scancel`, or by an administrator"]
    assert set(desk.tree(experiment.directory, own=True)) == {f"state_{experiment.identifier}.txt"}
    assert told.count("cancelled while it was queued") == 2
    (desk.path / "hold0").unlink()
    desk.hermes("resume", timeout=WAIT)
    assert Counter(each.status for each in desk.experiments()) == {"cancelled": 1, "finished": 3}


def test_scancel_of_an_array_as_a_whole_is_not_undone(desk: Desk, cluster: Cluster) -> None:
    """As with `scancel -u`: Slurm keeps one row for all its tasks."""
    sweep(desk, 3)
    with cluster.held(), desk.started("exec", "-f", "x.hermes") as client:
        until(lambda: list(desk.experiments_folder.glob(".hermes/*/slurm/0.job")))
        (record,) = desk.experiments_folder.glob(".hermes/*/slurm/0.json")
        name = json.loads(record.read_text())["job_name"]
        cluster.call("scancel", f"--name={name}")
        _, told = client.communicate(timeout=WAIT)
    assert client.returncode == 1
    assert told.count("cancelled while it was queued") == 3, told
    assert started(desk) == []


def test_a_time_limit_leaves_partial_results(desk: Desk, cluster: Cluster) -> None:
    with held_client(desk) as client:
        cluster.expire(where(desk.experiment()).job)
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
    # It leaves when it is told to, and takes longer than the cluster would give it at the limit
    # itself
    desk.write("job.sh", f"trap 'sleep 3; echo saved > \"saved_$1.txt\"; exit 143' TERM\n{JOB}")
    sweep(desk, 1, options="--time=1")
    desk.write("hold0")
    assert "1 timeout" in desk.hermes("exec", "-f", "x.hermes", code=1, timeout=120).stderr
    experiment = desk.experiment()
    assert (experiment.status, experiment.exit_code) == (Status.TIMEOUT, 143)
    assert set(desk.tree(experiment.directory, own=True)) == {
        f"{kind}_{experiment.identifier}.txt" for kind in ("state", "saved")
    }


EATER = """\
import sys, time
open("part_" + sys.argv[1], "w").close()
wanted = b"x" * (600 << 20)
time.sleep(60)
"""


def execute_with_an_impatient_client(desk: Desk) -> hermes.RunResult:
    """Silence makes it ask after 3 s."""

    async def execute() -> hermes.RunResult:
        with anyio.fail_after(WAIT):
            async with opened(desk, Timing(slurm_alive=3.0, slurm_last_ask=3.0)) as run:
                pass
            return run.result

    return anyio.run(execute)


def check_out_of_memory(desk: Desk) -> None:
    desk.write("eat.py", EATER)
    desk.write("x.hermes", "PRE\nexecutor: slurm\nslurm: --mem=200\nEXEC\n[[python, eat.py]]\n")
    execute_with_an_impatient_client(desk)
    experiment = desk.experiment()
    assert (experiment.status, texts(experiment)) == (
        Status.FAILED,
        ["out of memory: Slurm killed it"],
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
    timing = Timing(slurm_stale=3.0, slurm_alive=2.0, slurm_last_ask=2.0)
    sweep(desk, 1)
    desk.write("hold0")

    async def execute() -> hermes.RunResult:
        with anyio.fail_after(WAIT):
            async with opened(desk, timing) as run:
                await desk.until(lambda: started(desk))
                alive = processes_of("SLURM_CONF")
                pids = {pid for node in NODES for pid in alive.get(f"{own.folder}/{node}.conf", ())}
                for pid in sorted(pids - {process.pid for process in own._daemons.values()}):
                    # The first ones may have been the last ones' parents
                    with suppress(ProcessLookupError):
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
