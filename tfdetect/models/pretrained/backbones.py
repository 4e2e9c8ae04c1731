"""Foundation models by their presets, cut to what a detector needs of them.

    net = backbones.load("hf-clip:/models/clip-vit-large-patch14")
    model = backbones.vision(net, 256, "projected")     # pictures (batch, 256, 256, 3) -> features (batch, 768)
    words = backbones.text(net)(["a photograph"])       # (1, 768)

A preset is `tiny`, keras-hub's name for one, a folder as keras-hub saves it or as Hugging Face's DINOv2, DINOv3 or ViT come, or
`hf-clip:FOLDER`, OpenAI's CLIP as Hugging Face's comes, which keras-hub cannot read (keras-hub issue 2985).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from tfdetect.errors import UserError
from tfdetect.models.pretrained.backbone import Backbone
from tfdetect.models.pretrained.presets import load, random, require

__all__ = ["Backbone", "Features", "blocks", "use_batched_matmul", "load", "lora", "random", "require", "text", "vision"]

Features = Literal["projected", "pooled", "penultimate"]
# The transformer blocks of keras-hub, and where in them the attention is.
ATTENTION = {"CLIPEncoderLayer": "attention", "SigLIPEncoderLayer": "self_attn", "DINOV2Layer": "attention.attention",
             "DINOV3Layer": "attention", "ViTEncoderBlock": "mha"}  # fmt: skip
CONTRACTED = {"abc,cde->abde": 1, "abcd,cde->abe": 2}  # how many axes of the inputs these sum over


def vision(backbone: Backbone, clip_size: int, features: Features) -> Any:
    """A keras.Model, pictures (batch, clip_size, clip_size, 3), floats 0..255, RGB -> features (batch, n); normalising included.

    `projected` is what the picture's side of CLIP or SigLIP hands to the comparison with words; `pooled` the class token after
    the last norm, or the mean of all places where there is none; `penultimate` the same of the last block but one, without norm.
    Models of one Backbone share its layers: to train two apart, load it twice.
    """
    import keras

    from tfdetect.models.layers.resample import Resample

    pixels = backbone.pixels
    pictures = keras.Input((clip_size, clip_size, 3), dtype="float32", name="pictures")
    x = pictures
    if not clip_size == pixels.whole == pixels.size:
        x = Resample(pixels.size, pixels.whole, pixels.interpolation, name="resize")(x)
    x = keras.layers.Rescaling(list(pixels.scale), list(pixels.offset), dtype="float32", name="normalise")(x)
    return keras.Model(pictures, _features(backbone, x, features), name="backbone")


def _features(backbone: Backbone, x: Any, features: Features) -> Any:
    net = backbone.net
    parts = _parts(net, x)
    there = [name for name, has in (("projected", parts and parts.project), ("pooled", True), ("penultimate", parts)) if has]
    if features not in there:
        raise UserError(f"{type(net).__name__} ({backbone.preset}) has no features {features!r}, expected {' or '.join(there)}.")
    if parts is None:
        x = net(x)
        return x[:, 0] if getattr(net, "use_class_token", False) else _mean(x)
    for layer in parts.start:
        x = layer(x)
    for block in parts.blocks[: -1 if features == "penultimate" else None]:
        x = block(x, **parts.beside)
    if features != "penultimate":
        x = parts.norm(x)
    if features == "projected":
        return parts.project(x)
    return x[:, 0] if parts.class_token else _mean(x)


def _mean(x: Any) -> Any:
    """Of all places: maps (batch, height, width, n), tokens (batch, places, n) or pooled already (batch, n) -> (batch, n)."""
    from keras import layers

    pools = {4: layers.GlobalAveragePooling2D, 3: layers.GlobalAveragePooling1D}
    return pools[len(x.shape)]()(x) if len(x.shape) in pools else x


@dataclass(frozen=True)
class _Parts:
    """A vision transformer taken apart."""

    start: list[Any]
    blocks: list[Any]
    norm: Any
    class_token: bool = True
    project: Callable[[Any], Any] | None = None
    beside: dict[str, Any] = field(default_factory=dict)
    """What every block is given besides the tokens."""


def _parts(net: Any, pictures: Any) -> _Parts | None:
    """None where it is used whole: what is no vision transformer, and ViT, whose first layer alone would not load again."""
    kind, side = type(net).__name__, getattr(net, "vision_encoder", None)
    if kind == "CLIPBackbone":
        start = [side.embedding, side.pre_layer_norm]
        return _Parts(start, side.encoder_layers, side.layer_norm, True, lambda x: net.vision_projection(x[:, 0]))
    if kind == "SigLIPBackbone":
        return _Parts([side.embedding], side.encoder_layers, side.post_layer_norm, False, side.head)
    if kind == "DINOV2Backbone":
        return _Parts([net.embeddings], net.encoder.layers, net.layernorm)
    if kind == "DINOV3Backbone":
        beside = {"position_embeddings": net.rope_embedding(pictures), "num_prefix_tokens": 1 + net.num_register_tokens}
        return _Parts([net.embeddings], net.encoder.layers, net.layernorm, beside=beside)
    return None


def blocks(model: Any) -> list[Any]:
    """The transformer blocks of a `vision` model, first to last; none for a backbone of another kind."""
    whole = [layer.get_layer("vit_encoder").encoder_layers for layer in model.layers if type(layer).__name__ == "ViTBackbone"]
    return whole[0] if whole else [layer for layer in model.layers if type(layer).__name__ in ATTENTION]


def lora(model: Any, rank: int) -> None:
    """Freeze a `vision` model but for adapters of that rank beside the query and value projections (Hu et al. 2021).

    What is saved has them added to the projections: a `.keras` file loads as a plain model with the same outputs.
    """
    if not blocks(model):
        raise UserError("Low-rank adapters go beside attention, and this backbone has none; expected a vision transformer.")
    if rank < 1:
        raise UserError(f"The rank of the adapters must be at least 1, got {rank}.")
    for weight in model.weights:
        weight.trainable = False
    for block in blocks(model):
        _attention(block).query_dense.enable_lora(rank)
        _attention(block).value_dense.enable_lora(rank)


def use_batched_matmul(model: Any) -> None:
    """Let the attention of a frozen `vision` model multiply the tokens of all pictures at once, to the same result.

    On TensorFlow Keras multiplies picture by picture, at two thirds of the speed. What is saved is as it was.
    """
    for block in blocks(model):
        for name in ("query_dense", "key_dense", "value_dense", "output_dense"):
            dense = getattr(_attention(block), name, None)
            if getattr(dense, "equation", None) in CONTRACTED:
                dense.call = partial(_at_once, dense)


def _at_once(dense: Any, inputs: Any, training: bool | None = None) -> Any:
    """What an EinsumDense makes of (batch, places, ...)."""
    from keras import ops

    axes = CONTRACTED[dense.equation]
    kernel = ops.convert_to_tensor(dense.kernel)
    flat = ops.reshape(kernel, (math.prod(kernel.shape[:axes]), -1))
    found = ops.matmul(ops.reshape(inputs, (-1, flat.shape[0])), flat)
    return ops.reshape(found, (-1, inputs.shape[1], *kernel.shape[axes:])) + dense.bias


def _attention(block: Any) -> Any:
    for name in ATTENTION[type(block).__name__].split("."):
        block = getattr(block, name)
    return block


def text(backbone: Backbone) -> Callable[[Sequence[str]], np.ndarray]:
    """A function from prompts to embeddings (n, d) float32, comparable with `projected` features, not normalised.

    ValueError where the backbone has no text side, or the preset no tokenizer.
    """
    if backbone.tokenizer is None:
        raise UserError(f"{backbone.preset} has no text side with CLIP's tokenizer; prompts need a preset of CLIP.")
    import keras

    net, tokenizer = backbone.net, backbone.tokenizer()

    def embed(prompts: Sequence[str]) -> np.ndarray:
        ids = tokens(tokenizer, prompts, net.text_encoder.max_sequence_length)
        found = ids == (ids.max(1, keepdims=True) if backbone.end is None else backbone.end)
        if not found.any(1).all():
            raise UserError(f"{backbone.preset} ends its texts with token {backbone.end}, but its tokenizer never writes that.")
        hidden = keras.ops.convert_to_numpy(net.text_encoder({"token_ids": ids}))
        pooled = hidden[np.arange(len(ids)), found.argmax(1)]
        return keras.ops.convert_to_numpy(net.text_projection(pooled)).astype(np.float32)

    return embed


def tokens(tokenizer: Any, prompts: Sequence[str], length: int) -> np.ndarray:
    """int32 (n, length): start, the prompt cut to what fits, end, and ends to the last place; a token sees none after it."""
    rows = np.full((len(prompts), length), tokenizer.end_token_id, np.int32)
    rows[:, 0] = tokenizer.start_token_id
    for row, found in zip(rows, tokenizer(list(prompts)), strict=True):
        row[1 : 1 + len(found[: length - 2])] = found[: length - 2]
    return rows
