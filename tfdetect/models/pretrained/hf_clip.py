"""OpenAI's CLIP as Hugging Face's `transformers` saves it -> keras-hub's CLIP, by names and shapes; pickles are never read.

The folder holds config.json, model.safetensors, preprocessor_config.json, and for texts vocab.json and merges.txt. What the
reader does not know it refuses, rather than give other numbers than `transformers` would.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfdetect.errors import UserError
from tfdetect.models.pretrained.backbone import Backbone, hugging_face_pixels, read_json
from tfdetect.models.pretrained.tiny_clip import place_ids

FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
WORDS = ("vocab.json", "merges.txt")
SHARED = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_hidden_layers": 12}
# What `transformers` takes where a config.json says nothing.
VISION = {**SHARED, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "image_size": 224, "patch_size": 32}
TEXT = {**SHARED, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "vocab_size": 49408,
        "max_position_embeddings": 77, "eos_token_id": 49407}  # fmt: skip
GREATEST = 2  # the eos_token_id of old configs, which stands for the token of the greatest number
SIDES = ("text_model.", "vision_model.", "text_projection.", "visual_projection.")


def require(folder: Path, words: bool = False) -> None:
    """ValueError where the folder or a file in it is missing, with `words` also one that texts need, or is of another model."""
    needed = (*FILES, *(WORDS if words else ()))
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise UserError(f"hf-clip:{folder} has no {' and no '.join(missing)}; fetch {', '.join(needed)} into it, as "
                         "https://huggingface.co/openai/clip-vit-large-patch14 has them; a .bin is not read.")  # fmt: skip
    kind = read_json(folder / "config.json").get("model_type")
    if kind != "clip":
        raise UserError(f"hf-clip:{folder} is a model of the type {kind!r}, expected clip; without hf-clip: it may open.")


def load(preset: str, folder: Path) -> Backbone:
    """The CLIP in the folder. ValueError where something does not fit."""
    config = read_json(folder / "config.json")
    try:
        vision, text = sides(config)
        net = build(vision, text, config.get("projection_dim", 512))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}/config.json is of no CLIP that can be built: {' '.join(str(error).split())}") from error
    fill(net, folder / "model.safetensors")
    pixels = hugging_face_pixels(folder)
    if pixels.size != vision["image_size"]:
        raise UserError(f"{folder}/preprocessor_config.json makes {pixels.size} pixels, the model takes {vision['image_size']}.")
    end = text["eos_token_id"]
    words = all((folder / name).is_file() for name in WORDS)
    return Backbone(preset, net, pixels, (lambda: tokenizer(folder)) if words else None, None if end == GREATEST else end)


def sides(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Full settings of the picture's and the text's side. Old files have a second dictionary, which counts for more."""
    vision, text = ({**usual, **(config.get(name) or {}), **(config.get(f"{name}_dict") or {})}
                    for name, usual in (("vision_config", VISION), ("text_config", TEXT)))  # fmt: skip
    for side in (vision, text):
        if side["hidden_act"] not in ("quick_gelu", "gelu"):
            raise UserError(f"hidden_act is {side['hidden_act']!r}, expected quick_gelu or gelu.")
        if side["layer_norm_eps"] != SHARED["layer_norm_eps"]:
            raise UserError(f"layer_norm_eps is {side['layer_norm_eps']}, expected {SHARED['layer_norm_eps']}.")
    return vision, text


def build(vision: dict[str, Any], text: dict[str, Any], projection: int) -> Any:
    """keras-hub's CLIP of these settings, with weights yet to be filled."""
    import keras_hub

    def shared(side):
        names = {"hidden_dim": "hidden_size", "num_layers": "num_hidden_layers", "num_heads": "num_attention_heads",
                 "intermediate_dim": "intermediate_size", "intermediate_activation": "hidden_act"}  # fmt: skip
        return {ours: side[theirs] for ours, theirs in names.items()}

    size = vision["image_size"]
    net = keras_hub.models.CLIPBackbone(
        keras_hub.models.CLIPVisionEncoder(
            patch_size=vision["patch_size"], image_shape=(size, size, 3), name="vision", **shared(vision)),
        keras_hub.models.CLIPTextEncoder(
            vocabulary_size=text["vocab_size"], embedding_dim=text["hidden_size"], name="text",
            max_sequence_length=text["max_position_embeddings"], **shared(text)),
        projection_dim=projection,
    )  # fmt: skip
    net.text_encoder.layer_norm.epsilon = SHARED["layer_norm_eps"]  # keras-hub has 1e-6 here, unlike OpenAI
    place_ids(net)
    return net


