"""Presets: where the weights of a foundation model come from, looked for or fetched, and opened with keras-hub."""

import difflib
from pathlib import Path
from typing import Any

import numpy as np

from tfdetect.errors import UserError
from tfdetect.models.pretrained import hf_clip, tiny_clip
from tfdetect.models.pretrained.backbone import HELP, Backbone, Pixels, hugging_face_pixels, read_json

TINY, HF_CLIP = "tiny", "hf-clip:"
NEEDED = ("config.json", "image_converter.json", "model.weights.h5")
WORDS = ("tokenizer.json", "assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt")


def random(preset: str) -> bool:
    """Whether the weights are drawn by chance, so that no result of it means anything."""
    return preset == TINY


def require(preset: str, words: bool = False) -> None:
    """Look for what the preset needs, or fetch it; `words`: what texts need, too. ValueError that says what to put where."""
    if preset == TINY:
        return
    if preset.startswith(HF_CLIP):
        hf_clip.require(Path(preset.removeprefix(HF_CLIP)).expanduser(), words)
    elif Path(preset).is_dir():
        _require_folder(Path(preset))
    else:
        _fetch(preset)


def load(preset: str) -> Backbone:
    """Open a preset. ValueError where it is not at hand or cannot be read."""
    require(preset)
    if preset.startswith(HF_CLIP):
        return hf_clip.load(preset, Path(preset.removeprefix(HF_CLIP)).expanduser())  # no shell does it after the colon
    if preset == TINY:
        return Backbone(preset, tiny_clip.backbone(), Pixels.of(tiny_clip.MEAN, tiny_clip.STD, tiny_clip.SIZE), tiny_clip.tokenizer)
    try:
        return _open(preset)
    except Exception as error:  # keras-hub raises whatever its parts do on a config, weights or vocabulary that do not fit
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{preset} could not be opened as a preset of keras-hub: {reason.rstrip('.')}; {HELP}.") from error


def _require_folder(folder: Path) -> None:
    config = read_json(folder / "config.json")
    if config.get("model_type") == "clip":
        raise UserError(f"{folder} is Hugging Face's CLIP, which keras-hub cannot read; say --detector.preset {HF_CLIP}{folder}")
    needed = ("model.safetensors", "preprocessor_config.json") if "model_type" in config else NEEDED
    if missing := [name for name in needed if not (folder / name).is_file()]:
        raise UserError(f"{folder} has no {' and no '.join(missing)}; {HELP}.")


def _fetch(preset: str) -> None:
    """Into kagglehub's folder of downloads, from which keras-hub reads."""
    import kagglehub
    import keras_hub

    known = keras_hub.models.Backbone.presets
    if preset not in known:
        near = difflib.get_close_matches(preset, known, n=1, cutoff=0.5)
        hint = f"perhaps you meant {near[0]}, or " if near else ""
        raise UserError(f"{preset} is neither a folder nor a preset of keras-hub; {hint}{HELP}.")
    handle = known[preset]["kaggle_handle"].removeprefix("kaggle://")
    try:
        for name in (*NEEDED, *(WORDS if preset in keras_hub.models.CLIPBackbone.presets else ())):
            kagglehub.model_download(handle, name)
    except Exception as error:  # as many kinds as there are ways for a download to fail
        reason = type(error).__name__ + " " + " ".join(str(error).split(" with url")[0].split())[:200]
        raise UserError(f"{preset} is not on this machine and could not be fetched ({reason}); fetch "
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
        raise UserError("Its image_converter.json says no image_size.")
    scale = np.broadcast_to(1.0 if converter.scale is None else converter.scale, 3)
    offset = np.broadcast_to(0.0 if converter.offset is None else converter.offset, 3)
    return Pixels(side, side, tuple(map(float, scale)), tuple(map(float, offset)), converter.interpolation)


def _shape(net: Any) -> tuple[int | None, ...]:
    """(height, width, 3) of the pictures that it takes. ValueError where it takes none."""
    shape = getattr(getattr(net, "vision_encoder", net), "image_shape", None)
    if shape is None:
        raise UserError(f"{type(net).__name__} takes no pictures, expected a backbone for images.")
    return tuple(shape)


def _open_hugging_face(folder: str, config: dict[str, Any]) -> Backbone:
    import keras_hub

    pixels = hugging_face_pixels(Path(folder))
    # DINO's places of patches follow the size of the pictures; Hugging Face's code feeds what its preprocessor makes.
    resized = {"image_shape": (pixels.size, pixels.size, 3)} if config["model_type"].startswith("dino") else {}
    net = keras_hub.models.Backbone.from_preset(folder, **resized)
    if _shape(net)[0] != pixels.size:
        raise UserError(f"Its preprocessor_config.json makes {pixels.size} pixels, its config.json expects {_shape(net)[0]}.")
    return Backbone(folder, net, pixels)
