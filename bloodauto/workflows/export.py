"""Writes models to files: the ensemble of a run, or an average of single trainings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bloodauto.adaptation.magnification import estimate_magnification
from bloodauto.config.machine import available_cores
from bloodauto.config.settings import SearchSettings, absolute_paths, check_ensemble_limits, read_settings
from bloodauto.config.space import load_space
from bloodauto.data.load import load_images
from bloodauto.data.split import read_splits
from bloodauto.ensemble.assemble import Caps, combine, read_ensemble
from bloodauto.errors import RunError, UserError
from bloodauto.evaluation.inference import predict_outputs
from bloodauto.export.ensemble_export import Exported, ExportSettings, check_exportable, export_run
from bloodauto.export.formats import check_formats
from bloodauto.export.model import load_model, write_predictions_csv
from bloodauto.models.device import claim_device_if_unused
from bloodauto.run.artifacts import Ensemble, TrainedNetwork
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import check_output_file, check_output_folder
from bloodauto.run.lock import run_lock
from bloodauto.tuning.study import StudyRecord
from bloodauto.workflows.datasets import read_dataset, read_target_images
from bloodauto.workflows.distill import Distillation, distil
from bloodauto.workflows.finalize import choose_ensemble, draw_pending_pictures
from bloodauto.workflows.planning import plan_search, run_space_path
from bloodauto.workflows.process_state import restored_process_state

DEFAULT_FORMATS = ("keras", "codabench")


@dataclass(frozen=True)
class EnsembleExport:
    """What of a run's ensemble is exported, and how.

    Attributes:
        formats: ``keras`` and ``codabench``, or one of them.
        tta: Average over test-time transforms inside the model: those of the members' recipes, else the standard ones.
        max_members: Largest number of members; None keeps the search's cap.
        max_latency_ms: Longest time for one image in milliseconds; None keeps the search's cap.
        target_images: Unlabelled images of the site where the model will be used, to which it is adapted.
    """

    formats: tuple[str, ...] = DEFAULT_FORMATS
    tta: bool = False
    max_members: int | None = None
    max_latency_ms: float | None = None
    target_images: str | None = None

    def __post_init__(self) -> None:
        check_formats(self.formats)
        check_ensemble_limits(self.max_members, self.max_latency_ms)

    def caps(self, ensemble: Ensemble) -> Caps | None:
        """The caps under which members are chosen again; None keeps the ensemble as it is."""
        if self.max_members is None and self.max_latency_ms is None:
            return None
        members = len(ensemble.members) if self.max_members is None else self.max_members
        return Caps(members, self.max_latency_ms)


def export_best(
    run_dir: str | Path,
    output: str | Path,
    *,
    formats: Sequence[str] = DEFAULT_FORMATS,
    tta: bool = False,
    max_members: int | None = None,
    max_latency_ms: float | None = None,
    target_images: str | Path | None = None,
    data: str | Path | None = None,
) -> Exported:
    """Writes the ensemble of a run to a folder: the requested formats, ``labels.json`` and a model card.

    Args:
        run_dir: Directory of a search whose trainings are over.
        output: The folder.
        formats: ``keras`` and ``codabench``, or one of them.
        tta: Average over test-time transforms inside the model: those of the members' recipes, else the standard ones.
        max_members: A tighter cap than the search had; the best members under it are exported.
        max_latency_ms: Longest time for one image in milliseconds, as measured by the search.
        target_images: Unlabelled images of the site where the model will be used, to which it is adapted.
        data: Where the images of the search lie by now; None: where they lay.

    Returns:
        What was written.

    Raises:
        UserError: No such run or format, changed images, or a search that has not come that far.

    Example:
        >>> import bloodauto
        >>> exported = bloodauto.export_best("runs/first", "best", formats=["keras"])
        >>> (exported.result.files[0].parent / "model.keras").is_file()
        True
    """
    request = EnsembleExport(
        tuple(formats), tta, max_members, max_latency_ms, None if target_images is None else str(target_images)
    )
    check_output_folder(Path(output))
    run = RunDirectory(Path(run_dir))
    settings = read_settings(run)
    if data is not None:
        # Whether they are the same is told by their digest, which the splits carry.
        settings = settings.model_copy(update=absolute_paths({"data": data}))
    with restored_process_state():
        ensemble = _ensemble_of(run, settings)
        claim_device_if_unused(cores=max(int(settings.cpus_per_trial), 1), gpu_fraction=0.0)
        check_exportable(run)
        dataset = read_dataset(settings.data, settings.image_size_px)
        target = None
        if request.target_images is not None:
            target = read_target_images(request.target_images, dataset, seed=settings.seed)
        splits = read_splits(run.splits.path, dataset)
        exported = export_run(
            run,
            Path(output),
            dataset,
            splits,
            ExportSettings(
                ensemble,
                request.formats,
                seed=settings.seed,
                tta=request.tta,
                caps=request.caps(ensemble),
                target=target,
            ),
        )
        draw_pending_pictures(run, exported, dataset, splits)
        return exported


def export_distilled(
    run_dir: str | Path,
    output: str | Path,
    *,
    student: str | Path,
    budget: str | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
) -> Exported:
    """Trains one network on the predictions of a run's ensemble and writes it as ``export_best`` writes the ensemble.

    Args:
        run_dir: Directory of a search whose trainings are over.
        output: The folder.
        student: The student's recipe: a file, the name of a shipped one, or ``smallest``, the smallest network of the run.
        budget: What training and export may cost, such as ``5cpu-min``; None takes what the search left of its budget.
        formats: ``keras`` and ``codabench``, or one of them.

    Returns:
        What was written, with the comparison of student and ensemble.

    Raises:
        BudgetError: Too little to train, evaluate and write the student.
        UserError: No such run, recipe or format, changed images, or a search that has not come that far.

    Example:
        >>> import bloodauto
        >>> exported = bloodauto.export_distilled(  # doctest: +SKIP
        ...     "runs/first", "small", student="smallest", budget="2cpu-min"
        ... )
    """
    check_formats(formats)
    check_output_folder(Path(output))
    run = RunDirectory(Path(run_dir))
    settings = read_settings(run)
    with restored_process_state():
        ensemble = _ensemble_of(run, settings)
        claim_device_if_unused(cores=max(int(settings.cpus_per_trial), 1), gpu_fraction=settings.gpus_per_trial)
        check_exportable(run)
        dataset = read_dataset(settings.data, settings.image_size_px)
        splits = read_splits(run.splits.path, dataset)
        request = Distillation(str(student), budget, Path(output), tuple(formats))
        with run_lock(run):
            exported, distilled = distil(run, settings, ensemble, request, dataset=dataset, splits=splits)
    return replace(exported, distilled=distilled)


def _ensemble_of(run: RunDirectory, settings: SearchSettings) -> Ensemble:
    """The run's ensemble; it is chosen now where the budget of the search ended before that."""
    # A run that was never charged has nothing to choose among, and gets no files.
    if not run.ensemble.exists and run.ledger.exists:
        with run_lock(run):
            space = load_space(run_space_path(run))
            study = StudyRecord.open(run, space, settings.objectives, storage=settings.storage)
            # A search that may go on chooses by itself.
            if study.trainings_are_done:
                plan = plan_search(run, settings, run_space_path(run))
                choose_ensemble(plan, study, seconds_left=lambda: math.inf)
    return read_ensemble(run)


