"""The README's examples are executed from top to bottom, in the folder that `hermes demo` makes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hermes.cli.predecessor import INSTEAD
from hermes.cli.templates import write_demo
from hermes.language import predecessor

REPOSITORY = Path(__file__).parent.parent
README = REPOSITORY / "README.md"
CONTRIBUTING = REPOSITORY / ".github" / "CONTRIBUTING.md"
IDENTIFIER = r"\d{4}_\d\d_\d\d_\d{12}_[0-9a-f]{5}"

RUN_CELL = """\
import ast, asyncio, inspect, sys
code = compile(sys.stdin.read(), "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
async def cell():
    done = eval(code, {"__name__": "__main__"})
    if inspect.isawaitable(done):
        await done
asyncio.run(cell())
"""


def blocks() -> Iterator[tuple[int, str, str]]:
    """Line, language and text of every fenced block."""
    text = README.read_text()
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text[: match.start()].count("\n") + 1, match[1], match[2]


def name_of(line: int) -> str:
    """The hermes file that a block is, by what stands above it: "in `sweep.hermes`:"."""
    above = README.read_text().splitlines()[line - 3]
    found = re.search(r"`([\w.]+\.hermes)`[^`]*:$", above)
    return found[1] if found else "block.hermes"


@pytest.fixture
def shell(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """The demo's folder, and an environment whose `hermes` and `python` are those of this test."""
    folder, programs = tmp_path / "demo", tmp_path / "bin"
    write_demo(folder)
    for script in folder.glob("train_*.py"):
        # The examples are about Hermes: a few episodes do
        shortened, count = re.subn(
            r'("--episodes", type=int, default=)\d+', r"\g<1>5", script.read_text()
        )
        assert count == 1
        script.write_text(shortened)
    programs.mkdir()
    for name, command in (("hermes", "-m hermes"), ("python", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
        program.chmod(0o755)
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    return folder, {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8", "TERM": "dumb"}


def run(
    command: list[str], folder: Path, environment: dict[str, str], text: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


def run_console(block: str, folder: Path, environment: dict[str, str]) -> None:
    """Runs the commands after `$` in one shell.

    Compares what they print with the lines below them.
    """
    commands = [
        part.partition("\n")[::2] for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    ]
    script = "".join(f"{command}\nprintf '\\036'\n" for command, _ in commands)
    done = run(["bash", "-c", f"exec 2>&1\n{script}"], folder, environment)
    for (command, expected), printed in zip(commands, done.stdout.split("\036"), strict=False):
        assert re.fullmatch(pattern_of(expected), printed), (
            f"$ {command}\n{printed}\ninstead of\n{expected}"
        )


def pattern_of(expected: str) -> str:
    """`...` alone on a line stands for any lines, within a line for any text.

    An identifier stands for any identifier.
    """
    lines = []
    for line in expected.splitlines():
        if line.strip() == "...":
            lines.append(r"(?:.*\n)*?")
        else:
            pieces = (re.escape(piece) for piece in re.split(rf"\.\.\.|{IDENTIFIER}", line))
            wild = (
                ".*" if piece == "..." else IDENTIFIER
                for piece in re.findall(rf"\.\.\.|{IDENTIFIER}", line)
            )
            lines.append(
                next(pieces) + "".join(a + b for a, b in zip(wild, pieces, strict=True)) + r"\n"
            )
    return "".join(lines)


@pytest.mark.timeout(120)
@pytest.mark.once
def test_every_example(shell: tuple[Path, dict[str, str]]) -> None:
    folder, environment = shell
    counts = {"sh": 0, "hermes": 0, "console": 0, "python": 0}
    for line, language, text in blocks():
        counts[language] += 1
        if language == "hermes":
            (folder / name_of(line)).write_text(text)
            done = run(["hermes", "compile", name_of(line)], folder, environment)
            assert done.returncode == 0, f"README.md:{line}\n{done.stderr}"
        elif language == "console":
            run_console(text, folder, environment)
        elif language == "python":
            done = run(
                [sys.executable, "-c", RUN_CELL, "2021_07_25_160008326976_1930e"],
                folder,
                environment,
                text,
            )
            assert done.returncode == 0, f"README.md:{line}\n{done.stderr}"
    # The two of the Quick start are executed by whoever sets this up
    assert counts["sh"] == 2
    assert all(counts.values()), counts


def test_the_hermes_file_of_the_tutorial_is_that_of_the_demo() -> None:
    demo = REPOSITORY / "hermes/cli/demo_files/example_file.hermes"
    lines = [
        line for line in demo.read_text().splitlines() if line.strip() and not line.startswith("#")
    ]
    tutorial = next(text for _, language, text in blocks() if language == "hermes")
    assert tutorial.splitlines() == lines


def table(text: str, heading: str) -> list[list[str]]:
    """The rows of the first table of a chapter, without its head."""
    chapter = text.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in chapter.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_chapter_on_rlmate_names_all_that_is_told_of_it() -> None:
    chapter = README.read_text().partition("\n## Coming from rlmate\n")[2].partition("\n## ")[0]
    told = [word for words in INSTEAD.values() for word in words]
    for word in (*told, *predecessor.KEYS, predecessor.HEADER, "-m", "-leg"):
        assert re.search(rf"(?<![\w-]){word}(?![\w-])", chapter), word


def test_every_promise_names_tests_that_exist() -> None:
    promises = table(README.read_text(), "## What Hermes promises")
    held = dict(table(CONTRIBUTING.read_text(), "## Promises and their tests"))
    assert len(promises) > 10
    assert [promise.split(".")[0].strip("*") for promise, _ in promises] == list(held)
    tests = "".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    there = set(re.findall(r"^(?:async )?def (test_\w+)", tests, re.MULTILINE))
    for promise, cell in held.items():
        named = set(re.findall(r"`(test_\w+)`", cell))
        assert named, promise
        assert named <= there, named - there
