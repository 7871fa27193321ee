"""The commands, as a shell calls them: what they do, what they print where, and how they end."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

import hermes

from .project import LIMIT
from .support import HERMES, IDENTIFIER, JOB, PYTHON, TRAIN, Desk, environment, until

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

FAIL = """\
import sys
print("on stdout")
for number in range(1, 31):
    print("line", number, file=sys.stderr)
sys.exit(3)
"""


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.write("train.py", TRAIN)
    desk.write("sweep.hermes", f"EXEC\n{JOB}\n")
    return desk


def events(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines()]


@pytest.fixture
def path_with_hermes(tmp_path: Path) -> str:
    """A PATH on which `hermes` is the one that is tested."""
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "hermes"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(HERMES)} "$@"\n')
    program.chmod(0o755)
    return os.pathsep.join([str(programs), os.environ["PATH"]])


# exec


def test_exec_runs_a_file_under_a_name(desk: Desk) -> None:
    done = desk.hermes("exec", "-f", "sweep.hermes", "-n", "first try")
    experiment = desk.experiment()
    identifier = experiment.identifier
    assert experiment.directory == desk.path / "experiments" / "train" / "first try" / identifier
    assert (experiment.directory / f"model_{identifier}.txt").read_text() == "--lr 0.1"
    # Progress is not a result
    assert done.stdout == ""
    started, ended = (line for line in done.stderr.splitlines() if identifier in line)
    assert "started" in started
    assert "finished" in ended
    assert re.search(r"1 job\b.*1 finished.*experiments", done.stderr.splitlines()[-1])


def test_the_name_defaults_to_the_stem(desk: Desk) -> None:
    desk.hermes("exec", "-f", "sweep.hermes")
    assert desk.experiment().name == "sweep"


def test_exec_runs_a_single_command(desk: Desk) -> None:
    desk.hermes("exec", "-e", f"{PYTHON} train.py --note 'two words'", "-n", "single")
    experiment = desk.experiment()
    assert (experiment.script, experiment.name, experiment.arguments) == (
        "train",
        "single",
        ("--note", "two words"),
    )
    assert experiment.argv[-3] == experiment.identifier
    # It runs as a hermes file would: what it saved is collected
    assert [file.path for file in experiment.files] == [f"model_{experiment.identifier}.txt"]


def test_threads_overrule_the_file(desk: Desk) -> None:
    # Each job waits for the other: alone it would never end
    desk.write(
        "meet.py",
        "import os, sys, time\nopen(sys.argv[2], 'w')\nwhile not os.path.exists(sys.argv[3]): time.sleep(0.01)\n",
    )
    desk.write(
        "meet.hermes",
        f"PRE\nthreads: 1\nEXEC\n[[{PYTHON}, meet.py, a b]]\n[[{PYTHON}, meet.py, b a]]\n",
    )
    desk.hermes("exec", "-f", "meet.hermes", "--threads", "2")
    assert [experiment.metadata["settings"]["threads"] for experiment in desk.experiments()] == [
        2,
        2,
    ]


def test_comments_are_added_to_those_of_the_file(desk: Desk) -> None:
    desk.write("sweep.hermes", f"STD-H\n-c standard\nEXEC\n[[{PYTHON}, train.py],[-c own]]\n")
    desk.hermes(
        "exec", "-f", "sweep.hermes", "-c", "one", "--comment", "another: it's # kept // whole"
    )
    assert desk.experiment().comments == ("standard", "own", "one", "another: it's # kept // whole")


def test_root_moves_the_experiments(desk: Desk, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    before = desk.tree(desk.path)
    desk.hermes("exec", "-f", "sweep.hermes", "--root", str(elsewhere))
    assert desk.tree(desk.path) == before
    (metadata,) = elsewhere.glob("experiments/train/sweep/*/hermes.json")
    assert (metadata.parent / f"model_{metadata.parent.name}.txt").exists()


def test_compile_only_is_compile(desk: Desk) -> None:
    before = desk.tree(desk.path)
    compiled = desk.hermes("compile", "sweep.hermes")
    only = desk.hermes("exec", "-f", "sweep.hermes", "-n", "x", "--compile-only")
    assert only.stdout
    assert (only.stdout, only.stderr) == (compiled.stdout, compiled.stderr)
    assert json.loads(desk.hermes("exec", "-e", "echo", "--compile-only", "--json").stdout)[
        "argv"
    ] == ["echo", "{identifier}"]
    assert desk.tree(desk.path) == before


def test_quiet_leaves_failures(desk: Desk) -> None:
    done = desk.hermes("exec", "-f", "sweep.hermes", "--quiet")
    assert (done.stdout, done.stderr) == ("", "")
    desk.write("fail.py", FAIL)
    desk.write("mixed.hermes", f"EXEC\n{JOB}\n[[{PYTHON}, fail.py]]\n")
    done = desk.hermes("exec", "-f", "mixed.hermes", "--quiet", code=1)
    assert done.stdout == ""
    assert "failed: fail" in done.stderr
    assert "started" not in done.stderr


def test_json_prints_one_event_a_line(desk: Desk) -> None:
    desk.write("talk.py", "print('line one')\nprint('line two')\nraise SystemExit(5)\n")
    desk.write("sweep.hermes", f"EXEC\n{JOB}\n[[{PYTHON}, talk.py],[-l false]]\n")
    told = events(desk.hermes("exec", "-f", "sweep.hermes", "--json", code=1).stdout)
    kinds = [event["event"] for event in told]
    assert (kinds[0], kinds[-1]) == ("run_started", "run_ended")
    assert sorted(set(kinds)) == [
        "file_collected",
        "job_ended",
        "job_started",
        "log_chunk",
        "run_ended",
        "run_started",
    ]
    times = [event["time"] for event in told]
    assert times == sorted(times)
    train, talk = desk.experiments()
    starts = [event for event in told if event["event"] == "job_started"]
    assert [(event["identifier"], tuple(event["argv"])) for event in starts] == [
        (each.identifier, each.argv) for each in (train, talk)
    ]
    ends = [event["outcome"] for event in told if event["event"] == "job_ended"]
    assert [(end["identifier"], end["status"], end["exit_code"]) for end in ends] == [
        (train.identifier, "finished", 0),
        (talk.identifier, "failed", 5),
    ]
    printed = "".join(
        event["data"]
        for event in told
        if event["event"] == "log_chunk" and event["identifier"] == talk.identifier
    )
    assert printed == "line one\nline two\n"


@pytest.mark.fault(14)
@pytest.mark.parametrize("name", ["../../x", "..", "", "a\nb"])
def test_unusable_names_create_nothing(desk: Desk, name: str) -> None:
    around = desk.path.parent
    before = desk.tree(around)
    done = desk.hermes("exec", "-f", "sweep.hermes", "-n", name, code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("error: the name ")
    assert "Traceback" not in done.stderr
    assert desk.tree(around) == before


# compile


def test_compile_prints_commands_as_a_shell_reads_them(desk: Desk) -> None:
    for name in ("train.py", "with space.py", "tool"):
        desk.write(name)
    desk.write(
        "words.hermes",
        """\
