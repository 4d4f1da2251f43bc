"""The search spaces and recipes that are shipped with the package, by name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from bloodauto.config.validation import did_you_mean
from bloodauto.errors import RecipeError, UserError

_YAML_SUFFIXES = (".yaml", ".yml")


def shipped_folder(kind: Literal["search_spaces", "trials"]) -> Path:
    """The folder of shipped search spaces or recipes.

    A wheel has them inside the package, an editable install or a checkout beside it. No other module knows this.

    Args:
        kind: Name of the folder.

    Raises:
        UserError: The installation has no such folder.
    """
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "_shipped" / kind, package.parent / kind):
        if candidate.is_dir():
            return candidate
    raise UserError(
        f"{kind}: not found in {package}/_shipped or beside it; the installation is incomplete, reinstall bloodauto."
    )


def find_space(name: str) -> Path:
    """The file of a search space.

    Args:
        name: A path, or the name of a shipped search space.

    Raises:
        RecipeError: Neither; the message names the nearest shipped one.

    Example:
        >>> find_space("tiny").name
        'tiny.yaml'
    """
    return _file_or_shipped(name, shipped_folder("search_spaces").glob("*.yaml"), "--space: expected a shipped space")


def find_recipe_file(name: str | Path) -> Path:
    """The file of a recipe or an ablation.

    Args:
        name: A path, or the name of a shipped recipe or ablation.

    Raises:
        RecipeError: Neither; the message names the nearest shipped one.

    Example:
        >>> find_recipe_file("tiny_cnn").name
        'tiny_cnn.yaml'
    """
    folder = shipped_folder("trials")
    files = [*folder.glob("*.yaml"), *folder.glob("ablations/*.yaml")]
    return _file_or_shipped(name, files, "expected a shipped recipe")


def _file_or_shipped(name: str | Path, files: Iterable[Path], expected: str) -> Path:
    path, shipped = Path(name), {file.stem: file for file in files}
    if path.suffix in _YAML_SUFFIXES or path.is_file():
        return path
    if str(name) not in shipped:
        raise RecipeError(f"{expected} or a .yaml file, got {str(name)!r}; {did_you_mean(str(name), shipped)}")
    return shipped[str(name)]
