"""Arguments that name files of the working directory, for jobs that run in another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from .helpers import compiled, write

HERE = "PRE\ncwd: experiment\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train.py", "data.csv", "a b", "1"):
        write(tmp_path / name, "")
    (tmp_path / "conf").mkdir()
    write(tmp_path / "conf" / "x.yaml", "")
    return tmp_path


@pytest.mark.parametrize(
    ("entry", "paths"),
    [
        ("[[python, train.py, --c=conf/x.yaml, 'a b']]", ["conf/x.yaml", "a b"]),
        ("[[python, train.py, /data.csv gone.csv . ./ .. -data.csv --x=]]", []),
        ("[[nice, python, ./train.py, conf conf]]", ["conf"]),
        ("[[python, -c, data.csv]]", []),
        ("[[python, -m, train, ./data.csv]]", ["./data.csv"]),
        ("PROD([[python, {s}.py, {x} -p {x}.csv]], s=[train], x=[data, 1])", ["1", "data.csv"]),
        ("[[python, train.py]]\n[[python, train.py, data.csv]]", ["data.csv"]),
    ],
)  # fmt: skip
def test_arguments_that_lead_to_something_are_told(
    entry: str, paths: list[str], folder: Path
) -> None:
    plan = compiled(folder, f"{HERE}EXEC\n{entry}\n")
    told = [warning for warning in plan.warnings if "cwd: experiment" in warning]
    assert [warning.split("`")[1] for warning in told] == paths
    for path, warning in zip(paths, told, strict=True):
        assert f"write `{folder / path}` if it is meant" in warning
    plan.check("name")


def test_standard_arguments_are_told_too(folder: Path) -> None:
    text = "STD-E\n--data data.csv\nEXEC\n[[python, train.py]]\n"
    (warning,) = compiled(folder, HERE + text).warnings
    assert warning.startswith("x.hermes:4: `data.csv` is there in the working directory")
    assert compiled(folder, text).warnings == ()


def test_paths_are_not_shared_where_every_job_has_its_own_directory(folder: Path) -> None:
    text = "threads: 2\nSTD-H\n-ma model.txt\nEXEC\n[[python, train.py]]\n[[python, train.py]]\n"
    (warning,) = compiled(folder, f"PRE\n{text}").warnings
    assert "`cwd: experiment` in PRE" in warning
    assert compiled(folder, HERE + text).warnings == ()
