"""The commands for another site: ``evaluate``, ``explain`` and ``adapt``."""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bloodauto.cli.options import AsJson, Magnification, Output, import_workflows, make_console, option
from bloodauto.errors import UserError
from bloodauto.printable import printable

if TYPE_CHECKING:
    from bloodauto.data.class_mapping import ClassMapping
    from bloodauto.run.artifacts import Measured, SiteEvaluation

ModelArgument = Annotated[
    Path, typer.Argument(help="A model.keras, or the folder that holds it. Example: runs/first/export.")
]
ClassMap = Annotated[
    str | None,
    option(
        "--map",
        "What the site's class names mean in the model's, with commas, or a file with one such pair a line; '-' for a "
        "class that the model does not have.",
        default="names that differ in case or a plural only",
        example='--map "PMN=neutrophil,Mo=monocyte"',
    ),
]


def evaluate(
    model: ModelArgument,
    data: Annotated[
        Path,
        typer.Argument(
            help="Labelled images: a folder of class folders, a .csv manifest or an .npz file. Example: new_site/."
        ),
    ],
    class_map: ClassMap = None,
    magnification: Magnification = None,
    output: Annotated[
        Path, option("--output", "HTML page to write, with pictures and saliency maps.", example="--output site.html")
    ] = Path("evaluation.html"),
    as_json: AsJson = False,
) -> None:
    """Measure an exported model on labelled images of a site, with intervals."""
    import_workflows()
    from bloodauto.workflows.evaluate import evaluate as run_evaluation

    evaluation = run_evaluation(
        model,
        data,
        class_map=class_map,
        magnification=1.0 if magnification is None else magnification,
        page=output,
        confirm=confirm_classes,
    )
    _print_evaluation(evaluation)
    typer.echo(output)
    if as_json:
        typer.echo(json.dumps(evaluation.model_dump(mode="json"), ensure_ascii=False))


class Method(enum.StrEnum):
    """Methods of saliency maps."""

    GRAD_CAM = "grad_cam"
    OCCLUSION = "occlusion"


def explain(
    model: ModelArgument,
    images: Annotated[
        list[Path], typer.Argument(help="Images, folders of them, .npz or .npy files. Example: new_cells/ cell.png.")
    ],
    output: Output,
    method: Annotated[
        Method,
        option(
            "--method",
            "How maps are computed: grad_cam from gradients, or occlusion by covering parts of the image, which takes longer.",
            example="--method occlusion",
        ),
    ] = Method.GRAD_CAM,
    label: Annotated[
        str | None,
        option(
            "--class", "The class whose score is explained.", default="the predicted one", example="--class monocyte"
        ),
    ] = None,
    magnification: Magnification = None,
    as_json: AsJson = False,
) -> None:
    """Write a picture of each image that shows which parts of it the prediction rests on."""
    import_workflows()
    from bloodauto.workflows.explain import explain as run_explanation

    explanations = run_explanation(
        model,
        images,
        output,
        method=method.value,
        label=label,
        magnification=1.0 if magnification is None else magnification,
    )
    for entry in explanations:
        about = "" if entry.explained_label == entry.label else f", map of {printable(entry.explained_label)}"
        typer.echo(f"{printable(entry.name)}: {printable(entry.label)} ({entry.probability:.1%}){about}", err=True)
        typer.echo(entry.path)
    if as_json:
        rows = [{**dataclasses.asdict(entry), "path": str(entry.path)} for entry in explanations]
        typer.echo(json.dumps(rows, ensure_ascii=False))


def adapt(
    model: ModelArgument,
    labelled: Annotated[
        Path,
        option(
            "--labelled",
            "At least 8 labelled cells of the site: a folder of class folders, a .csv manifest or an .npz file.",
            example="--labelled forty/",
        ),
    ],
    output: Output,
    run: Annotated[
        Path | None,
        option(
            "--run",
            "Run of the search that wrote the export.",
            default="the directory around the export's folder",
            example="--run runs/first",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        option(
            "--source",
            "The images that the model was trained with, where there is no run.",
            default="those of the run",
            example="--source cells.npz",
        ),
    ] = None,
    unlabelled: Annotated[
        Path | None,
        option("--unlabelled", "More images of the site.", default="none", example="--unlabelled new_site/"),
    ] = None,
    class_map: ClassMap = None,
    budget: Annotated[
        str,
        option(
            "--budget",
            "What the adaptation may spend.",
            unit="device time such as cpu-min, or wall-clock time such as min",
            example="--budget 10cpu-min",
        ),
    ] = "10cpu-min",
    as_json: AsJson = False,
) -> None:
    """Adapt an exported model to a site with a few labelled cells of it."""
    if run is not None and source is not None:
        raise UserError("--source: expected no --run with it; the run names its images.")
    import_workflows()
    from bloodauto.workflows.adapt import adapt as run_adaptation

    adapted = run_adaptation(
        model,
        labelled,
        output,
        source=source if run is None else run,
        unlabelled=unlabelled,
        class_map=class_map,
        budget=budget,
        confirm=confirm_classes,
    )
    make_console(stderr=True).print(adapted.adaptation.summary(), highlight=False)
    for file in adapted.files:
        typer.echo(file)
    if as_json:
        typer.echo(json.dumps(adapted.adaptation.model_dump(mode="json"), ensure_ascii=False))


def confirm_classes(mapping: ClassMapping) -> bool:
    """Asks about proposed class names at a terminal; elsewhere nobody confirms them."""
    if not sys.stdin.isatty():
        return False
    for name in mapping.unconfirmed:
        target = mapping.target_of[name]
        typer.echo(f"  {name} -> {'no class of the model' if target is None else target}", err=True)
    return typer.confirm("Is this right?", err=True)


def _print_evaluation(evaluation: SiteEvaluation) -> None:
    console = make_console(stderr=True)

    def line(name: str, value: Measured | None, images: int | None = None) -> None:
        text = "no image" if value is None else value.text()
        of_images = f"   n = {images}" if images is not None else ""
        console.print(f"{name:>24}  {text}{of_images}", highlight=False)

    line("accuracy", evaluation.accuracy, evaluation.images)
    line("balanced accuracy", evaluation.balanced_accuracy)
    line("macro F1", evaluation.macro_f1)
    for entry in evaluation.recalls:
        line(f"recall of {entry.name}", entry.recall, entry.images)
    for unknown in evaluation.unknown_classes:
        console.print(f"{unknown.name:>24}  {unknown.images} images of a class that the model lacks", highlight=False)
    console.print(evaluation.comparison_text(), highlight=False)