STD-E
--note 'it''s $HOME'
EXEC
[[python, train.py, --lr 0.1 --empty "" --star *]]
[[python, "with space.py", --out {identifier}]]
PROD([[python, train.py, --lr {lr}]], lr=[0.5, 0.25])
""",
    )
    done = desk.hermes("compile", "words.hermes")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "python train.py {identifier} --note 'its $HOME' --lr 0.1 --empty '' --star '*'",
        "python 'with space.py' --note 'its $HOME' --out {identifier}",
        "python train.py {identifier} --note 'its $HOME' --lr 0.5",
        "python train.py {identifier} --note 'its $HOME' --lr 0.25",
    ]
    # What is printed means to a shell what the jobs get
    jobs = list(hermes.compile_file("words.hermes", working_directory=desk.path).jobs)
    assert [tuple(shlex.split(line)) for line in done.stdout.splitlines()] == [
        job.argv for job in jobs
    ]


def test_compile_json(desk: Desk) -> None:
    desk.write(
        "options.hermes",
        """\
STD-H
-ca a.txt
EXEC

[[python, train.py, --lr 0.1],[-cb b.txt -ma 'c d.txt' -l false -c "first: try" -c second]]
[[./tool]]
""",
    )
    done = desk.hermes("compile", "options.hermes", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {
            "argv": ["python", "train.py", "{identifier}", "--lr", "0.1"],
            "script": "train",
            "line": 5,
            "options": {
                "copy_after": ["a.txt"],
                "copy_before": ["b.txt"],
                "move_after": ["c d.txt"],
                "log": False,
                "comments": ["first: try", "second"],
            },
        },
        {
            "argv": ["./tool", "{identifier}"],
            "script": "tool",
            "line": 6,
            "options": {
                "copy_after": ["a.txt"],
                "copy_before": [],
                "move_after": [],
                "log": True,
                "comments": [],
            },
        },
    ]


def test_compile_looks_at_nothing_but_the_file(desk: Desk) -> None:
    before = desk.tree(desk.path)
    desk.write("sweep.hermes", "EXEC\n[[no-such-program, missing.py],[-cb missing.txt]]\n")
    assert (
        desk.hermes("compile", "sweep.hermes").stdout == "no-such-program missing.py {identifier}\n"
    )
    assert desk.tree(desk.path).keys() == before.keys()


def test_a_reader_that_has_seen_enough_ends_compile(desk: Desk) -> None:
    desk.write(
        "huge.hermes", f"EXEC\nPROD({JOB[:-2]} {{a}} {{b}}]], a=RANGE[0, 1000], b=RANGE[0, 1000])\n"
    )
    with desk.started("compile", "huge.hermes") as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().endswith("0.1 0 0\n")
        process.stdout.close()
        assert process.wait(LIMIT) == -signal.SIGPIPE
        assert process.stderr.read() == ""


def test_an_interrupt_ends_compile_as_it_ends_any_program(desk: Desk) -> None:
    desk.write(
        "huge.hermes", f"EXEC\nPROD({JOB[:-2]} {{a}} {{b}}]], a=RANGE[0, 1000], b=RANGE[0, 1000])\n"
    )
    with desk.started("compile", "huge.hermes") as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == -signal.SIGINT
        assert process.stderr.read() == ""


# create


def test_create_writes_a_file_to_start_from(desk: Desk) -> None:
    done = desk.hermes("create", "fresh")
    assert done.stdout == "fresh.hermes\n"
    text = (desk.path / "fresh.hermes").read_text()
    assert re.search(r"^\s*#", text, re.MULTILINE)
    assert [section for section in ("PRE", "STD-H", "STD-E", "EXEC") if re.search(rf"^{section}$", text, re.MULTILINE)] == [
        "PRE", "STD-H", "STD-E", "EXEC",
    ]  # fmt: skip
    assert (
        desk.hermes("compile", "fresh.hermes").stdout == "python train.py {identifier} --lr 0.001\n"
    )


def test_create_with_scripts(desk: Desk) -> None:
    desk.write("other script.py", TRAIN)
    desk.program("tool", "#!/bin/sh\n")
    desk.hermes(
        "create",
        "mine.hermes",
        "-s",
        "train.py",
        "-s",
        "other script.py",
        "--script",
        "tool",
        "-s",
        "run.sh",
    )
    assert desk.hermes("compile", "mine.hermes").stdout.splitlines() == [
        "python train.py {identifier}",
        "python 'other script.py' {identifier}",
        "./tool {identifier}",
        "bash run.sh {identifier}",
    ]
    desk.write("run.sh")
    desk.hermes("exec", "-f", "mine.hermes", "-n", "created", "-q")
    assert [experiment.script for experiment in desk.experiments()] == [
        "train",
        "other script",
        "tool",
        "run.sh",
    ]


def test_create_never_overwrites(desk: Desk) -> None:
    kept = desk.write("kept.hermes", "mine")
    for name in ("kept", "kept.hermes"):
        done = desk.hermes("create", name, "-s", "train.py", code=2)
        assert done.stderr.startswith("error: `kept.hermes` exists already")
        assert kept.read_text() == "mine"
    (desk.path / "link.hermes").symlink_to("nowhere")
    desk.hermes("create", "link", code=2)
    assert not (desk.path / "nowhere").exists()
    done = desk.hermes("create", "no/such/folder", code=2)
    assert re.fullmatch(r"error: cannot write `no/such/folder.hermes`: .*\n", done.stderr)


# demo


def test_demo_in_a_git_repository(desk: Desk) -> None:
    for words in (("init", "-q"), ("commit", "-q", "--allow-empty", "-m", "first")):
        subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=e", *words], cwd=desk.path, check=True
        )
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=desk.path, check=True, capture_output=True, text=True
    ).stdout.strip()
    done = desk.hermes("demo", "my demo")
    folder = desk.path / "my demo"
    found = list((folder / "experiments").glob("*/*/*/hermes.json"))
    experiments = sorted(
        (hermes.load_experiment(path.parent) for path in found), key=lambda each: each.script
    )
    assert [(each.script, each.name, each.status) for each in experiments] == [
        ("train_ac", "test_agents", "finished"),
        ("train_dqn", "test_agents", "finished"),
    ]
    for each in experiments:
        assert each.identifier.endswith(f"_{commit[-5:]}")
        assert (each.directory / "cnn.py").read_bytes() == (
            folder / "networks" / "cnn.py"
        ).read_bytes()
        script = f"{each.script}.py"
        assert (each.directory / script).read_bytes() == (folder / script).read_bytes()
        assert [file for file in each.files if file.origin == "collected"]
        # Where everything is: that is the result
        assert os.path.relpath(each.directory, desk.path) in done.stdout
        assert each.identifier in done.stderr
    left = [
        path
        for path in folder.rglob("*")
        if IDENTIFIER.search(path.name) and "experiments" not in path.parts
    ]
    assert left == []
    assert not (desk.path / "experiments").exists()
    commands = desk.hermes("compile", "example_file.hermes", cwd=folder).stdout.splitlines()
    assert commands == [
        "python train_dqn.py {identifier} -gamma 0.995 --env cartpole -lr 0.001",
        "python train_ac.py {identifier} -gamma 0.995 --env cartpole -lr_actor 0.003 -lr_critic 0.001",
    ]


def test_demo_overwrites_nothing(desk: Desk) -> None:
    desk.write("networks/cnn.py", "# mine")
    before = desk.tree(desk.path)
    done = desk.hermes("demo", ".", code=2)
    assert done.stderr.startswith("error: `networks/cnn.py` exists already, it was left as it is\n")
    assert desk.tree(desk.path) == before


# help


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
    assert desk.hermes(env=asked).stdout.split() == ["compile", "create"]


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


def test_a_missing_file_to_copy_after_counts(desk: Desk) -> None:
    desk.write("sweep.hermes", f"EXEC\n[[{PYTHON}, train.py],[-ca missing.txt]]\n{JOB}\n")
    done = desk.hermes("exec", "-f", "sweep.hermes", code=1)
    troubled, other = desk.experiments()
    assert (troubled.status, other.status) == ("finished", "finished")
    assert "missing.txt" in troubled.problems[0]
    assert other.problems == ()
    assert f"problem: {troubled.problems[0]}" in done.stderr
    assert "problems: train" in done.stderr


# Errors


@pytest.mark.fault(20)
def test_an_error_shows_its_place(desk: Desk) -> None:
    desk.write(
        "sweep.hermes",
        """\
