"""The grammar of search spaces: domains, labels, and messages about malformed ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloodauto.config.shipped import shipped_folder
from bloodauto.config.space import Choice, FloatRange, IntRange, SearchSpace, covering_recipes, load_space
from bloodauto.errors import RecipeError

SHIPPED = sorted(shipped_folder("search_spaces").glob("*.yaml"))

HEAD = "backbone: {name: mobilenet_0.25}\nstages:\n  - epochs: 1\n    optimizer: {learning_rate: 1e-3}\n"


def space_of(folder: Path, text: str) -> SearchSpace:
    path = folder / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return load_space(path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_spaces_name_each_domain_once(path):
    space = load_space(path)
    names = [domain.parameter for domain in space.domains()]
    assert len(set(names)) == len(names) > 0
    assert space.name == path.stem
    for domain in space.domains():
        if isinstance(domain, Choice):
            assert len(set(domain.labels)) == len(domain.labels)


def test_domains_are_read_as_they_are_written(tmp_path):
    space = space_of(
        tmp_path,
        "batch_size: {int: [16, 64], step: 16}\nhead: {dropout: {float: [0, 0.5]}}\n"
        "input: {size_px: {int: [32, 128], log: true}}\n"
        "stages:\n  - epochs: {choice: [1, 2]}\n    optimizer: {learning_rate: {float: [1e-5, 1e-2], log: true}}\n",
    )
    epochs = list(space.domains())[3]
    assert isinstance(epochs, Choice)
    assert list(space.domains()) == [
        IntRange("batch_size", "batch_size", 16, 64, False, 16),
        FloatRange("dropout", "head.dropout", 0.0, 0.5, False),
        IntRange("input_size_px", "input.size_px", 32, 128, True, 1),
        Choice("epochs", "stages.0.epochs", (1, 2), epochs.members),
        FloatRange("learning_rate", "stages.0.optimizer.learning_rate", 1e-5, 1e-2, True),
    ]


@pytest.mark.parametrize(
    ("domain", "key", "message"),
    [
        ("{float: [1, 2, 3]}", "float", "expected two numbers, [low, high], got [1, 2, 3]"),
        ("{float: 3}", "float", "expected two numbers"),
        ("{float: [a, 2]}", "float", "expected two numbers"),
        ("{float: [0, .inf]}", "float", "expected two numbers"),
        ("{float: [.nan, 1]}", "float", "expected two numbers"),
        ("{float: [true, 2]}", "float", "expected two numbers"),
        ("{float: [2, 1]}", "float", "expected low <= high, got [2, 1]"),
        ("{float: [0, 1], log: true}", "float", "expected low > 0 with log: true"),
        ("{float: [1, 2], log: yes}", "log", "expected true or false, got 'yes'"),
        ("{float: [1, 2], step: 1}", "step", "only log may stand beside 'float'"),
        ("{float: [1, 2], lgo: true}", "lgo", "only log may stand beside 'float', got 'lgo'"),
        ("{int: [1, 2.5]}", "int", "expected two whole numbers"),
        ("{int: [1, 4], step: 0}", "step", "expected a whole number of at least 1, got 0"),
        ("{int: [1, 4], step: true}", "step", "expected a whole number of at least 1"),
        ("{int: [1, 4], step: 2}", "int", "expected to reach high in steps of 2, got [1, 4]; the last step is 3"),
        ("{int: [1, 4], step: 3, log: true}", "step", "expected no step together with log: true"),
        ("{int: [1, 4], choice: [1]}", "int", "nothing may stand beside 'choice'"),
        ("{choice: []}", "choice", "expected a list with at least one member"),
        ("{choice: 3}", "choice", "expected a list with at least one member, got 3"),
        ("{choice: [1, 2, 1]}", "choice.2", "the member 1 stands in this choice twice"),
        ("{choice: [1, 1.0]}", "choice.1", "the member 1.0 equals an earlier one of another kind"),
        ("{choice: [true, 1]}", "choice.1", "the member 1 equals an earlier one of another kind"),
        ("{choice: [{name: a}, {name: a}]}", "choice.1", "the member 'a' stands in this choice twice"),
        ("{choice: [1, 2], log: true}", "log", "nothing may stand beside 'choice', got 'log'"),
        ("{chioce: [1, 2]}", "chioce", "no such domain; did you mean 'choice'?"),
        ("{flaot: [1, 2], log: true}", "flaot", "no such domain; did you mean 'float'?"),
        ("{Int: [1, 2]}", "Int", "no such domain; did you mean 'int'?"),
    ],
)
def test_a_malformed_domain_is_reported_with_its_line(tmp_path, domain, key, message):
    with pytest.raises(RecipeError) as caught:
        space_of(tmp_path, HEAD + f"head:\n  dropout: {domain}\n")
    assert str(caught.value).startswith(f"{tmp_path / 'space.yaml'}:6: head.dropout.{key}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "3\n", "- a\n", "{choice: [{a: 1}]}\n"])
def test_a_file_that_is_no_tree_of_fields(tmp_path, text):
    with pytest.raises(RecipeError, match="expected a recipe's fields"):
        space_of(tmp_path, text)


@pytest.mark.parametrize(
    ("added", "line", "message"),
    [
        ("haed: {dropout: 0.1}", 5, "haed: no such field; did you mean 'head'?"),
        ("head:\n  dropout: {float: [0.1, 0.95]}", 6, "head.dropout: expected at most 0.9, got 0.95"),
        ("batch_size: {float: [1, 2]}", 5, "batch_size: expected a whole number, got 1.0"),
        ("batch_size:\n  choice:\n    - 8\n    - none", 8, "batch_size: expected a whole number, got 'none'"),
        ("loss:\n  choice:\n    - {name: cross_entropy}\n    - {name: focal}", 8, "loss: focal loss needs gamma"),
        (
            "loss:\n  choice:\n    - {name: cross_entropy}\n    - name: focal\n      gama: 1.0",
            9,
            "loss.gama: no such field; did you mean 'gamma'?",
        ),
        (
            "loss:\n  choice:\n    - {name: cross_entropy}\n    - name: focal\n      gamma:\n        {float: [1, 9]}",
            9,
            "loss.gamma: expected at most 5.0, got 9.0",
        ),
    ],
)
def test_an_invalid_value_is_found_by_the_covering_recipes(tmp_path, added, line, message):
    space = space_of(tmp_path, HEAD + added + "\n")
    with pytest.raises(RecipeError) as caught:
        list(covering_recipes(space))
    lines = [text for text in str(caught.value).splitlines() if message in text]
    assert lines, str(caught.value)
    assert lines[0].startswith(f"{tmp_path / 'space.yaml'}:{line}: ")


@pytest.mark.parametrize(
    "transforms", ["{choice: [[], [{transform: darker}]]}", "[{transform: darker, weight: {float: [1, 2]}}]"]
)
def test_tta_transforms_cannot_be_searched(tmp_path, transforms):
    with pytest.raises(RecipeError, match=r"space\.yaml:5: tta_transforms: expected plain values, got a domain"):
        space_of(tmp_path, HEAD + f"tta_transforms: {transforms}\n")
    space_of(tmp_path, HEAD + "tta_transforms: [{transform: darker}]\n")
