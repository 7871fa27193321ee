"""A toy in place of Slurm: `sbatch`, `squeue`, `scancel` and `scontrol` that keep their jobs in a
folder, and run them on this machine, one array after the other. Quick, and it does what it is told:
it hangs, prints banners, loses answers and knows limits.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .project import Project

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol")

SCRIPT = """\
#!/bin/sh
toy={folder}
printf '%s\\n' "{name} $*" >> $toy/calls
[ ! -e $toy/{name}.before ] || . $toy/{name}.before
{python} -S -E {program} {name} "$@"; rc=$?
[ ! -e $toy/{name}.after ] || . $toy/{name}.after
exit $rc
"""

HANG = "touch $toy/hangs; sleep 300 & wait\n"
"""Its child outlives it, and holds its pipes."""

HANG_IN_EARNEST = f"""\
case " $* " in *" --test-only "*) ;; *) {HANG.strip()};; esac
"""
"""Not where it only checks what it would do."""

PROGRAM = """\
import os, subprocess, sys, time

folder = os.path.dirname(os.path.abspath(__file__))
tasks = folder + "/tasks"
command, words = sys.argv[1], sys.argv[2:]
options = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))


def write(task, state, name):
    with open(f"{tasks}/.{task}", "w") as file:
        file.write(f"{state}|{name}")
    os.replace(f"{tasks}/.{task}", f"{tasks}/{task}")


def read(task):
    with open(f"{tasks}/{task}") as file:
        return file.read().split("|", 1)


def listed():
    names = [name for name in os.listdir(tasks) if name[0] != "."]
    return sorted(names, key=lambda name: [int(part) for part in name.split("_")])


def holds():
    return os.path.exists(folder + "/hold")


def wait_for(dependency):
    for array in dependency.split(":")[1:]:
        while any(
            task.startswith(f"{array}_") and read(task)[0] in ("PENDING", "RUNNING")
            for task in listed()
        ):
            time.sleep(0.02)


def run(array, numbers, name):
    environment = {**os.environ, "SLURM_ARRAY_JOB_ID": str(array), "SLURMD_NODENAME": "toy"}
    for number in numbers:
        task = f"{array}_{number}"
        while holds():
            time.sleep(0.01)
        if not os.path.exists(f"{tasks}/{task}") or read(task)[0] != "PENDING":
            continue
        wait_for(options.get("dependency", ""))
        write(task, "RUNNING", name)
        environment |= {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_JOB_ID": str(1000 + number)}
        code = 1
        try:
            with open(options["output"].replace("%a", str(number)).replace("%%", "%"), "a") as log:
                code = subprocess.call(
                    ["sh", "-c", options["wrap"]],
                    cwd=options["chdir"], env=environment, stdout=log, stderr=log,
                )
        except OSError:
            pass
        if read(task)[0] == "RUNNING":
            write(task, "FAILED" if code else "COMPLETED", name)


def sbatch():
    if "test-only" in options:
        return
    count = int(options["array"].partition("%")[0].partition("-")[2] or 0) + 1
    most = folder + "/most"
    if os.path.exists(most):
        limit, said = open(most).read().split(" ", 1)
        waiting = sum(read(task)[0] in ("PENDING", "RUNNING") for task in listed())
        if waiting + count > int(limit):
            sys.exit(said)
    array = 1
    while True:
        try:
            os.mkdir(f"{folder}/array{array}")
            break
        except FileExistsError:
            array += 1
    name = options["job-name"]
    for number in range(count):
        write(f"{array}_{number}", "PENDING", name)
    sys.stdout.write(f"Submitted batch job {array}\\n")
    sys.stdout.flush()
    if os.fork() == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        run(array, range(count), name)
        os._exit(0)


def squeue():
    wanted = options.get("name", "").split(",")
    print("JOBID|STATE|REASON|RESTART_COUNT|NODELIST|NAME")
    for task in listed():
        state, name = read(task)
        if name in wanted:
            print(f"{task}|{state}|None|0||{name}")


def scancel():
    only = options.get("state")
    ids = [word for word in words if not word.startswith("--")]
    for task in listed():
        state, name = read(task)
        is_meant = task in ids or task.partition("_")[0] in ids or name == options.get("name")
        if is_meant and state in ("PENDING", "RUNNING") and only in (None, state):
            write(task, "CANCELLED", name)


def scontrol():
    print("MaxArraySize            = 1001\\nMaxJobCount             = 10000")
    print("MessageTimeout          = 1 sec")


globals()[command]()
"""


class ToySlurm:
    """`folder` holds what it knows; its commands are in `bin`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        (folder / "tasks").mkdir(parents=True)
        self.bin.mkdir()
        program = folder / "toy.py"
        program.write_text(PROGRAM)
        for name in COMMANDS:
            script = self.bin / name
            script.write_text(
                SCRIPT.format(
                    folder=shlex.quote(str(folder)),
                    name=name,
                    python=shlex.quote(sys.executable),
                    program=shlex.quote(str(program)),
                )
            )
            script.chmod(0o755)

    def before(self, command: str, code: str) -> None:
        """Shell code for the beginning of a command; `$toy` is the folder. An empty one ends
        that."""
        _put(self.folder / f"{command}.before", code)

    def after(self, command: str, code: str) -> None:
        """Shell code for its end; `$rc` is its exit code."""
        _put(self.folder / f"{command}.after", code)

    def limit(self, most: int, said: str) -> None:
        """Takes no more than `most` tasks at the same time; what `sbatch` says to more."""
        (self.folder / "most").write_text(f"{most} {said}")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Meanwhile no task starts."""
        (self.folder / "hold").touch()
        try:
            yield
        finally:
            (self.folder / "hold").unlink()

    def cancel_whole(self, array: int) -> None:
        """As `scancel -u` does with one that waits: one row is left for all its tasks."""
        found = list((self.folder / "tasks").glob(f"{array}_*"))
        name = found[0].read_text().partition("|")[2]
        (self.folder / "tasks" / str(array)).write_text(f"CANCELLED|{name}")
        for path in found:
            path.unlink()

    @property
    def hangs(self) -> bool:
        """Whether a command hangs, or has hung."""
        return (self.folder / "hangs").exists()

    def calls(self, command: str) -> list[str]:
        """How a command was called, without its name."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.partition(" ")[2] for line in lines if line.split(" ")[0] == command]

    @property
    def submitted(self) -> list[str]:
        """The calls of `sbatch` that were in earnest."""
        return [call for call in self.calls("sbatch") if "--test-only" not in call]

    def accepted(self, desk: Project) -> int:
        """How many submissions a client knows to have been taken."""
        return len(list(desk.experiments_folder.glob(".hermes/*/slurm/*.job")))

    @property
    def states(self) -> dict[str, str]:
        """The state of every task, by its id."""
        return {
            path.name: path.read_text().partition("|")[0]
            for path in (self.folder / "tasks").glob("[0-9]*")
        }


def _put(path: Path, code: str) -> None:
    if code:
        # A command must not read half of it
        path.with_suffix(".new").write_text(code)
        path.with_suffix(".new").replace(path)
    else:
        path.unlink()


def toy_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ToySlurm:
    """A toy whose commands are found first."""
    toy = ToySlurm(folder)
    monkeypatch.setenv("PATH", f"{toy.bin}{os.pathsep}{os.environ['PATH']}")
    return toy
