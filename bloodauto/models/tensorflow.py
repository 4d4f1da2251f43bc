"""Imports TensorFlow without its greetings."""

from __future__ import annotations

import os
import sys
import tempfile


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow and lets it look for devices; what it writes to standard error meanwhile is kept from the user.

    TensorFlow's start-up lines come from compiled code, before any log level is read, and say on every machine without a
    GPU that it has none. They are shown when the import fails.
    """
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        failed = True
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
            # It warns of graphs that are built anew; every stage of a training does that, on purpose.
            tf.get_logger().setLevel("ERROR")
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            if failed:
                kept.seek(0)
                sys.stderr.write(kept.read().decode(errors="replace"))
