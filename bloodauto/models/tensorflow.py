"""Start-up of TensorFlow in this process: its backend of Keras, its messages, and nothing that outlasts the import."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from types import ModuleType

from bloodauto.errors import UserError

#: Read by TensorFlow and Keras while they are imported.
START_UP_ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2", "TF_USE_LEGACY_KERAS": "0"}
_FLOAT_TYPE, _EPSILON, _IMAGE_FORMAT = "float32", 1e-7, "channels_last"


def import_tensorflow_quietly() -> ModuleType:
    """Imports TensorFlow and Keras and lets TensorFlow find its devices, without its messages on standard error.

    What ``keras.json`` and the environment say for other programs does not count: the backend is TensorFlow, numbers are
    float32, channels come last.

    TensorFlow's start-up messages come from compiled code, before any log level is read, and say on every machine without a
    GPU that it has none. They are shown when the import fails. The environment variables that it sets for this are removed
    again.

    Call it before the first import of a module that imports Keras: the command line and ``bloodauto.__getattr__`` do.

    Returns:
        The module ``tensorflow``.

    Raises:
        UserError: Keras was imported before with another backend than TensorFlow.
    """
    is_new = "tensorflow" not in sys.modules or "keras" not in sys.modules
    with _environment(START_UP_ENVIRONMENT), _stderr_shown_on_failure() if is_new else contextlib.nullcontext():
        import keras
        import tensorflow

        tf: ModuleType = tensorflow
        tf.config.list_physical_devices()
    if is_new:
        # It warns of graphs that are built anew; every stage of a training does that, on purpose.
        tf.get_logger().setLevel("ERROR")
        keras.config.set_floatx(_FLOAT_TYPE)
        keras.config.set_epsilon(_EPSILON)
        keras.config.set_image_data_format(_IMAGE_FORMAT)
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise UserError(
            f"expected Keras with the backend tensorflow, got {backend}: it was imported before bloodauto. Import bloodauto "
            "first, or set KERAS_BACKEND=tensorflow."
        )
    return tf


def import_keras_quietly() -> ModuleType:
    """As ``import_tensorflow_quietly``.

    Returns:
        The module ``keras``, which is not TensorFlow's own name for it: that one follows ``TF_USE_LEGACY_KERAS``.
    """
    import_tensorflow_quietly()
    return sys.modules["keras"]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python or TensorFlow had too little memory; where TensorFlow was never imported, it raised nothing.

    Args:
        error: Any exception.
    """
    tensorflow = sys.modules.get("tensorflow")
    types = () if tensorflow is None else (tensorflow.errors.ResourceExhaustedError,)
    return isinstance(error, (MemoryError, *types))


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables within the block."""
    earlier = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in earlier.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _stderr_shown_on_failure() -> Iterator[None]:
    """Keeps what compiled code writes to standard error within the block; shows it when the block raises."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            if failed:
                kept.seek(0)
                sys.stderr.write(kept.read().decode(errors="replace"))
