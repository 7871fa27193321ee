"""The command `hermes`, also as `python -m hermes`."""

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Executes the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # As long as no job runs there is nothing to clean up, not even while modules are loaded; a shell loop around this ends too
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli.main import main as execute

    execute()


if __name__ == "__main__":
    main()
