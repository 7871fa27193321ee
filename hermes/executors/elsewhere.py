"""Jobs of other runs: which identifiers are theirs, and live."""

from __future__ import annotations

from ..storage.query import is_running
from .proc import processes_of


class Elsewhere:
    """The jobs of all runs but `run_id`, those with other roots too."""

    def __init__(self, experiments: str, run_id: str) -> None:
        self._experiments = experiments
        self._run_id = run_id
        self._ended: set[str] = set()
        """Identifiers of which no job lives, for good."""

    def lives(self, identifier: str) -> bool:
        """Whether an identifier is that of a live job of another run. Blocks."""
        if identifier in self._ended:
            return False
        lives = is_running(self._experiments, identifier, other_than=self._run_id)
        if lives is None:
            # Not of this root, perhaps of another one
            lives = identifier in processes_of("HERMES_IDENTIFIER")
        if not lives:
            self._ended.add(identifier)
        return lives
