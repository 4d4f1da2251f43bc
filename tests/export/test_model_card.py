"""The model card says what is known, and what is not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from bloodauto.evaluation.metrics import wilson_interval
from bloodauto.export.ensemble_model import IDENTITY, TtaTransform
from bloodauto.export.model_card import CardFacts, MemberFacts, ScoreFacts, TrainingDataFacts, render_card
from bloodauto.export.tta_evaluation import TtaGain
from bloodauto.run.artifacts import (
    Abstention,
    AbstentionRule,
    Calibration,
    CandidateCounts,
    DistillationResult,
    ExternalEstimate,
    HeldOutTest,
    Labels,
    ModelInput,
    OodEvaluation,
    PerClassScaling,
    RiskCoverage,
    SelectionBias,
    SelectiveAccuracy,
    StudentComparison,
    SyntheticOodResult,
    ValidationScores,
)
from bloodauto.run.yaml_files import read_yaml

LABELS = Labels(
    classes=("basophil", "eosinophil", "ig", "monocyte", "plate|let"),
    input=ModelInput(height_px=24, width_px=24),
    competition_labels=(0, 1, 2, 3, 4),
    abstention=None,
)
CURVE = RiskCoverage(coverage=(0.5, 1.0), risk=(0.0, 0.02), aurc=0.01)
OOD_EVALUATION = OodEvaluation(
    in_domain=SelectiveAccuracy(images=512, coverage=0.95, accuracy=0.991, curve=CURVE),
    external=SelectiveAccuracy(images=384, coverage=0.71, accuracy=None, curve=CURVE),
    synthetic_ood=(
        SyntheticOodResult(kind="noise", images=128, flagged=0.97, auroc=0.9931),
        SyntheticOodResult(kind="cells in pieces", images=128, flagged=0.5, auroc=0.81),
    ),
)
HELD_OUT_TEST = HeldOutTest(
    ensemble="abc",
    images=1000,
    accuracy=0.982,
    accuracy_low=0.978,
    accuracy_high=0.986,
    balanced_accuracy=0.98,
    macro_f1=0.98,
    loss=0.1,
    ece=0.011,
    ece_shifted=0.047,
    confusion=tuple((1,) * len(LABELS.classes) for _ in LABELS.classes),
    classes=LABELS.classes,
    shift={},
    shifted_accuracy=0.9,
    shifted_images=500,
    external=ExternalEstimate(
        mean=0.84,
        low=0.71,
        high=0.92,
        nominal_coverage=0.9,
        measured_coverage=0.88,
        simulated_sites=40,
        shift_factors=6,
    ),
    simulated_sites=(),
)


def _selective_accuracy(images: int, *, coverage: float, accuracy: float) -> SelectiveAccuracy:
    curve = RiskCoverage(coverage=(1.0,), risk=(1 - accuracy,), aurc=0.1)
    return SelectiveAccuracy(images=images, coverage=coverage, accuracy=accuracy, curve=curve)


def _scores(**scores: float) -> ValidationScores:
    """Scores that the card does not show are invented."""
    return ValidationScores(balanced_accuracy=0.9, macro_f1=0.9, loss=0.3, **scores)


@pytest.fixture(scope="module")
def facts() -> CardFacts:
    return CardFacts(
        members=(
            MemberFacts("trial 17", "mobilenet_0.25, 24 px", 0.75, 1234567, IDENTITY),
            MemberFacts("trial 3", "own_cnn", 0.25, 99, IDENTITY),
        ),
        calibration=Calibration(temperature=1.4, per_class=None, cross_validated_nats=(0.31, 0.32)),
        abstention=Abstention(
            rule=AbstentionRule(confidence_score="entropy", threshold=-0.7),
            clean=_selective_accuracy(1000, coverage=0.95, accuracy=0.991),
            shifted=_selective_accuracy(400, coverage=0.64, accuracy=0.912),
        ),
        latency_ms=8.25,
        scores=(
            ScoreFacts("held-out test set", "accuracy", 0.98, wilson_interval(980, 1000), 1000),
            ScoreFacts("held-out test set", "expected calibration error", 0.0123, None, 1000),
            ScoreFacts("shifted held-out test set", "accuracy", 0.9, None, 400),
        ),
        training_data=TrainingDataFacts("cells.npz", "ab" * 32, (10, 20, 30, 40, 50)),
        written_with="bloodauto 0.1.0, keras 3.15.0",
        selection_bias=SelectionBias(
            trials=12, best=0.91, shrunk=0.894, noise=0.012, noise_degrees_of_freedom=3, refits=0.92
        ),
    )


def _flat(card: str) -> str:
    """The card on one line, so that a sentence is found wherever its lines break."""
    return " ".join(card.split())


def test_the_header_is_what_the_hub_reads(facts, tmp_path) -> None:
    card = render_card(LABELS, facts, ["keras"])
    assert card.startswith("---\n")
    (tmp_path / "header.yaml").write_text(card.split("---\n")[1])
    header = read_yaml(tmp_path / "header.yaml").value
    assert (header["library_name"], header["pipeline_tag"]) == ("keras", "image-classification")
    assert header["license"] == "unknown", "whoever publishes the model states its licence"
    assert {"blood-cells", "domain-shift"} <= set(header["tags"])
    assert header["metrics"] == ["accuracy", "expected_calibration_error"]
    (model,) = header["model-index"]
    test, shifted = model["results"]
    assert test["task"]["type"] == "image-classification"
    assert test["dataset"] == {"type": "custom", "name": "cells.npz", "split": "held-out test set"}
    assert [metric["value"] for metric in test["metrics"]] == [0.98, 0.0123]
    assert [metric["type"] for metric in shifted["metrics"]] == ["accuracy"]


def test_the_sections_are_those_of_a_model_card(facts) -> None:
    card = render_card(LABELS, facts, ["keras", "codabench"])
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == [
        "Model details",
        "Intended use",
        "Out-of-scope use",
        "How to use",
        "Training data",
        "Evaluation",
        "Abstention",
        "Limitations",
    ]


def test_the_card_states_the_facts(facts) -> None:
    card = render_card(LABELS, facts, ("keras", "codabench"))
    for part in ("| 3 | monocyte | 40 |", "| 4 | plate\\|let | 50 |"):
        assert part in card
    assert "| trial 17 | mobilenet_0.25, 24 px | 0.750 | 1,234,567 |" in card
    assert "| held-out test set | accuracy | 0.9800 | 0.9693 to 0.9870 | 1000 |" in card
    assert "temperature 1.4" in card
    assert "own temperature" not in card
    assert "150 images from cells.npz" in card
    assert "ab" * 32 in card
    assert "24 x 24 px" in card
    assert "One image takes 8.25 ms" in card


def test_the_card_does_not_hide_what_is_missing(facts) -> None:
    card = render_card(LABELS, replace(facts, scores=()), ("codabench",))
    assert "Not measured" in card
    assert "model-index" not in card
    assert "sees each image once" in card
    assert "model.keras" not in card


def test_the_card_states_what_the_ood_detector_does(facts) -> None:
    card = _flat(render_card(LABELS, replace(facts, ood_evaluation=OOD_EVALUATION), ["keras"]))
    assert "noise 97% (AUROC 0.993); cells in pieces 50% (AUROC 0.810), 128 of each" in card
    assert "Of 512 such images 95.0% are predicted, 99.1% of them correctly" in card
    assert "of 384 as simulated sites show them 71.0%, none correctly" in card
    assert "ood.npz" not in render_card(LABELS, facts, ["keras"])


def test_the_card_states_the_external_estimate_and_how_often_its_interval_holds(facts) -> None:
    card = render_card(LABELS, replace(facts, test=HELD_OUT_TEST), ("keras",))
    assert "98.2 % (97.8-98.6)" in card
    assert "84 % (71-92)" in card
    assert "90%" in card
    assert "88%" in card


@pytest.mark.parametrize("test", [None, HELD_OUT_TEST.replace(external=None)])
def test_the_card_promises_nothing_without_an_external_estimate(facts, test) -> None:
    card = _flat(render_card(LABELS, replace(facts, test=test), ("keras",)))
    assert "The accuracy to expect at an external site is not known" in card


def test_the_card_states_selection_bias_and_abstention(facts) -> None:
    card = _flat(render_card(LABELS, facts, ("keras",)))
    assert "The best of 12 trials scored 0.9100" in card
    assert "the expected score of another training is 0.8940" in card
    assert "is below -0.7 should be looked at by a person" in card
    assert "Of shifted validation images 64.0% are predicted, with an accuracy of 91.20%." in card
    per_class = PerClassScaling(scales=(1.0,) * 5, biases=(0.0,) * 5)
    scaled = Calibration(temperature=1.4, per_class=per_class, cross_validated_nats=(0.32, 0.31))
    card = _flat(render_card(LABELS, replace(facts, calibration=scaled, selection_bias=None), ("keras",)))
    assert "a scale and a bias for each class" in card
    assert "a recipe that was trained twice" in card


def test_the_card_states_what_tta_costs_and_changes(facts) -> None:
    tta = (TtaTransform("identity", 0.75), TtaTransform("turn_90", 0.25))
    members = tuple(replace(member, tta=tta) for member in facts.members)
    gain = TtaGain(
        forward_passes=4,
        forward_passes_without_tta=2,
        time_ratio=1.94,
        scores={"accuracy": 0.97, "shift": 0.9012},
        scores_without_tta={"accuracy": 0.98, "shift": 0.8899},
        images=1500,
    )
    card = render_card(LABELS, replace(facts, members=members, tta_gain=gain), ("keras",))
    assert "4 forward passes rather than 2, 1.9 times the time as measured" in card
    assert "- trial 17: identity 0.75, turn_90 0.25" in card
    assert "On 1500 images" in card
    assert "accuracy is 0.9700 with it and 0.9800 without; the shift score 0.9012 and 0.8899" in _flat(card)


def test_the_card_states_what_the_members_were_selected_from(facts) -> None:
    counts = CandidateCounts(trials=7, refits=4, pruned=12, promising=5, evaluated=3)
    card = render_card(LABELS, replace(facts, candidate_counts=counts), ("keras",))
    assert "selected among 7 trials and 4 refits, and 3 of 12 pruned trials (5 were promising)." in card
    without_pruned = replace(facts, candidate_counts=counts.replace(pruned=0, promising=0, evaluated=0))
    assert "pruned" not in render_card(LABELS, without_pruned, ("keras",))
    assert "not selected by a search" in render_card(LABELS, facts, ("keras",))


def test_the_card_of_a_distilled_network_shows_its_ensemble_beside_it(facts) -> None:
    comparison = StudentComparison(
        scores=_scores(accuracy=0.91, shifted_accuracy=0.83, shift=0.8, ece=0.02, ece_shifted=0.05),
        teacher_scores=_scores(accuracy=0.93, shifted_accuracy=0.86, shift=0.84, ece=0.01, ece_shifted=0.04),
        agreement=0.95,
        agreement_shifted=0.88,
        images=200,
        shifted_images=400,
    )
    distilled = DistillationResult(
        network="own_cnn at 24 px",
        recipe_id="abc",
        parameters=99,
        teacher_parameters=1234666,
        epochs=40,
        budget_device_seconds=300.0,
        spent_device_seconds=280.0,
        comparison=comparison,
    )
    card = render_card(LABELS, replace(facts, distilled=distilled), ("keras",))
    assert "\n# Blood-cell classifier, distilled from an ensemble\n" in card
    assert "own_cnn at 24 px with 99 parameters" in card
    assert "| accuracy | 0.9100 | 0.9300 |" in card
    assert "same class for 95.0% of the images and 88.0% of the shifted ones" in _flat(card)
