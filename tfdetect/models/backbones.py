"""Foundation models by their presets: looked for or fetched, opened, and cut to what a detector needs of them.

    net = backbones.load("hf-clip:/models/clip-vit-large-patch14")
    model = backbones.vision(net, 256, "projected")     # pictures (batch, 256, 256, 3) -> features (batch, 768)
    words = backbones.text(net)(["a photograph"])       # (1, 768)

A preset is `tiny`, keras-hub's name for one, a folder as keras-hub saves it or as Hugging Face's DINOv2, DINOv3 or ViT come, or
`hf-clip:FOLDER`, OpenAI's CLIP as Hugging Face's comes, which keras-hub cannot read (keras-hub issue 2985).
"""

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

Features = Literal["projected", "pooled", "penultimate"]
TINY, HF_CLIP = "tiny", "hf-clip:"
HELP = "give --detector.preset a folder that keras-hub saved, hf-clip:FOLDER (OpenAI's CLIP from Hugging Face), or tiny to try out"
NEEDED = ("config.json", "image_converter.json", "model.weights.h5")
WORDS = ("tokenizer.json", "assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt")
# The transformer blocks of keras-hub, and where in them the attention is.
ATTENTION = {"CLIPEncoderLayer": "attention", "SigLIPEncoderLayer": "self_attn", "DINOV2Layer": "attention.attention",
             "DINOV3Layer": "attention", "ViTEncoderBlock": "mha"}  # fmt: skip


@dataclass(frozen=True)
class Pixels:
    """How pictures become a network's input: resized to `whole`, the middle `size` pixels kept, times scale, plus offset."""

    size: int
    whole: int
    scale: tuple[float, ...]
    """1 / (255 x standard deviation) of red, green and blue."""
    offset: tuple[float, ...]
    """-mean / standard deviation."""
    interpolation: str = "bicubic"

    @classmethod
    def of(cls, mean: Sequence[float], std: Sequence[float], size: int, whole: int = 0, interpolation: str = "bicubic") -> "Pixels":
        """From mean and standard deviation of colours in 0..1."""
        scale, offset = (1 / (255 * s) for s in std), (-m / s for m, s in zip(mean, std, strict=True))
        return cls(size, whole or size, tuple(scale), tuple(offset), interpolation)


@dataclass(frozen=True)
class Backbone:
    """An opened preset."""

    preset: str
    net: Any
    """The keras-hub backbone."""
    pixels: Pixels
    tokenizer: Callable[[], Any] | None = None
    """Makes keras-hub's CLIP tokenizer; None where there is no text side."""
    end: int | None = None
    """The text is read off at the first token of this number; None: at the first of the greatest number."""


def random(preset: str) -> bool:
    """Whether the weights are drawn by chance, so that no result of it means anything."""
    return preset == TINY


def require(preset: str) -> None:
    """Look for what the preset needs, or fetch it. ValueError that says what to put where."""
    if preset.startswith(HF_CLIP):
        from tfdetect.models import clip_import

        clip_import.require(Path(preset.removeprefix(HF_CLIP)))
    elif Path(preset).is_dir():
        _require_folder(Path(preset))
    elif preset != TINY:
        _fetch(preset)


def load(preset: str) -> Backbone:
    """Open a preset. ValueError where it is not at hand or cannot be read."""
    require(preset)
    if preset.startswith(HF_CLIP):
        from tfdetect.models import clip_import

        return clip_import.load(preset, Path(preset.removeprefix(HF_CLIP)))
    if preset == TINY:
        from tfdetect.models import tiny_clip as tiny

        return Backbone(preset, tiny.backbone(), Pixels.of(tiny.MEAN, tiny.STD, tiny.SIZE), tiny.tokenizer)
    try:
        return _open(preset)
    except Exception as error:  # keras-hub raises whatever its parts do on a config, weights or vocabulary that do not fit
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{preset} could not be opened as a preset of keras-hub: {reason} Expected {HELP}.") from error


def _require_folder(folder: Path) -> None:
    config = read_json(folder / "config.json")
    if config.get("model_type") == "clip":
        raise ValueError(f"{folder} is Hugging Face's CLIP, which keras-hub cannot read; say --detector.preset {HF_CLIP}{folder}.")
    theirs = ("model.safetensors", "preprocessor_config.json")
    for name in theirs if "model_type" in config else NEEDED:
        if not (folder / name).is_file() and not (folder / "model.weights.json").is_file() | (name != NEEDED[-1]):
            raise ValueError(f"{folder} has no {name}, expected {HELP}.")


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds. ValueError where there is no such file, or it holds no object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} could not be read as JSON ({error}); expected {HELP}.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__}, expected a JSON object.")
    return found


