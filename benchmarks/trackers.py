"""Trackers of experiments that users would ask instead: their own stores with as many runs.

One run is made by the tracker itself. The others are copies of it with values of their own, because
it would take minutes to make them.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

from .measure import Contender

MLFLOW_VARIABLE = "HERMES_BENCH_MLFLOW"
"""Holds the path of MLflow's command, beside which its Python is."""

GUILD_VARIABLE = "HERMES_BENCH_GUILDAI"
"""Holds the path of Guild's command."""


def mlflow(folder: Path, runs: int) -> Contender | None:
    """MLflow's search on its own sqlite; None if it is absent."""
    program = shutil.which(os.environ.get(MLFLOW_VARIABLE, ""))
    if program is None:
        return None
    program = str(Path(program).with_name("python"))
    place = folder / "mlflow"
    place.mkdir()
    (place / "make.py").write_text(MLFLOW_MAKE)
    (place / "ask.py").write_text(MLFLOW_ASK)
    _call([program, "make.py", str(runs)], place)
    return Contender(
        f"MLflow's search of {runs:,}", [program, "ask.py"], place, environment=_ALONE, is_peer=True
    )


def guild(folder: Path, runs: int) -> Contender | None:
    """Guild's list of runs; None if it is absent."""
    program = shutil.which(os.environ.get(GUILD_VARIABLE, ""))
    if program is None:
        return None
    place = folder / "guild"
    place.mkdir()
    (place / "home").mkdir()
    (place / "train.py").write_text(GUILD_SCRIPT)
    environment = {**_ALONE, "GUILD_HOME": str(place / "home")}
    _call([program, "run", "-y", "train.py"], place, environment)
    (first,) = (place / "home" / "runs").iterdir()
    chance = random.Random(1)
    for number in range(runs - 1):
        name = f"{chance.getrandbits(128):032x}"
        copy = first.with_name(name)
        shutil.copytree(first, copy, symlinks=True)
        attributes = copy / ".guild" / "attrs"
        (attributes / "id").write_text(f"{name}\n")
        (attributes / "flags").write_text(
            f"env: {chance.choice(['pong', 'maze'])}\nlr: {chance.choice([0.1, 1e-4])}\n"
            f"seed: {number % 10}\n"
        )
    return Contender(
        f"guild runs --all of {runs:,}",
        [program, "runs", "--all"],
        place,
        environment=environment,
        is_peer=True,
    )


_ALONE = {"PYTHONPATH": ""}
"""Our packages are not meant for their environments."""


def _call(command: list[str], folder: Path, environment: dict[str, str] = _ALONE) -> None:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {(done.stderr or done.stdout).strip()[-500:]}")


MLFLOW_MAKE = """\
import random
import sqlite3
import sys
import mlflow

mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.set_experiment("bench")
with mlflow.start_run() as run:
    mlflow.log_params({"lr": "0.1", "env": "pong", "seed": "0", "gamma": "0.99"})
    mlflow.log_metrics({"loss": 0.5, "return": 100.0}, step=4)
chance = random.Random(1)
database = sqlite3.connect("mlflow.db")
columns = {
    table: [each[1] for each in database.execute(f"PRAGMA table_info({table})")]
    for table in ("runs", "params", "metrics", "latest_metrics", "tags")
}
rows = {
    table: database.execute(
        f"SELECT {', '.join(names)} FROM {table} WHERE run_uuid = ?", (run.info.run_id,)
    ).fetchall()
    for table, names in columns.items()
}
for number in range(int(sys.argv[1]) - 1):
    changed = {
        "run_uuid": f"{chance.getrandbits(128):032x}",
        "lr": chance.choice(["0.1", "0.01", "0.001", "1e-4"]),
        "env": ["cartpole", "pong", "maze", "lander"][number % 4],
        "seed": str(number % 10),
        "loss": chance.random(),
        "return": 200 * chance.random(),
    }
    for table, names in columns.items():
        for row in rows[table]:
            values = dict(zip(names, row))
            values["run_uuid"] = changed["run_uuid"]
            if table != "runs" and values.get("key") in changed:
                values["value"] = changed[values["key"]]
            marks = ", ".join("?" for _ in names)
            quoted = ", ".join(names)
            database.execute(
                f"INSERT INTO {table} ({quoted}) VALUES ({marks})", list(values.values())
            )
database.commit()
"""

MLFLOW_ASK = """\
import mlflow

mlflow.set_tracking_uri("sqlite:///mlflow.db")
found = mlflow.search_runs(
    experiment_names=["bench"],
    filter_string="params.env = 'pong' and params.seed = '3' and metrics.loss < 0.5",
    max_results=50_000,
    output_format="list",
)
for run in found:
    print(run.info.run_id, run.data.params, run.data.metrics)
assert found
"""

GUILD_SCRIPT = """\
lr = 0.1
env = "pong"
seed = 0
print("loss: 0.5")
"""
