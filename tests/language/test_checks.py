"""What is found out before the start: programs, scripts, paths and names."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hermes.errors import HermesFileError, PlanError, escape
from hermes.language.writing import quote
from hermes.model import Options

from .helpers import (
    JOB,
    compiled,
    examples,
    items,
    path,
    problems,
    tree,
    write,
    written,
)


def test_all_problems_are_told_together_and_nothing_is_made(tmp_path: Path) -> None:
    write(tmp_path / "train.py", "")
    write(tmp_path / "config.json", "")
    text = """EXEC
[[python, train.py]]
[[no-such-program-of-hermes, train.py]]
[[python, trian.py]]
[[./tool, x]]
[[python, train.py],[-cb confg.json]]
[[python, train.py],[-cb config.json -ca nowhere -ma nowhere]]
PROD([[python, {s}.py],[-cb {s}.json]], s=[train, eval])
"""
    plan = compiled(tmp_path, text)
    before = tree(tmp_path)
    with pytest.raises(PlanError) as caught:
        plan.check("a/b")
    found = caught.value.problems
    assert [problem.message for problem in found] == [
        "the name `a/b` is not a plain folder name",
        "program `no-such-program-of-hermes` was not found on PATH",
        "script file `trian.py` does not exist",
        "program `./tool` does not exist",
        "`-cb confg.json`: no such file or directory",
        "script file `eval.py` does not exist",
        "`-cb train.json`: no such file or directory",
        "`-cb eval.json`: no such file or directory",
    ]
    assert [problem.line for problem in found if isinstance(problem, HermesFileError)] == [
        3,
        4,
        5,
        6,
        8,
        8,
        8,
    ]
    assert found[2].hint == "did you mean `train.py`?"
    assert found[4].hint == "did you mean `config.json`?"
    text = str(caught.value)
    assert text == "\n\n".join(map(str, found))
    assert "\n 4 | [[python, trian.py]]\n   |           ^^^^^^^^\n" in text
    assert tree(tmp_path) == before


@pytest.mark.once
def test_large_sweep_whose_every_job_is_wrong_is_told_in_short(tmp_path: Path) -> None:
    plan = compiled(tmp_path, "EXEC\nPROD([[python, t{a}.py]], a=RANGE[0, 1000000000000, 1])\n")
    with pytest.raises(PlanError) as caught:
        plan.check("name")
    text = str(caught.value)
    assert len(caught.value.problems) > PlanError.SHOWN
    assert text.count("does not exist") == PlanError.SHOWN
    assert text.endswith(f"error: and {len(caught.value.problems) - PlanError.SHOWN} more problems")


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        ("PROD([[python, {s}.py, {n}]], s=[a, b], n=RANGE[0, 500000])", 2),
        ("PROD([[python, {s}.py, {n}]], n=RANGE[0, 500000], s=[a, b])", 2),
        ("PROD(PROD([[python, {s}.py, {n}]], n=RANGE[0, 500000]), s=[a, b])", 2),
        ("PROD([[{p}, x.y, {n}]], p=[no-program-a, no-program-b], n=RANGE[0, 500000])", 2),
        ("PROD([[python, -m x, {n}],[-cb {s}.json]], n=RANGE[0, 500000], s=[a, b])", 2),
    ],
)
def test_sweeps_are_checked_by_distinct_words(tmp_path: Path, sweep: str, expected: int) -> None:
    plan = compiled(tmp_path, f"EXEC\n{sweep}\n")
    assert plan.count == 10**6
    assert len(problems(plan)) == expected


def test_zip_is_checked_by_the_pairs_that_it_yields(tmp_path: Path) -> None:
    for name in ("a1.py", "b2.py"):
        write(tmp_path / name, "")
    plan = compiled(tmp_path, "EXEC\nZIP([[python, {s}{n}.py]], s=[a, b], n=[1, 2])\n")
    assert problems(plan) == []


@pytest.mark.fault(19)
def test_script_that_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    plan = compiled(tmp_path, "EXEC\n[[python, pkg]]\n")
    assert problems(plan) == ["script `pkg` is a directory, expected a file"]
    write(tmp_path / "pkg" / "__main__.py", "")
    assert problems(plan) == []


@pytest.mark.fault(19)
def test_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("good", "plain"):
        write(tools / name, "#!/bin/sh\n")
    (tools / "good").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tools))

    def told(program: str) -> list[str]:
        return problems(compiled(tmp_path, f"EXEC\n[[{program}]]\n"))

    assert (
        told("good")
        == told("bin/good")
        == told("./bin/good")
        == told(quote(str(tools / "good")))
        == []
    )
    # The interpreter that runs Hermes stands in for a missing `python`, and for nothing else
    assert told("python, -m pkg") == []
    assert told("python3, -m pkg") == ["program `python3` was not found on PATH"]
    assert told("plain") == ["program `plain` was not found on PATH"]
    assert told("bin/plain") == ["program `bin/plain` is not executable"]
    assert told("./bin") == ["program `./bin` is a directory"]
    assert told("''") == [
        "program `` was not found on PATH",
        "the script's folder name `` is empty",
    ]
    write(tmp_path / "here", "")
    assert told("here") == [
        "program `here` was not found on PATH; for the file here write `./here`"
    ]


def test_paths_to_copy_before(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write(data / "a.csv", "")
    (tmp_path / "dangling").symlink_to("nowhere")

    def told(path: str) -> list[str]:
        return problems(compiled(tmp_path, f"EXEC\n[[python, -m x],[-cb {path}]]\n"))

    for good in (
        "data",
        "data/",
        "data/a.csv",
        "data/*.csv",
        "'**/a.*'",
        "dangling",
        quote(str(data)),
        "out_{identifier}.txt",
    ):
        assert told(good) == []
    for bad in ("date", "data/b.csv", "data/*.txt"):
        assert told(bad) == [f"`-cb {bad}`: no such file or directory"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is empty"),
        (".", "is not a plain folder name"),
        ("..", "is not a plain folder name"),
        ("a/b", "is not a plain folder name"),
        ("/", "is not a plain folder name"),
        ("a\nb", "holds control characters"),
        ("a\x7f", "holds control characters"),
        ("ü" * 128, "is longer than 255 bytes"),
        ("ü" * 127, None),
        ("two words", None),
        ("a.b", None),
        ("-n", None),
    ],
)
def test_names(tmp_path: Path, name: str, why: str | None) -> None:
    write(tmp_path / "train.py", "")
    expected = [] if why is None else [f"the name `{escape(name)}` {why}"]
    assert problems(compiled(tmp_path, JOB), name) == expected


@pytest.mark.parametrize(
    "script", [".py", "..", "./..", "a" * 5000, "./" + "a" * 300, "b" * 300 + ".py"]
)
def test_unusable_scripts(tmp_path: Path, script: str) -> None:
    # As a script and as a program; the operating system fails for words too long for a name
    for job in (f"python, {script}", script, f"./{script}"):
        assert problems(compiled(tmp_path, f"EXEC\n[[{job}]]\n"))


@examples(200)
@given(items, st.lists(path.filter(lambda text: "/" not in text), max_size=2), st.text(max_size=5))
def test_checking_any_words_gives_problems_or_none(
    folder: Path, items: tuple[tuple[str, ...], ...], copies: list[str], name: str
) -> None:
    assume(name.isascii())
    found = problems(compiled(folder, written(items, [], Options(copy_before=tuple(copies)))), name)
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("job", "hint"),
    [
        ("./train.py", "`chmod +x ./train.py` makes it so, or write `python, ./train.py`"),
        ("Python, train.py", "did you mean `python`?"),
        ("python, TRAIN.py", "did you mean `train.py`?"),
        ("python, 'train.py --lr 1'", "what is in quotes is one word; write it without them"),
        ("python train.py; echo", "no shell is there; write `bash, -c '...'`, or quote the word"),
        ("bash < train.py", "no shell is there; write `bash, -c '...'`, or quote the word"),
        ("python\uff0c train.py", "it holds the wide `\uff0c`; write `,`, or quote the word"),
    ],
)
def test_hints_of_what_cannot_start(tmp_path: Path, job: str, hint: str) -> None:
    (tmp_path / "train.py").touch()
    with pytest.raises(PlanError) as caught:
        compiled(tmp_path, f"EXEC\n[[{job}]]\n").check()
    (problem,) = caught.value.problems
    assert problem.hint is not None
    assert problem.hint.endswith(hint)


def test_windows_line_ends_of_a_shell_script_are_told(tmp_path: Path) -> None:
    for name in ("unix.sh", "dos.sh", "dos.py"):
        ends = "\n" if "unix" in name else "\r\n"
        write(tmp_path / name, f"echo a{ends}echo b{ends}")
    jobs = "[[bash, {name}]]", "[[env A=1 sh -e, {name}]]", "[[python, dos.py]]"
    plan = compiled(tmp_path, f"EXEC\nPROD({', '.join(jobs)}, name=[unix.sh, dos.sh])\n")
    told = [text for text in plan.warnings if "CRLF" in text]
    assert len(told) == 1
    assert "`dos.sh`" in told[0]
    assert "sed -i 's/\\r$//' dos.sh" in told[0]


@pytest.mark.parametrize("entry", ["./train.sh", "nice ./train.sh", "train.sh"])
def test_windows_line_ends_of_a_program_are_told_for_what_they_are(
    entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "train.sh").write_bytes(b"#!/usr/bin/env bash\r\necho\r\n")
    (tmp_path / "train.sh").chmod(0o755)
    plan = compiled(tmp_path, f"EXEC\n[[{entry}]]\n")
    (problem,) = problems(plan)
    assert "ends with CRLF, as on Windows" in problem
    assert "`/usr/bin/env bash\\r`" in problem
    (tmp_path / "train.sh").write_bytes(b"#!/usr/bin/env bash\necho\r\n")
    assert problems(plan) == []


@pytest.mark.parametrize(
    ("line", "is_told"),
    [
        ("import rlmate.hermes_io", True),
        ("import rlmate.hermes_io as io", True),
        ("from rlmate.hermes_io import open_file", True),
        ("    from  rlmate  import plot, hermes_io", True),
        ("from rlmate import hermes_io as io", True),
        ("# from rlmate import hermes_io", False),
        ("from rlmate import plot  # no hermes_io", False),
        ("from rlmate.storage import Experiment", False),
        ("import rlmate.hermes_io_of_ours", False),
        ("print('import rlmate.hermes_io')", False),
    ],
)
@pytest.mark.parametrize("job", ["python, dqn.py", "./dqn.py", "python, {s}.py"])
def test_a_script_that_asks_rlmate_where_to_write_is_told_of(
    tmp_path: Path, line: str, is_told: bool, job: str
) -> None:
    script = write(tmp_path / "dqn.py", f"#!/bin/sh\nimport os\n{line}\n")
    script.chmod(0o755)
    found = problems(compiled(tmp_path, f"EXEC\nPROD([[{job}, -s {{s}}]], s=[dqn])\n"))
    assert [message.partition(", which")[0] for message in found] == (
        [f"script `{'./' * (job[0] == '.')}dqn.py` imports `rlmate.hermes_io`"] if is_told else []
    )


@pytest.mark.parametrize(
    ("entry", "hint"),
    [
        ("source src && python train.py", "`source` is a shell's; write `bash, -c '...'`"),
        ("$ python train.py", "leave the prompt `$` out"),
        ("no\u00a0program x", "it holds U+00A0, no-break space"),
        ("“program” x", "it holds the typographic `“`"),
        ('"no-such-program -x 1"', "what is in quotes is one word"),
        ("no-such-program -x 1", None),
    ],
)
def test_a_program_that_is_none_gets_a_hint(tmp_path: Path, entry: str, hint: str | None) -> None:
    with pytest.raises(PlanError) as caught:
        compiled(tmp_path, f"EXEC\n[[{entry}]]\n").check()
    (found,) = caught.value.problems
    assert "was not found on PATH" in found.message
    if hint is None:
        assert found.hint is None
    else:
        assert (found.hint or "").startswith(hint)
