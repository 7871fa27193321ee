"""The language where golden files cannot show it: settings, laziness, checks, round trips, and texts made at random."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shlex
import stat
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from hermes.errors import HermesError, HermesFileError, Place, PlanError, did_you_mean, escape
from hermes.language.plan import (
    Plan,
    compile_command,
    compile_file,
    from_recipe,
    quote,
    re_execution,
)
from hermes.language.settings import Settings, find_root
from hermes.language.sweeps import Range
from hermes.model import IDENTIFIER, PLACEHOLDER, Job, Keys, Options, Outcome, Status, signal_name

from .support import RecordProperty, times

GOLDEN = Path(__file__).parent / "golden"

JOB = "EXEC\n[[python, train.py]]\n"


def examples(count: int) -> settings:
    """The same examples in every run, and however long they take."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def compiled(folder: Path, text: str, **arguments: Any) -> Plan:
    write(folder / "x.hermes", text)
    return compile_file("x.hermes", working_directory=folder, **({"root": folder} | arguments))


def commands(plan: Plan) -> list[str]:
    return [" ".join(job.argv) for job in plan.jobs]


def only_job(plan: Plan) -> Job:
    (job,) = plan.jobs
    return job


def problems(plan: Plan, name: str | None = "name") -> list[str]:
    try:
        plan.check(name)
    except PlanError as error:
        return [problem.message for problem in error.problems]
    return []


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a test; each overwrites the last one's file."""
    return tmp_path_factory.mktemp("language")


# Settings


def test_default_settings(tmp_path: Path) -> None:
    plan = compiled(tmp_path, JOB)
    assert plan.settings == Settings(threads=1, path_to_experiments=".", supervise=True)
    assert plan.settings.origins == {}
    assert plan.experiments == tmp_path / "experiments"


def test_settings_have_ranks_and_origins(tmp_path: Path) -> None:
    own = write(
        tmp_path / ".hermes_settings",
        "# ours\nthreads: 2\npath_to_experiments: 'a b'\nsupervise: false\n",
    )
    text = "PRE\nthreads: 3\npath_to_experiments: c\n" + JOB

    plan = compiled(tmp_path, text, threads=4)
    assert plan.settings == Settings(threads=4, path_to_experiments="c", supervise=False)
    assert plan.settings.origins == {
        "threads": "argument",
        "path_to_experiments": "x.hermes:3",
        "supervise": f"{own}:4",
    }

    assert compiled(tmp_path, text).settings.threads == 3
    assert compiled(tmp_path, JOB).settings == Settings(
        threads=2, path_to_experiments="a b", supervise=False
    )
    assert compiled(tmp_path, JOB, supervise=True, path_to_experiments="d").settings == Settings(
        2, "d", True
    )


def test_none_as_an_argument_means_not_given(tmp_path: Path) -> None:
    plan = compiled(
        tmp_path, "PRE\nthreads: 3\n" + JOB, threads=None, path_to_experiments=None, supervise=None
    )
    assert plan.settings == Settings(threads=3)
    assert plan.settings.origins == {"threads": "x.hermes:2"}


def test_settings_file_takes_what_pre_takes(tmp_path: Path) -> None:
    lines = b"\xef\xbb\xbf// ours\r\n\r\n  threads: \xe2\x80\x9c2\xe2\x80\x9d # two\r\npath_to_experiments:\xe2\x80\x9d.\xe2\x80\x9d"
    (tmp_path / ".hermes_settings").write_bytes(lines)
    assert compiled(tmp_path, JOB).settings == Settings(threads=2, path_to_experiments=".")


@pytest.mark.fault(20)
@pytest.mark.parametrize(
    ("text", "line", "column", "message", "hint"),
    [
        ("threads: 2\nthread: 3\n", 2, 1, "unknown setting `thread`", "did you mean `threads`?"),
        ("threads: 2\n\nthreads: 2\n", 3, 1, "`threads` is set twice, first on line 1", None),
        (
            "supervise: perhaps\n",
            1,
            12,
            "bad value `perhaps` for `supervise`: expected `true` or `false`",
            None,
        ),
        ("threads 2\n", 1, 1, "expected `key: value`", None),
    ],
)
def test_bad_settings_file(
    tmp_path: Path, text: str, line: int, column: int, message: str, hint: str | None
) -> None:
    own = write(tmp_path / ".hermes_settings", text)
    with pytest.raises(HermesFileError) as caught:
        # What PRE says about a key does not mend it
        compiled(tmp_path, "PRE\nthreads: 1\nsupervise: true\n" + JOB)
    error = caught.value
    assert (error.path, error.line, error.column, error.message, error.hint) == (
        str(own),
        line,
        column,
        message,
        hint,
    )


