"""Recipes' augmentation: what each published system says, what it comes to, and that it always gives images."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from bloodauto.config.recipe import (
    OPERATION_SETS,
    OPERATION_SPECS,
    Augmentation,
    Recipe,
    load_recipe,
    parse_recipe,
)
from bloodauto.config.space import covering_recipes, load_space, parameters_of, recipe_from_parameters
from bloodauto.errors import RecipeError
from bloodauto.training.augmentation import check_augmentation, policy_of
from bloodauto.training.augmentation_preview import augmentation_preview
from bloodauto.training.imbalance import TrainingSet, one_hot
from bloodauto.training.input_pipeline import stage_pipeline
from bloodauto.transforms import Policy
from tests.locations import ROOT

TRIALS = ROOT / "trials"


def block(text: str) -> Augmentation:
    return Augmentation.model_validate(YAML(typ="safe").load(text))


def chains(augmentation: Augmentation, count: int = 3000) -> list[list[str]]:
    drawn = policy_of(augmentation).draw(count, 24, 24, np.random.default_rng(0))
    return [[step.operation for step in chain] for chain in drawn]


def recipe_with(**fields: object) -> Recipe:
    value = {
        "backbone": {"name": "own_cnn", "weights": "none"},
        "stages": [{"epochs": 1, "optimizer": {"learning_rate": 0.1}}],
        **fields,
    }
    return parse_recipe(value, origin="test")


HYPERBEE = """
orientation: false
fraction: 0.8
steps:
  - rand_augment: {num_ops: 3, magnitude: 0.5}
  - {operation: flip_horizontal, rate: 0.5}
"""
YNWA = """
orientation: false
steps:
  - {operation: flip_horizontal, rate: 0.5}
  - {operation: rotate, range_degrees: [-36, 36]}
  - {operation: brightness, range_fraction: [-0.2, 0.2]}
  - {operation: translate_x, range_fraction: [-0.1, 0.1]}
  - {operation: translate_y, range_fraction: [-0.1, 0.1]}
  - {operation: zoom, range_factor: [0.833, 1.25]}
  - rand_augment: {num_ops: 3, magnitude: 0.5}
  - {operation: cutout, range_fraction: [0.1, 0.3]}
"""
EXORCISTS_A = """
orientation: false
steps:
  - one_of:
      - {operation: cutout, range_fraction: [0.2, 0.4]}
      - rand_augment: {num_ops: 3, magnitude: 0.5}
      - aug_mix: {}
      - {operation: grid_mask, range_fraction: [0.3, 0.5]}
    weights: [1, 2, 1, 1]
"""
GANGSTARS = """
orientation: false
steps:
  - sequence:
      - aug_mix: {width: 3, depth: 3, magnitude: 0.3}
      - rand_augment: {num_ops: 4, magnitude: 0.5}
    rate: 0.9
