"""The shape of the code: who may import whom, what is loaded when, and what is public."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hermes

PACKAGE = Path(hermes.__file__).parent
REPOSITORY = Path(__file__).parent.parent

LAYERS = (
    "errors", "model", "events", "timing", "blocking",
    "language.characters", "language.source", "language.predecessor",
    "language.words", "language.syntax", "language.shells",
    "language.braces", "language.numbers", "language.values", "language.sweeps",
    "language.kinds", "language.gpus", "language.notify", "language.settings", "language.options",
    "language.keys", "language.launchers", "language.scripts", "language.pythons",
    "language.binding", "language.mistakes", "language.sharing", "language.relative",
    "language.checks",
    "language.writing", "language.changes", "language.plan", "language.compiling",
    "storage.layout", "storage.disks", "storage.files", "storage.copying", "storage.mending",
    "storage.metadata", "storage.asking", "storage.git", "storage.code",
    "storage.code_files", "storage.code_store", "storage.frozen", "storage.freezing",
    "storage.code_then", "storage.untracked_then", "storage.bringing_back",
    "storage.job_variables",
    "storage.environments",
    "storage.identifiers", "storage.provenance", "storage.journal", "storage.kept",
    "storage.removals", "storage.query", "storage.gpu_variables", "storage.writer",
    "storage.wishes", "storage.run_record", "storage.run_folder",
    "query.metrics.curves", "query.metrics.sinks", "query.metrics.crc",
    "query.metrics.tensorboard", "query.metrics.tables", "query.metrics.objects",
    "query.metrics.printed", "query.metrics.scores", "query.metrics.files", "query.rows",
    "query.columns", "query.filters", "query.rlmate", "query.places", "query.reading",
    "query.packing", "query.index", "query.batches", "query.listing",
    "query.statistics", "query.grouping", "query.tables", "query.comparing", "query.averaging",
    "query.figures", "query.found", "query.lookup", "query.differences",
    "gpus.sharing", "gpus.finding", "gpus.claims",
    "collection.claims", "collection.linking", "collection.record",
    "collection.tree", "collection.behind", "collection.links", "collection.watching",
    "collection.dangling", "collection.collector", "collection.both",
    "collection.copies",
    "executors.base", "executors.exits", "executors.proc", "executors.processes",
    "executors.adopt", "executors.memory", "executors.closing", "executors.elsewhere",
    "executors.local_job", "executors.local", "executors.fake",
    "executors.slurm.states", "executors.slurm.refusals", "executors.slurm.commands",
    "executors.slurm.tasks", "executors.slurm.open_tasks",
    "executors.slurm.pacing", "executors.slurm.submitting",
    "executors.slurm.asking", "executors.slurm.finishing", "executors.slurm.following",
    "executors.slurm.executor", "executors.slurm.node",
    "run.estimate", "run.standing", "run.feed", "run.logs", "run.news", "run.options",
    "run.limits", "run.survey", "run.others", "run.resume", "run.alive",
    "run.apprise_sender", "run.notify",
    "run.starts", "run.keeping", "run.gpus", "run.slots", "run.todos", "run.control", "run.adding",
    "run.frozen",
    "run.runner", "run.opening", "run.finding", "run.status",
    "show.amounts", "show.text", "show.table", "show.status", "show.cells", "show.detail",
    "show.printed",
    "show.comparison", "show.ticks", "show.canvas", "show.plots", "show.drawing",
    "show.notebook", "show.thinning", "show.removals", "show.export", "show.report",
    "following", "attaching", "removing", "changing", "api", "rerunning",
)  # fmt: skip
"""Each may import only those before it."""

HEAVY = (
    "anyio",
    "asyncio",
    "watchfiles",
    "rich",
    "aiofiles",
    "trio",
    "pydantic",
    "IPython",
    "matplotlib",
    "msgspec",
    "hermes.run.runner",
    "hermes.language.settings",
    "hermes.language.plan",
    "hermes.language.compiling",
)
"""What must not be loaded before it is needed."""

TOP_LEVEL = {
    "hermes",
    "tests",
    "benchmarks",
    "pyproject.toml",
    "noxfile.py",
    "README.md",
    "LICENSE",
}


MOST_LINES = 500
"""Of a file of code. Columns are ruff's affair."""


def name_of(path: Path) -> str:
    """A module's name within the package: `executors.local`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def modules() -> dict[str, Path]:
    """The modules of the library, without the command line."""
    found = {name_of(path): path for path in PACKAGE.rglob("*.py") if path.stem[:2] != "__"}
    return {name: path for name, path in found.items() if not name.startswith("cli.")}


def imported(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, wherever in it."""
    package = ["hermes", *path.parent.relative_to(PACKAGE).parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *(node.module.split(".") if node.module else [])])
            folder = PACKAGE.parent.joinpath(*source.split("."))
            for alias in node.names:
                # `from . import text` imports a module, `from .text import jobs` a name of one
                is_module = (folder / f"{alias.name}.py").exists()
                yield f"{source}.{alias.name}" if is_module else source