def test_predecessor_keys_warn_in_the_settings_file_alone(tmp_path: Path) -> None:
    own = write(tmp_path / ".hermes_settings", "bot_id: 123:abc\nthreads: 2\nchat_id: -5\n")
    plan = compiled(tmp_path, JOB)
    assert plan.settings.threads == 2
    assert plan.warnings == (
        f"{own}:1: `bot_id` belongs to rlmate and does nothing here",
        f"{own}:3: `chat_id` belongs to rlmate and does nothing here",
    )
    with pytest.raises(HermesFileError, match="unknown setting `chat_id`"):
        compiled(tmp_path, "PRE\nchat_id: -5\n" + JOB)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threads": 0}, "bad value `0` for `threads`: expected a whole number, at least 1"),
        ({"threads": -3}, "bad value `-3` for `threads`: expected a whole number, at least 1"),
        (
            {"path_to_experiments": ""},
            "bad value `` for `path_to_experiments`: expected a folder, relative to the root",
        ),
        (
            {"path_to_experiments": "a\0b"},
            "bad value `a\0b` for `path_to_experiments`: expected a folder without control characters",
        ),
        (
            {"path_to_experiments": "a\nb"},
            "bad value `a\nb` for `path_to_experiments`: expected a folder without control characters",
        ),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(HermesError) as caught:
        compiled(tmp_path, JOB, **arguments)
    assert caught.value.message == message


def test_settings_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / ".hermes_settings").mkdir()
    with pytest.raises(HermesError, match="cannot read"):
        compiled(tmp_path, JOB)


def test_experiments_folder_is_relative_to_the_root(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    write(tmp_path / "a" / ".hermes_settings", "path_to_experiments: ../out\n")
    plan = compiled(inner, JOB, root=None)
    assert (plan.root, plan.experiments) == (tmp_path / "a", tmp_path / "out" / "experiments")
    absolute = compiled(inner, JOB, root=None, path_to_experiments=str(tmp_path / "else"))
    assert absolute.experiments == tmp_path / "else" / "experiments"


# The root


def test_root_is_the_nearest_folder_with_settings(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b" / "c"
    inner.mkdir(parents=True)
    (tmp_path / "a" / "b" / ".git").mkdir()
    write(tmp_path / ".hermes_settings", "")
    assert find_root(inner) == tmp_path
    write(tmp_path / "a" / ".hermes_settings", "")
    assert find_root(inner) == tmp_path / "a"
    write(inner / ".hermes_settings", "")
    assert find_root(inner) == inner


@pytest.mark.parametrize("worktree", [False, True])
def test_root_is_else_the_git_top_level(tmp_path: Path, worktree: bool) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    if worktree:
        write(tmp_path / ".git", "gitdir: elsewhere\n")
    else:
        (tmp_path / ".git").mkdir()
    assert find_root(inner) == tmp_path


def test_root_is_else_the_working_directory() -> None:
    nowhere = Path("/no-such-folder-of-hermes/a/b")
    assert find_root(nowhere) == nowhere


def test_root_argument_overrides(tmp_path: Path) -> None:
    write(tmp_path / ".hermes_settings", "threads: 2\n")
    other = tmp_path / "other"
    other.mkdir()
    write(other / ".hermes_settings", "threads: 3\n")
    assert compiled(tmp_path, JOB, root=None).root == tmp_path
    for root in (other, "other", "./x/../other/"):
        plan = compiled(tmp_path, JOB, root=root)
        assert (plan.root, plan.settings.threads) == (other, 3)


# What a plan tells


def test_compiling_is_pure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    write(inner / "my sweep.hermes", JOB)
    before = tree(tmp_path)
    plan = compile_file("my sweep.hermes", root=tmp_path)
    assert list(plan.jobs) == list(plan.jobs)
    assert tree(tmp_path) == before
    assert Path.cwd() == inner
    assert (plan.path, plan.working_directory, plan.default_name) == (
        "my sweep.hermes",
        inner,
        "my sweep",
    )
    assert plan.sha256 == hashlib.sha256(JOB.encode()).hexdigest()


@pytest.mark.parametrize("name", ["missing.hermes", "", "a\0b", "x" * 5000])
def test_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(HermesError, match="cannot read"):
        compile_file(name, working_directory=tmp_path)


def test_comments_of_the_call_come_last(tmp_path: Path) -> None:
    text = "STD-H\n-c first\nEXEC\nPROD([[python, train.py],[-c {n}]], n=[1, 2])\n"
    plan = compiled(tmp_path, text, comments=["last", "{n}"])
    assert [job.options.comments for job in plan.jobs] == [
        ("first", "1", "last", "{n}"),
        ("first", "2", "last", "{n}"),
    ]


def test_command_is_a_file_with_one_job(tmp_path: Path) -> None:
    plan = compile_command(
        "python train.py --text 'two words' -x \"it's\"",
        working_directory=tmp_path,
        root=tmp_path,
        threads=2,
    )
    job = only_job(plan)
    assert job.argv == ("python", "train.py", PLACEHOLDER, "--text", "two words", "-x", "it's")
    assert (job.script, plan.path, plan.default_name, plan.settings.threads) == (
        "train",
        None,
        "command",
        2,
    )


@examples(100)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
        min_size=1,
        max_size=6,
    )
)
@example(["python", "a\r\nb"])
@example(["EXEC"])
def test_command_keeps_its_words(folder: Path, words: list[str]) -> None:
    job = only_job(compile_command(shlex.join(words), working_directory=folder, root=folder))
    assert [
        word for item in job.items for word in item if word != "{identifier}" or word in words
    ] == words


