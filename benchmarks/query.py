"""`query`: how long a person waits who asks many experiments for the few that are meant."""

from __future__ import annotations

import importlib.util
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hermes import Status
from hermes.query.metrics.files import summed_at_end
from hermes.storage.layout import index_file
from hermes.storage.metadata import GitState, HermesFile, Metadata, StoredFile, Versions, encoded

from . import trackers
from .measure import HERMES, TURNS, Contender, Turns, differences, python, remove, take_turns
from .table import Figures, Row, Target, count

WHERE = "lr < 0.001 and env = pong and seed = 3 and loss < 0.5"
ASK = [*HERMES, "ls", WHERE, "--root", "."]

MOST_WARM = 0.6
"""Seconds. What answers at once is asked again and again."""

MOST_COLD = 2.0
"""Seconds, once after the index was deleted."""

MOST_RUNNING = 0.1
"""Seconds for ten experiments that run: they are read anew each time."""

LEAST_RATIO = 5.0
"""Times as long as Hermes, for the same number of runs."""

MOST_MORE_MEMORY = 8.0
"""MB. What jobs print is read piece by piece, and not kept."""

ENVIRONMENTS = ("cartpole", "pong", "maze", "lander")
RATES = ("0.1", "0.01", "0.001", "1e-4", "3e-4")


def run(folder: Path, *, smoke: bool) -> Row:
    sizes, turns = ((60, 30, 10), 1) if smoke else ((50_000, 10_000, 1_000), TURNS)
    many, some, few = (_made(folder / f"{size}", size) for size in sizes)
    with_running = _made(folder / "running", sizes[2], running=10)
    # The few are many enough for the process to live until its memory is looked at
    few_lines, most_lines = (100, 500) if smoke else (100_000, 500_000)
    slim, fat = (
        _made(folder / f"printed{lines}", 1, lines=lines) for lines in (few_lines, most_lines)
    )
    # What has just changed is not trusted
    time.sleep(2.5)
    warm, cold = f"hermes ls of {sizes[0]:,}", f"hermes ls of {sizes[0]:,}, building its index"
    bare, frame = f"msgspec reads {sizes[0]:,} files", f"pandas frame of {sizes[0]:,} files"
    some_, few_, all_of_few, running = (
        f"hermes ls of {sizes[1]:,}",
        f"hermes ls of {sizes[2]:,}",
        f"hermes ls of {sizes[2]:,} that shows all",
        f"hermes ls of {sizes[2]:,}, 10 of them running",
    )
    slim_, fat_ = (
        f"hermes ls of 1 without index that has printed {few_lines:,} lines",
        f"the same after {most_lines:,} lines",
    )
    (folder / "bare.py").write_text(BARE_CODE)
    (folder / "frame.py").write_text(FRAME_CODE)
    notes = []
    contenders = [
        Contender(cold, ASK, many, _without_index(many)),
        Contender(warm, ASK, many),
        Contender(bare, python("../bare.py"), many),
        Contender(some_, ASK, some),
        Contender(few_, ASK, few),
        Contender(all_of_few, [*HERMES, "ls", "--root", "."], few),
        Contender(running, ASK, with_running),
        Contender(slim_, ASK, slim, _without_index(slim)),
        Contender(fat_, ASK, fat, _without_index(fat)),
    ]
    if importlib.util.find_spec("pandas"):
        contenders.append(Contender(frame, python("../frame.py"), many))
    else:
        notes.append("pandas: absent")
    mlflow, guild = trackers.mlflow(folder, sizes[1]), trackers.guild(folder, sizes[2])
    for name, contender in (("MLflow", mlflow), ("Guild", guild)):
        if contender is None:
            notes.append(f"{name}: absent")
        else:
            contenders.append(contender)
    took = take_turns(contenders, turns, warm_up=True)
    memory = {
        name: [sample.peak_memory for sample in took.samples[name]] for name in (warm, slim_, fat_)
    }
    more_memory = differences(memory[fat_], memory[slim_])
    return Row(
        f"query: whole processes that ask `{WHERE}`; {count(turns)}",
        warm,
        [
            *took.times(warm),
            *(Figures(f"{name}, peak memory", each, "MB") for name, each in memory.items()),
        ],
        [
            Target(warm, "<=", MOST_WARM, took.seconds(warm), "s"),
            Target(cold, "<=", MOST_COLD, took.seconds(cold), "s"),
            Target(
                "10 running ones: more than without",
                "<=",
                MOST_RUNNING,
                differences(took.seconds(running), took.seconds(few_)),
                "s",
            ),
            Target("MLflow / Hermes", ">=", LEAST_RATIO, _ratio(took, mlflow, some_)),
            Target("Guild / Hermes", ">=", LEAST_RATIO, _ratio(took, guild, all_of_few)),
            Target("memory for much output", "<=", MOST_MORE_MEMORY, more_memory, "MB"),
        ],
        notes + took.failures,
        took.raw(),
    )


