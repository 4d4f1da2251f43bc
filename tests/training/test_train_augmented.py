"""Training with mixing, offline images, equalised classes, stages of their own augmentation, and the reference engine."""

from __future__ import annotations

import importlib.util

import pytest

from bloodauto.errors import RecipeError
from bloodauto.training.kept_networks import KeptNetworks
from bloodauto.training.trainer import TrainOptions, finish_training, ignore, train_epochs

OPTIONS = TrainOptions(objective="accuracy")
#: Networks that these tests share: tracing one takes longer than the trainings here.
NETWORKS = KeptNetworks()


def losses(recipe, fold_data, folder, *, stop_after_batches: int = 10**9) -> list[float]:
    folder.mkdir(exist_ok=True)
    batches = iter(range(stop_after_batches))
    epochs = train_epochs(
        recipe,
        fold_data,
        seed=2,
        options=OPTIONS,
        folder=folder,
        should_stop=lambda: next(batches, None) is None,
        networks=NETWORKS,
    )
    result = finish_training(epochs, folder, ignore)
    return [report.train_loss for report in result.history]


@pytest.fixture
def rich(recipe_of, stage_of):
    offline = {
        "fraction": 0.5,
        "steps": [{"operation": "noise", "magnitude": 0.5}],
        "mixing": {"name": "both", "alpha": 1},
    }
    flips = {"orientation": False, "steps": [{"operation": "flip_horizontal", "rate": 0.5}]}
    return recipe_of(
        [
            stage_of(epochs=1, augmentation={**flips, "mixing": {"name": "mixup", "alpha": 0.4}}),
            stage_of(epochs=2, augmentation={**flips, "offline": offline}),
        ],
        batch_size=59,
        imbalance={"sampling": "synthesise"},
        loss={"name": "focal", "gamma": 2.0, "class_weights": "balanced"},
    )


@pytest.mark.slow
def test_a_training_stopped_in_a_stage_with_offline_images_resumes_to_the_same_end(rich, fold_data, tmp_path):
    straight = losses(rich, fold_data, tmp_path / "straight")
    assert len(straight) == 3
    steps = len(fold_data.train_index) // 59
    # In the first batch of the last epoch.
    assert len(losses(rich, fold_data, tmp_path / "broken", stop_after_batches=2 * steps)) == 2
    assert losses(rich, fold_data, tmp_path / "broken") == pytest.approx(straight, rel=1e-3)


def test_without_its_package_the_reference_engine_is_refused_before_anything_is_written(recipe_of, fold_data, tmp_path):
    if importlib.util.find_spec("keras_cv") is not None:
        pytest.skip("keras-cv is installed")
    recipe = recipe_of(augmentation={"orientation": False, "engine": "keras_cv"})
    with pytest.raises(RecipeError, match=r"pip install 'bloodauto\[keras-cv\]'"):
        losses(recipe, fold_data, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.slow
def test_the_reference_engine_trains(recipe_of, stage_of, fold_data, tmp_path):
    pytest.importorskip("keras_cv", reason="keras-cv is not installed: pip install 'bloodauto[keras-cv]'")
    recipe = recipe_of(
        [stage_of(epochs=4, learning_rate=2e-3)],
        augmentation={
            "orientation": False,
            "engine": "keras_cv",
            "steps": [
                {"operation": "flip_horizontal", "rate": 0.5},
                {"operation": "cutout", "range_fraction": [0.1, 0.3]},
            ],
            "mixing": {"name": "mixup", "alpha": 0.2, "rate": 0.5},
        },
    )
    history = losses(recipe, fold_data, tmp_path / "run")
    assert history[-1] < history[0]
