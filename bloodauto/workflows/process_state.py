"""Keeps what a workflow and its libraries change in the caller's process within the workflow."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import threading
import warnings
from collections.abc import Iterator

import numpy as np

from bloodauto.models.device import restored_device_state

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


@contextlib.contextmanager
def restored_process_state() -> Iterator[None]:
    """Restores at the end of the block what Ray, Optuna, Keras and OpenCV changed in this process.

    That is: environment variables, warning filters, signal handlers, the levels and handlers of existing loggers (Optuna's
    verbosity and Ray's among them), Keras' dtype policy, OpenCV's threads, and the global generators of ``random`` and NumPy.
    What TensorFlow was told about devices and threads stays: it accepts that once in a process.
    """
    environment = dict(os.environ)
    loggers = _logger_states()
    python_random, numpy_random = random.getstate(), np.random.get_state()  # noqa: NPY002  # the global one is restored
    # Python lets only the main thread set handlers.
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        with warnings.catch_warnings(), restored_device_state():
            yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        random.setstate(python_random)
        np.random.set_state(numpy_random)  # noqa: NPY002
        for logger, (level, propagate, attached) in loggers.items():
            logger.setLevel(level)
            logger.propagate, logger.handlers = propagate, attached
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


def _logger_states() -> dict[logging.Logger, tuple[int, bool, list[logging.Handler]]]:
    """Level, propagation and handlers of the root logger and of every logger that exists."""
    existing = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    return {
        logger: (logger.level, logger.propagate, list(logger.handlers))
        for logger in existing
        if isinstance(logger, logging.Logger)
    }
