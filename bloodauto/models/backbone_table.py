"""The table of backbones: one row for each supported network of ``keras.applications``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PixelScaling = Literal["in_network", "in_network_except_sqrt_std", "signed", "imagenet_statistics", "caffe"]

#: The small CNN of our own; ``recipe.Backbone`` has its blocks and width.
OWN_CNN = "own_cnn"


@dataclass(frozen=True, kw_only=True)
class BackboneInfo:
    """One backbone.

    Attributes:
        constructor: Its name in ``keras.applications``.
        alpha: Its width multiplier, where it has one.
        pixel_scaling: How pixels of 0-255 become what it was pre-trained on. ``in_network``: the network does it.
            ``in_network_except_sqrt_std``: it does, but for a division by the root of ImageNet's standard deviation, a
            layer that Keras adds only to an EfficientNet whose weights it loads itself. ``signed``: to -1..1.
            ``imagenet_statistics``: to 0..1, then by ImageNet's mean and standard deviation per channel. ``caffe``: BGR
            minus ImageNet's mean grey levels.
        block_starts: Prefixes of layer names; each begins a block at its first layer. Layers before the first one belong to the
            first block.
        block_ends: Used instead where layers within blocks are numbered per process: names of the layers that end a block.
            Layers after the last one are one more block.
        weights_file: The official name of the ImageNet weights without the top, at 224 px where there are several.
        parameters: Of the backbone without a head.
        num_layers: As ``len(model.layers)`` counts them, the input included.
        smallest_px: The smallest side it can be built for.
    """

    constructor: str
    alpha: float | None = None
    pixel_scaling: PixelScaling
    block_starts: tuple[str, ...] = ()
    block_ends: tuple[str, ...] = ()
    weights_file: str
    parameters: int
    num_layers: int
    smallest_px: int = 32

    @property
    def num_blocks(self) -> int:
        """How many blocks it has for unfreezing."""
        return len(self.block_starts) if self.block_starts else len(self.block_ends) + 1


_TF_FILE = "_weights_tf_dim_ordering_tf_kernels_notop.h5"
_RESNET_BLOCKS = ("conv1", "conv3_block1", "conv4_block1", "conv5_block1")


def _numbered(count: int, suffix: str = "a_") -> tuple[str, ...]:
    return tuple(f"block{index}{suffix}" for index in range(1, count + 1))


def _vgg(depth: int, parameters: int, num_layers: int) -> BackboneInfo:
    return BackboneInfo(
        constructor=f"VGG{depth}",
        pixel_scaling="caffe",
        block_starts=_numbered(5, "_"),
        weights_file=f"vgg{depth}{_TF_FILE}",
        parameters=parameters,
        num_layers=num_layers,
    )


def _mobilenet(alpha: float, code: str, parameters: int) -> BackboneInfo:
    return BackboneInfo(
        constructor="MobileNet",
        alpha=alpha,
        pixel_scaling="signed",
        block_starts=("conv1", "conv_pad_2", "conv_pad_4", "conv_pad_6", "conv_pad_12"),
        weights_file=f"mobilenet_{code}_224_tf_no_top.h5",
        parameters=parameters,
        num_layers=86,
    )


def _mobilenet_v2(alpha: float, parameters: int) -> BackboneInfo:
    return BackboneInfo(
        constructor="MobileNetV2",
        alpha=alpha,
        pixel_scaling="signed",
        block_starts=("Conv1", "block_1_", "block_3_", "block_6_", "block_13_"),
        weights_file=f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224_no_top.h5",
        parameters=parameters,
        num_layers=154,
    )


def _mobilenet_v3(size: str, block_starts: tuple[str, ...], parameters: int, num_layers: int) -> BackboneInfo:
    return BackboneInfo(
        constructor=f"MobileNetV3{size}",
        pixel_scaling="in_network",
        block_starts=("conv", *block_starts),
        weights_file=f"weights_mobilenet_v3_{size.lower()}_224_1.0_float_no_top_v2.h5",
        parameters=parameters,
        num_layers=num_layers,
    )


def _nasnet(size: str, cells: int, parameters: int, num_layers: int) -> BackboneInfo:
    # A stage of normal cells belongs to the reduction before it; cells are numbered through, reductions included.
    ends = ("reduction_concat_stem_2", f"normal_concat_{cells - 1}", f"normal_concat_{2 * cells}")
    return BackboneInfo(
        constructor=f"NASNet{size}",
        pixel_scaling="signed",
        block_ends=ends,
        weights_file=f"nasnet_{size.lower()}_no_top.h5",
        parameters=parameters,
        num_layers=num_layers,
    )


def _efficientnet(size: str, parameters: int, num_layers: int) -> BackboneInfo:
    return BackboneInfo(
        constructor=f"EfficientNet{size}",
        pixel_scaling="in_network_except_sqrt_std",
        block_starts=_numbered(7),
        weights_file=f"efficientnet{size.lower()}_notop.h5",
        parameters=parameters,
        num_layers=num_layers,
    )


def _efficientnet_v2(size: str, blocks: int, parameters: int, num_layers: int) -> BackboneInfo:
    return BackboneInfo(
        constructor=f"EfficientNetV2{size}",
        pixel_scaling="in_network",
        block_starts=_numbered(blocks),
        weights_file=f"efficientnetv2-{size.lower()}_notop.h5",
        parameters=parameters,
        num_layers=num_layers,
    )


def _convnext(size: str, parameters: int, num_layers: int) -> BackboneInfo:
    name = f"convnext_{size.lower()}"
    return BackboneInfo(
        constructor=f"ConvNeXt{size}",
        pixel_scaling="in_network",
        block_starts=(f"{name}_stem", *(f"{name}_downsampling_block_{index}" for index in range(3))),
        weights_file=f"{name}_notop.h5",
        parameters=parameters,
        num_layers=num_layers,
    )


BACKBONES: dict[str, BackboneInfo] = {
    "vgg16": _vgg(16, 14_714_688, 19),
    "vgg19": _vgg(19, 20_024_384, 22),
    "xception": BackboneInfo(
        constructor="Xception",
        pixel_scaling="signed",
        block_starts=_numbered(14, "_"),
        weights_file=f"xception{_TF_FILE}",
        parameters=20_861_480,
        num_layers=132,
        smallest_px=71,
    ),
    "inception_v3": BackboneInfo(
        constructor="InceptionV3",
        pixel_scaling="signed",
        block_ends=tuple(f"mixed{index}" for index in range(10)),
        weights_file=f"inception_v3{_TF_FILE}",
        parameters=21_802_784,
        num_layers=311,
        smallest_px=75,
    ),
    "inception_resnet_v2": BackboneInfo(
        constructor="InceptionResNetV2",
        pixel_scaling="signed",
        block_ends=("mixed_5b", "block35_10_ac", "mixed_6a", "block17_20_ac", "mixed_7a"),
        weights_file=f"inception_resnet_v2{_TF_FILE}",
        parameters=54_336_736,
        num_layers=780,
        smallest_px=75,
    ),
    "resnet50": BackboneInfo(
        constructor="ResNet50",
        pixel_scaling="caffe",
        block_starts=_RESNET_BLOCKS,
        weights_file=f"resnet50{_TF_FILE}",
        parameters=23_587_712,
        num_layers=175,
    ),
    "resnet50_v2": BackboneInfo(
        constructor="ResNet50V2",
        pixel_scaling="signed",
        block_starts=_RESNET_BLOCKS,
        weights_file=f"resnet50v2{_TF_FILE}",
        parameters=23_564_800,
        num_layers=190,
    ),
    "densenet121": BackboneInfo(
        constructor="DenseNet121",
        pixel_scaling="imagenet_statistics",
        block_starts=_RESNET_BLOCKS,
        weights_file=f"densenet121{_TF_FILE}",
        parameters=7_037_504,
        num_layers=427,
    ),
    "mobilenet_0.25": _mobilenet(0.25, "2_5", 218_544),
    "mobilenet_0.5": _mobilenet(0.5, "5_0", 829_536),
    "mobilenet_0.75": _mobilenet(0.75, "7_5", 1_832_976),
    "mobilenet_1.0": _mobilenet(1.0, "1_0", 3_228_864),
    "mobilenet_v2_0.35": _mobilenet_v2(0.35, 410_208),
    "mobilenet_v2_0.5": _mobilenet_v2(0.5, 706_224),
    "mobilenet_v2_0.75": _mobilenet_v2(0.75, 1_382_064),
    "mobilenet_v2_1.0": _mobilenet_v2(1.0, 2_257_984),
    "mobilenet_v2_1.3": _mobilenet_v2(1.3, 3_766_048),
    "mobilenet_v2_1.4": _mobilenet_v2(1.4, 4_363_712),
    "mobilenet_v3_small": _mobilenet_v3(
        "Small",
        ("expanded_conv_depthwise", "expanded_conv_1_", "expanded_conv_3_", "expanded_conv_8_"),
        939_120,
        157,
    ),
    "mobilenet_v3_large": _mobilenet_v3(
        "Large",
        ("expanded_conv_1_", "expanded_conv_3_", "expanded_conv_6_", "expanded_conv_12_"),
        2_996_352,
        187,
    ),
    "nasnet_mobile": _nasnet("Mobile", 4, 4_269_716, 769),
    "nasnet_large": _nasnet("Large", 6, 84_916_818, 1039),
    "efficientnet_b0": _efficientnet("B0", 4_049_571, 237),
    "efficientnet_b1": _efficientnet("B1", 6_575_239, 339),
    "efficientnet_b2": _efficientnet("B2", 7_768_569, 339),
    "efficientnet_b3": _efficientnet("B3", 10_783_535, 384),
    "efficientnet_b4": _efficientnet("B4", 17_673_823, 474),
    "efficientnet_v2_b0": _efficientnet_v2("B0", 6, 5_919_312, 270),
    "efficientnet_v2_b1": _efficientnet_v2("B1", 6, 6_931_124, 334),
    "efficientnet_v2_b2": _efficientnet_v2("B2", 6, 8_769_374, 349),
    "efficientnet_v2_b3": _efficientnet_v2("B3", 6, 12_930_622, 409),
    "efficientnet_v2_s": _efficientnet_v2("S", 6, 20_331_360, 513),
    "efficientnet_v2_m": _efficientnet_v2("M", 7, 53_150_388, 740),
    "efficientnet_v2_l": _efficientnet_v2("L", 7, 117_746_848, 1028),
    "convnext_tiny": _convnext("Tiny", 27_820_128, 133),
    "convnext_small": _convnext("Small", 49_454_688, 259),
    "convnext_base": _convnext("Base", 87_566_464, 259),
    "convnext_large": _convnext("Large", 196_230_336, 259),
    "convnext_xlarge": _convnext("XLarge", 348_147_968, 259),
}
