"""An ensemble is exported step by step within the time that is left."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodauto.config.recipe import parse_recipe
from bloodauto.data.clean import clean
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import EXCLUDED, HELD_OUT_TEST, Splits, make_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.ensemble.assemble import Caps, combine, out_of_fold_ensemble
from bloodauto.errors import RunError, UserError
from bloodauto.evaluation.fold_data import prepare_fold
from bloodauto.export import final_test
from bloodauto.export.built_ensemble import build_ensemble
from bloodauto.export.ensemble_export import Exported, ExportSettings, check_exportable, export_run
from bloodauto.export.model import load_model
from bloodauto.export.result_pictures import PicturedEnsemble, draw_result_pictures
from bloodauto.run.artifacts import Ensemble, TrainedNetwork
from bloodauto.run.directory import RunDirectory
from bloodauto.shift.external_estimate import MIN_SIMULATED_SITES
from bloodauto.shift.suite import ShiftSuite
from bloodauto.training.trainer import TrainOptions, train

SIZE_PX = 32


@dataclass(frozen=True)
class Trained:
    """Two trainings of an epoch, and what they were trained on."""

    root: Path
    dataset: CellDataset
    splits: Splits

    def ensemble(self) -> Ensemble:
        networks = [
            TrainedNetwork(name=name, kind="trial", trial=index, fold=0, folder=self.root / name)
            for index, name in enumerate("ab")
        ]
        return combine(networks, [3, 1])

    def export(self, output: Path, *, seconds_left: Iterable[float] | None = None, **changes: Any) -> Exported:
        """Exports into a run of its own; ``seconds_left`` is one value for each decision, in their order."""
        settings = replace(ExportSettings(self.ensemble(), ("keras", "codabench"), seed=0), **changes)
        values = None if seconds_left is None else iter(seconds_left)
        return export_run(
            RunDirectory(output),
            output / "export",
            self.dataset,
            self.splits,
            settings,
            seconds_left=None if values is None else lambda: next(values),
        )


@pytest.fixture(autouse=True)
def few_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few simulated sites and images as an external estimate needs: they are tested by themselves."""
    monkeypatch.setattr(final_test, "_MIN_SITES", MIN_SIMULATED_SITES)
    monkeypatch.setattr(final_test, "_MAX_SITES", MIN_SIMULATED_SITES)
    monkeypatch.setattr(final_test, "_IMAGES_PER_SITE", 2)