@pytest.mark.parametrize(
    ("command", "script", "argv"),
    [
        ("python train.py --lr 1,2", "train", "python train.py {identifier} --lr 1,2"),
        ("python -u train.py x", "train", "python -u train.py {identifier} x"),
        ("python -m pkg.train -x", "pkg.train", "python -m pkg.train {identifier} -x"),
        ("bash -c 'exit 3' x", "bash", "bash -c 'exit 3' {identifier} x"),
        ("bash -c 'echo {identifier}'", "bash", "bash -c 'echo {identifier}'"),
        ("./run.sh a", "run.sh", "./run.sh {identifier} a"),
        ("hostname", "hostname", "hostname {identifier}"),
    ],
)
def test_command_finds_its_script(tmp_path: Path, command: str, script: str, argv: str) -> None:
    job = only_job(compile_command(command, working_directory=tmp_path, root=tmp_path))
    assert (job.script, list(job.argv)) == (script, shlex.split(argv))


def test_recipe_makes_the_same_plan_when_the_files_have_changed(tmp_path: Path) -> None:
    (tmp_path / ".hermes_settings").write_text("threads: 3\n")
    (tmp_path / "a.hermes").write_text("STD-E\n-x 1\nEXEC\nPROD([[python, t.py, {n}]], n=[a, b])\n")
    plan = compile_file("a.hermes", working_directory=tmp_path, comments=["c"], supervise=False)
    recipe = json.loads(json.dumps(plan.recipe))
    (tmp_path / ".hermes_settings").write_text("threads: 5\n")
    (tmp_path / "a.hermes").unlink()
    again = from_recipe(recipe)
    assert list(again.jobs) == list(plan.jobs)
    assert (again.settings, again.sha256, again.experiments) == (
        plan.settings,
        plan.sha256,
        plan.experiments,
    )


@pytest.mark.parametrize("command", ["", "  ", "python 'train.py", "python \\", "python a\0b"])
def test_bad_command(tmp_path: Path, command: str) -> None:
    with pytest.raises(HermesError):
        compile_command(command, working_directory=tmp_path, root=tmp_path)


@pytest.mark.parametrize(
    ("entry", "warned"),
    [
        ("[[python, -c 'print()']]", ["python"]),
        ("[[bash, -c 'train > log']]", ["bash"]),
        ("[[bash, -c 'train {identifier}']]", []),
        ("[[python, train.py]]", []),
        ("[[train, -x]]", []),
        ("PROD([[{p}, -u]], p=[python3, tool, ruby])", ["python3", "ruby"]),
    ],
)
def test_interpreter_that_gets_the_identifier_is_warned_about(
    tmp_path: Path, entry: str, warned: list[str]
) -> None:
    plan = compiled(tmp_path, f"EXEC\n{entry}\n")
    assert list(plan.warnings) == [
        f"x.hermes:2: `{word}` itself gets the identifier as its first argument; write `{{identifier}}` where the script expects it"
        for word in warned
    ]


def test_job_gives_its_command_and_arguments(tmp_path: Path) -> None:
    job = only_job(compiled(tmp_path, "STD-E\n-g 1\nEXEC\n[[python, train.py, -x]]\n"))
    assert job.command("ID") == ["python", "train.py", "ID", "-g", "1", "-x"]
    assert job.argv[job.position] == "train.py"
    assert job.arguments == ("-g", "1", "-x")
    placed = only_job(
        compiled(tmp_path, "EXEC\n[[python, train.py, --id={identifier}/{identifier}]]\n")
    )
    assert placed.command("ID") == ["python", "train.py", "--id=ID/ID"]


