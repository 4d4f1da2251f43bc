"""The start-up of TensorFlow, in processes of its own."""

import os
import subprocess
import sys
from pathlib import Path

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
    assert "expected Keras with the backend tensorflow, got jax: it was imported before bloodauto" in process.stderr


@pytest.mark.slow
def test_what_other_programs_set_keras_to_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text(
        '{"floatx": "float16", "epsilon": 0.1, "backend": "jax", "image_data_format": "channels_first"}'
    )
    process = run_python(
        "from bloodauto.models.device import free_networks, restored_device_state\n"
        "with restored_device_state(): free_networks()\n"
        "import keras; print(keras.backend.backend(), keras.config.floatx(), keras.config.image_data_format())",
        KERAS_HOME=str(tmp_path),
        KERAS_BACKEND="torch",
        TF_USE_LEGACY_KERAS="1",
    )
    assert process.stdout.split() == ["tensorflow", "float32", "channels_last"], process.stderr[-500:]
