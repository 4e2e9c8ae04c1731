"""Corruption texts such as "flip|jpeg(30,100,p=0.5)|blur(0,3)": registration, parsing and validation.

This module imports nothing heavy, so a mistake in a flag is reported before TensorFlow is loaded. The TensorFlow
functions of the built-in corruptions are in `data/input_pipeline/corruptions.py`.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfdetect.errors import UserError, nearest


@dataclass(frozen=True)
class Corruption:
    """The parameter of a corruption and its range; each clip gets a value drawn from the range that the text gives."""

    parameter: str = ""  # name of the parameter; "" if there is none
    low: float = 0
    high: float = 0
    unit: str = ""
    integer: bool = False  # whether the parameter is a whole number
    probability: float = 1.0  # probability that a clip is corrupted, unless the text sets p=
    changes_labels: bool = False  # such corruptions are for training only
    encodes_video: bool = False  # whether `evaluate --robustness` encodes the whole video anew, and leaves images out
    on_clips: bool = True  # whether it can be applied to clips, whose frame rate is unknown, or only to files

    def accepts(self, value: Any) -> bool:
        """Return whether `value` is a number within the range. Booleans are not numbers here."""
        is_number = type(value) is int or (type(value) is float and not self.integer)
        return is_number and self.low <= value <= self.high


CORRUPTIONS = {
    "flip": Corruption(probability=0.5),
    "jpeg": Corruption("quality", 1, 100, integer=True),
    "webp": Corruption("quality", 1, 100, integer=True),
    "avif": Corruption("quality", 1, 100, integer=True),
    "video": Corruption("crf", 0, 51, integer=True, encodes_video=True),
    "h264": Corruption("crf", 0, 51, integer=True, encodes_video=True),
    "hevc": Corruption("crf", 0, 51, integer=True, encodes_video=True),
    "fps": Corruption("rate", 1, 240, "frames/s", encodes_video=True, on_clips=False),
    "blur": Corruption("sigma", 0, 50, "pixels"),
    "resize": Corruption("scale", 0.05, 4, "of the side lengths"),
    "side": Corruption("length", 8, 8192, "pixels", integer=True),
    "max_side": Corruption("length", 8, 8192, "pixels", integer=True),
    "crop": Corruption("scale", 0.1, 1, "of the side lengths"),
    "square_crop": Corruption("scale", 0.1, 1, "of the shorter side"),
    "noise": Corruption("sigma", 0, 128, "levels"),
    "brightness": Corruption("shift", -255, 255, "levels"),
    "contrast": Corruption("factor", 0, 10),
    "cutout": Corruption("scale", 0, 1, "of the side lengths"),
    "grid_mask": Corruption("ratio", 0, 1, "of the spacing"),
    "posterize": Corruption("bits", 1, 8, integer=True),
    "solarize": Corruption("threshold", 0, 256, "levels", integer=True),
    "equalize": Corruption(),
    "autocontrast": Corruption(),
    "saturation": Corruption("factor", 0, 10),
    "hue": Corruption("shift", -180, 180, "degrees"),
    "sharpness": Corruption("factor", 0, 10),
    "mixup": Corruption("weight", 0, 1, changes_labels=True),
    "cutmix": Corruption("weight", 0, 1, changes_labels=True),
    "fourier_mix": Corruption("weight", 0, 1, changes_labels=True),
    "selfblend": Corruption("weight", 0.1, 1, changes_labels=True),
    "sbi": Corruption(probability=0.5, changes_labels=True),
}
REGISTERED: dict[str, Callable[..., Any]] = {}  # name -> TensorFlow function of a corruption that a plugin registered
_PROBABILITY = Corruption("p", 0, 1)


def register(name: str, corruption: Corruption) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that registers a function as the corruption `name`, to be used in --train.augment and --data.corrupt.

    The function takes clips (batch, frames, height, width, 3) uint8 RGB, values (batch,) float32 in the unit of
    `corruption`, and a seed (2,) int32 for `tf.random.stateless_*`. It returns clips of the same shape and dtype. It
    runs in a `tf.data` graph. Import TensorFlow inside the function, so that importing the plugin stays cheap:

        @register("vignette", Corruption("strength", 0, 1))
        def vignette(clips, values, seed):
            import tensorflow as tf
            ...

    Raises UserError if the name is taken or is not a Python identifier, or if the corruption changes labels.
    """
    if name in CORRUPTIONS or not name.isidentifier():
        reason = "already exists" if name in CORRUPTIONS else "is not an identifier"
        raise UserError(f"Cannot register the corruption {name!r}: the name {reason}. Choose another name.")
    if corruption.changes_labels:
        raise UserError(f"Cannot register the corruption {name!r}: only built-in corruptions may change labels.")

    def decorator(function: Callable[..., Any]) -> Callable[..., Any]:
        CORRUPTIONS[name], REGISTERED[name] = corruption, function
        return function

    return decorator


