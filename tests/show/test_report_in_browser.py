"""Reports as people use them, in a real browser if one is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from hermes.model import Problem, ProblemKind
from hermes.storage.metadata import GitState, StoredFile, Versions
from tests.support.browser import Browser, browser, installed
from tests.support.waiting import until

from .test_report import HOSTILE, a_page

Check: TypeAlias = "Callable[[Browser, Path], None]"

CHECKS: list[Check] = []


def check(function: Check) -> Check:
    """Marks what is looked at in the one browser of all checks: starting it takes longest."""
    CHECKS.append(function)
    return function


def texts(page: Browser, selector: str) -> list[str]:
    """The texts of all elements that a selector finds."""
    found: list[str] = page.run(
        f"[...document.querySelectorAll({selector!r})].map(each => each.innerText.trim())"
    )
    return found


def column(page: Browser, name: str) -> list[str]:
    """What stands in a column, from top to bottom."""
    names = [each.rstrip(" ▲▼") for each in texts(page, "thead th")]
    return texts(page, f"tbody tr.one td:nth-child({names.index(name) + 1})")


def click(page: Browser, selector: str) -> None:
    page.run(f"document.querySelector({selector!r}).click()")


def heading(name: str) -> str:
    buttons = "[...document.querySelectorAll('thead button')]"
    return f"{buttons}.find(each => each.innerText.startsWith('{name}'))"


@check
def sorting(page: Browser, tmp_path: Path) -> None:
    page.open(a_page(tmp_path, 12))
    assert column(page, "seed") == [str(number) for number in range(12)]
    page.run(f"{heading('seed')}.click()")
    page.run(f"{heading('seed')}.click()")
    assert column(page, "seed") == [str(number) for number in reversed(range(12))]
    sorts = page.run(
        "[...document.querySelectorAll('th')].map(th => th.ariaSort).filter(sort => sort != 'none')"
    )
    assert sorts == ["descending"]
    page.run(f"{heading('status')}.click()")
    assert column(page, "status") == ["failed"] * 4 + ["finished"] * 8
    assert page.problems == []


FILTERS = {
    "": "0 1 2 3 4 5",
    "failed": "2 5",
    "lr=0.1": "0 2 4",
    "lr=0.10 seed>=2": "2 4",
    "return<3 status!=failed": "0 1",
    "100000000004": "4",
    "nothing of this": "",
}


@check
def filtering(page: Browser, tmp_path: Path) -> None:
    path = a_page(tmp_path)
    for text, seeds in FILTERS.items():
        page.open(path)
        page.run("document.getElementById('filter').focus()")
        if text:
            page.type(text)
        assert column(page, "seed") == seeds.split()
        assert texts(page, "#count") == [f"{len(seeds.split())} of 6 experiments"]
        # With more than eight there would be no legend
        assert len(texts(page, "#legend li")) == len(set(seeds.split()) - {"2", "5"})


@check
def hiding_and_showing_columns(page: Browser, tmp_path: Path) -> None:
    page.open(a_page(tmp_path))
    shown = texts(page, "thead th")
    assert shown == ["experiment", "status", "lr", "seed", "return", "duration", "start"]
    for name in ("lr", "script"):
        page.run(
            "[...document.querySelectorAll('#choices label')]"
            f".find(each => each.textContent.trim() == '{name}').click()"
        )
    shown = texts(page, "thead th")
    assert shown == ["experiment", "status", "script", "seed", "return", "duration", "start"]


@check
def details(page: Browser, tmp_path: Path) -> None:
    files = [StoredFile(path="model.pt", bytes=1500, origin="collected")]
    page.open(a_page(tmp_path, changes={"files": files}))
    click(page, "tbody button")
    (told,) = texts(page, "tr.more")
    assert "python train.py 2026_01_02_100000000000_00000" in told
    assert "1.5 kB" in told
    link = page.run("document.querySelector('tr.more ul a').href")
    assert (
        link
        == (tmp_path / "experiments/train/test/2026_01_02_100000000000_00000/model.pt").as_uri()
    )
    click(page, "tbody button")
    assert texts(page, "tr.more") == []


@check
def failures_and_where_they_come_from(page: Browser, tmp_path: Path) -> None:
    page.open(a_page(tmp_path))
    assert len(texts(page, "#failed details")) == 1
    assert "2 experiments" in texts(page, "#failed summary")[0]
    assert "last words </script>" in texts(page, "#failed pre")[0]
    assert texts(page, "#origins summary")[0] == "6 experiments: abcdef0123, here"


@check
def curves_of_groups(page: Browser, tmp_path: Path) -> None:
    page.open(a_page(tmp_path, 12))
    page.run(
        "(() => { const by = document.getElementById('group');"
        "by.selectedIndex = [...by.options].findIndex(each => each.text == 'lr');"
        "by.dispatchEvent(new Event('change')); })()"
    )
    # Those that have failed are not in it
    assert texts(page, "#legend li") == ["lr = 0.01 (n=4)", "lr = 0.1 (n=4)"]
    assert "4 that have not finished are left out" in texts(page, "#notes")[0]
    assert page.run("document.querySelectorAll('#chart polyline').length") == 2
    assert page.run("document.querySelectorAll('#chart polygon').length") == 2
    click(page, "#unfinished")
    assert texts(page, "#legend li") == ["lr = 0.01 (n=6)", "lr = 0.1 (n=6)"]
    assert page.problems == []


@check
def hostile_texts_are_texts(page: Browser, tmp_path: Path) -> None:
    changes = {
        "name": HOSTILE,
        "argv": ("python", HOSTILE),
        "parameters": {HOSTILE: HOSTILE, "__proto__": "1"},
        "comments": (HOSTILE,),
        "problems": [Problem(ProblemKind.DISK_FULL, HOSTILE)],
        "host": HOSTILE,
        "settings": {HOSTILE: HOSTILE},
        "git": GitState(reason=HOSTILE),
        "versions": Versions(hermes=HOSTILE, python=HOSTILE, platform=HOSTILE),
        "files": [StoredFile(path="javascript:alert(1)", bytes=1, origin="written")],
    }
    page.open(a_page(tmp_path, changes=changes))
    click(page, "tbody button")
    page.run("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.run("document.querySelectorAll('script').length") == 2
    assert page.run("document.querySelectorAll('img, iframe, object, main script').length") == 0
    assert page.run("[...document.links].every(each => each.protocol == 'file:')")
    shown = page.run("document.body.innerText")
    assert shown.count("</script><script>alert(1)") > 8
    assert "\\x1b[31m \\u202e" in shown
    assert page.problems == []


@check
def no_request_leaves_the_page(page: Browser, tmp_path: Path) -> None:
    path = a_page(tmp_path)
    page.open(path)
    click(page, "tbody button")
    asked = [each for each in page.requests if not each.startswith("data:")]
    assert asked == [path.as_uri()]
    picture, data = (f"http://127.0.0.1:9/{name}" for name in ("picture", "data"))
    page.run(
        f"fetch('{data}').catch(() => 0);"
        f"document.body.append(Object.assign(new Image(), {{src: '{picture}'}}))"
    )
    until(lambda: page.run("1") and picture in page.blocked)
    until(lambda: page.run("1") and any(data in each for each in page.problems))
    assert data not in page.requests


@check
def by_keyboard_alone(page: Browser, tmp_path: Path) -> None:
    page.open(a_page(tmp_path))
    page.press("Tab")
    assert page.run("document.activeElement.id") == "filter"
    for key in ("Tab", "Tab", "Tab", "Tab", "Tab"):
        page.press(key)
    assert page.run("document.activeElement.innerText") == "lr"
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter")
    # The focus stays where it was, for the other direction
    assert page.run("document.activeElement.closest('th').ariaSort") == "ascending"
    page.press(" ")
    assert page.run("document.activeElement.closest('th').ariaSort") == "descending"
    assert column(page, "lr") == ["0.1"] * 3 + ["0.01"] * 3
    for _ in range(5):
        page.press("Tab")
    page.press("Enter")
    assert page.run("document.activeElement.ariaExpanded") == "true"
    assert len(texts(page, "tr.more")) == 1


@check
def everything_that_is_asked_for_has_a_label(page: Browser, tmp_path: Path) -> None:
    page.open(a_page(tmp_path))
    fields = page.run(
        "[...document.querySelectorAll('input, select')].filter(each => !each.labels.length).length"
    )
    assert fields == 0


@check
def the_page_is_no_wider_than_its_window(page: Browser, tmp_path: Path) -> None:
    changes = {"name": "x" * 300, "comments": ("y" * 500,), "argv": ("z" * 500,)}
    path = a_page(tmp_path, changes=changes)
    for width in (400, 1280):
        page.resize(width)
        page.open(path)
        click(page, "tbody button")
        page.run("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert page.run("document.documentElement.scrollWidth") <= width


@pytest.mark.skipif(installed() is None, reason="no chromium is installed")
def test_reports_in_a_browser(tmp_path: Path) -> None:
    program = installed()
    assert program
    assert CHECKS
    with browser(program, tmp_path / "profile") as page:
        for number, each in enumerate(CHECKS):
            each(page, tmp_path / str(number))
