"""The files that `hermes create` and `hermes demo` write."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import hermes

_NEW_FILE = """\
# A hermes file says what to execute. Look at what it comes to:  hermes compile {name}
# Everything after a `#` or `//` is a comment.

PRE
# Settings. At most this many jobs at the same time:
threads: 1

STD-H
# Hermes options for every job, for instance:
#   -ca config.yaml      copy into the experiment directory after the job
#   -cb data/train.csv   copy before it starts
#   -ma results.txt      move after it
#   -c "first try"       a comment for the metadata
#   -l false             show what the job prints, live

STD-E
# Script arguments for every job, for instance:
#   --epochs 10

EXEC
# A job is [[program, script, arguments ...],[hermes options ...]].
# The script gets an identifier as its first argument;
# every file whose name carries it is collected in experiments/<script>/<name>/<identifier>/.
{jobs}

# Sweeps run a job for every combination, or for lists in step:
#   PROD([[python, train.py, --lr {{lr}} --seed {{seed}}]], lr=[0.1, 0.01], seed=RANGE[0, 5])
#   ZIP([[python, train.py, --env {{env}} --steps {{steps}}]], env=[pole, pong], steps=[100, 500])
"""

_PROGRAMS = {
    ".py": "python",
    ".sh": "bash",
    ".R": "Rscript",
    ".r": "Rscript",
    ".jl": "julia",
    ".js": "node",
    ".pl": "perl",
    ".rb": "ruby",
}


def new_file(scripts: Sequence[str]) -> str:
    """A hermes file that executes `scripts`, each by the program that its suffix tells."""
    jobs = (
        "\n".join(f"[[{_command(script)}],[]]" for script in scripts)
        or "[[python, train.py, --lr 0.001],[]]"
    )
    return _NEW_FILE.format(name="FILE", jobs=jobs)


def _command(script: str) -> str:
    program = _PROGRAMS.get(Path(script).suffix)
    if program is not None:
        return f"{program}, {hermes.quote(script)}"
    return hermes.quote(script if "/" in script else f"./{script}")


def write_demo(folder: Path) -> None:
    """Writes the example into `folder`. Raises `HermesError` rather than overwrite anything."""
    source = files("hermes.cli").joinpath("demo_files")
    found = {path: data for path, data in _below(source, "") if not path.endswith(".pyc")}
    # Makes the folder a root of its own, also within somebody's git repository
    found[".hermes_settings"] = b'path_to_experiments:"."\n'
    for path, data in found.items():
        target = folder / path
        if target.exists() and target.read_bytes() != data:
            raise hermes.HermesError(
                f"`{target}` exists already, it was left as it is",
                hint="`hermes demo DIR` writes elsewhere",
            )
    try:
        for path, data in found.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
    except OSError as exc:
        raise hermes.HermesError(f"cannot write `{exc.filename}`: {exc.strerror}") from None


def _below(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found = []
    for each in folder.iterdir():
        if each.is_dir():
            found += _below(each, f"{prefix}{each.name}/") if each.name != "__pycache__" else []
        else:
            found.append((f"{prefix}{each.name}", each.read_bytes()))
    return found
