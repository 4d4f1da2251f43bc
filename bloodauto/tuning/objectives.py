"""What a search maximises: one score, or several objectives at once with the first leading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from bloodauto.config.validation import did_you_mean
from bloodauto.errors import UserError
from bloodauto.run.files import read_json, write_json

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from bloodauto.config.space import Space

#: Scores, 0-1, larger is better; the names of ``trial.train.Objective``, which cannot be had without TensorFlow.
SCORES = ("shift", "accuracy", "balanced_accuracy", "macro_f1")
#: Costs, smaller is better: milliseconds an image on the training's device, and weights of the network.
COSTS = ("latency", "parameters")
_COST_KEYS = {"latency": "latency_ms", "parameters": "parameters"}
PARETO_FRONT_FILE = "pareto_pareto_front.json"

Item = TypeVar("Item")


@dataclass(frozen=True)
class Objectives:
    """Names of scores and costs; the first is a score, which decides about epochs, pruning, refits and the ensemble."""

    names: tuple[str, ...]

    @property
    def primary(self) -> str:
        return self.names[0]

    @property
    def secondary(self) -> tuple[str, ...]:
        return self.names[1:]

    @property
    def directions(self) -> list[Literal["maximize", "minimize"]]:
        """As Optuna knows them."""
        return ["minimize" if name in COSTS else "maximize" for name in self.names]

    def secondary_values(self, result: dict[str, Any]) -> tuple[float, ...]:
        """The values of all but the first, from what ``result.json`` holds."""
        return tuple(
            float(result[_COST_KEYS[name]] if name in COSTS else result["metrics"][name]) for name in self.secondary
        )

    def maximized(self, values: Sequence[float]) -> tuple[float, ...]:
        """Values so turned that larger is better."""
        return tuple(-value if name in COSTS else value for name, value in zip(self.names, values, strict=True))

    def pareto_front(self, items: Sequence[Item], values: Callable[[Item], Sequence[float]]) -> list[Item]:
        """The items that no other dominates (as good everywhere, better somewhere), in their order."""
        maximized = [self.maximized(values(item)) for item in items]
        return [
            item
            for item, own in zip(items, maximized, strict=True)
            if not any(_dominates(one, own) for one in maximized)
        ]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def parse_objectives(text: str) -> Objectives:
    """Reads ``shift`` or ``shift,latency``.

    Raises:
        UserError: an unknown name, one given twice, or a cost in the first place.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in (*SCORES, *COSTS):
            valid = (*SCORES, *COSTS)
            raise UserError(
                f"--objective: expected {', '.join(SCORES)}, or several with commas, also {' and '.join(COSTS)}, "
                f"got {name!r}; {did_you_mean(name, valid)}"
            )
    if len(set(names)) < len(names):
        raise UserError(f"--objective: expected each name once, got {text!r}.")
    if names[0] in COSTS:
        raise UserError(f"--objective: expected a score first ({', '.join(SCORES)}), which leads; got {text!r}.")
    return Objectives(names)


def write_pareto_front(run: Path, objectives: Objectives, complete: Sequence[FrozenTrial], space: Space) -> None:
    """Writes ``pareto_front.json``: the completed trials and that no other dominates, the best first."""
    from bloodauto.config.space import recipe_from_parameters

    pareto_front = objectives.pareto_front(complete, lambda trial: trial.values)
    rows = []
    for trial in sorted(pareto_front, key=lambda trial: (-trial.values[0], trial.number)):
        recipe = recipe_from_parameters(space, trial.params)
        rows.append(
            {
                "trial": trial.number,
                "backbone": recipe.backbone.label,
                "recipe_id": recipe.id,
                "values": dict(zip(objectives.names, trial.values, strict=True)),
            }
        )
    write_json(run / PARETO_FRONT_FILE, {"objectives": list(objectives.names), "trials": rows})


def read_pareto_front(run: Path) -> tuple[dict[str, Any], ...]:
    """The trials in ``pareto_front.json``; none when there is no such file."""
    path = run / PARETO_FRONT_FILE
    return tuple(read_json(path)["trials"]) if path.is_file() else ()
