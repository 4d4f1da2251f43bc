"""What a search prints before it begins, how it is shown where, and that libraries keep quiet."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from rich.console import Console

import bloodauto.cli
from bloodauto.cli.progress import (
    JsonProgress,
    LogProgress,
    QuietProgress,
    ScreenProgress,
    incompatible_recipe_lines,
    search_progress,
)
from bloodauto.config.objectives import parse_objectives
from bloodauto.config.shipped import find_space
from bloodauto.workflows.planning import load_checked_space, load_initial_configurations


def test_recipes_that_differ_in_one_field_are_on_one_line() -> None:
    not_in_space = [
        ("a", "backbone.name: it has 1, not 2"),
        ("b", "batch_size: it has 3"),
        ("c", "backbone.name: it has 1, not 4"),
    ]
    assert incompatible_recipe_lines(not_in_space) == ["a, c (by backbone.name)", "b (batch_size: it has 3)"]


@pytest.mark.parametrize("space", ["gpu", "small", "tiny"])
def test_the_shipped_recipes_outside_a_space_need_few_short_lines(space: str) -> None:
    initial = load_initial_configurations("shipped", load_checked_space(find_space(space)), parse_objectives("shift"))
    lines = incompatible_recipe_lines(initial.not_in_space)
    assert initial.in_space, "a search must begin with a recipe that is known to be good"
    assert len(initial.not_in_space) >= 6
    assert len(lines) <= 5
    assert max(map(len, lines)) < 260
    assert {name for name, _ in initial.not_in_space} == {
        name for line in lines for name in line.partition(" (")[0].split(", ")
    }


@pytest.mark.parametrize(
    ("is_terminal", "quiet", "as_json", "expected"),
    [
        (True, False, False, ScreenProgress),
        (False, False, False, LogProgress),
        (True, True, False, QuietProgress),
        (True, False, True, JsonProgress),
    ],
)
def test_the_progress_fits_where_it_is_shown(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, quiet: bool, as_json: bool, expected: type
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    console = Console(file=io.StringIO(), force_terminal=is_terminal)
    assert type(search_progress(console, quiet=quiet, as_json=as_json)) is expected
    monkeypatch.setenv("TERM", "dumb")
    dumb = Console(file=io.StringIO(), force_terminal=True)
    assert type(search_progress(dumb, quiet=False, as_json=False)) is LogProgress


#: They are called after a command that has imported TensorFlow, or import nothing of it.
QUIET_ALREADY = {"_print_result", "print_result", "inspect", "_checks"}


def test_a_command_imports_tensorflow_without_its_messages() -> None:
    """Its start-up messages come from compiled code, so that the order of the imports decides."""
    noisy = []
    for path in sorted(Path(bloodauto.cli.__file__).parent.glob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef) or function.name in QUIET_ALREADY | {"import_workflows"}:
                continue
            modules = [node.module for node in ast.walk(function) if isinstance(node, ast.ImportFrom) and node.module]
            heavy = ("bloodauto.workflows", "bloodauto.models", "bloodauto.training")
            if any(module.startswith(heavy) for module in modules) and "import_workflows()" not in ast.unparse(
                function
            ):
                noisy.append(f"{path.name}: {function.name}")
    assert not noisy
