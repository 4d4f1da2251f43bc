import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from bloodauto.ensemble.distilled import Comparison, DistillationResult
from bloodauto.ensemble.record import CandidateCounts
from bloodauto.ensemble.selection_bias import WinnersCurse
from bloodauto.errors import RunError, UserError
from bloodauto.evaluation.metrics import wilson_interval
from bloodauto.evaluation.probability_scaling import Calibration, PerClass
from bloodauto.evaluation.selective import Abstention, RiskCoverage, SelectiveAccuracy
from bloodauto.export.keras_model import IDENTITY, Member, TtaTransform, build_export
from bloodauto.export.labels import AbstentionRule, labels_of
from bloodauto.export.model_card import CardFacts, MemberFacts, ScoreFacts, render_card
from bloodauto.export.ood import FeatureSpace, OodDetector, OodEvaluation, SyntheticOodResult, read_ood_detector
from bloodauto.export.tta_evaluation import TtaGain
from bloodauto.export.write import ParitySample, check_formats, write_export
from bloodauto.shift.external_estimate import ExternalEstimate

UNSURE = AbstentionRule("entropy", -0.7)
NAMES = ("basophil", "eosinophil", "ig", "monocyte", "plate|let")


@pytest.fixture(scope="module")
def model(small_pair):
    return build_export([Member(small_pair[0], 0.75), Member(small_pair[1], 0.25)], temperature=1.4)


@pytest.fixture(scope="module")
def facts():
    return CardFacts(
        members=(
            MemberFacts("trial 17", "mobilenet_0.25, 24 px", 0.75, 1.0, 1234567, IDENTITY),
            MemberFacts("trial 3", "own_cnn", 0.25, 1.5, 99, IDENTITY),
        ),
        calibration=Calibration(1.4, None, (0.31, 0.32)),
        abstention=Abstention(
            "entropy",
            -0.7,
            SelectiveAccuracy(1000, 0.95, 0.991, RiskCoverage((0.5, 1.0), (0.0, 0.02), 0.01)),
            SelectiveAccuracy(400, 0.64, 0.912, RiskCoverage((0.5, 1.0), (0.1, 0.3), 0.2)),
        ),
        winners_curse=WinnersCurse(12, 0.91, 0.894, 0.012, 3, 0.92),
        latency_ms=8.25,
        test=None,
        tta_gain=None,
        scores=(ScoreFacts("same laboratory, test images", "accuracy", 0.98, wilson_interval(980, 1000), 1000),),
        data_source="cells.npz",
        data_digest="ab" * 32,
        training_images=150,
        class_counts=(10, 20, 30, 40, 50),
        written_with="bloodauto 0.1.0, Keras 3.15.0",
    )


@pytest.fixture
def sample(model, make):
    images = make.images(5, 24)
    return ParitySample(images, model.predict(images, verbose=0))


def test_export_writes_every_file_and_nothing_else(model, facts, sample, tmp_path):
    result = write_export(tmp_path / "export", model, NAMES, UNSURE, facts, ["codabench", "keras"], sample)
    wanted = {"model.keras", "submission.zip", "labels.json", "README.md"}
    assert {file.name for file in result.files} == wanted
    assert {file.name for file in (tmp_path / "export").iterdir()} == wanted
    assert all(file.is_file() for file in result.files)
    assert 0 <= result.parity_difference < 1e-5
    labels = json.loads((tmp_path / "export" / "labels.json").read_text())
    assert labels["classes"] == list(NAMES)
    assert labels["input"]["height_px"] == 24
    assert labels["abstention"] == {"confidence_score": "entropy", "threshold": -0.7}


def test_an_export_that_answers_otherwise_replaces_nothing(model, facts, sample, tmp_path):
    write_export(tmp_path, model, NAMES, UNSURE, facts, ["keras"], sample)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    wrong = ParitySample(sample.images, np.roll(sample.probabilities, 1, axis=1))
    for kind in ("keras", "codabench"):
        with pytest.raises(RunError, match=r"(model\.keras|submission\.zip): expected the (prob|labels)"):
            write_export(tmp_path, model, NAMES, UNSURE, facts, [kind], wrong)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_formats_are_checked():
    assert check_formats(["codabench", "keras", "codabench"]) == ("codabench", "keras")
    with pytest.raises(UserError, match="did you mean 'codabench'"):
        check_formats(["keras", "codabanch"])
    with pytest.raises(UserError, match="at least one"):
        check_formats([])