# Sweeps


@pytest.mark.parametrize(
    ("entries", "count"),
    [
        ("[[t]]", 1),
        ("[[t]]\n[[t]]", 2),
        ("PROD([[t]], a=[1, 2], b=RANGE[0, 5])", 10),
        (
            "PROD([[t]], ZIP([[t]], [[t]], a=[1, 2], b=[3, 4]), c=[1, 2, 3])\n[[t]]",
            3 * (1 + 2 * 2) + 1,
        ),
    ],
)
def test_count_is_how_many_jobs_there_are(tmp_path: Path, entries: str, count: int) -> None:
    plan = compiled(tmp_path, f"EXEC\n{entries}\n")
    assert (plan.count, len(plan.jobs), len(list(plan.jobs))) == (count, count, count)


def test_large_sweeps_are_lazy(tmp_path: Path) -> None:
    write(tmp_path / "t.py", "")
    whole = "RANGE[0, 1000000000000, 1]"
    text = f"EXEC\nPROD([[python, t.py, {{a}} {{b}}],[-ca {{a}} -cb t.py]], a={whole}, b={whole})\n"
    text += f"ZIP([[python, t.py, {{c}}]], c={whole})\n"
    plan = compiled(tmp_path, text)
    assert plan.count == 10**24 + 10**12
    assert next(iter(plan.jobs)).argv == ("python", "t.py", PLACEHOLDER, "0", "0")
    assert [job.argv[-1] for job in islice(plan.jobs, 3)] == ["0", "1", "2"]
    assert plan.warnings == ()
    plan.check("name")


def test_large_sweep_whose_every_job_is_wrong_is_told_in_short(tmp_path: Path) -> None:
    plan = compiled(tmp_path, "EXEC\nPROD([[python, t{a}.py]], a=RANGE[0, 1000000000000, 1])\n")
    with pytest.raises(PlanError) as caught:
        plan.check("name")
    text = str(caught.value)
    assert len(caught.value.problems) > PlanError.SHOWN
    assert text.count("does not exist") == PlanError.SHOWN
    assert text.endswith(f"error: and {len(caught.value.problems) - PlanError.SHOWN} more problems")


def test_sweeps_nest_deep_but_not_without_end(tmp_path: Path) -> None:
    def nested(depth: int) -> str:
        entry = "[[t]]"
        for level in range(depth):
            entry = f"PROD({entry}, k{level}=[1])"
        return f"EXEC\n{entry}\n"

    assert compiled(tmp_path, nested(100)).count == 1
    with pytest.raises(HermesFileError, match="nested deeper"):
        compiled(tmp_path, nested(3000))
    with pytest.raises(HermesFileError, match="nested deeper"):
        compiled(tmp_path, f"EXEC\n[[t, {'[' * 3000}{']' * 3000}]]\n")


def decimal_text(units: int, decimals: int) -> str:
    digits = str(abs(units)).zfill(decimals + 1)
    whole = digits[: len(digits) - decimals]
    return ("-" if units < 0 else "") + whole + ("." + digits[-decimals:] if decimals else "")


numbers = st.builds(
    lambda units, decimals: (units, decimals), st.integers(-(10**7), 10**7), st.integers(0, 6)
)


@examples(200)
@given(
    start=numbers,
    step=numbers.filter(lambda number: number[0] != 0),
    length=st.integers(1, 40),
    rest=st.fractions(0, 1),
)
def test_range_is_exact(
    folder: Path, start: tuple[int, int], step: tuple[int, int], length: int, rest: Fraction
) -> None:
    first, stride = Fraction(start[0], 10 ** start[1]), Fraction(step[0], 10 ** step[1])
    # A stop that has no more than six decimals, and ends the range after `length` values or one later
    stop = Fraction(int((first + stride * (length + rest)) * 10**6), 10**6)
    assume(stop != first and (stop > first) == (stride > 0))
    expected = []
    value = first
    while value < stop if stride > 0 else value > stop:
        expected.append(value)
        value += stride

    stop_text = decimal_text(int(stop * 10**6), 6)
    text = f"EXEC\nPROD([[t, x {{n}}]], n=RANGE[{decimal_text(*start)}, {stop_text}, {decimal_text(*step)}])\n"
    found = [job.argv[-1] for job in compiled(folder, text).jobs]
    assert [Fraction(word) for word in found] == expected
    assert all(re.fullmatch(r"-?\d+\.\d{6}", word) for word in found)
    assert all(not word.startswith("-") for word in found if Fraction(word) == 0)


