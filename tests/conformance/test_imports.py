"""Imports run one way, heavy packages are imported where they are needed, and files stay short."""

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

_BASE = {"errors", "types", "run", "config"}
_IMAGES = _BASE | {"data", "transforms", "shift"}
_LEARNING = _IMAGES | {"models", "training", "evaluation"}
_CHOOSING = _LEARNING | {"ensemble", "tuning"}
#: What each part may import of the project, besides itself: the layers, from bottom to top.
ALLOWED = {
    # The package's front door: names of the workflows, imported when somebody asks for them.
    "__init__": _CHOOSING | {"export", "report", "workflows"},
    "errors": set(),
    "types": set(),
    "run": {"errors", "types"},
    "config": {"errors", "types", "run"},
    "data": _BASE,
    "transforms": _BASE,
    "shift": _BASE | {"transforms"},
    "models": _IMAGES,
    "evaluation": _IMAGES | {"models"},
    "training": _IMAGES | {"models", "evaluation"},
    "ensemble": _LEARNING,
    "tuning": _LEARNING,
    "export": _CHOOSING,
    "report": _BASE,
    "workflows": _CHOOSING | {"export", "report"},
    "cli": _CHOOSING | {"export", "report", "workflows"},
    "testing": _CHOOSING | {"export", "report"},
}

EXCEPTIONS: set[tuple[str, str]] = set()

#: Where a package may be imported at all, and where while a module is being imported.
ANYWHERE_IN = {
    "ray": ("tuning/executors/ray/",),
    "plotly": ("report/figures/",),
    "optuna": ("config/space/", "tuning/", "run/", "report/", "testing/"),
}
AT_MODULE_LEVEL_IN = {
    "ray": ("tuning/executors/ray/",),
    "plotly": ("report/figures/",),
    "optuna": ("tuning/", "run/", "report/", "testing/"),
    "tensorflow": ("models/", "training/", "evaluation/", "ensemble/", "export/", "transforms/"),
    "keras": ("models/", "training/", "evaluation/", "ensemble/", "export/", "transforms/"),
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
        found
        for path in FILES
        for found in _imports(ast.parse(path.read_text(encoding="utf-8")), path.relative_to(PACKAGE).as_posix())
    ]


def part_of(file: str) -> str:
    return Path(file).parts[0].removesuffix(".py")


def test_every_part_has_its_place():
    assert {part_of(path.relative_to(PACKAGE).as_posix()) for path in FILES} <= set(ALLOWED)


def test_imports_run_one_way():
    wrong = []
    for found in all_imports():
        target = found.target.split(".")
        if (found.file, found.target) in EXCEPTIONS:
            continue
        if target[0] == "bloodauto" and len(target) > 1:
            here = part_of(found.file)
            if target[1] != here and target[1] not in ALLOWED[here] and not target[1].startswith("__"):
                wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", ANYWHERE_IN)
def test_a_package_stays_in_its_place(package):
    wrong = [
        str(found)
        for found in all_imports()
        if found.target.split(".")[0] == package and not found.file.startswith(ANYWHERE_IN[package])
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", AT_MODULE_LEVEL_IN)
def test_a_heavy_package_is_not_imported_before_it_is_needed(package):
    wrong = [
        str(found)
        for found in all_imports()
        if found.target.split(".")[0] == package
        and found.when == "module"
        and not found.file.startswith(AT_MODULE_LEVEL_IN[package])
    ]
    assert not wrong, "\n".join(wrong)


def test_optuna_is_only_a_type_in_spaces():
    wrong = [
        str(found)
        for found in all_imports()
        if found.target.split(".")[0] == "optuna" and found.file.startswith("config/space/") and found.when != "typing"
    ]
    assert not wrong, "\n".join(wrong)


def test_the_checker_sees_what_it_must():
    """A rule that finds nothing because it looks at nothing would pass for ever."""
    source = (
        "from . import a\nfrom ..data import b\nfrom bloodauto import cli\nimport ray.tune\n"
        "if TYPE_CHECKING:\n    import optuna\ndef f():\n    import plotly\n"
    )
    found = [(one.target, one.when) for one in _imports(ast.parse(source), "tuning/x.py")]
    assert found == [
        ("bloodauto.tuning", "module"),
        ("bloodauto.data", "module"),
        ("bloodauto.cli", "module"),
        ("ray.tune", "module"),
        ("optuna", "typing"),
        ("plotly", "function"),
    ]
    targets = {one.target.split(".")[0] for one in all_imports()}
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


def test_files_stay_short():
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > 600} == {}
