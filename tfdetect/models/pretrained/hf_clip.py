"""Load OpenAI's CLIP, as Hugging Face's `transformers` saves it, into keras-hub's CLIP, by names and shapes; never from pickles.

The folder holds config.json, model.safetensors and preprocessor_config.json, and for texts vocab.json and merges.txt. Settings
that are not supported are refused, so that the features always equal those of `transformers`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfdetect.errors import UserError
from tfdetect.models.pretrained.backbone import Backbone, read_hugging_face_preprocessing, read_json
from tfdetect.models.pretrained.initial_weights import no_random_weights
from tfdetect.models.pretrained.tiny_clip import set_position_ids

FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
TOKENIZER_FILES = ("vocab.json", "merges.txt")
# Defaults of `transformers` for entries that a config.json leaves out.
SHARED_DEFAULTS = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_hidden_layers": 12}
VISION_DEFAULTS = {**SHARED_DEFAULTS, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "image_size": 224,
                   "patch_size": 32}  # fmt: skip
TEXT_DEFAULTS = {**SHARED_DEFAULTS, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "vocab_size": 49408,
                 "max_position_embeddings": 77, "eos_token_id": 49407}  # fmt: skip
LEGACY_EOS_TOKEN_ID = 2  # in old configs; the text then ends at the token with the largest id
PREFIXES = ("text_model.", "vision_model.", "text_projection.", "visual_projection.")


def require(folder: Path, with_text: bool = False) -> None:
    """Raise UserError if the folder lacks a file, with `with_text` also one of the tokenizer's, or holds another model."""
    required = (*FILES, *(TOKENIZER_FILES if with_text else ()))
    missing = [name for name in required if not (folder / name).is_file()]
    if missing:
        raise UserError(f"hf-clip:{folder} has no {' and no '.join(missing)}; download {', '.join(required)} into it, "
                        "for example from huggingface.co/openai/clip-vit-large-patch14; .bin files are not read.")  # fmt: skip
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type != "clip":
        raise UserError(f"hf-clip:{folder} holds a model of the type {model_type!r}, expected clip; try it without hf-clip:")


def load(preset: str, folder: Path) -> Backbone:
    """Load the CLIP of a folder. Raises UserError if its files do not match each other or are not supported."""
    config = read_json(folder / "config.json")
    try:
        vision, text = encoder_configs(config)
        with no_random_weights():
            network = build_network(vision, text, config.get("projection_dim", 512))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}/config.json does not describe a supported CLIP: {' '.join(str(error).split())}") from error
    load_weights(network, folder / "model.safetensors")
    preprocessing = read_hugging_face_preprocessing(folder)
    if preprocessing.size != vision["image_size"]:
        raise UserError(f"{folder}/preprocessor_config.json yields images of {preprocessing.size} pixels, but the model takes "
                        f"{vision['image_size']}.")  # fmt: skip
    end_token_id = None if text["eos_token_id"] == LEGACY_EOS_TOKEN_ID else text["eos_token_id"]
    has_tokenizer = all((folder / name).is_file() for name in TOKENIZER_FILES)
    return Backbone(preset, network, preprocessing, (lambda: load_tokenizer(folder)) if has_tokenizer else None, end_token_id)


