"""Local perturbation: close to its parent, inside the space, and able to reach every value."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.config.recipe import load_recipe
from bloodauto.config.shipped import shipped_folder
from bloodauto.config.space import load_space, local_perturbation, parameters_of, recipe_from_parameters, sample

SPACES = {path.stem: load_space(path) for path in sorted(shipped_folder("search_spaces").glob("*.yaml"))}


optuna.logging.set_verbosity(optuna.logging.ERROR)


def draw(space, seed):
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    return sample(space, trial), trial.params


@given(name=st.sampled_from(sorted(SPACES)), seed=st.integers(0, 10_000))
def test_a_local_perturbation_is_a_different_recipe_of_the_space_close_to_its_parent(name, seed) -> None:
    space = SPACES[name]
    _, parent = draw(space, seed)
    recipe, parameters = local_perturbation(space, parent, np.random.default_rng(seed))
    assert recipe_from_parameters(space, parameters).id == recipe.id
    assert recipe_from_parameters(space, parameters_of(space, recipe)).id == recipe.id
    moved = [key for key in parent if key in parameters and parameters[key] != parent[key]]
    assert moved
    again, _ = local_perturbation(space, parent, np.random.default_rng(seed))
    assert again.id == recipe.id


def test_few_values_change_and_numbers_change_little() -> None:
    space = SPACES["small"]
    parent = parameters_of(space, load_recipe(shipped_folder("trials") / "small_mobilenet_025.yaml"))
    rng = np.random.default_rng(0)
    changes, steps = [], []
    for _ in range(400):
        _, parameters = local_perturbation(space, parent, rng)
        shared = parameters.keys() & parent.keys()
        changes.append(sum(parameters[key] != parent[key] for key in shared))
        dropout = parameters["dropout"]
        if dropout != parent["dropout"]:
            steps.append(abs(float(dropout) - float(parent["dropout"])) / 0.5)
    assert 2.0 < np.mean(changes) < 3.2
    assert min(changes) == 1
    assert 0.08 < np.mean(steps) < 0.2


def test_every_value_of_the_space_can_be_reached() -> None:
    """From any parent, in some steps: nothing is cut off from the initial configuration."""
    space = SPACES["tiny"]
    _, parameters = draw(space, 1)
    rng = np.random.default_rng(1)
    seen: dict[str, set] = {}
    for _ in range(600):
        _, parameters = local_perturbation(space, parameters, rng)
        for key, value in parameters.items():
            seen.setdefault(key, set()).add(value)
    for domain in space.domains():
        values = seen[domain.parameter]
        if hasattr(domain, "labels"):
            assert values == set(domain.labels)
        elif domain.low < domain.high:
            middle = (domain.low * domain.high) ** 0.5 if domain.log else (domain.low + domain.high) / 2
            assert min(values) < middle < max(values)


def test_a_space_without_freedom_gives_its_only_recipe(tmp_path) -> None:
    path = tmp_path / "fixed.yaml"
    path.write_text("backbone: {name: mobilenet_0.25}\nstages: [{epochs: 1, optimizer: {learning_rate: 1.0e-3}}]\n")
    recipe, parameters = local_perturbation(load_space(path), {}, np.random.default_rng(0))
    assert parameters == {}
    assert recipe.backbone.name == "mobilenet_0.25"


@pytest.mark.parametrize("value", [1, 7])
def test_a_whole_number_at_its_end_moves_inside(tmp_path, value) -> None:
    path = tmp_path / "steps.yaml"
    path.write_text(
        "backbone: {name: mobilenet_0.25}\nstages: [{epochs: {int: [1, 7], step: 3}, optimizer: {learning_rate: 1.0e-3}}]\n"
    )
    space = load_space(path)
    for seed in range(50):
        _, parameters = local_perturbation(space, {"epochs": value}, np.random.default_rng(seed))
        assert parameters["epochs"] in {1, 4, 7} - {value}
