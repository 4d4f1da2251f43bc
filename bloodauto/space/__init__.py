"""Spaces: the grammar, a space and an Optuna trial -> a recipe, and whether a space contains a recipe."""

from bloodauto.space.grammar import Choice, FloatRange, IntRange, Space, load_space
from bloodauto.space.matching import NotInSpace, parameters_of
from bloodauto.space.neighbours import neighbour
from bloodauto.space.sampling import corners, realise, sample

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
