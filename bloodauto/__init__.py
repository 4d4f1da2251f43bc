"""AutoML for blood-cell images that searches for what holds under distribution shift, inside a fixed compute budget.

    import bloodauto

    result = bloodauto.search("cells.npz", budget="30cpu-min", run_dir="runs/first")
    model = bloodauto.load_model(result.export)
    predictions = model.predict(images)  # uint8 (n, height, width, 3), RGB

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
    TrialInterrupted,
    TrialRejected,
    UserError,
    WeightsError,
)

if TYPE_CHECKING:
    from bloodauto.config.recipe import Recipe, load_recipe
    from bloodauto.config.settings import SearchSettings
    from bloodauto.config.space import SearchSpace, load_space
    from bloodauto.export.model import Model, Predictions, load_model
    from bloodauto.report.html import write_report
    from bloodauto.workflows.adapt import Adapted, adapt
    from bloodauto.workflows.compare import ComparisonResult, ablate, reproduce
    from bloodauto.workflows.comparison.scaled_recipes import ScaledTraining
    from bloodauto.workflows.comparison.settings import ComparisonSettings
    from bloodauto.workflows.evaluate import evaluate
    from bloodauto.workflows.explain import Explanation, explain
    from bloodauto.workflows.export import export_best, export_distilled, export_trained, predict
    from bloodauto.workflows.search import Progress, SearchResult, resume_search, search
    from bloodauto.workflows.train import TrainResult, train

try:
    __version__ = version("bloodauto")
except PackageNotFoundError:
    # A checkout that was never installed.
    __version__ = "0+unknown"

#: The module of each name that is imported at its first use.
_MODULES = {
    "Recipe": "bloodauto.config.recipe",
    "SearchSettings": "bloodauto.config.settings",
    "SearchSpace": "bloodauto.config.space",
    "load_recipe": "bloodauto.config.recipe",
    "load_space": "bloodauto.config.space",
    # plotly is imported with this one.
    "write_report": "bloodauto.report.html",
}
#: The same, of names whose modules import TensorFlow.
_TENSORFLOW_MODULES = {
    "ComparisonResult": "bloodauto.workflows.compare",
    "ComparisonSettings": "bloodauto.workflows.comparison.settings",
    "Progress": "bloodauto.workflows.search",
    "Model": "bloodauto.export.model",
    "Predictions": "bloodauto.export.model",
    "ScaledTraining": "bloodauto.workflows.comparison.scaled_recipes",
    "SearchResult": "bloodauto.workflows.search",
    "TrainResult": "bloodauto.workflows.train",
    "Adapted": "bloodauto.workflows.adapt",
    "ablate": "bloodauto.workflows.compare",
    "adapt": "bloodauto.workflows.adapt",
    "evaluate": "bloodauto.workflows.evaluate",
    "Explanation": "bloodauto.workflows.explain",
    "explain": "bloodauto.workflows.explain",
    "export_best": "bloodauto.workflows.export",
    "export_distilled": "bloodauto.workflows.export",
    "export_trained": "bloodauto.workflows.export",
    "load_model": "bloodauto.export.model",
    "predict": "bloodauto.workflows.export",
    "reproduce": "bloodauto.workflows.compare",
    "resume_search": "bloodauto.workflows.search",
    "search": "bloodauto.workflows.search",
    "train": "bloodauto.workflows.train",
}

__all__ = [
    "Adapted",
    "BloodautoError",
    "BudgetError",
    "ComparisonResult",
    "ComparisonSettings",
    "DataError",
    "Explanation",
    "Model",
    "Predictions",
    "Progress",
    "Recipe",
    "RecipeError",
    "RunError",
    "ScaledTraining",
    "SearchResult",
    "SearchSettings",
    "SearchSpace",
    "TrainResult",
    "TrialAbort",
    "TrialFailure",
    "TrialInterrupted",
    "TrialRejected",
    "UserError",
    "WeightsError",
    "__version__",
    "ablate",
    "adapt",
    "evaluate",
    "explain",
    "export_best",
    "export_distilled",
    "export_trained",
    "load_model",
    "load_recipe",
    "load_space",
    "predict",
    "reproduce",
    "resume_search",
    "search",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Imports a name of ``__all__`` at its first use."""
    module = _TENSORFLOW_MODULES.get(name, _MODULES.get(name))
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _TENSORFLOW_MODULES:
        from bloodauto.models.tensorflow import import_tensorflow_quietly

        import_tensorflow_quietly()
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
