"""Presets: find or download the weights of a pretrained backbone, and load it with keras-hub."""

from pathlib import Path
from typing import Any

import numpy as np

from tfdetect.errors import UserError, suggestion
from tfdetect.models.pretrained import hf_clip, tiny_clip
from tfdetect.models.pretrained.backbone import PRESET_HELP, Backbone, Preprocessing, read_hugging_face_preprocessing, read_json

TINY, HF_CLIP = "tiny", "hf-clip:"
REQUIRED_FILES = ("config.json", "image_converter.json", "model.weights.h5")
TOKENIZER_FILES = ("tokenizer.json", "assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt")


def is_random(preset: str) -> bool:
    """Whether the preset has random weights, so that its results are meaningless."""
    return preset == TINY


def require(preset: str, with_text: bool = False) -> None:
    """Find the files of a preset or download them; `with_text` includes those that texts need.

    Raises UserError that says which files to put where.
    """
    if preset == TINY:
        return
    if preset.startswith(HF_CLIP):
        hf_clip.require(_hf_clip_folder(preset), with_text)
    elif Path(preset).is_dir():
        _require_folder(Path(preset))
    else:
        _download(preset)


def load(preset: str) -> Backbone:
    """Load a preset. Raises UserError if its files are missing or unreadable."""
    require(preset)
    if preset.startswith(HF_CLIP):
        return hf_clip.load(preset, _hf_clip_folder(preset))
    if preset == TINY:
        preprocessing = Preprocessing.from_mean_and_std(tiny_clip.MEAN, tiny_clip.STD, tiny_clip.SIZE)
        return Backbone(preset, tiny_clip.build_backbone(), preprocessing, tiny_clip.build_tokenizer)
    try:
        return _load_keras_hub(preset)
    except Exception as error:  # a config, weights or vocabulary that do not match raise many kinds of exceptions
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{preset} could not be opened as a preset of keras-hub: {reason.rstrip('.')}; {PRESET_HELP}.") from error


def _hf_clip_folder(preset: str) -> Path:
    return Path(preset.removeprefix(HF_CLIP)).expanduser()  # the shell does not expand ~ after a colon


def _require_folder(folder: Path) -> None:
    config = read_json(folder / "config.json")
    if config.get("model_type") == "clip":
        raise UserError(f"{folder} holds Hugging Face's CLIP, which keras-hub cannot read; use --detector.preset "
                        f"{HF_CLIP}{folder}.")  # fmt: skip
    required = ("model.safetensors", "preprocessor_config.json") if "model_type" in config else REQUIRED_FILES
    if missing := [name for name in required if not (folder / name).is_file()]:
        raise UserError(f"{folder} has no {' and no '.join(missing)}; {PRESET_HELP}.")


def _download(preset: str) -> None:
    """Download into kagglehub's cache, from which keras-hub loads."""
    import kagglehub
    import keras_hub

    presets = keras_hub.models.Backbone.presets
    if preset not in presets:
        raise UserError(f"{preset} is neither a folder nor a preset of keras-hub; {PRESET_HELP}.{suggestion(preset, presets)}")
    handle = presets[preset]["kaggle_handle"].removeprefix("kaggle://")
    try:
        for name in (*REQUIRED_FILES, *(TOKENIZER_FILES if preset in keras_hub.models.CLIPBackbone.presets else ())):
            kagglehub.model_download(handle, name)
    except Exception as error:  # downloads fail with many kinds of exceptions
        reason = type(error).__name__ + " " + " ".join(str(error).split(" with url")[0].split())[:200]
        raise UserError(f"{preset} is not on this machine and could not be downloaded ({reason}); download "
                        f"https://www.kaggle.com/models/{handle} on another machine and give its folder as "
                        f"--detector.preset FOLDER, or {PRESET_HELP}.") from error  # fmt: skip


def _load_keras_hub(preset: str) -> Backbone:
    import keras_hub

    config = read_json(Path(preset) / "config.json") if Path(preset).is_dir() else {}
    if "model_type" in config:
        return _load_hugging_face(preset, config)
    network = keras_hub.models.Backbone.from_preset(preset)
    preprocessing = read_preprocessing(network, keras_hub.layers.ImageConverter.from_preset(preset))
    if not isinstance(network, keras_hub.models.CLIPBackbone):
        return Backbone(preset, network, preprocessing)
    has_tokenizer = not config or (Path(preset) / TOKENIZER_FILES[0]).is_file()
    load_tokenizer = (lambda: keras_hub.models.CLIPTokenizer.from_preset(preset)) if has_tokenizer else None
    return Backbone(preset, network, preprocessing, load_tokenizer)


def read_preprocessing(network: Any, converter: Any) -> Preprocessing:
    """Return the preprocessing that keras-hub's image converter of a network describes."""
    side = _image_shape(network)[0] or (converter.image_size or [None])[0]
    if side is None:
        raise UserError("Its image_converter.json has no image_size.")
    scale = np.broadcast_to(1.0 if converter.scale is None else converter.scale, 3)
    offset = np.broadcast_to(0.0 if converter.offset is None else converter.offset, 3)
    return Preprocessing(side, side, tuple(map(float, scale)), tuple(map(float, offset)), converter.interpolation)


def _image_shape(network: Any) -> tuple[int | None, ...]:
    """Return the (height, width, 3) of a network's input. Raises UserError for a network without image input."""
    shape = getattr(getattr(network, "vision_encoder", network), "image_shape", None)
    if shape is None:
        raise UserError(f"{type(network).__name__} takes no images, expected an image backbone.")
    return tuple(shape)


def _load_hugging_face(folder: str, config: dict[str, Any]) -> Backbone:
    import keras_hub

    preprocessing = read_hugging_face_preprocessing(Path(folder))
    # DINO interpolates its position embeddings to the image size, which in Hugging Face's code is that of the preprocessor.
    arguments = {"image_shape": (preprocessing.size, preprocessing.size, 3)} if config["model_type"].startswith("dino") else {}
    network = keras_hub.models.Backbone.from_preset(folder, **arguments)
    if _image_shape(network)[0] != preprocessing.size:
        raise UserError(f"Its preprocessor_config.json yields images of {preprocessing.size} pixels, but its config.json expects "
                        f"{_image_shape(network)[0]}.")  # fmt: skip
    return Backbone(folder, network, preprocessing)
