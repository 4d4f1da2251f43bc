"""How long a training may be silent before it must be hanging."""

from __future__ import annotations

from bloodauto.recipe import Recipe
from bloodauto.searching.costs import CostModel

_UNKNOWN_EPOCH_SECONDS = 300.0
_OVERDUE_FACTOR = 4.0
_GUESS_FACTOR = 8.0
#: Before any epoch of any training was timed, a silence of this share of the whole time is borne.
_UNTIMED_SHARE = 0.25


def allowed_silence_seconds(costs: CostModel, recipe: Recipe, *, whole_seconds: float) -> float:
    """Wall seconds between two reports that a healthy training of the recipe would not exceed.

    A guess may be wrong by far, and a slow training must not be taken for a dead one; so what was never timed is given
    more.

    Args:
        whole_seconds: wall seconds of the whole run.
    """
    epoch = costs.epoch_seconds(recipe, len(recipe.stages) - 1)
    expected = _UNKNOWN_EPOCH_SECONDS if epoch is None else epoch
    if not costs.has_timed(recipe):
        expected = max(_GUESS_FACTOR * expected, _UNKNOWN_EPOCH_SECONDS)
    allowed = _OVERDUE_FACTOR * (costs.start_seconds(cold=True) + expected)
    return max(allowed, _UNTIMED_SHARE * whole_seconds) if epoch is None else allowed
