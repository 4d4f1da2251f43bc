"""Trains one recipe to its end and returns its network; several benchmarks share it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras

from bloodauto.config.recipe import Recipe
from bloodauto.data.dataset import CellDataset
from bloodauto.evaluation.fold_data import FoldData
from bloodauto.evaluation.inference import predict_batches
from bloodauto.models.backbone_networks import find_weights
from bloodauto.models.network import trained_network
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.training.trainer import TrainOptions, train


def train_network(
    recipe: Recipe,
    fold_data: FoldData,
    *,
    seed: int,
    weights_dir: Path | None = None,
    options: TrainOptions | None = None,
) -> keras.Model:
    """Trains a recipe in a temporary folder.

    Args:
        recipe: What to train.
        fold_data: The images.
        seed: Of the training.
        weights_dir: Folder of pre-trained weights that is searched first.
        options: How to train; the recipe's weights are found when None.

    Returns:
        The network with the weights that the training kept; uint8 images in, logits out.
    """
    if options is None:
        options = TrainOptions(weights_file=find_weights(recipe.backbone.name, recipe.backbone.weights, weights_dir))
    with tempfile.TemporaryDirectory(prefix="bloodauto-") as folder:
        train(
            recipe,
            fold_data,
            seed=seed,
            options=options,
            folder=Path(folder),
            report=lambda report: None,
            should_stop=lambda: False,
        )
        height, width = fold_data.images.shape[1:3]
        return trained_network(
            recipe,
            TrainingDirectory(Path(folder)).weights.path,
            num_classes=fold_data.num_classes,
            image_shape_px=(height, width),
        )


def accuracy_on(network: keras.Model, dataset: CellDataset) -> float:
    """The fraction of a data set's images that the network predicts correctly."""
    return float((predict_batches(network, dataset.images).argmax(axis=1) == dataset.labels).mean())
