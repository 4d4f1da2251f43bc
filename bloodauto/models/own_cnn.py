"""A small network of our own, without residual connections: for tests, small images, and as the reports' own CNNs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

#: Convolution, batch normalisation and activation, twice.
LAYERS_PER_BLOCK = 6


def build_own_cnn(size_px: int, *, blocks: int, width: int) -> keras.Model:
    """Blocks of a 3x3 convolution with stride 2 and a separable one; ``width`` filters, doubled from block to block.

    Returns:
        float images (n, size_px, size_px, 3) -> feature maps.
    """
    import keras
    from keras import layers

    inputs = layers.Input((size_px, size_px, 3))
    x = inputs
    for block in range(1, blocks + 1):
        filters = width * 2 ** (block - 1)
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False, name=f"block{block}a_conv")(x)
        x = layers.BatchNormalization(name=f"block{block}a_bn")(x)
        x = layers.ReLU(name=f"block{block}a_relu")(x)
        x = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False, name=f"block{block}b_conv")(x)
        x = layers.BatchNormalization(name=f"block{block}b_bn")(x)
        x = layers.ReLU(name=f"block{block}b_relu")(x)
    return keras.Model(inputs, x, name=f"own_cnn_{blocks}x{width}")


def own_cnn_parameters(*, blocks: int, width: int) -> int:
    """What ``build_own_cnn`` has, without building it."""
    total, channels = 0, 3
    for block in range(blocks):
        filters = width * 2**block
        # Convolution, depthwise and pointwise part of the separable one, and four numbers for each normalised channel.
        total += 9 * channels * filters + 9 * filters + filters**2 + 2 * 4 * filters
        channels = filters
    return total
