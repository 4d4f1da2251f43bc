"""Which parts of the recipe made the difference."""

from __future__ import annotations

from dataclasses import dataclass

import optuna
import plotly.graph_objects as go

from bloodauto.report.figures.style import ACCENT, NoFigure, base_figure, escape_plotly
from bloodauto.report.info import RunInfo, TrialInfo
from bloodauto.report.labels import short_names

#: PED-ANOVA compares the best trials with all of them; Optuna advises at least five among the best, and fewer than
#: twice as many in all would compare the trials with themselves.
MIN_TOP_TRIALS = 5
MIN_COMPLETE_TRIALS = 2 * MIN_TOP_TRIALS


@dataclass(frozen=True)
class ImportanceInfo:
    """``rows``: (dotted path, share of the importance), highest first; the shares of all parameters sum to 1."""

    rows: tuple[tuple[str, float], ...]
    complete_trials: int
    top_trials: int


def importance_info(run: RunInfo, *, max_parameters: int = 15) -> ImportanceInfo | NoFigure:
    """PED-ANOVA (arXiv 2304.10255), in Optuna's form for conditional spaces (arXiv 2601.20800).

    fANOVA needs parameters that every trial has; a space of subtrees has few of those.
    """
    complete = [trial for trial in run.trials if trial.outcome == "complete" and trial.value is not None]
    if len(complete) < MIN_COMPLETE_TRIALS:
        return NoFigure(
            f"{len(complete)} complete trials are too few to tell which parameters matter; at least {MIN_COMPLETE_TRIALS} needed."
        )
    if not any(not param.distribution.single() for trial in complete for param in trial.params):
        return NoFigure("The complete trials have no sampled parameter to compare (initial configurations only).")
    if len({trial.value for trial in complete}) == 1:
        return NoFigure("All complete trials have the same objective: nothing to explain.")
    study = _study_in_memory(complete)
    quantile = max(0.1, MIN_TOP_TRIALS / len(complete))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    rows = sorted(found.items(), key=lambda row: (-row[1], row[0]))
    return ImportanceInfo(
        tuple((name, float(share)) for name, share in rows[:max_parameters]),
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
                    value=trial.value,
                    params={param.name: param.value for param in trial.params},
                    distributions={param.name: param.distribution for param in trial.params},
                )
                for trial in complete
            ]
        )
    finally:
        optuna.logging.set_verbosity(verbosity)
    return study


def draw_importance(info: ImportanceInfo) -> go.Figure:
    names = short_names(tuple(name for name, _ in info.rows))
    figure = base_figure(90 + 28 * len(info.rows), x_title="share of the importance")
    figure.add_bar(
        x=[share for _, share in info.rows],
        y=[escape_plotly(name) for name in names],
        orientation="h",
        marker={"color": ACCENT, "cornerradius": 3},
        text=[f"{share:.0%}" for _, share in info.rows],
        textposition="outside",
        cliponaxis=False,
        customdata=[escape_plotly(name) for name, _ in info.rows],
        hovertemplate="%{customdata}: %{x:.1%}<extra></extra>",
    )
    figure.update_xaxes(tickformat=".0%", range=[0, 1.18 * max(share for _, share in info.rows)])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_layout(showlegend=False, margin_t=12)
    return figure
