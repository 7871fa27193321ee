"""One experiment directory: its metadata, ours or rlmate's, and what its job left."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from ..errors import HermesError
from ..storage.layout import METADATA
from ..storage.metadata import Metadata, Summary, read_metadata
from . import rlmate
from .metrics.curves import Curve
from .metrics.files import read_curves, summarise

NEW = 10.0
"""Seconds: a younger directory without metadata is one whose job is being started."""


def is_coming_or_going(directory: str) -> bool:
    """Whether a directory without metadata was made just now, or was removed meanwhile."""
    try:
        made = os.stat(directory).st_mtime
    except OSError:
        return True
    is_empty = not os.path.lexists(f"{directory}/{METADATA}")
    return is_empty and abs(time.time() - made) < NEW


def metadata_of(directory: str) -> Metadata:
    """The metadata of an experiment, ours or rlmate's. Raises `HermesError`."""
    try:
        return read_metadata(directory)
    except HermesError:
        if os.path.lexists(f"{directory}/{METADATA}"):
            raise
        if os.path.lexists(f"{directory}/{rlmate.INFO}"):
            return rlmate.read(directory)
        raise


def summaries_of(directory: str) -> Mapping[str, Summary]:
    """What sums up the curves of an experiment."""
    return summarise(directory)[0]


def curve_of(directory: str, name: str) -> Curve | None:
    """One curve of an experiment."""
    return read_curves(directory, [name])[0].get(name)
