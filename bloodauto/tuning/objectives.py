"""The trials on the Pareto front of a search with several objectives, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bloodauto.config.objectives import Objectives
from bloodauto.run.files import read_json, write_json

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from bloodauto.config.space import Space

PARETO_FRONT_FILE = "pareto_front.json"


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
