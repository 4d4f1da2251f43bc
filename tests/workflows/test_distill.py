"""One network in place of an ensemble: it is trained on the ensemble's predictions, inside its own budget."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import bloodauto
from bloodauto.cli.main import app
from bloodauto.config.settings import resolve_settings, write_settings
from bloodauto.config.space import covering_recipes, load_space
from bloodauto.data.clean import clean
from bloodauto.data.split import make_splits, write_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.data.write import write_dataset
from bloodauto.ensemble.assemble import assemble
from bloodauto.errors import BudgetError, RunError, UserError
from bloodauto.evaluation.fold_data import prepare_fold
from bloodauto.run.artifacts import LedgerCharge
from bloodauto.run.directory import ExportDirectory, RunDirectory
from bloodauto.training.augmentation import shift_suite_for
from bloodauto.training.trainer import TrainOptions, train
from bloodauto.workflows.datasets import read_dataset
from bloodauto.workflows.distill import find_student, student_recipe
from bloodauto.workflows.planning import run_space_path

#: Every test trains networks.
pytestmark = pytest.mark.slow

SPACE = """
input: {size_px: 32}
backbone: {name: own_cnn, weights: none, blocks: 3, width: {choice: [8, 16]}}
augmentation: {orientation: true}
batch_size: 16
stages:
  - epochs: 6
    optimizer: {name: adam, learning_rate: 5.0e-3}
    schedule: {name: constant}
