"""The commands about images: inspect, download, draw and augment them."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bloodauto.cli.options import Data, ImageSize, Seed, import_workflows, option, with_debug
from bloodauto.errors import UserError
from bloodauto.printable import printable

if TYPE_CHECKING:
    from bloodauto.data.clean import Cleaning
    from bloodauto.data.dataset import CellDataset
    from bloodauto.types import Image


_SHOWN_FINDINGS = 20
_CONTACT_SHEET_IMAGES_PER_CLASS = 8


def inspect(
    data: Data = "synthetic",
    image_size_px: ImageSize = None,
    output: Annotated[
        Path | None,
        option("--output", "CSV to which all findings are written.", default="none", example="--output findings.csv"),
    ] = None,
    contact_sheet: Annotated[
        Path | None,
        option(
            "--contact-sheet",
            "PNG to which eight images of each class are drawn.",
            default="none",
            example="--contact-sheet cells.png",
        ),
    ] = None,
) -> None:
    """Show what the images are and what cleaning finds."""
    from bloodauto.data.clean import clean, write_cleaning_csv
    from bloodauto.run.files import check_output_file
    from bloodauto.workflows.datasets import read_dataset

    for path, name in ((output, "--output"), (contact_sheet, "--contact-sheet")):
        if path is not None:
            check_output_file(path, name)
    dataset = read_dataset(data, image_size_px)
    cleaning = clean(dataset)
    _print_dataset(data, dataset)
    _print_findings(dataset, cleaning)
    if output is not None:
        write_cleaning_csv(output, dataset, cleaning)
        typer.echo(output)
    if contact_sheet is not None:
        _write_contact_sheet(contact_sheet, dataset)
        typer.echo(contact_sheet)


def _print_dataset(data: str, dataset: CellDataset) -> None:
    import numpy as np

    height, width = dataset.images.shape[1:3]
    typer.echo(f"{printable(data)}: {len(dataset)} images of {height} x {width} px, {len(dataset.class_names)} classes")
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    for name, count in zip(dataset.class_names, counts, strict=True):
        typer.echo(f"  {name}: {count}")
    sites = sorted(set(dataset.sites.tolist()) - {""})
    if sites:
        typer.echo("sites: " + ", ".join(sites))
    for note in dataset.notes:
        typer.echo(f"note: {note}")


def _print_findings(dataset: CellDataset, cleaning: Cleaning) -> None:
    import numpy as np

    summary = cleaning.summary(dataset)
    typer.echo(f"cleaning: {summary.kept} kept, {summary.excluded} excluded")
    for finding in summary.findings:
        typer.echo(f"  {finding.count} x {finding.finding}: {finding.action}")
    rows = np.flatnonzero(cleaning.findings != "none")
    for index in rows[:_SHOWN_FINDINGS]:
        label, reason = dataset.class_names[dataset.labels[index]], cleaning.reasons[index]
        typer.echo(
            f"  {dataset.names[index]} ({label}): {cleaning.findings[index]}, {cleaning.actions[index]}; {reason}"
        )
    if len(rows) > _SHOWN_FINDINGS:
        typer.echo(f"  ... and {len(rows) - _SHOWN_FINDINGS} more; --output FILE.csv writes them all")


def _write_contact_sheet(path: Path, dataset: CellDataset) -> None:
    import numpy as np

    from bloodauto.data.contact_sheet import contact_sheet

    rows = [
        np.flatnonzero(dataset.labels == label)[:_CONTACT_SHEET_IMAGES_PER_CLASS]
        for label in range(len(dataset.class_names))
    ]
    index = np.concatenate(rows)
    captions = [dataset.class_names[label] for label in dataset.labels[index]]
    _write_png(path, contact_sheet(dataset.images[index], captions))


def fetch(
    name: Annotated[str, typer.Argument(help="Name of the data set: bloodmnist. Example: bloodmnist.")],
    size_px: Annotated[
        int, option("--size-px", "Side of the images: 28, 64, 128 or 224.", unit="pixels", example="--size-px 128")
    ] = 64,
    output: Annotated[
        Path, option("--output", "Folder to write to.", default="the current folder", example="--output data")
    ] = Path(),
) -> None:
    """Download a public data set; the file is checked, and an interrupted download continues."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    from bloodauto.data.download import fetch_medmnist

    with Progress("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(f"{name} {size_px} px", total=None)

        def show(received_bytes: int, total_bytes: int | None) -> None:
            bar.update(task, completed=received_bytes, total=total_bytes)

        path = fetch_medmnist(name, size_px, output, progress=show)
    typer.echo(path)


def synth(
    output: Annotated[
        Path, option("--output", "An .npz file, or a folder of class folders.", example="--output cells.npz")
    ],
    images: Annotated[int, option("--images", "Number of images.", unit="images", example="--images 400")] = 1000,
    site: Annotated[str, option("--site", "Simulated site: lab_a, lab_b or lab_c.", example="--site lab_b")] = "lab_a",
    seed: Seed = 0,
    image_size_px: Annotated[
        int,
        option(
            "--image-size-px", "Side of the images.", unit="pixels", example="--image-size-px 64", short="--image-size"
        ),
    ] = 96,
    duplicates: Annotated[
        float,
        option("--duplicates", "Planted duplicates.", unit="fraction of the images", example="--duplicates 0.1"),
    ] = 0.0,
    outliers: Annotated[
        str,
        option(
            "--outliers", "Copies of each planted outlier, with commas.", default="none", example="--outliers 160,20"
        ),
    ] = "",
    label_noise: Annotated[
        float,
        option("--label-noise", "Wrong labels.", unit="fraction of the images", example="--label-noise 0.05"),
    ] = 0.0,
) -> None:
    """Draw synthetic cells as a simulated site images them."""
    from bloodauto.data.synthetic.generator import PlantedFaults, synthesize
    from bloodauto.data.write import check_dataset_path, write_dataset

    check_dataset_path(output)
    try:
        copies = [int(part) for part in outliers.split(",") if part.strip()]
    except ValueError as error:
        raise UserError(f"--outliers: expected whole numbers such as 160,20, got {outliers!r}.") from error
    dataset = synthesize(
        images,
        site=site,
        seed=seed,
        image_size_px=image_size_px,
        faults=PlantedFaults(
            duplicate_fraction=duplicates, outlier_copies=tuple(copies), label_noise_fraction=label_noise
        ),
    )
    write_dataset(dataset, output)
    typer.echo(output)


class AugmentationPart(enum.StrEnum):
    """The parts of a recipe's augmentation."""

    ONLINE = "online"
    OFFLINE = "offline"
    SYNTHESISED = "synthesised"


def _write_png(path: Path, image: Image) -> None:
    import cv2

    from bloodauto.run.files import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())


