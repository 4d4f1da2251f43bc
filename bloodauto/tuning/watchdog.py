"""How long a training may be silent before it must be hanging.

A training gives a heartbeat between any two batches. It cannot while its process starts, while its first batch traces and
compiles the graph, and while it is judged.
"""

from __future__ import annotations

from bloodauto.config.recipe import Recipe
from bloodauto.tuning.budget.cost_model import CostModel

_TIMEOUT_FACTOR = 4.0
#: Tracing and compiling a network that nobody has timed yet may take minutes, and a guess at its judgement be wrong by far.
_UNMEASURED_TIMEOUT_SECONDS = 600.0
_ESTIMATE_FACTOR = 8.0


def heartbeat_timeout_seconds(costs: CostModel, recipe: Recipe) -> float:
    """Wall seconds between two heartbeats that a healthy training of the recipe would not exceed."""
    longest = costs.start_seconds(cold=True) + costs.finish_seconds(recipe)
    if costs.has_timed(recipe):
        return _TIMEOUT_FACTOR * longest
    return max(_ESTIMATE_FACTOR * longest, _UNMEASURED_TIMEOUT_SECONDS)
