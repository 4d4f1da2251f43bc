"""Writes the pages of docs/reference that follow from the code. ``tests/docs/test_reference.py`` compares them with the files.

python docs/generate.py            # writes the pages
python docs/generate.py --check    # exits with 1 where a page is not current
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import bloodauto
from bloodauto.cli.main import app
from bloodauto.config.recipe import OPERATION_SETS, Recipe
from bloodauto.config.settings import SearchSettings
from bloodauto.config.shipped import shipped_folder
from bloodauto.config.space import load_space
from bloodauto.models.backbone_table import BACKBONES
from bloodauto.run import artifacts
from bloodauto.run.artifacts import CleaningReport, CleaningRow
from bloodauto.run.artifacts.base import Artifact, Record
from bloodauto.shift.corruptions import FAMILIES
from bloodauto.transforms import OPERATIONS
from bloodauto.tuning.constants import BUDGET_CONSTANTS, SCHEDULER_CONSTANTS

REFERENCE = Path(__file__).resolve().parent / "reference"
_NOTE = "<!-- Generated from the code by docs/generate.py; edit the code and run `make docs`. -->\n\n"
_ROLE = re.compile(r"``([^`]+)``")


def _plain(text: str) -> str:
    """Docstring text as one line of Markdown."""
    return _ROLE.sub(r"`\1`", " ".join(text.split()))


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(columns)
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _summary(docstring: str | None) -> str:
    """The docstring up to its first section, paragraphs kept."""
    text = re.split(r"\n\s*(?:Attributes|Args|Returns|Raises|Example|Examples|Yields):\s*\n", docstring or "")[0]
    return "\n\n".join(_plain(paragraph) for paragraph in text.strip().split("\n\n"))


def _attribute_texts(docstring: str | None) -> dict[str, str]:
    """The entries of a docstring's ``Attributes`` section."""
    match = re.search(r"\n( *)Attributes:\n(.*?)(?:\n\n|\Z)", docstring or "", re.DOTALL)
    if match is None:
        return {}
    texts: dict[str, str] = {}
    name = ""
    indent = len(match[1]) + 4
    for line in match[2].splitlines():
        entry = re.match(rf" {{{indent}}}(\w+)(?: \([^)]*\))?: (.*)", line)
        if entry is not None:
            name = entry[1]
            texts[name] = entry[2]
        elif name:
            texts[name] += " " + line.strip()
    return texts


