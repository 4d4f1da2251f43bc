"""Figure: hyperparameter importance."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from bloodauto.report.figures.style import ACCENT, Figure, NoFigure, base_figure, escape_plotly
from bloodauto.report.formatting import short_names
from bloodauto.report.run_info import RunInfo, TrialInfo

#: PED-ANOVA compares the best trials with all of them. Optuna advises at least five best ones; with fewer than twice as many
#: in all it would compare the trials with themselves.
MIN_TOP_TRIALS = 5
MIN_COMPLETE_TRIALS = 2 * MIN_TOP_TRIALS


@dataclass(frozen=True)
class ImportanceInfo:
    """Importance of parameters.

    Attributes:
        rows: (dotted path, importance), highest first; those of all parameters sum to 1.
        complete_trials: how many trials were compared.
        top_trials: how many of them count as the best.
    """

    rows: tuple[tuple[str, float], ...]
    complete_trials: int
    top_trials: int


def importance_info(run: RunInfo, *, max_parameters: int = 15) -> ImportanceInfo | NoFigure:
    """PED-ANOVA (arXiv:2304.10255), in Optuna's form for conditional spaces (arXiv:2601.20800).

    fANOVA needs parameters that every trial has; a conditional space has few of those.

    Args:
        run: the run.
        max_parameters: most rows.
    """
    complete = [trial for trial in run.trials if trial.state == "complete" and trial.objective is not None]
    if len(complete) < MIN_COMPLETE_TRIALS:
        return NoFigure(
            f"{len(complete)} complete trials are too few to estimate importance; at least {MIN_COMPLETE_TRIALS} are needed."
        )
    if all(parameter.distribution.single() for trial in complete for parameter in trial.parameters):
        return NoFigure("The complete trials have no sampled parameter to compare (initial configurations only).")
    if len({trial.objective for trial in complete}) == 1:
        return NoFigure("All complete trials have the same objective: there is nothing to explain.")
    study = _study_in_memory(complete)
    quantile = max(0.1, MIN_TOP_TRIALS / len(complete))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
    with warnings.catch_warnings():
        # Beside the figure stands that few trials give a rough estimate; in a conditional space some values are always rare.
        warnings.filterwarnings("ignore", message="Some regimes for parameter")
        importances = optuna.importance.get_param_importances(study, evaluator=evaluator)
    rows = sorted(importances.items(), key=lambda row: (-row[1], row[0]))
    return ImportanceInfo(
        tuple((name, float(importance)) for name, importance in rows[:max_parameters]),
        len(complete),
        round(quantile * len(complete)),
    )


def _study_in_memory(complete: list[TrialInfo]) -> optuna.Study:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize")
        study.add_trials(
            [
                optuna.trial.create_trial(
                    state=TrialState.COMPLETE,
                    value=trial.objective,
                    params={parameter.name: parameter.value for parameter in trial.parameters},
                    distributions={parameter.name: parameter.distribution for parameter in trial.parameters},
                )
                for trial in complete
            ]
        )
    finally:
        optuna.logging.set_verbosity(verbosity)
    return study


def draw_importance(info: ImportanceInfo) -> Figure:
    """One bar for each parameter."""
    names = short_names(tuple(name for name, _ in info.rows))
    figure = base_figure(90 + 28 * len(info.rows), x_title="importance")
    figure.add_bar(
        x=[importance for _, importance in info.rows],
        y=[escape_plotly(name) for name in names],
        orientation="h",
        marker={"color": ACCENT, "cornerradius": 3},
        text=[f"{importance:.0%}" for _, importance in info.rows],
        textposition="outside",
        cliponaxis=False,
        customdata=[escape_plotly(name) for name, _ in info.rows],
        hovertemplate="%{customdata}: %{x:.1%}<extra></extra>",
    )
    figure.update_xaxes(tickformat=".0%", range=[0, 1.18 * max(importance for _, importance in info.rows)])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_layout(showlegend=False, margin_t=12)
    return figure