@pytest.mark.parametrize(
    "numbers_of", [range(0, 10, 3), range(10, 0, -4), range(-3, 4), range(5, 6)]
)
@pytest.mark.parametrize("decimals", [0, 2])
def test_range_is_a_sequence(numbers_of: range, decimals: int) -> None:
    found = Range(numbers_of.start, numbers_of.stop, numbers_of.step, decimals)
    expected = [decimal_text(number, decimals) for number in numbers_of]
    assert list(found) == expected
    assert len(found) == len(expected)
    assert [found[i] for i in range(-len(expected), len(expected))] == expected * 2
    for index in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            found[index]


# Words


@examples(300)
@given(st.text("ab ,=-[]{}()\t'\"\\", max_size=30))
@example("")
@example("a\\")
@example("'")
@example("''")
@example('"\\a\\"\\\\"')
def test_standard_arguments_are_split_as_a_shell_does(folder: Path, line: str) -> None:
    text = f"STD-E\n{line}\nEXEC\n[[t]]\n"
    try:
        expected = shlex.split(line)
    except ValueError:
        with pytest.raises(HermesFileError):
            compiled(folder, text)
    else:
        assert list(only_job(compiled(folder, text)).standard) == expected


@examples(300)
@given(st.text("ab =-\t\n'\"\\", max_size=30))
def test_items_are_split_as_a_shell_does(folder: Path, item: str) -> None:
    # `shlex` keeps the end of a continued line; a shell drops it
    assume("\\\n" not in item)
    try:
        expected = shlex.split(item)
    except ValueError:
        return
    assume(expected)
    assert list(only_job(compiled(folder, f"EXEC\n[[{item} ]]\n")).items[0]) == expected


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("a \\\n b", ["a", "b"]),
        ("a\\\nb", ["ab"]),
        ("a\\\n b", ["a", "b"]),
        ("a \\\n\\\n b", ["a", "b"]),
        ("a \\\n", ["a"]),
        ('"a\\\nb"', ["ab"]),
        ("'a\\\nb'", ["a\\\nb"]),
        ("a \\\n# b\n c", ["a", "c"]),
    ],
)
def test_lines_are_continued_as_in_a_shell(tmp_path: Path, item: str, words: list[str]) -> None:
    assert list(only_job(compiled(tmp_path, f"EXEC\n[[{item}]]\n")).items[0]) == words


# Any text that a command can hold
any_word = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=10)
awkward_word = st.sampled_from(
    [
        "",
        "'",
        '"',
        "\\",
        "\r\n",
        "\r",
        "#",
        "//",
        "# x",
        "EXEC",
        "STD-E",
        "-l",
        "-c",
        "--log=x",
        "[",
        "]]",
        ",",
        "{a}",
        "{{",
        PLACEHOLDER,
    ]
)
word = st.one_of(any_word, awkward_word, st.builds("".join, st.lists(awkward_word, max_size=4)))
one_line_word = word.filter(lambda text: "\n" not in text)
items = st.lists(st.lists(word, min_size=1, max_size=4).map(tuple), min_size=1, max_size=4).map(
    tuple
)
path = word.filter(bool)
options = st.builds(
    Options,
    copy_after=st.lists(path, max_size=2).map(tuple),
    copy_before=st.lists(path, max_size=2).map(tuple),
    move_after=st.lists(path, max_size=2).map(tuple),
    log=st.booleans(),
    comments=st.lists(word, max_size=2).map(tuple),
)


@examples(300)
@given(word)
@example("a\r\nb'\r\n")
def test_quoted_words_come_back(folder: Path, text: str) -> None:
    quoted = quote(text)
    assert only_job(compiled(folder, f"EXEC\n[[{quoted}],[-c {quote('-c ' + text)}]]\n")).items == (
        (text,),
    )
    if "\n" not in text:
        assert only_job(compiled(folder, f"STD-E\n{quoted}\nEXEC\n[[t]]\n")).standard == (text,)


def written(items: Sequence[Sequence[str]], standard: Sequence[str], options: Options) -> str:
    """A hermes file for this job, written in another way than `re_execution` does."""
    named = {
        "--copy-after": options.copy_after,
        "--copy-before": options.copy_before,
        "--move-after": options.move_after,
    }
    named["--comment"] = options.comments
    flags = [quote(f"{flag}={value}") for flag, values in named.items() for value in values]
    lines = ["STD-E", *map(quote, standard), "STD-H", f"--log={options.log}", "EXEC"]
    body = ",\n".join(" ".join(map(quote, item)) for item in items)
    return "\n".join([*lines, f"[[{body}], [{', '.join(flags)}]]"])


