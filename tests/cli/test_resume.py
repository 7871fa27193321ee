"""Which jobs a resumed run starts, and which run that is."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter

import pytest

import hermes
from hermes.executors.local import LocalExecutor
from hermes.storage.run_folder import RunFolder

from ..support import Desk, until
from ..support.sweeps import check_all_done, ledger, sweep

pytestmark = [
    pytest.mark.fault(1),
    pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc"),
]


def test_resume_goes_on_with_a_cancelled_run(desk: Desk) -> None:
    sweep(desk, "0, 0, 0", threads=1)
    desk.write("hold0")
    with desk.started("exec", "-f", "s.hermes") as runner:
        until(lambda: list(desk.path.glob("early_*")))
        runner.send_signal(signal.SIGINT)
        _, told = runner.communicate()
    assert "1 cancelled, 2 never started" in told
    assert "`hermes resume` goes on" in told
    (desk.path / "hold0").unlink()
    desk.hermes("resume")
    assert Counter(each.status for each in desk.experiments()) == {"cancelled": 1, "finished": 3}
    assert "no unfinished run" in desk.hermes("resume", code=2).stderr


def test_resume_leaves_a_run_in_progress_alone(desk: Desk) -> None:
    sweep(desk, "0")
    desk.write("hold0")
    with desk.started("exec", "-f", "s.hermes") as runner:
        until(lambda: list(desk.path.glob("early_*")))
        assert "still in progress" in desk.hermes("resume", code=2).stderr
        (desk.path / "hold0").unlink()
        assert runner.wait() == 0
    check_all_done(desk, 1)


@pytest.mark.anyio
async def test_resume_that_fails_leaves_the_run_free(desk: Desk) -> None:
    sweep(desk, "3")
    desk.hermes("exec", "-f", "s.hermes", code=1)

    class WithoutCluster(LocalExecutor):
        async def held(self, folder: RunFolder, *, failed: bool) -> set[str]:
            raise hermes.HermesError("there is no cluster")

    with pytest.raises(hermes.HermesError, match="there is no cluster"):
        async with hermes.open_resumed(working_directory=desk.path, executor=WithoutCluster()):
            pass
    async with hermes.open_resumed(working_directory=desk.path) as run:
        pass
    assert run.result.failed_before == 1


def test_resume_chooses_by_name_or_id_and_tells_of_torn_records(desk: Desk) -> None:
    sweep(desk, "3")
    for name in ("one", "two"):
        desk.hermes("exec", "-f", "s.hermes", "-n", name, code=1)
    records = sorted((desk.experiments_folder / ".hermes").glob("*/run.json"))
    assert "one: 1 job" in desk.hermes("resume", "-n", "one", code=1).stderr
    first = json.loads(records[0].read_text())
    assert f"{first['name']}: 1 job" in desk.hermes("resume", first["run_id"], code=1).stderr
    for torn in (
        b"",
        b"{",
        b"[]",
        b'{"format": 99}',
        b'{"format": 1, "run_id": "x", "name": "y", "recipe": {"working_directory": 1}}',
    ):
        for record in records:
            record.write_bytes(torn)
        assert desk.hermes("resume", code=2).stderr.startswith("error: there is no unfinished run")
        assert [record.read_bytes() for record in records] == [torn] * 2


def test_resume_executes_the_plan_with_which_the_run_began(desk: Desk) -> None:
    sweep(desk, "0, 3")
    desk.hermes("exec", "-f", "s.hermes", code=1)
    desk.write("s.hermes", "EXEC\n[[sh, job.sh, 7]]\n")
    desk.write(".hermes_settings", "path_to_experiments: elsewhere\n")
    (desk.path / ".hermes_settings").unlink()
    desk.hermes("resume", "--failed", code=1)
    assert [each.argv[-1] for each in desk.experiments()] in (["0", "3", "3"], ["3", "0", "3"])


def test_exec_resume_runs_what_is_missing_under_the_name(desk: Desk) -> None:
    sweep(desk, "0")
    desk.hermes("exec", "-f", "s.hermes", "-n", "study")
    sweep(desk, "0, 3, 0")
    # The first 0 has succeeded; the second is its repetition, and another job
    desk.hermes("exec", "-f", "s.hermes", "-n", "study", "--resume", code=1)
    assert sorted(code for code, _ in ledger(desk)) == ["0", "0", "3"]
    desk.hermes("exec", "-f", "s.hermes", "-n", "study", "--resume", code=1)
    assert sorted(code for code, _ in ledger(desk)) == ["0", "0", "3", "3"]
    desk.hermes("exec", "-f", "s.hermes", "-n", "other", "--resume", code=1)
    assert len(ledger(desk)) == 7
