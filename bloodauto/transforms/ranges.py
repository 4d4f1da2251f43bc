"""One operation whose strength is drawn from an interval in physical units, rather than from a magnitude."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bloodauto.errors import RecipeError
from bloodauto.transforms.operations import OPERATIONS, StrengthSampling, select_operations
from bloodauto.transforms.policies import Policy, check_fraction, draw_steps, lists_to_tuples
from bloodauto.transforms.steps import BorderValue, Chain, parse_border

#: What turns a value in the unit of a range into the strength the operation takes, where these differ.
_STRENGTH_OF: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "contrast": lambda factor: factor - 1.0,
    "saturation": lambda factor: factor - 1.0,
    "sharpness": lambda factor: factor - 1.0,
    "zoom": np.log2,
    "jpeg": lambda quality: 100.0 - quality,
}


@dataclass(frozen=True)
class UniformRange(Policy):
    """One operation, its strength drawn evenly from an interval, on a share of the images.

    The interval is in the operation's own unit, except that contrast, saturation and sharpness take the factor (1 changes
    nothing), zoom the magnification (2 doubles lengths) and jpeg the quality (100 does not compress). What an operation
    draws besides its strength, such as the direction of ``translate``, it draws as ever.

    Attributes:
        operation: the name of an operation that has a strength.
        low, high: the interval's ends, ``low`` <= ``high``.
        rate: the share of images it is applied to, in [0, 1].
        border: what a geometric operation reads outside the image: the name of a mode or an RGB colour.
    """

    operation: str
    low: float
    high: float
    rate: float = 1.0
    border: BorderValue = "reflect"

    def __post_init__(self) -> None:
        lists_to_tuples(self, "border")
        (operation,) = select_operations((self.operation,))
        if operation.strength_sampling is StrengthSampling.ALWAYS:
            raise RecipeError(f"{self.operation}: expected an operation with a strength, this one has a single effect.")
        if not -np.inf < self.low <= self.high < np.inf:
            raise RecipeError(f"{self.operation}: expected low <= high, got {self.low!r} and {self.high!r}.")
        check_fraction(self.rate, "rate")
        parse_border(self.border)

    def strengths(self, values: np.ndarray) -> np.ndarray:
        """Values of the interval -> strengths of the operation, float64, in its own unit."""
        convert = _STRENGTH_OF.get(self.operation)
        return values if convert is None else convert(values)

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        choices = np.where(rng.random((count, 1)) < self.rate, 0, -1)
        strengths = self.strengths(self.low + (self.high - self.low) * rng.random((count, 1)))
        # A strength of its own: the magnitude is taken as it is.
        operation = replace(OPERATIONS[self.operation], strength_sampling=StrengthSampling.EXACT, limit=1.0)
        return draw_steps(choices, strengths, (operation,), height, width, parse_border(self.border), rng)
