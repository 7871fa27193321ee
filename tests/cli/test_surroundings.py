"""Closed streams, odd folders, an empty environment, and signals."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hermes

from ..support import HERMES, JOB, LIMIT, PYTHON, TRAIN, Desk, environment, until
from ..support.words import FAIL


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
    # The next file that is opened gets the number of a closed one: a log must not become Hermes's
    # stdout
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
        cwd=desk.path, env={"PATH": str(programs)}, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False, timeout=LIMIT,
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
    assert hermes.load_experiment(model.parent).metadata.working_directory == str(folder)


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
def test_signal_ends_the_run_and_the_jobs(desk: Desk, number: signal.Signals) -> None:
    desk.write(
        "wait.py",
        "import os, signal, sys\nopen('partial_' + sys.argv[1], 'w')\nopen('waiting', 'w')\n"
        "signal.pause()\n",
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


NOT_UTF8 = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONIOENCODING": None}

WORDS = """\
import os, sys
own = os.fsencode(sys.argv[1])
assert os.fsencode(sys.argv[2]) == "gr\\u00f6\\u00dfe".encode(), sys.argv
assert os.environ["LC_ALL"] == "C" and os.environ["PYTHONUTF8"] == "0"
assert not sys.flags.utf8_mode
for name in (own + b"_\\xe4", own + "_\\u20ac".encode()):
    open(name, "w").close()
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("command", [("ls",), ("compile", "x.hermes"), ("ls", "--json")])
def test_output_for_which_there_is_no_room_is_told(desk: Desk, command: tuple[str, ...]) -> None:
    desk.write("job.sh", "")
    desk.hermes_file("[[sh, job.sh]]")
    desk.hermes("exec", "-f", "x.hermes")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*HERMES, *command], cwd=desk.path, env=environment(), stdout=full,
            stderr=subprocess.PIPE, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "error: cannot write: No space left on device\n")


def test_the_first_process_of_a_container_tells_what_ended_it(desk: Desk) -> None:
    namespace = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("there are no namespaces here")
    desk.write("job.sh", ": > ready; sleep 100")
    end = "(until [ -e ready ]; do sleep 0.05; done; kill -TERM 1) & exec "
    command = shlex.join([*HERMES, "exec", "-e", "sh job.sh", "-n", "x"])
    done = subprocess.run(
        [*namespace, "sh", "-c", end + command],
        cwd=desk.path, env=environment(), capture_output=True, text=True, timeout=LIMIT,
        check=False,
    )  # fmt: skip
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert desk.experiment().status == "cancelled"


@pytest.mark.parametrize("command", ["file", "command", "compile"])
def test_a_locale_that_is_not_utf8_is_for_the_jobs_alone(desk: Desk, command: str) -> None:
    desk.write("jöb.py", WORDS)
    desk.write("ünn.txt", "x")
    desk.write("größe.hermes", f"EXEC\n[[{PYTHON}, jöb.py, größe],[-cb ünn.txt]]\n")
    arguments = {
        "file": ["exec", "-f", "größe.hermes", "-n", "größe"],
        "command": ["exec", "-e", f"{PYTHON} jöb.py größe", "-n", "größe"],
        "compile": ["compile", "größe.hermes"],
    }[command]
    done = desk.hermes(*arguments, env=NOT_UTF8, encoding="utf-8")
    assert "jöb" in done.stdout + done.stderr
    if command != "compile":
        experiment = desk.experiment()
        assert (experiment.script, experiment.name) == ("jöb", "größe")
        names = sorted(os.fsencode(file.path)[-3:] for file in experiment.files)
        assert {b"\xe2\x82\xac"} < set(names)
        assert desk.leftovers(experiment.identifier) == []


@pytest.mark.parametrize("text", ["[[true, größe]]", "[[true],[-c größe]]"])
def test_a_program_that_is_not_in_utf8_is_told_before_anything_starts(
    desk: Desk, text: str
) -> None:
    desk.write("x.hermes", f"EXEC\n{text}\n")
    code = """\
import asyncio, hermes, sys
try:
    asyncio.run(hermes.run_file("x.hermes", sys.argv[1]))
except hermes.HermesError as error:
    print(ascii(str(error)))
"""
    for name in ("n", "größe"):
        done = subprocess.run(
            [sys.executable, "-c", code, name],
            cwd=desk.path, env=environment(NOT_UTF8), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "the locale of this process (ascii)" in done.stdout
        assert "PYTHONUTF8=1" in done.stdout
    assert not desk.experiments_folder.exists()
