"""The setting `notify`: how it is written, and that its secrets are shown to nobody."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hermes.errors import HermesError, HermesFileError
from hermes.language.compiling import compile_addition, from_recipe
from hermes.language.notify import NOTIFY, expanded, without
from hermes.language.writing import re_execution

from .helpers import JOB, compiled, only_job, write

SECRET = "s3cret-T0KEN"


@pytest.mark.parametrize(
    ("text", "addresses", "command", "shown"),
    [
        ("tgram://1:a/2", ["tgram://1:a/2"], [], "tgram://***"),
        ("json://a, mailto://b c://d?x=1,2", ["json://a", "mailto://b", "c://d?x=1,2"], [],
         "json://*** mailto://*** c://***"),
        ("$WHERE ${SCHEME}://x tgram://$TOKEN/1", ["$WHERE", "${SCHEME}://x", "tgram://$TOKEN/1"],
         [], "$WHERE *** tgram://***"),
        ("command: ./tell.sh", [], ["./tell.sh"], "command: ./tell.sh"),
        ("command:curl -H 'A: b c' x", [], ["curl", "-H", "A: b c", "x"], "command: curl ***"),
    ],
)  # fmt: skip
def test_what_is_written(text: str, addresses: list[str], command: list[str], shown: str) -> None:
    notify = NOTIFY.parse(text)
    assert (list(notify.addresses), list(notify.command)) == (addresses, command)
    assert notify.shown == shown
    assert NOTIFY.parse(NOTIFY.write(notify)) == notify
    assert "1" not in repr(notify)
    assert NOTIFY.take is not None
    assert NOTIFY.take(addresses or text).addresses == notify.addresses


@pytest.mark.parametrize(
    "text", ["", "me@example.com", f"tgram//{SECRET}", f"a://{SECRET} b", "command:", "command: 'x"]
)
@pytest.mark.parametrize("key", ["notify", "notify: 'x://y'\nnotify"])
def test_mistakes_show_no_secret(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(HermesFileError, match="notify") as caught:
        compiled(tmp_path, f"PRE\n{key}: {text}\n{JOB}")
    assert SECRET not in str(caught.value)
    with pytest.raises(HermesError, match="bad value for `notify`") as called:
        compiled(tmp_path, JOB, notify=text)
    assert SECRET not in str(called.value)


@pytest.mark.parametrize(
    "line", ["notfy: x://{}", "notify x://{}", "notify: 'x://{}", "bot_id: {}"]
)
def test_mistakes_around_it_show_no_secret(tmp_path: Path, line: str) -> None:
    with pytest.raises(HermesFileError) as caught:
        compiled(tmp_path, f"PRE\n{line.format(SECRET)}\n{JOB}")
    assert "***" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_secrets_stand_in_nothing_that_is_written(tmp_path: Path) -> None:
    text = f"\ufeffPRE\r\nnotify: 'x://{SECRET}' # {SECRET}\r\n{JOB}"
    plan = compiled(tmp_path, text, threads=2)
    assert plan.settings.notify is not None
    assert plan.settings.notify.addresses == (f"x://{SECRET}",)
    again = from_recipe(plan.recipe)
    assert plan.sha256 == again.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert (again.settings.threads, again.settings.notify) == (2, None)
    written = re_execution(only_job(plan), plan.settings, ".")
    assert "notify" not in written
    others = (plan.recipe, plan.text, plan.settings.as_json(), plan.settings.as_texts())
    assert SECRET not in f"{others} {plan!r} {plan.settings!r} {again!r}"
    # An addition has no settings of its own, and says so
    write(tmp_path / "more.hermes", f"PRE\nnotify: y://{SECRET}\n{JOB}")
    more = compile_addition(plan, "more.hermes", working_directory=tmp_path)
    assert any("`notify` is left out" in warning for warning in more.warnings)
    assert SECRET not in f"{more.text} {more.warnings}"


def test_variables_are_put_in_and_pieces_taken_out() -> None:
    assert expanded("a://$X/${Y}z/$", {"X": "1", "Y": "2"}) == "a://1/2z/$"
    with pytest.raises(KeyError, match="Z"):
        expanded("a://$Z", {})
    said = without("401: bad token s3cret-T0KEN for a b at host.org", ["x:s3cret-T0KEN@a%20b/q"])
    assert said == "401: bad token *** for a b at host.org"
