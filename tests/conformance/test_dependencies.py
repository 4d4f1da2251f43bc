"""What is imported is declared, what is declared is used, and what is installed is pinned."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {name: [Requirement(text) for text in texts] for name, texts in PROJECT["optional-dependencies"].items()}
#: Declared although no module imports them: programs that are run, plugins that pytest finds.
RUN_NOT_IMPORTED = {"build", "mypy", "ruff", "pytest-timeout", "pytest-xdist"}
#: Come with every environment, and no requirement should hold them back.
INSTALLERS = {"pip", "setuptools", "wheel"}
PROVIDERS = packages_distributions()


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level package of each absolute import, wherever in the file it stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            modules = [node.module]
        else:
            continue
        for module in modules:
            yield node.lineno, module.partition(".")[0]


def distributions_of(module: str) -> set[str]:
    """Who may provide a module; by its own name where it is not installed."""
    return {canonicalize_name(name) for name in PROVIDERS.get(module, [module])}


def third_party(folder: str) -> Iterator[tuple[str, set[str]]]:
    """Where a module of a third party is imported, and the distributions that provide it."""
    files = sorted((ROOT / folder).rglob("*.py"))
    # `_typeshed` exists for type checkers alone.
    ours = {"bloodauto", "tests", "_typeshed"}
    if folder != "bloodauto":  # Scripts import their neighbours, and folders of such, by their bare names.
        ours |= {file.stem for file in files} | {file.relative_to(ROOT / folder).parts[0] for file in files}
    for file in files:
        for line, module in imported(file):
            if module not in sys.stdlib_module_names and module not in ours:
                yield f"{file.relative_to(ROOT)}:{line}: {module}", distributions_of(module)


@pytest.mark.parametrize(
    ("folder", "extras"), [("bloodauto", ("keras-cv",)), ("tests", ("dev",)), ("benchmarks", ("dev", "keras-cv"))]
)
def test_every_imported_package_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    declared = names(CORE).union(*(names(EXTRAS[extra]) for extra in extras))
    third_parties = list(third_party(folder))
    assert third_parties, f"no import of a third party found in {folder}: does the test still look where the code is?"
    assert [where for where, providers in third_parties if not providers & declared] == []


def test_every_declared_package_is_used() -> None:
    used = {
        folder: set().union(*(providers for _, providers in third_party(folder))) for folder in ("bloodauto", "tests")
    }
    assert names(CORE) - used["bloodauto"] == set()
    assert names(EXTRAS["dev"]) - used["tests"] - RUN_NOT_IMPORTED == set()


def pins() -> dict[str, Version]:
    versions: dict[str, Version] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9A-Za-z.!+]+)", line)
            assert match is not None, f"constraints.txt: expected 'name==version', got {line!r}"
            name = canonicalize_name(match[1])
            assert name not in versions, f"constraints.txt: {name} is pinned twice"
            versions[name] = Version(match[2])
    return versions


def test_pins_satisfy_what_is_declared() -> None:
    pinned = pins()
    for requirement in [*CORE, *EXTRAS["dev"], *EXTRAS["docs"]]:
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), str(requirement)


def closure(requirements: list[Requirement]) -> set[str]:
    """The requirements and what they require in turn, on this machine."""
    required: set[str] = set()
    todo = [(requirement.name, frozenset(requirement.extras)) for requirement in requirements]
    seen = set(todo)
    while todo:
        name, extras = todo.pop()
        required.add(canonicalize_name(name))
        for text in distribution(name).requires or []:
            needed = Requirement(text)
            environments = [{"extra": extra} for extra in (*extras, "")]
            if needed.marker is None or any(needed.marker.evaluate(environment) for environment in environments):
                step = (needed.name, frozenset(needed.extras))
                if step not in seen:
                    seen.add(step)
                    todo.append(step)
    return required


@pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info[:2] != (3, 11), reason="the pins are made on Python 3.11 and Linux"
)
def test_everything_that_an_install_brings_is_pinned_and_nothing_else() -> None:
    try:
        brought = closure([*CORE, *EXTRAS["dev"], *EXTRAS["docs"]]) - INSTALLERS
    except PackageNotFoundError as missing:
        pytest.skip(f"not all of '.[dev,docs]' is installed: {missing}")
    assert brought == set(pins())


def test_every_lower_bound_is_stated() -> None:
    requirements = [*CORE, *(requirement for extra in EXTRAS.values() for requirement in extra)]
    assert [str(r) for r in requirements if not any(part.operator == ">=" for part in r.specifier)] == []