def test_card_says_what_was_passed_in(model, facts):
    card = render_card(labels_of(model, NAMES), facts, ("keras", "codabench"))
    for part in ("| 3 | monocyte | 40 |", "| 4 | plate\\|let | 50 |", "| trial 17 | mobilenet_0.25, 24 px | 0.750 |"):
        assert part in card
    assert "| same laboratory, test images | accuracy | 0.9800 | 0.9693 to 0.9870 | 1000 |" in card
    assert "temperature 1.4" in card
    assert "1,234,567" in card
    assert "ab" * 32 in card
    assert "24 x 24 px" in card


def test_card_does_not_hide_what_is_missing(model, facts):
    card = render_card(labels_of(model, NAMES), replace(facts, scores=()), ("codabench",))
    assert "Not measured" in card
    assert "looked at once" in card
    assert "model.keras" not in card


TEST = {
    "accuracy": 0.982,
    "accuracy_low": 0.978,
    "accuracy_high": 0.986,
    "ece": 0.011,
    "ece_shifted": 0.047,
    "external": asdict(ExternalEstimate(0.84, 0.71, 0.92, 0.9, 0.88, 40, 6)),
}


CURVE = RiskCoverage((1.0,), (0.1,), 0.1)
MEASURED = OodEvaluation(
    in_domain=SelectiveAccuracy(512, 0.95, 0.991, CURVE),
    external=SelectiveAccuracy(384, 0.71, None, CURVE),
    synthetic_ood=(
        SyntheticOodResult("noise", 128, 0.97, 0.9931),
        SyntheticOodResult("cells in pieces", 128, 0.5, 0.81),
    ),
)


def test_card_says_how_pictures_without_a_cell_are_found(model, facts, sample, tmp_path):
    rule = OodDetector((FeatureSpace(np.zeros((2, 3)), np.eye(3)[:, :1], np.ones(1), 1.0),), 1.5, 0.3, 2.5)
    told = replace(facts, ood_evaluation=MEASURED)
    result = write_export(tmp_path, model, NAMES, UNSURE, told, ["keras"], sample, ood_detector=rule)
    assert "ood.npz" in {file.name for file in result.files}
    again = read_ood_detector(tmp_path / "ood.npz")
    assert (again.distance_unit, again.entropy_unit, again.threshold) == (1.5, 0.3, 2.5)
    card = (tmp_path / "README.md").read_text()
    assert "noise 97% (AUROC 0.993); cells in pieces 50% (AUROC 0.810), 128 of each" in card
    assert "Of 512 such images it answers 95.0%, 99.1% of the answers right" in card
    assert "of 384 as simulated sites show them 71.0%, none right" in card
    assert "ood.npz" not in render_card(labels_of(model, NAMES), facts, ["keras"])
    write_export(tmp_path, model, NAMES, UNSURE, facts, ["keras"], sample)
    assert not (tmp_path / "ood.npz").exists(), "it would judge another model's features"


def test_card_states_what_to_expect_elsewhere_and_how_often_that_holds(model, facts):
    card = render_card(labels_of(model, NAMES), replace(facts, test=TEST), ("keras",))
    assert "**Same lab 98.2 % (97.8-98.6); elsewhere 84 % (71-92).**" in card
    assert "meant to hold in 90% of laboratories; it comes from 40 simulated ones" in card
    assert "it held in 88% of those" in card
    assert "Not covered: other patients" in card
    assert "Calibration error: 0.011 on held-out test images, 0.047 on shifted views of them." in card


def test_card_promises_nothing_for_an_ensemble_the_test_was_not_opened_for(model, facts):
    card = render_card(labels_of(model, NAMES), facts, ("keras",))
    assert "Same lab" not in card
    assert "Not known: the held-out test images" in card


