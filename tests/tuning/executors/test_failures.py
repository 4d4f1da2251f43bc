"""Kinds of failure follow from types, never from texts."""

from __future__ import annotations

import pytest
import tensorflow as tf

from bloodauto.errors import RecipeError, TrialAbort, TrialInterrupted, TrialRejected
from bloodauto.tuning.executors.failures import failure_from
from bloodauto.tuning.messages import Aborted, Crashed, Interrupted, Rejected


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (TrialRejected("nan", "the loss is nan"), Rejected, "nan"),
        (TrialInterrupted("disk", "the disk is full"), Interrupted, "disk"),
        (TrialAbort("abort", "no images"), Aborted, "abort"),
        (RecipeError("no such layer"), Rejected, "rejected"),
        (MemoryError(), Interrupted, "out_of_memory"),
        (tf.errors.ResourceExhaustedError(None, None, "no memory"), Interrupted, "out_of_memory"),
        (tf.errors.InvalidArgumentError(None, None, "shapes differ"), Rejected, "rejected"),
        (OSError(28, "No space left on device"), Interrupted, "io"),
        (ValueError("a fault of ours"), Crashed, "crash"),
        (KeyError("rejected"), Crashed, "crash"),
    ],
)
def test_the_kind_follows_from_the_type(error: Exception, kind: type, reason: str) -> None:
    failure = failure_from(error)
    assert type(failure) is kind
    assert failure.reason == reason


def test_a_crash_carries_its_whole_traceback_and_a_short_message() -> None:
    def fault() -> None:
        raise ValueError("first line\nsecond line")

    try:
        fault()
    except ValueError as error:
        failure = failure_from(error)
    assert isinstance(failure, Crashed)
    assert failure.message == "ValueError: first line"
    assert "in fault" in failure.traceback
    assert "second line" in failure.traceback


def test_messages_are_cut() -> None:
    assert len(failure_from(OSError("x" * 10_000)).message) == 500
