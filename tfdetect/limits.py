"""How files are read: upper limits on their size, since the header of an untrusted file may declare any size, and which decoder
reads a video and how much of it."""

from dataclasses import asdict, dataclass, replace
from typing import Literal

Decoder = Literal["auto", "pyav", "decord", "opencv"]
Check = Literal["used", "all"]
MAX_SIDE = 1_000_000  # pixels in a row or column of an image: libpng decodes no more, and OpenCV 2**20 in any format


@dataclass(frozen=True)
class Limits:
    """Upper limits per file; a file whose header declares more fails before anything is decoded."""

    pixels: int = 256_000_000
    """Maximum width times height of an image or video frame."""
    bytes: int = 2**35
    """Maximum file size in bytes; images are limited to 1 GiB in any case."""
    frames: int = 1_000_000
    """Maximum number of frames in a video."""
    seconds: float = 4 * 3600.0
    """Maximum duration of a video in seconds."""

    def check(self, name: str, value: float, unit: str) -> str:
        """Return why `value` exceeds the limit called `name`, or "" if it does not."""
        limit = getattr(self, name)
        if value <= limit:
            return ""
        value_text, limit_text = (f"{number:f}".rstrip("0").rstrip(".") for number in (value, limit))
        return f"{value_text} {unit}, at most {limit_text} are read (--data.limits.{name})"


@dataclass(frozen=True)
class LimitOverrides:
    """Upper limits per file; None keeps the limit used in training."""

    pixels: int | None = None
    """Maximum width times height of an image or video frame; by default as in training."""
    bytes: int | None = None
    """Maximum file size in bytes; images are limited to 1 GiB in any case; by default as in training."""
    frames: int | None = None
    """Maximum number of frames in a video; by default as in training."""
    seconds: float | None = None
    """Maximum duration of a video in seconds; by default as in training."""

    def apply_to(self, limits: Limits) -> Limits:
        """Return `limits` with the values given here replaced."""
        return replace(limits, **{name: value for name, value in asdict(self).items() if value is not None})


@dataclass(frozen=True)
class Decoding:
    """How videos are decoded; see `settings.FileSettings`."""

    decoder: Decoder = "auto"
    check: Check = "used"

    def __str__(self) -> str:
        frames = "the frames that are used and those they depend on" if self.check == "used" else "all frames"
        return f"Of videos, {frames} were checked for damage (--data.check {self.check})."

    @property
    def key(self) -> str:
        """Everything that decides pixels and verdicts, as part of a folder name; empty for the default."""
        return ("" if self.decoder == "auto" else f"-{self.decoder}") + ("" if self.check == "used" else f"-{self.check}")
