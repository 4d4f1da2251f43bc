"""Thread pools, each case in a new process because they can be set only once."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

LIMIT = """
import cv2, tensorflow as tf
from bloodauto.models.device import limit_native_threads
limit_native_threads(1)
limit_native_threads(1)
assert cv2.getNumThreads() == 1, cv2.getNumThreads()
assert tf.config.threading.get_intra_op_parallelism_threads() == 1
tf.linalg.matmul(tf.ones((8, 8)), tf.ones((8, 8)))
"""

TOO_LATE = """
import tensorflow as tf
from bloodauto.models.device import limit_native_threads
from bloodauto.errors import RunError
tf.linalg.matmul(tf.ones((8, 8)), tf.ones((8, 8)))
try:
    limit_native_threads(1)
except RunError as error:
    assert "first thing in the process" in str(error)
else:
    raise AssertionError("expected RunError")
"""


@pytest.mark.parametrize("script", [LIMIT, TOO_LATE])
def test_threads_are_limited_before_tensorflow_runs(script: str) -> None:
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
