"""A pretrained backbone: the network, how pictures become its input, and its text side."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfdetect.errors import UserError

HELP = "give --detector.preset a folder that keras-hub saved, hf-clip:FOLDER (OpenAI's CLIP from Hugging Face), or tiny to try it"


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


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds. ValueError where there is no such file, or it holds no object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} could not be read as JSON ({error}); {HELP}.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds {type(found).__name__}, expected a JSON object.")
    return found


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
