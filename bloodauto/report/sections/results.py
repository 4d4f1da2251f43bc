"""Sections about the result: the ensemble, its errors and confidence, and external sites."""

from __future__ import annotations

from collections.abc import Sequence

from bloodauto.report.figures.confusion import confusion_info, draw_reliability, reliability_info
from bloodauto.report.figures.ensemble import draw_ensemble, ensemble_info
from bloodauto.report.figures.risk_coverage import draw_risk_coverage, risk_coverage_info
from bloodauto.report.figures.shift import draw_scatter, draw_shift, scatter_info, shift_info
from bloodauto.report.figures.simulated_sites import draw_simulated_sites, simulated_sites_info
from bloodauto.report.figures.style import NoFigure
from bloodauto.report.formatting import count, percent, score, spaced, training_name
from bloodauto.report.markup import Content, Markup, hint, join, table, tag
from bloodauto.report.run_info import RunInfo
from bloodauto.report.sections import pictures
from bloodauto.report.sections.page import FigureCollector, joined, titled, two_columns
from bloodauto.run.artifacts import (
    CandidateCounts,
    DistillationResult,
    Ensemble,
    HeldOutTest,
    SelectionBias,
    SiteScore,
    TargetEstimate,
    ValidationScores,
)

_SIMULATED_SITES_HINT = (
    "Each point is one simulated site with its own held-out test images. The band is the prediction interval for an external "
    "site, the line the accuracy at the training site."
)
_SITES_HINT = "Out-of-fold predictions of the ensemble: its networks were trained without any image of the site."


def ensemble(run: RunInfo, figures: FigureCollector) -> Markup | None:
    """Members, scores and calibration; the distilled network, if there is one."""
    parts: list[Content] = [figures.add("ensemble", ensemble_info(run), draw_ensemble)]
    if run.ensemble is not None:
        parts += [ensemble_table(run.ensemble), selection_bias_text(run.ensemble.selection_bias)]
    if run.distilled is not None:
        parts += [tag("h3", "Distilled network"), distilled_table(run.distilled)]
    return joined(parts)


def ensemble_table(chosen: Ensemble) -> Markup:
    """Members by weight and their scores before calibration; the ensemble's after it."""
    metrics = list(chosen.scores.known())
    rows: list[tuple[Content, ...]] = [
        (
            training_name(member.name),
            f"{member.weight:.3f}",
            member.kind,
            str(member.trial),
            count(member.parameters),
            *_score_cells(member.scores, metrics),
        )
        for member in sorted(chosen.members, key=lambda member: -member.weight)
    ]
    rows.append(
        (tag("b", "ensemble"), "1", "", "", "", *(tag("b", cell) for cell in _score_cells(chosen.scores, metrics)))
    )
    headings = ("member", "weight", "kind", "trial", "parameters", *map(spaced, metrics))
    per_class = chosen.calibration.per_class is not None
    explanation = (
        f"Selected by {spaced(chosen.metric)}. Probabilities are calibrated with temperature "
        f"{chosen.calibration.temperature:.3f}{' and a scale and a bias for each class' if per_class else ''}."
        f"{candidates_text(chosen.candidate_counts)}"
    )
    return join([table(headings, rows, numeric=range(1, len(headings))), hint(explanation)])


def _score_cells(scores: ValidationScores, metrics: Sequence[str]) -> list[str]:
    known = scores.known()
    return [score(name, known.get(name)) for name in metrics]


def candidates_text(counts: CandidateCounts | None) -> str:
    """What the members were selected from; empty where somebody else chose."""
    if counts is None:
        return ""
    text = f" Candidates: {counts.trials} trials and {counts.refits} refits"
    if counts.pruned:
        text += f", and {counts.evaluated} pruned trials ({counts.promising} of {counts.pruned} pruned trials were promising)"
    return text + "."