def signature(name: str) -> str:
    """Return how a corruption is written, such as "jpeg(quality[,to][,p=1]) with an integer quality in 1..100"."""
    kind = CORRUPTIONS[name]
    if not kind.parameter:
        return f"{name}[(p={kind.probability:g})]"
    text = f"{name}({kind.parameter}[,to][,p={kind.probability:g}])"
    article = "an integer" if kind.integer else "a"
    return f"{text} with {article} {kind.parameter} in {kind.low:g}..{kind.high:g} {kind.unit}".rstrip()


@dataclass(frozen=True)
class CorruptionStep:
    """One corruption, applied to each clip with probability `p` and a value drawn uniformly from `low` .. `high`."""

    name: str
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        kind = CORRUPTIONS[self.name]
        numbers = [] if not kind.parameter else [self.low] if self.low == self.high else [self.low, self.high]
        arguments = [_format(value) for value in numbers]
        arguments += [f"p={_format(self.p)}"] if self.p != kind.probability else []
        return f"{self.name}({','.join(arguments)})" if arguments else self.name


@dataclass(frozen=True)
class CorruptionSpec:
    """A sequence of corruptions. An empty one leaves clips unchanged and is falsy."""

    steps: tuple[CorruptionStep, ...] = ()

    @property
    def preserves_labels(self) -> bool:
        """Whether no step changes labels; an evaluation needs that."""
        return not any(CORRUPTIONS[step.name].changes_labels for step in self.steps)

    @property
    def encodes_video(self) -> bool:
        """Whether a step encodes the whole video, so that the text does not apply to images."""
        return any(CORRUPTIONS[step.name].encodes_video for step in self.steps)

    @property
    def slug(self) -> str:
        """The text in a form for file names: flip-jpeg_30_100_p0.5."""
        return re.sub(r"[(,]", "_", re.sub(r"[)=]", "", str(self))).replace("|", "-")

    def __str__(self) -> str:
        return "|".join(map(str, self.steps))

    def __bool__(self) -> bool:
        return bool(self.steps)


def parse(text: str) -> CorruptionSpec:
    """Parse a text such as "flip|jpeg(30,100,p=0.5)"; an empty text has no steps. Raises UserError if it is invalid."""
    return CorruptionSpec(tuple(_parse_step(part.strip()) for part in text.split("|")) if text.strip() else ())


def check_flag(text: str, flag: str, labels: bool = True) -> None:
    """Raise UserError if the text of a flag is invalid, or if it changes labels and `labels` is False."""
    try:
        spec = parse(text)
    except ValueError as error:
        raise UserError(f"{flag}: {error}") from None
    if not labels and not spec.preserves_labels:
        name = next(step.name for step in spec.steps if CORRUPTIONS[step.name].changes_labels)
        as_files = " As files, --data.make_fakes makes the fakes of sbi." if name == "sbi" and flag == "--train.augment" else ""
        raise UserError(f"{flag}: {name} changes labels, so it can only be used for training on both classes.{as_files}")
    if names := [step.name for step in spec.steps if not CORRUPTIONS[step.name].on_clips]:
        raise UserError(f"{flag}: {names[0]} needs whole video files, which only evaluate --robustness corrupts.")


def _parse_step(text: str) -> CorruptionStep:
    name, arguments, keywords = _parse_call(text)
    if name not in CORRUPTIONS:
        meant = nearest(name, CORRUPTIONS)
        hint = f"Perhaps you meant {signature(meant)}" if meant else f"Choose from {', '.join(CORRUPTIONS)}"
        raise UserError(f"{text!r} is not a known corruption. {hint}.")
    kind, p = CORRUPTIONS[name], keywords.get("p", CORRUPTIONS[name].probability)
    if not (_PROBABILITY.accepts(p) and set(keywords) <= {"p"}):
        raise UserError(f"{text!r} is invalid; expected {signature(name)}, where p is a probability in 0..1.")
    if len(arguments) not in ((1, 2) if kind.parameter else (0,)) or not all(map(kind.accepts, arguments)):
        raise UserError(f"{text!r} is invalid; expected {signature(name)}.")
    if sorted(arguments) != arguments:
        raise UserError(f"{text!r} is invalid; expected {signature(name)}, with the lower bound first.")
    low, high = (arguments[0], arguments[-1]) if arguments else (0, 0)
    return CorruptionStep(name, float(low), float(high), float(p))


def _parse_call(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Return name, numbers and keywords of a call such as jpeg(30,100,p=0.5). Python's parser reads it; nothing is executed."""
    try:
        tree = ast.parse(text, mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, [], {}
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
            keywords = {word.arg or "**": ast.literal_eval(word.value) for word in tree.keywords}
            if len(keywords) == len(tree.keywords):
                return tree.func.id, [ast.literal_eval(value) for value in tree.args], keywords
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        pass
    raise UserError(f"{text!r} cannot be parsed; expected steps such as jpeg(80) or blur(0,3,p=0.5), separated by |.")


def _format(value: float) -> str:
    """Return the shortest text that reads back as the same number."""
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(value)
