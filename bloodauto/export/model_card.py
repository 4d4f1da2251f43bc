"""The model card: what somebody must know who meets the exported model without this project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bloodauto.export.keras_export import View
from bloodauto.export.labels import Labels
from bloodauto.export.looking import ViewGain


@dataclass(frozen=True)
class MemberFacts:
    """One member: its name, what it is in a few words, its share of the average, its own temperature, size and views."""

    name: str
    description: str
    weight: float
    temperature: float
    parameters: int
    views: tuple[View, ...]


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
        temperature: of the average.
        view_gain: what test-time views change and cost; None without.
        scores: same laboratory and shift suite; an empty tuple is said, not hidden.
        data_source: what the training images were.
        data_digest: their SHA-256, of ``Cells.digest``.
        training_images: how many.
        class_counts: training images per class, in the order of the labels.
        written_with: versions, for example ``bloodauto 0.1.0, Keras 3.15.0, TensorFlow 2.21.0``.
    """

    members: tuple[MemberFacts, ...]
    temperature: float
    view_gain: ViewGain | None
    scores: tuple[ScoreFacts, ...]
    data_source: str
    data_digest: str
    training_images: int
    class_counts: tuple[int, ...]
    written_with: str


def render_card(labels: Labels, facts: CardFacts, formats: Sequence[str]) -> str:
    """The card as Markdown."""
    size = f"{labels.height_px} x {labels.width_px} px"
    parts = [
        "# Blood-cell classifier",
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
        "The members' probabilities are averaged with these weights, and the average is calibrated with temperature "
        f"{facts.temperature:.4g}. {_views(facts)}",
        "## How good it is",
        _scores(facts.scores),
        "## Training data",
        f"{facts.training_images} images from {_cell(facts.data_source)}. SHA-256 of the images, labels and names: "
        f"`{facts.data_digest}`.",
        "## Use and limits",
        "- Made for research and for sorting images before a person looks at them. It is no medical device, and no "
        "diagnosis may rest on it alone.\n"
        "- It knows only the classes above: a smudge, a parasite or any other cell is forced into one of them.\n"
        "- Images from another laboratory (stain, microscope, camera) are what such models fail on most. Measure it on "
        "some hundred labelled images of your own before you rely on it.\n"
        "- The probabilities were calibrated on images like those of the training data and corruptions of them; "
        "elsewhere they may be surer than they should.",
    ]
    return "\n\n".join(parts) + "\n"


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
    gain = facts.view_gain
    if gain is None:
        return "Each image is looked at once by each network."
    lines = [
        f"Each image is looked at in several views, whose probabilities are averaged before that: {gain.passes} passes "
        f"through networks rather than {gain.passes_without}, {gain.time_ratio:.1f} times the time as measured."
    ]
    for member in facts.members:
        shares = ", ".join(f"{view.name} {view.share:.2f}" for view in member.views)
        lines.append(f"- {member.name}: {shares}")
    lines.append(
        f"\nOn {gain.images} images that the networks were not trained on, accuracy is {gain.scores['accuracy']:.4f} with "
        f"these views and {gain.scores_without['accuracy']:.4f} without; the shift score {gain.scores['shift']:.4f} and "
        f"{gain.scores_without['shift']:.4f}. The views were not chosen by these figures."
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
