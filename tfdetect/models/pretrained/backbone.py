"""A pretrained backbone: its network, its image preprocessing and its tokenizer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tfdetect import files
from tfdetect.errors import UserError

PRESET_HELP = ("give --detector.preset a folder saved by keras-hub, hf-clip:FOLDER (OpenAI's CLIP from Hugging Face), or tiny, a "
               "random CLIP for trying out")  # fmt: skip


@dataclass(frozen=True)
class Preprocessing:
    """How images become a network's input: resize to `resize_to`, crop the central `size`, multiply by `scale`, add `offset`."""

    size: int
    resize_to: int
    scale: tuple[float, ...]
    """1 / (255 x standard deviation) of red, green and blue."""
    offset: tuple[float, ...]
    """-mean / standard deviation of red, green and blue."""
    interpolation: str = "bicubic"

    @classmethod
    def from_mean_and_std(cls, mean: Sequence[float], std: Sequence[float], size: int, resize_to: int | None = None,
                          interpolation: str = "bicubic") -> Self:  # fmt: skip
        """Compute scale and offset from the mean and standard deviation of RGB in 0..1."""
        scale, offset = (1 / (255 * s) for s in std), (-m / s for m, s in zip(mean, std, strict=True))
        return cls(size, resize_to or size, tuple(scale), tuple(offset), interpolation)


@dataclass(frozen=True)
class Backbone:
    """A loaded preset."""

    preset: str
    network: Any
    """The keras-hub backbone."""
    preprocessing: Preprocessing
    load_tokenizer: Callable[[], Any] | None = None
    """Returns keras-hub's CLIP tokenizer; None for a backbone without a text encoder."""
    end_token_id: int | None = None
    """Token at whose first occurrence the text embedding is read; None for the token with the largest id."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object. Raises UserError if it is missing, malformed or holds something else."""
    try:
        return files.read_json(path, (), f"{PRESET_HELP}.")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {PRESET_HELP}.") from error


def read_hugging_face_preprocessing(folder: Path) -> Preprocessing:
    """Read a folder's preprocessor_config.json. Raises UserError for steps that are not supported, rather than skip them."""
    path = folder / "preprocessor_config.json"
    config = read_json(path)
    interpolations = {2: "bilinear", 3: "bicubic"}
    if disabled := [step for step in ("do_resize", "do_rescale", "do_normalize") if not config.get(step, True)]:
        raise UserError(f"{path} has {disabled[0]} false, expected true.")
    try:
        resize_to = _side(config["size"])
        size = _side(config["crop_size"]) if config.get("do_center_crop", "crop_size" in config) else resize_to
        interpolation = interpolations[config.get("resample", 3)]
        preprocessing = Preprocessing.from_mean_and_std(config["image_mean"], config["image_std"], size, resize_to, interpolation)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{path} has a missing or invalid entry ({error}); expected size, image_mean, image_std and resample 2 "
                        "or 3.") from error  # fmt: skip
    if size > resize_to:
        raise UserError(f"{path} crops {size} pixels from an image of {resize_to}, expected at most {resize_to}.")
    return preprocessing


def _side(size: Any) -> int:
    """Return a side in pixels, which Hugging Face writes as a number, as {shortest_edge} or as {height, width}."""
    return int(size.get("shortest_edge") or size["height"]) if isinstance(size, dict) else int(size)
