"""How GPUs are asked for: the kinds of the settings `gpus`, `jobs_per_gpu` and `gpu_free`, and of
the hermes option `-g`. Nothing here asks the system.
"""

from __future__ import annotations

import re

from .kinds import Kind

_FAKE = re.compile(r"fake:[1-9]\d{0,3}", re.ASCII)
_NAME = re.compile(r"\d{1,4}|(GPU|MIG)-[\w/-]+", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([KMGT]i?B|B)", re.ASCII)
_UNITS = {
    unit: base**power
    for power, letter in enumerate("KMGT", 1)
    for unit, base in ((f"{letter}B", 1000), (f"{letter}iB", 1024))
} | {"B": 1}


def _parse_gpus(text: str) -> str:
    words = text.replace(" ", "")
    if words == "all" or _FAKE.fullmatch(words):
        return words
    if words.isascii() and words.isdigit():
        if int(words) == 0 or len(words) > 4:
            raise ValueError("expected a number of GPUs; `0,` is the GPU with the index 0")
        return str(int(words))
    names = [name for name in words.split(",") if name]
    if ("," not in words and not _NAME.fullmatch(words)) or not names:
        raise ValueError("expected `all`, a number such as `2`, or a list such as `0,2,3`")
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"`{name}` is neither the index of a GPU nor a UUID")
    # A single index would be read as a number
    return ",".join(names) + ("," if len(names) == 1 and names[0].isdigit() else "")


def _taken_gpus(given: object) -> str:
    if isinstance(given, (list, tuple)):
        return _parse_gpus(",".join(map(str, given)) + ",")
    return _parse_gpus(str(given))


def _parse_size(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError("expected an amount of memory such as `6GiB` or `500MB`")
    return int(float(found[1]) * _UNITS[found[2]])


def _written_size(size: int) -> str:
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return f"{size}B"


def _parse_amount(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = -1.0
    if not (re.fullmatch(r"\d*\.?\d+", text, re.ASCII) and 0 <= amount < 1e4):
        raise ValueError("expected a number of GPUs, such as `2`, or a part of one, such as `0.5`")
    if amount > 1 and amount != int(amount):
        raise ValueError("expected whole GPUs, or a part of one: jobs share a single GPU only")
    return amount


def _written_amount(amount: float) -> str:
    return f"{int(amount)}" if amount == int(amount) else repr(amount)


GPUS = Kind(noun="GPUs", metavar="all|N|LIST", parse=_parse_gpus, take=_taken_gpus)
SIZE = Kind(noun="an amount of memory", metavar="SIZE", parse=_parse_size, write=_written_size)
AMOUNT = Kind(noun="a number of GPUs", metavar="N", parse=_parse_amount, write=_written_amount)
