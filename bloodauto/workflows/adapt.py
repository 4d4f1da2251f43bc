"""Adapts an exported model to a site with a few labelled cells of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bloodauto.adaptation.colour_transfer import colour_transfer
from bloodauto.adaptation.export import accuracy_difference, adapted_labels, write_adapted_export
from bloodauto.adaptation.frozen_ensemble import FrozenEnsemble
from bloodauto.adaptation.selection import Selection, SiteCells, SourceImages, select_adaptation
from bloodauto.clock import SYSTEM_CLOCK
from bloodauto.config.budget import parse_budget
from bloodauto.config.machine import available_cores
from bloodauto.config.settings import read_settings
from bloodauto.data.class_mapping import map_classes, require_confirmed
from bloodauto.data.load import load_images
from bloodauto.data.split import read_splits
from bloodauto.errors import DataError, RunError, UserError
from bloodauto.evaluation.inference import predict_outputs
from bloodauto.evaluation.site_evaluation import overall_accuracy
from bloodauto.export.model import Model, load_model
from bloodauto.models.device import claim_device_if_unused
from bloodauto.run.artifacts import Adaptation
from bloodauto.run.directory import ExportDirectory, RunDirectory
from bloodauto.run.files import check_output_folder
from bloodauto.types import Images, Labels, Mask, Probabilities, Rows
from bloodauto.workflows.datasets import read_dataset
from bloodauto.workflows.evaluate import Confirm, SiteData, read_site_data
from bloodauto.workflows.process_state import restored_process_state

MIN_CELLS = 8
#: Which images of the source site are taken.
_SEED = 82
DEFAULT_BUDGET = "10cpu-min"
#: Images of the source site that are learnt from beside the new cells, and that measure what the source site loses.
_REPLAYED, _HELD_OUT = 400, 500
#: Building and writing the adapted model takes about this much of the budget's seconds, and at least so many.
_WRITING_FRACTION, _WRITING_SECONDS = 0.2, 10.0


@dataclass(frozen=True)
class Adapted:
    """The result of ``adapt``.

    Attributes:
        files: that were written.
        adaptation: what was chosen, gained and lost.

    Example:
        >>> import dataclasses
        >>> [field.name for field in dataclasses.fields(Adapted)]
        ['files', 'adaptation']
    """

    files: tuple[Path, ...]
    adaptation: Adaptation


@dataclass(frozen=True)
class SourceData:
    """Images of the source site in a model's classes and size.

    Attributes:
        images: what is replayed and what is held out.
        name: where they come from.
    """

    images: SourceImages
    name: str


def adapt(
    model: str | Path,
    labelled: str | Path,
    output: str | Path,
    *,
    source: str | Path | None = None,
    unlabelled: str | Path | None = None,
    class_map: str | None = None,
    budget: str = DEFAULT_BUDGET,
    confirm: Confirm | None = None,
) -> Adapted:
    """Adapts an export to a site. The ensemble stays an ensemble and its weights stay as they are.

    Args:
        model: A ``model.keras``, or the folder that holds it.
        labelled: At least 8 labelled cells of the site: a folder of class folders, a ``.csv`` manifest or an ``.npz`` file.
        output: The folder of the adapted export.
        source: The run of the search that wrote the export, or the images that the model was trained with; None: the
            directory around the export's, if that is a run.
        unlabelled: More images of the site, for its colours; None: the labelled ones alone.
        class_map: What the site's class names mean; see ``evaluate``.
        budget: What the adaptation may cost.
        confirm: Asks about proposed class names; None accepts none.

    Returns:
        The files, and what was gained and lost.

    Raises:
        UserError: No such model, run or images, too few labelled cells, or a model that was adapted already.

    Example:
        >>> import bloodauto
        >>> adapted = bloodauto.adapt("runs/first/export", "cells.npz", "adapted", budget="2cpu-min")
        >>> adapted.adaptation.source_images > 0
        True
    """
    start, seconds = SYSTEM_CLOCK.now(), _wall_seconds(budget)
    loaded = load_model(model)
    _check_folders(loaded, Path(output))
    site = read_site_data(loaded, labelled, class_map=class_map, confirm=confirm)
    cells = _site_cells(site, str(labelled))
    with restored_process_state():
        claim_device_if_unused(cores=available_cores(), gpu_fraction=0.0)
        source_data = _read_source(loaded, source)
        more = cells.images
        if unlabelled is not None:
            more = np.concatenate([more, load_images(Path(unlabelled), loaded.height_px)[0]])
        ensemble = FrozenEnsemble(loaded.network)
        writing = max(_WRITING_FRACTION * seconds, _WRITING_SECONDS)
        selection = select_adaptation(
            ensemble,
            cells,
            source_data.images,
            transforms=[colour_transfer(more, source_data.images.replay)],
            seconds_left=lambda: start + seconds - writing - SYSTEM_CLOCK.now(),
        )
        network = ensemble.with_head(selection.chosen.transform, selection.chosen.head)
        held_out = source_data.images.held_out
        predicted = predict_outputs(network, held_out)[0]
        unchanged = predict_outputs(loaded.network, held_out)[0]
        adaptation = _record(loaded, selection, cells, source_data, (predicted, unchanged))
        labels = adapted_labels(network, loaded.class_names, predicted)
        files = write_adapted_export(Path(output), network, labels, adaptation, cells.images)
    return Adapted(files, adaptation)


def _wall_seconds(budget: str) -> float:
    """How long the adaptation may take on the cores of this machine."""
    parsed = parse_budget(budget)
    if parsed.kind == "gpu":
        raise UserError(f"--budget: expected time of CPUs such as 10cpu-min, or wall-clock time, got {budget!r}.")
    cores = available_cores()
    return parsed.device_seconds(cores) / cores


def _check_folders(model: Model, output: Path) -> None:
    directory = ExportDirectory(model.path.parent)
    if output.resolve() == directory.root.resolve():
        raise UserError(f"--output: expected another folder than that of the model, got {output}.")
    if directory.adaptation.exists:
        raise RunError(
            f"{directory.root}: expected an export as it was searched for, got one that was adapted to a site. Adapt "
            f"{directory.adaptation.read().adapted_model} with all labelled cells."
        )
    check_output_folder(output)


def _site_cells(site: SiteData, where: str) -> SiteCells:
    """The labelled cells whose class the model has."""
    rows = np.flatnonzero(site.labels >= 0)
    if len(rows) < MIN_CELLS:
        lacking = len(site.labels) - len(rows)
        unknown = f" and {lacking} of classes that the model does not have" if lacking else ""
        raise DataError(
            f"{where}: expected at least {MIN_CELLS} labelled cells of the model's classes, got {len(rows)}{unknown}. "
            "Label some more."
        )
    return SiteCells(site.dataset.images[rows], site.labels[rows], site.dataset.groups[rows])


def _read_source(model: Model, source: str | Path | None) -> SourceData:
    """Images of the source site: of the run, or of the data that were named."""
    rng = np.random.default_rng(_SEED)
    run = RunDirectory(model.path.parent.parent if source is None else Path(source))
    if run.settings.is_file():
        settings = read_settings(run)
        dataset = read_dataset(settings.data, settings.image_size_px)
        splits = read_splits(run.splits.path, dataset)
        train, held_out = rng.permutation(splits.train_index(0)), rng.permutation(splits.validation_index(0))
    elif source is not None:
        dataset = read_dataset(str(source), model.height_px)
        rows = rng.permutation(len(dataset))
        train, held_out = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    else:
        raise UserError(
            f"{run.root}: expected the run that wrote {model.path}, found no settings in it. Name the run with --run, or "
            "the images that the model was trained with with --source."
        )
    mapping = map_classes(dataset.class_names, model.class_names)
    require_confirmed(mapping, dataset.source)
    number_of = {name: number for number, name in enumerate(model.class_names)}
    labels = np.array([number_of[str(mapping.target_of[name])] for name in dataset.class_names])[dataset.labels]
    if dataset.images.shape[1:3] != (model.height_px, model.width_px):
        raise UserError(
            f"{dataset.source}: expected images of {model.height_px} x {model.width_px} px, as {model.path} takes them, got "
            f"{dataset.images.shape[1]} x {dataset.images.shape[2]} px. Is it the run of this model?"
        )

    def part(rows: Rows) -> tuple[Images, Labels]:
        return dataset.images[rows], labels[rows]

    return SourceData(SourceImages(*part(train[:_REPLAYED]), *part(held_out[:_HELD_OUT])), dataset.source)


def _record(
    model: Model,
    selection: Selection,
    cells: SiteCells,
    source: SourceData,
    source_probabilities: tuple[Probabilities, Probabilities],
) -> Adaptation:
    def is_correct(probabilities: Probabilities) -> Mask:
        return np.asarray(probabilities.argmax(axis=1) == cells.labels)

    chosen, unchanged, labels = selection.chosen, selection.unchanged, source.images.held_out_labels
    is_unchanged = chosen.transform.is_identity and chosen.head is None
    expected = unchanged.probabilities if is_unchanged else selection.probabilities
    adapted, original = source_probabilities
    counts = Counter(model.class_names[label] for label in cells.labels.tolist())
    return Adaptation(
        adapted_model=str(model.path),
        method=chosen.describe(),
        is_unchanged=is_unchanged,
        magnification=chosen.transform.magnification,
        candidates=selection.candidates,
        cells={name: counts.get(name, 0) for name in model.class_names},
        accuracy=overall_accuracy(cells.labels, expected),
        unchanged_accuracy=overall_accuracy(cells.labels, unchanged.probabilities),
        gain=accuracy_difference(is_correct(expected), is_correct(unchanged.probabilities)),
        source=source.name,
        source_images=len(labels),
        source_accuracy=overall_accuracy(labels, adapted),
        source_unchanged_accuracy=overall_accuracy(labels, original),
        source_change=accuracy_difference(adapted.argmax(axis=1) == labels, original.argmax(axis=1) == labels),
    )
