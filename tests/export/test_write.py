"""An export's files appear only after they were checked."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bloodauto.errors import RunError, UserError
from bloodauto.export.ensemble_model import IDENTITY, ExportedMember, build_ensemble_model
from bloodauto.export.labels import labels_of
from bloodauto.export.model_card import CardFacts, MemberFacts, TrainingDataFacts
from bloodauto.export.parity import ParitySample
from bloodauto.export.write import ModelPackage, write_export
from bloodauto.run.artifacts import (
    Abstention,
    AbstentionRule,
    Calibration,
    FeatureSpace,
    OodDetector,
    RiskCoverage,
    SelectiveAccuracy,
)
from bloodauto.run.directory import ExportDirectory

NAMES = ("basophil", "eosinophil", "ig", "monocyte", "platelet")
RULE = AbstentionRule(confidence_score="entropy", threshold=-0.7)
FACTS = CardFacts(
    members=(MemberFacts("trial 17", "own_cnn", 1.0, 99, IDENTITY),),
    calibration=Calibration(temperature=1.4, per_class=None, cross_validated_nats=None),
    abstention=Abstention(
        rule=RULE,
        clean=SelectiveAccuracy(
            images=1000,
            coverage=0.95,
            accuracy=0.991,
            curve=RiskCoverage(coverage=(1.0,), risk=(0.02,), aurc=0.01),
        ),
        shifted=None,
    ),
    latency_ms=8.25,
    scores=(),
    training_data=TrainingDataFacts("cells.npz", "ab" * 32, (10, 20, 30, 40, 50)),
    written_with="bloodauto 0.1.0",
)


@pytest.fixture(scope="module")
def package(small_pair, make) -> ModelPackage:
    model = build_ensemble_model(
        [ExportedMember(small_pair[0], 0.75), ExportedMember(small_pair[1], 0.25)], temperature=1.4
    )
    images = make.images(5, 24)
    return ModelPackage(model, labels_of(model, NAMES, RULE), ParitySample(images, model.predict(images, verbose=0)))


def test_export_writes_every_file_and_nothing_else(package, tmp_path) -> None:
    result = write_export(tmp_path / "export", package, FACTS, ["codabench", "keras"])
    names = {"model.keras", "submission.zip", "labels.json", "README.md"}
    assert {file.name for file in result.files} == names
    assert {file.name for file in (tmp_path / "export").iterdir()} == names
    assert all(file.is_file() for file in result.files)
    assert 0 <= result.parity_difference < 1e-5
    assert ExportDirectory(tmp_path / "export").labels.read() == package.labels


def test_a_kill_while_files_are_moved_leaves_no_export_that_seems_complete(package, tmp_path, monkeypatch) -> None:
    (tmp_path / ".writing-of-a-killed-call").mkdir()
    replace_path = Path.replace

    def killed_at_the_model(path: Path, target: Path) -> Path:
        if path.name == "model.keras":
            raise KeyboardInterrupt
        return replace_path(path, target)

    monkeypatch.setattr(Path, "replace", killed_at_the_model)
    with pytest.raises(KeyboardInterrupt):
        write_export(tmp_path, package, FACTS, ["keras"])
    assert not (tmp_path / "labels.json").exists()
    assert not (tmp_path / ".writing-of-a-killed-call").exists()


def test_a_later_call_adds_a_format_and_keeps_the_card_complete(package, tmp_path) -> None:
    write_export(tmp_path, package, FACTS, ["keras"])
    result = write_export(tmp_path, package, FACTS, ["codabench"], existing_formats=["keras"])
    assert result.parity_difference is None, "labels have no probabilities to compare"
    card = (tmp_path / "README.md").read_text()
    assert "model.keras" in card
    assert "submission.zip" in card
    result = write_export(tmp_path, package, replace(FACTS, latency_ms=9.5), [], existing_formats=["keras"])
    assert {file.name for file in result.files} == {"labels.json", "README.md"}
    assert "9.5 ms" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("name", ["keras", "codabench"])
def test_a_file_that_predicts_otherwise_replaces_nothing(package, tmp_path, name) -> None:
    write_export(tmp_path, package, FACTS, ["keras"])
    contents = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    sample = package.sample
    wrong = replace(package, sample=ParitySample(sample.images, np.roll(sample.probabilities, 1, axis=1)))
    with pytest.raises(RunError, match=r"(model\.keras|submission\.zip): expected the (prob|labels)"):
        write_export(tmp_path, wrong, FACTS, [name])
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == contents


def test_unknown_formats_are_refused_before_anything_is_written(package, tmp_path) -> None:
    with pytest.raises(UserError, match="onnx"):
        write_export(tmp_path / "export", package, FACTS, ["keras", "onnx"])
    assert not (tmp_path / "export").exists()


def test_the_ood_detector_lies_beside_its_model_alone(package, tmp_path) -> None:
    space = FeatureSpace(
        means=np.zeros((2, 3), np.float32),
        directions=np.eye(3, 1, dtype=np.float32),
        variances=np.ones(1, np.float32),
        other_variance=1.0,
    )
    detector = OodDetector(spaces=(space,), distance_unit=1.5, entropy_unit=0.3, threshold=2.5)
    result = write_export(tmp_path, replace(package, ood_detector=detector), FACTS, ["keras"])
    assert "ood.npz" in {file.name for file in result.files}
    again = OodDetector.read(tmp_path / "ood.npz")
    assert (again.distance_unit, again.entropy_unit, again.threshold) == (1.5, 0.3, 2.5)
    write_export(tmp_path, package, FACTS, ["keras"])
    assert not (tmp_path / "ood.npz").exists(), "it would measure another model's features"


@pytest.mark.slow
def test_example_of_the_card_runs_without_the_project(package, tmp_path, run_bare) -> None:
    write_export(tmp_path, package, FACTS, ["keras"])
    example = re.search(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL).group(1)
    assert len(example.strip().splitlines()) == 4
    printed = run_bare(example, tmp_path)
    values = [float(value) for value in re.findall(r"\d\.\d+(?:e-?\d+)?", printed.rpartition("[[")[2])]
    assert len(values) == 5
    assert sum(values) == pytest.approx(1, abs=1e-4)
