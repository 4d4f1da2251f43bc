"""Imports run one way, heavy packages are imported where they are needed, and files and functions stay short."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "bloodauto"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "_shipped" not in path.parts)

_BASE = {"errors", "types", "clock", "printable", "run", "config"}
_IMAGES = _BASE | {"data", "transforms", "shift"}
_LEARNING = _IMAGES | {"models", "training", "evaluation"}
_CHOOSING = _LEARNING | {"ensemble", "tuning"}
#: What each part may import of the project, besides itself: the layers, from bottom to top.
ALLOWED = {
    # The package's front door: names of the workflows, imported when somebody asks for them.
    "__init__": _CHOOSING | {"export", "report", "workflows"},
    "__main__": {"cli"},
    "errors": set(),
    "clock": set(),
    "printable": set(),
    "types": {"errors"},
    "run": {"errors", "types", "printable"},
    "config": {"errors", "types", "printable", "run"},
    "data": _BASE,
    "transforms": _BASE,
    "shift": _BASE | {"transforms"},
    "models": _IMAGES,
    "evaluation": _IMAGES | {"models"},
    "training": _IMAGES | {"models", "evaluation"},
    "ensemble": _LEARNING,
    "tuning": _LEARNING,
    "export": _CHOOSING,
    "adaptation": _CHOOSING | {"export"},
    "report": _BASE,
    "monitor": _BASE | {"report"},
    "workflows": _CHOOSING | {"export", "adaptation", "report"},
    "cli": _CHOOSING | {"export", "adaptation", "report", "monitor", "workflows"},
    "testing": _CHOOSING | {"export", "report"},
}

EXCEPTIONS: set[tuple[str, str]] = set()

#: Where a package may be imported at all, and where while a module is being imported.
ANYWHERE_IN = {
    "ray": ("tuning/executors/ray/",),
    "plotly": ("report/figures/",),
    "optuna": ("config/space/", "tuning/", "run/", "report/", "monitor/", "testing/"),
}
AT_MODULE_LEVEL_IN = {
    "ray": ("tuning/executors/ray/",),
    "plotly": ("report/figures/",),
    "optuna": ("tuning/", "run/", "report/", "monitor/", "testing/"),
    "tensorflow": ("models/", "training/", "evaluation/", "ensemble/", "export/", "transforms/"),
    "keras": (
        "models/",
        "training/",
        "evaluation/",
        "ensemble/",
        "export/",
        "adaptation/",
        "transforms/",
        "testing/",
    ),
    "keras_cv": (),
}


@dataclass(frozen=True)
class Import:
    """One import; ``when`` is ``module``, ``function`` or ``typing``."""

    file: str
    line: int
    target: str
    when: str

    def __str__(self) -> str:
        return f"bloodauto/{self.file}:{self.line}: {self.target}"


def _imports(tree: ast.AST, file: str, when: str = "module") -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        inside = when
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inside = "function"
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            inside = "typing"
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, alias.name, when) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module if node.module is not None else ""
            if node.level:
                folder = ["bloodauto", *Path(file).parts[:-1]]
                base = ".".join([*folder[: len(folder) - node.level + 1], *([base] if base else [])])
            if base == "bloodauto":
                yield from (Import(file, node.lineno, f"bloodauto.{alias.name}", when) for alias in node.names)
            else:
                yield Import(file, node.lineno, base, when)
        yield from _imports(node, file, inside)


@functools.cache
def all_imports() -> list[Import]:
    return [
        imported
        for path in FILES
        for imported in _imports(ast.parse(path.read_text(encoding="utf-8")), path.relative_to(PACKAGE).as_posix())
    ]


def part_of(file: str) -> str:
    return Path(file).parts[0].removesuffix(".py")


def test_every_package_has_a_layer():
    assert {part_of(path.relative_to(PACKAGE).as_posix()) for path in FILES} <= set(ALLOWED)


def test_imports_run_one_way():
    wrong = []
    for imported in all_imports():
        target = imported.target.split(".")
        if (imported.file, imported.target) in EXCEPTIONS:
            continue
        if target[0] == "bloodauto" and len(target) > 1:
            here = part_of(imported.file)
            if target[1] != here and target[1] not in ALLOWED[here] and not target[1].startswith("__"):
                wrong.append(str(imported))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", ANYWHERE_IN)
def test_a_package_is_imported_only_where_allowed(package):
    wrong = [
        str(imported)
        for imported in all_imports()
        if imported.target.split(".")[0] == package and not imported.file.startswith(ANYWHERE_IN[package])
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", AT_MODULE_LEVEL_IN)
def test_a_heavy_package_is_not_imported_before_it_is_needed(package):
    wrong = [
        str(imported)
        for imported in all_imports()
        if imported.target.split(".")[0] == package
        and imported.when == "module"
        and not imported.file.startswith(AT_MODULE_LEVEL_IN[package])
    ]
    assert not wrong, "\n".join(wrong)


def test_optuna_is_only_a_type_in_spaces():
    wrong = [
        str(imported)
        for imported in all_imports()
        if imported.target.split(".")[0] == "optuna"
        and imported.file.startswith("config/space/")
        and imported.when != "typing"
    ]
    assert not wrong, "\n".join(wrong)


def test_the_checker_sees_what_it_must():
    """A rule that finds nothing because it looks at nothing would pass for ever."""
    source = (
        "from . import a\nfrom ..data import b\nfrom bloodauto import cli\nimport ray.tune\n"
        "if TYPE_CHECKING:\n    import optuna\ndef f():\n    import plotly\n"
    )
    imported = [(entry.target, entry.when) for entry in _imports(ast.parse(source), "tuning/x.py")]
    assert imported == [
        ("bloodauto.tuning", "module"),
        ("bloodauto.data", "module"),
        ("bloodauto.cli", "module"),
        ("ray.tune", "module"),
        ("optuna", "typing"),
        ("plotly", "function"),
    ]
    targets = {entry.target.split(".")[0] for entry in all_imports()}
    assert {"bloodauto", "tensorflow", "keras", "ray", "plotly", "optuna"} <= targets


@pytest.mark.parametrize(
    "module", ["bloodauto", "bloodauto.cli.main", "bloodauto.config.recipe", "bloodauto.config.space"]
)
def test_importing_does_not_bring_the_heavy_packages(module):
    code = (
        f"import sys, {module}\n"
        "heavy = ('tensorflow', 'keras', 'ray', 'plotly', 'optuna', 'sklearn', 'cv2', 'pandas', 'scipy')\n"
        "print(*[name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


#: Lines of a module, of a function without its docstring, and parameters of a function besides ``self`` and ``cls``.
MAX_MODULE_LINES = 600
MIN_MODULE_LINES = 40
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 8

#: Modules that are short because what they hold is a table or a set of types.
SHORT_MODULES = {
    # One group of a recipe each.
    "config/recipe/imbalance.py",
    # Constants of stains and light.
    "transforms/physics.py",
    "__main__.py",
    "types.py",
    "_version.py",
    "data/columns.py",
}
#: Functions of the public API may take more parameters, all of them keywords but the first.
MANY_KEYWORDS = {("workflows/search.py", "search"), ("workflows/train.py", "train")}

#: Modules that import something late, and why.
LATE_IMPORTS = {
    "models/tensorflow.py": "it sets up how TensorFlow starts",
    "transforms/keras_cv_engine.py": "keras-cv is an optional dependency",
}


def _path_in_package(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _num_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@dataclass(frozen=True)
class FunctionSize:
    """How long a function is, without its docstring, and how many parameters it has besides ``self`` and ``cls``."""

    file: str
    line: int
    name: str
    num_lines: int
    num_parameters: int
    num_positional: int

    def __str__(self) -> str:
        return (
            f"bloodauto/{self.file}:{self.line}: {self.name}: {self.num_lines} lines, {self.num_parameters} parameters"
        )


def _function_sizes(tree: ast.AST, file: str) -> Iterator[FunctionSize]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            positional = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
            if positional[:1] in (["self"], ["cls"]):
                positional = positional[1:]
            variadic = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
            docstring_lines = 0
            if ast.get_docstring(node) is not None:
                docstring_lines = node.body[0].end_lineno - node.body[0].lineno + 1
            yield FunctionSize(
                file,
                node.lineno,
                node.name,
                num_lines=node.end_lineno - node.lineno + 1 - docstring_lines,
                num_parameters=len(positional) + len(arguments.kwonlyargs) + len(variadic),
                num_positional=len(positional),
            )


def _is_command(size: FunctionSize) -> bool:
    return size.file.startswith("cli/")


@functools.cache
def all_function_sizes() -> list[FunctionSize]:
    return [
        size
        for path in FILES
        for size in _function_sizes(ast.parse(path.read_text(encoding="utf-8")), _path_in_package(path))
    ]


def test_modules_stay_short():
    lengths = {_path_in_package(path): _num_lines(path) for path in FILES}
    assert {file: length for file, length in lengths.items() if length > MAX_MODULE_LINES} == {}


def test_modules_are_no_overflow():
    """A module of a few lines usually belongs where its names are used."""
    lengths = {_path_in_package(path): _num_lines(path) for path in FILES if path.name != "__init__.py"}
    short = {
        file: length for file, length in lengths.items() if length < MIN_MODULE_LINES and file not in SHORT_MODULES
    }
    assert short == {}


def test_functions_stay_short():
    """Only commands of the command line take more parameters: each is an option."""
    wrong = [
        str(size)
        for size in all_function_sizes()
        if not _is_command(size)
        if size.num_lines > MAX_FUNCTION_LINES
        or (size.num_parameters > MAX_PARAMETERS and (size.file, size.name) not in MANY_KEYWORDS)
    ]
    assert not wrong, "\n".join(wrong)


def test_functions_with_many_parameters_take_keywords():
    sizes = {(size.file, size.name): size for size in all_function_sizes()}
    assert set(sizes) >= MANY_KEYWORDS
    assert [str(sizes[key]) for key in MANY_KEYWORDS if sizes[key].num_positional > 1] == []


def test_imports_are_at_the_top():
    """Only the command line imports late, so that its help comes at once, and the package's own front door."""
    wrong = [
        str(imported)
        for imported in all_imports()
        if imported.when == "function"
        and part_of(imported.file) not in {"cli", "__init__"}
        and imported.file not in LATE_IMPORTS
    ]
    assert not wrong, "\n".join(wrong)


def test_late_imports_are_still_late():
    late = {imported.file for imported in all_imports() if imported.when == "function"}
    assert set(LATE_IMPORTS) - late == set()


def test_the_measure_of_functions_sees_what_it_must():
    source = (
        'class A:\n    def f(self, a, *b, c, **d):\n        """One.\n\n        Two.\n        """\n        return a\n'
    )
    (size,) = _function_sizes(ast.parse(source), "x.py")
    assert (size.name, size.num_lines, size.num_parameters, size.num_positional) == ("f", 2, 4, 1)
