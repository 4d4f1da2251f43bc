"""Sampling, matching and covering recipes of a search space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.config.recipe import parse_recipe
from bloodauto.config.shipped import shipped_folder
from bloodauto.config.space import (
    Choice,
    NotInSpace,
    SearchSpace,
    covering_recipes,
    load_space,
    parameters_of,
    recipe_from_parameters,
    sample,
)
from bloodauto.workflows.planning import load_checked_space

SHIPPED = {path.stem: load_space(path) for path in sorted(shipped_folder("search_spaces").glob("*.yaml"))}

BASE = """\
backbone: {name: mobilenet_0.25}
head: {dropout: {float: [0.0, 0.5]}}
loss:
  choice:
    - {name: cross_entropy, label_smoothing: {float: [0.0, 0.1]}}
    - {name: focal, gamma: {int: [1, 3]}}
    - {name: focal, gamma: {float: [3.5, 4.5]}, label_smoothing: 0.1}
augmentation:
  rand_augment: {choice: [null, {num_ops: {int: [1, 7], step: 3}, magnitude: 0.5}]}
stages:
  - epochs: 2
    unfreeze:
      choice:
        - none
        - {blocks: {int: [1, 4]}}
        - choice:
            - {layers: {int: [1, 9]}}
            - all
    optimizer: {learning_rate: {float: [1e-5, 1e-2], log: true}}
"""


def space_of(folder: Path, text: str) -> SearchSpace:
    path = folder / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return load_space(path)


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> SearchSpace:
    return space_of(tmp_path_factory.mktemp("space"), BASE)


def draw(space: SearchSpace, seed: int):
    """A random recipe, and the parameters that Optuna suggested for it."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    return sample(space, trial), trial.params


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_spaces_pass_every_check(name):
    space = load_checked_space(shipped_folder("search_spaces") / f"{name}.yaml")
    assert space.name == name


@pytest.mark.parametrize("name", SHIPPED)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_parameters_of_a_sampled_recipe_are_those_it_was_sampled_with(name, seed):
    recipe, parameters = draw(SHIPPED[name], seed)
    assert parameters_of(SHIPPED[name], recipe) == parameters
    assert recipe_from_parameters(SHIPPED[name], parameters) == recipe


@given(seed=st.integers(0, 2**32 - 1))
def test_the_same_holds_for_nested_choices_and_members_of_one_name(base, seed):
    recipe, parameters = draw(base, seed)
    matched = parameters_of(base, recipe)
    assert matched == parameters
    assert {key: type(value) for key, value in matched.items()} == {k: type(v) for k, v in parameters.items()}
    assert recipe_from_parameters(base, matched).id == recipe.id


def test_members_that_differ_in_omitted_fields_are_matched(tmp_path):
    """The first member fits as far as it goes, and would leave ``kinds`` at its default."""
    members = "{choice: [all, {blocks: {int: [1, 4]}}, {blocks: {int: [1, 4]}, kinds: [conv]}]}"
    space = space_of(
        tmp_path, BASE[: BASE.index("    unfreeze")] + f"    unfreeze: {members}\n" + BASE[BASE.index("    opt") :]
    )
    by_path = {domain.path: domain.parameter for domain in space.domains()}
    unfreeze = next(domain for domain in space.domains() if domain.parameter == "unfreeze")
    assert isinstance(unfreeze, Choice)
    for label in unfreeze.labels:
        parameters: dict[str, Any] = {
            by_path.get(f"{unfreeze.path}[{label}].blocks", "none"): 2,
            "dropout": 0.25,
            "loss": "cross_entropy",
            by_path["loss[cross_entropy].label_smoothing"]: 0.05,
            "randaugment": None,
            unfreeze.parameter: label,
            "learning_rate": 1e-3,
        }
        matched = parameters_of(space, recipe_from_parameters(space, parameters))
        assert matched == {name: value for name, value in parameters.items() if name in matched}
        assert matched[unfreeze.parameter] == label


@given(seed=st.integers(0, 2**32 - 1))
def test_inactive_domains_are_not_sampled(base, seed):
    recipe, parameters = draw(base, seed)
    gammas = [key for key in parameters if key.startswith("loss_gamma")]
    assert len(gammas) == (recipe.loss.name == "focal")
    smoothings = [key for key in parameters if key.startswith("label_smoothing")]
    assert len(smoothings) == (recipe.loss.name == "cross_entropy")
    augmented = recipe.augmentation.rand_augment is not None
    assert any("num_ops" in key for key in parameters) == augmented


def test_two_members_of_one_name_have_labels_and_parameters_of_their_own(base):
    loss = next(domain for domain in base.domains() if domain.parameter == "loss")
    assert loss.labels[:2] == ("cross_entropy", "focal")
    assert len(set(loss.labels)) == 3
    names = [domain.parameter for domain in base.domains()]
    assert len(set(names)) == len(names)


