"""From settings to everything a search needs, before any budget is spent."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bloodauto.config.objectives import Objectives
from bloodauto.config.recipe import Recipe, load_recipe
from bloodauto.config.settings import SearchSettings
from bloodauto.config.shipped import shipped_folder
from bloodauto.config.space import NotInSpace, Space, covering_recipes, load_space, parameters_of
from bloodauto.config.validation import did_you_mean
from bloodauto.data.clean import Cleaning, clean, write_cleaning_csv
from bloodauto.data.dataset import CellDataset
from bloodauto.data.load import load_dataset, load_images
from bloodauto.data.split import Splits, default_splits, read_splits, write_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.errors import DataError, RecipeError, RunError, WeightsError
from bloodauto.models.backbones import check_recipe, find_weights, num_parameters
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import atomic_path, read_json, write_json
from bloodauto.training.augmentation import check_augmentation

#: What ``--data synthetic`` draws.
SYNTHETIC = "synthetic"
_SYNTHETIC_IMAGES = 2400
_MAX_FOLDS = 5
_MIN_IMAGE_PX = 16
#: Shares of so many images are known to three points; every trial answers for them once.
_MAX_TARGET_IMAGES = 256

#: (backbone name, ``weights`` of the recipe) -> file, None for random weights.
WeightsFiles = dict[tuple[str, str], str | None]


@dataclass(frozen=True)
class InitialConfigurations:
    """The initial configurations: those a space contains, and those it does not, with the reason.

    Small networks come first: however short the budget, something runs its course early and the others have a rival.
    """

    in_space: tuple[tuple[str, Recipe], ...]
    not_in_space: tuple[tuple[str, str], ...]


def read_dataset(data: str, image_size_px: int | None) -> CellDataset:
    """Cells from a path, or the built-in synthetic ones.

    Raises:
        DataError: as ``load_dataset``, or a size in which no cell can be told from another.
    """
    if image_size_px is not None and image_size_px < _MIN_IMAGE_PX:
        raise DataError(f"--image-size: expected at least {_MIN_IMAGE_PX} px, got {image_size_px}.")
    if data == SYNTHETIC:
        size = 96 if image_size_px is None else image_size_px
        return synthesize(_SYNTHETIC_IMAGES, site="lab_a", seed=0, image_size_px=size, duplicate_fraction=0.02)
    return load_dataset(Path(data), image_size_px=image_size_px)


def find_space(name: str) -> Path:
    """The file of a shipped space's name, or the path itself.

    Raises:
        RecipeError: neither; the message names the nearest shipped space.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    shipped = {file.stem: file for file in sorted(shipped_folder("search_spaces").glob("*.yaml"))}
    if name not in shipped:
        raise RecipeError(
            f"--space: expected a shipped space or a .yaml file, got {name!r}; {did_you_mean(name, shipped)}"
        )
    return shipped[name]


def load_checked_space(path: Path) -> Space:
    """Reads a space and checks every value it can take against recipes, backbones and the augmentation engine.

    Raises:
        RecipeError: with file, line, dotted path, what was expected and what came.
    """
    space = load_space(path)
    for recipe in covering_recipes(space):
        try:
            check_recipe(recipe)
            check_augmentation(recipe)
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from None
    return space


def load_initial_configurations(warm_start: str, space: Space, objectives: Objectives) -> InitialConfigurations:
    """The recipes of a folder or file, sorted into those the space contains and those it does not.

    They are what is known to do well by the primary objective: where it looks at clean images alone, the ``in_domain`` variants
    of those that have one.

    Raises:
        RecipeError: nothing there, or a file that is no valid recipe.
    """
    if warm_start == "none":
        return InitialConfigurations((), ())
    path = shipped_folder("trials") if warm_start == "shipped" else Path(warm_start)
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    if not files:
        raise RecipeError(f"--warm-start {path}: expected .yaml recipes, found none. Check the path, or pass none.")
    in_space, not_in_space = [], []
    for file in files:
        recipe = load_recipe(file, in_domain=objectives.primary != "shift")
        name = file.stem if recipe.id == load_recipe(file).id else f"{file.stem} (same lab)"
        try:
            parameters_of(space, recipe)
            in_space.append((name, recipe))
        except NotInSpace as reason:
            not_in_space.append((name, str(reason)))
    in_space.sort(key=lambda named: num_parameters(named[1].backbone))
    return InitialConfigurations(tuple(in_space), tuple(not_in_space))


