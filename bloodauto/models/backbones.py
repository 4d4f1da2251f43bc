"""Facts about backbones, without TensorFlow: blocks, layers, parameters, pixel scaling; the check of a recipe against them."""

from __future__ import annotations

from bloodauto.config.recipe import Backbone, LastBlocks, LastLayers, Recipe
from bloodauto.config.validation import did_you_mean
from bloodauto.errors import RecipeError
from bloodauto.models.backbone_table import BACKBONES, OWN_CNN, BackboneInfo, PixelScaling

BACKBONE_NAMES = (OWN_CNN, *BACKBONES)
#: Of ``own_cnn``: convolution, batch normalisation and activation, twice.
_LAYERS_PER_BLOCK = 6


def backbone_info(name: str) -> BackboneInfo:
    """The table's row of a backbone of ``keras.applications``.

    Args:
        name: As a recipe has it.

    Raises:
        RecipeError: No such backbone; the message names the nearest.
    """
    if name not in BACKBONES:
        raise RecipeError(
            f"backbone.name: expected a known backbone, got {name!r}; {did_you_mean(name, BACKBONE_NAMES)}"
        )
    return BACKBONES[name]


def own_cnn_size(backbone: Backbone) -> tuple[int, int]:
    """Blocks of ``own_cnn``, and filters of its first block."""
    assert backbone.blocks is not None, "the grammar gives own_cnn its blocks"
    assert backbone.width is not None, "the grammar gives own_cnn its width"
    return backbone.blocks, backbone.width


def num_blocks(backbone: Backbone) -> int:
    """How many blocks a backbone has for unfreezing."""
    return own_cnn_size(backbone)[0] if backbone.name == OWN_CNN else backbone_info(backbone.name).num_blocks


def num_layers(backbone: Backbone) -> int:
    """How many layers a backbone has for unfreezing, its input included, as ``len(model.layers)`` counts them."""
    if backbone.name == OWN_CNN:
        return 1 + _LAYERS_PER_BLOCK * own_cnn_size(backbone)[0]
    return backbone_info(backbone.name).num_layers


def num_parameters(backbone: Backbone) -> int:
    """Parameters of a backbone without a head, without building it."""
    if backbone.name == OWN_CNN:
        blocks, width = own_cnn_size(backbone)
        return own_cnn_parameters(blocks=blocks, width=width)
    return backbone_info(backbone.name).parameters


def pixel_scaling(backbone: Backbone) -> PixelScaling:
    """How pixels of 0-255 are scaled to what a backbone expects."""
    return "signed" if backbone.name == OWN_CNN else backbone_info(backbone.name).pixel_scaling


def built_size_px(backbone: Backbone, size_px: int) -> int:
    """The side a backbone is built for: ``size_px``, or its smallest side where that is larger."""
    return size_px if backbone.name == OWN_CNN else max(size_px, backbone_info(backbone.name).smallest_px)


def check_recipe(recipe: Recipe) -> None:
    """Checks a recipe against the table of backbones, which the grammar does not know. Builds nothing.

    Args:
        recipe: The recipe.

    Raises:
        RecipeError: No such backbone, or a stage unfreezes more blocks or layers than it has.
    """
    blocks, layers = num_blocks(recipe.backbone), num_layers(recipe.backbone)
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage.unfreeze, LastBlocks):
            kind, requested, available = "blocks", stage.unfreeze.blocks, blocks
        elif isinstance(stage.unfreeze, LastLayers):
            kind, requested, available = "layers", stage.unfreeze.layers, layers
        else:
            continue
        if requested > available:
            raise RecipeError(
                f"stages.{index}.unfreeze.{kind}: expected 1 to {available} for {recipe.backbone.label}, "
                f"got {requested}; write 'all' to unfreeze everything."
            )


def block_of_layers(backbone: Backbone, layer_names: list[str]) -> list[int]:
    """The block of each layer.

    Args:
        backbone: As a recipe has it.
        layer_names: The layers of the built backbone, in their order.

    Returns:
        Indices, one per layer; block 0 is nearest to the image.
    """
    starts: tuple[str, ...] = tuple(f"block{index + 1}a_" for index in range(num_blocks(backbone)))
    ends: tuple[str, ...] = ()
    if backbone.name != OWN_CNN:
        starts, ends = backbone_info(backbone.name).block_starts, backbone_info(backbone.name).block_ends
    block, result = 0, []
    for layer_name in layer_names:
        for index in range(block + 1, len(starts)):
            if layer_name.startswith(starts[index]):
                block = index
        result.append(block)
        if block < len(ends) and layer_name == ends[block]:
            block += 1
    return result


def own_cnn_parameters(*, blocks: int, width: int) -> int:
    """Parameters of ``backbone_networks.build_own_cnn``, without building it.

    Args:
        blocks: How many blocks.
        width: Filters of the first block.
    """
    total, channels = 0, 3
    for block in range(blocks):
        filters = width * 2**block
        # Convolution, depthwise and pointwise part of the separable one, and four numbers for each normalised channel.
        total += 9 * channels * filters + 9 * filters + filters**2 + 2 * 4 * filters
        channels = filters
    return total
