"""Recipes: reading, writing, ids, variants, and what messages say about mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bloodauto.config.recipe import (
    Augmentation,
    Head,
    LastBlocks,
    Loss,
    Optimizer,
    RandAugmentSettings,
    Recipe,
    WeightedTransform,
    load_recipe,
    tta_weights,
    with_overrides,
)
from bloodauto.config.recipe import parse_recipe as parse
from bloodauto.config.shipped import shipped_folder
from bloodauto.config.space import load_space
from bloodauto.errors import RecipeError

SHIPPED = sorted(shipped_folder("trials").glob("*.yaml"))

MINIMAL = """\
backbone: {name: mobilenet_0.25}
stages:
  - epochs: 1
    optimizer:
      learning_rate: 1e-3
"""


def loaded(folder: Path, text: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_and_survives_being_written(path, tmp_path):
    recipe = load_recipe(path)
    again = loaded(tmp_path, recipe.to_yaml())
    assert again == recipe
    assert again.id == recipe.id


@pytest.mark.parametrize("version", ["2", "one", "1.0", "true"])
def test_a_recipe_or_a_space_of_another_format_version_is_refused(version, tmp_path):
    path = tmp_path / "written.yaml"
    path.write_text(f"backbone: {{name: own_cnn, weights: none}}\nformat_version: {version}\nstages: [{{epochs: 1}}]\n")
    for load in (load_recipe, load_space):
        with pytest.raises(RecipeError, match=r"written\.yaml:2: format_version: expected 1, got .* another version"):
            load(path)


def test_shipped_recipes_are_all_different():
    assert len({load_recipe(path).id for path in SHIPPED}) == len(SHIPPED) > 0


def test_defaults_and_totals(tmp_path):
    recipe = loaded(tmp_path, MINIMAL)
    assert recipe.stages[0].optimizer == Optimizer(learning_rate=1e-3)
    assert recipe.stages[0].unfreeze == "all"
    assert (recipe.input.size_px, recipe.batch_size, recipe.total_epochs) == (96, 64, 1)


def reordered(value):
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_id_does_not_depend_on_order_name_or_source(path):
    recipe = load_recipe(path)
    plain = recipe.model_dump(mode="json")
    assert parse(reordered(plain), origin="x").id == recipe.id
    renamed = {**plain, "name": "other", "source": {"title": "other", "published": {"accuracy": 0.5}}}
    assert parse(renamed, origin="x").id == recipe.id
    assert parse({**plain, "batch_size": recipe.batch_size + 1}, origin="x").id != recipe.id
    with_tta = {**plain, "tta_transforms": [{"transform": "turn_90"}, {"transform": "darker", "weight": 3}]}
    assert parse(with_tta, origin="x").id == recipe.id


def test_the_id_does_not_depend_on_how_a_number_is_written(tmp_path):
    written = loaded(tmp_path, MINIMAL + "head: {dropout: 0}\n")
    assert written.id == loaded(tmp_path, MINIMAL + "head: {dropout: 0.0}\n").id
    assert written.id != loaded(tmp_path, MINIMAL + "head: {dropout: 0.1}\n").id


@given(
    dropout=st.floats(0, 0.9),
    units=st.lists(st.integers(1, 4096), max_size=3),
    magnitude=st.floats(0, 1),
    operations=st.sampled_from(["cells", "standard"]) | st.lists(st.sampled_from(["rotate", "contrast"]), min_size=1),
    unfreeze=st.sampled_from(["none", "all"])
    | st.builds(dict, blocks=st.integers(1, 32), kinds=st.lists(st.sampled_from(["conv", "dense"]), max_size=2))
    | st.builds(dict, layers=st.integers(1, 2000)),
    rate=st.floats(1e-12, 1),
)
def test_any_recipe_survives_being_written(tmp_path_factory, dropout, units, magnitude, operations, unfreeze, rate):
    value = {
        "backbone": {"name": "mobilenet_0.25"},
        "head": {"dropout": dropout, "dense_units": units},
        "augmentation": {"rand_augment": {"num_ops": 2, "magnitude": magnitude, "operations": operations}},
        "stages": [{"epochs": 3, "unfreeze": unfreeze, "optimizer": {"learning_rate": rate}}],
    }
    recipe = parse(value, origin="x")
    again = loaded(tmp_path_factory.getbasetemp(), recipe.to_yaml())
    assert again == recipe
    assert again.id == recipe.id


def test_a_recipe_does_not_change_after_creation(tmp_path):
    recipe = loaded(tmp_path, MINIMAL)
    with pytest.raises(ValidationError):
        recipe.batch_size = 2
    assert hash(recipe) == hash(loaded(tmp_path, MINIMAL))


@pytest.mark.parametrize(
    ("added", "line", "message"),
    [
        ("haed: {dropout: 0.1}", 6, "haed: no such field; did you mean 'head'?"),
        ("head:\n  dropuot: 0.1", 7, "head.dropuot: no such field; did you mean 'dropout'?"),
        ("head: {xyz: 1}", 6, "valid: activation, dense_dropout, dense_units, dropout"),
        ("head: 3", 6, "head: expected a group of fields, got 3"),
        ("head:\n  dropout: '0.1'", 7, "head.dropout: expected a number, got '0.1'"),
        ("head:\n  dropout: 0.95", 7, "head.dropout: expected at most 0.9, got 0.95"),
        ("head: {dropout: -0.1}", 6, "head.dropout: expected at least 0.0, got -0.1"),
        ("head: {dropout: .nan}", 6, "head.dropout: expected a finite number, got nan"),
        ("head: {dense_units: 5}", 6, "head.dense_units: expected a list, got 5"),
        ("head:\n  dense_units:\n    - 64\n    - 0", 9, "head.dense_units.1: expected at least 1, got 0"),
        ("head: {activation: rellu}", 6, "got 'rellu'; did you mean 'relu'?"),
        ("input: {size_px: 31}", 6, "input.size_px: expected at least 32, got 31"),
        ("batch_size: 2.5", 6, "batch_size: expected a whole number, got 2.5"),
        ("batch_size: true", 6, "batch_size: expected a whole number, got True"),
        ("batch_size:", 6, "batch_size: expected a whole number, got None"),
        ("name: 3", 6, "name: expected text, got 3"),
        ("augmentation: {orientation: on}", 6, "augmentation.orientation: expected true or false, got 'on'"),
        ("augmentation:\n  rand_augment: {num_ops: 1}", 7, "augmentation.rand_augment.magnitude: missing"),
        (
            "augmentation: {rand_augment: {num_ops: 1, magnitude: 0, operations: 3}}",
            6,
            "augmentation.rand_augment.operations: expected text or a list, got 3",
        ),
        (
            "augmentation: {rand_augment: {num_ops: 1, magnitude: 0, operations: [hue, 1]}}",
            6,
            "augmentation.rand_augment.operations.1: expected text, got 1",
        ),
        ("loss: {name: focal}", 6, "loss: focal loss needs gamma"),
        ("loss: {gamma: 1.0}", 6, "loss: gamma belongs to the focal loss, not to cross_entropy"),
        ("loss: {name: focl}", 6, "expected 'cross_entropy' or 'focal', got 'focl'; did you mean 'focal'?"),
        ("source: {notes: x}", 6, "source.title: missing"),
        ("tta_transforms:\n  - {transform: turn_91}", 7, "got 'turn_91'; did you mean 'turn_90'?"),
        (
            "tta_transforms: [{transform: darker, weight: 0}]",
            6,
            "tta_transforms.0.weight: expected more than 0.0, got 0",
        ),
        ("smoke: {stages.0.epochs: 0}", 6, "stages.0.epochs: expected at least 1, got 0"),
        ("smoke:\n  batch_size: 8\n  head.dropuot: 0.1", 8, "head.dropuot: no such field; did you mean 'dropout'?"),
        ("smoke: {stages.1.epochs: 2}", 6, "stages.1: expected the number of one of 1 items, counted from 0, got '1'"),
        ("smoke: {batch_size.x: 2}\nbatch_size: 3", 6, "batch_size.x: expected a group of fields at batch_size, got 3"),
        ("smoke: quick", 6, "smoke: expected new values by dotted path, got 'quick'"),
        ("source: {title: x, published: {a: b}}", 6, "source.published.a: expected a number, got 'b'"),
    ],
)
def test_a_mistake_is_reported_with_its_line(tmp_path, added, line, message):
    with pytest.raises(RecipeError) as caught:
        loaded(tmp_path, MINIMAL + added + "\n")
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'recipe.yaml'}:{line}: ")
    assert message in text
    assert "\n" not in text, "one mistake, one line"
    assert_plain(text)


@pytest.mark.parametrize(
    ("unfreeze", "message"),
    [
        ("non", "stages.0.unfreeze: expected 'none' or 'all', got 'non'; did you mean 'none'?"),
        ("3", "stages.0.unfreeze: expected 'none' or 'all' or a group of fields, got 3"),
        ("[all]", "stages.0.unfreeze: expected 'none' or 'all' or a group of fields, got ['all']"),
        ("{}", "stages.0.unfreeze: expected exactly one of blocks and layers"),
        ("{blocks: 1, layers: 2}", "stages.0.unfreeze: expected exactly one of blocks and layers"),
        ("{block: 1}", "stages.0.unfreeze: expected exactly one of blocks and layers"),
        ("{kinds: [conv]}", "stages.0.unfreeze: expected exactly one of blocks and layers"),
        ("{blocks: 0}", "stages.0.unfreeze.blocks: expected at least 1, got 0"),
        ("{layers: x}", "stages.0.unfreeze.layers: expected a whole number, got 'x'"),
        ("{blocks: 1, kinds: [cnv]}", "stages.0.unfreeze.kinds.0: expected 'conv' or 'dense', got 'cnv'; did you mean"),
        ("{blocks: 1, kinds: conv}", "stages.0.unfreeze.kinds: expected a list, got 'conv'"),
        ("{blocks: 1, kind: conv}", "stages.0.unfreeze.kind: no such field; did you mean 'kinds'?"),
    ],
)
def test_unfreezing_is_explained_for_the_shape_that_was_received(tmp_path, unfreeze, message):
    with pytest.raises(RecipeError) as caught:
        loaded(tmp_path, MINIMAL.replace("  - epochs", f"  - unfreeze: {unfreeze}\n    epochs"))
    assert str(caught.value).startswith(f"{tmp_path / 'recipe.yaml'}:3: {message}")
    assert "\n" not in str(caught.value)
    assert_plain(str(caught.value))


def test_all_mistakes_are_reported_at_once(tmp_path):
    text = (
        "backbone: {nam: x}\nbatch_size: 0\nstages:\n  - epochs: 1\n  - optimizer: {learning_rate: 0}\n    epochs: 1\n"
    )
    with pytest.raises(RecipeError) as caught:
        loaded(tmp_path, text)
    path = tmp_path / "recipe.yaml"
    assert str(caught.value).splitlines() == [
        f"{path}:1: backbone.name: missing; it has no default and must be given",
        f"{path}:1: backbone.nam: no such field; did you mean 'name'?",
        f"{path}:2: batch_size: expected at least 1, got 0",
        f"{path}:4: stages.0.optimizer: missing; it has no default and must be given",
        f"{path}:5: stages.1.optimizer.learning_rate: expected more than 0.0, got 0",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "recipe.yaml: expected a group of fields, got None"),
        ("- a\n", "recipe.yaml: expected a group of fields, got ['a']"),
        ("hello\n", "recipe.yaml: expected a group of fields, got 'hello'"),
        ("{}\n", "backbone: missing"),
        ("backbone: {name: x}\nstages: []\n", "recipe.yaml:2: stages: expected at least 1 of them, got []"),
        ("backbone: {name: x}\nstages: [3]\n", "recipe.yaml:2: stages.0: expected a group of fields, got 3"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, text, message):
    with pytest.raises(RecipeError) as caught:
        loaded(tmp_path, text)
    assert message in str(caught.value)
    assert_plain(str(caught.value))


def test_a_transform_is_named_once(tmp_path):
    with pytest.raises(RecipeError, match="expected each transform once, got identity more often"):
        loaded(tmp_path, MINIMAL + "tta_transforms: [{transform: identity}, {transform: identity, weight: 2}]\n")


def test_tta_weights_sum_to_one():
    transforms = [
        WeightedTransform(transform="identity", weight=2),
        WeightedTransform(transform="turn_180"),
        WeightedTransform(transform="darker"),
    ]
    assert tta_weights(transforms) == {"identity": 0.5, "turn_180": 0.25, "darker": 0.25}
    assert tta_weights(()) == {"identity": 1.0}


def test_a_smoke_variant_overrides_only_the_fields_it_names(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL + "batch_size: 16\nsmoke:\n  head.dropout: 0.5\n  stages.0.epochs: 3\n  batch_size: 4\n")
    recipe, smoke = load_recipe(path), load_recipe(path, smoke=True)
    assert (recipe.batch_size, recipe.head, recipe.total_epochs) == (16, Head(), 1)
    assert (smoke.batch_size, smoke.head, smoke.total_epochs) == (4, Head(dropout=0.5), 3)
    assert smoke.stages[0].optimizer == recipe.stages[0].optimizer
    path.write_text(MINIMAL)
    with pytest.raises(RecipeError, match="expected a group 'smoke'"):
        load_recipe(path, smoke=True)


def test_an_in_domain_variant_is_used_where_there_is_one(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL + "smoke:\n  batch_size: 4\nin_domain:\n  head.dropout: 0.5\n")
    recipe, in_domain, smoke = load_recipe(path), load_recipe(path, in_domain=True), load_recipe(path, smoke=True)
    assert (recipe.head, in_domain.head, smoke.head) == (Head(), Head(dropout=0.5), Head())
    assert (recipe.batch_size, in_domain.batch_size, smoke.batch_size) == (64, 64, 4)
    path.write_text(MINIMAL)
    assert load_recipe(path, in_domain=True) == load_recipe(path)


@pytest.mark.parametrize("group", ["smoke", "in_domain"])
@pytest.mark.parametrize(
    ("value", "message"),
    [(" 3\n", "expected new values by dotted path, got 3"), ("\n  head.dropuot: 0.5\n", "did you mean 'dropout'")],
)
def test_variants_are_checked_even_when_not_requested(tmp_path, group, value, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL + f"{group}:{value}")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert message in str(caught.value)
    assert f"{path}:" in str(caught.value)


def test_overrides_apply_in_their_order_to_a_copy():
    value = {"stages": [{"epochs": 1}], "loss": None}
    overrides = {"stages.1": {"epochs": 2}, "stages.1.epochs": 5, "loss.name": "focal", "head.dense_units": [8]}
    changed = with_overrides(value, overrides, origin="x")
    assert changed == {
        "stages": [{"epochs": 1}, {"epochs": 5}],
        "loss": {"name": "focal"},
        "head": {"dense_units": [8]},
    }
    assert value == {"stages": [{"epochs": 1}], "loss": None}
    assert overrides["stages.1"] == {"epochs": 2}
    with pytest.raises(RecipeError, match=r"x: stages\.3: expected the number of one of 1 items.*or 1 to append one"):
        with_overrides(value, {"stages.3": {}}, origin="x")


def test_long_values_are_shortened_in_messages():
    with pytest.raises(RecipeError) as caught:
        parse({"backbone": {"name": list(range(1000))}, "stages": []}, origin="x")
    assert len(str(caught.value).splitlines()[0]) < 200


def test_defaults_of_the_models():
    assert Head() == Head(pooling="avg", dense_units=(), activation="relu", dropout=0.2)
    assert Loss(name="focal", gamma=0.0).gamma == 0.0
    assert Augmentation(rand_augment=RandAugmentSettings(num_ops=1, magnitude=0.0)).orientation is True
    assert LastBlocks(blocks=1).kinds == ()


def assert_plain(message: str) -> None:
    """The message uses the words of the file, not those of the library that validates it."""
    for word in ("pydantic", "instance of", "Input should", "tuple", "Tuple", "dictionary", "validation", "LastBlocks"):
        assert word not in message, message
