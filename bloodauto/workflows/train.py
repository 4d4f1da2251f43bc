"""Single trainings: one recipe, and one model made of some trainings that are done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bloodauto.config.machine import available_cores, count_local_gpus
from bloodauto.config.objectives import Objective
from bloodauto.errors import RunError
from bloodauto.run.directory import RunDirectory

if TYPE_CHECKING:
    from bloodauto.config.recipe import Recipe
    from bloodauto.data.dataset import CellDataset
    from bloodauto.evaluation.fold_data import Evaluation, FoldData
    from bloodauto.export.ensemble_export import Exported
    from bloodauto.training.checkpoint import EpochReport
    from bloodauto.training.result import TrialResult

_SMOKE_IMAGES = 320
_SMOKE_SIZE_PX = 48


@dataclass(frozen=True)
class TrainSummary:
    """What one training gave.

    Attributes:
        result: of the network, looking once at each image.
        with_tta: of the average over the recipe's test-time transforms; None where it names none, or was stopped.
        passes: forward passes that an image then costs.
    """

    result: TrialResult
    with_tta: Evaluation | None
    forward_passes: int


def train(
    *,
    recipe: str | Path,
    run: str | Path,
    data: str = "synthetic",
    image_size_px: int | None = None,
    weights_dir: str | Path | None = None,
    seed: int = 0,
    objective: Objective = "shift",
    cleaning: bool = True,
    smoke: bool = False,
    report: Callable[[EpochReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainSummary:
    """Trains one recipe into ``run``; goes on from a checkpoint found there.

    Args:
        recipe: a file, or the name of a shipped recipe.
        smoke: its quick variant, on a few synthetic cells where ``data`` is ``synthetic``.

    Raises:
        UserError: a recipe, images or weights that cannot be used.
        TrialFailure: the training itself failed.
    """
    from bloodauto.config.recipe import load_recipe
    from bloodauto.config.recipe.experiments import find_recipe_file
    from bloodauto.data.clean import clean, write_cleaning_csv
    from bloodauto.data.split import default_splits, read_splits, write_splits
    from bloodauto.models.backbones import check_recipe, find_weights
    from bloodauto.models.device import cached_device_settings, claim_device_if_unused
    from bloodauto.workflows.session import locked

    loaded = load_recipe(find_recipe_file(recipe), smoke=smoke)
    check_recipe(loaded)
    directory = RunDirectory(Path(run))
    earlier = directory.root / "recipe.yaml"
    if earlier.is_file() and load_recipe(earlier).id != loaded.id:
        raise RunError(f"{directory.root}: another recipe was trained there; take another --run.")
    dataset = _cells(data, image_size_px, smoke=smoke)
    # After the images: nobody should download these for images that cannot be used.
    weights = find_weights(
        loaded.backbone.name, loaded.backbone.weights, None if weights_dir is None else Path(weights_dir)
    )
    cleaned = clean(dataset, enabled=cleaning)
    begun = directory.splits.path.is_file()
    splits = read_splits(directory.splits.path, dataset) if begun else default_splits(dataset, cleaned, seed=seed)
    with locked(directory):
        if not begun:
            write_cleaning_csv(directory.cleaning.path, dataset, cleaned)
            write_splits(directory.splits.path, dataset, splits)
        on_gpu = count_local_gpus() > 0
        # Measuring what is fastest takes longer than a smoke training.
        choice = None if smoke else cached_device_settings(on_gpu=on_gpu)
        cores = available_cores()
        claim_device_if_unused(cores=cores, gpu_fraction=1.0 if on_gpu else 0.0)
        from bloodauto.evaluation.fold_data import prepare_fold
        from bloodauto.training.input_pipeline import num_augmentation_processes
        from bloodauto.training.suite_weights import shift_suite_for
        from bloodauto.training.trainer import TrainOptions
        from bloodauto.training.trainer import train as train_recipe

        options = TrainOptions(
            objective=objective,
            weights_file=weights,
            jit_compile=False if choice is None else choice.jit_compile,
            precision="float32" if choice is None else choice.precision,
            num_processes=num_augmentation_processes(cores, on_gpu=on_gpu),
        )
        fold_data = prepare_fold(dataset, splits, shift_suite_for([loaded], seed=seed))
        result = train_recipe(
            loaded,
            fold_data,
            seed=seed,
            options=options,
            folder=directory.root,
            report=(lambda epoch: None) if report is None else report,
            should_stop=(lambda: False) if should_stop is None else should_stop,
        )
        forward_passes = max(len(loaded.tta_transforms), 1)
        with_tta = (
            _evaluate_with_tta(loaded, fold_data, directory.root) if result.finished and forward_passes > 1 else None
        )
        return TrainSummary(result, with_tta, forward_passes)


def _cells(data: str, image_size_px: int | None, *, smoke: bool) -> CellDataset:
    from bloodauto.data.synthetic.generator import synthesize
    from bloodauto.workflows.prepare import SYNTHETIC, read_dataset

    if smoke and data == SYNTHETIC and image_size_px is None:
        return synthesize(_SMOKE_IMAGES, site="lab_a", seed=0, image_size_px=_SMOKE_SIZE_PX)
    return read_dataset(data, image_size_px)


def _evaluate_with_tta(recipe: Recipe, fold_data: FoldData, folder: Path) -> Evaluation:
    from bloodauto.config.recipe import tta_weights
    from bloodauto.evaluation.fold_data import evaluate
    from bloodauto.evaluation.tta import with_tta
    from bloodauto.models.network import trained_network

    shape = fold_data.images.shape
    network = trained_network(
        recipe, folder / "best.npz", num_classes=fold_data.num_classes, image_shape_px=(shape[1], shape[2])
    )
    return evaluate(with_tta(network, tta_weights(recipe.tta_transforms)), fold_data, subset_only=False)[0]


def export_trained(
    *,
    trainings: Sequence[str | Path],
    output: str | Path,
    data: str = "synthetic",
    image_size_px: int | None = None,
    weights: Sequence[float] | None = None,
    seed: int = 0,
    formats: Sequence[str] = ("keras", "codabench"),
    tta: bool = False,
) -> Exported:
    """Writes one model that averages trainings of ``train``, calibrated on the images that they left out.

    Args:
        trainings: their ``run`` folders; trained on the same images with the same seed.
        data, image_size_px, seed: those they were trained with.
        weights: of each in the average; None: equal.
        views: each looks at the test-time transforms of its recipe; see ``export_best``.

    Raises:
        UserError: a folder without a finished training, images or a seed that are not theirs, an unknown format.
    """
    from bloodauto.data.split import read_splits
    from bloodauto.ensemble.assemble import combine
    from bloodauto.ensemble.record import TrainedNetwork
    from bloodauto.export.write import check_formats
    from bloodauto.models.device import claim_device_if_unused
    from bloodauto.workflows.prepare import read_dataset

    check_formats(formats)
    folders = [Path(folder) for folder in trainings]
    shares = [1.0] * len(folders) if weights is None else list(weights)
    if len(shares) != len(folders) or not all(share > 0 for share in shares):
        raise RunError(f"--weights: expected {len(folders)} numbers above 0, one for each training, got {shares}.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RunError("expected different trainings, got one twice; give it a larger weight.")
    for folder in folders:
        for name in ("recipe.yaml", "best.npz", "predictions.npz", "result.json", "splits.json"):
            if not (folder / name).is_file():
                raise RunError(f"{folder}: expected a training of bloodauto train that has ended, found no {name}.")
    dataset = read_dataset(data, image_size_px)
    splits = read_splits(RunDirectory(folders[0]).splits.path, dataset)
    claim_device_if_unused(cores=available_cores(), gpu_fraction=0.0)
    from bloodauto.export.ensemble_export import export_run

    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    trained = [TrainedNetwork(names[index], "trial", index, 0, folder) for index, folder in enumerate(folders)]
    ensemble = combine(trained, shares)
    return export_run(
        RunDirectory(Path(output)), Path(output), dataset, splits, formats, seed=seed, tta=tta, ensemble=ensemble
    )