def _fetch(preset: str) -> None:
    """Into kagglehub's folder of downloads, from which keras-hub reads."""
    import kagglehub
    import keras_hub

    known = keras_hub.models.Backbone.presets
    if preset not in known:
        near = difflib.get_close_matches(preset, known, n=1, cutoff=0.5)
        hint = f"perhaps you meant {near[0]}, or " if near else ""
        raise ValueError(f"{preset} is neither a folder nor a preset of keras-hub; {hint}{HELP}.")
    handle = known[preset]["kaggle_handle"].removeprefix("kaggle://")
    try:
        for name in (*NEEDED, *(WORDS if preset in keras_hub.models.CLIPBackbone.presets else ())):
            kagglehub.model_download(handle, name)
    except Exception as error:  # as many kinds as there are ways for a download to fail
        reason = type(error).__name__ + " " + " ".join(str(error).split())[:200]
        raise ValueError(f"{preset} is not on this machine and could not be fetched ({reason}); fetch "
                         f"https://www.kaggle.com/models/{handle} elsewhere and give its folder as --detector.preset FOLDER, or "
                         f"{HELP}.") from error  # fmt: skip


def _open(preset: str) -> Backbone:
    import keras_hub

    config = read_json(Path(preset) / "config.json") if Path(preset).is_dir() else {}
    if "model_type" in config:
        return _open_hugging_face(preset, config)
    net = keras_hub.models.Backbone.from_preset(preset)
    converter = keras_hub.layers.ImageConverter.from_preset(preset)
    if not isinstance(net, keras_hub.models.CLIPBackbone):
        return Backbone(preset, net, _pixels(net, converter))
    there = not config or (Path(preset) / WORDS[0]).is_file()
    words = (lambda: keras_hub.models.CLIPTokenizer.from_preset(preset)) if there else None
    return Backbone(preset, net, _pixels(net, converter), words)


def _pixels(net: Any, converter: Any) -> Pixels:
    side = _shape(net)[0] or (converter.image_size or [None])[0]
    if side is None:
        raise ValueError("Its image_converter.json says no image_size.")
    scale = np.broadcast_to(1.0 if converter.scale is None else converter.scale, 3)
    offset = np.broadcast_to(0.0 if converter.offset is None else converter.offset, 3)
    return Pixels(side, side, tuple(map(float, scale)), tuple(map(float, offset)), converter.interpolation)


def _shape(net: Any) -> tuple[int | None, ...]:
    """(height, width, 3) of the pictures that it takes. ValueError where it takes none."""
    shape = getattr(getattr(net, "vision_encoder", net), "image_shape", None)
    if shape is None:
        raise ValueError(f"{type(net).__name__} takes no pictures, expected a backbone for images.")
    return tuple(shape)


def _open_hugging_face(folder: str, config: dict[str, Any]) -> Backbone:
    import keras_hub

    pixels = hugging_face_pixels(Path(folder))
    # DINO's places of patches follow the size of the pictures; Hugging Face's code feeds what its preprocessor makes.
    resized = {"image_shape": (pixels.size, pixels.size, 3)} if config["model_type"].startswith("dino") else {}
    net = keras_hub.models.Backbone.from_preset(folder, **resized)
    if _shape(net)[0] != pixels.size:
        raise ValueError(f"Its preprocessor_config.json makes {pixels.size} pixels, its config.json expects {_shape(net)[0]}.")
    return Backbone(folder, net, pixels)


def hugging_face_pixels(folder: Path) -> Pixels:
    """What a preprocessor_config.json says."""
    path = folder / "preprocessor_config.json"
    config = read_json(path)
    kinds = {2: "bilinear", 3: "bicubic"}
    try:
        whole = _side(config["size"])
        size = _side(config["crop_size"]) if config.get("do_center_crop", "crop_size" in config) else whole
        pixels = Pixels.of(config["image_mean"], config["image_std"], size, whole, kinds[config.get("resample", 3)])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} lacks or garbles {error}; expected size, image_mean, image_std, resample 2 or 3.") from error
    if size > whole:
        raise ValueError(f"{path} crops {size} pixels from {whole}, expected no more than there are.")
    return pixels


