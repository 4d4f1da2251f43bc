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
Size = Annotated[int | None, typer.Option("--image-size", help="Side in px that images are resized to.")]


@data_app.command("inspect")
def inspect(
    data: Data = "synthetic",
    image_size: Size = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write the whole table as CSV.")] = None,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Write a PNG with eight images of each class.")] = None,
) -> None:
    """Show what the images are and what cleaning finds."""
    import numpy as np

    from bloodauto.data.clean import clean, write_cleaning_csv
    from bloodauto.data.contact_sheet import contact_sheet
    from bloodauto.workflows.prepare import read_cells

    cells = read_cells(data, image_size)
    cleaning = clean(cells)
    summary = cleaning.summary(cells)
    height, width = cells.images.shape[1:3]
    typer.echo(f"{data}: {len(cells)} images of {height} x {width} px, {len(cells.class_names)} classes")
    for name, count in zip(cells.class_names, np.bincount(cells.labels, minlength=len(cells.class_names)), strict=True):
        typer.echo(f"  {name}: {count}")
    labs = sorted(set(cells.labs.tolist()) - {""})
    if labs:
        typer.echo("laboratories: " + ", ".join(labs))
    typer.echo(f"cleaning: {summary.kept} kept, {summary.left_out} left out")
    for finding in summary.findings:
        typer.echo(f"  {finding.count} x {finding.finding}: {finding.action}")
    shown = 0
    for index in np.flatnonzero(cleaning.findings != "none")[:20]:
        label, reason = cells.class_names[cells.labels[index]], cleaning.reasons[index]
        typer.echo(f"  {cells.names[index]} ({label}): {cleaning.findings[index]}, {cleaning.actions[index]}; {reason}")
        shown += 1
    found = int((cleaning.findings != "none").sum())
    if found > shown:
        typer.echo(f"  ... and {found - shown} more; --output FILE.csv writes them all")
    if output is not None:
        write_cleaning_csv(output, cells, cleaning)
        typer.echo(output)
    if sheet is not None:
        chosen = np.concatenate([np.flatnonzero(cells.labels == label)[:8] for label in range(len(cells.class_names))])
        captions = [cells.class_names[label] for label in cells.labels[chosen]]
        _write_png(sheet, contact_sheet(cells.images[chosen], captions))
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
    lab: Annotated[str, typer.Option("--lab", help="lab_a, lab_b or lab_c.")] = "lab_a",
    seed: Annotated[int, typer.Option("--seed")] = 0,
    image_size: Annotated[int, typer.Option("--image-size")] = 96,
    duplicates: Annotated[float, typer.Option("--duplicates", help="Share of planted duplicates.")] = 0.0,
    outliers: Annotated[str, typer.Option("--outliers", help="Copies of each planted outlier, e.g. 160,20.")] = "",
    label_noise: Annotated[float, typer.Option("--label-noise", help="Share of wrong labels.")] = 0.0,
) -> None:
    """Draw synthetic cells as a named laboratory would see them."""
    from bloodauto.data.synthetic.generator import synthesize, write_dataset
    from bloodauto.errors import UserError

    try:
        copies = [int(part) for part in outliers.split(",") if part.strip()]
    except ValueError:
        raise UserError(f"--outliers: expected whole numbers such as 160,20, got {outliers!r}.") from None
    cells = synthesize(
        images,
        laboratory=lab,
        seed=seed,
        image_size_px=image_size,
        duplicate_fraction=duplicates,
        outlier_copies=copies,
        label_noise_fraction=label_noise,
    )
    write_dataset(cells, output)
    typer.echo(output)


class Part(enum.StrEnum):
    """What of a recipe's augmentation is drawn."""

    SEEN = "seen"
    OFFLINE = "offline"
    EQUALISING = "equalising"


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
    image_size: Size = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    rows: Annotated[int, typer.Option("--rows", help="Images shown.", min=1)] = 8,
    stage: Annotated[int, typer.Option("--stage", help="Of which stage, from 1.", min=1)] = 1,
    part: Annotated[
        Part,
        typer.Option("--part", help="What the network sees, what is made offline, or what equalises the classes."),
    ] = Part.SEEN,
) -> None:
    """Draw a contact sheet of what a recipe's augmentation does: each image, then versions of it."""
    import numpy as np

    from bloodauto.config.recipe import load_recipe
    from bloodauto.config.recipe.experiments import find_declared
    from bloodauto.training.augmentation_preview import shown_change
    from bloodauto.transforms import augmentation_sheet
    from bloodauto.workflows.prepare import read_cells

    change = shown_change(load_recipe(find_declared(recipe)), stage - 1, part.value)
    cells = read_cells(data, image_size)
    order = np.random.default_rng(seed).permutation(len(cells))
    if part is Part.EQUALISING:
        # Images are joined within a class, so the sheet shows one: the smallest.
        counts = np.bincount(cells.labels)
        order = order[cells.labels[order] == np.argmin(np.where(counts > 0, counts, len(cells) + 1))]
    sheet = augmentation_sheet(cells.images[order[:rows]], change, seed)
    _write_png(output, sheet)
    typer.echo(output)
