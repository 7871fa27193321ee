"""`hermes exec` on a terminal: what it shows, and what signals and a closed window do."""

from __future__ import annotations

import os
import re
import signal

import pytest

from ..support import IDENTIFIER, PYTHON, Desk, is_alive, until

WORK = """\
import os, sys, time
identifier, *arguments = sys.argv[1:]
told = 0
while True:
    for order in sorted(os.listdir("orders")):
        name, _, word = order.partition(".")
        if name not in arguments:
            continue
        os.unlink("orders/" + order)
        if word.isdigit():
            sys.exit(int(word))
        print(word, flush=True)
    time.sleep(0.005)
"""
"""A job that prints and ends as it is told: `orders/a.words` makes the job with the argument `a`
print, `orders/a.0` ends it.
"""

PATIENT = """\
import os, signal, sys
def end(number, frame):
    with open("ended_" + sys.argv[1], "w") as file:
        file.write(str(number))
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
with open("partial_" + sys.argv[1], "w") as file:
    file.write("half")
with open("new", "w") as file:
    file.write(str(os.getpid()))
os.rename("new", "pid")
while True:
    signal.pause()
"""
"""A job that saves something when it is told to end."""

STUBBORN = PATIENT.replace("    sys.exit(0)\n", "")
"""A job that saves something when it is told to end, and goes on."""

SGR_COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.write("work.py", WORK)
    (desk.path / "orders").mkdir()
    return desk


def order(desk: Desk, job: str, word: str) -> None:
    desk.write(f"orders/{job}.{word}")


def runs(desk: Desk) -> int:
    """Waits until the job is ready for signals; returns its process id."""
    return until(lambda: (desk.path / "pid").exists() and int((desk.path / "pid").read_text()))


# What is shown


def test_a_run_from_start_to_end(desk: Desk) -> None:
    desk.hermes_file(
        f"PROD([[{PYTHON}, work.py, --name {{name}} --lr 0.1]], name=[a, b, c])",
        settings={"threads": 2},
    )
    with desk.terminal("exec", "-f", "x.hermes", "-n", "shown", columns=140) as terminal:
        terminal.shows(r"^━+  0/3 done  2 running  0 failed  \d+\.\d s$")
        # One line a job: the arguments in which it differs, elapsed time, what it printed last
        order(desk, "a", "hello [bold]")
        order(desk, "b", "bonjour")
        terminal.shows(r"^work  --name a  \d+\.\d s  hello \[bold\]$")
        terminal.shows(r"^work  --name b  \d+\.\d s  bonjour$")
        order(desk, "b", "encore")
        terminal.shows(r"^work  --name b  \d+\.\d s  encore$")
        assert len([line for line in terminal.screen.lines if "running" in line]) == 1, (
            "it is drawn in place"
        )
        assert not terminal.screen.cursor_shown
        order(desk, "a", "0")
        terminal.shows(r"1/3 done  2 running  0 failed  .*, about .* left$")
        # What has ended is above the bar, with a part of its identifier that commands take
        short = terminal.shows(r"^finished  (\d{12})  work  \d+\.\d s  --name a$")[1]
        assert [each for each in desk.experiments() if short in each.identifier]
        assert len([line for line in terminal.screen.lines if "--name a" in line]) == 1
        # A failure is shown at once, above the drawing
        order(desk, "b", "7")
        terminal.shows(r"2/3 done  1 running  1 failed")
        failed = terminal.shows(rf"^failed: work ({IDENTIFIER.pattern}): exit code 7, after ")[1]
        terminal.shows(r"command: .*work\.py .* --name b --lr 0\.1$")
        terminal.shows(rf"directory: .*/{failed}$")
        terminal.shows(r"run again: hermes exec -f .* -n shown$")
        last = next(
            index for index, line in enumerate(terminal.screen.lines) if "run again" in line
        )
        below = [line.split()[0] for line in terminal.screen.lines[last + 1 : last + 3]]
        assert below == ["finished", "exit"]
        assert "2/3 done" in terminal.screen.lines[last + 3]
        order(desk, "c", "0")
        assert terminal.end() == 1
        # What stays: the failure and a summary
        shown = [line for line in terminal.screen.lines if line]
        assert re.fullmatch(
            r"shown: 3 jobs in .*: 2 finished, 1 failed; results in experiments", shown[-1]
        )
        assert "━" not in terminal.screen.text
        assert "running" not in terminal.screen.text
        assert terminal.screen.cursor_shown
    assert sorted(experiment.status for experiment in desk.experiments()) == [
        "failed",
        "finished",
        "finished",
    ]


