"""The head of a network: from a backbone's feature maps to logits, in standard Keras layers."""

from __future__ import annotations

from typing import Any

from keras import layers, ops, regularizers

from bloodauto.config.recipe import Head

_GEM_POWER = 3.0
#: Lower bound of features, so that the root has a finite gradient.
_GEM_SMALLEST = 1e-6


def _generalised_mean(features: Any) -> Any:
    # In 16 bits the third power of 41 is already infinite.
    features = ops.maximum(ops.cast(features, "float32"), _GEM_SMALLEST)
    mean = layers.GlobalAveragePooling2D(dtype="float32", name="pool")(ops.power(features, _GEM_POWER))
    return ops.power(mean, 1 / _GEM_POWER)


def _pooled(head: Head, features: Any) -> Any:
    if head.pooling == "gem":
        return _generalised_mean(features)
    pool = layers.GlobalAveragePooling2D if head.pooling == "avg" else layers.GlobalMaxPooling2D
    return pool(name="pool")(features)


def dense_dropout_rate(head: Head) -> float:
    """The rate of dropout after each dense layer."""
    return head.dropout if head.dense_dropout is None else head.dense_dropout


def build_head(
    head: Head, features: Any, num_classes: int, *, dropout_layer: type[layers.Dropout] = layers.Dropout
) -> Any:
    """Adds a head to a symbolic tensor of features.

    Args:
        head: As a recipe has it.
        features: Feature maps, shape (batch, height, width, channels).
        num_classes: Number of logits.
        dropout_layer: What drops features.

    Returns:
        float32 logits, shape (batch, num_classes).
    """
    x = _pooled(head, features)
    if head.normalisation == "batch":
        x = layers.BatchNormalization(name="head_norm")(x)
    elif head.normalisation == "layer":
        x = layers.LayerNormalization(name="head_norm")(x)
    x = dropout_layer(head.dropout, name="dropout")(x)
    dense_dropout = dense_dropout_rate(head)

    def l2() -> regularizers.Regularizer | None:
        return regularizers.L2(head.l2) if head.l2 > 0 else None

    for index, units in enumerate(head.dense_units):
        x = layers.Dense(units, activation=head.activation, kernel_regularizer=l2(), name=f"head_{index}")(x)
        x = dropout_layer(dense_dropout, name=f"head_{index}_dropout")(x)
    return layers.Dense(num_classes, kernel_regularizer=l2(), dtype="float32", name="logits")(x)
