"""How fast this machine trains each network: kept from search to search, so that the first plan need not guess."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bloodauto.config.recipe import Recipe
from bloodauto.models.device import known_seconds_per_image, save_seconds_per_image


class MachineSpeed:
    """The speeds that earlier searches on this machine observed.

    They are the quickest that were seen: what slows a machine down, such as a neighbour, is seldom there the next time. The
    first epochs of a search correct them.

    Args:
        images: Training images of an epoch.
        on_gpu: Whether the workers train on GPUs.
    """

    def __init__(self, images: int, *, on_gpu: bool) -> None:
        self._images, self._on_gpu = images, on_gpu

    def epoch_seconds(self, recipes: Iterable[Recipe]) -> tuple[tuple[Recipe, float], ...]:
        """The seconds of an epoch's steps with everything unfrozen, for the recipes whose network was trained here.

        Args:
            recipes: Any number for each network.
        """
        known = known_seconds_per_image(on_gpu=self._on_gpu)
        return tuple((recipe, known[_key(recipe)] * self._images) for recipe in recipes if _key(recipe) in known)

    def save(self, observed: Sequence[tuple[Recipe, float]]) -> None:
        """Keeps what a search observed.

        Args:
            observed: A recipe with each network, and the seconds of an epoch's steps with everything unfrozen.
        """
        measured = {_key(recipe): seconds / self._images for recipe, seconds in observed if seconds > 0}
        save_seconds_per_image(measured, on_gpu=self._on_gpu)


def _key(recipe: Recipe) -> str:
    return f"{recipe.backbone.label} {recipe.input.size_px} px"
