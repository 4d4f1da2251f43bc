"""Renders the model card: what somebody must know who meets the exported model without this project.

The form is that of Mitchell et al. 2019 (arXiv:1810.03993), with the YAML header that the Hugging Face Hub reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bloodauto.export.ensemble_model import TtaTransform
from bloodauto.export.formats import EXPORTERS
from bloodauto.export.tta_evaluation import TtaGain
from bloodauto.run.artifacts import (
    Abstention,
    Calibration,
    CandidateCounts,
    ConfidenceScore,
    DistillationResult,
    HeldOutTest,
    Labels,
    OodEvaluation,
    SelectionBias,
)
from bloodauto.run.yaml_files import dump_yaml

_CONFIDENCE_SCORES: dict[ConfidenceScore, str] = {
    "max_probability": "highest probability",
    "margin": "difference of the two highest probabilities",
    "entropy": "sum over the classes of p log p (minus the entropy, in nats)",
}
_TAGS = ("bloodauto", "blood-cells", "microscopy", "hematology", "domain-shift", "uncertainty")
_COMPARED_SCORES = ("accuracy", "shifted_accuracy", "shift", "target_estimate", "ece", "ece_shifted")


@dataclass(frozen=True)
class MemberFacts:
    """One member of the ensemble.

    Attributes:
        name: of the trial, refit or training.
        description: the network in a few words.
        weight: of its probabilities in the average, 0-1.
        parameters: of all its networks.
        tta: the transforms that its probabilities are averaged over.
    """

    name: str
    description: str
    weight: float
    parameters: int
    tta: tuple[TtaTransform, ...]


@dataclass(frozen=True)
class ScoreFacts:
    """One measured figure.

    Attributes:
        images_from: what it was measured on, for example ``held-out test set``.
        metric: ``accuracy`` or ``expected calibration error``.
        value: 0-1.
        interval: 95 %, where it is known.
        images: how many.
    """

    images_from: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    images: int


@dataclass(frozen=True)
class TrainingDataFacts:
    """What the members were trained on.

    Attributes:
        source: of the images, as in ``CellDataset``.
        digest: their SHA-256, of ``CellDataset.digest``.
        class_counts: training images of each class, in the order of the labels.
    """

    source: str
    digest: str
    class_counts: tuple[int, ...]


@dataclass(frozen=True)
class CardFacts:
    """Everything the card says beyond the labels.

    Attributes:
        members: at least one.
        calibration: of the members' average.
        abstention: of the members' average.
        latency_ms: for one image alone, on the machine that exported.
        scores: on validation and test images; an empty tuple is stated in the card.
        training_data: what the members were trained on.
        written_with: versions, for example ``bloodauto 0.1.0, keras 3.15.0, tensorflow 2.21.0``.
        test: the evaluation of this ensemble on the held-out test set; None where there was none.
        tta_gain: what test-time augmentation changes and costs; None without.
        selection_bias: the selection bias of the best trial's score; None where it is not known.
        candidate_counts: what the members were selected from; None where they were not selected by a search.
        ood_evaluation: what the OOD detector does; None where there is none.
        distilled: the student beside its ensemble, where the model is a distilled one; else None.
    """

    members: tuple[MemberFacts, ...]
    calibration: Calibration
    abstention: Abstention
    latency_ms: float
    scores: tuple[ScoreFacts, ...]
    training_data: TrainingDataFacts
    written_with: str
    test: HeldOutTest | None = None
    tta_gain: TtaGain | None = None
    selection_bias: SelectionBias | None = None
    candidate_counts: CandidateCounts | None = None
    ood_evaluation: OodEvaluation | None = None
    distilled: DistillationResult | None = None


def render_card(labels: Labels, facts: CardFacts, formats: Sequence[str]) -> str:
    """Renders the card.

    Args:
        labels: of the model.
        facts: everything else.
        formats: names of the formats that lie beside the card.

    Returns:
        Markdown with a YAML header.
    """
    title = "Blood-cell classifier" + ("" if facts.distilled is None else ", distilled from an ensemble")
    sections = [
        _header(facts),
        f"# {title}",
        f"Classifies {len(labels.classes)} types of blood cells on cropped microscope images, one cell each, with calibrated "
        "probabilities, and flags images that it should not be trusted with.",
        _model_details(facts),
        _INTENDED_USE,
        _how_to_use(labels, facts, formats),
        _training_data(labels, facts.training_data),
        _evaluation(facts),
        _abstention(facts),
        _LIMITATIONS,
    ]
    return "\n\n".join(sections) + "\n"


def _header(facts: CardFacts) -> str:
    """The YAML header of the Hugging Face Hub."""
    metadata: dict[str, Any] = {
        "license": "unknown",
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": list(_TAGS),
    }
    if facts.scores:
        metadata["metrics"] = list(dict.fromkeys(_metric_id(score.metric) for score in facts.scores))
        metadata["model-index"] = [{"name": "bloodauto", "results": _model_index(facts)}]
    return f"---\n{dump_yaml(metadata)}---"


def _model_index(facts: CardFacts) -> list[dict[str, Any]]:
    by_images: dict[str, list[ScoreFacts]] = {}
    for score in facts.scores:
        by_images.setdefault(score.images_from, []).append(score)
    return [
        {
            "task": {"type": "image-classification", "name": "Blood-cell classification"},
            "dataset": {"type": "custom", "name": facts.training_data.source, "split": images_from},
            "metrics": [
                {"type": _metric_id(score.metric), "name": score.metric, "value": round(score.value, 4)}
                for score in scores
            ],
        }
        for images_from, scores in by_images.items()
    ]


def _metric_id(metric: str) -> str:
    return metric.replace(" ", "_")


def _model_details(facts: CardFacts) -> str:
    rows = [(_cell(m.name), _cell(m.description), f"{m.weight:.3f}", f"{m.parameters:,}") for m in facts.members]
    return "\n\n".join(
        [
            "## Model details",
            f"Written with {facts.written_with}. The licence under which the model may be used is stated by whoever publishes "
            "it, in the header of this card.",
            _table(("member", "network", "weight", "parameters"), rows),
            f"The members' class probabilities are averaged with these weights, and the average is calibrated "
            f"{_calibration_text(facts.calibration)}. One image takes {facts.latency_ms:.3g} ms on the machine that exported "
            f"the model. {_tta_text(facts)}",
        ]
    )


_INTENDED_USE = """\
## Intended use

