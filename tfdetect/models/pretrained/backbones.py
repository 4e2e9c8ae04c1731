"""Vision models and text encoders of pretrained backbones.

    backbone = backbones.load("hf-clip:/models/clip-vit-large-patch14")
    model = backbones.vision_model(backbone, 256, "projected")       # images (batch, 256, 256, 3) -> features (batch, 768)
    embeddings = backbones.text_encoder(backbone)(["a photograph"])  # (1, 768)

A preset is `tiny`, the name of a keras-hub preset, a folder saved by keras-hub or with Hugging Face's DINOv2, DINOv3 or ViT, or
`hf-clip:FOLDER` with OpenAI's CLIP from Hugging Face, which keras-hub cannot read (keras-hub issue 2985).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfdetect.errors import UserError
from tfdetect.models.pretrained import fast_blocks, feature_names
from tfdetect.models.pretrained.backbone import Backbone
from tfdetect.models.pretrained.fast_blocks import transformer_blocks
from tfdetect.models.pretrained.presets import is_random, load, require

__all__ = ["Backbone", "add_lora", "is_random", "load", "require", "text_encoder", "transformer_blocks",
           "vision_model"]  # fmt: skip


def vision_model(backbone: Backbone, image_size: int, features: str) -> Any:
    """Return a keras.Model from RGB images (batch, image_size, image_size, 3), floats in 0..255, to features (batch, n).

    The model includes resizing and normalisation. `features` is one of these, or several joined by +; the model then has a list
    of outputs, in the order of `feature_names.parse`. Raises UserError if the backbone lacks them.

    - `projected`: the joint embedding of CLIP, or the pooled output of SigLIP's attention head
    - `pooled`: the class token after the last norm, or the mean of all positions where there is no class token
    - `penultimate`: the same after the second-to-last block, without norm
    - `layers:6,9`: the same after these blocks, of which the first is 1
    - `patches:6,9`: the mean of the patch tokens after these blocks
    - `variances:6,9`: the log variance of each of their channels over the positions

    Models of one Backbone share its layers: to train two of them independently, load it twice.
    """
    import keras

    from tfdetect.models.layers.resample import PillowResize

    preprocessing = backbone.preprocessing
    images = keras.Input((image_size, image_size, 3), dtype="float32", name="images")
    x = images
    if not image_size == preprocessing.resize_to == preprocessing.size:
        x = PillowResize(preprocessing.size, preprocessing.resize_to, preprocessing.interpolation, name="resize")(x)
    scale, offset = list(preprocessing.scale), list(preprocessing.offset)
    x = keras.layers.Rescaling(scale, offset, dtype="float32", name="normalise")(x)
    outputs = _compute_features(backbone, x, feature_names.parse(features))
    return keras.Model(images, outputs if len(outputs) > 1 else outputs[0], name="backbone")


def _compute_features(backbone: Backbone, x: Any, outputs: Sequence[feature_names.Output]) -> list[Any]:
    network = backbone.network
    transformer = _transformer_parts(network, x)
    if transformer is None:
        if other := [output for output in outputs if output.kind != "pooled"]:
            raise UserError(_missing(backbone, other[0], "pooled"))
        x = network(x)
        return [x[:, 0] if getattr(network, "use_class_token", False) else _mean_over_positions(x)]
    count = len(transformer.blocks)
    for output in outputs:
        if output.kind == "projected" and not transformer.project:
            raise UserError(_missing(backbone, output, f"pooled, penultimate, layers:N or patches:N, with N from 1 to {count}"))
        if output.block > count:
            raise UserError(f"{backbone.preset} has {count} transformer blocks, so there are no features {output}; expected a "
                            f"number from 1 to {count}.")  # fmt: skip
    depths = [output.block or count - (output.kind == "penultimate") for output in outputs]
    for layer in transformer.embedding:
        x = layer(x)
    tokens = {0: x}  # by the number of blocks that they have passed
    for depth, block in enumerate(transformer.blocks[: max(depths)], 1):
        tokens[depth] = x = block(x, **transformer.block_arguments)
    return [transformer.pool(output.kind, tokens[depth]) for output, depth in zip(outputs, depths, strict=True)]


def _missing(backbone: Backbone, output: feature_names.Output, expected: str) -> str:
    return f"{type(backbone.network).__name__} ({backbone.preset}) has no features '{output}', expected {expected}."


def _mean_over_positions(x: Any) -> Any:
    """Average maps (batch, height, width, n) or tokens (batch, positions, n) -> (batch, n); features (batch, n) are unchanged."""
    from keras import layers

    pooling = {4: layers.GlobalAveragePooling2D, 3: layers.GlobalAveragePooling1D}
    return pooling[len(x.shape)]()(x) if len(x.shape) in pooling else x


def _variance_over_positions(tokens: Any) -> Any:
    """Return the log variance of each channel over the positions, (batch, positions, n) -> (batch, n)."""
    from keras import layers

    from tfdetect.models.layers.common import LogVariancePooling

    return LogVariancePooling()(layers.Reshape((tokens.shape[1], 1, tokens.shape[2]))(tokens))


@dataclass(frozen=True)
class _TransformerParts:
    """The layers of a vision transformer, in the order in which they are applied."""

    embedding: list[Any]
    blocks: list[Any]
    norm: Any
    has_class_token: bool = True
    project: Callable[[Any], Any] | None = None
    """From the normalised tokens to the features `projected`; None where there are none."""
    block_arguments: dict[str, Any] = field(default_factory=dict)
    """Further arguments of every block."""
    num_registers: int = 0
    """Register tokens between the class token and those of the patches."""

    def pool(self, kind: str, tokens: Any) -> Any:
        """Return the features `kind` (batch, n) of the tokens (batch, positions, n) after the block that it names."""
        if kind in ("patches", "variances"):
            patches = tokens[:, self.has_class_token + self.num_registers :]
            return _mean_over_positions(patches) if kind == "patches" else _variance_over_positions(patches)
        if kind in ("pooled", "projected"):
            tokens = self.norm(tokens)
        if kind == "projected" and self.project:
            return self.project(tokens)
        return tokens[:, 0] if self.has_class_token else _mean_over_positions(tokens)


def _transformer_parts(network: Any, images: Any) -> _TransformerParts | None:
    """Return the layers of a vision transformer, or None for a network that must be used as a whole.

    The latter are networks without transformer blocks, and keras-hub's ViT, whose first layer cannot be reloaded on its own.
    """
    kind, vision = type(network).__name__, getattr(network, "vision_encoder", network)
    if kind == "CLIPBackbone":
        embedding = [vision.embedding, vision.pre_layer_norm]
        return _TransformerParts(embedding, vision.encoder_layers, vision.layer_norm, True,
                                 lambda x: network.vision_projection(x[:, 0]))  # fmt: skip
    if kind == "SigLIPBackbone":
        return _TransformerParts([vision.embedding], vision.encoder_layers, vision.post_layer_norm, False, vision.head)
    if kind == "DINOV2Backbone":
        return _TransformerParts([network.embeddings], network.encoder.layers, network.layernorm,
                                 num_registers=network.num_register_tokens)  # fmt: skip
    if kind == "DINOV3Backbone":
        arguments = {"position_embeddings": network.rope_embedding(images), "num_prefix_tokens": 1 + network.num_register_tokens}
        return _TransformerParts([network.embeddings], network.encoder.layers, network.layernorm, block_arguments=arguments,
                                 num_registers=network.num_register_tokens)  # fmt: skip
    return None


def add_lora(model: Any, rank: int) -> None:
    """Freeze a vision model and add trainable low-rank adapters to its query and value projections.

    Hu et al., "LoRA: Low-rank adaptation of large language models", 2021 (arXiv 2106.09685). Saving merges the adapters into the
    projections: the `.keras` file loads as a plain model with the same outputs. Raises UserError for a backbone without attention
    or a rank below 1.
    """
    blocks = transformer_blocks(model)
    if not blocks:
        raise UserError("Low-rank adapters need attention layers, and this backbone has none; expected a vision transformer.")
    if rank < 1:
        raise UserError(f"The rank of the adapters must be at least 1, got {rank}.")
    for weight in model.weights:
        weight.trainable = False
    for block in blocks:
        fast_blocks.attention(block).query_dense.enable_lora(rank)
        fast_blocks.attention(block).value_dense.enable_lora(rank)


def text_encoder(backbone: Backbone) -> Callable[[Sequence[str]], np.ndarray]:
    """Return a function from texts to embeddings (texts, n) float32, not normalised, comparable with `projected` features.

    Raises UserError if the backbone has no text encoder or the preset no tokenizer.
    """
    if backbone.load_tokenizer is None:
        raise UserError(f"{backbone.preset} has no text encoder with CLIP's tokenizer; texts need a preset of CLIP.")
    import keras

    network, tokenizer = backbone.network, backbone.load_tokenizer()

    def encode(texts: Sequence[str]) -> np.ndarray:
        ids = tokenize(tokenizer, texts, network.text_encoder.max_sequence_length)
        is_end = ids == (ids.max(1, keepdims=True) if backbone.end_token_id is None else backbone.end_token_id)
        if not is_end.any(1).all():
            raise UserError(f"{backbone.preset} expects texts to end with token {backbone.end_token_id}, but its tokenizer never "
                            "writes that token; give the tokenizer that belongs to the model.")  # fmt: skip
        hidden = keras.ops.convert_to_numpy(network.text_encoder({"token_ids": ids}))
        pooled = hidden[np.arange(len(ids)), is_end.argmax(1)]
        return keras.ops.convert_to_numpy(network.text_projection(pooled)).astype(np.float32)

    return encode


def tokenize(tokenizer: Any, texts: Sequence[str], length: int) -> np.ndarray:
    """Return token ids, int32 (texts, length): start token, truncated text, end token, padded with end tokens.

    The attention is causal, so the padding does not affect the embedding.
    """
    ids = np.full((len(texts), length), tokenizer.end_token_id, np.int32)
    ids[:, 0] = tokenizer.start_token_id
    for row, tokens in zip(ids, tokenizer(list(texts)), strict=True):
        row[1 : 1 + len(tokens[: length - 2])] = tokens[: length - 2]
    return ids
