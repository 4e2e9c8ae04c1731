"""`--detector.features`: which outputs of a vision backbone are its features, such as `penultimate+layers:6,9+patches:6`."""

import re
from typing import NamedTuple

from tfdetect.errors import UserError, suggestion

WHOLE = ("projected", "pooled", "penultimate")
BLOCKS = ("layers", "patches", "variances")
EXPECTED = ("expected projected, pooled, penultimate, layers:N,N, patches:N,N or variances:N,N with block numbers from 1, or "
            "several joined by +")  # fmt: skip


class Output(NamedTuple):
    """One output of a backbone, a vector per image."""

    kind: str
    """projected, pooled or penultimate; layers, patches or variances for a single block."""
    block: int = 0
    """layers, patches, variances: the block that it follows, from 1."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.block}" if self.block else self.kind


def parse(text: str) -> tuple[Output, ...]:
    """Return the outputs in this order, whatever theirs in the text: layers, patches, variances by block, then those of the whole.

    Raises UserError for a name that does not exist, a block that is not a number from 1, and an output named twice.
    """
    outputs = [output for part in text.split("+") for output in _parse_part(part.strip())]
    if twice := [output for output in outputs if outputs.count(output) > 1]:
        raise UserError(f"Features {text!r} name {twice[0]} twice; leave out one.")
    names = (*BLOCKS, "penultimate", "pooled", "projected")
    return tuple(sorted(outputs, key=lambda output: (names.index(output.kind), output.block)))


def _parse_part(part: str) -> list[Output]:
    name, colon, blocks = part.partition(":")
    if name in WHOLE and not colon:
        return [Output(name)]
    if name in BLOCKS and re.fullmatch(r"[1-9]\d{0,3}(,[1-9]\d{0,3})*", blocks):
        return [Output(name, int(block)) for block in blocks.split(",")]
    meant = "" if name in (*WHOLE, *BLOCKS) else suggestion(name, (*WHOLE, *BLOCKS))
    raise UserError(f"There are no features {part!r}, {EXPECTED}.{meant}")
