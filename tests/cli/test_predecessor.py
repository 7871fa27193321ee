"""What people who come from rlmate type, and the folders that they bring along."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import hermes

from ..support import PYTHON, Desk

OF_RLMATE = "2021_07_25_160008326976_0_1930e"
"""An identifier of rlmate's holds the number of the job."""


def hints(desk: Desk, *arguments: str) -> list[str]:
    """What is said to a wrong call; nothing is made."""
    before = desk.tree(desk.path)
    done = desk.hermes(*arguments, code=2)
    assert done.stdout == ""
    assert "Error: " in done.stderr
    assert desk.tree(desk.path) == before
    return re.findall("^hint: (.*)$", done.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("exec --execution_file sweep.hermes -n x", ["write `-f FILE`"]),
        ("exec --execution_file=sweep.hermes -n x", ["write `-f FILE`"]),
        (
            "exec --executi sweep.hermes --debug",
            [
                "write `-f FILE`",
                "write `--path-to-experiments DIR` for results that you will throw away",
            ],
        ),
        ("exec --executable ls", ['write `-e "COMMAND"`']),
        ("exec -f sweep.hermes --compile_only", ["write `--compile-only`"]),
        ("exec -f sweep.hermes --comp", ["write `--compile-only`"]),
        ("create new --scripts train.py", ["write `-s SCRIPT`"]),
        ("create new -t folder", ["write `hermes create DIR/NAME`"]),
        ("create new --target-dir=folder", ["write `hermes create DIR/NAME`"]),
        ("-ho", ["`hermes create NAME` writes a file that tells the hermes options"]),
        ("bot --register", ["the setting `notify: tgram://BOT_ID/CHAT_ID` sends messages"]),
    ],
)
def test_a_call_of_rlmate_is_told_what_to_write(desk: Desk, call: str, expected: list[str]) -> None:
    told = hints(desk, *call.split())
    assert [hint.partition(" is one of rlmate's; ")[2] for hint in told] == expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("exec -f sweep.hermes --path_to_experiments x", "did you mean `--path-to-experiments`?"),
        ("exec -f sweep.hermes --path_to_experiments=x", "did you mean `--path-to-experiments`?"),
        ("exec -f sweep.hermes --no_supervise", "did you mean `--no-supervise`?"),
    ],
)
def test_underscores_are_told_from_dashes(desk: Desk, call: str, expected: str) -> None:
    assert hints(desk, *call.split()) == [expected]


@pytest.mark.parametrize(
    "call",
    [
        "exec --exec sweep.hermes",
        "exec -f sweep.hermes -n bot --nonsense",
        "exec -f sweep.hermes -t",
        "resume --debug",
        "nonsense --scripts",
    ],
)
def test_what_rlmate_would_not_take_either_gets_no_hint_of_it(desk: Desk, call: str) -> None:
    assert hints(desk, *call.split()) == []


def test_version_tells_that_rlmate_is_there_too(desk: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "packages" / "rlmate-0.3.1.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: rlmate\nVersion: 0.3.1\n")
    for call in ("--version", "--help"):
        assert desk.hermes(call).stderr == ""
    done = desk.hermes("--version", env={"PYTHONPATH": str(folder.parent)})
    assert done.stdout == f"hermes {hermes.__version__}\n"
    assert done.stderr == (
        "rlmate 0.3.1 is installed here too, and the command `hermes` is of whichever was "
        "installed last; `python -m hermes` is always this one\n"
    )


def test_its_hermes_file_runs_beside_its_experiments(desk: Desk) -> None:
    old = f"experiments/train/sweep/{OF_RLMATE}"
    for name in ("hermes.info", "exec_arguments", f"{OF_RLMATE}.scores", "stdout.log"):
        desk.write(f"{old}/{name}", "commit_hash:1930e\n")
    desk.write(".hermes_pids/1234", old)
    desk.write(".hermes_settings", "bot_id=1:a\nchat_id=2\nthreads:2\npath_to_experiments:./\n")
    desk.write(
        "sweep.hermes",
        f"PRE\nthreads:1\nSTD-H\n-leg\n-m\n-ca train.py\nSTD-E\nEXEC\n"
        f"PROD([[{PYTHON}, train.py, --lr {{lr}}],[-c first]], lr=RANGE[1,3,1])\n",
    )
    before = desk.tree(desk.path / old)
    done = desk.hermes("exec", "-f", "sweep.hermes", "-n", "sweep")
    assert [line for line in done.stderr.splitlines() if "does nothing here" in line] == [
        line for line in done.stderr.splitlines() if line.startswith("warning: ")
    ]
    assert len(re.findall("^warning: ", done.stderr, re.MULTILINE)) == 3
    ours = [path for path in (desk.path / old).parent.iterdir() if path.name != OF_RLMATE]
    experiments = [hermes.load_experiment(path) for path in sorted(ours)]
    assert [each.arguments for each in experiments] == [("--lr", "1"), ("--lr", "2")]
    assert all(each.identifier in each.argv for each in experiments)
    assert all(each.status == "finished" for each in experiments)
    # Nothing of rlmate's is taken for an experiment that has succeeded, or is touched
    again = desk.hermes("exec", "-f", "sweep.hermes", "-n", "sweep", "--resume")
    assert "2 finished before" in again.stderr
    assert desk.tree(desk.path / old) == before
