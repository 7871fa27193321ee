"""Experiments that rlmate has made, read as ours. Nothing is unpickled, nothing is changed.

Its directories are `experiments/<script>/<name>/<time>_<number>_<commit>`, and hold `hermes.info`
with lines of `key:value`, and `exec_arguments` with an option a line.
"""

from __future__ import annotations

import os
import re
import shlex
from datetime import datetime

from ..errors import HermesError, escape
from ..model import Status
from ..storage.files import read_regular
from ..storage.metadata import GitState, Metadata, Versions

INFO = "hermes.info"
ARGUMENTS = "exec_arguments"

_TIME = "%Y_%m_%d_%H%M%S%f"
_NAME = re.compile(r"\d{4}_\d\d_\d\d_\d{12}_\d+_\w{1,5}")


def is_name(text: str) -> bool:
    """Whether rlmate calls its directories so."""
    return _NAME.fullmatch(text) is not None


def read(directory: str) -> Metadata:
    """What rlmate has kept of an experiment. Raises `HermesError` if it cannot be read.

    A job without an end counts as lost; how one has ended is not kept: it counts as finished.
    """
    try:
        text = read_regular(f"{directory}/{INFO}").decode("utf-8", "replace")
    except OSError as exc:
        raise HermesError(
            f"`{escape(directory)}` is no experiment directory: {exc.strerror}: `{INFO}`"
        ) from None
    try:
        words = read_regular(f"{directory}/{ARGUMENTS}").decode("utf-8", "replace")
    except OSError:
        words = ""
    info = dict(_split(line) for line in text.splitlines())
    try:
        arguments = tuple(shlex.split(words))
    except ValueError:
        arguments = tuple(words.split())
    folder, identifier = os.path.split(directory)
    folder, name = os.path.split(folder)
    script = os.path.basename(folder)
    commit = info.get("commit_hash", "")
    comment = info.get("comments", "")
    end = _time(info.get("end_time", ""))
    try:
        duration = float(info.get("execution_time", ""))
    except ValueError:
        duration = None
    return Metadata(
        identifier=identifier,
        script=script,
        argv=(script, *arguments),
        arguments=arguments,
        comments=(comment,) if comment else (),
        key="",
        status=Status.FINISHED if end or duration is not None else Status.LOST,
        start=_time(info.get("start_time", "")) or _time("_".join(identifier.split("_")[:4])),
        end=end,
        duration=duration,
        run_id="",
        name=name,
        working_directory="",
        root="",
        git=GitState(commit=commit or None),
        host="",
        user="",
        versions=Versions(hermes="", python="", platform=""),
    )


def _split(line: str) -> tuple[str, str]:
    # Its own reader breaks on a second colon
    key, _, value = line.partition(":")
    return key, value.strip()


def _time(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, _TIME).astimezone()
    except (ValueError, OverflowError, OSError):
        pass
    try:
        return datetime.fromtimestamp(float(text)).astimezone()
    except (ValueError, OverflowError, OSError):
        return None
