"""Trained networks averaged into one model, with test-time transforms and without."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import bloodauto
from bloodauto.cli.main import app
from bloodauto.data.split import read_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.data.write import write_dataset
from bloodauto.ensemble.assemble import combine
from bloodauto.errors import RunError
from bloodauto.evaluation.calibration import apply_calibration
from bloodauto.export.ensemble_export import Exported
from bloodauto.run.artifacts import TrainedNetwork
from bloodauto.run.directory import RunDirectory
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.workflows.datasets import read_dataset

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RECIPE = """\
input: {{size_px: 32}}
backbone: {{name: own_cnn, weights: none, width: 8, blocks: 3}}
augmentation: {{orientation: true}}
batch_size: 16
stages:
  - epochs: 3
    optimizer: {{name: adamw, learning_rate: {rate}}}
    schedule: {{name: constant}}
tta_transforms: {tta}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trainings on the same images: one whose recipe names two transforms, one whose recipe names none."""
    folder = tmp_path_factory.mktemp("tta")
    write_dataset(synthesize(240, site="lab_a", seed=3, image_size_px=32), folder / "cells.npz")
    for name, rate, tta in (
        ("a", "5e-3", "[{transform: identity, weight: 3}, {transform: turn_180}]"),
        ("b", "8e-3", "[]"),
    ):
        (folder / f"{name}.yaml").write_text(RECIPE.format(rate=rate, tta=tta))
        bloodauto.train(folder / f"{name}.yaml", run_dir=folder / name, data=str(folder / "cells.npz"), cleaning=False)
    return folder


def export(folder: Path, output: Path, *, tta: bool) -> Exported:
    return bloodauto.export_trained(
        [folder / "a", folder / "b"],
        output,
        weights=[2, 1],
        data=str(folder / "cells.npz"),
        formats=["keras"],
        tta=tta,
    )


def validation(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    dataset = read_dataset(str(folder / "cells.npz"), None)
    index = read_splits(RunDirectory(folder / "a").splits.path, dataset).validation_index()
    return dataset.images[index], dataset.labels[index]


def test_without_tta_it_is_the_weighted_average_of_the_stored_predictions(folder: Path, tmp_path: Path) -> None:
    exported = export(folder, tmp_path, tta=False)
    assert exported.gain is None
    images, _ = validation(folder)
    predicted = keras.models.load_model(tmp_path / "model.keras", compile=False).predict(images, verbose=0)
    stored = [TrainingDirectory(folder / name).predictions.read().clean for name in ("a", "b")]
    trained = [
        TrainedNetwork(name=name, kind="trial", trial=index, fold=0, folder=folder / name)
        for index, name in enumerate(("a", "b"))
    ]
    calibration = combine(trained, [2, 1]).calibration
    np.testing.assert_allclose(predicted, apply_calibration((2 * stored[0] + stored[1]) / 3, calibration), atol=1e-3)
    np.testing.assert_allclose(predicted.sum(axis=1), 1, atol=1e-5)
    assert "sees each image once" in (tmp_path / "README.md").read_text()


def test_tta_is_measured_stated_and_inside_the_file(folder: Path, tmp_path: Path) -> None:
    exported = export(folder, tmp_path / "tta", tta=True)
    export(folder, tmp_path / "plain", tta=False)
    gain = exported.gain
    assert gain is not None
    images, labels = validation(folder)
    # Recipe a names two transforms, recipe b none: its network sees each image once.
    assert (gain.forward_passes, gain.forward_passes_without_tta) == (3, 2)
    assert gain.time_ratio > 0
    assert gain.images == len(labels)
    predicted = {
        name: keras.models.load_model(tmp_path / name / "model.keras", compile=False).predict(images, verbose=0)
        for name in ("tta", "plain")
    }
    assert np.abs(predicted["tta"] - predicted["plain"]).max() > 1e-3
    # The gain that is stated is the gain of the files.
    assert (predicted["tta"].argmax(axis=1) == labels).mean() == pytest.approx(gain.scores["accuracy"])
    assert (predicted["plain"].argmax(axis=1) == labels).mean() == pytest.approx(gain.scores_without_tta["accuracy"])
    assert gain.helps == (gain.scores["shift"] > gain.scores_without_tta["shift"])
    card = (tmp_path / "tta" / "README.md").read_text()
    assert "3 forward passes rather than 2" in card
    assert "identity 0.75, turn_180 0.25" in card
    assert "without test-time augmentation" in card, "the held-out test is evaluated without it"
    assert json.loads((tmp_path / "tta" / "test.json").read_text(encoding="utf-8"))["images"] > 0


def test_what_does_not_belong_together_is_refused(folder: Path, tmp_path: Path) -> None:
    data = str(folder / "cells.npz")
    with pytest.raises(RunError, match="2 numbers above 0"):
        bloodauto.export_trained([folder / "a", folder / "b"], tmp_path, weights=[1], data=data)
    with pytest.raises(RunError, match="got one twice"):
        bloodauto.export_trained([folder / "a", folder / "a"], tmp_path, data=data)
    with pytest.raises(RunError):
        bloodauto.export_trained([folder / "a"], tmp_path, data="synthetic", image_size_px=32)
    with pytest.raises(RunError, match="Give the --seed"):
        bloodauto.export_trained([folder / "a"], tmp_path, data=data, seed=7, tta=True)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_tta_costs(folder: Path, tmp_path: Path) -> None:
    arguments = ["export-trained", folder / "a", "--data", folder / "cells.npz", "--output", tmp_path, "--tta"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--format", "keras"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "test-time augmentation: 2 passes an image instead of 1" in result.output
    assert str(tmp_path / "model.keras") in result.output
