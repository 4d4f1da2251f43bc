"""The start-up of TensorFlow, in processes of its own."""

import os
import subprocess
import sys

import pytest


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_start_up_is_silent_and_leaves_the_environment_alone() -> None:
    process = run_python(
        "from bloodauto.models.tensorflow import import_tensorflow_quietly\n"
        "import_tensorflow_quietly()\n"
        "import os, keras; print(keras.backend.backend(), 'KERAS_BACKEND' in os.environ, 'TF_CPP_MIN_LOG_LEVEL' in os.environ)"
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "tensorflow False False\n", "")


@pytest.mark.slow
def test_another_backend_of_keras_is_an_error_that_says_what_to_do() -> None:
    process = run_python(
        "import sys, types; from bloodauto.models import tensorflow\n"
        "import keras; keras.backend.backend = lambda: 'jax'\n"
        "tensorflow.import_tensorflow_quietly()"
    )
    assert process.returncode == 1
    assert "expected Keras with the backend tensorflow, got jax. Set KERAS_BACKEND=tensorflow" in process.stderr