def of_hermes(path: Path) -> set[str]:
    """Names within the package of what a file imports from it; not the package itself."""
    found = {name for name in imported(path) if name.split(".")[0] == "hermes"}
    return {name.removeprefix("hermes.") for name in found} - {"hermes"}


def test_every_module_has_its_layer() -> None:
    assert sorted(modules()) == sorted(LAYERS)


@pytest.mark.parametrize("module", LAYERS)
def test_modules_import_only_what_is_below_them(module: str) -> None:
    assert of_hermes(modules()[module]) <= set(LAYERS[: LAYERS.index(module)])


def test_the_command_line_is_a_user_of_the_library() -> None:
    files = list((PACKAGE / "cli").glob("*.py"))
    assert files
    for path in files:
        for name in of_hermes(path):
            assert name.split(".")[0] in ("show", "cli"), f"`{name_of(path)}` imports `{name}`"


def test_the_demo_needs_nothing_else() -> None:
    for path in (PACKAGE / "cli" / "demo_files").rglob("*.py"):
        for name in imported(path):
            assert name.split(".")[0] in sys.stdlib_module_names | {"networks"}, (
                f"`{path.name}` imports `{name}`"
            )


@pytest.mark.parametrize("module", ["hermes", "hermes.cli.main"])
def test_starting_is_light(module: str) -> None:
    code = f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))"
    loaded = set(
        json.loads(
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, check=True, text=True
            ).stdout
        )
    )
    assert module in loaded
    assert loaded & set(HEAVY) == set()


@pytest.mark.parametrize("words", [["--help"], ["exec", "-e", "true {identifier}"]])
def test_no_garbage_is_looked_for_while_hermes_starts_and_leaves(
    words: list[str], tmp_path: Path
) -> None:
    code = f"""
import gc, hermes.__main__, sys
looks = []
gc.callbacks.append(lambda phase, _: looks.append(phase))
sys.argv = ["hermes", *{words}]
try:
    hermes.__main__.main()
finally:
    assert not looks, looks
    assert gc.get_freeze_count() > 0
    assert gc.isenabled()
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    assert ("Usage: hermes" in done.stdout) == (words == ["--help"])


def test_public_names_are_there_and_documented() -> None:
    for name in hermes.__all__:
        value = getattr(hermes, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert value.__doc__, f"`{name}` has no docstring"
            # What is made up for a record without one says nothing
            assert not value.__doc__.startswith(f"{name}("), f"`{name}` has no docstring"
    assert set(hermes.__all__) <= set(dir(hermes))
    assert "nonsense" not in dir(hermes)
    with pytest.raises(AttributeError, match="nonsense"):
        hermes.nonsense  # noqa: B018


def test_hermes_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


def sources() -> list[Path]:
    """All files of code that are ours."""
    folders = [PACKAGE, *(REPOSITORY / name for name in ("tests", "benchmarks"))]
    return sorted(path for folder in folders for path in folder.rglob("*.py") if path.is_file())


def test_files_can_be_seen_whole() -> None:
    lengths = {path: path.read_text(encoding="utf-8").count("\n") for path in sources()}
    long = {str(path): count for path, count in lengths.items() if count > MOST_LINES}
    assert long == {}


def test_every_folder_says_what_it_is() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent != PACKAGE:
            said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            assert said, f"`{name_of(path)}` has no docstring"
            lines = list(filter(None, said.splitlines()))
            assert len(lines) <= 5, f"the docstring of `{name_of(path)}` is too long"


def test_only_public_functions_of_other_packages_are_used() -> None:
    for path in PACKAGE.rglob("*.py"):
        for name in imported(path):
            top, *rest = name.split(".")
            assert top != "ctypes", f"`{name_of(path)}` imports `{name}`"
            # Modules of ours may be private, but none is
            is_private = any(each.startswith("_") and each != "__future__" for each in rest)
            assert not is_private, f"`{name_of(path)}` imports `{name}`"
        assert "_rust_notify" not in path.read_text(encoding="utf-8")


def test_the_top_level_holds_what_it_should() -> None:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not in a checkout, whose files are known")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, check=True, text=True
    ).stdout.splitlines()
    top = {path.split("/")[0] for path in listed}
    assert {name for name in top if not name.startswith(".")} == TOP_LEVEL