def encoder_configs(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the complete settings of the vision and the text encoder. Raises UserError for unsupported ones.

    Old files have a second dictionary per encoder, which takes precedence.
    """
    vision, text = ({**defaults, **(config.get(name) or {}), **(config.get(f"{name}_dict") or {})}
                    for name, defaults in (("vision_config", VISION_DEFAULTS), ("text_config", TEXT_DEFAULTS)))  # fmt: skip
    for encoder in (vision, text):
        if encoder["hidden_act"] not in ("quick_gelu", "gelu"):
            raise UserError(f"hidden_act is {encoder['hidden_act']!r}, expected quick_gelu or gelu.")
        if encoder["layer_norm_eps"] != SHARED_DEFAULTS["layer_norm_eps"]:
            raise UserError(f"layer_norm_eps is {encoder['layer_norm_eps']}, expected {SHARED_DEFAULTS['layer_norm_eps']}.")
    return vision, text


def build_network(vision: dict[str, Any], text: dict[str, Any], projection_size: int) -> Any:
    """Return a randomly initialised keras-hub CLIP with these settings."""
    import keras_hub

    def shared_arguments(encoder: dict[str, Any]) -> dict[str, Any]:
        names = {"hidden_dim": "hidden_size", "num_layers": "num_hidden_layers", "num_heads": "num_attention_heads",
                 "intermediate_dim": "intermediate_size", "intermediate_activation": "hidden_act"}  # fmt: skip
        return {argument: encoder[key] for argument, key in names.items()}

    size = vision["image_size"]
    network = keras_hub.models.CLIPBackbone(
        keras_hub.models.CLIPVisionEncoder(
            patch_size=vision["patch_size"], image_shape=(size, size, 3), name="vision", **shared_arguments(vision)),
        keras_hub.models.CLIPTextEncoder(
            vocabulary_size=text["vocab_size"], embedding_dim=text["hidden_size"], name="text",
            max_sequence_length=text["max_position_embeddings"], **shared_arguments(text)),
        projection_dim=projection_size,
    )  # fmt: skip
    network.text_encoder.layer_norm.epsilon = SHARED_DEFAULTS["layer_norm_eps"]  # keras-hub has 1e-6 here, unlike OpenAI
    set_position_ids(network)
    return network


def load_weights(network: Any, path: Path) -> None:
    """Load a safetensors file into the network. Raises UserError if an array is missing, left over or of the wrong shape."""
    import ml_dtypes  # noqa: F401  (adds bfloat16 to NumPy)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            stored = set(file.keys())
            pairs = list(weight_names(network))
            if missing := [name for _, name in pairs if name not in stored]:
                raise UserError(f"it has no {missing[0]} ({len(missing)} are missing)")
            other_names = stored - {name for _, name in pairs}
            if unused := sorted(name for name in other_names if name.startswith(PREFIXES) and not name.endswith("position_ids")):
                raise UserError(f"config.json does not describe its {unused[0]} ({len(unused)} such arrays)")
            for weight, name in pairs:
                weight.assign(convert_array(weight, file.get_tensor(name), name))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} does not hold the weights of its config.json: {' '.join(str(error).split())}.") from error


def weight_names(network: Any) -> Iterator[tuple[Any, str]]:
    """Yield (keras-hub variable, name in `transformers`) of all weights but the position ids, which are always 0, 1, 2, ..."""
    vision, text = network.vision_encoder, network.text_encoder
    yield vision.embedding.class_embedding, "vision_model.embeddings.class_embedding"
    yield vision.embedding.patch_embedding.kernel, "vision_model.embeddings.patch_embedding.weight"
    yield vision.embedding.position_embedding.embeddings, "vision_model.embeddings.position_embedding.weight"
    yield from weight_and_bias(vision.pre_layer_norm, "vision_model.pre_layrnorm")  # sic
    yield from weight_and_bias(vision.layer_norm, "vision_model.post_layernorm")
    yield text.embedding.token_embedding.embeddings, "text_model.embeddings.token_embedding.weight"
    yield text.embedding.position_embedding.position_embeddings, "text_model.embeddings.position_embedding.weight"
    yield from weight_and_bias(text.layer_norm, "text_model.final_layer_norm")
    for encoder, name in ((vision, "vision_model"), (text, "text_model")):
        for number, block in enumerate(encoder.encoder_layers):
            yield from block_weight_names(block, f"{name}.encoder.layers.{number}")
    yield network.vision_projection.kernel, "visual_projection.weight"
    yield network.text_projection.kernel, "text_projection.weight"
    yield network.clip_head.logit_scale, "logit_scale"


def block_weight_names(block: Any, name: str) -> Iterator[tuple[Any, str]]:
    """Yield the same for the transformer block of that name."""
    attention = block.attention
    for layer, key in ((attention.query_dense, "q"), (attention.key_dense, "k"), (attention.value_dense, "v"),
                       (attention.output_dense, "out")):  # fmt: skip
        yield from weight_and_bias(layer, f"{name}.self_attn.{key}_proj")
    for layer, key in ((block.layer_norm_1, "layer_norm1"), (block.layer_norm_2, "layer_norm2"), (block.dense_1, "mlp.fc1"),
                       (block.dense_2, "mlp.fc2")):  # fmt: skip
        yield from weight_and_bias(layer, f"{name}.{key}")


def weight_and_bias(layer: Any, name: str) -> Iterator[tuple[Any, str]]:
    """Yield the same for a dense or normalisation layer."""
    weight, bias = (layer.kernel, layer.bias) if hasattr(layer, "kernel") else (layer.gamma, layer.beta)
    yield weight, f"{name}.weight"
    yield bias, f"{name}.bias"


def convert_array(weight: Any, array: np.ndarray, name: str) -> np.ndarray:
    """Convert an array of `transformers` to the axis order and shape of a keras-hub variable, as float32.

    keras-hub has the output axis last, and splits it into heads in attention layers. Raises UserError for a wrong shape.
    """
    shape: tuple[int, ...] = tuple(weight.shape)
    axes: tuple[int, ...] | None = None
    expected = shape
    if weight.name == "bias":
        expected = (int(np.prod(shape)),)
    elif weight.name == "kernel" and len(shape) == 4:  # convolution; `transformers` has (out, in, height, width)
        axes, expected = (2, 3, 1, 0), (shape[3], shape[2], shape[0], shape[1])
    elif weight.name == "kernel":  # an attention kernel is square once its heads are merged
        axes, expected = (1, 0), shape[::-1] if len(shape) == 2 else (int(np.sqrt(np.prod(shape))),) * 2
    if array.shape != expected:
        raise UserError(f"{name} is {array.shape}, expected {expected}")
    return (array.transpose(axes) if axes else array).reshape(shape).astype(np.float32)


def load_tokenizer(folder: Path) -> Any:
    """Return keras-hub's CLIP tokenizer, which lower-cases texts, with the vocabulary of the folder.

    Raises UserError if vocab.json and merges.txt do not match.
    """
    import keras_hub

    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    try:
        return keras_hub.models.CLIPTokenizer(vocabulary=read_json(folder / "vocab.json"), merges=merges)
    except ValueError as error:
        raise UserError(f"vocab.json and merges.txt in {folder} do not match: {' '.join(str(error).split())}") from error
