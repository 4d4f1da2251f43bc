"""The model card: what somebody must know who meets the exported model without this project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bloodauto.ensemble.distilled import DistillationResult
from bloodauto.ensemble.record import CandidateCounts
from bloodauto.ensemble.selection_bias import WinnersCurse
from bloodauto.evaluation.probability_scaling import Calibration
from bloodauto.evaluation.selective import Abstention, ConfidenceScore
from bloodauto.export.keras_model import TtaTransform
from bloodauto.export.labels import Labels
from bloodauto.export.ood import OodEvaluation
from bloodauto.export.tta_evaluation import TtaGain
from bloodauto.shift.external_estimate import ESTIMATE_SCOPE, coverage_text, external_estimate_text

_MEASURES: dict[ConfidenceScore, str] = {
    "max_probability": "highest probability",
    "margin": "distance between the two highest probabilities",
    "entropy": "sum over the classes of p log p (minus the entropy, in nats)",
}


@dataclass(frozen=True)
class MemberFacts:
    """One member: its name, what it is in a few words, its share of the average, its own temperature, size and views."""

    name: str
    description: str
    weight: float
    temperature: float
    parameters: int
    tta: tuple[TtaTransform, ...]


@dataclass(frozen=True)
class ScoreFacts:
    """One measured figure.

    Attributes:
        images_from: what it was measured on, for example ``same laboratory, test images``.
        metric: its name.
        value: 0-1, larger is better, or nats of a log-loss.
        interval: 95 %, where it is known.
        images: how many.
    """

    images_from: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    images: int


@dataclass(frozen=True)
class CardFacts:
    """Everything the card says beyond labels.

    Attributes:
        members: at least one.
        calibration, abstention: of the average.
        winners_curse: what the best trial's score is worth; None where it is not known.
        latency_ms: for one image alone, on the machine that exported.
        test: what ``test.json`` says of this very ensemble; None where the held-out test was not opened for it.
        tta_gain: what test-time transforms change and cost; None without.
        scores: same laboratory and shift suite; an empty tuple is said, not hidden.
        data_source: what the training images were.
        data_digest: their SHA-256, of ``Cells.digest``.
        training_images: how many.
        class_counts: training images per class, in the order of the labels.
        written_with: versions, for example ``bloodauto 0.1.0, Keras 3.15.0, TensorFlow 2.21.0``.
        measured: what marking by features and answers does; None where that was not measured.
        considered: what the members were chosen from; None where somebody else chose.
        distilled: where the model is a student of an ensemble, both beside each other; else None.
    """

    members: tuple[MemberFacts, ...]
    calibration: Calibration
    abstention: Abstention
    winners_curse: WinnersCurse | None
    latency_ms: float
    test: Mapping[str, Any] | None
    tta_gain: TtaGain | None
    scores: tuple[ScoreFacts, ...]
    data_source: str
    data_digest: str
    training_images: int
    class_counts: tuple[int, ...]
    written_with: str
    ood_evaluation: OodEvaluation | None = None
    candidate_counts: CandidateCounts | None = None
    distilled: DistillationResult | None = None


def render_card(labels: Labels, facts: CardFacts, formats: Sequence[str]) -> str:
    """The card as Markdown."""
    size = f"{labels.height_px} x {labels.width_px} px"
    parts = [
        "# Blood-cell classifier" + ("" if facts.distilled is None else ", distilled from an ensemble"),
        f"Tells {len(labels.class_names)} kinds of blood cell apart on cropped microscope images, one cell each. "
        f"Written with {facts.written_with}.",
        "## Input and output",
        f"- In: RGB images of {size} as uint8, 0-255, shape (n, {labels.height_px}, {labels.width_px}, 3). Normalisation "
        "is inside; do not scale them.\n"
        f"- Out: one probability per class, float32, shape (n, {len(labels.class_names)}); each row sums to 1. The order "
        "is that of the table of classes below and of `labels.json`.",
        _usage(labels, formats),
        "## Classes",
        _table(
            ("output", "class", "training images"),
            [
                (str(index), _cell(name), str(count))
                for index, (name, count) in enumerate(zip(labels.class_names, facts.class_counts, strict=True))
            ],
        ),
        "## How it answers",
        _table(
            ("member", "network", "weight", "own temperature", "parameters"),
            [
                (_cell(m.name), _cell(m.description), f"{m.weight:.3f}", f"{m.temperature:.3g}", f"{m.parameters:,}")
                for m in facts.members
            ],
        ),
        f"The members' probabilities are averaged with these weights, and the average is calibrated {_calibration(facts)}. "
        f"One image takes {facts.latency_ms:.3g} ms on the machine that exported it. {_views(facts)}",
        "## What to expect",
        _expectation(facts),
        "## How good it is",
        _scores(facts.scores),
        *(
            [_student(facts.distilled)]
            if facts.distilled is not None
            else [_choice(facts.candidate_counts), _selection_bias(facts)]
        ),
        "## When it is not sure",
        _abstention_text(facts),
        "## Training data",
        f"{facts.training_images} images from {_cell(facts.data_source)}. SHA-256 of the images, labels and names: "
        f"`{facts.data_digest}`.",
        "## Use and limits",
        "- Made for research and for sorting images before a person looks at them. It is no medical device, and no "
        "diagnosis may rest on it alone.\n"
        "- It knows only the classes above. A smudge, a parasite or any other cell gets one of their names; the mark "
        "described under 'When it is not sure' finds some of these, not all.\n"
        "- Images from another laboratory (stain, microscope, camera) are what such models fail on most. Measure it on "
        "some hundred labelled images of your own before you rely on it.\n"
        "- The probabilities were calibrated on images like those of the training data and corruptions of them; "
        "elsewhere they may be surer than they should.",
    ]
    return "\n\n".join(parts) + "\n"


def _calibration(facts: CardFacts) -> str:
    temperature = f"with temperature {facts.calibration.temperature:.4g}"
    if facts.calibration.per_class is None:
        return temperature
    return f"{temperature} and a scale and a bias for each class, which hold better for shifts they were not fitted to"


def _expectation(facts: CardFacts) -> str:
    external = facts.test.get("external") if facts.test is not None else None
    if facts.test is None or external is None:
        return (
            "Not known: the held-out test images, from which it is estimated, were not opened for this very ensemble. Expect "
            "less than the figures below, and in another laboratory much less."
        )
    return f"**{external_estimate_text(facts.test)}.** {ESTIMATE_SCOPE} {coverage_text(external)}"


def _student(distilled: DistillationResult) -> str:
    both = distilled.comparison
    shown = ("accuracy", "shifted_accuracy", "shift", "target_estimate", "ece", "ece_shifted")
    names = [name for name in shown if name in both.scores]
    rows = [(name.replace("_", " "), f"{both.scores[name]:.4f}", f"{both.teacher_scores[name]:.4f}") for name in names]
    return (
        f"This is one small network, {_cell(distilled.network)} with {distilled.parameters:,} parameters, that learnt for "
        f"{distilled.epochs} epochs to answer as an ensemble of {distilled.teacher_parameters:,} parameters does, on the same "
        f"views of the images; labels took no part. On {both.images} images that it did not learn from, and {both.shifted_images} "
        "shifted views of them:\n\n"
        + _table(("", "this network", "its ensemble"), rows)
        + f"\n\nThey give the same answer for {both.agreement:.1%} of the images and {both.agreement_shifted:.1%} of the views."
    )


def _choice(candidate_counts: CandidateCounts | None) -> str:
    if candidate_counts is None:
        return "Its members were not chosen by a search."
    text = (
        f"The members were chosen among {candidate_counts.trials} trials and {candidate_counts.refits} longer trainings"
    )
    if candidate_counts.pruned:
        text += (
            f", and {candidate_counts.evaluated} trials that had been stopped early: of {candidate_counts.pruned} of these, "
            f"{candidate_counts.promising} were promising"
        )
    return text + "."


def _selection_bias(facts: CardFacts) -> str:
    curse = facts.winners_curse
    if curse is None:
        return "How far the search's best score is luck is unknown: it takes two trials and a recipe that was trained twice."
    return (
        f"The best of {curse.trials} trials scored {curse.best:.4f} in the search's objective; the best of many is lucky, and "
        f"without its luck {curse.shrunk:.4f} is to be expected. From seed to seed the objective varies by {curse.noise:.4f} "
        f"(one standard deviation, from {curse.noise_degrees_of_freedom} comparisons): smaller differences say nothing."
    )


def _abstention_text(facts: CardFacts) -> str:
    rule = facts.abstention
    lines = [
        f"An image whose {_MEASURES[rule.confidence_score]} is below {rule.threshold:.4g} should be looked at by a person: it is hard, "
        "or none of these cells. The line is drawn so that 95 % of the training laboratory's own images get an answer "
        f"({rule.clean.coverage:.1%} of {rule.clean.images} did). `labels.json` holds it."
    ]
    if rule.clean.accuracy is not None:
        lines.append(f"Of these answers {rule.clean.accuracy:.2%} are right.")
    if rule.shifted is not None and rule.shifted.accuracy is not None:
        lines.append(
            f"Of shifted views it answers {rule.shifted.coverage:.1%}, and of these answers {rule.shifted.accuracy:.2%} are "
            "right."
        )
    lines.append(
        "`bloodauto predict` marks such images in the column `confident`."
        if facts.ood_evaluation is None
        else _ood_text(facts.ood_evaluation)
    )
    lines.append(
        "Calibration error: " + ", ".join(
            f"{value:.3f} {where}" for value, where in _calibration_errors(facts)
        ) + "."
    )  # fmt: skip
    return " ".join(lines)


def _ood_text(ood_evaluation: OodEvaluation) -> str:
    in_domain, external = ood_evaluation.in_domain, ood_evaluation.external
    kinds = "; ".join(f"{one.kind} {one.flagged:.0%} (AUROC {one.auroc:.3f})" for one in ood_evaluation.synthetic_ood)
    right = ["none" if part.accuracy is None else f"{part.accuracy:.1%}" for part in (in_domain, external)]
    return (
        "`bloodauto predict` has a better rule, in `ood.npz`: it also looks at how far an image lies from the trained "
        "classes in the networks' own features. The column `confident` marks an image when distance and entropy together are "
        f"larger than for 95 % of images they were not trained on. Of {in_domain.images} such images it answers "
        f"{in_domain.coverage:.1%}, {right[0]} of the answers right; of {external.images} as simulated sites show them "
        f"{external.coverage:.1%}, {right[1]} right. Of pictures made from such images it marks: {kinds}, "
        f"{ood_evaluation.synthetic_ood[0].images} of each. How well it finds a cell of another type was not measured here; expect less."
    )


def _calibration_errors(facts: CardFacts) -> list[tuple[float, str]]:
    if facts.test is None:
        return [
            (score.value, f"on {score.images_from}") for score in facts.scores if score.metric == "calibration error"
        ]
    return [(facts.test["ece"], "on held-out test images"), (facts.test["ece_shifted"], "on shifted views of them")]


def _usage(labels: Labels, formats: Sequence[str]) -> str:
    parts = []
    if "keras" in formats:
        parts.append(
            "```python\n"
            "import keras, numpy as np\n"
            'model = keras.models.load_model("model.keras")\n'
            f'images = np.zeros((1, {labels.height_px}, {labels.width_px}, 3), dtype="uint8")  # your images\n'
            "print(model.predict(images))\n"
            "```\n"
            "`model.keras` needs Keras with TensorFlow, nothing of the project that made it; Keras must be at least the "
            "version named above."
        )
    if "codabench" in formats:
        parts.append(
            "`submission.zip` is ready for the competition: `Model().predict(X)` in its `model.py` answers with labels "
            "for images of any size."
        )
    return "\n\n".join(parts)


def _views(facts: CardFacts) -> str:
    gain = facts.tta_gain
    if gain is None:
        return "Each image is looked at once by each network."
    lines = [
        f"Each image is looked at in several views, whose probabilities are averaged before that: {gain.forward_passes} passes "
        f"through networks rather than {gain.forward_passes_without_tta}, {gain.time_ratio:.1f} times the time as measured."
    ]
    for member in facts.members:
        shares = ", ".join(f"{view.name} {view.weight:.2f}" for view in member.tta)
        lines.append(f"- {member.name}: {shares}")
    lines.append(
        f"\nOn {gain.images} images that the networks were not trained on, accuracy is {gain.scores['accuracy']:.4f} with "
        f"these views and {gain.scores_without_tta['accuracy']:.4f} without; the shift score {gain.scores['shift']:.4f} and "
        f"{gain.scores_without_tta['shift']:.4f}. The views were not chosen by these figures."
    )
    return "\n".join(lines)


def _scores(scores: Sequence[ScoreFacts]) -> str:
    if not scores:
        return "Not measured on images that were kept apart. Measure it before you use it."
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
    return _table(("images from", "metric", "value", "95 % interval", "images"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text that stays in its cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