def selection_bias_text(bias: SelectionBias | None) -> Markup:
    """The best trial's score, corrected for selection bias."""
    if bias is None:
        return hint(
            "The selection bias of the best trial's score is unknown: its estimate needs two trials and a recipe that was "
            "trained twice."
        )
    refits = (
        "" if bias.refits is None else f" Its refits, which train longer, reached {percent(bias.refits)} on average."
    )
    return tag(
        "p",
        f"The best of {bias.trials} trials had an objective of {percent(bias.best)}. Corrected for selection bias (winner's "
        f"curse), {percent(bias.shrunk)} is to be expected of it.{refits} The objective varies between seeds with a standard "
        f"deviation of {percent(bias.noise)} ({bias.noise_degrees_of_freedom} degrees of freedom); smaller differences between "
        "trials are not significant.",
    )


def distilled_table(distilled: DistillationResult) -> Markup:
    """The student beside its teacher."""
    both = distilled.comparison
    metrics = list(both.scores.known())
    rows = [
        (f"student, {distilled.network}", count(distilled.parameters), *_score_cells(both.scores, metrics)),
        ("its teacher, the ensemble", count(distilled.teacher_parameters), *_score_cells(both.teacher_scores, metrics)),
    ]
    headings = ("", "parameters", *map(spaced, metrics))
    explanation = (
        f"A network that was trained on the ensemble's predictions. On {count(both.images)} images that were left out of its "
        f"training both predict the same class for {percent(both.agreement)}, and for {percent(both.agreement_shifted)} of "
        f"{count(both.shifted_images)} shifted images."
    )
    return join([table(headings, rows, numeric=range(1, len(headings))), hint(explanation)])


def errors(run: RunInfo, figures: FigureCollector) -> Markup | None:
    """Confusion, recall, calibration and abstention."""
    confusion, reliability = confusion_info(run), reliability_info(run)
    drawn = pictures.result_pictures_of(run)
    matrix = recalls = None
    if not isinstance(confusion, NoFigure):
        # Pictures of other images than those of the matrix would not belong to its cells.
        is_same = drawn is not None and drawn.predictions.source in confusion.source
        cells = drawn.predictions.confusion if drawn is not None and is_same else ()
        matrix = join([hint(f"Of {confusion.source}."), pictures.confusion_table(confusion, cells)])
        recalls = pictures.recall_table(confusion)
    source = "" if isinstance(reliability, NoFigure) else f"Of {reliability.source}."
    reliability_figure = figures.add("reliability", reliability, draw_reliability, source)
    risk = figures.add("risk", risk_coverage_info(run), draw_risk_coverage, abstention_text(run))
    return joined(
        [
            two_columns(("Confusion matrix", matrix), ("Recall", recalls)),
            two_columns(("Reliability", reliability_figure), ("Abstention", risk)),
            titled("Calibration error", calibration_table(run)),
        ]
    )


def abstention_text(run: RunInfo) -> str:
    """What the exported rule flags; empty where there is none."""
    ood = run.ood
    if ood is not None:
        synthetic = ", ".join(f"{percent(result.flagged, 0)} of {result.kind}" for result in ood.synthetic_ood)
        return (
            "The score adds the distance to the training classes in the networks' features and the entropy of the prediction. "
            f"Large points are the exported threshold: {percent(ood.in_domain.coverage)} of {count(ood.in_domain.images)} "
            f"images that were left out of training get a prediction, and {percent(ood.external.coverage)} of "
            f"{count(ood.external.images)} at simulated sites; 'bloodauto predict' flags the others. Of synthetic "
            f"out-of-distribution images it flags {synthetic}."
        )
    if run.ensemble is None:
        return ""
    abstention = run.ensemble.abstention
    shifted = "" if abstention.shifted is None else f" and {percent(abstention.shifted.coverage)} of the shifted images"
    return (
        f"Large points are the exported threshold: {percent(abstention.clean.coverage)} of the clean images{shifted} get a "
        "prediction; 'bloodauto predict' flags the others."
    )


