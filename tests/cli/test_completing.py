"""What a shell offers when somebody presses Tab."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from ..query.simple import experiment, identifier
from ..support import HERMES, Desk, environment


@pytest.fixture
def desk(desk: Desk) -> Desk:
    for number in range(3):
        experiment(
            desk.path / "experiments",
            number,
            name=f"name{number}",
            parameters={"lr": str(number)},
            arguments=("--lr", str(number), "--layers", "64"),
        )
    directory = desk.path / "experiments" / "train" / "name1" / identifier(1)
    (directory / "a.csv").write_text("step,return,ret2\n1,2,3\n")
    return desk


def offered(desk: Desk, line: str) -> list[str]:
    """What is offered for the last word of a line; a line may end within quotes."""
    words = line.split(" ") if "'" not in line else [*line.split(" '")[0].split(" "), "'"]
    asked = {
        "_HERMES_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = desk.hermes(env=asked)
    assert done.stderr == ""
    return list(filter(None, done.stdout.splitlines()))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("hermes show 12", ["120000000002", "120000000001", "120000000000"]),
        ("hermes show 120000000001", ["120000000001"]),
        ("hermes show 2026_11_20_120000000001", [identifier(1)]),
        ("hermes show x", []),
        ("hermes logs -f 120000000002", ["120000000002"]),
        ("hermes logs l", ["lr", "layers"]),
        ("hermes ls 'lr < 1 and la", ["lr < 1 and layers"]),
        ("hermes ls 'name = name1", ["name = name1"]),
        ("hermes rm 'not (s", ["not (script", "not (status", "not (start", "not (signal",
                               "not (slot"]),
        ("hermes ls --sort la", ["layers"]),
        ("hermes ls --columns id,lr,la", ["id,lr,layers"]),
        ("hermes rerun 120000000001 l", ["lr=", "layers="]),
        ("hermes rerun nothing l", []),
        ("hermes exec -n n", ["name2", "name1", "name0"]),
        ("hermes resume -n name1", ["name1"]),
        ("hermes export ", []),
        ("hermes compare 120000000001 120000000000", ["120000000000"]),
        ("hermes compare --group-by lr,la", ["lr,layers"]),
        ("hermes compare --metric ret", ["return", "ret2"]),
        ("hermes plot ret2", ["ret2"]),
        ("hermes plot ret2 -x retu", ["return"]),
        ("hermes pause name1", ["name1"]),
    ],
)  # fmt: skip
def test_what_is_offered(desk: Desk, line: str, found: list[str]) -> None:
    assert offered(desk, line) == found


def test_nothing_is_offered_where_nothing_can_be_read(desk: Desk) -> None:
    desk.write(".hermes_settings", "nonsense\n")
    assert offered(desk, "hermes show 1")[0] == "120000000002"
    assert offered(desk, "hermes ls --root nowhere l") == []


def test_installed_in_a_shell(desk: Desk) -> None:
    home = desk.path / "home"
    home.mkdir()
    program = desk.program("bin/hermes", f'#!/bin/sh\nexec {shlex.join(HERMES)} "$@"\n')
    script = """
        hermes --install-completion
        source ~/.bashrc
        COMP_WORDS=(hermes show 1200)
        COMP_CWORD=2
        $(complete -p hermes | sed 's/.*-F \\([^ ]*\\).*/\\1/') hermes
        printf '%s ' "${COMPREPLY[@]}"
    """
    path = f"{program.parent}:{environment()['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=desk.path,
        env=environment({"HOME": str(home), "PATH": path}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "completion installed in" in done.stdout, done.stderr
    assert done.stdout.endswith("\n120000000002 120000000001 120000000000 "), done.stdout
