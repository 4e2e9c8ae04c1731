"""Faster computation of vision transformers, with the same results: how blocks are computed changes, not what is saved.

    fast_blocks.speed_up(model)       # a new or loaded model, at any depth of which there may be transformer blocks

On TensorFlow, Keras multiplies the attention projections image by image, which takes half as long again as one product over all
images. And where a model reads the class token alone, its last block need not compute the other positions.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

# The transformer blocks of keras-hub, and the attribute path to their attention layer.
ATTENTION = {"CLIPEncoderLayer": "attention", "SigLIPEncoderLayer": "self_attn", "DINOV2Layer": "attention.attention",
             "DINOV3Layer": "attention", "ViTEncoderBlock": "mha"}  # fmt: skip
CONTRACTED_AXES = {"abc,cde->abde": 1, "abcd,cde->abe": 2}  # number of axes that these EinsumDense equations sum over
CLASS_TOKEN = ({"class_name": "__slice__", "config": {"start": None, "stop": None, "step": None}}, 0)  # of x[:, 0], serialised


def speed_up(model: Any) -> None:
    """Switch all transformer blocks of a model, at any depth, to their faster computation.

    Layers that it shares with another model change there, too, which must not read other positions of its last block.
    """
    networks = [network for network in _networks(model) if transformer_blocks(network)]
    for network in networks:
        *others, last = transformer_blocks(network)
        for block in (*others, last):
            _use_batched_matmul(block)
        call = CLASS_TOKEN_CALLS.get(type(last).__name__)
        if call and sum(last in other.layers for other in networks) == 1 and _only_class_token_is_read(network, last):
            last.call = partial(call, last)


def transformer_blocks(model: Any) -> list[Any]:
    """Return the transformer blocks of a vision model, first to last; empty for other backbones."""
    vits = [layer.get_layer("vit_encoder").encoder_layers for layer in model.layers if type(layer).__name__ == "ViTBackbone"]
    return vits[0] if vits else [layer for layer in model.layers if type(layer).__name__ in ATTENTION]


def attention(block: Any) -> Any:
    """Return the attention layer of a transformer block."""
    for name in ATTENTION[type(block).__name__].split("."):
        block = getattr(block, name)
    return block


def _networks(layer: Any) -> Iterator[Any]:
    """Yield a model and all models within it, at any depth."""
    import keras

    if isinstance(layer, keras.Model):
        yield layer
    for inner in getattr(layer, "layers", [layer.layer] if isinstance(layer, keras.layers.Wrapper) else []):
        yield from _networks(inner)


def _use_batched_matmul(block: Any) -> None:
    for name in ("query_dense", "key_dense", "value_dense", "output_dense"):
        dense = getattr(attention(block), name, None)
        if dense is not None and getattr(dense, "equation", None) in CONTRACTED_AXES:
            dense.call = partial(_batched_einsum_dense, dense)


def _batched_einsum_dense(dense: Any, inputs: Any, training: bool | None = None) -> Any:
    """Compute the output of an EinsumDense layer on inputs (batch, positions, ...)."""
    from keras import ops

    axes = CONTRACTED_AXES[dense.equation]
    kernel = ops.convert_to_tensor(dense.kernel)
    matrix = ops.reshape(kernel, (math.prod(kernel.shape[:axes]), -1))
    outputs = ops.matmul(ops.reshape(inputs, (-1, matrix.shape[0])), matrix)
    return ops.reshape(outputs, (-1, inputs.shape[1], *kernel.shape[axes:])) + dense.bias


def _only_class_token_is_read(network: Any, block: Any) -> bool:
    """Whether x[:, 0], before or after a norm, is all that is read of the output of a functional model's last block."""
    readers: dict[str, list[tuple[dict, dict]]] = {}
    config = network.get_config()
    for layer in config["layers"]:
        for node in layer["inbound_nodes"]:
            for argument in node["args"]:
                if isinstance(argument, dict) and argument.get("class_name") == "__keras_tensor__":
                    readers.setdefault(argument["config"]["keras_history"][0], []).append((layer, node))

    def reads_class_token(name: str) -> bool:
        return bool(readers.get(name)) and all(
            [*map(tuple, node["args"][1:])] == [CLASS_TOKEN] if layer["class_name"] == "GetItem"
            else layer["class_name"] == "LayerNormalization" and reads_class_token(layer["name"])
            for layer, node in readers[name])  # fmt: skip

    return reads_class_token(block.name) and block.name not in str(config["output_layers"])


def _clip_class_token(block: Any, x: Any, training: bool | None = None) -> Any:
    """Compute the output of a CLIPEncoderLayer at the first position only, (batch, positions, n) -> (batch, 1, n)."""
    normalised = block.layer_norm_1(x)
    x = x[:, :1] + block.attention(normalised[:, :1], normalised, normalised, training=training)
    return x + block.dense_2(block.activation(block.dense_1(block.layer_norm_2(x))))


def _dinov2_class_token(block: Any, x: Any, training: bool | None = None) -> Any:
    """Compute the output of a DINOV2Layer at the first position only, (batch, positions, n) -> (batch, 1, n)."""
    normalised = block.norm1(x)
    attended = block.attention.attention(normalised[:, :1], normalised, normalised, training=training)
    attended = block.attention.dropout(attended, training=training)
    x = x[:, :1] + block.drop_path(block.layer_scale1(attended), training=training)
    return x + block.drop_path(block.layer_scale2(block.mlp(block.norm2(x), training=training)), training=training)


CLASS_TOKEN_CALLS = {"CLIPEncoderLayer": _clip_class_token, "DINOV2Layer": _dinov2_class_token}
