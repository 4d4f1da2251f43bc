"""Checkpoints and weights: arrays come back as they were, and what is damaged is an error that says what to do."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from bloodauto.errors import RunError
from bloodauto.run.artifacts import Checkpoint, EpochReport, NetworkWeights

REPORT = EpochReport(
    epoch=1,
    stage=0,
    seconds=1.5,
    evaluation_seconds=0.5,
    train_loss=0.1,
    train_accuracy=0.9,
    learning_rate=1e-3,
    loss=0.2,
    accuracy=0.8,
    balanced_accuracy=0.7,
    macro_f1=0.6,
    shift=0.5,
    objective=0.5,
    data_wait_fraction=0.0,
    stage_progress=0.25,
)


def variables(count: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=(index % 3 + 1, 2)).astype(np.float32) for index in range(count))


def checkpoint(*weights: np.ndarray, complete: bool = False) -> Checkpoint:
    optimizer = (np.array(7), *variables(11))
    return Checkpoint(
        weights=weights, optimizer=optimizer, history=(REPORT,), seconds=12.5, progress=0.25, stage=1, complete=complete
    )


def test_a_checkpoint_comes_back_in_its_order(tmp_path):
    path = tmp_path / "checkpoint.npz"
    saved = checkpoint(*variables(12), np.array(3))
    saved.write(path)
    read = Checkpoint.read(path)
    assert (read.history, read.seconds, read.progress, read.stage, read.complete) == ((REPORT,), 12.5, 0.25, 1, False)
    for values, expected in ((read.weights, saved.weights), (read.optimizer, saved.optimizer), (read.averages, ())):
        assert [value.dtype for value in values] == [value.dtype for value in expected]
        for value, other in zip(values, expected, strict=True):
            np.testing.assert_array_equal(value, other)


def test_objects_are_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "checkpoint.npz"
    checkpoint(*variables(2), complete=True).write(path)
    with pytest.raises(ValidationError, match="not of object"):
        checkpoint(np.array([{}], dtype=object)).write(path)
    assert Checkpoint.read(path).complete
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.npz"]


def as_npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def as_npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


FIELDS = {
    "format_version": 3, "weights": [], "optimizer": [], "history": [], "seconds": 1.0, "progress": 0.5, "stage": 0,
    "complete": False, "averages": [], "average_steps": 0, "stage_best": [],
    "epoch_steps": 0, "epoch_metrics": [], "dropout": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "could not read it"),
        (b"no archive", "could not read it"),
        (b"PK\x03\x04" + bytes(100), "could not read it"),
        (as_npy(), "could not read it"),
        (as_npz(fields=np.asarray("{")), "could not read it"),
        (as_npz(fields=np.array([{}], dtype=object)), "could not read it"),
        (as_npz(fields=np.asarray(json.dumps(FIELDS)), weights=np.zeros(5000))[:-3000], "could not read it"),
        (as_npz(fields=np.asarray("3")), "expected a mapping with format_version, got 3"),
        (as_npz(fields=np.asarray(json.dumps({**FIELDS, "history": [{"epoch": 1}]}))), "history.0.stage: expected a value"),
        (as_npz(fields=np.asarray(json.dumps({**FIELDS, "weights": [1.5]}))), "weights.0: expected an array"),
        (as_npz(fields=np.asarray(json.dumps({**FIELDS, "weights": [{"$array": "w"}]}))), "could not read it"),
    ],
    ids=["empty", "text", "zip", "npy", "half-json", "pickle", "cut", "number", "history", "no-array", "lost-array"],
)  # fmt: skip
def test_a_damaged_checkpoint_is_an_error_that_says_what_to_do(tmp_path, data, problem):
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"checkpoint\.npz: .*Delete it to start this training over") as caught:
        Checkpoint.read(path)
    assert problem in str(caught.value)


def test_a_checkpoint_of_another_version_is_refused(tmp_path):
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(as_npz(w00000=np.zeros(2)))
    with pytest.raises(RunError, match="format_version: expected 3, got none"):
        Checkpoint.read(path)


def test_a_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "best.npz"
    NetworkWeights(weights=variables(3)).write(path)
    data = bytearray(path.read_bytes())
    position = data.index(variables(3)[1].tobytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(RunError, match=r"expected a best\.npz of bloodauto"):
        NetworkWeights.read(path)


def test_weights_come_back(tmp_path):
    path = tmp_path / "deep" / "best.npz"
    NetworkWeights(weights=variables(11)).write(path)
    for value, other in zip(NetworkWeights.read(path).weights, variables(11), strict=True):
        np.testing.assert_array_equal(value, other)
    with pytest.raises(RunError, match=r"none\.npz: expected a best\.npz of bloodauto"):
        NetworkWeights.read(tmp_path / "none.npz")
