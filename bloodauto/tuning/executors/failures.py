"""From an exception in a worker to the kind of failure that it is."""

from __future__ import annotations

import sys
import traceback

from bloodauto.errors import TrialAbort, TrialFailure, TrialInterrupted, UserError
from bloodauto.models.tensorflow import is_out_of_memory
from bloodauto.tuning.messages import Aborted, Crashed, Interrupted, Rejected, TrainingFailure

_MAX_MESSAGE_CHARACTERS = 500


def failure_from(error: BaseException) -> TrainingFailure:
    """The kind of failure that an exception of a training stands for.

    The package raises ``TrialFailure`` and ``UserError`` on purpose. TensorFlow, Python and the operating system raise their
    own for too little memory, impossible shapes and disks. Anything else, a plain ``ValueError`` included, is a fault of ours.

    Args:
        error: What the training raised.

    Example:
        >>> failure_from(MemoryError("no more")).reason
        'out_of_memory'
        >>> type(failure_from(ValueError("a fault of ours"))).__name__
        'Crashed'
    """
    if isinstance(error, TrialFailure):
        return _declared_failure(error)
    if isinstance(error, UserError):
        return Rejected("rejected", str(error))
    summary = error_summary(error)
    if is_out_of_memory(error):
        return Interrupted("out_of_memory", summary)
    if isinstance(error, _invalid_shape_types()):
        return Rejected("rejected", summary)
    if isinstance(error, OSError):
        return Interrupted("io", summary)
    return Crashed(summary, traceback="".join(traceback.format_exception(error)))


def _declared_failure(error: TrialFailure) -> TrainingFailure:
    if isinstance(error, TrialAbort):
        return Aborted(str(error), error.reason)
    if isinstance(error, TrialInterrupted):
        return Interrupted(error.reason, str(error))
    return Rejected(error.reason, str(error))


def error_summary(error: BaseException) -> str:
    """Type and first line of an exception, at most 500 characters.

    Args:
        error: The exception.
    """
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:_MAX_MESSAGE_CHARACTERS]


def _invalid_shape_types() -> tuple[type[BaseException], ...]:
    return _tensorflow_errors("InvalidArgumentError")


def _tensorflow_errors(name: str) -> tuple[type[BaseException], ...]:
    """One of TensorFlow's exceptions. Where TensorFlow was never imported, none of them was raised."""
    tensorflow = sys.modules.get("tensorflow")
    return () if tensorflow is None else (getattr(tensorflow.errors, name),)