def check_re_execution(folder: Path, job: Job, settings_in_force: Settings) -> None:
    again = compiled(folder, re_execution(job, settings_in_force))
    twin = only_job(again)
    assert replace(twin, line=job.line) == job
    assert again.settings == settings_in_force


@examples(250)
@given(items, st.lists(one_line_word, max_size=4), options)
@example((("python", "t.py"),), ["EXEC"], Options(comments=("-l", "")))
@example((("a\r\nb",),), [], Options(copy_after=("-ca", "\r\n")))
def test_re_execution_gives_the_same_job(
    folder: Path, items: tuple[tuple[str, ...], ...], standard: list[str], options: Options
) -> None:
    job = only_job(compiled(folder, written(items, standard, options)))
    assert (job.items, job.standard, job.options) == (items, tuple(standard), options)
    check_re_execution(folder, job, Settings())


def representable(text: str) -> bool:
    """PRE has no escapes, so a value that needs quotes cannot hold both kinds of them."""
    return not (set(text) & set("'‘’‚‛") and set(text) & set('"“”„‟'))


@examples(200)
@given(
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=10
    ).filter(representable),
    st.integers(1, 10**8),
    st.booleans(),
)
@example("it's", 1, True)
@example("it’s “so”", 1, True)
@example("a\"b'c", 2, False)
@example(" # ", 1, True)
@example("c:/x: y", 1, True)
def test_re_execution_keeps_the_settings_in_force(
    folder: Path, path: str, threads: int, supervise: bool
) -> None:
    plan = compiled(folder, JOB, path_to_experiments=path, threads=threads, supervise=supervise)
    assert plan.settings == Settings(threads, path, supervise)
    check_re_execution(folder, only_job(plan), plan.settings)


def test_re_execution_of_golden_jobs(folder: Path) -> None:
    for file in sorted((GOLDEN / "good").glob("*.hermes")):
        plan = compile_file(file, root=folder)
        for job in plan.jobs:
            check_re_execution(folder, job, plan.settings)


# Keys


def keys(plan: Plan) -> list[str]:
    found = Keys()
    return [found.key(job) for job in plan.jobs]


def test_keys_are_the_same_in_every_run(tmp_path: Path) -> None:
    text = "STD-E\n-g 1\nEXEC\nPROD([[python, t.py, {n}],[-ca a{n}]], n=RANGE[0, 20])\n"
    found = keys(compiled(tmp_path, text))
    assert found == keys(compiled(tmp_path, text))
    assert len(set(found)) == 20
    assert all(re.fullmatch("[0-9a-f]{32}", key) for key in found)
    # Other entries, other lines, comments and what is shown make no other jobs
    others = "EXEC\n[[python, other.py]]\n\n\n" + text.partition("EXEC\n")[2].replace(
        "-ca a{n}", "-ca a{n} -c new -l false"
    )
    assert keys(compiled(tmp_path, "STD-E\n-g 1\n" + others))[1:] == found


def test_keys_tell_repeats_apart(tmp_path: Path) -> None:
    once = keys(compiled(tmp_path, "EXEC\n[[python, t.py]]\n"))
    thrice = keys(compiled(tmp_path, "EXEC\nPROD([[python, t.py]], repeat=[1, 2, 3])\n"))
    assert len(set(thrice)) == 3
    assert thrice[:1] == once
    assert (
        keys(compiled(tmp_path, "EXEC\n[[python, t.py]]\n[[python, u.py]]\n[[python, t.py]]\n"))[
            ::2
        ]
        == thrice[:2]
    )


@pytest.mark.parametrize(
    "other",
    [
        "EXEC\n[[python, t.py, b a],[-ca x]]\n",
        "EXEC\n[[python, t.py, 'a b'],[-ca x]]\n",
        "EXEC\n[[python, t.py, a b],[-cb x]]\n",
        "EXEC\n[[python, t.py, a b],[-ma x]]\n",
        "EXEC\n[[python, t.py, a b],[-ca x -ca x]]\n",
        "EXEC\n[[python, t.py, a b]]\n",
        "STD-E\nc\nEXEC\n[[python, t.py, a b],[-ca x]]\n",
    ],
)
def test_keys_tell_jobs_apart(tmp_path: Path, other: str) -> None:
    assert keys(compiled(tmp_path, "EXEC\n[[python, t.py, a b],[-ca x]]\n")) != keys(
        compiled(tmp_path, other)
    )


