"""Stages, loss and imbalance: what the grammar accepts and refuses, with which messages, and as domains of a space."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloodauto.config.recipe import EarlyStopping, Recipe, parse_recipe
from bloodauto.config.space import covering_recipes, load_space
from bloodauto.errors import RecipeError


def recipe_with(stage: dict | None = None, **fields: object) -> Recipe:
    first = {"epochs": 2, "optimizer": {"learning_rate": 1e-3}, **(stage or {})}
    return parse_recipe({"backbone": {"name": "mobilenet_0.25"}, "stages": [first], **fields}, origin="recipe")


@pytest.mark.parametrize(
    "loss",
    [
        {"label_smoothing": 0.1, "class_weights": "balanced"},
        {"name": "focal", "gamma": 2.0, "label_smoothing": 0.1, "class_weights": "effective_number"},
        {"name": "focal", "gamma": 2.0, "alpha": 0.25, "class_weights": "balanced"},
        {"name": "focal", "gamma": 0.0, "alpha": [0.5, 1.0, 2.0]},
    ],
)
def test_losses_combine(loss):
    assert recipe_with(loss=loss).loss.model_dump(exclude_defaults=True, mode="json") == loss


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"name": "focal"}, "focal loss needs gamma"),
        ({"alpha": 0.25}, "alpha belongs to the focal loss, not to cross_entropy"),
        ({"name": "focal", "gamma": 2, "alpha": [1, 2], "class_weights": "balanced"}, "leave one of the two out"),
        ({"name": "focal", "gamma": 2, "alpha": [1, 0]}, "loss.alpha.1: expected"),
        ({"name": "focl", "gamma": 2}, "did you mean 'focal'"),
        ({"class_weight": "balanced"}, "did you mean 'class_weights'"),
    ],
)
def test_invalid_losses(loss, message):
    with pytest.raises(RecipeError, match=message):
        recipe_with(loss=loss)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"epochs": 0}, "stages.0.epochs: expected"),
        ({"patience_epochs": 3}, "stages.0.patience_epochs: no such field"),
        ({"early_stoping": {"patience_epochs": 3}}, "did you mean 'early_stopping'"),
        ({"early_stopping": {}}, "stages.0.early_stopping.patience_epochs: missing"),
        ({"early_stopping": {"metric": "acuracy", "patience_epochs": 3}}, "did you mean 'accuracy'"),
        ({"early_stopping": {"patience_epochs": 0}}, "early_stopping.patience_epochs: expected"),
        ({"layer_decay": 0.0}, "stages.0.layer_decay: expected"),
        ({"layer_decay": 1.1}, "stages.0.layer_decay: expected"),
        ({"weight_averaging": "emma"}, "did you mean 'ema'"),
        ({"restore_best": "yes"}, "stages.0.restore_best: expected"),
        ({"schedule": {"name": "step"}}, "the schedule step needs steps"),
        (
            {"schedule": {"name": "plateau", "metric": "loss", "factor": 0.5}},
            "the schedule plateau needs patience_epochs",
        ),
        ({"schedule": {"name": "cosine", "steps": 2}}, "steps belongs to the schedule step, not to cosine"),
        ({"schedule": {"name": "constant", "factor": 0.1}}, "factor belongs to the schedule plateau, not to constant"),
        (
            {"optimizer": {"name": "adam", "learning_rate": 1e-3, "momentum": 0.9}},
            "momentum belongs to sgd and rmsprop",
        ),
        ({"optimizer": {"name": "rms", "learning_rate": 1e-3}}, "optimizer.name: expected"),
        ({"optimizer": {"name": "sgd", "learning_rate": 1e-3, "momentum": 1.0}}, "optimizer.momentum: expected"),
    ],
)
def test_invalid_stages(stage, message):
    with pytest.raises(RecipeError, match=message):
        recipe_with(stage)


def test_a_recipe_needs_stages_and_a_stage_epochs():
    with pytest.raises(RecipeError, match="stages"):
        parse_recipe({"backbone": {"name": "mobilenet_0.25"}, "stages": []}, origin="recipe")
    with pytest.raises(RecipeError, match=r"stages\.0\.epochs: missing"):
        parse_recipe(
            {"backbone": {"name": "mobilenet_0.25"}, "stages": [{"optimizer": {"learning_rate": 1e-3}}]},
            origin="recipe",
        )


@pytest.mark.parametrize(
    ("imbalance", "message"),
    [
        ({"sampling": "oversampling"}, "did you mean 'oversample'"),
        ({"samplng": "smote"}, "did you mean 'sampling'"),
        ({"sampling": "smote", "synthesise": {}}, "synthesise belongs to sampling: synthesise, not to sampling: smote"),
    ],
)
def test_invalid_imbalance(imbalance, message):
    with pytest.raises(RecipeError, match=message):
        recipe_with(imbalance=imbalance)


def test_defaults_are_off():
    recipe = recipe_with()
    stage = recipe.stages[0]
    assert (stage.layer_decay, stage.early_stopping, stage.weight_averaging) == (1.0, None, "none")
    assert stage.restore_best
    assert recipe.imbalance.sampling == "none"
    assert EarlyStopping(patience_epochs=3).metric == "objective"


def test_every_field_may_be_a_domain(tmp_path: Path):
    path = tmp_path / "space.yaml"
    path.write_text(
        """\
backbone: {name: mobilenet_0.25}
loss:
  choice:
    - {name: focal, gamma: {float: [0.5, 3.0]}, alpha: {choice: [null, 0.25, [1.0, 2.0]]}}
    - {name: cross_entropy, class_weights: {choice: [none, balanced]}}
imbalance: {sampling: {choice: [none, oversample, undersample, smote, borderline_smote, synthesise]}}
stages:
  - epochs: {int: [1, 3]}
    layer_decay: {float: [0.3, 1.0]}
    restore_best: {choice: [true, false]}
    weight_averaging: {choice: [none, ema, swa]}
    early_stopping: {choice: [null, {metric: accuracy, patience_epochs: {int: [2, 5]}}]}
    optimizer:
      choice:
        - {name: rmsprop, learning_rate: 1.0e-3, momentum: {float: [0.0, 0.9]}}
        - {name: lion, learning_rate: 1.0e-4}
    schedule:
      choice:
        - {name: {choice: [cosine, exponential, constant]}, warmup_fraction: {float: [0.0, 0.2]}}
        - {name: step, steps: {int: [1, 3]}}
        - {name: plateau, metric: {choice: [loss, objective]}, factor: {float: [0.1, 0.5]}, patience_epochs: 2}
""",
        encoding="utf-8",
    )
    recipes = list(covering_recipes(load_space(path)))
    assert {recipe.imbalance.sampling for recipe in recipes} == {
        "none", "oversample", "undersample", "smote", "borderline_smote", "synthesise"
    }  # fmt: skip
    stages = [recipe.stages[0] for recipe in recipes]
    assert {stage.weight_averaging for stage in stages} == {"none", "ema", "swa"}
    assert {stage.schedule.name for stage in stages} == {"cosine", "exponential", "constant", "step", "plateau"}
    assert {stage.early_stopping is None for stage in stages} == {True, False}
    assert {recipe.loss.alpha for recipe in recipes} == {None, 0.25, (1.0, 2.0)}