def calibration_table(run: RunInfo) -> Markup | None:
    """Expected calibration error on clean and shifted images; None where it is unknown."""
    rows = []
    if run.ensemble is not None:
        scores = run.ensemble.scores
        rows.append(("validation images (fitted on)", percent(scores.ece), percent(scores.ece_shifted)))
    if run.held_out_test is not None:
        rows.append(("held-out test set", percent(run.held_out_test.ece), percent(run.held_out_test.ece_shifted)))
    if not rows:
        return None
    return table(("expected calibration error", "clean", "shifted"), rows, numeric=(1, 2))


def prediction_pictures(run: RunInfo) -> Markup | None:
    """Images that the ensemble gets wrong, is uncertain of, or marks."""
    drawn = pictures.result_pictures_of(run)
    if drawn is None:
        return pictures.missing_pictures_hint(run)
    return pictures.prediction_sections(drawn.predictions)


def augmentation(run: RunInfo) -> Markup | None:
    """What training did to images."""
    drawn = pictures.result_pictures_of(run)
    return None if drawn is None else pictures.augmented_images(drawn)


def external(run: RunInfo, figures: FigureCollector) -> Markup | None:
    """What accuracy to expect at external sites."""
    shift = shift_info(run)
    by_group = (
        ""
        if isinstance(shift, NoFigure)
        else f"Held-out test images under each corruption group; {percent(shift.clean)} on clean ones."
    )
    estimate = two_columns(
        ("External performance estimate", external_estimate_text(run.held_out_test)),
        (
            "At simulated sites",
            figures.add("simulated_sites", simulated_sites_info(run), draw_simulated_sites, _SIMULATED_SITES_HINT),
        ),
    )
    columns = two_columns(
        ("By corruption group", figures.add("shift", shift, draw_shift, by_group)),
        (
            "Objective and clean accuracy",
            figures.add("scatter", scatter_info(run), draw_scatter, _agreement_text(run.ensemble)),
        ),
    )
    known = [
        None if run.target_estimate is None else target_text(run.target_estimate),
        site_table(run.site_scores) if run.site_scores else None,
    ]
    drawn = pictures.result_pictures_of(run)
    suite = None if drawn is None else titled("The shift suite", pictures.shift_heat_map(drawn))
    return joined([estimate, *known, columns, suite])


def _agreement_text(ensemble: Ensemble | None) -> str:
    """How far objective and clean accuracy agree; empty where that is unknown."""
    agreement = None if ensemble is None else ensemble.objective_agreement
    if agreement is None:
        return ""
    return (
        f"Over {agreement.trials} complete trials the rank correlation (Spearman) of objective and clean accuracy is "
        f"{agreement.spearman:.2f}."
    )


def external_estimate_text(test: HeldOutTest | None) -> Markup | None:
    """The estimate in one sentence, and what it covers; None where it is unknown."""
    if test is None or test.external is None:
        return None
    return join(
        [
            tag("p", tag("b", f"{test.accuracy_text()}.")),
            tag("p", f"{test.external.SCOPE} {test.external.coverage_text()}"),
        ]
    )


def site_table(sites: Sequence[SiteScore]) -> Markup:
    """Scores at each site that was left out of training."""
    rows = [(site.site, count(site.images), percent(site.accuracy), percent(site.balanced_accuracy)) for site in sites]
    shown = table(("site", "images", "accuracy", "balanced accuracy"), rows, numeric=range(1, 4))
    return join([tag("h3", "At sites left out of training"), hint(_SITES_HINT), shown])


def target_text(estimate: TargetEstimate) -> Markup:
    """What to expect in the target domain."""
    agreement = (
        ""
        if estimate.agreement is None
        else f" Two of its networks agree on {percent(estimate.agreement)} of the images."
    )
    text = (
        f"Estimated accuracy in the target domain: {percent(estimate.accuracy)}, from {count(estimate.images)} unlabelled "
        "images, if classes are as frequent there as in the training data. The mean confidence there is "
        f"{percent(estimate.confidence)}.{agreement}"
    )
    return join([tag("h3", "In the target domain"), tag("p", text)])