mixing: {name: both, alpha: 0.4, rate: 0.5}
"""


def test_a_fraction_of_the_images_gets_the_whole_block():
    drawn = chains(block(HYPERBEE))
    untouched = np.mean([not chain for chain in drawn])
    assert untouched == pytest.approx(0.2, abs=0.03)
    touched = [chain for chain in drawn if chain]
    assert {len(chain) for chain in touched} == {3, 4}
    assert np.mean(["flip_horizontal" in chain for chain in touched]) == pytest.approx(0.5, abs=0.03)


def test_steps_are_taken_in_their_order():
    for chain in chains(block(YNWA), 200):
        base = ["rotate", "brightness", "translate_x", "translate_y", "zoom"]
        flip = 1 if chain[0] == "flip_horizontal" else 0
        assert chain[flip : flip + 5] == base
        assert len(chain) == flip + 5 + 3 + 1
        assert chain[-1] == "cutout"


def test_one_of_draws_by_weight():
    drawn = chains(block(EXORCISTS_A))
    fractions = [
        np.mean([chain == ["cutout"] for chain in drawn]),
        np.mean([len(chain) == 3 for chain in drawn]),
        np.mean([chain == ["augmix"] for chain in drawn]),
        np.mean([chain == ["grid_mask"] for chain in drawn]),
    ]
    np.testing.assert_allclose(fractions, [0.2, 0.4, 0.2, 0.2], atol=0.03)


def test_a_sequence_has_one_rate_for_all_of_it():
    drawn = chains(block(GANGSTARS))
    assert {len(chain) for chain in drawn} == {0, 5}
    assert np.mean([not chain for chain in drawn]) == pytest.approx(0.1, abs=0.02)
    assert all(chain[0] == "augmix" for chain in drawn if chain)


def test_the_named_parts_come_before_the_steps():
    drawn = chains(
        block("{framing: 0.5, stain_jitter: 0.5, rand_augment: {num_ops: 1, magnitude: 0.5, operations: [hue]}, "
              "steps: [{operation: noise, magnitude: 0.2}]}"), 50,
    )  # fmt: skip
    for chain in drawn:
        # Stain jitter first, so that framing and the moves that follow become one warp.
        assert chain[0] == "stain_jitter"
        assert chain[1:-4] in ([], ["symmetry"])
        assert chain[-4:] == ["zoom", "translate", "hue", "noise"]


@pytest.mark.parametrize("path", sorted(TRIALS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_declared_recipe_augments_images(path):
    recipe = load_recipe(path)
    check_augmentation(recipe)
    images = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), dtype=np.uint8)
    for stage in range(len(recipe.stages)):
        changed = augmentation_preview(recipe, stage, "online")(images, np.random.default_rng(1))
        assert changed.dtype == np.uint8
        assert changed.shape == images.shape
        assert (changed != images).any()


# ---- any valid block


def _operation_steps() -> st.SearchStrategy[dict]:
    def of(name: str) -> st.SearchStrategy[dict]:
        allowed, rate = OPERATION_SPECS[name].range, st.floats(0, 1)
        if allowed is None:
            return st.fixed_dictionaries({"operation": st.just(name), "rate": rate})
        ends = st.lists(st.floats(allowed.lowest, allowed.highest), min_size=2, max_size=2).map(sorted)
        return st.one_of(
            st.fixed_dictionaries({"operation": st.just(name), "magnitude": st.floats(0, 1), "rate": rate}),
            st.fixed_dictionaries({"operation": st.just(name), f"range_{allowed.unit}": ends, "rate": rate}),
        )

    return st.sampled_from(list(OPERATION_SPECS)).flatmap(of)


_sets = st.one_of(
    st.sampled_from(list(OPERATION_SETS)), st.lists(st.sampled_from(list(OPERATION_SPECS)), min_size=1, max_size=3)
)
_rand_augment = st.fixed_dictionaries(
    {"num_ops": st.integers(1, 4), "magnitude": st.floats(0, 1)},
    optional={"rate": st.floats(0, 1), "magnitude_std": st.floats(0, 1), "operations": _sets},
)
_simple_steps = st.one_of(
    _operation_steps(),
    st.fixed_dictionaries({"rand_augment": _rand_augment}),
    st.fixed_dictionaries({"trivial_augment": st.fixed_dictionaries({}, optional={"operations": _sets})}),
    st.fixed_dictionaries(
        {
            "aug_mix": st.fixed_dictionaries(
                {}, optional={"width": st.integers(1, 3), "depth": st.integers(1, 3), "operations": _sets}
            )
        }
    ),
)
_steps = st.recursive(
    _simple_steps,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"one_of": st.lists(inner, min_size=1, max_size=3), "rate": st.floats(0, 1)}),
        st.fixed_dictionaries({"sequence": st.lists(inner, min_size=1, max_size=3), "rate": st.floats(0, 1)}),
    ),
    max_leaves=4,
)
_mixing = st.fixed_dictionaries(
    {"name": st.sampled_from(["mixup", "cutmix", "both"]), "alpha": st.floats(0.05, 10), "rate": st.floats(0, 1)}
)
_blocks = st.fixed_dictionaries(
    {},
    optional={
        "fraction": st.floats(0, 1),
        "orientation": st.booleans(),
        "framing": st.floats(0, 1),
        "stain_jitter": st.floats(0, 1),
        "rand_augment": _rand_augment,
        "steps": st.lists(_steps, max_size=3),
        "mixing": _mixing,
        "offline": st.fixed_dictionaries(
            {"fraction": st.floats(0.1, 1.0), "steps": st.lists(_steps, min_size=1, max_size=2)},
            optional={"mixing": _mixing, "keep_originals": st.booleans()},
        ),
    },
)


@given(
    value=_blocks,
    size=st.one_of(st.just((1, 1)), st.tuples(st.integers(1, 30), st.integers(1, 30)), st.just((150, 7))),
    constant=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=50)
def test_any_block_gives_the_same_images_from_the_same_seed_however_many_threads(value, size, constant, seed):
    recipe = recipe_with(augmentation=value, batch_size=4)
    images = np.random.default_rng(seed).integers(0, 256, (9, *size, 3), dtype=np.uint8)
    if constant:
        images[:] = images[0, 0, 0]
    before = images.copy()
    train_set = TrainingSet(images, one_hot(np.arange(9) % 3, 3), np.arange(9))

    def epoch(threads: int) -> list:
        pipeline = stage_pipeline(recipe, 0, train_set, images_per_epoch=9, seed=seed, num_threads=threads)
        return [(np.array(batch.images), batch.targets, batch.weights) for batch in pipeline.epoch(1)]

    alone, together = epoch(0), epoch(3)
    assert len(alone) == 2
    for alone_batch, other in zip(alone, together, strict=True):
        assert alone_batch[0].dtype == np.uint8
        assert alone_batch[0].shape == (4, *size, 3)
        np.testing.assert_allclose(alone_batch[1].sum(axis=1), 1.0, atol=1e-5)
        for left, right in zip(alone_batch, other, strict=True):
            np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(images, before)
    # What is written is what is read again.
    written = YAML(typ="safe").load(recipe.to_yaml())
    assert written.pop("format_version") == 1
    assert parse_recipe(written, origin="again").id == recipe.id


# ---- the reference engine, as far as it can be told without it


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, r"augmentation\.orientation: keras-cv has no right-angle turns; write orientation: false"),
        ({"orientation": False, "framing": 0.2}, r"augmentation\.framing: keras-cv has no framing"),
        (
            {"orientation": False, "rand_augment": {"num_ops": 1, "magnitude": 0.5, "operations": "cells"}},
            r"augmentation\.rand_augment\.operations: keras-cv has no RandAugment of other operations",
        ),
        (
            {"orientation": False, "steps": [{"one_of": [{"operation": "noise", "magnitude": 0.5}]}]},
            r"augmentation\.steps\.0\.one_of\.0: keras-cv has no 'noise' with a magnitude; it has flip_horizontal",
        ),
        (
            {"orientation": False, "steps": [{"operation": "hue", "range_degrees": [0, 10]}]},
            "no 'hue' with a range; it has rotate",
        ),
        ({"orientation": False, "steps": [{"trivial_augment": {}}]}, "no TrivialAugment"),
        ({"orientation": False, "offline": {"fraction": 0.5, "steps": [{"trivial_augment": {}}]}}, r"offline\.steps\.0"),
    ],
)  # fmt: skip
def test_what_keras_cv_lacks_is_told_before_training(value, message):
    with pytest.raises(RecipeError, match=message):
        check_augmentation(recipe_with(augmentation={"engine": "keras_cv", **value}))
    stage = {"epochs": 1, "optimizer": {"learning_rate": 0.1}, "augmentation": {"engine": "keras_cv", **value}}
    with pytest.raises(RecipeError, match=r"stages\.0\.augmentation"):
        check_augmentation(recipe_with(stages=[stage]))


@pytest.mark.skipif(importlib.util.find_spec("keras_cv") is not None, reason="keras-cv is installed")
def test_where_keras_cv_is_missing_it_is_said_how_to_get_it():
    with pytest.raises(RecipeError, match=r"pip install 'bloodauto\[keras-cv\]'"):
        check_augmentation(recipe_with(augmentation={"engine": "keras_cv", "orientation": False}))


def test_our_own_policy_can_be_had_of_any_block():
    assert isinstance(policy_of(block("{engine: keras_cv, orientation: false}")), Policy)


# ---- mistakes in recipes


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"operation": "rotat", "magnitude": 0.5}], "no such operation, got 'rotat'; did you mean 'rotate'?"),
        ([{"operation": "rotate"}], "steps.0: rotate needs either magnitude or range_degrees, got neither"),
        ([{"operation": "rotate", "magnitude": 1, "range_degrees": [0, 1]}], "got both"),
        ([{"operation": "zoom", "range_octaves": [0, 1]}], "the range of zoom is range_factor, not range_octaves"),
        ([{"operation": "zoom", "range_factor": [2, 1]}], "within 0.125 to 8, got [2.0, 1.0]"),
        ([{"operation": "invert", "magnitude": 1}], "invert has one effect and no strength; leave magnitude out"),
        ([{"rand_augmnet": {"num_ops": 1, "magnitude": 1}}], "rand_augmnet: no such field; did you mean 'rand_augment'?"),
        ([{"one_of": [{"aug_mix": {"widht": 2}}]}], "steps.0.one_of.0.aug_mix.widht: no such field; did you mean 'width'?"),
        ([{"one_of": [{"aug_mix": {}}], "weights": [1, 2]}], "weights: expected 1 numbers"),
        ([{"aug_mix": {}, "operation": "hue"}], "a step is one thing, got aug_mix and operation"),
        ([{"rand_augment": {"num_ops": 1, "magnitude": 1, "operations": "cell"}}], "got 'cell'; did you mean 'cells'?"),
        ([{"rand_augment": {"num_ops": 1, "magnitude": 1, "operations": []}}], "expected at least one operation"),
        (["rotate"], "steps.0: expected a group of fields, got 'rotate'"),
    ],
)  # fmt: skip
def test_mistakes_are_reported_with_their_path_and_the_nearest_name(steps, message):
    with pytest.raises(RecipeError) as caught:
        recipe_with(augmentation={"steps": steps})
    assert message in str(caught.value)
    assert "augmentation.steps.0" in str(caught.value)


# ---- spaces


def test_steps_ranges_mixing_and_stages_may_hold_domains(tmp_path):
    (tmp_path / "wide.yaml").write_text(
        """
backbone: {name: own_cnn, weights: none}
augmentation:
  orientation: false
  fraction: {float: [0.5, 1.0]}
  steps:
    choice:
      - []
      - - {operation: rotate, range_degrees: [{float: [-90, 0]}, {float: [0, 90]}]}
        - choice:
            - {operation: cutout, magnitude: {float: [0.1, 0.9]}, rate: 0.5}
            - one_of: [{aug_mix: {width: {int: [1, 4]}}}, {operation: invert}]
  mixing: {choice: [null, {name: mixup, alpha: {float: [0.1, 2.0], log: true}}]}
stages:
  - epochs: 1
    optimizer: {learning_rate: 0.01}
    augmentation: {offline: {fraction: {float: [0.1, 0.9]}, steps: [{operation: noise, magnitude: 0.5}]}}
"""
    )
    space = load_space(tmp_path / "wide.yaml")
    recipes = list(covering_recipes(space))
    assert len(recipes) > 10
    for recipe in recipes:
        check_augmentation(recipe)
        assert recipe_from_parameters(space, parameters_of(space, recipe)).id == recipe.id