def _ratio(took: Turns, peer: Contender | None, ours: str) -> list[float] | None:
    if peer is None or peer.name not in took.samples:
        return None
    return took.relative(peer.name, ours)


def _without_index(root: Path) -> Callable[[], None]:
    return remove(Path(index_file(str(root / "experiments"))))


def _made(root: Path, number: int, *, running: int = 0, lines: int = 5) -> Path:
    """A root with so many experiments, each of which has printed so many lines."""
    chance = random.Random(1)
    begin = datetime(2026, 11, 20, 12, tzinfo=UTC)
    for index in range(number):
        start = begin + timedelta(seconds=3 * index)
        parameters = {
            "lr": chance.choice(RATES),
            "env": ENVIRONMENTS[index % len(ENVIRONMENTS)],
            "seed": str(index % 10),
            "gamma": chance.choice(["0.99", "0.995"]),
        }
        is_running = index >= number - running
        arguments = [word for name, text in parameters.items() for word in (f"--{name}", text)]
        metadata = Metadata(
            identifier=start.strftime("%Y_%m_%d_%H%M%S%f") + "_1930e",
            script="train_dqn",
            argv=("python", "train_dqn.py", *arguments),
            arguments=(*arguments, "--layers", "[64,64]"),
            parameters=parameters,
            template=("python", "train_dqn.py", "--lr", "{lr}", "--env", "{env}"),
            program="/usr/bin/python3.11",
            python="3.11.7",
            key=f"{chance.getrandbits(256):064x}",
            hermes_file=HermesFile(path="sweep.hermes", line=7, sha256=f"{5:064x}"),
            status=Status.RUNNING if is_running else Status.FINISHED,
            start=start,
            end=None if is_running else start + timedelta(seconds=100),
            duration=None if is_running else 100 * chance.random(),
            exit_code=None if is_running else 0,
            files=[StoredFile("results/model.pt", 12345, "collected")],
            run_id="2026_11_20_120000-abcde",
            name="sweep",
            working_directory="/home/ada/project",
            root="/home/ada/project",
            settings={"threads": 2, "grace": 10.0},
            git=GitState(commit=f"{chance.getrandbits(160):040x}", branch="main", dirty=False),
            host="lab",
            user="ada",
            versions=Versions(hermes="0.1.0", python="3.11.7", platform="Linux-6.1"),
        )
        directory = root / "experiments" / "train_dqn" / "sweep" / metadata.identifier
        directory.mkdir(parents=True)
        with (directory / "stdout.log").open("w") as file:
            for line in range(lines):
                loss = chance.random()
                file.write(f"episode: {line} return: {200 * loss:.2f} loss: {loss:.4f}\n")
        (directory / "stderr.log").touch()
        if not is_running:
            metadata.metrics = summed_at_end(str(directory), metadata)
        (directory / "hermes.json").write_bytes(encoded(metadata))
    return root


BARE_CODE = """\
import glob
import msgspec

class Wanted(msgspec.Struct):
    identifier: str
    parameters: dict[str, str]

decode = msgspec.json.Decoder(Wanted).decode
for path in glob.iglob("experiments/*/*/*/hermes.json"):
    with open(path, "rb") as file:
        found = decode(file.read())
    given = found.parameters
    if float(given["lr"]) < 0.001 and given["env"] == "pong" and given["seed"] == "3":
        print(found.identifier, given)
"""
"""What nobody who reads the files can go below; it knows nothing of metrics."""

FRAME_CODE = """\
import glob
import msgspec
import pandas

rows = []
for path in glob.iglob("experiments/*/*/*/hermes.json"):
    with open(path, "rb") as file:
        found = msgspec.json.decode(file.read())
    rows.append({**found, **found["parameters"]})
frame = pandas.DataFrame(rows)
frame[["lr", "seed"]] = frame[["lr", "seed"]].apply(pandas.to_numeric)
print(frame.query("lr < 0.001 and env == 'pong' and seed == 3"))
"""
