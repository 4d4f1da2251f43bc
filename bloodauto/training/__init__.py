"""Training one recipe. Knows nothing of Ray, Optuna or budgets."""

import os

# Keras picks its backend at import; the project's graphs, thread settings and exports are TensorFlow's.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
