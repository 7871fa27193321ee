"""Whether the jobs of a plan can start: programs, scripts, paths to copy before, and names.

This is the one module of the language that looks at the disk beyond the hermes file.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from ..errors import HermesError, PlanError, did_you_mean, escape
from ..model import PLACEHOLDERS, holds_identifier
from . import predecessor
from .binding import Binder, Binding, Command
from .shells import hint_for_program, hint_for_script, not_expanded, not_expanded_in
from .source import Source, Span, Word
from .sweeps import Values, distinct

FIRST_LINE = 256
"""Bytes of a script in which Linux looks for its interpreter (`BINPRM_BUF_SIZE`)."""

MOST_OF_SCRIPT = 100_000
"""Bytes of a script in which imports are looked for: a script may be any file."""

UNIX_LINE_ENDS = "`sed -i 's/\\r$//' {}` gives it the line ends of this system"

NOT_EXECUTABLE = "is not executable"

UTF8_HINT = "start it with `PYTHONUTF8=1` in its environment"
"""What helps where the locale of a program that uses Hermes has another encoding."""


def problems(
    bindings: Iterable[Binding],
    source: Source,
    working_directory: Path,
    name: str,
    *,
    search: str | None = None,
) -> list[HermesError]:
    """All that keeps jobs from starting under a name. `search` is the PATH of the jobs, None if it
    is that of this process.

    Sweeps are checked by the distinct words that they can yield, not job by job.
    """
    checker = _Checker(source, working_directory, search)
    checker.check_name(name)
    if not checker.can_be_encoded():
        # Nothing can be looked up under a name that the system cannot be given
        return list(checker.found.values())
    for binder, above, values in bindings:
        for _ in distinct(binder.head_slots, above, values):
            checker.check_head(binder, values)
        for template in binder.options.templates("copy_before"):
            for _ in distinct(template.slots, above, values):
                checker.check_copy_before(template.fill(values), template.word)
    return list(checker.found.values())


class _Checker:
    """Collects problems, each once."""

    def __init__(self, source: Source, working_directory: Path, search: str | None) -> None:
        self.found: dict[str, HermesError] = {}
        self._source = source
        self._base = working_directory
        self._search = search

    def check_name(self, name: str) -> None:
        unusable = why_unusable(name)
        if unusable:
            self.found[""] = HermesError(
                f"the name `{escape(name)}` {unusable}", hint="`-n NAME` names a folder"
            )

    def can_be_encoded(self) -> bool:
        """Whether the system can be given the words of the file. In UTF-8 it always can."""
        text = self._source.text
        try:
            os.fsencode(text)
        except UnicodeEncodeError as exc:
            message = f"the locale of this process ({exc.encoding}) has no `{text[exc.start]}`"
            span = Span(exc.start, exc.start + 1)
            self.found[message] = self._source.error(message, span, hint=UTF8_HINT)
            return False
        return True

    def check_head(self, binder: Binder, values: Values) -> None:
        command = binder.command(values)
        program, script = command.argv[0], command.script
        wrong = why_not_runnable(program, self._base, self._search)
        unread = self._check_expanded(binder, command) if not script.in_shell else set()
        if wrong and program not in unread:
            first = binder.words[command.kept[0]].word
            hint = hint_for_program(program) or self._hint_for(program, wrong)
            self._report(f"program `{escape(program)}` {wrong}", first, hint=hint)
        if not script.own_files:
            self._check_first_line(binder, command)
        word = binder.words[command.kept[script.position]].word
        if script.is_file and not holds_identifier(script.word) and script.word not in unread:
            path = self._base / script.word
            # Not `Path.exists`, which raises for words that are too long for a name
            if not os.path.exists(path):
                message = f"script file `{escape(script.word)}` does not exist"
                raw = self._source.text[word.span.start : word.span.end]
                hint = hint_for_script(raw, script.word)
                self._report(message, word, near=None if hint else script.word, hint=hint)
            elif path.is_dir() and not (path / "__main__.py").exists():
                self._report(
                    f"script `{escape(script.word)}` is a directory, expected a file", word
                )
        if not script.own_files and uses_hermes_io(str(self._base / script.word)):
            self._report(
                f"script `{escape(script.word)}` imports `rlmate.hermes_io`, which would write the "
                "files of all jobs to `experiments/unassigned`",
                word,
                hint='the job\'s own folder is `os.environ["HERMES_EXPERIMENT_DIR"]`',
            )
        unusable = why_unusable(script.folder)
        if unusable:
            self._report(f"the script's folder name `{escape(script.folder)}` {unusable}", word)

    def _hint_for(self, program: str, wrong: str) -> str | None:
        if wrong == NOT_EXECUTABLE:
            word = escape(shlex.quote(program))
            python = f", or write `python, {word}`" if program.endswith(".py") else ""
            return f"`chmod +x {word}` makes it so{python}"
        is_found = program != program.lower() and find_program(
            program.lower(), self._base, self._search
        )
        return f"did you mean `{escape(program.lower())}`?" if is_found else None

    def _check_first_line(self, binder: Binder, command: Command) -> None:
        """Reports a program whose first line names an interpreter, and ends as on Windows."""
        for place in sorted({0, command.script.start}):
            text = command.argv[place]
            path = find_program(text, self._base, self._search)
            interpreter = windows_interpreter(path) if path is not None else None
            if interpreter is not None:
                word = binder.words[command.kept[place]].word
                self._report(
                    f"the first line of `{escape(text)}` ends with CRLF, as on Windows: the system "
                    f"looks for an interpreter `{interpreter}\\r`, which does not exist",
                    word,
                    hint=UNIX_LINE_ENDS.format(escape(shlex.quote(text))),
                )

    def _check_expanded(self, binder: Binder, command: Command) -> set[str]:
        """Reports programs and paths that only a shell would make something of; returns them."""
        script, found = command.script, set()
        # Those in front of what is put in: their places are the same in the file
        places = {0, min(script.start, script.position)}
        if not script.is_code:
            places.add(script.position)
        for place in sorted(places):
            text = command.argv[place]
            why = not_expanded(text)
            if why is None or os.path.lexists(self._base / text):
                continue
            found.add(text)
            word = binder.words[command.kept[place]].word
            self._report(f"`{escape(text)}` {why[0]}", word, hint=why[1])
        return found

    def check_copy_before(self, path: str, word: Word) -> None:
        import glob

        path = os.path.expanduser(path)
        if any(f"{{{name}}}" in path for name in PLACEHOLDERS) or os.path.lexists(
            self._base / path
        ):
            return
        if not (glob.has_magic(path) and glob.glob(path, root_dir=self._base, recursive=True)):
            what = next(not_expanded_in(path), None)
            hint = f"no shell replaces `{escape(what)}`; write its value" if what else None
            message = f"`-cb {escape(path)}`: no such file or directory"
            self._report(message, word, near=None if hint else path, hint=hint)

    def _report(
        self, message: str, word: Word, *, near: str | None = None, hint: str | None = None
    ) -> None:
        """Keeps a problem, with a hint if there is a file whose name resembles `near`."""
        if message not in self.found:
            # A directory is not listed for hints that nobody sees
            is_shown = len(self.found) < PlanError.SHOWN
            if near is not None and is_shown:
                hint = self._nearest(near)
            self.found[message] = self._source.error(message, word.span, hint=hint)

    def _nearest(self, path: str) -> str:
        folder, base = os.path.split(self._base / path)
        try:
            hint = did_you_mean(base, os.listdir(folder))
        except OSError:
            hint = None
        return hint or f"relative paths start at `{escape(str(self._base))}`"


def why_unusable(folder: str) -> str | None:
    """Why no folder of `experiments/` can have this name; None if it can."""
    if not folder:
        return "is empty"
    if folder in (".", "..", ".hermes") or "/" in folder:
        return "is not a plain folder name"
    if not folder.isprintable() and any(ord(char) < 32 or ord(char) == 127 for char in folder):
        return "holds control characters"
    try:
        length = len(os.fsencode(folder))
    except UnicodeEncodeError as exc:
        return f"cannot be written in the locale of this process ({exc.encoding}); {UTF8_HINT}"
    if length > 255:
        return "is longer than 255 bytes"
    return None


def find_program(program: str, working_directory: Path, search: str | None = None) -> str | None:
    """The path of a program as the operating system would find it; None if none can be executed.

    `search` is the PATH of the job, by default that of this process.
    """
    if "/" in program:
        path = working_directory / program
        return str(path) if os.path.isfile(path) and os.access(path, os.X_OK) else None
    found = shutil.which(program, path=search) if program else None
    return sys.executable if found is None and program == "python" else found


def uses_hermes_io(script: str) -> bool:
    """Whether a script imports the module by which those of rlmate find their folder."""
    if not os.path.isfile(script):
        return False
    try:
        with open(script, "rb") as file:
            return predecessor.HERMES_IO.search(file.read(MOST_OF_SCRIPT)) is not None
    except OSError:
        return False


def windows_interpreter(program: str) -> str | None:
    """The interpreter that the first line of a script names, if this line ends with CRLF."""
    try:
        with open(program, "rb") as file:
            line = file.readline(FIRST_LINE)
    except OSError:
        return None
    if not (line.startswith(b"#!") and line.endswith(b"\r\n")):
        return None
    return escape(os.fsdecode(line[2:-2].strip()))


def windows_line_ends(script: str) -> bool:
    """Whether the lines of a script end with CRLF."""
    try:
        with open(script, "rb") as file:
            return b"\r\n" in file.read(MOST_OF_SCRIPT)
    except OSError:
        return False


def why_not_runnable(program: str, working_directory: Path, search: str | None) -> str | None:
    """Why a program cannot be executed; None if it can."""
    if find_program(program, working_directory, search):
        return None
    path = working_directory / program
    if "/" not in program:
        local = program and os.path.isfile(path)
        return f"was not found on PATH{f'; for the file here write `./{program}`' if local else ''}"
    if os.path.isdir(path):
        return "is a directory"
    return NOT_EXECUTABLE if os.path.exists(path) else "does not exist"
