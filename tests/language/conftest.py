"""The fixtures that the tests of the language share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a test; each overwrites the last one's file."""
    return tmp_path_factory.mktemp("language")
