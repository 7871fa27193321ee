"""`python -m hermes` is `hermes`."""

from .cli.main import main

main()
