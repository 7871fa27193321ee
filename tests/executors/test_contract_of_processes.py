"""What every executor does whose jobs are processes: the commands behave the same at all places."""

from __future__ import annotations

import fcntl
import json
import platform
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from ..support import CNN, EXAMPLE, IDENTIFIER, SETTINGS, Desk, all_metadata, until
from .places import PROCESSES, WAIT, use

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=PROCESSES)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use(request.param, request, monkeypatch)
    return str(request.param)


OWN = frozenset(
    {
        "identifier",
        "run_id",
        "start",
        "end",
        "duration",
        "pid",
        "pid_start",
        "host",
        "slurm",
        "slot",
        "boot_id",
    }
)
"""What may differ in the metadata of the same job at two places."""


def test_metadata_are_the_same_everywhere(
    desk: Desk, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.write("job.sh", 'echo x > "made_$1"; echo "$2"; exit 4\n')
    desk.write(
        "x.hermes",
        "PRE\nthreads: 3\nSTD-H\n-ca job.sh\nEXEC\n"
        "PROD([[sh, job.sh, {n}],[-c 'no {n}']], n=[1, 2])\n",
    )
    found = []
    for name in PROCESSES:
        use(name, request, monkeypatch)
        desk.hermes("exec", "-f", "x.hermes", "--executor", name, "-c", "more", code=1)
        metadata = sorted(all_metadata(desk), key=lambda each: str(each["argv"][-1]))
        compared = [{key: each[key] for key in each if key not in OWN} for each in metadata]
        text = IDENTIFIER.sub("ID", json.dumps(compared))
        found.append(text.replace(f'"executor": "{name}"', '"executor": "any"'))
        again = (desk.experiments()[0].directory / "re_execution.hermes").read_text()
        assert f"executor: {name}\n" in again
        assert [each.keys() - OWN for each in metadata] == [metadata[0].keys() - OWN] * 2
        shutil.rmtree(desk.experiments_folder)
    assert found == [found[0]] * len(PROCESSES)


def test_the_page_s_example_gives_the_same_tree(
    desk: Desk, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import sys\nfrom networks.cnn import LAYERS\n"
        "open('weights_%s.json' % sys.argv[1], 'w').write(str(LAYERS))\nprint(sys.argv[2:])\n"
    )
    for name, text in (
        ("example_file.hermes", EXAMPLE),
        (".hermes_settings", SETTINGS),
        ("networks/cnn.py", CNN),
    ):
        desk.write(name, text)
    for name in ("train_dqn.py", "train_ac.py"):
        desk.write(name, script)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    found = []
    for name in PROCESSES:
        use(name, request, monkeypatch)
        desk.hermes("exec", "-f", "example_file.hermes", "-n", "test_agents", "--executor", name)
        assert {each["python"] for each in all_metadata(desk)} == {platform.python_version()}
        tree = {
            IDENTIFIER.sub("ID", path): text
            for path, text in desk.tree(desk.path).items()
            if not path.startswith("experiments/.hermes/")
        }
        found.append(
            {
                path: text if not path.endswith((".json", "re_execution.hermes")) else ""
                for path, text in tree.items()
            }
        )
        shutil.rmtree(desk.experiments_folder)
    assert len(found[0]) > 15
    assert found == [found[0]] * len(PROCESSES)


HELD = (
    'echo "$2" >> ledger; echo early > "early_$1"; while [ -e hold ]; do sleep 0.02; done; echo '
    'late > "late_$1"; exit "$2"\n'
)
"""A job that waits as long as there is a file `hold`; each start leaves a line."""


def starts(desk: Desk) -> list[str]:
    path = desk.path / "ledger"
    return sorted(path.read_text().split()) if path.exists() else []


def test_resume_of_a_killed_run(desk: Desk, place: str) -> None:
    desk.write("job.sh", HELD)
    desk.write("hold")
    desk.write(
        "x.hermes",
        f"PRE\nexecutor: {place}\nthreads: 2\nEXEC\nPROD([[sh, job.sh, {{n}}]], n=[0, 3, 0])\n",
    )
    with desk.started("exec", "-f", "x.hermes") as runner:
        until(lambda: len(starts(desk)) == 2)
        runner.kill()
        runner.wait()
    with desk.started("resume") as resumed:
        assert "still in progress" in _patiently(desk, resumed)
        (desk.path / "hold").unlink()
        _, told = resumed.communicate(timeout=WAIT)
    assert resumed.returncode == 1, told
    assert re.search(r"x: 3 jobs in .*: (2 finished, 1 failed|1 failed, 2 finished);", told), told
    assert starts(desk) == ["0", "0", "3"]
    for each in desk.experiments():
        assert each.exit_code == int(each.argv[-1])
        assert set(desk.tree(each.directory, own=True)) == {
            f"early_{each.identifier}",
            f"late_{each.identifier}",
        }
    # Only what failed, if asked for, in a directory of its own
    assert "2 finished before, 1 failed before" in desk.hermes("resume", code=1).stderr
    desk.hermes("resume", "--failed", code=1)
    assert starts(desk) == ["0", "0", "3", "3"]
    assert sorted(each.metadata.attempts for each in desk.experiments()) == [1, 1, 1, 2]


def _patiently(desk: Desk, resumed: Any) -> str:
    """What a second `hermes resume` says while the first is at it."""

    def said() -> str | None:
        assert resumed.poll() is None
        runs = [path for path in desk.experiments_folder.glob(".hermes/*/lock") if _is_locked(path)]
        return str(desk.hermes("resume", code=2).stderr) if runs else None

    return until(said) or ""


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.parametrize("alive", [True, False], ids=["followed", "left"])
def test_stop_ends_a_run_wherever_it_is(desk: Desk, place: str, alive: bool) -> None:
    desk.write("job.sh", HELD)
    desk.write("hold")
    desk.write(
        "x.hermes",
        f"PRE\nexecutor: {place}\nthreads: 2\nEXEC\nPROD([[sh, job.sh, 0]], n=[1, 2, 3, 4])\n",
    )
    with desk.started("exec", "-f", "x.hermes") as runner:
        until(lambda: len(starts(desk)) == 2)
        if not alive:
            runner.kill()
            runner.wait()
        stopped = desk.hermes("stop", timeout=WAIT)
        assert re.search(r"x: 4 jobs in .*2 never started", stopped.stderr) or alive, stopped.stderr
        _, told = runner.communicate(timeout=WAIT)
        assert "stopped by `hermes stop`" in told or not alive
    experiments = desk.experiments()
    assert [each.status for each in experiments] == ["cancelled"] * 2
    assert [each.problems for each in experiments] == [()] * 2
    for each in experiments:
        assert desk.tree(each.directory, own=True) == {f"early_{each.identifier}": "early\n"}
    assert "Traceback" not in stopped.stderr + told
    (desk.path / "hold").unlink()
    desk.hermes("resume", timeout=WAIT)
    assert (
        sorted(each.status for each in desk.experiments()) == ["cancelled"] * 2 + ["finished"] * 4
    )
    assert "no unfinished run" in desk.hermes("stop", code=2).stderr


def test_a_mistake_is_told_and_nothing_is_made(desk: Desk, place: str) -> None:
    desk.write("x.hermes", f"PRE\nexecutor: {place}\nEXEC\n[[python, gone.py]]\n")
    assert (
        "script file `gone.py` does not exist"
        in desk.hermes("exec", "-f", "x.hermes", code=2).stderr
    )
    assert not desk.experiments_folder.exists()
