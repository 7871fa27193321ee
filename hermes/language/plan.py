"""From a parsed hermes file to a plan: what will be executed, and whether it can be.

Compiling reads the hermes file and `.hermes_settings` and nothing else; the same files give the same plan. `Plan.check`
looks at the disk for what the jobs need.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import HermesError, HermesFileError, PlanError, did_you_mean, escape
from ..model import PLACEHOLDER, Job, Options, shell_line
from .settings import Settings, find_root, layered, parse_bool, parse_sbatch_options
from .sweeps import (
    JobTemplate,
    Sweep,
    Template,
    Tree,
    Values,
    build,
    count,
    distinct,
    expand,
    templates,
)
from .syntax import DOUBLE_QUOTES, SECTIONS, SINGLE_QUOTES, Document, Source, Span, Word, parse

INTERPRETERS = frozenset({
    "bash", "sh", "dash", "zsh", "ksh", "fish", "Rscript", "julia", "node", "nodejs", "deno", "bun", "perl", "ruby", "lua", "luajit",
    "php", "tclsh", "octave", "octave-cli", "guile", "racket",
})  # fmt: skip
"""Programs that take a script as their argument, by base name."""

PYTHONS = ("python", "pypy", "ipython")
"""How the names of others begin, whatever version follows."""

CHECK_LIMIT = 20_000
"""Combinations of a sweep's values that one check tries before the start (0.1 s); the jobs beyond find out for themselves."""

_FLAGS = {
    "-ca": "copy_after", "--copy-after": "copy_after", "-cb": "copy_before", "--copy-before": "copy_before",
    "-ma": "move_after", "--move-after": "move_after", "-l": "log", "--log": "log",
    "-c": "comments", "--comment": "comments", "-s": "slurm", "--slurm": "slurm", "-leg": "legacy", "--legacy": "legacy",
}  # fmt: skip


def compile_file(
    path: str | os.PathLike[str],
    *,
    working_directory: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    comments: Sequence[str] = (),
    threads: int | None = None,
    path_to_experiments: str | None = None,
    supervise: bool | None = None,
    executor: str | None = None,
    slurm: str | None = None,
) -> Plan:
    """Compiles a hermes file into a plan; its jobs are made only as you iterate over them.

    Relative paths start at `working_directory`, by default the current one. `comments` are added to every job's.
    `root` and the settings overrule what the files say. Raises `HermesFileError` with the place of the
    first mistake, and `HermesError` if the file cannot be read.
    """
    base = _base(working_directory)
    try:
        data = base.joinpath(path).read_bytes()
    except OSError as exc:
        hint = (
            "`hermes create NAME` writes one to start from"
            if isinstance(exc, FileNotFoundError)
            else None
        )
        raise HermesError(
            f"cannot read `{escape(os.fspath(path))}`: {exc.strerror}", hint=hint
        ) from None
    except ValueError as exc:
        raise HermesError(f"cannot read `{escape(os.fspath(path))}`: {exc}") from None
    arguments = {
        "threads": threads, "path_to_experiments": path_to_experiments, "supervise": supervise, "executor": executor, "slurm": slurm,
    }  # fmt: skip
    return _compile(os.fspath(path), data, base, root, comments, arguments)


def compile_command(
    command: str,
    *,
    working_directory: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    comments: Sequence[str] = (),
    threads: int | None = None,
    path_to_experiments: str | None = None,
    supervise: bool | None = None,
    executor: str | None = None,
    slurm: str | None = None,
) -> Plan:
    """Compiles one command, split as a shell would, as a hermes file with this one job. Otherwise as `compile_file`.

    In a hermes file commas show where an interpreter's own options end; here its options are told by their `-`.
    """
    import shlex

    base = _base(working_directory)
    try:
        words = shlex.split(command)
    except ValueError as exc:
        raise HermesError(f"cannot split the command `{escape(command)}`: {exc}") from None
    if not words:
        raise HermesError("the command is empty, expected a program")
    items = ", ".join(" ".join(map(quote, item)) for item in _items(words))
    text = f"EXEC\n[[{items}]]\n"
    arguments = {
        "threads": threads, "path_to_experiments": path_to_experiments, "supervise": supervise, "executor": executor, "slurm": slurm,
    }  # fmt: skip
    return _compile(None, text.encode("utf-8", "surrogateescape"), base, root, comments, arguments)


