"""How much of a file is read at most: a stranger's file may announce anything."""

from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Limits:
    """What a file may announce; one that announces more is a failure before any of it is decoded."""

    pixels: int = 256_000_000
    """Width times height of a picture or frame."""
    bytes: int = 2**35
    """Size of a file; an image may have 1 GiB at the most."""
    frames: int = 1_000_000
    """Frames of a video."""
    seconds: float = 4 * 3600.0
    """Duration of a video."""

    def check(self, name: str, came: float, unit: str) -> str:
        """"" or why what came is too much, for the limit of that name."""
        most = getattr(self, name)
        came_text, most_text = (f"{value:f}".rstrip("0").rstrip(".") for value in (came, most))
        return f"{came_text} {unit}, at most {most_text} are read (--data.limits.{name})" if came > most else ""


@dataclass(frozen=True)
class LimitOverrides:
    """How much of a file is read at most; by default as in training."""

    pixels: int | None = None
    """Width times height of a picture or frame; by default as in training."""
    bytes: int | None = None
    """Size of a file; an image may have 1 GiB at the most."""
    frames: int | None = None
    """Frames of a video."""
    seconds: float | None = None
    """Duration of a video."""

    def apply_to(self, limits: Limits) -> Limits:
        """These, and for what is not given those."""
        return replace(limits, **{name: value for name, value in asdict(self).items() if value is not None})
