"""What the tests of the language share: compiling a text, words and jobs made at random."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hermes.errors import PlanError
from hermes.language.compiling import compile_file
from hermes.language.plan import Plan
from hermes.language.settings import Settings
from hermes.language.writing import quote, re_execution
from hermes.model import PLACEHOLDER, Job, Options

README = Path(__file__).parents[2] / "README.md"
GOLDEN = Path(__file__).parent / "golden"
GOOD = sorted((GOLDEN / "good").glob("*.hermes"))
BAD = sorted((GOLDEN / "bad").glob("*.hermes"))

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
        "STD",
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


def values(identifier: str) -> dict[str, str]:
    """What is put in for `PLACEHOLDERS`."""
    return {"identifier": identifier, "directory": f"/e/{identifier}", "slot": "3", "gpus": "0,1"}


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
    again = compiled(folder, re_execution(job, settings_in_force, "."))
    twin = only_job(again)
    assert replace(twin, line=job.line) == job
    assert again.settings == settings_in_force


TOKENS = (
    "PRE\n", "STD-H\n", "STD-E\n", "STD\n", "EXEC\n", "\nEXEC\n", "PROD(", "ZIP(",
    ")", "[", "]", "[[", "]]",
    "(", "{", "}", "{{", "}}", ",", "=", ":", "RANGE[", "RANGE[0, 1, 0.1]", "RANGE[0, 1e9]",
    "RANGE[1e-30, 1]", "RANGE[0, -0]", "RANGE[nan, 1]", "1e999999999", "٣", "1_0", "n=", "n=[1, 2]",
    "{n}", "{identifier}", "{}", "'", '"', "\\", "\\\n", "#", " # ", "//", " // ", "\n", "\r",
    "\r\n", "\t", " ", "\f", "\0", "\x1b", "\x85", "\u2028", "\u00a0", "\ufeff", "”", "‘", "-l",
    "-l false", "-ca x", "-c", "--log={n}", "-m ", "python", "0x1", "threads: 2", "threads", "é",
    "\U0001f600",
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


def readme_table(heading: str) -> list[tuple[str, ...]]:
    """The first table below a heading of the README, without the line below its head."""
    lines = README.read_text(encoding="utf-8").partition(f"\n{heading}\n")[2].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = takewhile(lambda line: line.startswith("|"), lines[start:])
    rows = [tuple(cell.strip() for cell in line[1:-1].split("|")) for line in table]
    return [rows[0], *rows[2:]]
