"""Transfer learning on real images, from real weights."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.data.clean import clean
from bloodauto.data.load import load_dataset
from bloodauto.data.split import make_splits
from bloodauto.evaluation.fold_data import prepare_fold
from bloodauto.models.backbone_networks import find_weights
from bloodauto.shift.suite import ShiftSuite
from bloodauto.training.trainer import TrainOptions, train
from tests.locations import SHARED


@pytest.mark.slow
@pytest.mark.real_data
def test_one_epoch_from_imagenet_weights_is_better_than_chance(recipe_of, stage_of, tmp_path):
    images, weights = SHARED / "data" / "pbc96", SHARED / "weights"
    if not (images.is_dir() and weights.is_dir()):
        pytest.skip("needs ../shared/data/pbc96 and ../shared/weights")
    dataset = load_dataset(images)
    chosen = np.random.default_rng(0).choice(len(dataset), 400, replace=False)
    dataset = dataset.subset(np.sort(chosen))
    fold_data = prepare_fold(
        dataset, make_splits(dataset, clean(dataset, enabled=False), seed=0), ShiftSuite(seed=0, num_images=32)
    )
    recipe = recipe_of(
        [stage_of(epochs=1, learning_rate=1e-2, unfreeze="none")],
        input={"size_px": 96},
        backbone={"name": "mobilenet_0.25", "weights": "imagenet"},
    )
    options = TrainOptions(weights_file=find_weights("mobilenet_0.25", "imagenet", weights))
    result = train(
        recipe, fold_data, seed=0, options=options, folder=tmp_path, report=lambda _: None, should_stop=lambda: False
    )
    assert result.evaluation.clean.accuracy > 0.4
    assert result.parameters == 218_544 + 256 * 8 + 8
