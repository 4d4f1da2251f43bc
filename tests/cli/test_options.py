"""Every option says what it does, its unit, its default and an example; those of ``search`` are fields of the settings."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import typer
from typer.models import ArgumentInfo, OptionInfo

from bloodauto.cli.data import data_app
from bloodauto.cli.main import app
from bloodauto.config.settings import SearchSettings, option_name

#: Options of ``search`` that do not decide what it does, and so are no settings.
NO_SETTINGS = {"--run", "--resume", "--address", "--quiet", "--json", "--debug"}
#: Numbers without a unit.
UNITLESS = {"--seed"}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a command as it is declared.

    Attributes:
        names: ``--name`` and ``--no-name`` of an option; empty for an argument.
        help: What ``--help`` says.
        default: Of the function; ``inspect.Parameter.empty`` where the user must give it.
        shows_default: Whether Typer prints the default.
        is_number: Whether it is an int or a float.
    """

    names: tuple[str, ...]
    help: str
    default: Any
    shows_default: bool
    is_number: bool

    @property
    def is_required(self) -> bool:
        return self.default is inspect.Parameter.empty


def parameters(command: Callable[..., None]) -> Iterator[Parameter]:
    for parameter in inspect.signature(command).parameters.values():
        kind, info = typing.get_args(parameter.annotation)
        assert isinstance(info, OptionInfo | ArgumentInfo)
        kinds = {kind, *typing.get_args(kind)}
        # In an annotation Typer keeps the first name as the default.
        declared = info.default if isinstance(info, OptionInfo) else ""
        names = tuple(name for name in str(declared).split("/") if name)
        assert info.help is not None, parameter
        yield Parameter(names, info.help, parameter.default, bool(info.show_default), bool(kinds & {int, float}))


def commands(typer_app: typer.Typer, prefix: str = "") -> Iterator[tuple[str, Callable[..., None]]]:
    for command in typer_app.registered_commands:
        assert command.name is not None
        assert command.callback is not None
        yield f"{prefix}{command.name}", command.callback


COMMANDS = dict([*commands(app), *commands(data_app, "data ")])
OPTIONS = [
    pytest.param(parameter, id=f"{name} {parameter.names[0]}")
    for name, command in COMMANDS.items()
    for parameter in parameters(command)
    if parameter.names
]
ARGUMENTS = [
    pytest.param(parameter, id=f"{name} {index}")
    for name, command in COMMANDS.items()
    for index, parameter in enumerate(parameters(command))
    if not parameter.names
]
SEARCH = {parameter.names[0]: parameter for parameter in parameters(COMMANDS["search"])}


def part_of_help(text: str, part: str) -> str:
    """What follows ``part:`` in a help text or docstring, up to the next part; empty without the part."""
    plain = " ".join(text.replace("``", "").split())
    match = re.search(rf"{part}: (.*?)(?=\.? (?:Unit|Default|Example): |\.?$)", plain)
    return "" if match is None else match.group(1)


def test_the_promised_commands_exist() -> None:
    promised = {
        "search", "train", "export-best", "export-trained", "predict", "report", "dashboard", "spaces", "trials", "ablate",
        "data inspect", "data fetch", "data synth", "data augment",
    }  # fmt: skip
    assert promised <= set(COMMANDS)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (
            "search",
            "--data --budget --run --space --weights-dir --workers --cpus-per-trial --gpus-per-trial --seed --resume "
            "--warm-start --objective --json",
        ),
        ("export-best", "--run --output --format"),
        ("predict", "--output"),
    ],
)
def test_the_promised_options_exist(command: str, options: str) -> None:
    assert set(options.split()) <= {name for parameter in parameters(COMMANDS[command]) for name in parameter.names}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does_and_has_debug(name: str) -> None:
    assert COMMANDS[name].__doc__
    assert "--debug" in {option for parameter in parameters(COMMANDS[name]) for option in parameter.names}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_says_what_it_does_its_default_its_unit_and_an_example(option: Parameter) -> None:
    assert part_of_help(option.help, "Example").startswith(option.names), option.help
    shows_default = option.is_required or (option.shows_default and option.default is not None)
    assert shows_default or part_of_help(option.help, "Default"), option.help
    assert not option.is_number or option.names[0] in UNITLESS or part_of_help(option.help, "Unit"), option.help


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_an_argument_says_what_it_is_and_an_example(argument: Parameter) -> None:
    assert part_of_help(argument.help, "Example"), argument.help


def test_the_options_of_search_are_the_settings() -> None:
    fields = {f"--{name.replace('_', '-')}" for name in SearchSettings.model_fields}
    assert set(SEARCH) - NO_SETTINGS == fields


@pytest.mark.parametrize("name", SearchSettings.model_fields)
def test_an_option_of_search_has_unit_default_and_example_of_its_setting(name: str) -> None:
    description = SearchSettings.model_fields[name].description
    assert description is not None
    option = next(parameter for parameter in SEARCH.values() if option_name(name) in parameter.names)
    for part in ("Unit", "Default"):
        assert part_of_help(option.help, part) == part_of_help(description, part), part
    assert part_of_help(option.help, "Example") in part_of_help(description, "Example").split(", --")[0]
    # Nothing that was not typed may look as if it was: a resume compares what was typed with the run.
    assert option.default is None


@pytest.mark.parametrize("name", SearchSettings.model_fields)
def test_a_stated_default_is_the_default(name: str) -> None:
    field = SearchSettings.model_fields[name]
    assert field.description is not None
    if not field.is_required() and field.default is not None:
        stated = part_of_help(field.description, "Default")
        assert stated == (f"{field.default:g}" if type(field.default) in (int, float) else str(field.default).lower())