def test_gpus_have_a_column(desk: Desk) -> None:
    entry = f"PROD([[{PYTHON}, work.py, --name {{name}}]], name=[a, longer])"
    desk.hermes_file(entry, settings={"threads": 2, "gpus": "fake:2"})
    with desk.terminal("exec", "-f", "x.hermes") as terminal:
        terminal.shows("2 running")
        order(desk, "a", "hello")
        terminal.shows(r"^work  --name a       GPU [01]  \d+\.\d s  hello$")
        terminal.shows(r"^work  --name longer  GPU [01]  \d+\.\d s$")
        order(desk, "a", "0")
        order(desk, "longer", "0")
        assert terminal.end() == 0


def test_live_output_stands_above_the_drawing(desk: Desk) -> None:
    desk.hermes_file(
        f"[[{PYTHON}, work.py, a],[-l false]]", f"[[{PYTHON}, work.py, b]]", settings={"threads": 2}
    )
    with desk.terminal("exec", "-f", "x.hermes") as terminal:
        terminal.shows("0/2 done  2 running")
        for word in ("one", "two", "three"):
            order(desk, "a", word)
            order(desk, "b", "hidden")
            terminal.shows(rf"^work#1 \| {word}$")
        terminal.shows(r"^work  b  .*  hidden$")
        shown = [line for line in terminal.screen.lines if line]
        assert shown[:3] == ["work#1 | one", "work#1 | two", "work#1 | three"]
        assert "2 running" in shown[3]
        order(desk, "a", "0")
        order(desk, "b", "0")
        assert terminal.end() == 0
        assert [line for line in terminal.screen.lines if line][:3] == shown[:3]
        assert len([line for line in terminal.screen.lines if line]) == 4


def test_many_jobs_on_a_small_terminal(desk: Desk) -> None:
    desk.write("orders/none")
    name = "a" * 30
    desk.write(f"{name}.py", WORK)
    desk.hermes_file(
        f"PROD([[{PYTHON}, {name}.py, --note {'b' * 40} --seed {{seed}}]], seed=RANGE[0, 14])",
        settings={"threads": 14},
    )
    with desk.terminal("exec", "-f", "x.hermes", rows=10, columns=40) as terminal:
        terminal.shows("^0/14 done  14 running")
        terminal.shows("^and 7 more running$")
        shown = [line for line in terminal.screen.lines if line]
        assert len(shown) == 9, "it fits, and has not scrolled"
        assert terminal.screen.history == []
        assert shown[0].startswith("0/14 done  14 running  0 failed")
        # Long names leave room for the rest
        assert all(re.match(r"a+…  --seed \d+ +\d\.\d s", line) for line in shown[1:8])
        terminal.process.kill(signal.SIGINT)
        assert terminal.end() == 130


def test_arguments_that_all_jobs_share_are_not_shown(desk: Desk) -> None:
    desk.write("other.py", WORK)
    desk.hermes_file(
        f"ZIP([[{PYTHON}, work.py, --env {{env}} --layers {{layers}}]], env=[x, y], layers=[64, "
        f"64])",
        f"[[{PYTHON}, other.py, --depth 3]]",
        arguments="--gamma 0.9",
        settings={"threads": 3},
    )
    with desk.terminal("exec", "-f", "x.hermes") as terminal:
        terminal.shows(r"^work   --env x +\d\.\d s")
        terminal.shows(r"^work   --env y +\d\.\d s")
        # Nothing to differ from
        terminal.shows(r"^other  --gamma 0.9 --depth 3 +\d\.\d s")
        terminal.process.kill(signal.SIGINT)
        terminal.end()


@pytest.mark.fault(22)
def test_escapes_of_jobs_do_not_reach_the_terminal(desk: Desk) -> None:
    desk.write(
        "nasty.py",
        "import sys, time\nprint('\\x1b[2J\\x1b]0;title\\x07 [red]x', flush=True)\n"
        "open('said', 'w')\ntime.sleep(600)\n",
    )
    desk.hermes_file(f"[[{PYTHON}, nasty.py],[-l false]]")
    with desk.terminal("exec", "-f", "x.hermes") as terminal:
        terminal.shows(r"^\\x1b\[2J\\x1b\]0;title\\x07 \[red\]x$")
        terminal.shows(r"^nasty .* s  \\x1b\[2J\\x1b\]0;title\\x07 \[red\]x$")
        terminal.process.kill(signal.SIGINT)
        terminal.end()
        assert b"\x1b[2J" not in terminal.raw
        assert b"\x1b]" not in terminal.raw


