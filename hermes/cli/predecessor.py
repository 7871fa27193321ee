"""What is told of a wrong call that rlmate would have taken: both have a command `hermes`.

Nothing of this is loaded for calls that are right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from importlib import metadata

INSTEAD: Mapping[str, Mapping[str, str]] = {
    "": {
        "-ho": "`hermes create NAME` writes a file that tells the hermes options",
        "bot": "the setting `notify: tgram://BOT_ID/CHAT_ID` sends messages",
        "plot": "Hermes draws no plots; what a job wrote is in its experiment directory",
    },
    "exec": {
        "--execution_file": "write `-f FILE`",
        "--executable": 'write `-e "COMMAND"`',
        "--compile_only": "write `--compile-only`",
        "--debug": "write `--path-to-experiments DIR` for results that you will throw away",
    },
    "create": {
        "--scripts": "write `-s SCRIPT`",
        "-t": "write `hermes create DIR/NAME`",
        "--target-directory": "write `hermes create DIR/NAME`",
    },
}
"""What to write in place of rlmate's commands and options, by the command that they follow."""


def hints(words: Sequence[str], options: Mapping[str, Set[str]]) -> Iterator[str]:
    """What to write in place of the words of a wrong call. `options` are those of each command."""
    first = words[0] if words else ""
    if first in INSTEAD[""] and first not in options:
        yield _hint(first, INSTEAD[""])
        return
    instead, own = INSTEAD.get(first, {}), options.get(first, frozenset())
    for word in words[1:]:
        flag = word.partition("=")[0]
        # Like every parser of its kind, that of rlmate takes a beginning for the whole option
        meant = [each for each in instead if each == flag or each.startswith(flag)]
        dashed = flag.replace("_", "-")
        if flag in own or not flag.startswith("-"):
            continue
        if len(meant) == 1 and (flag in instead or len(flag) > 3):
            yield _hint(meant[0], instead)
        elif dashed in own:
            yield f"did you mean `{dashed}`?"


def _hint(word: str, instead: Mapping[str, str]) -> str:
    return f"`{word}` is one of rlmate's; {instead[word]}"


def installed() -> str | None:
    """What is told if rlmate is installed in the same environment."""
    try:
        version = metadata.version("rlmate")
    except metadata.PackageNotFoundError:
        return None
    return (
        f"rlmate {version} is installed here too, and the command `hermes` is of whichever was "
        "installed last; `python -m hermes` is always this one"
    )
