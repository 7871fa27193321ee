"""Submitting to a real cluster: answers that are late or missing, options, limits."""

from __future__ import annotations

import os
import re
import shutil
import time

import anyio
import pytest

import hermes
from hermes.timing import Timing

from ...support import Desk, until
from .clients import (
    JOB,
    WAIT,
    arrays,
    check_once,
    opened,
    started,
    sweep,
    use,
)
from .cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]


SBATCH = """\
#!/bin/sh
case " $* " in
*" --test-only "*) ;;
*) if [ -e "$0.trap" ]; then mv "$0.trap" "$0.sprung"; . "$0.sprung"; fi;;
esac
exec {real} "$@"
"""
"""Instead of `sbatch`: executes some shell code before the first submission."""


TIMED_OUT = (
    'echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2'
    "; exit 1"
)


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
        f'REAL "$@"; {TIMED_OUT}',
    )
    sweep(desk, 3)
    desk.hermes("exec", "-f", "x.hermes", timeout=WAIT)
    check_once(desk, 3)
    assert len(arrays(desk, own)) == 1


def test_accepted_so_late_that_it_was_submitted_again(
    desk: Desk, own: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = f'(sleep 7; REAL "$@") >/dev/null 2>&1 & {TIMED_OUT}'
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
    trap(desk, monkeypatch, f'REAL "$@"; kill -KILL {controller_of(own)}; exit 0')
    sweep(desk, 2)

    async def execute() -> hermes.RunResult:
        with anyio.fail_after(WAIT):
            async with opened(desk, Timing(slurm_lost_after=2.0)) as run:
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
        told == "error: `sbatch` was not found on PATH: there is no Slurm here\n"
        "hint: `executor: local` runs jobs on this machine\n"
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
        "PRE\nexecutor: slurm\nthreads: 4\nslurm: --time=5 --comment='from PRE'\n"
        "STD-H\n-s --time=6\nEXEC\n"
        "[[sh, job.sh, 0],[-s '--cpus-per-task=2 --nice=7']]\n[[sh, job.sh, 1]]\n"
        "[[sh, job.sh, 2],[--slurm=--time=7]]\n[[sh, job.sh, 3]]\n",
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
    options = {each.argv[-1]: each.metadata.options.slurm for each in desk.experiments()}
    assert options["0"] == ("--time=6", "--cpus-per-task=2 --nice=7")
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


@pytest.mark.fault(34)
def test_banners_around_everything(desk: Desk, cluster: Cluster) -> None:
    banner = desk.path.parent / "banner"
    banner.write_bytes(b"Gr\xfc\xdfe\n97\n\x1b[31m2 news | a | b | c | d | e\n3;far\n\x1b[0m")
    shown = f"cat {banner}; cat {banner} >&2"
    for command in ("sbatch", "squeue", "scancel", "scontrol"):
        script = f'#!/bin/sh\n{shown}; {shutil.which(command)} "$@"; rc=$?; {shown}; exit $rc\n'
        desk.program(f"bin/{command}", script)
    path = f"{desk.path}/bin{os.pathsep}{os.environ['PATH']}"
    sweep(desk, 3)
    before = arrays(desk, cluster)
    told = desk.hermes("exec", "-f", "x.hermes", timeout=WAIT, env={"PATH": path}).stderr
    assert "warning" not in told
    check_once(desk, 3)
    assert len(arrays(desk, cluster) - before) == 1


@pytest.mark.fault(34)
def test_an_array_larger_than_the_cluster_takes_is_submitted_in_parts(
    desk: Desk, slurm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`scontrol` has not told so."""
    desk.program("bin/scontrol", "#!/bin/sh\nexit 1\n")
    monkeypatch.setenv("PATH", f"{desk.path}/bin{os.pathsep}{os.environ['PATH']}")
    sweep(desk, 7, threads=2)
    with Cluster({"MaxArraySize": "3"}) as cluster:
        use(cluster, monkeypatch)
        desk.hermes("exec", "-f", "x.hermes", timeout=WAIT)
    check_once(desk, 7)
