"""Words and jobs written down come back as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hermes.language.compiling import compile_file
from hermes.language.settings import Settings
from hermes.language.writing import quote, re_execution
from hermes.model import Options

from .helpers import (
    GOLDEN,
    JOB,
    check_re_execution,
    compiled,
    examples,
    items,
    one_line_word,
    only_job,
    options,
    word,
    write,
    written,
)


@pytest.mark.once
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


@pytest.mark.once
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
    assert plan.settings == Settings(threads=threads, path_to_experiments=path, supervise=supervise)
    check_re_execution(folder, only_job(plan), plan.settings)


def test_re_execution_of_golden_jobs(folder: Path) -> None:
    for file in sorted((GOLDEN / "good").glob("*.hermes")):
        plan = compile_file(file, root=folder)
        for job in plan.jobs:
            check_re_execution(folder, job, plan.settings)


def test_re_execution_gives_a_parameter_that_no_word_shows_without_a_warning(
    tmp_path: Path,
) -> None:
    write(tmp_path / "train.py", "")
    job = only_job(compiled(tmp_path, "EXEC\nPROD([[python, train.py {amp}]], amp=[''])\n"))
    assert job.parameters == (("amp", ""),)
    text = re_execution(job, Settings(), ".")
    assert compiled(tmp_path, text).warnings == ()
    (warning,) = compiled(tmp_path, "EXEC\nPROD([[python, train.py]], amp=[''])\n").warnings
    assert "nothing uses the key `amp`" in warning
