from __future__ import annotations

import io
import json

import numpy as np
import pytest

from bloodauto.errors import RunError
from bloodauto.training.checkpoint import (
    Checkpoint,
    EpochReport,
    read_checkpoint,
    read_weights,
    write_checkpoint,
    write_weights,
)

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


def arrays(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(index % 3 + 1, 2)).astype(np.float32) for index in range(count)]


def test_a_checkpoint_comes_back_in_its_order(tmp_path):
    path = tmp_path / "checkpoint.npz"
    saved = Checkpoint([*arrays(12), np.int64(3)], [np.array(7), *arrays(11)], (REPORT,), 12.5, 0.25, 1, False)
    write_checkpoint(path, saved)
    back = read_checkpoint(path)
    assert (back.history, back.seconds, back.progress, back.stage, back.complete) == ((REPORT,), 12.5, 0.25, 1, False)
    for one, other in ((back.weights, saved.weights), (back.optimizer, saved.optimizer)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def test_no_checkpoint_is_none(tmp_path):
    assert read_checkpoint(tmp_path / "checkpoint.npz") is None


def test_a_failed_write_leaves_the_checkpoint_before(tmp_path):
    path = tmp_path / "checkpoint.npz"
    write_checkpoint(path, Checkpoint(arrays(2), [], (REPORT,), 1.0, 0.5, 0, True))
    with pytest.raises(ValueError, match="Object arrays"):
        write_checkpoint(path, Checkpoint([np.array([{}], dtype=object)], [], (), 1.0, 0.5, 0, True))
    assert read_checkpoint(path).complete
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.npz"]


def as_bytes(**named: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **named)
    return stream.getvalue()


def as_npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


META = {"history": [], "seconds": 1, "progress": 0.5, "stage": 0, "complete": False, "average_steps": 0}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive",
        b"PK\x03\x04" + bytes(100),
        as_npy(),
        as_bytes(w00000=np.zeros(2)),
        as_bytes(meta=np.asarray("{")),
        as_bytes(meta=np.asarray("3")),
        as_bytes(meta=np.asarray(json.dumps({**META, "history": [{"epoch": 1}]}))),
        as_bytes(meta=np.array([{}], dtype=object)),
        as_bytes(meta=np.asarray(json.dumps(META)), w00000=np.zeros(5000))[:-3000],
    ],
    ids=["empty", "text", "zip", "npy", "no-meta", "half-json", "number", "history", "pickle", "cut"],
)
def test_what_is_no_checkpoint_is_an_error_that_says_what_to_do(tmp_path, data):
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"checkpoint\.npz: expected a checkpoint, .*Delete it to start over"):
        read_checkpoint(path)


def test_a_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "best.npz"
    write_weights(path, arrays(3))
    data = bytearray(path.read_bytes())
    place = data.index(arrays(3)[1].tobytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(RunError, match="expected saved weights"):
        read_weights(path)


def test_weights_come_back(tmp_path):
    path = tmp_path / "deep" / "best.npz"
    write_weights(path, arrays(11))
    for one, other in zip(read_weights(path), arrays(11), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(RunError, match=r"none\.npz: expected saved weights"):
        read_weights(tmp_path / "none.npz")
