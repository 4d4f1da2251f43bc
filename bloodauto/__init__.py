"""AutoML for blood-cell images that searches for what holds under distribution shift, inside a fixed compute budget.

    import bloodauto

    result = bloodauto.search("cells.npz", budget="30cpu-min", run_dir="runs/first")
    bloodauto.predict(result.export, "new_cells/", "predictions.csv")

Importing this package imports neither TensorFlow nor Ray, Optuna or plotly. The first use of a name imports what it needs.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from bloodauto.errors import (
    BloodautoError,
    BudgetError,
    DataError,
    RecipeError,
    RunError,
    TrialAbort,
    TrialFailure,
    TrialRejected,
    UserError,
    WeightsError,
)

if TYPE_CHECKING:
    from bloodauto.config.recipe import Recipe, load_recipe
    from bloodauto.config.settings import SearchSettings
    from bloodauto.config.space import Space as SearchSpace
    from bloodauto.config.space import load_space
    from bloodauto.workflows.compare import ExperimentResult, ablate, reproduce
    from bloodauto.workflows.export import export_best, export_distilled, export_trained, predict
    from bloodauto.workflows.search import Progress, SearchResult, resume_search, search
    from bloodauto.workflows.train import TrainResult, train

try:
    __version__ = version("bloodauto")
except PackageNotFoundError:
    # A checkout that was never installed.
    __version__ = "0+unknown"

#: Module and name of what is imported at its first use.
_LIGHT = {
    "Recipe": ("bloodauto.config.recipe", "Recipe"),
    "SearchSettings": ("bloodauto.config.settings", "SearchSettings"),
    "SearchSpace": ("bloodauto.config.space", "Space"),
    "load_recipe": ("bloodauto.config.recipe", "load_recipe"),
    "load_space": ("bloodauto.config.space", "load_space"),
}
#: The same, for modules that import TensorFlow.
_HEAVY = {
    "ExperimentResult": ("bloodauto.workflows.compare", "ExperimentResult"),
    "Progress": ("bloodauto.workflows.search", "Progress"),
    "SearchResult": ("bloodauto.workflows.search", "SearchResult"),
    "TrainResult": ("bloodauto.workflows.train", "TrainResult"),
    "ablate": ("bloodauto.workflows.compare", "ablate"),
    "export_best": ("bloodauto.workflows.export", "export_best"),
    "export_distilled": ("bloodauto.workflows.export", "export_distilled"),
    "export_trained": ("bloodauto.workflows.export", "export_trained"),
    "predict": ("bloodauto.workflows.export", "predict"),
    "reproduce": ("bloodauto.workflows.compare", "reproduce"),
    "resume_search": ("bloodauto.workflows.search", "resume_search"),
    "search": ("bloodauto.workflows.search", "search"),
    "train": ("bloodauto.workflows.train", "train"),
}

__all__ = [
    "BloodautoError",
    "BudgetError",
    "DataError",
    "ExperimentResult",
    "Progress",
    "Recipe",
    "RecipeError",
    "RunError",
    "SearchResult",
    "SearchSettings",
    "SearchSpace",
    "TrainResult",
    "TrialAbort",
    "TrialFailure",
    "TrialRejected",
    "UserError",
    "WeightsError",
    "__version__",
    "ablate",
    "export_best",
    "export_distilled",
    "export_trained",
    "load_recipe",
    "load_space",
    "predict",
    "reproduce",
    "resume_search",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    """Imports a name of ``__all__`` at its first use."""
    if name in _HEAVY:
        from bloodauto.models.tensorflow import import_tensorflow_quietly

        import_tensorflow_quietly()
    elif name not in _LIGHT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HEAVY[name] if name in _HEAVY else _LIGHT[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
