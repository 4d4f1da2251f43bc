"""AutoML for blood-cell images that searches for what holds in another laboratory, inside a fixed compute budget.

    import bloodauto
    bloodauto.search(data="cells.npz", budget="30cpu-min", run="runs/first")

TensorFlow, Ray and plotly are imported by the functions that need them, not here.
"""

from bloodauto.workflows.search import SearchSummary, export_best, predict, search
from bloodauto.workflows.train import TrainSummary, export_trained, train

__all__ = ["SearchSummary", "TrainSummary", "export_best", "export_trained", "predict", "search", "train"]
