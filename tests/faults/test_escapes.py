"""What jobs print and name moves no cursor and changes no colour."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess

import pytest

import hermes

from ..support import (
    Desk,
    RecordProperty,
    environment,
    times,
)
from ..support.shouts import fifo_of, shouting, shouts

ALLOWED = re.compile(r"\x1b\[[\d;]*m|\x1b\[\d*A|\x1b\[2K|\x1b\[\?25[hl]|[\r\n]")
"""What the drawing itself sends to a terminal."""


def told_in_full(said: list[str], shown: str) -> list[str]:
    """Those whose failures are: of failures that are alike only the first is."""
    found = [each for each in said if f"problem: {fifo_of(each)}" in shown]
    assert len(found) + shown.count(", like ") == len(said)
    return found


@pytest.mark.fault(22)
def test_escapes_and_markup_are_text_on_a_terminal(
    desk: Desk, record_property: RecordProperty
) -> None:
    rounds, count = times(1, 10), times(8, 20)
    record_property("tried", rounds * count)
    for number in range(rounds):
        said = shouts(number, count)
        shouting(desk, said)
        with desk.terminal(
            "exec", "-f", "x.hermes", "-n", "[bold]<i>", rows=4 * count + 10, columns=500
        ) as terminal:
            for each in said:
                # Its row in the drawing, by its argument and what it said last, and what it said
                # above
                shown = re.escape(hermes.escape(each))
                terminal.shows(rf"{shown} +\d+\.\d s +{shown}$")
                terminal.shows(rf"#\d+ \| {shown}$")
            desk.write("go")
            assert terminal.end() == 1
            shown = terminal.screen.text
            for each in told_in_full(said, shown):
                assert f"stderr | {hermes.escape(each)}\n" in shown
                assert re.search(
                    rf"^ +command: .* {re.escape(hermes.escape(shlex.quote(each)))}$",
                    shown,
                    re.MULTILINE,
                )
            assert ALLOWED.sub("", terminal.raw.decode()).isprintable()
            assert f"[bold]<i>: {count} jobs in" in shown


@pytest.mark.fault(22)
@pytest.mark.parametrize("kind", ["text", "json"])
def test_escapes_and_markup_are_text_in_a_pipe(
    desk: Desk, record_property: RecordProperty, kind: str
) -> None:
    rounds, count = times(1, 10), times(8, 20)
    record_property("tried", rounds * count)
    for number in range(rounds):
        said = shouts(100 + number, count)
        shouting(desk, said)
        desk.write("go")
        options = ("--json",) if kind == "json" else ()
        done = desk.hermes(
            "exec",
            "-f",
            "x.hermes",
            *options,
            code=1,
            env={"PYTHONIOENCODING": "utf-8"},
            encoding="utf-8",
        )
        assert (done.stdout + done.stderr).replace("\n", "").isprintable()
        if kind == "text":
            assert {line.partition(" | ")[2] for line in done.stdout.splitlines()} == {
                hermes.escape(each) for each in said
            }
            for each in said:
                assert re.search(
                    rf"^started .*{re.escape(hermes.escape(shlex.quote(each)))}$",
                    done.stderr,
                    re.MULTILINE,
                )
            for each in told_in_full(said, done.stderr):
                assert f"stderr | {hermes.escape(each)}\n" in done.stderr
                assert re.search(
                    rf"^    command: .* {re.escape(hermes.escape(shlex.quote(each)))}$",
                    done.stderr,
                    re.MULTILINE,
                )
            continue
        assert done.stdout.isascii()
        events = [json.loads(line) for line in done.stdout.splitlines()]
        started = {
            event["identifier"]: event["arguments"]
            for event in events
            if event["event"] == "job_started"
        }
        assert sorted(started.values()) == sorted([each] for each in said)
        printed = dict.fromkeys(started, "")
        for event in events:
            if event["event"] == "log_chunk" and event["stream"] == "stdout":
                printed[event["identifier"]] += event["data"]
        assert printed == {own: f"{words[0]}\n" for own, words in started.items()}
        collected = {
            event["identifier"]: event["path"]
            for event in events
            if event["event"] == "file_collected"
        }
        assert collected == {
            own: f"file_{words[0].replace('/', '_')}{own}" for own, words in started.items()
        }


@pytest.mark.fault(22)
def test_escapes_and_markup_are_text_in_a_list_of_commands(
    desk: Desk, record_property: RecordProperty
) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("the commands are for bash")
    said = shouts(1, times(50, 200))
    record_property("tried", len(said))
    shouting(desk, said)
    env = {"LC_ALL": "C.UTF-8"}
    done = desk.hermes("compile", "x.hermes", env=env, encoding="utf-8")
    lines = done.stdout.splitlines()
    assert len(lines) == done.stdout.count("\n") == len(said)
    assert all(line.isprintable() for line in lines)
    # What is printed means to a shell what the jobs get
    script = "".join(f"set -- {line}\nprintf '%s\\0' \"${{@: -1}}\"\n" for line in lines)
    words = subprocess.run(
        [bash, "-c", script], env=environment(env), capture_output=True, check=True
    ).stdout.split(b"\0")
    assert [word.decode() for word in words[:-1]] == said