Research, and sorting images before a person looks at them: pre-labelling, triage, quality control of a data set. Users are
people who can identify a cell themselves and who measure the model on labelled images of their own before they rely on it.

## Out-of-scope use

It is no medical device, and no diagnosis may rest on it alone. It is not meant for whole slides, for images with several cells
in the middle, or for cells of other types than the classes below: a smudge, a parasite or any other cell gets one of their
names, unless it is flagged (see Abstention)."""

_LIMITATIONS = """\
## Limitations

- Another site (stain, microscope, camera, patients) is what such models fail on most. Measure the model on some hundred
  labelled images of your own.
- The probabilities were calibrated on images like those of the training data and on corruptions of them. At another site they
  may be too confident.
- Abstention finds some of the images that show no cell of these classes, not all."""


def _how_to_use(labels: Labels, facts: CardFacts, formats: Sequence[str]) -> str:
    height_px, width_px = labels.input.height_px, labels.input.width_px
    counts = facts.training_data.class_counts
    rows = [
        (str(index), _cell(name), str(count))
        for index, (name, count) in enumerate(zip(labels.classes, counts, strict=True))
    ]
    return "\n\n".join(
        [
            "## How to use",
            f"- Input: RGB images of {height_px} x {width_px} px as uint8, 0-255, shape (n, {height_px}, {width_px}, 3). "
            "Normalisation is inside the model; do not scale them.\n"
            f"- Output: one probability for each class, float32, shape (n, {len(labels.classes)}); each row sums to 1. The "
            "order is that of this table and of `labels.json`.",
            _table(("output", "class", "training images"), rows),
            *(EXPORTERS[name].usage(labels) for name in formats),
            "With bloodauto installed, `bloodauto.load_model(folder).predict(images)` returns class probabilities, "
            "abstentions and OOD scores as arrays, and `bloodauto predict` writes them as a CSV.",
        ]
    )


def _training_data(labels: Labels, data: TrainingDataFacts) -> str:
    return (
        "## Training data\n\n"
        f"{sum(data.class_counts)} images from {_cell(data.source)}, of {len(labels.classes)} classes (see the table above). "
        f"SHA-256 of the images, labels and names: `{data.digest}`."
    )


def _evaluation(facts: CardFacts) -> str:
    if facts.distilled is not None:
        selection = [_distillation_text(facts.distilled)]
    else:
        selection = [_candidates_text(facts.candidate_counts), _selection_bias_text(facts.selection_bias)]
    return "\n\n".join(
        [
            "## Evaluation",
            _scores_table(facts.scores),
            *selection,
            "### External sites",
            _external_text(facts.test),
        ]
    )


def _external_text(test: HeldOutTest | None) -> str:
    if test is None or test.external is None:
        return (
            "The accuracy to expect at an external site is not known: it is estimated on the held-out test set, which was not "
            "evaluated for this ensemble. Expect less than the figures above, and at an external site much less."
        )
    return f"**{test.accuracy_text()}.** {test.external.SCOPE} {test.external.coverage_text()}"


def _calibration_text(calibration: Calibration) -> str:
    temperature = f"with temperature {calibration.temperature:.4g}"
    if calibration.per_class is None:
        return temperature
    return f"{temperature} and a scale and a bias for each class, which generalise better to shifts they were not fitted to"


def _distillation_text(distilled: DistillationResult) -> str:
    comparison = distilled.comparison
    names = [name for name in _COMPARED_SCORES if getattr(comparison.scores, name) is not None]
    rows = [
        (
            name.replace("_", " "),
            f"{getattr(comparison.scores, name):.4f}",
            f"{getattr(comparison.teacher_scores, name):.4f}",
        )
        for name in names
    ]
    return (
        f"This is one small network, {_cell(distilled.network)} with {distilled.parameters:,} parameters, trained for "
        f"{distilled.epochs} epochs on the class probabilities that an ensemble of {distilled.teacher_parameters:,} parameters "
        f"predicts for the same augmented images; labels were not used. On {comparison.images} validation images and "
        f"{comparison.shifted_images} shifted ones:\n\n"
        + _table(("", "this network", "its ensemble"), rows)
        + f"\n\nBoth predict the same class for {comparison.agreement:.1%} of the images and "
        f"{comparison.agreement_shifted:.1%} of the shifted ones."
    )


def _candidates_text(counts: CandidateCounts | None) -> str:
    if counts is None:
        return "The members were not selected by a search."
    text = f"The members were selected among {counts.trials} trials and {counts.refits} refits"
    if counts.pruned:
        text += f", and {counts.evaluated} of {counts.pruned} pruned trials ({counts.promising} were promising)"
    return text + "."


def _selection_bias_text(bias: SelectionBias | None) -> str:
    if bias is None:
        return (
            "The selection bias of the search's best score is not known: its estimate needs two trials, and a recipe that was "
            "trained twice."
        )
    return (
        f"The best of {bias.trials} trials scored {bias.best:.4f} in the search's objective. The best of many scores is "
        f"biased upwards; the expected score of another training is {bias.shrunk:.4f}. From seed to seed the objective "
        f"varies by {bias.noise:.4f} (one standard deviation, from {bias.noise_degrees_of_freedom} comparisons): smaller "
        "differences mean nothing."
    )


def _abstention(facts: CardFacts) -> str:
    abstention = facts.abstention
    rule = abstention.rule
    sentences = [
        f"An image whose {_CONFIDENCE_SCORES[rule.confidence_score]} is below {rule.threshold:.4g} should be looked at by a "
        "person: it is difficult, or shows none of these cells. The threshold, which is in `labels.json`, is set so that 95 % "
        f"of the training site's validation images are predicted ({abstention.clean.coverage:.1%} of "
        f"{abstention.clean.images} are)."
    ]
    if abstention.clean.accuracy is not None:
        sentences.append(f"The accuracy among these is {abstention.clean.accuracy:.2%}.")
    if abstention.shifted is not None and abstention.shifted.accuracy is not None:
        sentences.append(
            f"Of shifted validation images {abstention.shifted.coverage:.1%} are predicted, with an accuracy of "
            f"{abstention.shifted.accuracy:.2%}."
        )
    sentences.append(
        "`bloodauto predict` flags the others in the column `abstained`."
        if facts.ood_evaluation is None
        else _ood_text(facts.ood_evaluation)
    )
    return "## Abstention\n\n" + " ".join(sentences)


def _ood_text(evaluation: OodEvaluation) -> str:
    in_domain, external = evaluation.in_domain, evaluation.external
    kinds = "; ".join(
        f"{result.kind} {result.flagged:.0%} (AUROC {result.auroc:.3f})" for result in evaluation.synthetic_ood
    )
    accuracies = ["none" if part.accuracy is None else f"{part.accuracy:.1%}" for part in (in_domain, external)]
    return (
        "`bloodauto predict` uses a better rule, in `ood.npz`: it also measures how far an image lies from the trained classes "
        "in the networks' features. The column `abstained` flags an image when distance and entropy together are larger than "
        f"for 95 % of images that the networks were not trained on. Of {in_domain.images} such images {in_domain.coverage:.1%} "
        f"are predicted, {accuracies[0]} of them correctly; of {external.images} as simulated sites show them "
        f"{external.coverage:.1%}, {accuracies[1]} correctly. Of synthetic images without a cell it flags: {kinds}, "
        f"{evaluation.synthetic_ood[0].images} of each. How well it detects a cell of another type was not measured; expect "
        "less."
    )


def _tta_text(facts: CardFacts) -> str:
    gain = facts.tta_gain
    if gain is None:
        return "Each network sees each image once."
    lines = [
        "Each network's probabilities are averaged over transforms of the image (test-time augmentation): "
        f"{gain.forward_passes} forward passes rather than {gain.forward_passes_without_tta}, {gain.time_ratio:.1f} times the "
        "time as measured."
    ]
    for member in facts.members:
        weights = ", ".join(f"{transform.name} {transform.weight:.2f}" for transform in member.tta)
        lines.append(f"- {_cell(member.name)}: {weights}")
    lines.append(
        f"\nOn {gain.images} images that the networks were not trained on, accuracy is {gain.scores['accuracy']:.4f} with "
        f"it and {gain.scores_without_tta['accuracy']:.4f} without; the shift score {gain.scores['shift']:.4f} and "
        f"{gain.scores_without_tta['shift']:.4f}. The transforms were not selected by these figures."
    )
    return "\n".join(lines)


def _scores_table(scores: Sequence[ScoreFacts]) -> str:
    if not scores:
        return "Not measured on images that were held out. Measure it before you use it."
    rows = [
        (
            _cell(score.images_from),
            _cell(score.metric),
            f"{score.value:.4f}",
            "" if score.interval is None else f"{score.interval[0]:.4f} to {score.interval[1]:.4f}",
            str(score.images),
        )
        for score in scores
    ]
    return _table(("images", "metric", "value", "95 % interval", "n"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text that stays in its cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
