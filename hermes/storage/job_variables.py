"""What all jobs of one run get in their environment."""

from __future__ import annotations

import os

from ..language.kinds import variables
from ..language.settings import Settings
from .frozen import Frozen


def job_variables(
    name: str, run_id: str, settings: Settings, frozen: Frozen | None
) -> dict[bytes, bytes]:
    """The environment of the jobs, in bytes. What led to the original of frozen code leads to its
    copy."""
    own = {"HERMES_NAME": name, "HERMES_RUN_ID": run_id}
    environment = {**os.environ, **dict(variables(settings.env)), **own}
    around = environment.get("HERMES_IDENTIFIER")
    if around:
        # This run is itself in a job: the processes of its jobs are that job's too
        outer = environment.get("HERMES_OUTER", "")
        environment["HERMES_OUTER"] = f"{around} {outer}".rstrip()
    environment.setdefault("PYTHONUNBUFFERED", "1")
    encoded = {os.fsencode(key): os.fsencode(value) for key, value in environment.items()}
    return encoded if frozen is None else encoded | frozen.variables(encoded)
