"""The commands about images: look at them, draw them, download them, augment them."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import typer

data_app = typer.Typer(no_args_is_help=True, help="Look at images, draw synthetic ones, download public ones.")

Data = Annotated[
    str, typer.Option("--data", help="Folder of class folders, .csv manifest, .npz, or 'synthetic'.", show_default=True)
]
ImageSize = Annotated[int | None, typer.Option("--image-size", help="Side in px that images are resized to.")]


@data_app.command("inspect")
def inspect(
    data: Data = "synthetic",
    image_size: ImageSize = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write the whole table as CSV.")] = None,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Write a PNG with eight images of each class.")] = None,
) -> None:
    """Show what the images are and what cleaning finds."""
    import numpy as np

    from bloodauto.data.clean import clean, write_cleaning_csv
    from bloodauto.data.contact_sheet import contact_sheet
    from bloodauto.workflows.prepare import read_dataset

    dataset = read_dataset(data, image_size)
    cleaning = clean(dataset)
    summary = cleaning.summary(dataset)
    height, width = dataset.images.shape[1:3]
    typer.echo(f"{data}: {len(dataset)} images of {height} x {width} px, {len(dataset.class_names)} classes")
    for name, count in zip(
        dataset.class_names, np.bincount(dataset.labels, minlength=len(dataset.class_names)), strict=True
    ):
        typer.echo(f"  {name}: {count}")
    sites = sorted(set(dataset.sites.tolist()) - {""})
    if sites:
        typer.echo("laboratories: " + ", ".join(sites))
    typer.echo(f"cleaning: {summary.kept} kept, {summary.excluded} left out")
    for finding in summary.findings:
        typer.echo(f"  {finding.count} x {finding.finding}: {finding.action}")
    shown = 0
    for index in np.flatnonzero(cleaning.findings != "none")[:20]:
        label, reason = dataset.class_names[dataset.labels[index]], cleaning.reasons[index]
        typer.echo(
            f"  {dataset.names[index]} ({label}): {cleaning.findings[index]}, {cleaning.actions[index]}; {reason}"
        )
        shown += 1
    found = int((cleaning.findings != "none").sum())
    if found > shown:
        typer.echo(f"  ... and {found - shown} more; --output FILE.csv writes them all")
    if output is not None:
        write_cleaning_csv(output, dataset, cleaning)
        typer.echo(output)
    if sheet is not None:
        chosen = np.concatenate(
            [np.flatnonzero(dataset.labels == label)[:8] for label in range(len(dataset.class_names))]
        )
        captions = [dataset.class_names[label] for label in dataset.labels[chosen]]
        _write_png(sheet, contact_sheet(dataset.images[chosen], captions))
        typer.echo(sheet)


@data_app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="bloodmnist")],
    size: Annotated[int, typer.Option("--size", help="28, 64, 128 or 224 px.")] = 64,
    output: Annotated[Path, typer.Option("--output", help="Folder to write to.")] = Path(),
) -> None:
    """Download a public data set, checked and resumable."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    from bloodauto.data.download import fetch_medmnist

    with Progress("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(f"{name} {size} px", total=None)

        path = fetch_medmnist(
            name, size, output, progress=lambda held, all_: bar.update(task, completed=held, total=all_)
        )
    typer.echo(path)


@data_app.command("synth")
def synth(
    output: Annotated[Path, typer.Option("--output", help="An .npz, or a folder of class folders.")],
    images: Annotated[int, typer.Option("--images")] = 1000,
    site: Annotated[str, typer.Option("--lab", help="lab_a, lab_b or lab_c.")] = "lab_a",
    seed: Annotated[int, typer.Option("--seed")] = 0,
    image_size: Annotated[int, typer.Option("--image-size")] = 96,
    duplicates: Annotated[float, typer.Option("--duplicates", help="Fraction of planted duplicates.")] = 0.0,
    outliers: Annotated[str, typer.Option("--outliers", help="Copies of each planted outlier, e.g. 160,20.")] = "",
    label_noise: Annotated[float, typer.Option("--label-noise", help="Fraction of wrong labels.")] = 0.0,
) -> None:
    """Draw synthetic cells as a named laboratory would see them."""
    from bloodauto.data.synthetic.generator import synthesize, write_dataset
    from bloodauto.errors import UserError

    try:
        copies = [int(part) for part in outliers.split(",") if part.strip()]
    except ValueError:
        raise UserError(f"--outliers: expected whole numbers such as 160,20, got {outliers!r}.") from None
    dataset = synthesize(
        images,
        site=site,
        seed=seed,
        image_size_px=image_size,
        duplicate_fraction=duplicates,
        outlier_copies=copies,
        label_noise_fraction=label_noise,
    )
    write_dataset(dataset, output)
    typer.echo(output)


class AugmentationPart(enum.StrEnum):
    """What of a recipe's augmentation is drawn."""

    ONLINE = "online"
    OFFLINE = "offline"
    SYNTHESISED = "synthesised"


def _write_png(path: Path, image: Any) -> None:
    import cv2

    from bloodauto.run.files import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())


@data_app.command("augment")
def augment(
    recipe: Annotated[str, typer.Option("--recipe", help="A recipe (.yaml), or the name of a shipped one.")],
    output: Annotated[Path, typer.Option("--output", help="PNG to write.")],
    data: Data = "synthetic",
    image_size: ImageSize = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    rows: Annotated[int, typer.Option("--rows", help="Images shown.", min=1)] = 8,
    stage: Annotated[int, typer.Option("--stage", help="Of which stage, from 1.", min=1)] = 1,
    part: Annotated[
        AugmentationPart,
        typer.Option("--part", help="What the network sees, what is made offline, or what equalises the classes."),
    ] = AugmentationPart.ONLINE,
) -> None:
    """Draw a contact sheet of what a recipe's augmentation does: each image, then versions of it."""
    import numpy as np

    from bloodauto.config.recipe import load_recipe
    from bloodauto.config.recipe.experiments import find_recipe_file
    from bloodauto.training.augmentation_preview import augmentation_preview
    from bloodauto.transforms import augmentation_sheet
    from bloodauto.workflows.prepare import read_dataset

    change = augmentation_preview(load_recipe(find_recipe_file(recipe)), stage - 1, part.value)
    dataset = read_dataset(data, image_size)
    order = np.random.default_rng(seed).permutation(len(dataset))
    if part is AugmentationPart.SYNTHESISED:
        # Images are joined within a class, so the sheet shows one: the smallest.
        counts = np.bincount(dataset.labels)
        order = order[dataset.labels[order] == np.argmin(np.where(counts > 0, counts, len(dataset) + 1))]
    sheet = augmentation_sheet(dataset.images[order[:rows]], change, seed)
    _write_png(output, sheet)
    typer.echo(output)