@pytest.mark.parametrize("wanted", [True, False], ids=["colour", "NO_COLOR"])
def test_colours(desk: Desk, wanted: bool) -> None:
    env = None if wanted else {"NO_COLOR": "1"}
    desk.hermes_file(f"[[{PYTHON}, work.py, a]]")
    with desk.terminal("exec", "-f", "x.hermes", env=env) as terminal:
        terminal.shows("1 running")
        order(desk, "a", "1")
        assert terminal.end() == 1
        assert bool(SGR_COLOUR.search(terminal.raw)) == wanted
    with desk.terminal("exec", "-f", "missing.hermes", env=env) as terminal:
        assert terminal.end() == 2
        assert bool(SGR_COLOUR.search(terminal.raw)) == wanted
        assert terminal.screen.lines[0].startswith("error: cannot read `missing.hermes`")


def test_a_terminal_without_abilities_gets_lines(desk: Desk) -> None:
    desk.hermes_file(f"[[{PYTHON}, work.py, a]]")
    order(desk, "a", "0")
    with desk.terminal("exec", "-f", "x.hermes", env={"TERM": "dumb"}) as terminal:
        assert terminal.end() == 0
        assert b"\x1b" not in terminal.raw
        assert [line.split()[0] for line in terminal.screen.lines if line] == [
            "x:",
            "started",
            "[1/1]",
            "x:",
        ]


# How it ends


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(key, marks=pytest.mark.fault(row))
        for key, row in (("Ctrl-C", 3), ("SIGINT", 3), ("SIGTERM", 4))
    ],
)
def test_signal_once_ends_jobs_gently(desk: Desk, key: str) -> None:
    desk.write("patient.py", PATIENT)
    desk.hermes_file(f"[[{PYTHON}, patient.py]]", f"[[{PYTHON}, work.py]]")
    with desk.terminal("exec", "-f", "x.hermes") as terminal:
        job = runs(desk)
        terminal.shows("1 running")
        if key == "Ctrl-C":
            terminal.process.sendintr()
        else:
            os.kill(terminal.pid, signal.Signals[key])
        number = signal.Signals["SIGINT" if key == "Ctrl-C" else key]
        assert terminal.end() == 128 + number
        assert terminal.process.signalstatus == number, "it has ended by the signal itself"
        assert terminal.screen.cursor_shown
        assert re.search(
            r"2 jobs in .*: 1 cancelled, 1 never started; results in experiments",
            terminal.screen.text,
        )
        assert "━" not in terminal.screen.text, "nor did the terminal's own ^C disturb the drawing"
        assert "Traceback" not in terminal.screen.text
    assert not is_alive(job)
    # What the job left, before and after it was told to end
    experiment = desk.experiment()
    assert experiment.status == "cancelled"
    assert desk.tree(experiment.directory, own=True) == {
        f"partial_{experiment.identifier}": "half",
        f"ended_{experiment.identifier}": str(signal.SIGTERM.value),
    }
    assert desk.leftovers(experiment.identifier) == []


@pytest.mark.fault(3)
def test_signal_twice_kills(desk: Desk) -> None:
    desk.write("stubborn.py", STUBBORN)
    desk.hermes_file(f"[[{PYTHON}, stubborn.py]]")
    with desk.terminal("exec", "-f", "x.hermes") as terminal:
        job = runs(desk)
        terminal.shows("1 running")
        terminal.process.sendintr()
        terminal.shows("^stopping: .* once more to kill")
        assert is_alive(job)
        terminal.process.sendintr()
        assert terminal.end() == 130
    assert not is_alive(job)
    experiment = desk.experiment()
    assert (experiment.status, experiment.signal) == ("cancelled", signal.SIGKILL)
    assert sorted(desk.tree(experiment.directory, own=True)) == [
        f"{word}_{experiment.identifier}" for word in ("ended", "partial")
    ]
    assert desk.leftovers(experiment.identifier) == []


def test_signal_three_times_leaves_at_once(desk: Desk) -> None:
    desk.write("stubborn.py", STUBBORN)
    desk.hermes_file(f"[[{PYTHON}, stubborn.py]]")
    with desk.terminal("exec", "-f", "x.hermes") as terminal:
        job = runs(desk)
        terminal.shows("1 running")
        terminal.process.sendintr()
        terminal.shows("^stopping: ")
        # Both arrive at the same time, so that the run cannot end in between
        os.kill(terminal.pid, signal.SIGSTOP)
        os.kill(terminal.pid, signal.SIGTERM)
        os.kill(terminal.pid, signal.SIGINT)
        os.kill(terminal.pid, signal.SIGCONT)
        assert terminal.end() in (130, 143)
        assert terminal.screen.cursor_shown
    if is_alive(job):
        os.killpg(os.getpgid(job), signal.SIGKILL)