def export_trained(
    trainings: Sequence[str | Path],
    output: str | Path,
    *,
    data: str | Path = "synthetic",
    image_size_px: int | None = None,
    weights: Sequence[float] | None = None,
    seed: int = 0,
    formats: Sequence[str] = DEFAULT_FORMATS,
    tta: bool = False,
) -> Exported:
    """Writes one model that averages trainings of ``train``, calibrated on the images that they were not trained on.

    Args:
        trainings: Their run directories; trained on the same images with the same seed.
        output: The folder.
        data: The images that they were trained with.
        image_size_px: The size that they were trained with.
        weights: Weight of each in the average, above 0; None weighs all equally.
        seed: The seed that they were trained with.
        formats: ``keras`` and ``codabench``, or one of them.
        tta: Each member averages over the test-time transforms of its recipe; see ``export_best``.

    Returns:
        What was written.

    Raises:
        UserError: A folder without a finished training, images or a seed that are not theirs, or an unknown format.

    Example:
        >>> import bloodauto
        >>> _ = bloodauto.train("recipe.yaml", run_dir="runs/a", data="cells.npz")
        >>> exported = bloodauto.export_trained(["runs/a"], "average", data="cells.npz", formats=["keras"])
        >>> (exported.result.files[0].parent / "model.keras").is_file()
        True
    """
    check_formats(formats)
    check_output_folder(Path(output))
    folders = [Path(folder) for folder in trainings]
    member_weights = [1.0] * len(folders) if weights is None else list(weights)
    _check_trainings(folders, member_weights)
    with restored_process_state():
        dataset = read_dataset(str(data), image_size_px)
        splits = read_splits(RunDirectory(folders[0]).splits.path, dataset)
        claim_device_if_unused(cores=available_cores(), gpu_fraction=0.0)
        names = [folder.resolve().name for folder in folders]
        if len(set(names)) < len(names):
            names = [str(folder) for folder in folders]
        networks = [
            TrainedNetwork(name=name, kind="trial", trial=index, fold=0, folder=folder)
            for index, (name, folder) in enumerate(zip(names, folders, strict=True))
        ]
        return export_run(
            RunDirectory(Path(output)),
            Path(output),
            dataset,
            splits,
            ExportSettings(combine(networks, member_weights), tuple(formats), seed=seed, tta=tta),
        )