def _base(working_directory: str | os.PathLike[str] | None) -> Path:
    try:
        return Path(working_directory) if working_directory is not None else Path.cwd()
    except FileNotFoundError:
        raise HermesError("the current directory does not exist any more") from None


def _items(words: list[str]) -> list[list[str]]:
    """Splits a command after an interpreter's own options, so that the script rules find its script.

    After `-c` there is code and no script: it gets the identifier as its first argument.
    """
    end = 1
    while end < len(words) and words[end].startswith("-") and words[end] not in ("-c", "-m"):
        end += 1
    if not is_interpreter(words[0]) or end == len(words):
        return [words]
    if words[end] == "-c":
        placed = any(PLACEHOLDER in word for word in words)
        return [words if placed else [*words[: end + 2], PLACEHOLDER, *words[end + 2 :]]]
    return [words[:end], words[end:]]


def _compile(
    path: str | None,
    data: bytes,
    base: Path,
    root: str | os.PathLike[str] | None,
    comments: Sequence[str],
    arguments: dict[str, Any],
) -> Plan:
    base = Path(os.path.abspath(base))
    source = Source.of(path or "<command>", data)
    document = parse(source)
    top = base.joinpath(os.path.abspath(base / root)) if root is not None else find_root(base)
    notes: list[str] = []
    settings = layered(top, source, document.settings, arguments, notes.append)
    entries = tuple(build(source, entry) for entry in document.entries)
    plan = Plan(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        working_directory=base,
        root=top,
        settings=settings,
        _data=data,
        _document=document,
        _entries=entries,
        _comments=tuple(comments),
        _notes=tuple(notes),
    )
    plan.check_options()
    return plan


def from_recipe(recipe: dict[str, Any]) -> Plan:
    """Makes a plan again from its `Plan.recipe`. Raises `KeyError`, `TypeError` or `HermesError` for a foreign one."""
    base, root = Path(recipe["working_directory"]), recipe["root"]
    return _compile(
        recipe["path"], recipe["text"].encode(), base, root, recipe["comments"], recipe["settings"]
    )