PRE
threads: 2

EXEC
# The first one is right
[[python, train.py]]
[[python, train_dqn.py, -lr 0.001],[-cc train_dqn.py]]
""",
    )
    before = desk.tree(desk.path)
    for arguments in (("compile", "sweep.hermes"), ("exec", "-f", "sweep.hermes")):
        done = desk.hermes(*arguments, code=2)
        assert done.stdout == ""
        assert (
            done.stderr
            == """\
error: unknown hermes option `-cc`
  --> sweep.hermes:7:37
   |
 7 | [[python, train_dqn.py, -lr 0.001],[-cc train_dqn.py]]
   |                                     ^^^
hint: did you mean `-ca`?
"""
        )
    assert desk.tree(desk.path) == before


def test_an_error_in_the_settings_shows_its_place(desk: Desk) -> None:
    desk.write(".hermes_settings", "\nthreds: 2\n")
    done = desk.hermes("exec", "-f", "sweep.hermes", code=2)
    lines = done.stderr.splitlines()
    assert lines[0] == "error: unknown setting `threds`"
    assert lines[1].endswith("/.hermes_settings:2:1")
    assert lines[-1] == "hint: did you mean `threads`?"


def test_all_problems_of_a_plan_come_together(desk: Desk) -> None:
    desk.write(
        "sweep.hermes",
        f"""\
