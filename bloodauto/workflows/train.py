"""Trains one recipe by itself, without a search and without a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloodauto.clock import SYSTEM_CLOCK
from bloodauto.config.recipe import Recipe, load_recipe, tta_weights
from bloodauto.config.shipped import find_recipe_file
from bloodauto.data.clean import clean, write_cleaning_csv
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import default_splits, read_splits, write_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.errors import RunError
from bloodauto.evaluation.evaluator import Evaluation, Evaluator
from bloodauto.evaluation.fold_data import FoldData
from bloodauto.evaluation.tta import with_tta
from bloodauto.models.backbone_networks import find_weights
from bloodauto.models.backbones import check_recipe
from bloodauto.models.device import local_device
from bloodauto.models.network import trained_network
from bloodauto.run.artifacts import EpochReport, Objective
from bloodauto.run.directory import RunDirectory
from bloodauto.run.lock import run_lock
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.training.augmentation import shift_suite_for
from bloodauto.training.result import TrialResult
from bloodauto.training.session import TrainingData, TrainingSession
from bloodauto.training.trainer import TrainOptions, ignore, never
from bloodauto.workflows.datasets import SYNTHETIC, read_dataset
from bloodauto.workflows.process_state import restored_process_state
from bloodauto.workflows.run_log import run_log

_SMOKE_IMAGES = 320
_SMOKE_SIZE_PX = 48


@dataclass(frozen=True)
class TrainResult:
    """The result of one training.

    Attributes:
        run_dir: Directory of the training.
        result: Scores and history of the network without test-time augmentation.
        with_tta: Scores with the recipe's test-time augmentation; None where it names none, or the training was stopped.
        forward_passes: Forward passes for one image with that augmentation.

    Example:
        >>> import bloodauto
        >>> training = bloodauto.train("recipe.yaml", run_dir="runs/small", data="cells.npz")
        >>> training.forward_passes, training.with_tta
        (1, None)
    """

    run_dir: Path
    result: TrialResult
    with_tta: Evaluation | None
    forward_passes: int

    def to_json(self) -> dict[str, Any]:
        """Plain values under the keys of the last line of ``bloodauto train --json``."""
        tta = self.with_tta
        return {
            "run": str(self.run_dir),
            **self.result.to_artifact().model_dump(mode="json", exclude={"validation"}),
            "with_tta": None if tta is None else {"accuracy": tta.clean.accuracy, "shift": tta.score},
            "forward_passes": self.forward_passes,
        }


def train(
    recipe: str | Path,
    *,
    run_dir: str | Path,
    data: str | Path = SYNTHETIC,
    image_size_px: int | None = None,
    weights_dir: str | Path | None = None,
    seed: int = 0,
    objective: Objective = "shift",
    cleaning: bool = True,
    smoke: bool = False,
    report: Callable[[EpochReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainResult:
    """Trains one recipe; continues from a checkpoint in ``run_dir``.

    Args:
        recipe: A file, or the name of a shipped recipe.
        run_dir: Directory of the training, new or its own.
        data: Folder of class folders, ``.csv`` manifest, ``.npz`` file, or ``synthetic`` for drawn cells.
        image_size_px: Side in px to which images are resized; None keeps their size.
        weights_dir: Folder of pre-trained weights that is searched first.
        seed: Seed of splits, shifted images and training.
        objective: The score that decides which epoch is kept.
        cleaning: Whether images that the data check finds broken, duplicated or mislabelled are excluded.
        smoke: The recipe's smoke variant, on a few drawn cells where ``data`` is ``synthetic``.
        report: Receives every epoch.
        should_stop: Ends the training, with its state saved, when it returns True.

    Returns:
        Scores and history.

    Raises:
        UserError: A recipe, images or weights that cannot be used.
        TrialFailure: The training itself failed.

    Example:
        >>> import bloodauto
        >>> training = bloodauto.train("tiny_cnn", run_dir="runs/tiny", smoke=True)
        >>> training.result.finished
        True
    """
    loaded = load_recipe(find_recipe_file(recipe), smoke=smoke)
    check_recipe(loaded)
    run = RunDirectory(Path(run_dir))
    previous = run.single_training.recipe
    if previous.is_file() and load_recipe(previous).id != loaded.id:
        raise RunError(f"{run.root}: another recipe was trained there; take another --run.")
    with restored_process_state():
        dataset = _dataset(str(data), image_size_px, smoke=smoke)
        # After the images: nobody should download weights for images that cannot be used.
        weights = find_weights(
            loaded.backbone.name, loaded.backbone.weights, None if weights_dir is None else Path(weights_dir)
        )
        cleaned = clean(dataset, enabled=cleaning)
        has_splits = run.splits.path.is_file()
        splits = read_splits(run.splits.path, dataset) if has_splits else default_splits(dataset, cleaned, seed=seed)
        with run_lock(run), run_log(run):
            if not has_splits:
                write_cleaning_csv(run.cleaning.path, dataset, cleaned)
                write_splits(run.splits.path, dataset, splits)
            training_data = TrainingData(dataset, splits, shift_suite_for([loaded], seed=seed))
            # Measuring the device takes longer than a smoke training.
            with TrainingSession.open(training_data, device=local_device(measure=not smoke)) as session:
                result = session.train(
                    loaded,
                    run.root,
                    seed=seed,
                    options=TrainOptions(objective=objective, weights_file=weights),
                    report=ignore if report is None else report,
                    should_stop=never if should_stop is None else should_stop,
                )
                passes = max(len(loaded.tta_transforms), 1)
                tta = None
                if result.finished and passes > 1:
                    tta = _evaluate_with_tta(loaded, session.fold(), run.root)
    return TrainResult(run.root, result, tta, passes)


def _dataset(data: str, image_size_px: int | None, *, smoke: bool) -> CellDataset:
    if smoke and data == SYNTHETIC and image_size_px is None:
        return synthesize(_SMOKE_IMAGES, site="lab_a", seed=0, image_size_px=_SMOKE_SIZE_PX)
    return read_dataset(data, image_size_px)


def _evaluate_with_tta(recipe: Recipe, fold_data: FoldData, folder: Path) -> Evaluation:
    network = trained_network(
        recipe,
        TrainingDirectory(folder).weights.path,
        num_classes=fold_data.num_classes,
        image_shape_px=fold_data.image_shape_px,
    )
    network_with_tta = with_tta(network, tta_weights(recipe.tta_transforms))
    return Evaluator(fold_data, SYSTEM_CLOCK).evaluate(network_with_tta)