"""


@dataclass(frozen=True)
class Searched:
    run: RunDirectory


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """What a search of two trainings leaves: a wide network and a narrow one."""
    folder = tmp_path_factory.mktemp("searched")
    write_dataset(synthesize(240, site="lab_a", seed=3, image_size_px=32), folder / "cells.npz")
    run = RunDirectory(folder / "run")
    run.root.mkdir()
    run_space_path(run).write_text(SPACE, encoding="utf-8")
    settings = resolve_settings(
        {"data": str(folder / "cells.npz"), "budget": "30cpu-s", "workers": 1, "space": str(run_space_path(run))}
    )
    write_settings(run, settings)
    dataset = read_dataset(settings.data, None)
    splits = make_splits(dataset, clean(dataset, enabled=False), seed=0)
    write_splits(run.splits.path, dataset, splits)
    space = load_space(run_space_path(run))
    recipes = sorted(
        {recipe.id: recipe for recipe in covering_recipes(space)}.values(),
        key=lambda recipe: -(recipe.backbone.width or 0),
    )
    fold_data = prepare_fold(dataset, splits, shift_suite_for(recipes, seed=0))
    completed = []
    for number, recipe in enumerate(recipes):
        run.trial(number).root.mkdir(parents=True)
        result = train(
            recipe, fold_data, seed=number, options=TrainOptions(), folder=run.trial(number).root,
            report=lambda epoch: None, should_stop=lambda: False,
        )  # fmt: skip
        completed.append((number, result.objective))
    # The teacher is the wide network, whichever is better.
    run.ensemble.write(assemble(run, completed[:1], num_folds=splits.num_folds, metric="shift"))
    return Searched(run)


def test_the_smallest_network_of_the_run_is_the_student_and_is_trained_without_labels(searched: Searched) -> None:
    sizes = {
        number: searched.run.trial(number).result.read().parameters
        for number in range(len(list((searched.run.root / "trials").iterdir())))
    }
    recipe = find_student(searched.run, "smallest")
    assert sizes[min(sizes, key=lambda number: sizes[number])] < max(sizes.values())
    assert recipe.backbone.width == 8
    student = student_recipe(recipe)
    assert (student.loss.name, student.loss.label_smoothing, student.imbalance.sampling) == (
        "cross_entropy",
        0.0,
        "none",
    )
    assert student.backbone == recipe.backbone
    assert find_student(searched.run, "tiny_cnn").backbone.name == "own_cnn"
    with pytest.raises(RunError, match="name a recipe"):
        find_student(RunDirectory(searched.run.root / "nowhere"), "smallest")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--distill smallest --tta", "--tta: expected no --distill"),
        ("--distill smallest --max-members 1", "--max-members: expected no --distill"),
        ("--distill smallest --max-latency-ms 3", "--max-latency-ms: expected no --distill"),
        ("--distill smallest --target-images x", "--target-images: expected no --distill"),
        ("--budget 1cpu-min", "--budget: expected --distill"),
    ],
)
def test_options_of_the_ensemble_and_of_the_student_exclude_each_other(
    searched: Searched, tmp_path: Path, options: str, message: str
) -> None:
    command = ["export-best", "--run", str(searched.run.root), "--output", str(tmp_path / "out"), *options.split()]
    with pytest.raises(UserError, match=message):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert not list(tmp_path.iterdir())


def test_a_budget_too_small_for_a_student_is_reported(searched: Searched, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="expected wall-clock or cpu"):
        bloodauto.export_distilled(searched.run.root, tmp_path, student="smallest", budget="1gpu-min")
    with pytest.raises(BudgetError, match="device-seconds are spent"):
        bloodauto.export_distilled(searched.run.root, tmp_path, student="smallest", budget="2cpu-s")


@pytest.mark.timeout(600)
def test_a_student_is_trained_on_its_ensembles_predictions_within_the_budget(
    searched: Searched, tmp_path: Path, slowness: float
) -> None:
    before, budget = searched.run.ensemble.path.read_text(encoding="utf-8"), round(70 * slowness)
    output = tmp_path / "small"
    exported = bloodauto.export_distilled(searched.run.root, output, student="smallest", budget=f"{budget}cpu-s")
    distilled = exported.distilled
    assert distilled is not None
    assert distilled.parameters < distilled.teacher_parameters
    charges = ExportDirectory(output).distillation_ledger.read()
    assert {charge.phase for charge in charges} == {"distill"}
    assert distilled.spent_device_seconds < charges[-1].spent_device_seconds <= budget
    assert distilled.epochs > 6
    comparison = distilled.comparison
    # Eight classes: an eighth by chance.
    assert comparison.agreement > 0.4
    assert comparison.scores.accuracy > comparison.teacher_scores.accuracy - 0.15
    stored = json.loads((output / "distilled.json").read_text(encoding="utf-8"))
    assert stored == json.loads((searched.run.root / "distilled.json").read_text(encoding="utf-8"))
    assert stored["parity_difference"] == distilled.parity_difference < 1e-3
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "\n# Blood-cell classifier, distilled from an ensemble\n" in card
    assert f"{comparison.teacher_scores.accuracy:.4f}" in card
    model = keras.models.load_model(output / "model.keras")
    assert model.count_params() == distilled.parameters
    assert np.allclose(model.predict(np.zeros((2, 32, 32, 3), np.uint8), verbose=0).sum(axis=1), 1, atol=1e-4)
    # The run's own ensemble, ledger and held-out test are as they were.
    assert searched.run.ensemble.path.read_text(encoding="utf-8") == before
    assert not searched.run.held_out_test.path.exists()
    assert not searched.run.ledger.exists


@pytest.mark.timeout(600)
def test_without_a_budget_the_student_spends_what_the_search_left(searched: Searched, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(searched.run.root, run.root)
    settings = run.settings.read_text(encoding="utf-8")
    run.settings.write_text(settings.replace("30cpu-s", "110cpu-s"), encoding="utf-8")
    run.ledger.append(LedgerCharge(at_unix=0.0, phase="trial 0", device_seconds=50.0, spent_device_seconds=50.0))
    exported = bloodauto.export_distilled(run.root, tmp_path / "small", student="smallest")
    assert exported.distilled is not None
    assert exported.distilled.budget_device_seconds == 110
    last = run.ledger.read()[-1]
    assert last.phase == "distill"
    assert 50 < last.spent_device_seconds <= 110