def _check_trainings(folders: Sequence[Path], weights: Sequence[float]) -> None:
    if len(weights) != len(folders) or not all(weight > 0 for weight in weights):
        raise RunError(
            f"--weights: expected {len(folders)} numbers above 0, one for each training, got {list(weights)}."
        )
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RunError("expected different trainings, got one twice; give it a larger weight.")
    for folder in folders:
        run = RunDirectory(folder)
        training = run.single_training
        files = (
            training.recipe,
            training.weights.path,
            training.predictions.path,
            training.result.path,
            run.splits.path,
        )
        for file in files:
            if not file.is_file():
                raise RunError(
                    f"{folder}: expected a training of bloodauto train that has ended, found no {file.name}."
                )


def predict(
    model: str | Path,
    images: str | Path,
    output: str | Path,
    *,
    magnification: float | None = None,
    site: str | Path | None = None,
    announce: Callable[[str], object] | None = None,
) -> Path:
    """Writes the predictions of an exported model as a CSV.

    Its columns are name, label, ``probability_<class>`` for each class, ``abstained`` and ``ood_score``.

    Args:
        model: A ``model.keras``, or the folder that holds it.
        images: A folder, an image, an ``.npz`` or ``.npy`` file.
        output: The CSV to write.
        magnification: How many times larger cells are made first; None: as ``site`` says, or 1.
        site: Unlabelled images of the site, at least 24, from which the magnification is estimated; may be ``images``.
        announce: Told the estimate; None: nobody is.

    Returns:
        ``output``.

    Raises:
        UserError: No such model, no images, too few of the site, or both a magnification and images to estimate it from.

    Example:
        >>> import bloodauto
        >>> path = bloodauto.predict("runs/first/export", "new_cells.npy", "predictions.csv")
        >>> path.read_text().splitlines()[0].split(",")[:2]
        ['name', 'label']
    """
    check_output_file(Path(output))
    loaded = load_model(model)
    if loaded.height_px != loaded.width_px:
        raise UserError(f"{model}: expected a model of square images, got {loaded.height_px} x {loaded.width_px} px.")
    if site is not None and magnification is not None:
        raise UserError("--magnification: expected no --site with it, from which it would be estimated.")
    pixels, names = load_images(Path(images), loaded.height_px)
    factor = 1.0 if magnification is None else magnification
    if site is not None:
        of_site, _ = load_images(Path(site), loaded.height_px)
        estimate = estimate_magnification(lambda shown: predict_outputs(loaded.network, shown)[0], of_site)
        if announce is not None:
            announce(estimate.text())
        factor = estimate.factor
    write_predictions_csv(Path(output), names.tolist(), loaded.predict(pixels, magnification=factor))
    return Path(output)
