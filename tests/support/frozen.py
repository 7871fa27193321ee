"""A repository, a job that imports from it early and late, and what a person does meanwhile."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .project import Project
from .words import PYTHON

JOB = """\
import os, sys, time
from code_of import VALUE
identifier, number, control = sys.argv[1:4]
open(f"{control}/started{number}", "w").close()
while not os.path.exists(f"{control}/go"):
    time.sleep(0.005)
for folder in (".", "results", "sub"):
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/model_{identifier}", "w") as file:
        file.write(VALUE + open("notes.txt").read())
with open("all.txt", "a") as file:
    file.write(number)
import later
print(VALUE, later.VALUE, os.environ["PWD"] == os.getcwd(), os.getcwd())
"""


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "gc.auto=0"]
    done = subprocess.run([*command, *words], cwd=folder, check=True, capture_output=True)
    return done.stdout.decode().strip()


def prepare(project: Project) -> None:
    """A repository with uncommitted changes, and a job that imports from it early and late."""
    project.write("job.py", JOB)
    for name in ("code_of", "later"):
        project.write(f"{name}.py", "VALUE = 'committed'\n")
    project.write(".gitignore", "/results\n/experiments\n__pycache__\n")
    git(project.path, "init", "--quiet", "--initial-branch", "trunk")
    git(project.path, "add", "--all")
    git(project.path, "commit", "--quiet", "--message", "first")
    for name in ("code_of", "later"):
        project.write(f"{name}.py", "VALUE = 'then'\n")
    project.write("notes.txt", " untracked")
    project.write("results/old", "data")
    project.control.mkdir()


def entry(project: Project, count: int = 3) -> str:
    numbers = ", ".join(map(str, range(count)))
    return f"PROD([[{PYTHON}, job.py, {{n}} {project.control}]], n=[{numbers}])"


def work_on(project: Project) -> None:
    """What a person may do meanwhile."""
    git(project.path, "commit", "--quiet", "--all", "--message", "second")
    git(project.path, "checkout", "--quiet", "-b", "other")
    project.write("later.py", "VALUE = 'now'\n")
    git(project.path, "stash")
    for name in ("code_of.py", "job.py", "notes.txt"):
        (project.path / name).unlink()


def copy_of(project: Project) -> Path:
    (copy,) = project.experiments_folder.glob(".hermes/*/code")
    return copy
