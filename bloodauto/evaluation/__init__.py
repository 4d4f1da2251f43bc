"""Evaluation of networks: metrics, inference, calibration, abstention, OOD detection, latency. Knows nothing of searches."""
