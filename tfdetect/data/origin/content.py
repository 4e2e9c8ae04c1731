"""What was found in a file besides its pixels, before anything is made of it."""

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image

from tfdetect.errors import UserError

MAX_XMP = 2**20  # bytes of a packet that is read; more is noted
MAX_UNPACKED = 2**20  # bytes that a compressed text may unpack to, and characters of any text
MAX_PART = 2**22  # bytes of EXIF or a text that are taken out of a file
MAX_TEXTS = 200
PRIVATE = ("author", "artist", "title", "copyright")  # keys of texts that name persons


@dataclass
class Content:
    """Metadata of a file, bounded in size."""

    exif: Image.Exif | None = None
    xmp: list[bytes] = field(default_factory=list)
    texts: list[tuple[str, str, str]] = field(default_factory=list)
    """(place, key, text), such as ("PNG text", "parameters", "a cat ...")."""
    has_credentials: bool = False
    """Whether there is a C2PA manifest store."""
    positions: list[tuple[str, str]] = field(default_factory=list)
    """(place, geographical position)."""
    audio_tracks: int | None = None
    """Of a video."""
    notes: list[str] = field(default_factory=list)

    def load_exif(self, data: bytes) -> None:
        """Read the directory of EXIF data, unless there was one before."""
        if data and self.exif is None:
            with self.tolerating("EXIF"):
                exif = Image.Exif()
                exif.load(data)
                self.exif = exif

    def add_text(self, place: str, key: str, text: str) -> None:
        """Add a text, unless there are too many or its key says that it names a person; a position is kept apart."""
        name = key.lower()
        if "gps" in name or "location" in name:
            self.add_position(place, text[:MAX_UNPACKED])
        elif name.startswith("raw profile"):  # hexadecimal EXIF, by versions of ImageMagick before the chunk eXIf
            self.note(f"The {place} {key} is in an old form that is not read.")
        elif len(self.texts) >= MAX_TEXTS:
            self.note(f"There are more than {MAX_TEXTS} texts; the others are not read.")
        elif name not in PRIVATE:
            self.texts.append((place, key, text[:MAX_UNPACKED]))

    def add_xmp(self, packet: bytes) -> None:
        """Add an XMP packet, unless it is too large."""
        if len(packet) > MAX_XMP:
            self.note(f"An XMP packet has more than {MAX_XMP:,} bytes and is not read.")
        elif packet and len(self.xmp) < MAX_TEXTS:
            self.xmp.append(packet)

    def add_position(self, place: str, position: str) -> None:
        """Add a geographical position, unless it is ""."""
        if position and len(self.positions) < MAX_TEXTS:
            self.positions.append((place, position))

    def note(self, text: str) -> None:
        """Note once what could not be read."""
        if text not in self.notes:
            self.notes.append(text)

    def unpack(self, data: bytes, name: str) -> bytes:
        """Return what zlib data unpack to, at most MAX_UNPACKED bytes. Raises zlib.error."""
        unpacker = zlib.decompressobj()
        unpacked = unpacker.decompress(data, MAX_UNPACKED)
        if unpacker.unconsumed_tail:
            self.note(f"{name} unpacks to more than {MAX_UNPACKED:,} bytes; the rest is not read.")
        return unpacked

    @contextmanager
    def tolerating(self, what: str) -> Iterator[None]:
        """Note that `what` is broken, whatever error its reader raises: readers raise many types for damaged data, and warn of
        what they pass over."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception as error:
            reason = str(error) if isinstance(error, UserError) else type(error).__name__
            self.note(f"{what} cannot be read to its end ({reason}).")
