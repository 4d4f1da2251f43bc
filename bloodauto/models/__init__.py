"""Backbones, heads, input filters and networks; the device of a process and the start-up of TensorFlow."""
