"""A plan: the jobs of a hermes file, made one by one, and how they are executed.

`compiling` makes one. `Plan.check` looks at the disk for what the jobs need.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from ..errors import PlanError, escape
from ..model import PLACEHOLDER, Job, Options, shell_line
from .binding import Binder, Binding, Command
from .checks import UNIX_LINE_ENDS, problems, windows_line_ends
from .kinds import split_sbatch, variables
from .launchers import is_shell
from .mistakes import mistakes
from .options import Option
from .predecessor import glued_comments
from .relative import relative_paths
from .settings import (
    Settings,
    absolute,
)
from .sharing import shared_paths
from .shells import findings
from .sweeps import (
    JobTemplate,
    Sweep,
    Tree,
    Values,
    count,
    distinct,
    expand,
    pick,
    templates,
)
from .syntax import Document, values_in

if TYPE_CHECKING:
    from fractions import Fraction

STDIN = "<stdin>"
"""The path of a hermes file that is read from standard input."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What a hermes file says is to be executed.

    `path` is the hermes file as it was named (None for a single command) and `sha256` the hash of
    its bytes. Jobs run in `working_directory`, which is at `place` relative to the root, links
    resolved; `experiments` is the folder that gets their directories.
    """

    path: str | None
    sha256: str
    working_directory: Path
    root: Path
    place: str
    settings: Settings
    rerun_of: str | None
    """The experiment whose job this is once more; None if it is of no particular one."""

    _data: bytes
    _document: Document
    _entries: tuple[tuple[Tree, int], ...]
    _comments: tuple[str, ...]
    _notes: tuple[str, ...]
    _is_file: Callable[[str], bool]
    """Whether a word is a file that exists; asked of the disk once, and not while jobs run."""

    _added: tuple[Plan, ...] = ()

    def __repr__(self) -> str:
        return f"<Plan of {self.count} jobs: {self.path}, in {self.working_directory}>"

    @property
    def experiments(self) -> Path:
        """The folder that holds all experiment directories."""
        return absolute(self.root, self.settings.path_to_experiments) / "experiments"

    @property
    def recipe(self) -> dict[str, Any]:
        """All that `from_recipe` needs to make this plan again, but for what was added to it."""
        return {
            "path": self.path,
            "text": self._data.decode(),
            "sha256": self.sha256,
            "working_directory": str(self.working_directory),
            "root": str(self.root),
            "comments": list(self._comments),
            "settings": self.settings.as_texts(),
            "rerun_of": self.rerun_of,
        }

    def at(self, executor: str) -> Plan:
        """The same plan with another executor. Raises `HermesError` if none has this name."""
        return replace(self, settings=self.settings.at(executor))

    def with_added(self, *parts: Plan) -> Plan:
        """The same plan, with the jobs of these after its own."""
        return _with_warnings_of(self, replace(self, _added=(*self._added, *parts)))

    def with_warning(self, message: str) -> Plan:
        """The same plan, with one more warning."""
        return replace(self, _notes=(*self._notes, message))

    @property
    def parts(self) -> tuple[Plan, ...]:
        """The plan without what was added to it, and each addition: their jobs are all jobs."""
        return (replace(self, _added=()), *self._added) if self._added else (self,)

    def part_of(self, index: int) -> Plan:
        """The part that holds the job of this index, counted from 0."""
        if not self._added:
            return self
        for part in self.parts:
            if index < part.count:
                return part
            index -= part.count
        raise IndexError(index)

    @property
    def text(self) -> str:
        """The hermes file, without additions."""
        return self._data.decode("utf-8", "surrogateescape")

    @property
    def jobs(self) -> Jobs:
        """All jobs in order. Iterating makes them one by one; nothing is kept."""
        return Jobs(self)

    @property
    def count(self) -> int:
        """How many jobs there are, also where that is too many for `len`."""
        own = sum(count(tree) for tree, _ in self._entries)
        return own + sum(part.count for part in self._added)

    @property
    def default_name(self) -> str:
        """The name of a run for which none is given: the file's stem."""
        if self.path == STDIN:
            return "stdin"
        return Path(self.path).stem if self.path else "command"

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed but is probably a mistake."""
        source = self._document.source
        found = [*self._notes, *self._cut_off()]
        of_options: dict[Option, str] = {}
        for binder, above, values in self._bindings():
            for _ in distinct(binder.head_slots, above, values):
                command = binder.command(values)
                script = command.script
                if script.is_program and not command.is_placed and binder.gives_identifier:
                    word = binder.words[command.kept[script.position]].word
                    found.append(
                        f"{source.at(word.span)}: `{escape(script.word)}` is no script, and gets "
                        f"the identifier as its first argument; write `{PLACEHOLDER}` where it "
                        "belongs, or `identifier: none` in PRE"
                    )
                found += self._windows_line_ends(binder, command)
            # One of a kind: every job of a file may have the option
            of_options = binder.options.warnings | of_options
            found += findings(source, binder.plain_words())
            # In paths of options Hermes itself looks for files and replaces `~`
            found += findings(source, binder.options.paths(), but=("home", "pattern", "operator"))
        found += findings(source, self._document.script_arguments)
        found += findings(source, values_in(self._document.entries))
        found += mistakes(self._document, self._bindings())
        found += of_options.values()
        found += glued_comments(source, self._document.words_of_lines())
        threads, base = self.settings.threads, self.working_directory
        if self.settings.cwd == "experiment":
            arguments = self._document.script_arguments
            found += relative_paths(self._bindings(), arguments, source, base)
        else:
            found += shared_paths(self._bindings(), source, base, threads)
        return tuple(dict.fromkeys(found))

    def _windows_line_ends(self, binder: Binder, command: Command) -> Iterator[str]:
        """A shell takes the CR for part of the last word of every line."""
        script, argv = command.script, command.argv
        if not (script.is_file and is_shell(argv[script.start])):
            return
        if windows_line_ends(str(self.working_directory / script.word)):
            word = binder.words[command.kept[script.position]].word
            text = escape(shlex.quote(script.word))
            yield (
                f"{self._document.source.at(word.span)}: the lines of `{escape(script.word)}` end "
                "with CRLF, as on Windows, and a shell takes the CR for part of their last words; "
                f"{UNIX_LINE_ENDS.format(text)}"
            )

    def _cut_off(self) -> Iterator[str]:
        source = self._document.source
        for span in self._document.cut_off:
            text = source.text[span.start : span.end]
            yield (
                f"{source.at(span)}: `{escape(text)}` is a comment; if it is meant, quote it, and "
                "write `// ` with a space where it is not"
            )

    def check(self, name: str | None = None) -> None:
        """Looks whether the jobs can start: programs, scripts, paths to copy before, and names.

        Sweeps are checked by the distinct words that they can yield, not job by job. Raises
        `PlanError` with all problems.
        """
        name = self.default_name if name is None else name
        found = problems(
            self._bindings(),
            self._document.source,
            self.working_directory,
            name,
            search=dict(variables(self.settings.env)).get("PATH"),
        )
        if found:
            raise PlanError(found)

    def source_line(self, line: int) -> str:
        """A line of the hermes file, for people."""
        return f"{escape(self.path)}:{line}" if self.path is not None else f"line {line}"

    def scripts(self) -> Iterator[str]:
        """The distinct scripts of the jobs that are files, as the hermes file names them."""
        found: set[str] = set()
        for part in self.parts:
            for binder, above, values in part._bindings():
                for _ in distinct(binder.head_slots, above, values):
                    script = binder.command(values).script
                    if script.is_file and script.word not in found:
                        found.add(script.word)
                        yield script.word

    def sbatch_options(self) -> Iterator[tuple[tuple[str, ...], int]]:
        """The distinct `sbatch` options of the jobs, each with the line of an entry with them."""
        found: set[tuple[str, ...]] = set()
        for binder, above, values in self._bindings():
            given = binder.options.templates("slurm")
            slots = frozenset[int]().union(*(template.slots for template in given))
            for _ in distinct(slots, above, values):
                words = sbatch_words(self.settings, binder.options.bind(values))
                if words not in found:
                    found.add(words)
                    yield words, binder.line

    def gpu_amounts(self) -> Iterator[tuple[Fraction, int]]:
        """The distinct numbers of GPUs that jobs need, each with the line of an entry with it."""
        found: set[Fraction] = set()
        for binder, above, values in self._bindings():
            given = binder.options.templates("gpus")
            slots = frozenset[int]().union(*(template.slots for template in given))
            for _ in distinct(slots, above, values):
                amount = amount_of(binder.options.bind(values), self.settings)
                if amount not in found:
                    found.add(amount)
                    yield amount, binder.line

    def _bindings(self) -> Iterator[Binding]:
        for tree, slots in self._entries:
            values = [""] * slots
            for template, above in templates(tree):
                for sweep in above:
                    for column in sweep.columns:
                        values[column.slot] = column.values[0]
                yield Binding(self._binder(template, above), above, values)

    def _binder(self, template: JobTemplate, above: tuple[Sweep, ...]) -> Binder:
        return Binder(
            self._document,
            template,
            above,
            comments=self._comments,
            exists=self._is_file,
            gives_identifier=self.settings.identifier == "argument",
        )

    def _bound(self) -> Iterator[tuple[Binder, Values]]:
        """Every job, before it is made: its entry, and its values."""
        for tree, slots in self._entries:
            values = [""] * slots
            binders = {
                id(template): self._binder(template, above) for template, above in templates(tree)
            }
            for template in expand(tree, values):
                yield binders[id(template)], values


class Jobs(msgspec.Struct, frozen=True):
    """The jobs of a plan: iterable any number of times, with a length."""

    plan: Plan

    def __iter__(self) -> Iterator[Job]:
        return (binder.job(values) for part in self.plan.parts for binder, values in part._bound())

    def __len__(self) -> int:
        return self.plan.count

    def __getitem__(self, index: int) -> Job:
        """The job of this index, counted from 0; the ones before it are not made."""
        if index < 0:
            raise IndexError(index)
        for part in self.plan.parts:
            for tree, slots in part._entries:
                size = count(tree)
                if index < size:
                    values = [""] * slots
                    template, above = pick(tree, index, values)
                    return part._binder(template, above).job(values)
                index -= size
        raise IndexError(index)

    def lines(self) -> Iterator[str]:
        """`Job.shell` of every job, without making the jobs."""
        return (
            shell_line(binder.command(values).argv)
            for part in self.plan.parts
            for binder, values in part._bound()
        )


def with_threads(plan: Plan, threads: int) -> Plan:
    """The same plan, of which so many jobs run at the same time."""
    changed = replace(plan, settings=plan.settings.with_threads(threads))
    return _with_warnings_of(plan, changed)


def _with_warnings_of(plan: Plan, changed: Plan) -> Plan:
    """A plan that was changed while it is executed: what it warns of was told when it began, and is
    not looked for once more, for that reads files."""
    if "warnings" in plan.__dict__:
        changed.__dict__["warnings"] = plan.warnings
    return changed


def amount_of(options: Options, settings: Settings) -> Fraction:
    """How many GPUs a job needs: whole ones, or a part of one; 0 for none."""
    # Here, because most plans need none
    from fractions import Fraction

    if options.gpus is not None:
        # As it was written: `0.1` is a tenth
        return Fraction(repr(options.gpus))
    return Fraction(0) if settings.gpus is None else Fraction(1, settings.jobs_per_gpu)


def sbatch_words(settings: Settings, options: Options) -> tuple[str, ...]:
    """The words that `sbatch` gets for a job: later words overrule earlier ones.

    The GPUs that a job needs are among them, unless what was written for `sbatch` names some.
    """
    words = [word for text in (settings.slurm, *options.slurm) for word in split_sbatch(text)]
    amount = amount_of(options, settings)
    if amount and not any(_GPUS_OF_SBATCH.match(word) for word in words):
        # `--gpus-per-task` needs the number of tasks
        words = ["--ntasks=1", f"--gpus-per-task={amount}", *words]
    return tuple(words)


_GPUS_OF_SBATCH = re.compile(r"-G|--gpus|--gres=.*gpu|--tres-per-\w+=.*gpu|gpu:")