@dataclass(frozen=True)
class Plan:
    """What a hermes file says is to be executed.

    `path` is the hermes file as it was named (None for a single command) and `sha256` the hash of its bytes. Jobs run
    in `working_directory`; `experiments` is the folder that gets their directories.
    """

    path: str | None
    sha256: str
    working_directory: Path
    root: Path
    settings: Settings
    _data: bytes = field(repr=False)
    _document: Document = field(repr=False)
    _entries: tuple[tuple[Tree, int], ...] = field(repr=False)
    _comments: tuple[str, ...] = field(repr=False)
    _notes: tuple[str, ...] = field(repr=False)

    @property
    def experiments(self) -> Path:
        """The folder that holds all experiment directories."""
        return Path(os.path.abspath(self.root / self.settings.path_to_experiments)) / "experiments"

    @property
    def recipe(self) -> dict[str, Any]:
        """All that `from_recipe` needs to make this plan again when its files have changed, as JSON types."""
        return {
            "path": self.path,
            "text": self._data.decode(),
            "working_directory": str(self.working_directory),
            "root": str(self.root),
            "comments": list(self._comments),
            "settings": self.settings.as_json(),
        }

    def at(self, executor: str) -> Plan:
        """The same plan with another executor. Raises `HermesError` if there is none of this name."""
        return replace(self, settings=self.settings.at(executor))

    @property
    def jobs(self) -> Jobs:
        """All jobs in order. Iterating makes them one by one; nothing is kept."""
        return Jobs(self)

    @property
    def count(self) -> int:
        """How many jobs there are, also where that is too many for `len`."""
        return sum(count(tree) for tree, _ in self._entries)

    @property
    def default_name(self) -> str:
        """The name of a run for which none is given: the file's stem."""
        return Path(self.path).stem if self.path else "command"

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed but is probably a mistake."""
        found = dict.fromkeys(self._notes)
        for binder, above, values in self._binders():
            for _ in islice(distinct(binder.head_slots, above, values), CHECK_LIMIT):
                script = binder.script(values)
                if (
                    script.position == 0
                    and script.is_interpreter
                    and not binder.places_identifier(values)
                ):
                    place = self._document.source.place(binder.words[0].word.span)
                    found.setdefault(
                        f"{escape(place.path)}:{place.line}: `{escape(script.word)}` itself gets the identifier as its first argument; "
                        f"write `{PLACEHOLDER}` where the script expects it"
                    )
        return tuple(found)

    def check_options(self) -> None:
        """Raises `HermesFileError` for hermes options that no value of a sweep makes right or wrong."""
        for binder, above, values in self._binders():
            for _ in islice(distinct(binder.options.log_slots, above, values), CHECK_LIMIT):
                binder.options.bind(values)
            for template in binder.options.fields["slurm"]:
                for _ in islice(distinct(template.slots, above, values), CHECK_LIMIT):
                    try:
                        parse_sbatch_options(template.fill(values))
                    except ValueError as exc:
                        said = f"bad value `{escape(template.fill(values))}` for `-s`: {exc}"
                        raise self._document.source.error(said, template.word.span) from None
            for flag, template in binder.options.maybe_empty:
                for _ in islice(distinct(template.slots, above, values), CHECK_LIMIT):
                    if not template.fill(values):
                        raise self._document.source.error(
                            f"`{flag}` needs a path, a value of the sweep gives none",
                            template.word.span,
                        )

    def check(self, name: str | None = None) -> None:
        """Looks whether the jobs can start: programs, scripts, paths to copy before, and names.

        Sweeps are checked by the distinct words that they can yield, not job by job. Raises `PlanError` with all problems.
        """
        problems: dict[str, HermesError] = {}

        def report(message: str, word: Word, near: str | None = None) -> None:
            if message not in problems:
                hint = (
                    self._near(near)
                    if near is not None and len(problems) < PlanError.SHOWN
                    else None
                )
                problems[message] = self._document.source.error(message, word.span, hint=hint)

        unusable = why_unusable(self.default_name if name is None else name)
        if unusable:
            shown = escape(self.default_name if name is None else name)
            problems[""] = HermesError(
                f"the name `{shown}` {unusable}", hint="`-n NAME` names a folder"
            )
        for binder, above, values in self._binders():
            for _ in islice(distinct(binder.head_slots, above, values), CHECK_LIMIT):
                self._check_head(binder, values, report)
            for template in binder.options.copy_before:
                for _ in islice(distinct(template.slots, above, values), CHECK_LIMIT):
                    self._check_copy_before(template.fill(values), template.word, report)
        if problems:
            raise PlanError(list(problems.values()))

    def sbatch_options(self) -> Iterator[tuple[tuple[str, ...], int]]:
        """The distinct `sbatch` options that jobs have, each with the line of an entry that has them."""
        found: set[tuple[str, ...]] = set()
        for binder, above, values in self._binders():
            slots = frozenset[int]().union(
                *(template.slots for template in binder.options.fields["slurm"])
            )
            for _ in islice(distinct(slots, above, values), CHECK_LIMIT):
                words = sbatch_words(self.settings, binder.options.bind(values))
                if words not in found:
                    found.add(words)
                    yield words, binder.line

    def _check_head(self, binder: _Binder, values: Values, report: Callable[..., None]) -> None:
        program = binder.words[0].fill(values)
        wrong = why_not_runnable(program, self.working_directory)
        if wrong:
            report(f"program `{escape(program)}` {wrong}", binder.words[0].word)
        script = binder.script(values)
        word = binder.words[script.position].word
        if script.is_file and PLACEHOLDER not in script.word:
            path = self.working_directory / script.word
            # Not `Path.exists`, which raises for words that are too long for a name
            if not os.path.exists(path):
                report(f"script file `{escape(script.word)}` does not exist", word, script.word)
            elif path.is_dir() and not (path / "__main__.py").exists():
                report(f"script `{escape(script.word)}` is a directory, expected a file", word)
        unusable = why_unusable(script.folder)
        if unusable:
            report(f"the script's folder name `{escape(script.folder)}` {unusable}", word)

    def _check_copy_before(self, path: str, word: Word, report: Callable[..., None]) -> None:
        import glob

        if PLACEHOLDER in path:
            return
        whole = self.working_directory / path
        if not os.path.lexists(whole) and not (
            glob.has_magic(path)
            and glob.glob(path, root_dir=self.working_directory, recursive=True)
        ):
            report(f"`-cb {escape(path)}`: no such file or directory", word, path)

    def _near(self, path: str) -> str | None:
        folder, base = os.path.split(self.working_directory / path)
        try:
            hint = did_you_mean(base, os.listdir(folder))
        except OSError:
            hint = None
        return hint or f"relative paths start at `{escape(str(self.working_directory))}`"

    def _binders(self) -> Iterator[tuple[_Binder, tuple[Sweep, ...], Values]]:
        """Every job entry with the sweeps around it, and the values of its first job."""
        for tree, slots in self._entries:
            values = [""] * slots
            for template, above in templates(tree):
                for sweep in above:
                    for column in sweep.columns:
                        values[column.slot] = column.values[0]
                yield self._binder(template), above, values

    def _binder(self, template: JobTemplate) -> _Binder:
        return _Binder(self._document, template, self._comments)


@dataclass(frozen=True, slots=True)
class Jobs:
    """The jobs of a plan: iterable any number of times, with a length."""

    plan: Plan

    def __iter__(self) -> Iterator[Job]:
        return (binder.job(values) for binder, values in self._bound())

    def __len__(self) -> int:
        return self.plan.count

    def lines(self) -> Iterator[str]:
        """`Job.shell` of every job, without making the jobs."""
        return (shell_line(binder.argv(values)[0]) for binder, values in self._bound())

    def _bound(self) -> Iterator[tuple[_Binder, Values]]:
        for tree, slots in self.plan._entries:
            values = [""] * slots
            binders = {id(template): self.plan._binder(template) for template, _ in templates(tree)}
            for template in expand(tree, values):
                yield binders[id(template)], values


def sbatch_words(settings: Settings, options: Options) -> tuple[str, ...]:
    """What `sbatch` is told for a job: later words overrule earlier ones."""
    return tuple(
        word for text in (settings.slurm, *options.slurm) for word in parse_sbatch_options(text)
    )


_SUFFIX = re.compile(r"[^/]\.[A-Za-z]\w*$")
"""What makes a word look like a file; `0.5` does not."""


@dataclass(frozen=True)
class Script:
    """The script word of a command, and what it means.

    `position` is its index among the words of all items, `folder` the name of the folder for its experiments.
    `is_file` says that there has to be such a file; `is_interpreter` that the word itself is an interpreter.
    """

    word: str
    position: int
    is_file: bool = False
    is_interpreter: bool = False

    @cached_property
    def folder(self) -> str:
        return os.path.basename(self.word.rstrip("/")).removesuffix(".py")


@lru_cache(maxsize=1000)
def is_interpreter(program: str) -> bool:
    """Whether a program takes a script as its argument; `python_train.py` is a script itself."""
    base = os.path.basename(program)
    return not base.endswith(".py") and (base in INTERPRETERS or base.startswith(PYTHONS))


def find_script(items: Sequence[Sequence[str]]) -> Script:
    """Which word of a command is its script: the first rule that fits."""
    first = items[0]
    second = items[1] if len(items) > 1 else ()
    interpreter = is_interpreter(first[0])
    if "/" in first[0] and not interpreter:
        return Script(first[0], 0)
    if len(second) > 1 and second[0] == "-m":
        return Script(second[1], len(first) + 1)
    if second and first[-1] == "-m":
        return Script(second[0], len(first))
    if second and not second[0].startswith("-"):
        word = second[0]
        return Script(
            word, len(first), is_file=interpreter or "/" in word or bool(_SUFFIX.search(word))
        )
    if interpreter and len(first) > 1 and not first[1].startswith("-"):
        return Script(first[1], 1, is_file=True)
    return Script(first[0], 0, is_interpreter=interpreter)


class _Binder:
    """Puts values into one job entry. What no value changes is worked out once."""

    def __init__(
        self, document: Document, template: JobTemplate, comments: tuple[str, ...]
    ) -> None:
        source = document.source
        self.words = [word for item in template.items for word in item]
        self.options = _OptionsTemplate(source, document.hermes_options, template.options, comments)
        self.line = source.line(template.entry.span.start)
        self.standard = tuple(word.text for word in document.script_arguments)
        self.lengths = tuple(len(item) for item in template.items)
        self._fixed = ["" if word.slots else word.fill([]) for word in self.words]
        self._open = [(index, word) for index, word in enumerate(self.words) if word.slots]
        self._placed = any(PLACEHOLDER in word for word in (*self._fixed, *self.standard))
        # The words that `find_script` looks at
        first, second = template.items[0], template.items[1][:2] if len(template.items) > 1 else ()
        head = (*first[:2], first[-1], *second) if second else first[:2]
        self.head_slots = frozenset().union(*(word.slots for word in head))
        self._script = None if self.head_slots else self._find_script(self._fixed)

    def script(self, values: Values) -> Script:
        return self.argv(values)[1]

    def places_identifier(self, values: Values) -> bool:
        return len(self.argv(values)[0]) == len(self.words) + len(self.standard)

    def job(self, values: Values) -> Job:
        argv, script = self.argv(values)
        return Job(
            tuple(argv),
            script.folder,
            self.line,
            self.options.bind(values),
            script.position,
            self.lengths,
            self.standard,
        )

    def argv(self, values: Values) -> tuple[list[str], Script]:
        """The words of the whole command."""
        words = self._fixed.copy()
        placed = self._placed
        for index, word in self._open:
            words[index] = text = word.fill(values)
            placed = placed or PLACEHOLDER in text
        script = self._script or self._find_script(words)
        after = script.position + 1
        words[after:after] = self.standard if placed else (PLACEHOLDER, *self.standard)
        return words, script

    def _find_script(self, words: list[str]) -> Script:
        rest = iter(words)
        return find_script([tuple(islice(rest, length)) for length in self.lengths])


class _OptionsTemplate:
    """The hermes options of one job entry, before values are put in. Raises `HermesFileError` for unusable ones."""

    def __init__(
        self,
        source: Source,
        standard: Sequence[Word],
        own: Sequence[Template],
        comments: tuple[str, ...],
    ) -> None:
        self.source = source
        self.fields: dict[str, list[Template]] = {
            "copy_after": [],
            "copy_before": [],
            "move_after": [],
            "comments": [],
            "slurm": [],
        }
        self.maybe_empty: list[tuple[str, Template]] = []
        """The paths that values of a sweep can make empty, with their flags."""
        self.log: Template | None = None
        self._parse([Template((word.text,), word) for word in standard])
        self._parse(own)
        self.fields["comments"] += [Template((text,), Word(text, Span(0, 0))) for text in comments]
        self.copy_before = self.fields["copy_before"]
        self.log_slots = self.log.slots if self.log else frozenset[int]()
        everything = [template for found in self.fields.values() for template in found]
        self._bound = (
            None
            if self.log_slots or any(template.slots for template in everything)
            else self._bind([])
        )

    def bind(self, values: Values) -> Options:
        return self._bound or self._bind(values)

    def _bind(self, values: Values) -> Options:
        filled = {
            name: tuple([template.fill(values) for template in found])
            for name, found in self.fields.items()
        }
        return Options(**filled, log=self._log(values))

    def _log(self, values: Values) -> bool:
        if self.log is None:
            return True
        text = self.log.fill(values)
        try:
            return parse_bool(text)
        except ValueError as exc:
            raise self.source.error(
                f"bad value `{text}` for `-l`: {exc}", self.log.word.span
            ) from None

    def _parse(self, words: Sequence[Template]) -> None:
        index = 0
        while index < len(words):
            template = words[index]
            word = template.word
            flag, equals, attached = (
                word.text.partition("=") if word.text.startswith("--") else (word.text, "", "")
            )
            if flag not in _FLAGS:
                raise self._unknown(template)
            index += 1
            name = _FLAGS[flag]
            if equals:
                value: Template | None = Template(_attached(template), Word(attached, word.span))
            elif name == "log":
                value = words[index] if index < len(words) and self._is_bool(words[index]) else None
                index += value is not None
            elif name == "legacy":
                value = None
            else:
                value = (
                    words[index]
                    if index < len(words) and words[index].word.text not in _FLAGS
                    else None
                )
                index += 1
            self._set(name, flag, word, value)

    def _set(self, name: str, flag: str, word: Word, value: Template | None) -> None:
        if name == "log":
            self.log = value or Template(("true",), word)
        elif name in self.fields:
            if value is None or not (value.word.text or name == "comments"):
                what = {"comments": "a text", "slurm": "options of `sbatch`"}.get(name, "a path")
                raise self.source.error(f"`{flag}` needs {what} after it", word.span)
            if name not in ("comments", "slurm") and not any(
                part for part in value.parts if isinstance(part, str)
            ):
                self.maybe_empty.append((flag, value))
            self.fields[name].append(value)

    def _is_bool(self, template: Template) -> bool:
        """Whether this word belongs to the `-l` before it: all that is not itself an option."""
        return bool(template.slots) or not template.word.text.startswith("-")

    def _unknown(self, template: Template) -> HermesFileError:
        word = template.word
        if word.text.startswith("-"):
            short = [flag for flag in _FLAGS if not flag.startswith("--")]
            hint = (did_you_mean(word.text, short) if len(word.text) < 4 else None) or did_you_mean(
                word.text, _FLAGS
            )
            return self.source.error(f"unknown hermes option `{word.text}`", word.span, hint=hint)
        return self.source.error(
            f"expected a hermes option, found `{word.text}`",
            word.span,
            hint="an option takes one word; quote a text that holds spaces",
        )


def _attached(template: Template) -> tuple[str | int, ...]:
    """What comes after the `=` of `--option=value`."""
    first = template.parts[0]
    assert isinstance(first, str), "it starts with the option's name"
    return (first.partition("=")[2], *template.parts[1:])


def why_unusable(folder: str) -> str | None:
    """Why no folder of `experiments/` can have this name; None if it can."""
    if not folder:
        return "is empty"
    if folder in (".", "..", ".hermes") or "/" in folder:
        return "is not a plain folder name"
    if not folder.isprintable() and any(ord(char) < 32 or ord(char) == 127 for char in folder):
        return "holds control characters"
    if len(os.fsencode(folder)) > 255:
        return "is longer than 255 bytes"
    return None


def find_program(program: str, working_directory: Path) -> str | None:
    """The path of a program as the operating system would find it; None if there is none that can be executed."""
    if "/" in program:
        path = working_directory / program
        return str(path) if os.path.isfile(path) and os.access(path, os.X_OK) else None
    found = shutil.which(program) if program else None
    return sys.executable if found is None and program == "python" else found


def why_not_runnable(program: str, working_directory: Path) -> str | None:
    if find_program(program, working_directory):
        return None
    path = working_directory / program
    if "/" not in program:
        local = program and os.path.isfile(path)
        return f"was not found on PATH{f'; for the file here write `./{program}`' if local else ''}"
    if os.path.isdir(path):
        return "is a directory"
    return "is not executable" if os.path.exists(path) else "does not exist"


_UNQUOTED = re.compile(r"(?!//)[A-Za-z0-9@%+=:./_-]+", re.ASCII)


def quote(word: str) -> str:
    """`word` as it can stand in a hermes file."""
    # A section's name could be alone on its line and open the section
    if _UNQUOTED.fullmatch(word) and word not in SECTIONS:
        return word
    # CRLF becomes LF wherever it stands in the text, so the two are kept apart
    return "'" + word.replace("'", "'\\''").replace("\r\n", "\r''\n") + "'"


def _around(text: str) -> str:
    """A setting's value as it can stand in PRE, where nothing can be escaped."""
    for quotes in (DOUBLE_QUOTES, SINGLE_QUOTES):
        if not any(char in quotes for char in text):
            return f"{quotes[0]}{text}{quotes[0]}"
    return text


