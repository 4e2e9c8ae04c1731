"""Presets: where the weights of a foundation model come from, looked for or fetched, and opened with keras-hub."""

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfdetect.errors import UserError

TINY, HF_CLIP = "tiny", "hf-clip:"
HELP = "give --detector.preset a folder that keras-hub saved, hf-clip:FOLDER (OpenAI's CLIP from Hugging Face), or tiny to try it"
NEEDED = ("config.json", "image_converter.json", "model.weights.h5")
WORDS = ("tokenizer.json", "assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt")


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
    def of(cls, mean: Sequence[float], std: Sequence[float], size: int, whole: int = 0, kernel: str = "bicubic") -> "Pixels":
        """From mean and standard deviation of colours in 0..1."""
        scale, offset = (1 / (255 * s) for s in std), (-m / s for m, s in zip(mean, std, strict=True))
        return cls(size, whole or size, tuple(scale), tuple(offset), kernel)


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


def require(preset: str, words: bool = False) -> None:
    """Look for what the preset needs, or fetch it; `words`: what texts need, too. ValueError that says what to put where."""
    if preset == TINY:
        return
    if preset.startswith(HF_CLIP):
        from tfdetect.models import clip_import

        clip_import.require(Path(preset.removeprefix(HF_CLIP)).expanduser(), words)
    elif Path(preset).is_dir():
        _require_folder(Path(preset))
    else:
        _fetch(preset)


def load(preset: str) -> Backbone:
    """Open a preset. ValueError where it is not at hand or cannot be read."""
    require(preset)
    if preset.startswith(HF_CLIP):
        from tfdetect.models import clip_import

        return clip_import.load(preset, Path(preset.removeprefix(HF_CLIP)).expanduser())  # no shell does it after the colon
    if preset == TINY:
        from tfdetect.models import tiny_clip as tiny

        return Backbone(preset, tiny.backbone(), Pixels.of(tiny.MEAN, tiny.STD, tiny.SIZE), tiny.tokenizer)
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


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds. ValueError where there is no such file, or it holds no object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} could not be read as JSON ({error}); {HELP}.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds {type(found).__name__}, expected a JSON object.")
    return found


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


def hugging_face_pixels(folder: Path) -> Pixels:
    """What a preprocessor_config.json says. ValueError for what is not done here, rather than other pixels."""
    path = folder / "preprocessor_config.json"
    config = read_json(path)
    kinds = {2: "bilinear", 3: "bicubic"}
    if skipped := [step for step in ("do_resize", "do_rescale", "do_normalize") if not config.get(step, True)]:
        raise UserError(f"{path} has {skipped[0]} false, expected true.")
    try:
        whole = _side(config["size"])
        size = _side(config["crop_size"]) if config.get("do_center_crop", "crop_size" in config) else whole
        pixels = Pixels.of(config["image_mean"], config["image_std"], size, whole, kinds[config.get("resample", 3)])
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{path} lacks or garbles {error}; expected size, image_mean, image_std, resample 2 or 3.") from error
    if size > whole:
        raise UserError(f"{path} crops {size} pixels from {whole}, expected no more than there are.")
    return pixels


def _side(size: Any) -> int:
    """Pixels of a side, which Hugging Face writes as a number, {shortest_edge} or {height, width}."""
    return int(size.get("shortest_edge") or size["height"]) if isinstance(size, dict) else int(size)