# Checks


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


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        ("PROD([[python, {s}.py, {n}]], s=[a, b], n=RANGE[0, 500000])", 2),
        ("PROD([[python, {s}.py, {n}]], n=RANGE[0, 500000], s=[a, b])", 2),
        ("PROD(PROD([[python, {s}.py, {n}]], n=RANGE[0, 500000]), s=[a, b])", 2),
        ("PROD([[{p}, x.y, {n}]], p=[no-program-a, no-program-b], n=RANGE[0, 500000])", 3),
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


@pytest.mark.parametrize(
    ("job", "missing"),
    [
        ("python, train.py", "train.py"),
        ("python, train", "train"),
        ("python -u, train", "train"),
        ("python train", "train"),
        ("/usr/bin/env python, exp/train", "exp/train"),
        ("env python, exp/train", "exp/train"),
        ("env python, train.py", "train.py"),
        ("env, train", None),
        ("python, -m train", None),
        ("python -m, train.now", None),
        ("env -m, a/b.py", None),
        ("python, {identifier}.py", None),
    ],
)
def test_script_words_that_count_as_files(tmp_path: Path, job: str, missing: str | None) -> None:
    found = [
        text for text in problems(compiled(tmp_path, f"EXEC\n[[{job}]]\n")) if "script" in text
    ]
    # A path as the first word is a program and a script at once
    expected = (
        []
        if missing is None or job.startswith("/")
        else [f"script file `{missing}` does not exist"]
    )
    assert found == expected


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
    # As a script and as a program; words too long for a name must not be an error of the operating system
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


# Errors


@pytest.mark.parametrize(
    ("wrong", "known", "near"),
    [
        ("-cc", ["-c", "-ca", "-cb", "-leg"], "-ca"),
        ("-log", ["-l", "-leg", "--log"], "--log"),
        ("-l1", ["-leg", "-l", "-ca"], "-l"),
        ("thread", ["path_to_experiments", "threads", "supervise"], "threads"),
        ("trian.py", ["train.py.bak", "train.py", "eval.py"], "train.py"),
        ("xyz", ["threads"], None),
        ("xyz", [], None),
    ],
)
def test_did_you_mean(wrong: str, known: list[str], near: str | None) -> None:
    expected = None if near is None else f"did you mean `{near}`?"
    assert did_you_mean(wrong, known) == did_you_mean(wrong, reversed(known)) == expected


@pytest.mark.fault(22)
def test_nothing_unprintable_reaches_a_terminal(tmp_path: Path) -> None:
    for text in (
        "EXEC\n\x1b[31m\n",
        "PRE\nthre\x1bads: 1\n" + JOB,
        "PRE\nthreads: \x07\n" + JOB,
        "EXEC\n[[t],[-\x1b]]\n",
    ):
        with pytest.raises(HermesFileError) as caught:
            compiled(tmp_path, text)
        assert all(line.isprintable() for line in str(caught.value).split("\n"))
    write(tmp_path / "train\x1b.py", "")
    scripts = ["trainx.py"]
    if sys.platform == "linux":
        # Elsewhere file systems may refuse names that are not UTF-8
        os.close(os.open(os.fsencode(tmp_path) + b"/\xffeval.py", os.O_CREAT | os.O_WRONLY))
        scripts.append("xeval.py")
    for script in scripts:
        with pytest.raises(PlanError) as caught_plan:
            compiled(tmp_path, f"EXEC\n[[python, {script}]]\n").check("name")
        assert "did you mean" in str(caught_plan.value)
        assert all(line.isprintable() for line in str(caught_plan.value).split("\n"))


def test_long_lines_are_cut_around_the_caret() -> None:
    error = HermesFileError("wrong", Place("x", 1, 1001, 3, "a" * 1000 + "bad" + "c" * 1000))
    _, place, _, text, caret = str(error).split("\n")
    assert place == "  --> x:1:1001"
    assert len(text) < 200
    assert text[caret.index("^") :][:3] == "bad"
    assert caret.count("^") == 3


# Small things of the model


def test_identifiers_are_found_even_where_they_overlap() -> None:
    one = "2021_07_25_160008326976_1930e"
    two = "2021_07_25_160008438012_00000"
    assert IDENTIFIER.findall(f"model_{one}.pt") == [one]
    assert IDENTIFIER.findall(f"{one}{two}") == [one, two]
    assert IDENTIFIER.findall("2021_07_25_1600083269_1930e") == []


