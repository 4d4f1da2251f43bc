"""How many native threads this process may start."""

from __future__ import annotations

import cv2

from bloodauto.errors import RunError


def limit_native_threads(cores: int) -> None:
    """Makes OpenCV and TensorFlow use no more than the cores this process was given.

    OpenCV runs each call on its caller's thread: the batch pipeline's own threads are the parallel ones. TensorFlow's two
    pools are set to ``cores``. Call it once in each worker before TensorFlow has run anything.

    Raises:
        RunError: TensorFlow has already started its pools with other sizes.
    """
    import tensorflow as tf

    assert cores >= 1, f"expected at least one core, got {cores}"
    cv2.setNumThreads(1)
    threading = tf.config.threading
    wanted = (cores, 1)
    if (threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()) == wanted:
        return
    try:
        threading.set_intra_op_parallelism_threads(wanted[0])
        threading.set_inter_op_parallelism_threads(wanted[1])
    except RuntimeError as error:
        raise RunError(
            f"TensorFlow's threads: expected to set {cores} before TensorFlow runs, but it has already started "
            f"({error}). Call limit_native_threads first thing in the process."
        ) from None
