"""Sites: banners around what Slurm answers, and limits on how much may be submitted."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from hermes.executors.slurm.commands import Commands, Limits, NoAnswerError, NotTakenError, Row
from hermes.executors.slurm.refusals import Meaning

from ..support import LIMIT, Desk, RecordProperty, times, until
from ..support.toy_slurm import COMMANDS, ToySlurm, toy_slurm

pytestmark = [pytest.mark.fault(34)]

BANNERS = {
    "text": b"*** Welcome to cluster X ***\n",
    "lines": b"+-----------+\n| Welcome | to | our | new | big | cluster |\n+-----------+\n\n",
    "numbers": b"97\n2 news\n3;far\nYou have 12_3 jobs\n",
    "colours": b"\x1b[1;31mMaintenance\x1b[0m on \x1b]8;;http://x\x07Monday\x1b]8;;\x07\n",
    "not UTF-8": b"Gr\xfc\xdfe \xff\xfe\x00 des Rechenzentrums\n",
    "remarks": b"sbatch: info: charging account demo\nsqueue: info: slow today\n",
    "errors": b"error: quota nearly full; connection refused, timed out, try again\n",
    "no last line": b"\x1b[32m",
    "long": b"x" * 200_000 + b"\n",
    "returns": b"working...\rdone\r\n",
}

ANSWERS = {
    "sbatch": b"Submitted batch job 123\n",
    "sbatch --parsable": b"123;far\n",
    "squeue": b"JOBID|STATE|REASON|RESTART_COUNT|NODELIST|NAME\n123_0|RUNNING|None|0|n1|hermes-x\n",
    "scancel": b"",
    "scontrol": b"MaxArraySize            = 11\nMaxJobCount = 9\nMessageTimeout = 5 sec\n",
}
"""What is printed when all goes well."""


def ask(command: str) -> object:
    commands = Commands()
    match command.split():
        case ["sbatch", *_]:
            return commands.submit([])
        case ["squeue"]:
            return commands.queue(["hermes-x"])
        case ["scancel"]:
            return commands.cancel_tasks(["123_0"])  # type: ignore[func-returns-value]
    return commands.limits()


EXPECTED: dict[str, object] = {
    "sbatch": "123",
    "sbatch --parsable": "123",
    "squeue": [
        Row(array="123", task=0, state="RUNNING", reason="None", nodes="n1", name="hermes-x")
    ],
    "scancel": None,
    "scontrol": Limits(11, 9, 5.0),
}

CAT = "#!/bin/sh\ncat {folder}/out; cat {folder}/err >&2; exit {code}\n"


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a command on PATH that prints this."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def put(command: str, out: bytes, err: bytes, code: int = 0) -> None:
        (folder / "out").write_bytes(out)
        (folder / "err").write_bytes(err)
        program = folder / command.split()[0]
        if program.exists():
            program.unlink()
        program.write_text(CAT.format(folder=folder, code=code))
        program.chmod(0o755)

    return put


@pytest.mark.parametrize("command", ANSWERS)
def test_an_answer_is_found_whatever_a_site_prints_around_it(
    put: Callable[..., None], record_property: RecordProperty, command: str
) -> None:
    tried = 0
    for kind, before, after, err in itertools.product(
        BANNERS, (False, True), (False, True), (False, True)
    ):
        if command == "sbatch --parsable" and kind == "numbers" and after:
            # Nobody can tell which of the numbers is meant: that is why it is not asked for
            continue
        banner = BANNERS[kind]
        out = before * banner + ANSWERS[command] + after * banner
        put(command, out, err * banner)
        assert ask(command) == EXPECTED[command], (kind, before, after, err)
        tried += 1
    record_property("tried", tried)


@pytest.mark.parametrize("kind", BANNERS)
def test_a_refusal_and_a_lost_answer_are_told_from_banners(
    put: Callable[..., None], record_property: RecordProperty, kind: str
) -> None:
    banner, tried = BANNERS[kind], 0
    known = {
        b"Invalid qos specification": Meaning.REFUSED,
        b"Job violates accounting/QOS policy (job submit limit)": Meaning.FULL,
        b"Socket timed out on send/recv operation": Meaning.UNCLEAR,
    }
    for words, meaning in known.items():
        for before, after, out in itertools.product((b"", banner), repeat=3):
            verdict = b"sbatch: error: Batch job submission failed: " + words + b"\n"
            put("sbatch", out, before + verdict + after, 1)
            with pytest.raises(NotTakenError) as caught:
                Commands().submit([])
            assert caught.value.meaning is meaning, (words, before, after, out)
            assert words.decode() in caught.value.said
            tried += 1
    # A banner alone is no list of jobs: they would all be taken for forgotten
    put("squeue", banner, banner)
    with pytest.raises(NoAnswerError):
        Commands().queue(["hermes-x"])
    record_property("tried", tried + 1)


# Whole runs


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToySlurm:
    return toy_slurm(tmp_path / "toy", monkeypatch)


def sweep(desk: Desk, count: int, threads: int = 2, job: str = 'echo "$2" >> ran\n') -> None:
    desk.write("job.sh", job)
    pre = f"PRE\nexecutor: slurm\nthreads: {threads}\n"
    desk.write("x.hermes", f"{pre}EXEC\nPROD([[sh, job.sh, {{n}}]], n=RANGE[0, {count}])\n")


def check_once(desk: Desk, count: int) -> None:
    numbers = [str(number) for number in range(count)]
    assert sorted((desk.path / "ran").read_text().split(), key=int) == numbers
    assert sorted((each.argv[-1] for each in desk.experiments()), key=int) == numbers
    assert {each.status for each in desk.experiments()} == {"finished"}


@pytest.mark.parametrize("kind", ["numbers", "colours", "not UTF-8", "errors"])
def test_a_run_where_everything_prints_banners(desk: Desk, toy: ToySlurm, kind: str) -> None:
    banner = toy.folder / "banner"
    banner.write_bytes(BANNERS[kind])
    for command in COMMANDS:
        for put in (toy.before, toy.after):
            put(command, "cat $toy/banner; cat $toy/banner >&2\n")
    sweep(desk, 3)
    told = desk.hermes("exec", "-f", "x.hermes", timeout=LIMIT).stderr
    assert "warning" not in told
    check_once(desk, 3)
    assert len(toy.submitted) == 1


def test_what_belongs_to_others_is_never_cancelled(desk: Desk, toy: ToySlurm) -> None:
    """A banner's number may be the id of another job of this user."""
    toy.after("sbatch", "echo 97; echo Submitted batch job 98\n")
    sweep(desk, 3)
    for task in ("97_0", "98_0"):
        (toy.folder / "tasks" / task).write_text("PENDING|other")
    with toy.held():
        with desk.started("exec", "-f", "x.hermes") as client:
            # The second question comes when the first answer has been acted upon
            until(lambda: len(toy.calls("squeue")) > 1)
            assert set(toy.states.values()) == {"PENDING"}
            client.kill()
        desk.hermes("stop", timeout=LIMIT)
        others = {task: toy.states.pop(task) for task in ("97_0", "98_0")}
        assert set(others.values()) == {"PENDING"}
        assert {toy.states[f"1_{number}"] for number in range(3)} == {"CANCELLED"}