def fill(net: Any, path: Path) -> None:
    """Weights from the file into the network. ValueError where one is missing, has another shape, or has no place."""
    import ml_dtypes  # noqa: F401  (NumPy then knows bfloat16)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            names = set(file.keys())
            pairs = list(places(net))
            if missing := [name for _, name in pairs if name not in names]:
                raise UserError(f"it has no {missing[0]} ({len(missing)} are missing)")
            used = {name for _, name in pairs}
            if spare := sorted(name for name in names - used if name.startswith(SIDES) and not name.endswith("position_ids")):
                raise UserError(f"config.json has no place for its {spare[0]} (nor for {len(spare) - 1} others)")
            for weight, name in pairs:
                weight.assign(fitted(weight, file.get_tensor(name), name))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} does not hold the weights of its config.json: {' '.join(str(error).split())}.") from error


def places(net: Any) -> Iterator[tuple[Any, str]]:
    """(variable of keras-hub, name of `transformers`) for all weights but the numbers of places, which are 0, 1, 2 and so on."""
    picture, words = net.vision_encoder, net.text_encoder
    yield picture.embedding.class_embedding, "vision_model.embeddings.class_embedding"
    yield picture.embedding.patch_embedding.kernel, "vision_model.embeddings.patch_embedding.weight"
    yield picture.embedding.position_embedding.embeddings, "vision_model.embeddings.position_embedding.weight"
    yield from pair(picture.pre_layer_norm, "vision_model.pre_layrnorm")  # sic
    yield from pair(picture.layer_norm, "vision_model.post_layernorm")
    yield words.embedding.token_embedding.embeddings, "text_model.embeddings.token_embedding.weight"
    yield words.embedding.position_embedding.position_embeddings, "text_model.embeddings.position_embedding.weight"
    yield from pair(words.layer_norm, "text_model.final_layer_norm")
    for side, name in ((picture, "vision_model"), (words, "text_model")):
        for number, block in enumerate(side.encoder_layers):
            yield from inside(block, f"{name}.encoder.layers.{number}")
    yield net.vision_projection.kernel, "visual_projection.weight"
    yield net.text_projection.kernel, "text_projection.weight"
    yield net.clip_head.logit_scale, "logit_scale"


def inside(block: Any, name: str) -> Iterator[tuple[Any, str]]:
    """The same for one transformer block."""
    attention = block.attention
    for layer, part in ((attention.query_dense, "q"), (attention.key_dense, "k"), (attention.value_dense, "v"),
                        (attention.output_dense, "out")):  # fmt: skip
        yield from pair(layer, f"{name}.self_attn.{part}_proj")
    for layer, part in ((block.layer_norm_1, "layer_norm1"), (block.layer_norm_2, "layer_norm2"), (block.dense_1, "mlp.fc1"),
                        (block.dense_2, "mlp.fc2")):  # fmt: skip
        yield from pair(layer, f"{name}.{part}")


def pair(layer: Any, name: str) -> Iterator[tuple[Any, str]]:
    """Weight and bias of a dense or a norm layer."""
    first, second = (layer.kernel, layer.bias) if hasattr(layer, "kernel") else (layer.gamma, layer.beta)
    yield first, f"{name}.weight"
    yield second, f"{name}.bias"


def fitted(weight: Any, found: np.ndarray, name: str) -> np.ndarray:
    """The array in keras-hub's order: outputs last, an attention's heads on an own axis. ValueError for a wrong shape."""
    shape = tuple(weight.shape)
    turn, there = None, shape
    if weight.name == "bias":
        there = (int(np.prod(shape)),)
    elif weight.name == "kernel" and len(shape) == 4:  # theirs is (out, in, height, width)
        turn, there = (2, 3, 1, 0), (shape[3], shape[2], shape[0], shape[1])
    elif weight.name == "kernel":  # an attention's are square, once its heads are one axis
        turn, there = (1, 0), shape[::-1] if len(shape) == 2 else (int(np.sqrt(np.prod(shape))),) * 2
    if found.shape != there:
        raise UserError(f"{name} is {found.shape}, expected {there}")
    return (found.transpose(turn) if turn else found).reshape(shape).astype(np.float32)


def tokenizer(folder: Path) -> Any:
    """keras-hub's tokenizer of CLIP with the folder's vocabulary. It writes lower case itself."""
    import keras_hub

    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    try:
        return keras_hub.models.CLIPTokenizer(vocabulary=read_json(folder / "vocab.json"), merges=merges)
    except ValueError as error:
        raise UserError(f"vocab.json and merges.txt in {folder} do not fit: {' '.join(str(error).split())}") from error
