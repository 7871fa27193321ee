"""The command `hermes`, also as `python -m hermes`."""

import gc
import os
import signal
import sys
from typing import NoReturn

GARBAGE = 100_000
"""Objects that may be made before garbage is looked for, instead of 700 (2,000 from Python 3.13
on). `hermes exec` makes 60,000 before its first job runs."""


def main() -> NoReturn:
    """Executes the command line."""
    if sys.getfilesystemencoding() != "utf-8" and sys.executable:
        # Hermes files are UTF-8, and their words go to the system as they are. What the locale says
        # is for the jobs, which get it unchanged
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # As long as no job runs there is nothing to clean up, not even while modules are loaded; a
        # shell loop around this ends too
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Loading modules makes many objects and no garbage: looking for some in between takes a tenth
    # of start-up
    gc.set_threshold(GARBAGE)
    from .cli.main import main as execute

    try:
        execute()
    finally:
        # The system takes all memory back at once: objects that hold each other need not be sorted
        # out before
        gc.freeze()


if __name__ == "__main__":
    main()
