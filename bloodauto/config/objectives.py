"""What a search optimises: the names of the objectives, their directions and their Pareto order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from bloodauto.config.validation import did_you_mean
from bloodauto.errors import UserError
from bloodauto.run.artifacts import Objective

#: A cost, smaller is better: milliseconds per image on the training device, and weights of the network.
Cost = Literal["latency", "parameters"]

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
COSTS: tuple[Cost, ...] = get_args(Cost)

Item = TypeVar("Item")


@dataclass(frozen=True)
class Objectives:
    """The objectives of a search, the primary one first.

    The primary objective is a score. It alone decides which epoch is kept, which trials are pruned, what is refitted and how
    the ensemble is selected; the others only shape the Pareto front.

    Attributes:
        names: at least one; the first is an ``Objective``, the others may also be a ``Cost``.

    Example:
        >>> Objectives(("shift", "latency")).directions
        ['maximize', 'minimize']
    """

    names: tuple[Objective | Cost, ...] = ("shift",)

    @property
    def primary(self) -> Objective:
        """The first objective."""
        primary = self.names[0]
        assert primary != "latency", "parse_objectives lets only a score come first"
        assert primary != "parameters", "parse_objectives lets only a score come first"
        return primary

    @property
    def secondary(self) -> tuple[Objective | Cost, ...]:
        """All but the first."""
        return self.names[1:]

    @property
    def directions(self) -> list[Literal["maximize", "minimize"]]:
        """One direction per objective, in Optuna's words."""
        return ["minimize" if name in COSTS else "maximize" for name in self.names]

    def maximized(self, values: Sequence[float]) -> tuple[float, ...]:
        """The values with the sign of costs turned, so that larger is better for all of them."""
        return tuple(-value if name in COSTS else value for name, value in zip(self.names, values, strict=True))

    def pareto_front(self, items: Sequence[Item], values: Callable[[Item], Sequence[float]]) -> list[Item]:
        """The items that no other item dominates (as good in every objective, better in one), in their order.

        Args:
            items: what is compared.
            values: gives the values of an item, one per objective.
        """
        maximized = [self.maximized(values(item)) for item in items]
        return [
            item
            for item, candidate in zip(items, maximized, strict=True)
            if not any(_dominates(rival, candidate) for rival in maximized)
        ]


def _dominates(rival: Sequence[float], candidate: Sequence[float]) -> bool:
    pairs = list(zip(rival, candidate, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def parse_objectives(text: str) -> Objectives:
    """Reads objectives separated by commas, the primary one first.

    Args:
        text: for example ``shift`` or ``shift,latency``.

    Raises:
        UserError: an unknown name, a repeated name, or a cost in the first place.

    Example:
        >>> parse_objectives("shift,latency").secondary
        ('latency',)
    """
    valid: dict[str, Objective | Cost] = {name: name for name in (*OBJECTIVES, *COSTS)}
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in valid:
            raise UserError(
                f"--objective: expected {', '.join(OBJECTIVES)}, or several with commas, also {' and '.join(COSTS)}, "
                f"got {name!r}; {did_you_mean(name, valid)}"
            )
    if len(set(names)) < len(names):
        raise UserError(f"--objective: expected each name once, got {text!r}.")
    if names[0] in COSTS:
        raise UserError(
            f"--objective: expected a score first ({', '.join(OBJECTIVES)}) as the primary objective, got {text!r}."
        )
    return Objectives(tuple(valid[name] for name in names))