@pytest.mark.fault(4)
@pytest.mark.parametrize("hang_up", ["closed", "SIGHUP", "both"])
@pytest.mark.parametrize("options", [[], ["-q"], ["--json"]])
def test_sighup_and_a_closed_window_end_nothing(
    desk: Desk, hang_up: str, options: list[str]
) -> None:
    desk.write("waits.sh", 'until [ -e go ]; do sleep 0.02; done; echo late; : > "late_$1"')
    desk.hermes_file("[[sh, waits.sh],[-l false]]", "[[sh, waits.sh]]")
    with desk.terminal("exec", "-f", "x.hermes", *options) as terminal:
        until(lambda: len(desk.experiments()) == 1)
        if hang_up != "SIGHUP":
            terminal.close()
        if hang_up != "closed":
            os.kill(terminal.pid, signal.SIGHUP)
        desk.write("go")
        assert terminal.end() == 0
    assert [each.status for each in desk.experiments()] == ["finished"] * 2
    assert all(each.stdout == "late\n" for each in desk.experiments())
    assert [[file.path for file in each.files] for each in desk.experiments()] == [
        [f"late_{each.identifier}"] for each in desk.experiments()
    ]


# Nobody reads

FLOOD = """\
import os, sys
with open(f"ran_{sys.argv[2]}", "w"):
    pass
if sys.argv[2] == "0":
    for number in range(20000):
        os.write(1, b"%d %s\\n" % (number, b"x" * 200))
"""
"""A job that says that it was started; the first one prints more than a pipe, a terminal and the
display itself can hold.
"""


def flood(desk: Desk) -> None:
    desk.write("flood.py", FLOOD)
    # Each in a slot of its own after the first: they start while its lines are waiting
    desk.hermes_file(
        f"PROD([[{PYTHON}, flood.py, {{identifier}} {{n}}],[-l false]], n=RANGE[0, 6])",
        settings={"threads": 1},
    )


def all_have_run(desk: Desk) -> bool:
    return len(list(desk.path.glob("ran_*"))) == 6


@pytest.mark.parametrize("options", [(), ("--quiet",), ("--json",)], ids=["plain", "quiet", "json"])
def test_a_pipe_that_nobody_reads_holds_no_job_up(desk: Desk, options: tuple[str, ...]) -> None:
    flood(desk)
    with desk.started("exec", "-f", "x.hermes", *options) as process:
        until(lambda: all_have_run(desk))
        assert process.poll() is None, "it waits for somebody to read the rest"
        out, _ = process.communicate()
        assert process.returncode == 0
    assert "0 xxx" in out
    assert [experiment.status for experiment in desk.experiments()] == ["finished"] * 6


def test_a_pipe_that_nobody_reads_holds_no_signal_up(desk: Desk) -> None:
    flood(desk)
    desk.hermes_file(
        f"[[{PYTHON}, flood.py, {{identifier}} 0],[-l false]]",
        f"[[{PYTHON}, work.py]]",
        settings={"threads": 1},
    )
    with desk.started("exec", "-f", "x.hermes") as process:
        until(lambda: len(desk.experiments()) == 2 and desk.experiments()[1].metadata.pid)
        process.send_signal(signal.SIGTERM)
        until(lambda: process.poll() is not None)
        assert process.returncode == -signal.SIGTERM
    assert sorted(experiment.status for experiment in desk.experiments()) == [
        "cancelled",
        "finished",
    ]


def test_a_terminal_that_has_stopped_holds_no_job_up(desk: Desk) -> None:
    flood(desk)
    with desk.terminal("exec", "-f", "x.hermes") as terminal:
        # As after Ctrl-S: nothing is read from it
        until(lambda: all_have_run(desk))
        assert terminal.process.isalive(), "it waits for somebody to read the rest"
        assert terminal.end() == 0
        assert any(re.match(r"x: 6 jobs in .*: 6 finished", line) for line in terminal.screen.lines)
        assert terminal.screen.cursor_shown


def test_a_window_that_gets_narrower_and_wider_shows_nothing_torn(desk: Desk) -> None:
    desk.hermes_file(
        f"PROD([[{PYTHON}, work.py, --name {{name}}]], name=[a, b, c])", settings={"threads": 3}
    )
    with desk.terminal("exec", "-f", "x.hermes", "-n", "shown", columns=200) as terminal:
        for name in "abc":
            order(desk, name, "x" * 150)
            terminal.shows(rf"^work  --name {name}  .*x{{100}}")
        for columns in (80, 200, 90):
            terminal.resize(columns)
            end = "x{150}" if columns == 200 else "…"
            for name in "abc":
                terminal.shows(rf"^work  --name {name}  .*{end}$")
            shown = [line for line in terminal.screen.lines if line]
            assert len(shown) == 4, (columns, "\n".join(shown))
        for name in "abc":
            order(desk, name, "0")
        assert terminal.end() == 0
