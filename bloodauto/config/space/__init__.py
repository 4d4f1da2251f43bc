"""Search spaces: their grammar, sampling of recipes, local perturbation, and whether a space contains a recipe."""

from bloodauto.config.space.grammar import Choice, FloatRange, IntRange, SearchSpace, load_space
from bloodauto.config.space.local_perturbation import local_perturbation
from bloodauto.config.space.matching import NotInSpace, parameters_of
from bloodauto.config.space.sampling import covering_recipes, recipe_from_parameters, sample

#: For modules that still use the short name.
Space = SearchSpace

__all__ = [
    "Choice",
    "FloatRange",
    "IntRange",
    "NotInSpace",
    "SearchSpace",
    "Space",
    "covering_recipes",
    "load_space",
    "local_perturbation",
    "parameters_of",
    "recipe_from_parameters",
    "sample",
]