EXEC
{JOB}
[[no-such-program, train.py]]
[[{PYTHON}, trian.py]]
[[{PYTHON}, train.py],[-cb data.csv]]
""",
    )
    before = desk.tree(desk.path)
    done = desk.hermes("exec", "-f", "sweep.hermes", "-n", "a/b", code=2)
    assert done.stdout == ""
    assert re.findall("^error: (.*)$", done.stderr, re.MULTILINE) == [
        "the name `a/b` is not a plain folder name",
        "program `no-such-program` was not found on PATH",
        "script file `trian.py` does not exist",
        "`-cb data.csv`: no such file or directory",
    ]
    assert re.findall(r"--> sweep.hermes:(\d+):", done.stderr) == ["3", "4", "5"]
    assert "hint: did you mean `train.py`?" in done.stderr
    assert desk.tree(desk.path) == before


def test_warnings_go_to_stderr(desk: Desk) -> None:
    desk.write(".hermes_settings", "bot_id: 1\npath_to_experiments: .\n")
    done = desk.hermes("compile", "sweep.hermes")
    assert len(done.stdout.splitlines()) == 1
    assert re.fullmatch(r"warning: .*/\.hermes_settings:1: `bot_id` .*\n", done.stderr)
    for options in ((), ("--json",)):
        assert desk.hermes("exec", "-f", "sweep.hermes", *options).stderr.startswith("warning: ")


# Failures


def test_a_failure_is_told_with_all_that_helps(desk: Desk, path_with_hermes: str) -> None:
    desk.write("fail.py", FAIL)
    desk.write(
        "sweep.hermes", f"EXEC\n[[{PYTHON}, fail.py, --note 'two words' $HOME '{{}}']]\n{JOB}\n"
    )
    name = "it's a name"
    done = desk.hermes("exec", "-f", "sweep.hermes", "-n", name, code=1)
    failed, finished = desk.experiments()
    assert (failed.status, failed.exit_code, finished.status) == ("failed", 3, "finished")
    lines = done.stderr.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("failed: "))
    # At once, not when all is over
    assert start < next(
        index
        for index, line in enumerate(lines)
        if "] finished" in line and finished.identifier in line
    )
    told = [lines[start], *takewhile(lambda line: line.startswith("    "), lines[start + 1 :])]
    assert "fail" in told[0]
    assert failed.identifier in told[0]
    assert "exit code 3" in told[0]
    assert [line.partition("stderr | ")[2] for line in told if "stderr | " in line] == [
        f"line {number}" for number in range(21, 31)
    ]
    directory = next(line.partition("directory: ")[2] for line in told if "directory: " in line)
    assert desk.path / directory == failed.directory
    again = next(line.partition("run again: ")[2] for line in told if "run again: " in line)
    ran = subprocess.run(
        again,
        shell=True,
        cwd=desk.path,
        env=environment({"PATH": path_with_hermes}),
        capture_output=True,
        check=False,
        timeout=LIMIT,
    )
    assert ran.returncode == 1
    *_, repeated = desk.experiments()
    assert (repeated.script, repeated.name, repeated.arguments) == (
        failed.script,
        failed.name,
        failed.arguments,
    )
    assert repeated.argv == tuple(
        word.replace(failed.identifier, repeated.identifier) for word in failed.argv
    )
    assert repeated.metadata["key"] == failed.metadata["key"]
    assert "1 finished" in lines[-1]
    assert "1 failed" in lines[-1]


def test_the_command_to_run_again_works_from_elsewhere(
    desk: Desk, path_with_hermes: str, tmp_path: Path
) -> None:
    # Results that went to another root go there again
    desk.write("fail.py", "import os, sys\nsys.exit(not os.path.exists('mended'))\n")
    elsewhere = tmp_path / "else where"
    desk.write("sweep.hermes", f"EXEC\n[[{PYTHON}, fail.py]]\n")
    done = desk.hermes("exec", "-f", "sweep.hermes", "--root", str(elsewhere), code=1)
    again = re.search("run again: (.*)$", done.stderr, re.MULTILINE)
    assert again
    desk.write("mended")
    env = environment({"PATH": path_with_hermes})
    subprocess.run(
        again[1], shell=True, cwd=desk.path, env=env, capture_output=True, check=True, timeout=LIMIT
    )
    assert [path.name for path in (elsewhere / "experiments" / "fail").iterdir()] == ["sweep"]
    assert len(list((elsewhere / "experiments" / "fail" / "sweep").iterdir())) == 2
    assert not (desk.path / "experiments").exists()


def test_a_signal_is_told_by_its_name(desk: Desk) -> None:
    desk.write("die.py", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    desk.write("sweep.hermes", f"EXEC\n[[{PYTHON}, die.py]]\n")
    done = desk.hermes("exec", "-f", "sweep.hermes", code=1)
    assert "signal 9 (SIGKILL)" in done.stderr
    assert desk.experiment().signal == 9


# What jobs print


def test_output_is_shown_live_only_where_it_is_asked_for(desk: Desk) -> None:
    # The second line comes when somebody has seen the first
    desk.write(
        "talk.py",
        """\
