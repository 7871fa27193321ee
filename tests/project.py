"""The old name of `tests.support.project`."""

from .support import LIMIT, Project

__all__ = ["LIMIT", "Project"]