def _recipe(name: str):
    stage = {"epochs": 1, "optimizer": {"name": "adam", "learning_rate": 3e-3}, "schedule": {"name": "constant"}}
    return parse_recipe(
        {
            "input": {"size_px": SIZE_PX},
            "backbone": {"name": "own_cnn", "weights": "none", "width": 4 if name == "a" else 6, "blocks": 2},
            "augmentation": {"orientation": False},
            "batch_size": 16,
            "stages": [stage],
        },
        origin=name,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("trainings")
    dataset = synthesize(160, seed=3, image_size_px=SIZE_PX)
    splits = make_splits(dataset, clean(dataset, enabled=False), seed=0)
    fold_data = prepare_fold(dataset, splits, ShiftSuite(seed=0))
    for name in "ab":
        train(
            _recipe(name),
            fold_data,
            seed=0,
            options=TrainOptions(),
            folder=root / name,
            report=lambda _: None,
            should_stop=lambda: False,
        )
    return Trained(root, dataset, splits)


def test_the_model_predicts_the_calibrated_average_of_the_stored_predictions(trained) -> None:
    built = build_ensemble(trained.ensemble(), trained.dataset, trained.splits, seed=0, tta=False)
    assert built.model is built.model_without_tta
    assert built.gain is None
    assert [member.weight for member in built.members] == [0.75, 0.25]
    predicted = built.model.predict(built.sample.images, verbose=0)
    np.testing.assert_allclose(predicted, built.sample.probabilities, atol=built.sample.tolerance)


def test_adapted_statistics_change_the_model_and_its_sample_alike(trained) -> None:
    target = 255 - trained.dataset.images[:32]
    plain, adapted = (
        build_ensemble(trained.ensemble(), trained.dataset, trained.splits, seed=0, tta=False, target=images)
        for images in (None, target)
    )
    assert np.abs(plain.sample.probabilities - adapted.sample.probabilities).max() > 1e-3
    predicted = adapted.model.predict(adapted.sample.images, verbose=0)
    np.testing.assert_allclose(predicted, adapted.sample.probabilities, atol=adapted.sample.tolerance)


@pytest.mark.slow
def test_without_a_limit_everything_is_written(trained, tmp_path) -> None:
    exported = trained.export(tmp_path)
    assert exported.skipped == ()
    assert exported.pictured is None, "nobody reports of single trainings"
    assert {file.name for file in exported.result.files} == {
        "model.keras",
        "submission.zip",
        "labels.json",
        "ood.npz",
        "stated_accuracy.json",
        "README.md",
    }
    assert exported.result.parity_difference <= 1e-3
    run = RunDirectory(tmp_path)
    assert run.ood_evaluation.path.is_file()
    assert run.held_out_test.read().ensemble == trained.ensemble().ensemble_id
    card = (tmp_path / "export" / "README.md").read_text()
    assert "held-out test set" in card
    assert "ood.npz" in card
    assert "own_cnn" in card
    predictions = load_model(tmp_path / "export").predict(trained.dataset.images[:8])
    assert np.isfinite(predictions.ood_score).all()


def test_the_first_format_is_written_whatever_is_left_and_a_later_export_does_the_rest(trained, tmp_path) -> None:
    exported = trained.export(tmp_path, seconds_left=[0.0, 0.0, 0.0])
    assert exported.skipped == ("codabench", "test")
    assert {file.name for file in exported.result.files} == {"model.keras", "labels.json", "README.md"}
    run = RunDirectory(tmp_path)
    assert not run.held_out_test.exists
    assert not run.ood_evaluation.path.is_file()
    assert "was not evaluated" in " ".join((tmp_path / "export" / "README.md").read_text().split())
    assert trained.export(tmp_path, seconds_left=[0.0, math.inf, math.inf]).skipped == ()
    assert run.held_out_test.exists
    assert (tmp_path / "export" / "submission.zip").is_file()


def test_the_test_comes_before_the_other_formats_and_the_card_tells_of_it(trained, tmp_path) -> None:
    exported = trained.export(tmp_path, seconds_left=[0.0, math.inf, 0.0])
    assert exported.skipped == ("codabench",)
    assert not (tmp_path / "export" / "ood.npz").exists()
    assert RunDirectory(tmp_path).held_out_test.exists
    assert "| held-out test set | accuracy |" in (tmp_path / "export" / "README.md").read_text()


def test_the_held_out_test_is_kept_for_the_ensemble_as_it_was_selected(trained, tmp_path) -> None:
    for name, changes in (("caps", {"caps": Caps(1)}), ("target", {"target": trained.dataset.images[:8]})):
        exported = trained.export(tmp_path / name, formats=("keras",), seconds_left=[0.0], **changes)
        assert exported.skipped == ()
        assert not RunDirectory(tmp_path / name).held_out_test.exists
        assert not RunDirectory(tmp_path / name).ood_evaluation.path.is_file()


def test_caps_keep_the_best_members(trained, tmp_path) -> None:
    trained.export(tmp_path, formats=("keras",), caps=Caps(1), seconds_left=[0.0])
    card = (tmp_path / "export" / "README.md").read_text()
    assert ("| a |" in card) != ("| b |" in card)


def test_predictions_of_other_weights_write_nothing(trained, tmp_path) -> None:
    root = tmp_path / "trainings"
    for name, weights in (("a", "a"), ("b", "b")):
        (root / name).mkdir(parents=True)
        for file in (trained.root / weights).iterdir():
            (root / name / file.name).write_bytes(file.read_bytes())
    other = replace(trained, root=root)
    with np.load(root / "a" / "predictions.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    key = next(name for name in arrays if name.endswith("clean"))
    arrays[key] = arrays[key][:, ::-1]
    np.savez(root / "a" / "predictions.npz", **arrays)
    with pytest.raises(RunError, match=r"model\.keras: expected the probabilities of the search"):
        other.export(tmp_path)
    assert list((tmp_path / "export").iterdir()) == []


def test_unknown_formats_are_refused_before_anything_is_built(trained, tmp_path) -> None:
    with pytest.raises(UserError, match="format"):
        trained.export(tmp_path, formats=("onnx",), ensemble=None)


def test_a_run_without_an_ensemble_is_not_exportable(tmp_path) -> None:
    with pytest.raises(RunError, match="expected an ensemble"):
        check_exportable(RunDirectory(tmp_path))


def test_the_report_is_pictured_where_the_run_has_an_ensemble(trained: Trained, tmp_path: Path) -> None:
    run, ensemble = RunDirectory(tmp_path), trained.ensemble()
    run.ensemble.write(ensemble)
    exported = trained.export(tmp_path, formats=("keras",))
    assert exported.pictured is not None
    assert exported.pictures_seconds > 0
    pictures = draw_result_pictures(exported.pictured, trained.dataset, trained.splits)
    assert pictures.predictions.source == "held-out test images"
    assert pictures.ensemble == ensemble.ensemble_id
    confusion = run.held_out_test.read().confusion
    assert {(cell.true_index, cell.predicted_index) for cell in pictures.predictions.confusion} == {
        (row, column) for row, counts in enumerate(confusion) for column, images in enumerate(counts) if images
    }
    assert all(entry.saliency is not None for entry in pictures.predictions.confident_mistakes)


def test_without_held_out_images_the_validation_images_are_pictured(trained: Trained) -> None:
    fold = np.where(trained.splits.fold == HELD_OUT_TEST, EXCLUDED, trained.splits.fold)
    ensemble = trained.ensemble()
    model = build_ensemble(ensemble, trained.dataset, trained.splits, seed=0, tta=False).model
    pictured = PicturedEnsemble(model, ensemble, None, None, 0)
    pictures = draw_result_pictures(pictured, trained.dataset, replace(trained.splits, fold=fold))
    assert pictures.predictions.source == "validation images"
    out_of_fold = out_of_fold_ensemble(ensemble)
    shown = {picture.name for cell in pictures.predictions.confusion for picture in cell.pictures}
    assert shown <= set(trained.dataset.names[out_of_fold.truth.index].tolist())
    levels = [level for family in pictures.shift for level in family.levels]
    assert sum(level.images for level in levels) == len(out_of_fold.shifted)
    correct = (out_of_fold.shifted.argmax(axis=1) == out_of_fold.truth.shifted_labels).sum()
    assert sum(level.correct for level in levels) == correct
    assert {level.severity for level in levels} == {3, 4, 5}