import os, sys, time
print("out first")
while not os.path.exists("seen"):
    time.sleep(0.01)
print("out second")
print("err", file=sys.stderr)
""",
    )
    desk.write("quiet.py", "print('hidden')\n")
    desk.write("sweep.hermes", f"EXEC\n[[{PYTHON}, quiet.py]]\n[[{PYTHON}, talk.py],[-l false]]\n")
    with desk.started("exec", "-f", "sweep.hermes") as process:
        assert process.stdout
        assert process.stdout.readline().endswith("out first\n")
        desk.write("seen")
        out, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 0
    assert out.endswith("out second\n")
    assert re.search(r"\berr$", err, re.MULTILINE)
    assert "out" not in err
    assert "hidden" not in out + err
    # It is stored all the same
    quiet, talk = desk.experiments()
    assert (quiet.stdout, talk.stdout, talk.stderr) == (
        "hidden\n",
        "out first\nout second\n",
        "err\n",
    )


def test_a_single_job_is_shown_as_it_is(desk: Desk) -> None:
    desk.write("talk.py", "import sys\nprint('a\\tb')\nprint('no line end', end='')\n")
    desk.write("sweep.hermes", f"STD-H\n-l false\nEXEC\n[[{PYTHON}, talk.py]]\n")
    assert desk.hermes("exec", "-f", "sweep.hermes").stdout == "a       b\nno line end\n"


@pytest.mark.fault(22)
def test_terminal_escapes_are_shown_as_text(desk: Desk) -> None:
    said = "\\x1b]0;title\\x07 \\x1b[2J\\x1b[31mred [bold]not markup[/bold] \\x9b \\u202e"
    desk.write(
        "nasty.py",
        f'import sys\nfor stream in (sys.stdout, sys.stderr):\n    print("{said}", file=stream)\nsys.exit(1)\n',
    )
    desk.write("sweep.hermes", f"STD-H\n-l false\nEXEC\n[[{PYTHON}, nasty.py, '\x1b[31marg']]\n")
    done = desk.hermes("exec", "-f", "sweep.hermes", code=1, env={"PYTHONIOENCODING": "utf-8"})
    assert f"{said}\n" in done.stdout
    assert f"stderr | {said}\n" in done.stderr
    assert "\\x1b[31marg" in done.stderr
    printable = (done.stdout + done.stderr).replace("\n", "")
    assert printable.isprintable()
    # Unlike what is shown, what is stored is as it was
    assert "\x1b[2J" in desk.experiment().stdout


@pytest.mark.fault(7)
def test_bytes_that_are_no_text_are_shown(desk: Desk) -> None:
    desk.write("bytes.py", "import os\nos.write(1, b'\\xff\\x00\\xc3\\xa4\\n')\n")
    desk.write("sweep.hermes", f"STD-H\n-l false\nEXEC\n[[{PYTHON}, bytes.py]]\n")
    for env in (
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ):
        shown = desk.hermes("exec", "-f", "sweep.hermes", env=env).stdout
        assert shown in ("\\xff\\x00ä\n", "\\xff\\x00\\xe4\n")
    assert (desk.experiments()[0].directory / "stdout.log").read_bytes() == b"\xff\x00\xc3\xa4\n"


def test_nothing_but_text_where_there_is_no_terminal(desk: Desk) -> None:
    desk.write("fail.py", FAIL)
    desk.write("sweep.hermes", f"PRE\nthreads: 2\nEXEC\n{JOB}\n[[{PYTHON}, fail.py]]\n")
    done = desk.hermes("exec", "-f", "sweep.hermes", code=1)
    assert done.stderr.replace("\n", "").isprintable()
    for experiment in desk.experiments():
        # One line a change
        assert (
            len(
                [
                    line
                    for line in done.stderr.splitlines()
                    if line.startswith("started") and experiment.identifier in line
                ]
            )
            == 1
        )
    assert "\x1b" not in desk.hermes("exec", "-f", "missing.hermes", code=2).stderr


# Surroundings


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_closed_pipe_does_not_end_the_run(desk: Desk, options: tuple[str, ...]) -> None:
    desk.write(
        "talk.py",
        """\