def test_card_states_luck_latency_and_when_it_is_not_sure(model, facts):
    card = render_card(labels_of(model, NAMES), facts, ("keras",))
    assert "The best of 12 trials scored 0.9100" in card
    assert "without its luck 0.8940 is to be expected" in card
    assert "One image takes 8.25 ms" in card
    assert "is below -0.7 should be looked at by a person" in card
    assert "Of shifted views it answers 64.0%, and of these answers 91.20% are right." in card
    scaled = Calibration(1.4, PerClass((1.0,) * 5, (0.0,) * 5), (0.32, 0.31))
    unknown = replace(facts, calibration=scaled, winners_curse=None)
    card = render_card(labels_of(model, NAMES), unknown, ("keras",))
    assert "a scale and a bias for each class" in card
    assert "a recipe that was trained twice" in card


def test_card_states_what_views_cost_and_change(model, facts):
    views = (TtaTransform("identity", 0.75), TtaTransform("turn_90", 0.25))
    members = tuple(replace(member, tta=views) for member in facts.members)
    gain = TtaGain(
        forward_passes=4,
        forward_passes_without_tta=2,
        time_ratio=1.94,
        scores={"accuracy": 0.97, "shift": 0.9012},
        scores_without_tta={"accuracy": 0.98, "shift": 0.8899},
        images=1500,
    )
    card = render_card(labels_of(model, NAMES), replace(facts, members=members, tta_gain=gain), ("keras",))
    assert "4 passes through networks rather than 2, 1.9 times the time as measured" in card
    assert "- trial 17: identity 0.75, turn_90 0.25" in card
    assert "On 1500 images" in card
    assert "accuracy is 0.9700 with these views and 0.9800 without; the shift score 0.9012 and 0.8899" in card


@pytest.mark.slow
def test_example_of_the_card_runs_without_the_project(model, facts, sample, tmp_path, run_bare):
    write_export(tmp_path, model, NAMES, UNSURE, facts, ["keras"], sample)
    example = re.search(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL).group(1)
    assert len(example.strip().splitlines()) == 4
    printed = run_bare(example, tmp_path)
    values = [float(value) for value in re.findall(r"\d\.\d+(?:e-?\d+)?", printed.rpartition("[[")[2])]
    assert len(values) == 5
    assert sum(values) == pytest.approx(1, abs=1e-4)


def test_card_says_what_the_members_were_chosen_from(model, facts):
    labels = labels_of(model, NAMES)
    card = render_card(labels, replace(facts, candidate_counts=CandidateCounts(7, 4, 12, 5, 3)), ("keras",))
    assert "chosen among 7 trials and 4 longer trainings, and 3 trials that had been stopped early" in card
    assert "of 12 of these, 5 were promising" in card
    assert "stopped early" not in render_card(
        labels, replace(facts, candidate_counts=CandidateCounts(7, 4, 0, 0, 0)), ("keras",)
    )


def test_card_of_a_student_shows_its_ensemble_beside_it(model, facts):
    scores = {"accuracy": 0.91, "shifted_accuracy": 0.83, "shift": 0.8, "ece": 0.02, "ece_shifted": 0.05}
    of_teacher = {"accuracy": 0.93, "shifted_accuracy": 0.86, "shift": 0.84, "ece": 0.01, "ece_shifted": 0.04}
    both = Comparison(scores, of_teacher, agreement=0.95, agreement_shifted=0.88, images=200, shifted_images=400)
    distilled = DistillationResult("own_cnn at 24 px", "abc", 99, 1234666, 40, 300.0, 280.0, both)
    card = render_card(labels_of(model, NAMES), replace(facts, distilled=distilled), ("keras",))
    assert card.startswith("# Blood-cell classifier, distilled from an ensemble\n")
    assert "own_cnn at 24 px with 99 parameters" in card
    assert "| accuracy | 0.9100 | 0.9300 |" in card
    assert "same answer for 95.0% of the images and 88.0% of the views" in card