def _side(size: Any) -> int:
    """Pixels of a side, which Hugging Face writes as a number, {shortest_edge} or {height, width}."""
    return int(size.get("shortest_edge") or size["height"]) if isinstance(size, dict) else int(size)


def vision(backbone: Backbone, clip_size: int, features: Features) -> Any:
    """A keras.Model, pictures (batch, clip_size, clip_size, 3), floats 0..255, RGB -> features (batch, n); normalising included.

    `projected` is what the picture's side of CLIP or SigLIP hands to the comparison with words; `pooled` the class token after
    the last norm, or the mean of all places where there is none; `penultimate` the same of the last block but one, without norm.
    """
    import keras

    from tfdetect.models.resample import Resample

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
        raise ValueError(f"{type(net).__name__} ({backbone.preset}) has no features {features!r}, expected {' or '.join(there)}.")
    if parts is None:
        return _mean(net(x))
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
    beside: dict[str, Any] = None  # what every block is given besides the tokens


def _parts(net: Any, pictures: Any) -> _Parts | None:
    """None where it is no vision transformer that is known here."""
    kind, side = type(net).__name__, getattr(net, "vision_encoder", None)
    if kind == "CLIPBackbone":
        start = [side.embedding, side.pre_layer_norm]
        return _Parts(start, side.encoder_layers, side.layer_norm, True, lambda x: net.vision_projection(x[:, 0]), {})
    if kind == "SigLIPBackbone":
        return _Parts([side.embedding], side.encoder_layers, side.post_layer_norm, False, side.head, {})
    if kind == "DINOV2Backbone":
        return _Parts([net.embeddings], net.encoder.layers, net.layernorm, beside={})
    if kind == "DINOV3Backbone":
        beside = {"position_embeddings": net.rope_embedding(pictures), "num_prefix_tokens": 1 + net.num_register_tokens}
        return _Parts([net.embeddings], net.encoder.layers, net.layernorm, beside=beside)
    if kind == "ViTBackbone":
        encoder = net.get_layer("vit_encoder")
        start = [net.get_layer("vit_patching_and_embedding"), encoder.dropout]
        return _Parts(start, encoder.encoder_layers, encoder.layer_norm, net.use_class_token, beside={})
    return None


def blocks(model: Any) -> list[Any]:
    """The transformer blocks of a `vision` model, first to last; none for a backbone of another kind."""
    return [layer for layer in model.layers if type(layer).__name__ in ATTENTION]


def lora(model: Any, rank: int) -> None:
    """Freeze a `vision` model but for adapters of that rank beside the query and value projections (Hu et al. 2021).

    What is saved has them added to the projections: a `.keras` file loads as a plain model with the same outputs.
    """
    if not blocks(model):
        raise ValueError("Low-rank adapters go beside attention, and this backbone has none; expected a vision transformer.")
    if rank < 1:
        raise ValueError(f"The rank of the adapters must be at least 1, got {rank}.")
    for weight in model.weights:
        weight.trainable = False
    for block in blocks(model):
        attention = block
        for name in ATTENTION[type(block).__name__].split("."):
            attention = getattr(attention, name)
        attention.query_dense.enable_lora(rank)
        attention.value_dense.enable_lora(rank)


def text(backbone: Backbone) -> Callable[[Sequence[str]], np.ndarray]:
    """A function from prompts to embeddings (n, d) float32, comparable with `projected` features, not normalised.

    ValueError where the backbone has no text side, or the preset no tokenizer.
    """
    if backbone.tokenizer is None:
        raise ValueError(f"{backbone.preset} has no text side with a CLIP tokenizer, which prompts need; expected a preset of CLIP.")
    import keras

    net, tokenizer = backbone.net, backbone.tokenizer()

    def embed(prompts: Sequence[str]) -> np.ndarray:
        ids = tokens(tokenizer, prompts, net.text_encoder.max_sequence_length)
        found = ids == (ids.max(1, keepdims=True) if backbone.end is None else backbone.end)
        if not found.any(1).all():
            raise ValueError(f"{backbone.preset} ends its texts with token {backbone.end}, but its tokenizer never writes that.")
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
