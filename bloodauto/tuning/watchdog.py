"""How long a training may be silent before it must be hanging.

A training gives a sign of life between any two batches. It cannot while its process starts, while its first batch traces and
compiles the graph, and while it is judged.
"""

from __future__ import annotations

from bloodauto.config.recipe import Recipe
from bloodauto.tuning.budget.cost_model import CostModel

_OVERDUE_FACTOR = 4.0
#: Tracing and compiling a network that nobody has timed yet may take minutes, and a guess at its judgement be wrong by far.
_UNTIMED_SECONDS = 600.0
_GUESS_FACTOR = 8.0


def allowed_silence_seconds(costs: CostModel, recipe: Recipe) -> float:
    """Wall seconds between two signs of life that a healthy training of the recipe would not exceed."""
    longest = costs.start_seconds(cold=True) + costs.finish_seconds(recipe)
    if costs.has_timed(recipe):
        return _OVERDUE_FACTOR * longest
    return max(_GUESS_FACTOR * longest, _UNTIMED_SECONDS)
