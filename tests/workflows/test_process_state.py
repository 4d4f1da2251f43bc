"""A workflow leaves the caller's process as it found it."""

from __future__ import annotations

import logging
import os
import random
import signal
import warnings

import cv2
import keras
import numpy as np
import pytest

from bloodauto.workflows.process_state import restored_process_state


def test_everything_that_libraries_change_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOODAUTO_CHANGED", "before")
    monkeypatch.delenv("BLOODAUTO_ADDED", raising=False)
    logger = logging.getLogger("bloodauto.tests.process_state")
    handler, filters = signal.getsignal(signal.SIGINT), list(warnings.filters)
    threads, policy = cv2.getNumThreads(), keras.config.dtype_policy().name
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002  # the global generator is what is restored
    expected = random.Random(5).random()
    with restored_process_state():
        os.environ["BLOODAUTO_CHANGED"] = "inside"
        os.environ["BLOODAUTO_ADDED"] = "inside"
        logger.setLevel(logging.CRITICAL)
        logger.addHandler(logging.NullHandler())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        warnings.simplefilter("ignore")
        cv2.setNumThreads(threads + 1)
        keras.config.set_dtype_policy("mixed_float16")
        random.seed(6)
        np.random.seed(6)  # noqa: NPY002
    assert os.environ["BLOODAUTO_CHANGED"] == "before"
    assert "BLOODAUTO_ADDED" not in os.environ
    assert (logger.level, logger.handlers) == (logging.NOTSET, [])
    assert signal.getsignal(signal.SIGINT) == handler
    assert warnings.filters == filters
    assert (cv2.getNumThreads(), keras.config.dtype_policy().name) == (threads, policy)
    assert random.random() == expected
    assert np.random.random() == np.random.RandomState(5).random()  # noqa: NPY002


def test_it_is_restored_after_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BLOODAUTO_ADDED", raising=False)

    def fail() -> None:
        os.environ["BLOODAUTO_ADDED"] = "inside"
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), restored_process_state():
        fail()
    assert "BLOODAUTO_ADDED" not in os.environ
