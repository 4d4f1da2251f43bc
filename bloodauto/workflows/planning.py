"""Everything that is read and checked before a search spends any budget."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bloodauto.config.objectives import Objectives
from bloodauto.config.recipe import Recipe, load_recipe
from bloodauto.config.settings import SearchSettings
from bloodauto.config.shipped import shipped_folder
from bloodauto.config.space import NotInSpace, SearchSpace, covering_recipes, load_space, parameters_of
from bloodauto.errors import RecipeError, WeightsError
from bloodauto.models.backbone_networks import find_weights
from bloodauto.models.backbones import check_recipe, num_parameters
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import write_text
from bloodauto.run.yaml_files import dump_yaml, read_versioned_yaml, with_format_version
from bloodauto.shift.suite import ShiftSuite
from bloodauto.training.augmentation import check_augmentation, shift_suite_for
from bloodauto.tuning.pruning import Pruning, plan_pruning
from bloodauto.tuning.settings import PriorTrial
from bloodauto.workflows.datasets import RunData, load_run_data
from bloodauto.workflows.prior import load_prior

#: The published figure that every shipped system has.
HIDDEN_ACCURACY = "hidden_accuracy"
#: (backbone name, ``weights`` of the recipe) -> file, None for random weights.
WeightsFiles = dict[tuple[str, str], str | None]


@dataclass(frozen=True)
class InitialConfigurations:
    """The initial configurations, smallest network first.

    However short the budget, a small network completes early and gives the others something to beat.

    Attributes:
        in_space: Name and recipe of those that the space contains.
        not_in_space: Name and reason of those that it does not.
    """

    in_space: tuple[tuple[str, Recipe], ...]
    not_in_space: tuple[tuple[str, str], ...]

    def with_prior(self, initial: Sequence[tuple[str, Recipe]]) -> InitialConfigurations:
        """The same, with recipes of earlier runs after the first: if they mislead, they cost no more than their time.

        Args:
            initial: Name and recipe of each.
        """
        known = {recipe.id for _, recipe in self.in_space}
        added = tuple((name, recipe) for name, recipe in initial if recipe.id not in known)
        return InitialConfigurations((*self.in_space[:1], *added, *self.in_space[1:]), self.not_in_space)


@dataclass(frozen=True)
class SearchPlan:
    """What a search knows before it spends any budget.

    Attributes:
        run: Where it writes.
        settings: What was requested.
        data: Images, cleaning, splits.
        space: What it searches.
        initial: What it tries first.
        weights_files: Pre-trained weights of every backbone that the space contains.
        pruning: When it stops a trial.
        suite: The corruptions on which trials are scored.
        prior: Completed trials of earlier runs.
    """

    run: RunDirectory
    settings: SearchSettings
    data: RunData
    space: SearchSpace
    initial: InitialConfigurations
    weights_files: WeightsFiles
    pruning: Pruning
    suite: ShiftSuite
    prior: tuple[PriorTrial, ...] = ()


def plan_search(run: RunDirectory, settings: SearchSettings, space_path: Path) -> SearchPlan:
    """Reads and checks everything that a search needs; writes nothing.

    Args:
        run: The run; it may not exist yet.
        settings: Its settings.
        space_path: The file of its search space.

    Returns:
        The plan.

    Raises:
        UserError: Something that the user must mend first; no budget has been spent.
    """
    space = load_checked_space(space_path)
    initial = load_initial_configurations(settings.warm_start, space, settings.objectives)
    # A search that goes on does not need the earlier runs any more: they may have been deleted.
    named_runs = () if settings.prior is None else settings.prior
    earlier_runs = [folder for folder in named_runs if not run.settings.is_file() or Path(folder).is_dir()]
    prior = load_prior(earlier_runs, space, settings)
    initial = initial.with_prior(prior.initial)
    # Before the weights: nobody should download these for images that cannot be used.
    data = load_run_data(run, settings)
    weights = resolve_weights(space, Path(settings.weights_dir) if settings.weights_dir is not None else None)
    most_epochs = max(recipe.total_epochs for recipe in covering_recipes(space))
    pruning = plan_pruning(settings.pruner, max_epochs=most_epochs)
    suite = suite_of_space(space, seed=settings.seed)
    return SearchPlan(run, settings, data, space, initial, weights, pruning, suite, prior.trials)


def suite_of_space(space: SearchSpace, *, seed: int) -> ShiftSuite:
    """The shift suite for all recipes of a space: corruptions that some recipe trains on count less.

    Args:
        space: The search space.
        seed: Seed of the corruptions.

    Returns:
        The suite.
    """
    recipes = itertools.chain(covering_recipes(space), covering_recipes(space, use_last_values=True))
    return shift_suite_for(recipes, seed=seed)


def load_checked_space(path: Path) -> SearchSpace:
    """Reads a space and checks every value that it can take: grammar, backbones and augmentation.

    Args:
        path: A YAML file.

    Returns:
        The space.

    Raises:
        RecipeError: Names file, line, dotted path, what was expected and what came.
    """
    space = load_space(path)
    for recipe in covering_recipes(space):
        try:
            check_recipe(recipe)
            check_augmentation(recipe)
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from error
    return space


def load_initial_configurations(warm_start: str, space: SearchSpace, objectives: Objectives) -> InitialConfigurations:
    """Reads initial configurations and sorts them into those the space contains and those it does not.

    A search whose primary objective scores clean images alone takes the ``in_domain`` variant of a recipe that has one.

    Args:
        warm_start: Folder or file of recipes, ``shipped``, or ``none``.
        space: The search space.
        objectives: What the search maximizes.

    Returns:
        The initial configurations.

    Raises:
        RecipeError: No recipe is there, or a file is no valid recipe.
    """
    if warm_start == "none":
        return InitialConfigurations((), ())
    path = shipped_folder("trials") if warm_start == "shipped" else Path(warm_start)
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    if not files:
        raise RecipeError(f"--warm-start {path}: expected .yaml recipes, found none. Check the path, or pass none.")
    in_space: list[tuple[str, Recipe]] = []
    not_in_space: list[tuple[str, str]] = []
    for file in files:
        recipe = load_recipe(file, in_domain=objectives.primary != "shift")
        name = file.stem if recipe.id == load_recipe(file).id else f"{file.stem} (in-domain)"
        try:
            parameters_of(space, recipe)
            in_space.append((name, recipe))
        except NotInSpace as reason:
            not_in_space.append((name, str(reason)))
    in_space.sort(key=lambda entry: num_parameters(entry[1].backbone))
    return InitialConfigurations(tuple(in_space), tuple(not_in_space))


def resolve_weights(space: SearchSpace, weights_dir: Path | None) -> WeightsFiles:
    """Finds the weights of every backbone that the space contains.

    Args:
        space: The search space.
        weights_dir: Folder of pre-trained weights that is searched first; None searches Keras' cache alone.

    Returns:
        The file of each backbone and ``weights`` value.

    Raises:
        WeightsError: One message names all files that are missing.
    """
    files: WeightsFiles = {}
    missing = []
    for recipe in covering_recipes(space):
        key = (recipe.backbone.name, recipe.backbone.weights)
        if key in files:
            continue
        try:
            file = find_weights(*key, weights_dir)
            files[key] = None if file is None else str(file.resolve())
        except WeightsError as error:
            files[key] = None
            missing.append(str(error))
    if missing:
        raise WeightsError("\n".join(missing))
    return files


def run_space_path(run: RunDirectory) -> Path:
    """The run's own copy of its space: a resume does not depend on a file that may change."""
    return run.space


def save_space(run: RunDirectory, path: Path) -> None:
    """Writes the space into the run, with its format version.

    Args:
        run: The run.
        path: The space's file.

    Raises:
        RecipeError: As ``read_versioned_yaml``.
    """
    write_text(run_space_path(run), with_format_version(dump_yaml(read_versioned_yaml(path).value)))
