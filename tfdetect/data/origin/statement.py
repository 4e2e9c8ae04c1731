"""What a file says of its origin, as plain data: statements, each with the kind of evidence it is."""

from dataclasses import asdict, dataclass, field
from typing import Any

from tfdetect.files import printable

MAX_TEXT = 300  # characters of a text that are shown
MAX_STATEMENTS = 100  # of a file
KINDS = {
    "credentials": "Content credentials (C2PA): a program's or a person's signed account of how the file came about.",
    "generator": "The file says that it, or a part of it, was generated. That is rarely there by accident.",
    "camera": "Fields that cameras write. Any program can copy them from a photograph into another file.",
    "program": "A program that wrote or edited the file. Photographs pass through programs, too.",
    "other": "Dates, places and free text, which by themselves say nothing of the origin.",
}  # the strongest evidence first
CAVEAT = ("None of this enters the score. What a file says of itself is stronger evidence where it is there, although anyone can "
          "write, copy and delete it without a trace; where it is missing, that says nothing: most programs, and nearly all "
          "platforms, delete it.")  # fmt: skip
NOTHING = "The file says nothing of its origin."


@dataclass(frozen=True)
class Statement:
    """One statement of a file about its origin."""

    kind: str
    """One of KINDS, which say what kind of evidence this is."""
    place: str
    """Where it is in the file, such as "EXIF Make"."""
    text: str
    """What it says: printable, on one line, at most MAX_TEXT characters and the number of those that are left out."""
    meaning: str = ""
    """What is known about such a text, such as "settings of ComfyUI"; "" if it speaks for itself."""


@dataclass(frozen=True)
class Origin:
    """What a file says of its origin."""

    path: str
    sha256: str = ""
    """Of all bytes of the file, in hexadecimal."""
    bytes: int = 0
    format: str = ""
    """By its first bytes, never by its name: "jpeg", "png", "mov" (also MP4), "matroska" (also WebM) ..."""
    statements: tuple[Statement, ...] = ()
    """The strongest kind of evidence first."""
    has_position: bool = False
    """Whether the file holds a geographical position, which is only read on request."""
    audio_tracks: int | None = None
    """Of a video; None for an image, and where that is not known."""
    notes: tuple[str, ...] = field(default=())
    """What could not be read, and why."""
    error: str | None = None
    """Why the file could not be read at all; all else is then empty."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, with what each kind of evidence means."""
        return {**asdict(self), "kinds": {each.kind: KINDS[each.kind] for each in self.statements}, "caveat": CAVEAT}


def shorten(text: str) -> str:
    """Return a text of the file as it is shown: on one line, printable, its end left out if it is long."""
    line = printable(" ".join(text[: 4 * MAX_TEXT].split()))
    if len(line) <= MAX_TEXT and len(text) <= 4 * MAX_TEXT:
        return line
    return f"{line[:MAX_TEXT]} ... ({len(text):,} characters)"
