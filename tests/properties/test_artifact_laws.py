"""Whatever an artifact holds comes back from its file, and a file that was changed is an error that names the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bloodauto.errors import RunError
from bloodauto.run.artifacts import (
    ArrayArtifact,
    Artifact,
    AveragedEpochs,
    Checkpoint,
    CleaningReport,
    CleaningRow,
    Ensemble,
    EpochReport,
    ExternalEstimate,
    FeatureSpace,
    Fingerprint,
    HeldOutTest,
    LedgerCharge,
    LedgerFile,
    Metrics,
    NetworkWeights,
    OodDetector,
    ParetoFront,
    ParetoTrial,
    SplitsFile,
    TrainingHistory,
    TrainingResult,
    ValidationPredictions,
)
from bloodauto.run.yaml_files import VERSION_KEY

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
FRACTION = st.floats(0, 1)
NUMBER = st.floats(-1e6, 1e6)
COUNT = st.integers(0, 10**9)
LAWS = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


EPOCHS = st.builds(
    EpochReport,
    epoch=st.integers(1, 999),
    stage=st.integers(0, 9),
    **dict.fromkeys(("seconds", "evaluation_seconds", "learning_rate", "data_wait_fraction"), st.floats(0, 1e6)),
    **dict.fromkeys(("train_loss", "loss"), NUMBER),
    **dict.fromkeys(
        ("train_accuracy", "accuracy", "balanced_accuracy", "macro_f1", "shift", "objective", "stage_progress"),
        FRACTION,
    ),
)
FINGERPRINTS = st.builds(
    Fingerprint, source=TEXT, digest=TEXT, classes=st.dictionaries(TEXT, COUNT), sites=st.dictionaries(TEXT, COUNT),
    **dict.fromkeys(("images", "height_px", "width_px", "excluded"), COUNT),
)  # fmt: skip
AVERAGED = st.builds(AveragedEpochs, epochs=st.integers(2, 9), objective=FRACTION, kept_objective=FRACTION)
METRICS = st.builds(Metrics, loss=NUMBER, accuracy=FRACTION, balanced_accuracy=FRACTION, macro_f1=FRACTION)
PARETO_TRIALS = st.builds(ParetoTrial, trial=COUNT, backbone=TEXT, recipe_id=TEXT, values=st.dictionaries(TEXT, NUMBER))
ARTIFACTS = st.one_of(
    FINGERPRINTS,
    st.builds(TrainingHistory, epochs=st.lists(EPOCHS, max_size=4).map(tuple)),
    st.builds(
        LedgerCharge,
        at_unix=NUMBER,
        phase=TEXT,
        device_seconds=st.floats(0, 1e9),
        spent_device_seconds=st.floats(0, 1e9),
    ),
    st.from_type(SplitsFile),
    st.builds(ParetoFront, objectives=st.lists(TEXT).map(tuple), trials=st.lists(PARETO_TRIALS, max_size=3).map(tuple)),
    st.builds(
        TrainingResult,
        averaged_epochs=st.none() | AVERAGED,
        metrics=METRICS,
        validation=st.none(),
        latency_ms=st.none() | FRACTION,
        target_estimate=st.none() | FRACTION,
        **dict.fromkeys(("objective", "seconds", "shift", "data_wait_fraction"), FRACTION),
        **dict.fromkeys(("epochs", "parameters"), COUNT),
    ),
)


@LAWS
@given(artifact=ARTIFACTS)
def test_an_artifact_comes_back_from_its_file(tmp_path_factory: pytest.TempPathFactory, artifact: Artifact) -> None:
    path = tmp_path_factory.mktemp("artifact") / artifact.FILE
    artifact.write(path)
    assert type(artifact).read(path) == artifact
    assert json.loads(path.read_text(encoding="utf-8"))[VERSION_KEY] == artifact.FORMAT_VERSION


@LAWS
@given(artifact=ARTIFACTS, data=st.data())
def test_a_cut_file_is_an_error_with_its_name(
    tmp_path_factory: pytest.TempPathFactory, artifact: Artifact, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("artifact") / artifact.FILE
    artifact.write(path)
    content = path.read_bytes().rstrip()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(RunError, match=rf"{artifact.FILE}: "):
        type(artifact).read(path)


@LAWS
@given(artifact=ARTIFACTS, data=st.data())
def test_a_changed_field_is_an_error_that_names_it(
    tmp_path_factory: pytest.TempPathFactory, artifact: Artifact, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("artifact") / artifact.FILE
    artifact.write(path)
    value = json.loads(path.read_text(encoding="utf-8"))
    required = [name for name, field in type(artifact).model_fields.items() if field.is_required()]
    name = data.draw(st.sampled_from(sorted(required)))
    change = data.draw(st.sampled_from(["missing", "unknown", "not finite", "version"]))
    if change == "missing":
        del value[name]
    elif change == "unknown":
        value[f"{name}_"] = 1
    elif change == "not finite":
        assume(isinstance(value[name], float))
        value[name] = float("nan")
    else:
        value[VERSION_KEY] = data.draw(st.sampled_from([None, 0, "1", True, 99]))
    path.write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(RunError) as caught:
        type(artifact).read(path)
    expected = {
        "missing": f"{name}: ",
        "unknown": f"{name}_: ",
        "not finite": f"{name}: ",
        "version": "format_version: ",
    }
    assert f"{path}: {expected[change]}expected" in str(caught.value)


@LAWS
@given(value=st.sampled_from([float("nan"), float("inf"), -float("inf")]))
def test_a_value_that_is_not_finite_is_never_constructed(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        LedgerCharge(at_unix=value, phase="idle", device_seconds=0.0, spent_device_seconds=0.0)


ROWS = st.builds(
    CleaningRow,
    **dict.fromkeys(("name", "label", "finding", "action", "reason"), TEXT),
    cluster=st.none() | st.integers(0, 10**9),
)


@LAWS
@given(rows=st.lists(ROWS, max_size=6))
def test_a_cleaning_table_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: list[CleaningRow]) -> None:
    path = tmp_path_factory.mktemp("artifact") / CleaningReport.FILE
    report = CleaningReport(rows=tuple(rows))
    report.write(path)
    assert CleaningReport.read(path) == report


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",format_version", "", "cleaning.csv:1: expected the columns"),
        (",1\n", ",2\n", "cleaning.csv:2: format_version: expected 1, got 2"),
        (",0,", ",first,", "cleaning.csv:2: cluster: expected"),
    ],
)
def test_another_cleaning_table_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / CleaningReport.FILE
    row = CleaningRow(name="a", label="ring", finding="grey", action="converted", cluster=0, reason="one channel")
    CleaningReport(rows=(row,)).write(path)
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(RunError, match=message):
        CleaningReport.read(path)


@LAWS
@given(seconds=st.lists(st.floats(0, 1e6), max_size=6), torn=st.integers(1, 40))
def test_a_ledger_keeps_all_charges_but_a_torn_last_one(
    tmp_path_factory: pytest.TempPathFactory, seconds: list[float], torn: int
) -> None:
    file = LedgerFile(tmp_path_factory.mktemp("artifact") / LedgerCharge.FILE)
    charges = [
        LedgerCharge(at_unix=float(index), phase=f"trial {index}", device_seconds=charged, spent_device_seconds=charged)
        for index, charged in enumerate(seconds)
    ]
    for charge in charges:
        file.append(charge)
    assert list(file.read()) == charges
    line = charges[-1].to_line() if charges else "{}"
    with (Path(file.path)).open("a", encoding="utf-8") as stream:
        stream.write(line[: min(torn, len(line) - 1)])
    assert list(file.read()) == charges
    file.repair_last_line()
    file.append(LedgerCharge(at_unix=0.0, phase="idle", device_seconds=1.0, spent_device_seconds=1.0))
    assert [charge.phase for charge in file.read()] == [*(charge.phase for charge in charges), "idle"]


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(_same(a, b) for a, b in zip(first, second, strict=True))
    if hasattr(type(first), "model_fields"):
        return all(_same(getattr(first, name), getattr(second, name)) for name in type(first).model_fields)
    return bool(first == second)


@st.composite
def array_artifacts(draw: st.DrawFn) -> ArrayArtifact:
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    n, m, k, classes, features, directions = (draw(st.integers(low, 4)) for low in (1, 0, 0, 1, 2, 1))

    def floats(*shape: int) -> np.ndarray:
        return rng.random(shape).astype(np.float32)

    kind = draw(st.sampled_from(["predictions", "weights", "checkpoint", "detector"]))
    if kind == "predictions":
        return ValidationPredictions(
            index=np.arange(n),
            labels=rng.integers(0, classes, n),
            clean=floats(n, classes),
            shifted_labels=rng.integers(0, classes, m),
            shifted_groups=np.array(["stain"] * m, dtype=np.str_),
            shifted_families=np.array(["gamma"] * m, dtype=np.str_),
            shifted_severities=rng.integers(1, 6, m),
            shifted_weights=rng.random(m),
            shifted=floats(m, classes),
            target=floats(k, classes),
        )
    weights = tuple(floats(*rng.integers(0, 4, rng.integers(0, 4))) for _ in range(draw(st.integers(0, 12))))
    if kind == "weights":
        return NetworkWeights(weights=weights)
    if kind == "checkpoint":
        history = tuple(draw(st.lists(EPOCHS, max_size=3)))
        return Checkpoint(
            weights=weights, optimizer=(np.array(7), *weights), history=history, seconds=1.5, progress=0.5, stage=1,
            complete=draw(st.booleans()), averages=weights[:1], average_steps=3,
        )  # fmt: skip
    space = FeatureSpace(
        means=floats(classes, features),
        directions=floats(features, directions),
        variances=floats(directions) + 1,
        other_variance=0.5,
        typical_distance=2.0,
    )
    return OodDetector(spaces=(space,) * k, distance_unit=1.0, entropy_unit=2.0, threshold=3.0)


@LAWS
@given(artifact=array_artifacts())
def test_arrays_come_back_with_their_dtypes(tmp_path_factory: pytest.TempPathFactory, artifact: ArrayArtifact) -> None:
    path = tmp_path_factory.mktemp("artifact") / artifact.FILE
    artifact.write(path)
    assert _same(type(artifact).read(path), artifact)


def test_dimensions_of_one_name_have_one_length() -> None:
    with pytest.raises(ValidationError, match="directions to have d = 3 as means has, not 2"):
        FeatureSpace(
            means=np.zeros((2, 3), np.float32),
            directions=np.zeros((2, 1), np.float32),
            variances=np.ones(1, np.float32),
            other_variance=1.0,
        )


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.str_])
def test_an_array_of_another_dtype_is_refused(dtype: type[np.generic]) -> None:
    with pytest.raises(ValidationError, match="an array of float32, not of"):
        FeatureSpace(
            means=np.zeros((2, 3), dtype),
            directions=np.zeros((3, 1), np.float32),
            variances=np.ones(1, np.float32),
            other_variance=1.0,
        )


def test_paths_are_stored_relative_to_the_run(tmp_path: Path) -> None:
    from bloodauto.testing.run_factory import build_run

    run = build_run(tmp_path / "run", trials=8)
    ensemble = run.ensemble.read()
    assert all(network.folder.is_absolute() and network.files.predictions.exists for network in ensemble.networks)
    written = json.loads(run.ensemble.path.read_text(encoding="utf-8"))
    assert written["members"][0]["networks"][0]["folder"].startswith("refits/")
    moved = run.root.rename(tmp_path / "moved")
    assert all(network.folder.is_relative_to(moved) for network in Ensemble.read(moved / Ensemble.FILE).networks)


def test_the_held_out_test_is_described_in_a_sentence() -> None:
    fields = dict.fromkeys(("balanced_accuracy", "macro_f1", "ece", "ece_shifted", "shifted_accuracy"), 0.5)
    estimate = ExternalEstimate(
        mean=0.843,
        low=0.71,
        high=0.92,
        nominal_coverage=0.9,
        measured_coverage=None,
        simulated_sites=40,
        shift_factors=0,
    )
    test = HeldOutTest(
        ensemble="0", images=2, accuracy=0.982, accuracy_low=0.978, accuracy_high=0.986, loss=0.1, confusion=((2,),),
        classes=("a",), shift={}, shifted_images=0, external=estimate, simulated_sites=(), **fields,
    )  # fmt: skip
    assert test.accuracy_text() == "In-domain 98.2 % (97.8-98.6); external site 84 % (71-92)"
    assert "90% of external sites" in estimate.coverage_text()
    measured = estimate.replace(measured_coverage=0.88, shift_factors=6)
    assert "With each of 6 shift factors left out" in measured.coverage_text()