def test_a_seed_gives_the_same_suggestions_again(base):
    def recipes(seed: int) -> list[str]:
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=3))
        ids = []
        for _ in range(8):
            trial = study.ask()
            recipe = sample(base, trial)
            study.tell(trial, recipe.head.dropout)
            ids.append(recipe.id)
        return ids

    assert recipes(1) == recipes(1)
    assert recipes(1) != recipes(2)


@pytest.mark.parametrize("name", SHIPPED)
def test_covering_recipes_reach_every_member_and_both_ends(name):
    assert_all_values_covered(SHIPPED[name])


def test_covering_recipes_reach_nested_choices(base):
    assert_all_values_covered(base)


def assert_all_values_covered(space: SearchSpace) -> None:
    seen: dict[str, set] = {}
    recipes = list(covering_recipes(space))
    for recipe in recipes:
        for parameter, value in parameters_of(space, recipe).items():
            seen.setdefault(parameter, set()).add(value)
    for domain in space.domains():
        expected = set(domain.labels) if isinstance(domain, Choice) else {domain.low, domain.high}
        assert expected <= seen[domain.parameter], domain.parameter
    assert len({recipe.id for recipe in recipes}) == len(recipes)
    assert len(recipes) <= sum(len(d.labels) if isinstance(d, Choice) else 2 for d in space.domains())


def test_a_space_without_domains_has_one_covering_recipe(tmp_path):
    text = "backbone: {name: mobilenet_0.25}\nstages:\n  - epochs: 1\n    optimizer: {learning_rate: 0.001}\n"
    space = space_of(tmp_path, text)
    assert [recipe.backbone.name for recipe in covering_recipes(space)] == ["mobilenet_0.25"]
    assert parameters_of(space, next(iter(covering_recipes(space)))) == {}


def test_name_and_source_are_ignored_in_matching(base):
    recipe, parameters = draw(base, 5)
    assert parameters_of(base, recipe.model_copy(update={"name": "other"})) == parameters


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 7}, "batch_size: the space has 64, the recipe 7"),
        (
            {"backbone": {"name": "mobilenet_0.5"}},
            "backbone.name: the space has 'mobilenet_0.25', the recipe 'mobilenet_0.5'",
        ),
        ({"head": {"dropout": 0.75}}, "head.dropout: the space has 0 to 0.5, the recipe 0.75"),
        ({"head": {"pooling": "max", "dropout": 0.1}}, "head.pooling: the space has 'avg', the recipe 'max'"),
        ({"loss": {"name": "focal", "gamma": 3.2}}, "loss.gamma: the space has a whole number, the recipe 3.2"),
        (
            {"augmentation": {"rand_augment": {"num_ops": 2, "magnitude": 0.5}}},
            "augmentation.rand_augment.num_ops: the space has steps of 3 from 1, the recipe 2",
        ),
        (
            {"augmentation": {"rand_augment": {"num_ops": 1, "magnitude": 0.6}}},
            "augmentation.rand_augment.magnitude: the space has 0.5, the recipe 0.6",
        ),
        (
            {"stages": [{"epochs": 2, "optimizer": {"learning_rate": 1e-3}}] * 2},
            "stages: the space has 1 items, the recipe 2",
        ),
        (
            {
                "stages": [
                    {"epochs": 2, "unfreeze": {"blocks": 2, "kinds": ["conv"]}, "optimizer": {"learning_rate": 1e-3}}
                ]
            },
            "stages.0.unfreeze.kinds: the space has [], the recipe ['conv']",
        ),
    ],
)
def test_why_a_recipe_is_not_in_a_space(base, change, message):
    plain = draw(base, 0)[0].model_dump(mode="json")
    recipe = parse_recipe({**plain, **change}, origin="x")
    with pytest.raises(NotInSpace) as caught:
        parameters_of(base, recipe)
    assert str(caught.value) == message


def test_a_choice_of_plain_values_lists_them(tmp_path):
    text = BASE.replace("{name: mobilenet_0.25}", "{name: {choice: [mobilenet_0.25, mobilenet_0.5]}}")
    space = space_of(tmp_path, text)
    recipe = draw(space, 0)[0]
    other = recipe.model_copy(update={"backbone": recipe.backbone.model_copy(update={"name": "densenet121"})})
    with pytest.raises(
        NotInSpace, match=r"backbone.name: the space has one of \['mobilenet_0.25', 'mobilenet_0.5'\], the recipe 'den"
    ):
        parameters_of(space, other)


def test_a_missing_value_is_named(base):
    with pytest.raises(KeyError, match=r"dropout"):
        recipe_from_parameters(base, {})