def re_execution(job: Job, settings: Settings) -> str:
    """A hermes file that runs `job` again, with the settings in force."""
    items = ", ".join(" ".join(map(quote, item)) for item in job.items)
    arguments = f"STD-E\n{' '.join(map(quote, job.standard))}\n" if job.standard else ""
    return (
        f"{_settings_section(settings)}{arguments}EXEC\n[[{items}],[{_option_list(job.options)}]]\n"
    )


# Nearly all jobs of a run share both


@lru_cache(maxsize=10)
def _settings_section(settings: Settings) -> str:
    lines = ["PRE"]
    for key, value in settings.as_json().items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        lines.append(f"{key}: {text if _UNQUOTED.fullmatch(text) else _around(text)}")
    return "\n".join([*lines, ""])


@lru_cache(maxsize=100)
def _option_list(options: Options) -> str:
    named = (
        ("-cb", "--copy-before", options.copy_before),
        ("-ca", "--copy-after", options.copy_after),
        ("-ma", "--move-after", options.move_after),
        ("-c", "--comment", options.comments),
        ("-s", "--slurm", options.slurm),
    )
    # A value that reads as an option would be taken for one
    words = [
        quote(f"{long}={value}") if value in _FLAGS else f"{short} {quote(value)}"
        for short, long, values in named
        for value in values
    ]
    if not options.log:
        words.append("-l false")
    return ", ".join(words)
