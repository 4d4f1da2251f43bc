"""The commands that write and use exported models: ``export-best``, ``export-trained``, ``predict``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bloodauto.cli.options import (
    Data,
    Formats,
    ImageSize,
    Magnification,
    MaxLatency,
    Output,
    Run,
    Seed,
    TargetImages,
    TestTimeAugmentation,
    import_workflows,
    make_console,
    max_members_option,
    option,
    split_names,
    split_numbers,
)
from bloodauto.errors import UserError

if TYPE_CHECKING:
    from bloodauto.export.ensemble_export import Exported
    from bloodauto.run.artifacts import DistillationResult

_COMPARED_SCORES = ("accuracy", "shifted_accuracy", "shift", "ece", "ece_shifted")


def export_best(
    run: Run,
    output: Output,
    formats: Formats = "keras,codabench",
    tta: TestTimeAugmentation = False,
    max_members: Annotated[
        int | None,
        max_members_option("as in the search"),
    ] = None,
    max_latency_ms: MaxLatency = None,
    target_images: TargetImages = None,
    data: Annotated[
        str | None,
        option(
            "--data",
            "Where the images of the search lie by now.",
            default="where they lay during the search",
            example="--data /mnt/new/cells",
        ),
    ] = None,
    distill: Annotated[
        str | None,
        option(
            "--distill",
            "Train one network on the ensemble's predictions and export it instead: a recipe, or 'smallest' of the run's own.",
            default="off",
            example="--distill smallest",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        option(
            "--budget",
            "What --distill may spend.",
            unit="device time such as gpu-h or cpu-min, or wall-clock time such as h or min",
            default="what the search left",
            example="--budget 5cpu-min",
        ),
    ] = None,
) -> None:
    """Write a run's ensemble, or one network distilled from it, as files that run without this project."""
    ensemble_only = {
        "--tta": tta,
        "--max-members": max_members is not None,
        "--max-latency-ms": max_latency_ms is not None,
        "--target-images": target_images is not None,
        "--data": data is not None,
    }
    if distill is None and budget is not None:
        raise UserError("--budget: expected --distill with it; an export by itself trains nothing.")
    if distill is not None and any(ensemble_only.values()):
        first = next(name for name, is_set in ensemble_only.items() if is_set)
        raise UserError(f"{first}: expected no --distill with it; a student is one network, used as it is.")
    import_workflows()
    from bloodauto.workflows import export

    if distill is None:
        exported = export.export_best(
            run,
            output,
            formats=split_names(formats),
            tta=tta,
            max_members=max_members,
            max_latency_ms=max_latency_ms,
            target_images=target_images,
            data=data,
        )
    else:
        exported = export.export_distilled(run, output, student=distill, budget=budget, formats=split_names(formats))
    _print_exported(exported)


def export_trained(
    trainings: Annotated[
        list[Path], typer.Argument(help="Run directories of bloodauto train. Example: runs/a runs/b.")
    ],
    output: Output,
    data: Data = "synthetic",
    image_size_px: ImageSize = None,
    seed: Seed = 0,
    weights: Annotated[
        str | None,
        option(
            "--weights",
            "Weight of each training in the average, with commas.",
            unit="any, above 0",
            default="equal",
            example="--weights 2,1",
        ),
    ] = None,
    formats: Formats = "keras,codabench",
    tta: TestTimeAugmentation = False,
) -> None:
    """Average trainings into one calibrated model, with the images and the seed that they were trained with."""
    import_workflows()
    from bloodauto.workflows import export

    exported = export.export_trained(
        trainings,
        output,
        data=data,
        image_size_px=image_size_px,
        weights=None if weights is None else split_numbers(weights, "--weights"),
        seed=seed,
        formats=split_names(formats),
        tta=tta,
    )
    _print_exported(exported)


def predict(
    model: Annotated[
        Path, typer.Argument(help="A model.keras, or the folder that holds it. Example: runs/first/export.")
    ],
    images: Annotated[Path, typer.Argument(help="A folder, an image, an .npz or .npy file. Example: new_cells/.")],
    output: Annotated[Path, option("--output", "CSV to write.", example="--output predictions.csv")],
    magnification: Magnification = None,
    site: Annotated[
        Path | None,
        option(
            "--site",
            "Unlabelled images of the site, at least 24, from which the magnification is estimated.",
            default="none",
            example="--site new_site/",
        ),
    ] = None,
) -> None:
    """Predict images with an exported model."""
    import_workflows()
    from bloodauto.workflows import export

    announce = functools.partial(typer.echo, err=True)
    typer.echo(export.predict(model, images, output, magnification=magnification, site=site, announce=announce))


def _print_exported(exported: Exported) -> None:
    """The written files, and the effect and cost of test-time augmentation or distillation."""
    gain = exported.gain
    if gain is not None:
        console = make_console(stderr=True)
        without, with_tta = gain.scores_without_tta, gain.scores
        console.print(
            f"test-time augmentation: {gain.forward_passes} passes an image instead of "
            f"{gain.forward_passes_without_tta}, {gain.time_ratio:.1f} times the time; on {gain.images} validation images: "
            f"accuracy {without['accuracy']:.4f} -> {with_tta['accuracy']:.4f}, "
            f"shift {without['shift']:.4f} -> {with_tta['shift']:.4f}",
            highlight=False,
        )
        if not gain.helps:
            console.print("It does not help here; --no-tta exports without it.")
    if exported.distilled is not None:
        _print_distilled(exported.distilled)
    for file in exported.result.files:
        typer.echo(file)


def _print_distilled(distilled: DistillationResult) -> None:
    """The student beside its ensemble, and its cost."""
    comparison, console = distilled.comparison, make_console(stderr=True)
    scores = ", ".join(
        f"{name.replace('_', ' ')} {getattr(comparison.scores, name):.4f} ({getattr(comparison.teacher_scores, name):.4f})"
        for name in _COMPARED_SCORES
    )
    difference = distilled.parity_difference
    parity = (
        "" if difference is None else f"; the file's probabilities differ from the search's by at most {difference:.1e}"
    )
    console.print(
        f"distilled: {distilled.network}, {distilled.parameters:,} parameters instead of {distilled.teacher_parameters:,}, "
        f"{distilled.epochs} epochs; spent {distilled.spent_device_seconds:.0f} of {distilled.budget_device_seconds:.0f} "
        "device-seconds",
        highlight=False,
    )
    console.print(
        f"on {comparison.images} validation images and {comparison.shifted_images} shifted ones, in brackets its ensemble: "
        f"{scores}; the same class for {comparison.agreement:.1%} and {comparison.agreement_shifted:.1%}{parity}",
        highlight=False,
    )