def resolve_weights(space: Space, weights_dir: Path | None) -> WeightsFiles:
    """Finds the weights of every backbone the space can choose.

    Raises:
        WeightsError: one message that names all that are missing.
    """
    found: WeightsFiles = {}
    missing = []
    for recipe in covering_recipes(space):
        key = (recipe.backbone.name, recipe.backbone.weights)
        if key in found:
            continue
        try:
            file = find_weights(*key, weights_dir)
            found[key] = None if file is None else str(file.resolve())
        except WeightsError as error:
            found[key] = None
            missing.append(str(error))
    if missing:
        raise WeightsError("\n".join(missing))
    return found


@dataclass(frozen=True)
class PreparedData:
    """Images, what cleaning says of them, and where each belongs.

    ``target``: uint8 (k, h, w, 3), unlabelled images of the laboratory the network is meant for; k may be 0.
    """

    dataset: CellDataset
    cleaning: Cleaning
    splits: Splits
    target: np.ndarray


def prepare_data(run: RunDirectory, settings: SearchSettings) -> PreparedData:
    """Reads, cleans and splits, or checks against the run what it has of these already; writes nothing.

    Raises:
        DataError: images that cannot be used.
        RunError: a resume with other images.
    """
    dataset = read_dataset(settings.data, settings.image_size_px)
    digest = dataset.digest()
    if run.fingerprint.path.is_file() and read_json(run.fingerprint.path)["digest"] != digest:
        raise RunError(
            f"{settings.data}: expected the images the run was started with, but they have changed. "
            "Restore them, or start a new run."
        )
    target = read_target_images(settings.target_images, dataset, seed=settings.seed)
    cleaning = clean(dataset, enabled=settings.cleaning)
    if run.splits.path.is_file():
        return PreparedData(dataset, cleaning, read_splits(run.splits.path, dataset), target)
    smallest = int(np.bincount(dataset.labels[cleaning.keep], minlength=len(dataset.class_names)).min())
    splits = default_splits(dataset, cleaning, seed=settings.seed, num_folds=max(2, min(_MAX_FOLDS, smallest - 1)))
    return PreparedData(dataset, cleaning, splits, target)


def read_target_images(path: str | None, dataset: CellDataset, *, seed: int) -> np.ndarray:
    """Unlabelled images in the size of the cells, in random order, no more than are looked at: uint8 (k, h, w, 3).

    Raises:
        DataError: no usable images there, or cells that are not square.
    """
    height, width = dataset.images.shape[1:3]
    if path is None:
        return np.empty((0, height, width, 3), np.uint8)
    if height != width:
        raise DataError(f"--target-images: expected square cells to go with them, got {height} x {width} px.")
    images, _ = load_images(Path(path), height)
    return images[np.random.default_rng(seed).permutation(len(images))[:_MAX_TARGET_IMAGES]]


def save_data(run: RunDirectory, data: PreparedData) -> None:
    """Writes fingerprint, cleaning and splits, once."""
    if run.splits.path.is_file():
        return
    dataset = data.dataset
    # In the order of the labels' numbers: whoever reads the run names the columns of its predictions by it.
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    write_json(
        run.fingerprint.path,
        {
            "source": dataset.source,
            "images": len(dataset),
            "height_px": dataset.images.shape[1],
            "width_px": dataset.images.shape[2],
            "classes": dict(zip(dataset.class_names, counts.tolist(), strict=True)),
            "sites": dict(Counter(site for site in dataset.sites.tolist() if site)),
            "excluded": int((~data.cleaning.keep).sum()),
            "digest": dataset.digest(),
        },
    )
    write_cleaning_csv(run.cleaning.path, dataset, data.cleaning)
    write_splits(run.splits.path, dataset, data.splits)


def run_space_path(run: RunDirectory) -> Path:
    """Where a run keeps its copy of its space, so that a resume does not depend on a file that may change."""
    return run.root / "space.yaml"


def save_space(run: RunDirectory, path: Path) -> None:
    """Copies the space into the run."""
    with atomic_path(run_space_path(run)) as temporary:
        shutil.copyfile(path, temporary)