import os, sys, time
print("first")
while not os.path.exists("closed"):
    time.sleep(0.01)
for number in range(10000):
    print("more and more", number)
""",
    )
    desk.write(
        "sweep.hermes",
        f"STD-H\n-l false\nEXEC\n[[{PYTHON}, talk.py]]\n[[{PYTHON}, talk.py]]\n{JOB}\n",
    )
    with desk.started("exec", "-f", "sweep.hermes", *options) as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        desk.write("closed")
        assert process.stderr
        told = process.stderr.read()
        assert process.wait(LIMIT) == 0, told
    assert "Error" not in told
    assert [experiment.status for experiment in desk.experiments()] == ["finished"] * 3
    assert desk.experiments()[0].stdout.endswith("more and more 9999\n")


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_do_no_harm(desk: Desk, closed: str) -> None:
    # The next file that is opened gets the number of a closed one: a log must not become Hermes's stdout
    desk.write("talk.py", "import sys\nprint('out')\nprint('err', file=sys.stderr)\n")
    command = f"{shlex.join(HERMES)} exec -e {shlex.quote(f'{PYTHON} talk.py')} -n x {closed}"
    done = subprocess.run(
        command,
        shell=True,
        cwd=desk.path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    experiment = desk.experiment()
    assert (experiment.stdout, experiment.stderr) == ("out\n", "err\n")


def test_an_empty_environment_is_enough(desk: Desk, tmp_path: Path) -> None:
    programs = tmp_path / "no programs"
    programs.mkdir()
    desk.write("save.py", "import sys\nopen('version_' + sys.argv[1], 'w').write(sys.executable)\n")
    desk.write("sweep.hermes", "EXEC\n[[python, save.py]]\n")
    done = subprocess.run(
        [*HERMES, "exec", "-f", "sweep.hermes"],
        cwd=desk.path, env={"PATH": str(programs)}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    experiment = desk.experiment()
    # Without a `python` on PATH, that of Hermes runs the script
    version = (experiment.directory / f"version_{experiment.identifier}").read_text()
    assert os.path.samefile(version, sys.executable)


@pytest.mark.parametrize("name", [b"[bold] 'q'", b"new\nline", b"\xff\xfe"], ids=repr)
def test_working_directories_of_any_name(desk: Desk, name: bytes) -> None:
    folder = desk.path / os.fsdecode(name)
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    (folder / "fail.py").write_text(FAIL)
    (folder / "x.hermes").write_text(f"EXEC\n{JOB}\n[[{PYTHON}, fail.py]]\n")
    done = desk.hermes("exec", "-f", "x.hermes", code=1, cwd=folder)
    assert "Traceback" not in done.stderr
    (model,) = folder.glob("experiments/train/x/*/model_*")
    assert hermes.load_experiment(model.parent).metadata["working_directory"] == str(folder)


def test_a_working_directory_that_is_gone(desk: Desk) -> None:
    command = f"mkdir gone && cd gone && rmdir ../gone && {shlex.join(HERMES)} exec -e true"
    done = subprocess.run(
        command,
        shell=True,
        cwd=desk.path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_signals_that_the_caller_ignores_stay_ignored(desk: Desk, number: signal.Signals) -> None:
    # `nohup hermes exec ... &` is to outlive the terminal
    desk.write(
        "wait.py",
        "import os, time\nopen('waiting', 'w')\nwhile not os.path.exists('go'): time.sleep(0.01)\n",
    )
    command = [
        "/bin/sh",
        "-c",
        f"trap '' {number.value}; exec \"$@\"",
        "sh",
        *HERMES,
        "exec",
        "-e",
        f"{PYTHON} wait.py",
    ]
    with subprocess.Popen(
        command,
        cwd=desk.path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        until((desk.path / "waiting").exists)
        process.send_signal(number)
        desk.write("go")
        _, told = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, told
    assert desk.experiment().status == "finished"


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.fault(3)),
        pytest.param(signal.SIGTERM, marks=pytest.mark.fault(4)),
    ],
)
def test_a_signal_ends_the_run_and_the_jobs(desk: Desk, number: signal.Signals) -> None:
    desk.write(
        "wait.py",
        "import os, signal, sys\nopen('partial_' + sys.argv[1], 'w')\nopen('waiting', 'w')\nsignal.pause()\n",
    )
    desk.write("sweep.hermes", f"EXEC\n[[{PYTHON}, wait.py]]\n{JOB}\n")
    with desk.started("exec", "-f", "sweep.hermes") as process:
        until((desk.path / "waiting").exists)
        process.send_signal(number)
        out, err = process.communicate(timeout=LIMIT)
    # A shell tells this as 128 + n
    assert process.returncode == -number
    assert out == ""
    assert "Traceback" not in err
    experiment = desk.experiment()
    assert experiment.status == "cancelled"
    assert [file.path for file in experiment.files] == [f"partial_{experiment.identifier}"]
    assert re.search(r"2 jobs .*1 cancelled, 1 never started", err)