def _type_name(annotation: Any) -> str:
    """A type as a reader of YAML or JSON would write it."""
    origin = get_origin(annotation)
    if annotation is type(None):
        return "null"
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(member) for member in get_args(annotation))
    if origin in (tuple, list):
        return f"list of {_type_name(get_args(annotation)[0])}"
    if origin is not None and get_args(annotation):
        if isinstance(origin, type) and issubclass(origin, dict):
            key, value = get_args(annotation)
            return f"mapping of {_type_name(key)} to {_type_name(value)}"
        return _type_name(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    names = {"str": "text", "float": "number", "int": "integer", "bool": "true or false", "Path": "path"}
    name = getattr(annotation, "__name__", str(annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{name}](#{name.lower()})"
    return names.get(name, name)


def _limits(field: FieldInfo) -> str:
    phrases = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "length at least"}
    texts = []
    for constraint in field.metadata:
        for name, phrase in phrases.items():
            value = getattr(constraint, name, None)
            if value is not None:
                texts.append(f"{phrase} {value:g}" if isinstance(value, (int, float)) else f"{phrase} {value}")
    return ", ".join(texts)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return "see there"
    texts: dict[Any, str] = {None: "null", True: "true", False: "false", "": "empty", (): "empty"}
    return texts.get(value, f"`{value}`") if not isinstance(value, (dict, list)) else "empty"


def _model_table(model: type[BaseModel]) -> str:
    texts = _attribute_texts(model.__doc__)
    rows = []
    for name, field in model.model_fields.items():
        limits = _limits(field)
        kind = _type_name(field.annotation) + (f"; {limits}" if limits else "")
        rows.append([f"`{name}`", kind, _default(field), field.description or texts.get(name, "")])
    if not any(row[3] for row in rows):
        return _table(["field", "value", "default"], [row[:3] for row in rows])
    return _table(["field", "value", "default", "meaning"], rows)


def _models_within(model: type[BaseModel], visited: list[type[BaseModel]] | None = None) -> list[type[BaseModel]]:
    """A model and those of its fields, each once, depth first, in the order of their fields."""
    visited = [] if visited is None else visited
    visited.append(model)
    for field in model.model_fields.values():
        for annotation in _leaf_types(field.annotation):
            if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in visited:
                _models_within(annotation, visited)
    return visited


def _leaf_types(annotation: Any) -> Iterator[Any]:
    arguments = get_args(annotation)
    if not arguments:
        yield annotation
    for argument in arguments:
        yield from _leaf_types(argument)


def _model_section(model: type[BaseModel], *, level: int = 2) -> str:
    return f"{'#' * level} {model.__name__}\n\n{_summary(model.__doc__)}\n\n{_model_table(model)}\n"


def recipe_page() -> str:
    models = _models_within(Recipe)
    text = (
        "# Recipe fields\n\nA recipe is a YAML file. [Write a recipe](../how-to/write-a-recipe.md) has an example; "
        "`bloodauto trials FILE` checks one. The first table is the file itself, the others are the groups in it.\n\n"
    )
    return text + "\n".join(_model_section(model) for model in models)


def settings_page() -> str:
    text = (
        "# Settings\n\nThe settings of a search are the options of `bloodauto search`, the keywords of "
        "`bloodauto.search` and the "
        "content of `settings.yaml`.\n\n"
    )
    parts = []
    for name, field in SearchSettings.model_fields.items():
        limits = _limits(field)
        kind = _type_name(field.annotation) + (f"; {limits}" if limits else "")
        paragraphs = "\n\n".join(_plain(paragraph) for paragraph in (field.description or "").split("\n\n"))
        parts.append(f"## `{name}`\n\n{kind}\n\n{paragraphs}\n")
    return text + "\n".join(parts)


def _parameter_row(parameter: Any) -> list[str]:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if parameter.param_type_name == "argument":
        names = f"`{parameter.name.upper()}`"
    flag = getattr(parameter, "is_flag", False)
    kind = "flag" if flag else _type_name(parameter.type_descriptor.annotation).removesuffix(" or null")
    text = parameter.help or ""
    if not flag and parameter.default is not None and not callable(parameter.default) and "Default:" not in text:
        value = parameter.default.value if isinstance(parameter.default, Enum) else parameter.default
        text += f" Default: {value}."
    return [names, kind, "required" if parameter.required else "", text]


def _command_section(path: str, command: Any) -> str:
    help_text = _summary(command.help or command.callback.__doc__)
    rows = [_parameter_row(parameter) for parameter in command.params if parameter.name != "help"]
    return f"## {path}\n\n{help_text}\n\n" + (_table(["option", "value", "", "meaning"], rows) if rows else "")


def cli_page() -> str:
    root = typer.main.get_command(app)
    sections = []
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        members = getattr(command, "commands", None)
        if members is None:
            sections.append(_command_section(f"bloodauto {name}", command))
        else:
            sections += [_command_section(f"bloodauto {name} {sub}", member) for sub, member in members.items()]
    general = [_parameter_row(parameter) for parameter in root.params if parameter.name != "help"]
    text = "# Command line\n\n`bloodauto COMMAND --help` prints the same.\n\n"
    if general:
        text += "Options before the command:\n\n" + _table(["option", "value", "", "meaning"], general) + "\n"
    return text + "\n".join(sections)


def spaces_page() -> str:
    text = (
        "# Search spaces\n\nThe shipped spaces; `--space NAME` takes artifact. Each line is a domain. [Write a search "
        "space](../how-to/write-a-search-space.md) says how to declare your own.\n\n"
    )
    parts = []
    for path in sorted(shipped_folder("search_spaces").glob("*.yaml")):
        space = load_space(path)
        comment = " ".join(
            line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "#"
        )
        domains = [domain.describe() for domain in space.domains()]
        listing = "\n".join(f"    {line}" for domain in domains for line in domain.splitlines())
        parts.append(f"## {path.stem}\n\n{comment}\n\n{len(domains)} domains:\n\n{listing}\n")
    return text + "\n".join(parts)


def operations_page() -> str:
    text = (
        "# Image operations\n\nOperations of `bloodauto.transforms`, by name. "
        "[Augmentation](../explanation/augmentation.md) explains "
        "magnitude and strength.\n\n*Geometric* operations are affine maps, *pointwise* ones map levels of a "
        "channel, *colour* ones mix "
        "channels, *optical* ones mix optical densities, *filter* ones need neighbours, noise or a codec.\n\n"
        "How a strength follows from a magnitude m: *always*: no strength; *exact*: m times the limit; "
        "*signed*: plus or minus m times the "
        "limit; *uniform*: between 0 and m times the limit; *symmetric*: between minus and plus m times the limit.\n\n"
    )
    rows, details = [], []
    for operation in OPERATIONS.values():
        spec = operation.spec
        limit = f"{spec.limit:g} {spec.unit}" if operation.has_strength else ""
        rows.append([f"`{spec.name}`", spec.group, operation.kind.value, spec.sampling.value, limit, spec.description])
        details.append([f"`{spec.name}`", ", ".join(f"`{family}`" for family in operation.covers), spec.source])
    text += _table(["operation", "imitates", "kind", "sampling", "limit at magnitude 1", "effect"], rows)
    text += "\n## Ranges\n\nInstead of a magnitude, a recipe can give the range from which the strength is drawn evenly.\n\n"
    by_range: dict[Any, list[str]] = {}
    for operation in OPERATIONS.values():
        if operation.spec.range is not None:
            by_range.setdefault(operation.spec.range, []).append(f"`{operation.name}`")
    text += _table(
        ["field", "values", "without effect", "operations"],
        (
            [
                f"`range_{values.unit}`",
                f"{values.lowest:g} to {values.highest:g}",
                f"{values.neutral:g}",
                ", ".join(names),
            ]
            for values, names in by_range.items()
        ),
    )
    text += "\n## Sets\n\n"
    text += _table(
        ["set", "operations"],
        ([f"`{name}`", ", ".join(f"`{operation}`" for operation in names)] for name, names in OPERATION_SETS.items()),
    )
    text += (
        "\n## Coverage and sources\n\nTraining on an operation covers [corruption families](corruptions.md) of "
        "the shift suite up to the "
        "severity that looks like its largest strength; their weight in the objective falls.\n\n"
    )
    return text + _table(["operation", "covers", "source"], details)


def corruptions_page() -> str:
    text = (
        "# Corruption families\n\nFamilies of the shift suite, by group. [The "
        "objective](../explanation/objective.md) says how they "
        "are weighed. A simulated site has at most one family of each *shift factor*.\n\n"
    )
    by_group: dict[str, list[Any]] = {}
    for family in FAMILIES:
        by_group.setdefault(family.group, []).append(family)
    for group, families in by_group.items():
        rows = [
            [
                f"`{family.name}`",
                "" if family.factor is None else family.factor,
                family.unit,
                ", ".join(f"{level:g}" for level in family.levels),
                family.source,
            ]
            for family in families
        ]
        text += (
            f"## {group}\n\n" + _table(["family", "shift factor", "unit", "severities 1 to 5", "source"], rows) + "\n"
        )
    return text


def backbones_page() -> str:
    text = (
        "# Backbones\n\nValues of `backbone.name`, besides `own_cnn`, a small CNN whose size the recipe gives. "
        "Each gets the preprocessing "
        "that its ImageNet weights were trained with. *Blocks* is the largest value of `unfreeze.blocks`; "
        "smaller images are enlarged to the "
        "*minimum* inside the network.\n\n"
    )
    rows = [
        [
            f"`{name}`",
            f"{info.parameters / 1e6:.1f} M",
            str(info.num_layers),
            str(info.num_blocks),
            f"{info.smallest_px} px",
        ]
        for name, info in BACKBONES.items()
    ]
    return text + _table(["backbone", "parameters", "layers", "blocks", "minimum"], rows)


def _artifact_classes() -> list[type[Artifact]]:
    classes = [value for value in vars(artifacts).values() if isinstance(value, type) and issubclass(value, Artifact)]
    return sorted((artifact for artifact in classes if "FILE" in vars(artifact)), key=lambda artifact: artifact.FILE)


def run_files_page() -> str:
    classes = _artifact_classes()
    text = (
        "# Files of a run\n\nEvery file is one class of `bloodauto.run.artifacts`, which alone writes and reads "
        "it. `format_version` "
        "is a file's first key; a file of another version is an error that says so.\n\n"
        "`study.db` is Optuna's. `recipe.yaml` and `space.yaml` have a `format_version`, too, and follow the grammar of "
        "[recipes](recipe.md) and [search spaces](spaces.md), so that `bloodauto train` and `bloodauto search` take "
        "them as they are. The rest (`NEXT.txt`, logs, model cards) is written for people and never read back.\n\n"
    )
    listed: list[type[Artifact | CleaningReport]] = [*classes, CleaningReport]
    text += _table(
        ["file", "class", "content"],
        (
            [f"`{cls.FILE}`", _type_name(cls), _summary(cls.__doc__).partition("\n\n")[0]]
            for cls in sorted(listed, key=lambda cls: cls.FILE)
        ),
    )
    parts: list[type[BaseModel]] = [*listed, CleaningRow]
    for artifact in classes:
        parts += [part for part in _models_within(artifact) if issubclass(part, Record)]
    sections = [_model_section(part) for part in dict.fromkeys(parts)]
    return text + "\n" + "\n".join(sections)


def scheduler_page() -> str:
    text = (
        "# Scheduler constants\n\nThe numbers that the scheduler, the suggestion, the pruning and the budget go "
        "by, with a reason each. "
        "[The budget](../explanation/budget.md) explains how they work together. They are no settings: to "
        "change one, change the "
        "code, and compare searches in the simulator.\n\n"
    )
    parts = []
    for constants in (SCHEDULER_CONSTANTS, BUDGET_CONSTANTS):
        values, reasons = constants.model_dump(), constants.reasons()
        parts.append(
            f"## {type(constants).__name__}\n\n{_summary(type(constants).__doc__)}\n\n"
            + _table(
                ["constant", "value", "reason"], ([f"`{name}`", f"{values[name]:g}", reasons[name]] for name in reasons)
            )
        )
    return text + "\n".join(parts)


def api_page() -> str:
    text = (
        "# Python API\n\nEverything that `import bloodauto` offers. Importing it is quick; heavy libraries are imported "
        "at first use.\n\n"
    )
    return text + "\n".join(f"::: bloodauto.{name}\n" for name in sorted(bloodauto.__all__) if not name.startswith("_"))


#: What a package's box says; few words.
_PACKAGE_LABELS = {
    "adaptation": "an export for one site",
    "cli": "commands and options",
    "config": "recipes, search spaces, settings",
    "data": "load, clean, split",
    "ensemble": "select members and weights",
    "evaluation": "metrics, inference, calibration, OOD",
    "export": "Keras model, model card, final test",
    "models": "backbones, networks",
    "monitor": "status, leaderboard",
    "report": "HTML report, dashboard",
    "run": "files of a run, their schemas",
    "shift": "corruption families, simulated sites",
    "testing": "run factory, conformance suites",
    "training": "train one recipe",
    "transforms": "image operations, batches",
    "tuning": "scheduler, budget, Ray executor",
    "workflows": "search, train, compare, export, evaluate, adapt",
}


def _imported_packages(folder: Path) -> set[str]:
    """The packages of bloodauto that a package imports."""
    targets: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("bloodauto."):
                targets.add(node.module.split(".")[1])
    return targets - {folder.name}


def _package_levels() -> list[list[str]]:
    """The packages by level, the lowest first: each imports packages of lower levels alone."""
    folders = {path.parent.name: path.parent for path in sorted(Path(bloodauto.__file__).parent.glob("*/__init__.py"))}
    imports = {name: _imported_packages(folder) & folders.keys() for name, folder in folders.items()}
    levels: list[list[str]] = []
    while imports:
        free = [name for name, targets in imports.items() if not targets]
        assert free, f"imports in a circle: {imports}"
        levels.append(free)
        imports = {name: targets - set(free) for name, targets in imports.items() if name not in free}
    return levels


def package_diagram() -> str:
    """The packages and their import levels as an SVG that loads nothing from elsewhere."""
    levels = _package_levels()[::-1]
    width, row_height, gap = 760, 58, 10
    height = len(levels) * (row_height + gap) + gap
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'font-family="system-ui, sans-serif" text-anchor="middle">',
        "<title>Packages of bloodauto: each imports only from rows below its own</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for row, names in enumerate(levels):
        box = (width - gap * (len(names) + 1)) / len(names)
        y = gap + row * (row_height + gap)
        for column, name in enumerate(names):
            x = gap + column * (box + gap)
            parts += [
                f'<rect x="{x:.0f}" y="{y}" width="{box:.0f}" height="{row_height}" rx="6" fill="#e8eaf6" stroke="#3f51b5"/>',
                f'<text x="{x + box / 2:.0f}" y="{y + 25}" font-size="16" font-weight="600" fill="#1a237e">{name}</text>',
                f'<text x="{x + box / 2:.0f}" y="{y + 45}" font-size="12" fill="#333333">{_PACKAGE_LABELS[name]}</text>',
            ]
    return "\n".join([*parts, "</svg>"])


#: Generated files, relative to docs/reference.
PAGES: dict[str, Callable[[], str]] = {
    "../assets/packages.svg": package_diagram,
    "recipe.md": recipe_page,
    "backbones.md": backbones_page,
    "spaces.md": spaces_page,
    "cli.md": cli_page,
    "settings.md": settings_page,
    "operations.md": operations_page,
    "corruptions.md": corruptions_page,
    "run-files.md": run_files_page,
    "scheduler.md": scheduler_page,
    "api.md": api_page,
}


def page(name: str) -> str:
    """The content of a generated file."""
    note = _NOTE if name.endswith(".md") else ""
    return note + PAGES[name]().rstrip("\n") + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a page is not current")
    check = parser.parse_args().check
    stale = []
    for name in PAGES:
        path, text = REFERENCE / name, page(name)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    if check and stale:
        sys.exit(f"not current: {', '.join(stale)}; run `make docs`")
    print(*(f"docs/reference/{name}: written" for name in stale), sep="\n")


if __name__ == "__main__":
    main()
