"""What earlier runs found: where a search starts, and what shapes its first suggestions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bloodauto.config.recipe import Recipe
from bloodauto.config.settings import SearchSettings, read_settings
from bloodauto.config.space import NotInSpace, SearchSpace, load_space, parameters_of, recipe_from_parameters
from bloodauto.errors import RecipeError, RunError
from bloodauto.run.directory import RunDirectory
from bloodauto.run.study_reader import frozen_trials, sqlite_url
from bloodauto.tuning.settings import PriorTrial

#: So many of the earlier runs' recipes become initial configurations, each with another backbone.
_MAX_INITIAL = 2


@dataclass(frozen=True)
class Prior:
    """What earlier runs found.

    Attributes:
        trials: Their completed trials whose recipes the space contains, the best first.
        initial: Name and recipe of the best, each with another backbone.
    """

    trials: tuple[PriorTrial, ...] = ()
    initial: tuple[tuple[str, Recipe], ...] = ()


def load_prior(runs: Sequence[str], space: SearchSpace, settings: SearchSettings) -> Prior:
    """Reads the completed trials of earlier runs.

    Args:
        runs: Directories of runs.
        space: The space of the new search; recipes that it does not contain are skipped.
        settings: The settings of the new search.

    Returns:
        Nothing where ``runs`` is empty.

    Raises:
        RunError: A folder holds no run of this format, its primary objective is another, or it has no completed trial whose
            recipe the space contains.
    """
    entries: list[tuple[str, PriorTrial]] = []
    for folder in runs:
        of_run = _completed_trials(RunDirectory(Path(folder)), space, settings)
        if not of_run:
            raise RunError(
                f"--prior {folder}: expected completed trials whose recipes are in the space {settings.space}, found none. "
                "Take a run of the same space, or leave the option out."
            )
        entries += of_run
    entries.sort(key=lambda entry: -entry[1].objective)
    best = {trial.recipe.backbone.label: (name, trial.recipe) for name, trial in reversed(entries)}
    initial = [best[label] for label in dict.fromkeys(trial.recipe.backbone.label for _, trial in entries)]
    return Prior(tuple(trial for _, trial in entries), tuple(initial[:_MAX_INITIAL]))


def _completed_trials(run: RunDirectory, space: SearchSpace, settings: SearchSettings) -> list[tuple[str, PriorTrial]]:
    """Name and trial of each completed trial that the space contains."""
    earlier = read_settings(run)
    primary = settings.objectives.primary
    if earlier.objectives.primary != primary:
        raise RunError(
            f"--prior {run.root}: expected a run that maximises {primary}, got one that maximises "
            f"{earlier.objectives.primary}. Take another run, or the same --objective."
        )
    earlier_space = load_space(run.space)
    url = sqlite_url(run.study) if earlier.storage is None else earlier.storage
    trials = []
    for trial in frozen_trials(url, run.study_name(earlier.storage)):
        if trial.state.name != "COMPLETE" or not trial.values:
            continue
        try:
            recipe = recipe_from_parameters(earlier_space, trial.params)
            parameters_of(space, recipe)
        except (NotInSpace, RecipeError, KeyError):
            continue
        trials.append((f"{run.root.name} trial {trial.number}", PriorTrial(recipe, trial.values[0])))
    return trials