POLICY = (
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy"
    " (job submit limit, user's size and/or time limits)"
)


@pytest.mark.parametrize(
    ("most", "said"),
    [
        (3, POLICY),
        (1, f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}"),
        (5, "sbatch: error: Batch job submission failed: Resource temporarily unavailable"),
    ],
)
def test_a_run_larger_than_what_may_be_submitted_waits_and_comes_to_its_end(
    desk: Desk, toy: ToySlurm, record_property: RecordProperty, most: int, said: str
) -> None:
    count = times(7, 60)
    record_property("tried", count)
    toy.limit(most, said)
    sweep(desk, count, job='sleep 0.1; echo "$2" >> ran\n')
    told = desk.hermes("exec", "-f", "x.hermes", timeout=times(55, 500)).stderr
    assert f"{count} finished" in told
    assert "Slurm takes no jobs now, trying again" in told
    check_once(desk, count)


def test_an_array_that_is_too_large_is_submitted_in_parts(desk: Desk, toy: ToySlurm) -> None:
    """`scontrol` has not told the limit, and nothing has to end before the parts are taken."""
    toy.before(
        "sbatch",
        'case " $* " in *" --array=0-"[0-2]%*|*--test-only*) ;; *) echo "sbatch: error: Batch job'
        ' submission failed: Invalid job array specification" >&2; exit 1;; esac\n',
    )
    sweep(desk, 8, threads=9)
    with toy.held(), desk.started("exec", "-f", "x.hermes") as client:
        until(lambda: toy.accepted(desk) == 4)
        client.kill()
    desk.hermes("resume", timeout=LIMIT)
    check_once(desk, 8)


def test_a_client_killed_among_halves_repeats_nothing(
    desk: Desk, toy: ToySlurm, record_property: RecordProperty
) -> None:
    kills = times(3, 30)
    record_property("tried", kills)
    toy.limit(2, POLICY)
    sweep(desk, 9, job='sleep 0.05; echo "$2" >> ran\n')
    arguments = ["exec", "-f", "x.hermes"]
    for _ in range(kills):
        calls = len(toy.submitted)

        def is_among_halves(calls: int = calls) -> bool:
            return len(toy.submitted) > calls + 1

        with desk.started(*arguments) as client:
            until(is_among_halves)
            client.kill()
        arguments = ["resume"]
    (toy.folder / "most").unlink()
    with desk.started(*arguments) as client:
        client.communicate(timeout=LIMIT)
    check_once(desk, 9)


@pytest.mark.parametrize("limit", ["QOSMaxWallDurationPerJobLimit", "AssocMaxCpuPerJobLimit"])
def test_a_limit_on_the_job_itself_is_told_before_the_start(
    desk: Desk, toy: ToySlurm, limit: str
) -> None:
    said = shlex.quote(f"sbatch: error: {limit}\n{POLICY}")
    toy.before("sbatch", f"echo {said} >&2; exit 1\n")
    sweep(desk, 2)
    told = desk.hermes("exec", "-f", "x.hermes", code=2).stderr
    assert told.startswith(f"error: Slurm refuses jobs without options: {limit}: ")
    assert not desk.experiments_folder.exists()


def test_a_full_queue_at_the_start_is_no_error(desk: Desk, toy: ToySlurm) -> None:
    toy.before("sbatch", f"[ ! -e $toy/full ] || {{ echo {shlex.quote(POLICY)} >&2; exit 1; }}\n")
    (toy.folder / "full").touch()
    sweep(desk, 2)
    with desk.started("exec", "-f", "x.hermes") as client:
        until(lambda: len(toy.submitted) > 1)
        (toy.folder / "full").unlink()
        _, told = client.communicate(timeout=LIMIT)
    assert client.returncode == 0, told
    check_once(desk, 2)
