"""Programs as they are: stand-ins with the manners of those that people run, each by a command line
of its own, two jobs at a time.
"""

from __future__ import annotations

import re

import pytest

from hermes import Status

from .support import PYTHON, Desk

CLEANRL = """\
import argparse, os, time
parser = argparse.ArgumentParser()
parser.add_argument("--exp-name", default=os.path.basename(__file__)[:-3])
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--capture-video", action="store_true")
args = parser.parse_args()
run_name = f"CartPole-v1__{args.exp_name}__{args.seed}__{int(time.time())}"
os.makedirs(f"runs/{run_name}")
with open(f"runs/{run_name}/events.out.tfevents.0", "wb") as file:
    file.write(b"scalars")
if args.capture_video:
    os.makedirs(f"videos/{run_name}")
    open(f"videos/{run_name}/rl-video-episode-0.mp4", "w").write("video")
"""

STABLE_BASELINES = """\
import argparse, os
parser = argparse.ArgumentParser()
parser.add_argument("--env", required=True)
parser.add_argument("--log-dir", required=True)
args = parser.parse_args()
os.makedirs(args.log_dir, exist_ok=True)
for name in ("progress.csv", "monitor.csv", "best_model.zip"):
    open(os.path.join(args.log_dir, name), "w").write(args.env)
"""

HYDRA = """\
import os, sys
config = {"optim.lr": "0.1", "seed": "1", "hydra.run.dir": "outputs/now"}
for word in sys.argv[1:]:
    key, equals, value = word.partition("=")
    if not equals:
        sys.exit(f"no viable alternative at input '{word}': unexpected override")
    if key not in config:
        sys.exit(f"Could not override '{key}'.")
    config[key] = value
os.makedirs(config["hydra.run.dir"] + "/.hydra")
open(config["hydra.run.dir"] + "/.hydra/overrides.yaml", "w").write("\\n".join(sys.argv[1:]))
open(config["hydra.run.dir"] + "/app.log", "w").write(config["optim.lr"])
"""

LIGHTNING = """\
import argparse, os
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
args = parser.parse_args()
version = 0
while os.path.exists(f"lightning_logs/version_{version}"):
    version += 1
os.makedirs(f"lightning_logs/version_{version}/checkpoints")
open(f"lightning_logs/version_{version}/hparams.yaml", "w").write(f"lr: {args.lr}")
open(f"lightning_logs/version_{version}/checkpoints/epoch=1-step=8.ckpt", "w").write("weights")
"""

LIGHTGBM = """\
import argparse, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--num_leaves", type=int)
args = parser.parse_args()
if pathlib.Path("model.txt").exists():
    raise SystemExit("model.txt is there already")
pathlib.Path("model.txt").write_text(f"num_leaves={args.num_leaves}")
"""

OWN = "PRE\nthreads: 2\ncwd: experiment\nidentifier: none\n"
SIDE_BY_SIDE = "PRE\nthreads: 2\n"

PROGRAMS = {
    "cleanrl": (
        CLEANRL, SIDE_BY_SIDE,
        "--exp-name {identifier} --seed {x} {video}]], x=[1, 2], video=['', --capture-video]",
        {"runs/CartPole-vN__@__N__N/events.out.tfevents.N": "scalars"},
    ),
    "sb3": (
        STABLE_BASELINES, f"{SIDE_BY_SIDE}identifier: none\n",
        "--env Pong-v{x} --log-dir {directory}]], x=[1, 2]",
        dict.fromkeys(("progress.csv", "monitor.csv", "best_model.zip"), "Pong-vN"),
    ),
    "hydra": (
        HYDRA, SIDE_BY_SIDE,
        "optim.lr={x} seed=1 hydra.run.dir=outputs/{identifier}]], x=[1, 2]",
        {"outputs/@/app.log": "N",
         "outputs/@/.hydra/overrides.yaml": "optim.lr=N\nseed=N\nhydra.run.dir=outputs/@"},
    ),
    "lightning": (
        LIGHTNING, OWN, "--lr {x}]], x=[1, 2]",
        {"lightning_logs/version_N/hparams.yaml": "lr: N.N",
         "lightning_logs/version_N/checkpoints/epoch=N-step=N.ckpt": "weights"},
    ),
    "lightgbm": (
        LIGHTGBM, OWN, "--num_leaves {x}]], x=[7, 31]", {"model.txt": "num_leaves=N"},
    ),
}  # fmt: skip
"""Script, settings, the rest of the command, and what a job leaves, with `@` for its identifier and
`N` for numbers."""


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_as_they_are(desk: Desk, name: str) -> None:
    script, pre, command, files = PROGRAMS[name]
    desk.write(f"{name}.py", script)
    desk.write("x.hermes", f"{pre}EXEC\nPROD([[{PYTHON}, {name}.py {command})\n")
    before = set(desk.tree(desk.path))
    done = desk.hermes("exec", "-f", "x.hermes")
    assert "warning" not in done.stderr
    experiments = desk.experiments()
    assert len(experiments) == (4 if name == "cleanrl" else 2)
    for experiment in experiments:
        assert experiment.status is Status.FINISHED
        parameter = experiment.metadata.parameters["x"]
        stored = {
            path: text
            for path, text in desk.tree(experiment.directory, own=True).items()
            if text not in ("/", "video")
        }
        # What the job was asked for is what it has left
        if name != "cleanrl":
            assert any(parameter in text for text in stored.values())
        shown = {
            _shown(path, experiment.identifier): _shown(text, experiment.identifier)
            for path, text in stored.items()
        }
        assert shown == files
    left = {path for path in desk.tree(desk.path) if not path.startswith("experiments")} - before
    assert left <= {"runs", "videos", "outputs"}


@pytest.mark.parametrize("name", ["cleanrl", "sb3", "hydra", "lightgbm"])
def test_programs_that_take_no_identifier_say_how_to_keep_it_away(desk: Desk, name: str) -> None:
    desk.write(f"{name}.py", PROGRAMS[name][0])
    arguments = " --env x --log-dir out" if name == "sb3" else ""
    done = desk.hermes("exec", "-e", f"{PYTHON} {name}.py{arguments}", code=1)
    assert "hint: the script does not know the identifier" in done.stderr
    assert "`identifier: none`" in done.stderr


def _shown(text: str, identifier: str) -> str:
    return re.sub(r"\d+", "N", text.replace(identifier, "@"))
