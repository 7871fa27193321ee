"""What commands there are, and calls that are wrong."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib import import_module

import pytest

import hermes
from hermes.cli.app import app
from hermes.cli.commands import COMMANDS, Built

from ..support import Desk

OPTIONS_OF_EXEC = (
    "-f",
    "-e",
    "-n",
    "--threads",
    "-c",
    "--comment",
    "--root",
    "--compile-only",
    "--quiet",
    "--json",
)


# help


def test_each_command_is_where_the_table_says() -> None:
    for name, (module, _) in COMMANDS.items():
        import_module(f"hermes.cli.{module}")
        found = [each for each in app.registered_commands if each.name == name]
        assert [each.callback.__module__ for each in found if each.callback] == [
            f"hermes.cli.{module}"
        ]
    assert len(app.registered_commands) == len(COMMANDS)
    assert list(Built()) == list(COMMANDS)


def test_only_the_module_of_a_command_is_loaded() -> None:
    code = (
        "import sys; sys.argv = ['hermes', 'stop', '--help']\n"
        "from hermes.cli.main import main\n"
        "try: main()\n"
        "finally: print(*(name for name in sys.modules if name.startswith('hermes.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert "hermes.cli.execute" in loaded
    assert not {"hermes.cli.looking", "hermes.cli.housekeeping"} & {*loaded}


def test_help(desk: Desk) -> None:
    shown = desk.hermes("help").stdout
    assert shown == desk.hermes("--help").stdout
    for command in ("exec", "compile", "create", "demo", "help"):
        assert re.search(rf"^  {command} +\S", shown, re.MULTILINE)
    assert "--install-completion" in shown
    assert "--version" in shown
    assert "..." not in shown.partition("Commands:")[2], "a summary that is cut off helps nobody"


def test_help_of_a_command(desk: Desk) -> None:
    shown = desk.hermes("help", "exec").stdout
    assert shown == desk.hermes("exec", "--help").stdout
    for option in OPTIONS_OF_EXEC:
        assert re.search(rf"(^|[ ,]){option}\b", shown, re.MULTILINE), option
    assert shown.startswith("Usage: hermes exec ")
    done = desk.hermes("help", "compil", code=2)
    assert done.stderr == "error: no command `compil`\nhint: did you mean `compile`?\n"


def test_version(desk: Desk) -> None:
    assert desk.hermes("--version").stdout == f"hermes {hermes.__version__}\n"


def test_completion(desk: Desk) -> None:
    asked = {"_HERMES_COMPLETE": "complete_bash", "COMP_WORDS": "hermes c", "COMP_CWORD": "1"}
    assert desk.hermes(env=asked).stdout.split() == ["compile", "compare", "continue", "create"]


# Exit codes


@pytest.mark.parametrize(
    "arguments",
    [
        ("exec",),
        ("exec", "-f", "sweep.hermes", "-e", "true"),
        ("exec", "-f", "sweep.hermes", "--threads", "0"),
        ("exec", "-f", "sweep.hermes", "--threads", "two"),
        ("exec", "-f", "sweep.hermes", "--thread", "2"),
        ("exec", "-f", "missing.hermes"),
        ("exec", "-f", "train.py"),
        ("exec", "-e", ""),
        ("exec", "-e", "echo 'unfinished"),
        ("exec", "-e", "no-such-program x"),
        ("exec", "-f", "sweep.hermes", "--root", "train.py"),
        ("compile", "."),
        ("nonsense",),
    ],
    ids=shlex.join,
)
def test_wrong_calls(desk: Desk, arguments: tuple[str, ...]) -> None:
    before = desk.tree(desk.path)
    done = desk.hermes(*arguments, code=2)
    assert done.stdout == ""
    assert "error: " in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert desk.tree(desk.path) == before
