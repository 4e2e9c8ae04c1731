"""The text that names corruptions, "flip|jpeg(30,100,p=0.5)|blur(0,3)": read and checked, without what carries them out.

So a mistake in a flag is told at once, before anything heavy is loaded. `data/corruptions.py` does what is said here.
"""

from __future__ import annotations

import ast
import difflib
import math
import re
from dataclasses import dataclass
from typing import Any

from tfdetect.errors import UserError


@dataclass(frozen=True)
class Corruption:
    """What one corruption takes: nothing, or a number or two of which a value is drawn for each clip."""

    quantity: str = ""  # what the number is; "" where there is none
    low: float = 0
    high: float = 0
    unit: str = ""
    chance: float = 1.0  # for a clip to get it, unless p= says another
    relabels: bool = False  # whether it changes labels: for training only

    @property
    def whole(self) -> bool:
        return self.unit == "whole"

    def accepts(self, value: Any) -> bool:
        """Whether it is a number within the range; True and False are none."""
        number = type(value) is int or (type(value) is float and not self.whole)
        return number and self.low <= value <= self.high


KINDS = {
    "flip": Corruption(chance=0.5),
    "jpeg": Corruption("quality", 1, 100, "whole"),
    "webp": Corruption("quality", 1, 100, "whole"),
    "video": Corruption("crf", 0, 51, "whole"),
    "blur": Corruption("sigma", 0, 50, "pixels"),
    "resize": Corruption("part", 0.05, 1, "of the sides"),
    "crop": Corruption("part", 0.1, 1, "of the sides"),
    "noise": Corruption("sigma", 0, 128, "levels"),
    "brightness": Corruption("shift", -255, 255, "levels"),
    "contrast": Corruption("factor", 0, 10),
    "cutout": Corruption("part", 0, 1, "of the sides"),
    "mixup": Corruption("weight", 0, 1, relabels=True),
    "selfblend": Corruption("weight", 0.1, 1, relabels=True),
}
_CHANCE = Corruption("p", 0, 1)


def signature(name: str) -> str:
    """How an op is written: jpeg(quality[,to][,p=1]) with a whole quality of 1..100."""
    kind = KINDS[name]
    if not kind.quantity:
        return f"{name}[(p={kind.chance:g})]"
    whole, unit = ("whole ", "") if kind.whole else ("", f" {kind.unit}")
    written = f"{name}({kind.quantity}[,to][,p={kind.chance:g}])"
    return f"{written} with a {whole}{kind.quantity} of {kind.low:g}..{kind.high:g}{unit}".rstrip()


@dataclass(frozen=True)
class CorruptionStep:
    """One step: for a clip with the chance `p`, with a value drawn from `low` .. `high`."""

    name: str
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        numbers = [] if not KINDS[self.name].quantity else [self.low] if self.low == self.high else [self.low, self.high]
        parts = [_format(value) for value in numbers]
        parts += [f"p={_format(self.p)}"] if self.p != KINDS[self.name].chance else []
        return f"{self.name}({','.join(parts)})" if parts else self.name


@dataclass(frozen=True)
class CorruptionSpec:
    """Steps, one after the other; none of them leaves the clips as they are."""

    ops: tuple[CorruptionStep, ...] = ()

    @property
    def still(self) -> bool:
        """Whether the labels stay as they are, as an evaluation needs."""
        return not any(KINDS[op.name].relabels for op in self.ops)

    @property
    def slug(self) -> str:
        """The text as part of a file's name: flip-jpeg_30_100_p0.5."""
        return re.sub(r"[(,]", "_", re.sub(r"[)=]", "", str(self))).replace("|", "-")

    def __str__(self) -> str:
        return "|".join(map(str, self.ops))

    def __bool__(self) -> bool:
        return bool(self.ops)


def parse(text: str) -> CorruptionSpec:
    """A text such as "flip|jpeg(30,100,p=0.5)", or "" for no step. ValueError says what came and what was expected."""
    return CorruptionSpec(tuple(_parse_step(part.strip()) for part in text.split("|")) if text.strip() else ())


def check_flag(text: str, flag: str, labels: bool = True) -> None:
    """Raise ValueError where the text of a flag is wrong, or changes labels where `labels` may not be changed."""
    try:
        found = parse(text)
    except ValueError as error:
        raise UserError(f"{flag}: {error}") from None
    if not labels and not found.still:
        name = next(op.name for op in found.ops if KINDS[op.name].relabels)
        raise UserError(f"{flag}: {name} changes labels: it is only for training on both classes.")


def _parse_step(text: str) -> CorruptionStep:
    name, arguments, keywords = _parse_call(text)
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, 1, 0.5)
        hint = f"perhaps you meant {signature(near[0])}" if near else f"there are {', '.join(KINDS)}"
        raise UserError(f"{text!r} names no corruption; {hint}.")
    kind, p = KINDS[name], keywords.get("p", KINDS[name].chance)
    if not (_CHANCE.accepts(p) and set(keywords) <= {"p"}):
        raise UserError(f"{text!r} came; expected {signature(name)}, and p, its chance for a clip, of 0..1.")
    if len(arguments) not in ((1, 2) if kind.quantity else (0,)) or not all(map(kind.accepts, arguments)):
        raise UserError(f"{text!r} came; expected {signature(name)}.")
    if sorted(arguments) != arguments:
        raise UserError(f"{text!r} came; expected {signature(name)}, the lower one first.")
    low, high = (arguments[0], arguments[-1]) if arguments else (0, 0)
    return CorruptionStep(name, float(low), float(high), float(p))


def _parse_call(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Name, numbers and keywords of jpeg(30,100,p=0.5), by Python's own parser: nothing is run."""
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
    raise UserError(f"{text!r} cannot be read; expected steps such as jpeg(80) or blur(0,3,p=0.5), with | between them.")


def _format(value: float) -> str:
    """The shortest text that gives the number back."""
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(value)