def augment(
    recipe: Annotated[
        str, option("--recipe", "A recipe (.yaml), or the name of a shipped one.", example="--recipe tiny_cnn")
    ],
    output: Annotated[Path, option("--output", "PNG to write.", example="--output augmented.png")],
    data: Data = "synthetic",
    image_size_px: ImageSize = None,
    seed: Seed = 0,
    rows: Annotated[int, option("--rows", "Number of images.", unit="images", example="--rows 4", min=1)] = 8,
    stage: Annotated[
        int, option("--stage", "Stage of the recipe, counted from 1.", unit="stage number", example="--stage 2", min=1)
    ] = 1,
    part: Annotated[
        AugmentationPart,
        option(
            "--part",
            "What is drawn: the network's input, images made before the training, or synthetic images that balance classes.",
            example="--part offline",
        ),
    ] = AugmentationPart.ONLINE,
) -> None:
    """Draw a contact sheet of a recipe's augmentation: each image, then augmented versions of it."""
    import_workflows()
    import numpy as np

    from bloodauto.config.recipe import load_recipe
    from bloodauto.config.shipped import find_recipe_file
    from bloodauto.run.files import check_output_file
    from bloodauto.training.augmentation_preview import augmentation_contact_sheet, augmentation_preview
    from bloodauto.workflows.datasets import read_dataset

    check_output_file(output)
    preview = augmentation_preview(load_recipe(find_recipe_file(recipe)), stage - 1, part.value)
    dataset = read_dataset(data, image_size_px)
    order = np.random.default_rng(seed).permutation(len(dataset))
    if part is AugmentationPart.SYNTHESISED:
        # Images are mixed within a class, so the sheet shows one class: the smallest.
        counts = np.bincount(dataset.labels)
        order = order[dataset.labels[order] == np.argmin(np.where(counts > 0, counts, len(dataset) + 1))]
    _write_png(output, augmentation_contact_sheet(dataset.images[order[:rows]], preview, seed=seed))
    typer.echo(output)


data_app = typer.Typer(no_args_is_help=True, help="Inspect images, draw synthetic ones, download public ones.")
for _command in (inspect, fetch, synth, augment):
    data_app.command(_command.__name__)(with_debug(_command))
