"""Jobs that do anything: what they leave in the end is what is collected."""

from __future__ import annotations

import json
import os
import sys

import anyio
import pytest

from .place import Place, both_ways

pytestmark = pytest.mark.anyio

CHAOS = """\
import json, os, random, shutil, stat, sys, time
seed, steps, own = sys.argv[1:]
generator = random.Random(seed)

def some(kind):
    found = []
    for top, folders, files in os.walk("."):
        if top == ".":
            folders[:] = [each for each in folders if each.startswith("seed" + seed) or own in each]
            files = [each for each in files if own in each]
        found += [os.path.join(top, each) for each in (folders if kind == "folder" else files)]
    return generator.choice(sorted(found)) if found else None

def place():
    folder = some("folder") if generator.random() < 0.7 else "."
    if folder is None or os.path.islink(folder):
        folder = "."
    name = generator.choice("abcd")
    marked = generator.random() < 0.6 or folder == "."
    return folder + "/" + (name + "_" + own if marked else name)

def act(step):
    doings = "create create append replace delete rename mkdir mkdirs link symlink rmtree move"
    what = generator.choice(doings.split())
    if what == "create":
        with open(place(), "w") as file:
            file.write("%d" % step)
    elif what == "append":
        with open(some("file"), "a") as file:
            file.write("+%d" % step)
    elif what == "replace":
        with open(".temporary" + seed, "w") as file:
            file.write("r%d" % step)
        os.replace(".temporary" + seed, place())
    elif what == "delete":
        os.unlink(some("file"))
    elif what == "rename":
        os.rename(some("file"), place())
    elif what == "mkdir":
        os.mkdir(place())
    elif what == "mkdirs":
        folder = generator.choice("xyz") + "/" + generator.choice(["u", "v_" + own])
        os.makedirs("seed" + seed + "/" + folder)
    elif what == "link":
        os.link(some("file"), place())
    elif what == "symlink":
        os.symlink(generator.choice(["nowhere", ".", "..", "/proc/version", own]), place())
    elif what == "rmtree":
        shutil.rmtree(some("folder"))
    else:
        os.rename(some("folder"), place())

for sequence in range(int(steps)):
    for step in range(25):
        try:
            act(step)
        except (OSError, TypeError):
            pass
        if generator.random() < 0.3:
            time.sleep(generator.random() * 0.008)

# What it has left that carries the identifier
left = {}
for top, folders, files in os.walk("."):
    if top == ".":
        folders[:] = [each for each in folders if each != "experiments"]
    for each in folders + files:
        path = os.path.relpath(os.path.join(top, each), ".")
        if own in path:
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                left[path] = "-> " + os.readlink(path)
            else:
                left[path] = "/" if stat.S_ISDIR(mode) else open(path).read()
json.dump(left, open(os.environ["HERMES_EXPERIMENT_DIR"] + "/left.json", "w"))
"""


@both_ways
async def test_what_a_job_leaves_is_what_is_collected(place: Place) -> None:
    place.write("chaos.py", CHAOS)
    async with place.jobs(8) as jobs, anyio.create_task_group() as tasks:
        for seed, job in enumerate(jobs):
            tasks.start_soon(job.execute, sys.executable, "-S", "chaos.py", f"{seed}", "6")
    for job in jobs:
        assert job.problems == []
        left = json.loads((job.directory / "left.json").read_text())
        stored = job.stored
        del stored["left.json"]
        # Folders that do not carry the identifier are there for what is in them
        expected = dict(left)
        for path in left:
            parent = os.path.dirname(path)
            while parent:
                expected.setdefault(parent, "/")
                parent = os.path.dirname(parent)
        assert stored == expected
        assert place.leftovers(job.identifier) == []
        assert set(job.files) == {path for path, content in left.items() if content != "/"}
