"""What the tests of collection share: a place that is watched, and one of both kinds."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .place import Place


@pytest.fixture
def watched(request: pytest.FixtureRequest) -> bool:
    """Whether there are notifications; tests of what does not depend on them take both as
    parameters.
    """
    return bool(getattr(request, "param", True))


@pytest.fixture
def place(make_folder: Callable[[str], Path], watched: bool) -> Place:
    return Place(make_folder("place"), watched=watched)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than `tmp_path`."""
    shared = Path("/dev/shm")
    if (
        not shared.is_dir()
        or not os.access(shared, os.W_OK)
        or shared.stat().st_dev == tmp_path.stat().st_dev
    ):
        pytest.skip("there is no other file system to write to")
    folder = shared / f"hermes-{os.getpid()}-{threading.get_ident()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)
