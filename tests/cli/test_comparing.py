"""`hermes compare` and `hermes plot`, as somebody calls them after a sweep."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess

import pytest

from hermes import Status

from ..query.simple import experiment, identifier
from ..support import Desk

LINES = 12
SEEDS = 3


@pytest.fixture
def desk(desk: Desk) -> Desk:
    """A sweep over two rates and three seeds, of which one has failed and one ended early."""
    for number in range(2 * SEEDS):
        rate, seed = ("0.1", "1e-2")[number // SEEDS], number % SEEDS
        directory = experiment(
            desk.path / "experiments",
            number,
            parameters={"lr": rate, "seed": str(seed)},
            argv=("python", "train.py", identifier(number), "-lr", rate, "--seed", str(seed)),
            arguments=("-lr", rate, "--seed", str(seed)),
            status=Status.FAILED if number == 4 else Status.FINISHED,
        )
        rows = [f"{10 * n},{float(rate) * n + seed}" for n in range(LINES - (number == 1))]
        (directory / "returns.csv").write_text("\n".join(["step,return", *rows, ""]))
    return desk


NOTES = [
    "note: 1 failed left out; `--with-failed` includes them",
    "note: missing: lr 1e-2 lacks seed 1",
]
UNEQUAL = "note: `return` ends at different steps: lr 0.1: 100 to 110"


def test_groups(desk: Desk) -> None:
    done = desk.hermes("compare")
    assert done.stdout.splitlines() == [
        "return",
        "lr    n  left out  mean  95 % interval  std  min  max  IQM  95 % interval of IQM",
        "1e-2  2  1 failed   1.1  [-11.6, 13.8]  1.4  0.1  2.1  1.1            [0.1, 2.1]",
        "0.1   3         -   2.1    [-0.4, 4.6]  1.0  1.1  3.1  2.1            [1.1, 3.1]",
    ]
    assert done.stderr.splitlines() == [*NOTES, UNEQUAL]
    assert "lr    n  mean" in desk.hermes("compare", "--with-failed").stdout


def test_a_table_to_paste(desk: Desk) -> None:
    call = ("compare", "--group-by", "all-but seed", "--metric", "return.max", "--pivot")
    done = desk.hermes(*call, "--markdown")
    assert done.stdout.splitlines() == [
        "**mean and 95 % interval**",
        "",
        "| lr | return.max |",
        "| :-- | --: |",
        "| 1e-2 | 1 ± 13 (n 2) |",
        "| 0.1 | 2.1 ± 2.5 (n 3) |",
        "",
        "- 1 failed left out; `--with-failed` includes them",
        "- missing: lr 1e-2 lacks seed 1",
        "- `return.max` ends at different steps: lr 0.1: 100 to 110",
    ]
    assert done.stderr == ""


def test_a_table_for_latex(desk: Desk) -> None:
    text = desk.hermes("compare", "--latex").stdout
    assert r"1e{-}2 & 2 & 1 failed & 1.1 & [$-$11.6, 13.8]" in text
    assert "% missing: lr 1e-2 lacks seed 1" in text
    if shutil.which("pdflatex"):
        page = "\\documentclass{article}\\begin{document}\n" + text + "\\end{document}\n"
        desk.write("page.tex", page)
        subprocess.run(
            ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "page.tex"],
            cwd=desk.path,
            check=True,
            capture_output=True,
        )


def test_numbers_for_programs(desk: Desk) -> None:
    done = desk.hermes("compare", "--csv", "--metric", "return", "--group-by", "lr")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["lr"], row["n"], row["left_out"]) for row in rows] == [
        ("1e-2", "2", "1"),
        ("0.1", "3", "0"),
    ]
    assert float(rows[1]["mean"]) == pytest.approx((1.1 + 2.0 + 3.1) / 3)
    assert done.stderr.splitlines() == [*NOTES, UNEQUAL]


def test_two_experiments(desk: Desk) -> None:
    assert desk.hermes("compare", "0000000000", "0000003").stdout.splitlines() == [
        f"- {identifier(0)}",
        f"+ {identifier(3)}",
        "",
        "command",
        "  - python train.py {identifier} -lr 0.1 --seed 0",
        "  + python train.py {identifier} -lr 1e-2 --seed 0",
        "parameters",
        "  lr  0.1 -> 1e-2",
        "metrics",
        "  return  1.1 -> 0.11",
        "the same: experiment, options, python",
        f"note: the packages of `{identifier(0)}` are not known",
        f"note: the packages of `{identifier(3)}` are not known",
    ]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (("compare", "--metric", "retrun"), "did you mean `return`?"),
        (("compare", "--group-by", "lrr"), "did you mean `lr`?"),
        (("compare", "lr", "<", "1"), "a filter is one quoted argument"),
        (("compare", "0000003"), "`0000003` is neither a filter nor two experiments"),
        (("compare", "0000001", "0000003", "--csv"), "all differences are told"),
        (("compare", "--csv", "--latex"), "exclude each other"),
        (("compare", "--csv", "--pivot"), "`--markdown --pivot`"),
        (("compare", "0000001", "999"), "no experiment has `999` in its identifier"),
        (("compare", "0", "0000001"), "`0` may be"),
        (("compare", "lr > 5"), "no experiment to compare"),
        (("plot", "loss"), "there are `return`"),
        (("plot", "return", "-x", "loss"), "there are `return`"),
        (("plot", "return", "-o", "return.gif"), "`.png`, `.svg` or `.pdf`"),
    ],
)
def test_mistakes(desk: Desk, call: tuple[str, ...], told: str) -> None:
    done = desk.hermes(*call, code=2)
    assert done.stdout == ""
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_curves_in_the_terminal(desk: Desk) -> None:
    done = desk.hermes("plot", "return", "--smooth", "2")
    lines = done.stdout.splitlines()
    assert lines[0] == "return, running mean of 2 values: mean and 95 % interval"
    assert lines[-2:] == ["a lr 1e-2  n 2  1.105 ± 13 at 110", "b lr 0.1   n 3  1.95 ± 2.5 at 100"]
    assert "\033" not in done.stdout
    assert done.stderr.splitlines() == [
        *NOTES,
        "note: runs end at different steps, dotted where some are over: lr 0.1: 100 to 110",
    ]


def test_the_curve_of_one_experiment(desk: Desk) -> None:
    # Also of one that has failed, or goes on
    assert desk.hermes("plot", "return", "120000000004").stdout.endswith(
        "  all  n 1  1.11 at 110\n"
    )
    done = desk.hermes("plot", "return", "120000000005")
    assert done.stdout.splitlines()[0] == "return"
    assert done.stdout.splitlines()[-1] == "  all  n 1  2.11 at 110"


def test_a_picture(desk: Desk) -> None:
    pytest.importorskip("matplotlib")
    done = desk.hermes("plot", "return", "lr = 0.1", "-o", "return.png", "--log-x")
    assert (desk.path / "return.png").read_bytes().startswith(b"\x89PNG")
    assert done.stdout == ""
    assert "dotted where some are over" in done.stderr


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("ModuleNotFoundError('gone', name='matplotlib')", "is not installed"),
        ("ImportError('numpy is too old')", "cannot be imported: numpy is too old"),
    ],
)
def test_without_matplotlib_it_tells_what_to_install(desk: Desk, error: str, told: str) -> None:
    desk.write("without/matplotlib/__init__.py", f"raise {error}")
    environment = {"PYTHONPATH": str(desk.path / "without")}
    done = desk.hermes("plot", "return", "-o", "return.png", code=2, env=environment)
    assert done.stderr == (
        f"error: matplotlib {told}\nhint: `pip install 'hermes-runner[plots]'`\n"
    )
    assert not (desk.path / "return.png").exists()


def test_a_narrow_terminal_cuts_no_number(desk: Desk) -> None:
    with desk.terminal("compare", columns=50) as terminal:
        assert terminal.end() == 0
    text = "\n".join(terminal.screen.lines)
    assert "…" not in text
    assert "IQM  95 % interval of IQM" in text


def test_a_terminal_has_colours_unless_they_are_unwanted(desk: Desk) -> None:
    for wanted, env in ((True, {}), (False, {"NO_COLOR": "1"})):
        with desk.terminal("plot", "return", rows=26, env=env) as terminal:
            assert terminal.end() == 0
        assert (b"\033[38;5;" in terminal.raw) == wanted
        # All of it is on the screen, the notes too
        lines = [line.rstrip() for line in terminal.screen.lines]
        assert lines[0] == "return: mean and 95 % interval"
        assert any(line.startswith("note: runs end at different") for line in lines)