@pytest.mark.parametrize(
    ("outcome", "how", "ok"),
    [
        (Outcome("i", "s", None, Status.FINISHED, exit_code=0), "finished", True),
        (
            Outcome("i", "s", None, Status.FINISHED, exit_code=0, problems=("lost",)),
            "finished",
            False,
        ),
        (Outcome("i", "s", None, Status.FAILED, exit_code=3), "exit code 3", False),
        (Outcome("i", "s", None, Status.FAILED, signal=9), "signal 9 (SIGKILL)", False),
        (Outcome("i", "s", None, Status.CANCELLED), "cancelled", False),
    ],
)
def test_outcomes_say_how_the_job_ended(outcome: Outcome, how: str, ok: bool) -> None:
    assert (outcome.how, outcome.ok) == (how, ok)
    assert signal_name(1000) == "1000"


# Any text at all

TOKENS = (
    "PRE\n", "STD-H\n", "STD-E\n", "EXEC\n", "\nEXEC\n", "PROD(", "ZIP(", ")", "[", "]", "[[", "]]", "(", "{", "}", "{{", "}}", ",", "=",
    ":", "RANGE[", "RANGE[0, 1, 0.1]", "RANGE[0, 1e9]", "RANGE[1e-30, 1]", "RANGE[0, -0]", "RANGE[nan, 1]", "1e999999999", "٣", "1_0",
    "n=", "n=[1, 2]", "{n}", "{identifier}", "{}", "'", '"', "\\", "\\\n", "#", " # ", "//", " // ", "\n", "\r", "\r\n", "\t", " ", "\f",
    "\0", "\x1b", "\x85", "\u2028", "\u00a0", "\ufeff", "”", "‘", "-l", "-l false", "-ca x", "-c", "--log={n}", "-m ", "python", "0x1",
    "threads: 2", "threads", "é", "\U0001f600",
)  # fmt: skip


def mutated(source: bytes, chance: random.Random) -> bytes:
    """`source` with a few pieces taken away, doubled, moved or put in."""
    data = bytearray(source)
    for _ in range(chance.randint(1, 3)):
        at = chance.randint(0, len(data))
        piece = bytes(data[at : at + chance.randint(0, 12)])
        token = chance.choice(TOKENS).encode()
        kinds = [
            b"",
            piece * 2,
            piece[::-1],
            token,
            piece + token,
            token * chance.randint(2, 150),
            piece + chance.randbytes(1),
        ]
        data[at : at + len(piece)] = chance.choice(kinds)
    return bytes(data)


def random_text(chance: random.Random) -> bytes:
    return b"EXEC\n[[t]]\n" + "".join(chance.choices(TOKENS, k=chance.randint(0, 40))).encode()


def random_bytes(chance: random.Random) -> bytes:
    return chance.choice([b"", b"EXEC\n", b"PRE\n", b"STD-E\n"]) + chance.randbytes(
        chance.choice([0, 1, 2, 5, 20, 100, 1000])
    )


@pytest.mark.fault(20)
@pytest.mark.parametrize("seed", range(10))
def test_any_text_gives_a_plan_or_an_error(
    tmp_path: Path, record_property: RecordProperty, seed: int
) -> None:
    chance = random.Random(seed)
    work, twins = tmp_path / "work", tmp_path / "twins"
    work.mkdir()
    twins.mkdir()
    tried = times(100, 1000)
    record_property("tried", tried)
    corpus = [file.read_bytes() for file in sorted(GOLDEN.glob("good/*.hermes"))]
    plans = 0
    errors = []
    for _ in range(tried):
        kinds = (
            lambda: mutated(chance.choice(corpus), chance),
            lambda: random_text(chance),
            lambda: random_bytes(chance),
        )
        data = chance.choices(kinds, (75, 15, 10))[0]()
        (work / "fuzz.hermes").write_bytes(data)
        # Of this process alone: the others on this machine are none of its business
        began = time.process_time()
        try:
            plan = compile_file("fuzz.hermes", working_directory=work, root=work)
            jobs = list(islice(plan.jobs, 20))
            problems(plan)
        except HermesError as error:
            errors.append(str(error))
            continue
        finally:
            assert time.process_time() - began < 1, data
        plans += 1
        assert plan.count >= len(jobs) >= 1
        assert isinstance(plan.warnings, tuple)
        for job in jobs[:2]:
            check_re_execution(twins, job, plan.settings)
    assert os.listdir(work) == ["fuzz.hermes"]
    assert all(re.match(r"error: .*\n +--> fuzz.hermes:\d+:\d+\n", error) for error in errors)
    assert all(line.isprintable() for error in errors for line in error.split("\n"))
    # Texts that are all wrong would test little
    assert plans > 3
