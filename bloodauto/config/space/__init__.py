"""Spaces: the grammar, a space and an Optuna trial -> a recipe, and whether a space contains a recipe."""

from bloodauto.config.space.grammar import Choice, FloatRange, IntRange, Space, load_space
from bloodauto.config.space.local_perturbation import neighbour
from bloodauto.config.space.matching import NotInSpace, parameters_of
from bloodauto.config.space.sampling import corners, realise, sample

__all__ = [
    "Choice",
    "FloatRange",
    "IntRange",
    "NotInSpace",
    "Space",
    "corners",
    "load_space",
    "neighbour",
    "parameters_of",
    "realise",
    "sample",
]
