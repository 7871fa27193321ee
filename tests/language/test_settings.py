"""Settings: the table, their layers, and the root."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.errors import HermesError, HermesFileError
from hermes.language.compiling import from_recipe
from hermes.language.settings import (
    SETTINGS,
    PlanArguments,
    SettingArguments,
    Settings,
    find_root,
    layered,
)
from hermes.language.source import Source
from hermes.language.syntax import parse

from ..support import Desk
from .helpers import (
    JOB,
    any_word,
    awkward_word,
    compiled,
    examples,
    readme_table,
    write,
)


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
        threads=2, path_to_experiments="d", supervise=True
    )


def test_none_as_an_argument_means_not_given(tmp_path: Path) -> None:
    plan = compiled(
        tmp_path, "PRE\nthreads: 3\n" + JOB, threads=None, path_to_experiments=None, supervise=None
    )
    assert plan.settings == Settings(threads=3)
    assert plan.settings.origins == {"threads": "x.hermes:2"}


def test_settings_file_takes_what_pre_takes(tmp_path: Path) -> None:
    lines = "\ufeff// ours\r\n\r\n  threads: “2” # two\r\npath_to_experiments:”.”"
    write(tmp_path / ".hermes_settings", lines)
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


@pytest.mark.parametrize(
    "lines",
    [
        "bot_id:123:abc\nthreads:2\nchat_id:-5\n",
        "bot_id=123:abc\n  threads: 2\n  chat_id = -5 # mine\n",
        "bot_id: 'it\nthreads: 2 # two\nchat_id:\n",
        "bot_id 123\nthreads:2\nchat_id",
    ],
)
def test_settings_of_the_predecessor_are_told_of_and_do_no_harm(tmp_path: Path, lines: str) -> None:
    own = write(tmp_path / ".hermes_settings", lines)
    told = [
        "1: `bot_id` belongs to rlmate and does nothing here",
        "3: `chat_id` belongs to rlmate and does nothing here",
    ]
    plan = compiled(tmp_path, JOB)
    assert plan.settings == Settings(threads=2)
    assert all("write `notify: tgram://BOT_ID/CHAT_ID`" in w for w in plan.warnings)
    assert [w.partition("; write")[0] for w in plan.warnings] == [f"{own}:{t}" for t in told]
    assert not any("123" in warning for warning in plan.warnings), "it is a secret"
    own.unlink()
    with pytest.raises(HermesFileError, match="`bot_id` belongs to rlmate") as caught:
        compiled(tmp_path, f"PRE\n{lines}\n{JOB}")
    assert caught.value.line == 2


@pytest.mark.parametrize("key", ["bot_ids", "chat", "my_bot_id"])
def test_other_keys_are_none_of_the_predecessor(tmp_path: Path, key: str) -> None:
    with pytest.raises(HermesFileError, match=f"unknown setting `{key}`"):
        compiled(tmp_path, f"PRE\n{key}: 1\n{JOB}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threads": 0}, "bad value `0` for `threads`: expected a whole number, at least 1"),
        ({"threads": -3}, "bad value `-3` for `threads`: expected a whole number, at least 1"),
        (
            {"path_to_experiments": ""},
            "bad value `` for `path_to_experiments`: expected a folder, relative to the root",
        ),
        *(
            (
                {"path_to_experiments": folder},
                f"bad value `{folder}` for `path_to_experiments`: "
                "expected a folder without control characters",
            )
            for folder in ("a\0b", "a\nb")
        ),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(HermesError) as caught:
        compiled(tmp_path, JOB, **arguments)
    assert caught.value.message == message


@pytest.mark.parametrize("what", ["fifo", "zero"])
def test_settings_file_without_end_is_not_waited_for(tmp_path: Path, what: str) -> None:
    path = tmp_path / ".hermes_settings"
    os.mkfifo(path) if what == "fifo" else path.symlink_to("/dev/zero")
    with pytest.raises(HermesError, match="cannot read"):
        compiled(tmp_path, JOB)


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


# The table


def test_readme_lists_the_settings_of_the_table() -> None:
    rows = [("key", "default", "meaning")]
    for name, row in SETTINGS.items():
        default = row.write(row.default)
        rows.append((f"`{name}`", f"`{default}`" if default else "", row.meaning))
    assert readme_table("### Settings") == rows


def test_calls_take_the_settings_of_the_table(tmp_path: Path) -> None:
    rows = {name: row for name, row in SETTINGS.items() if row.in_calls}
    hints = get_type_hints(PlanArguments)
    # These can be given in several ways
    assert str | Mapping[str, str] | Sequence[str] | None == hints.pop("env")
    assert str | float | timedelta | None == hints.pop("timeout") == hints.pop("grace")
    assert str | int | None == hints.pop("max_failures")
    assert str | int | Sequence[int | str] | None == hints.pop("gpus")
    assert str | None == hints.pop("gpu_free")
    assert str | Sequence[str] | None == hints.pop("notify")
    assert hints == {name: rows[name].kind.argument | None for name in hints}
    assert len(hints) == len(rows) - 7
    # `open_run` takes an executor itself as well as its name
    assert set(SettingArguments.__annotations__) == set(rows) - {"executor"}
    with pytest.raises(TypeError, match="thread"):
        compiled(tmp_path, JOB, thread=3)


def test_settings_of_the_table_are_read_and_written() -> None:
    for row in SETTINGS.values():
        assert row.parse(row.write(row.default)) == row.default
        given = row.kind.take or row.kind.parse
        assert given(row.write(row.default)) == row.default


def test_the_command_line_takes_every_setting_as_an_option(desk: Desk) -> None:
    options = {row.option for row in SETTINGS.values() if row.on_command_line}
    assert options <= set(re.findall(r"--[a-z-]+", desk.hermes("exec", "--help").stdout))
    given: tuple[str, ...] = ("--threads=3", "--path-to-experiments=out", "--no-supervise")
    given += ("--executor=local", "--identifier=none", "--seed=7", "--cwd=experiment")
    given += ("--env=A=x y", "--env=B=", "--timeout=1d12h", "--grace=0.5s", "--retries=2")
    given += ("--notify=command: true all",)
    given += ("--max-failures=20%", "--gpus=fake:2", "--jobs-per-gpu=3", "--gpu-free=1.5GiB")
    given += ("--freeze",)
    desk.write(".hermes_settings", "threads: 2\nsupervise: true\nenv: A=1 C=3\n")
    desk.hermes("exec", "-e", "true", *given, "--slurm=--time=5")
    (metadata,) = desk.path.glob("out/experiments/true/command/*/hermes.json")
    assert json.loads(metadata.read_bytes())["settings"] == {
        "threads": 3,
        "path_to_experiments": "out",
        "supervise": False,
        "identifier": "none",
        "cwd": "experiment",
        "timeout": 129600.0,
        "grace": 0.5,
        "retries": 2,
        "max_failures": "20%",
        "gpus": "fake:2",
        "jobs_per_gpu": 3,
        "gpu_free": 1610612736,
        "env": ["A=x y", "B=", "C=3"],
        "notify": "command: true ***",
        "freeze": True,
        "executor": "local",
        "slurm": "--time=5",
        "seed": 7,
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--threads=0", "bad value `0` for `threads`: expected a whole number, at least 1"),
        ("--executor=moon", "bad value `moon` for `executor`: expected `local` or `slurm`"),
        ("--timeout=0s", "bad value `0s` for `timeout`: expected a time above 0"),
        (
            "--timeout=90",
            "bad value `90` for `timeout`: expected a duration such as `90s`, `45m`, `2h` or "
            "`1d12h`; write `90s` for seconds",
        ),
        ("--max-failures=0", "bad value `0` for `max_failures`: expected a number of jobs"),
        ("--slurm=--wait", "bad value `--wait` for `slurm`: `--wait` is what Hermes itself gives"),
    ],
)
def test_bad_values_on_the_command_line(desk: Desk, given: str, message: str) -> None:
    assert message in desk.hermes("exec", "-e", "true", given, code=2).stderr


def test_variables_of_all_layers_are_merged_by_name(tmp_path: Path) -> None:
    write(tmp_path / ".hermes_settings", "env: A=1 B=1\nenv: C=1\n")
    text = "PRE\nenv: B=2 'C=x y' # a comment\nenv: D=\"a # b\"\n" + JOB
    plan = compiled(tmp_path, text, env={"D": "4", "E": "=5"})
    assert plan.settings.env == ("A=1", "B=2", "C=x y", "D=4", "E==5")
    assert compiled(tmp_path, text, env="B=3 'A=1 2'").settings.env[:2] == ("A=1 2", "B=3")
    assert compiled(tmp_path, text, env=["A=1 2"]).settings.env[0] == "A=1 2"
    assert from_recipe(plan.recipe).settings == plan.settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A", "expected `NAME=value`, found `A`"),
        ("1A=2", "expected `NAME=value`, found `1A=2`"),
        ("A=1 'b", "cannot be split into words"),
    ],
)
def test_variables_that_are_none(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(HermesFileError, match=message) as caught:
        compiled(tmp_path, f"PRE\nenv: {text}\n{JOB}")
    assert caught.value.line == 2


DURATIONS = {
    "90s": 90.0, "45m": 2700.0, "2h": 7200.0, "1d12h": 129600.0, "1.5h": 5400.0, "0.25s": 0.25,
    "2 h 5 m": 7500.0, "1H": 3600.0, "0s": 0.0,
}  # fmt: skip


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items())
def test_durations_are_read(tmp_path: Path, text: str, seconds: float) -> None:
    assert compiled(tmp_path, f"PRE\ngrace: {text}\n{JOB}").settings.grace == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "1x", "-1s", "1m2h", "1s1s", "1e3s", "\u0661s"])
def test_durations_that_are_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(HermesFileError, match=r"bad value|expected"):
        compiled(tmp_path, f"PRE\ngrace: {text}\n{JOB}")


@examples(300)
@given(st.one_of(st.integers(0, 10**9 - 1), st.decimals(0, 10**6, places=9)))
def test_durations_are_written_so_that_they_are_read_again(seconds: int | Decimal) -> None:
    row = SETTINGS["grace"]
    assert row.parse(row.write(float(seconds))) == float(seconds)


def test_durations_in_calls_are_seconds_or_timedeltas(tmp_path: Path) -> None:
    found = compiled(tmp_path, JOB, timeout=90, grace=timedelta(minutes=1)).settings
    assert (found.timeout, found.grace) == (90.0, 60.0)
    for wrong in (0, -1, float("nan"), float("inf"), "90"):
        with pytest.raises(HermesError, match="bad value"):
            compiled(tmp_path, JOB, timeout=wrong)


def test_none_takes_back_what_a_lower_layer_says(tmp_path: Path) -> None:
    write(tmp_path / ".hermes_settings", "timeout: 2h\nmax_failures: 1\n")
    text = "PRE\ntimeout: none\n" + JOB
    plan = compiled(tmp_path, text, max_failures="none")
    assert (plan.settings.timeout, plan.settings.max_failures) == (None, None)
    assert compiled(tmp_path, text, timeout="1h").settings.timeout == 3600
    # Also when the plan is made again: None alone would mean "not given"
    write(tmp_path / "x.hermes", text)
    again = from_recipe(compiled(tmp_path, "PRE\ntimeout: 1h\n" + JOB, timeout="none").recipe)
    assert again.settings.timeout is None


names = st.from_regex(re.compile(r"[A-Za-z_]\w{0,5}", re.ASCII), fullmatch=True)
printable = any_word.map(lambda text: "".join(c for c in text if c >= " " and c != "\x7f"))


@pytest.mark.once
@examples(200)
@given(st.dictionaries(names, st.one_of(printable, awkward_word.filter(str.isprintable))))
def test_variables_are_written_so_that_they_are_read_again(found: dict[str, str]) -> None:
    row = SETTINGS["env"]
    words = tuple(f"{name}={value}" for name, value in sorted(found.items()))
    assert row.parse(row.write(words)) == words
    text = f"PRE\nenv: {row.write(words)}\n" if words else ""
    source = Source.of("x", f"{text}{JOB}".encode())
    settings = layered(None, source, parse(source).settings, {}, lambda _: None)
    assert settings.env == words


def test_a_home_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    plan = compiled(tmp_path, "PRE\npath_to_experiments: ~/out\n" + JOB)
    assert plan.experiments == tmp_path / "home" / "out" / "experiments"
    assert compiled(tmp_path, JOB, root="~/root").root == tmp_path / "home" / "root"
