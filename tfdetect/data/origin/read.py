"""Read what a file says of its origin."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tfdetect.data.media import sniff
from tfdetect.data.media.read import MAX_BYTES, digest
from tfdetect.data.origin import credentials, exif, images, videos, xmp
from tfdetect.data.origin.content import Content
from tfdetect.data.origin.meaning import statement
from tfdetect.data.origin.statement import KINDS, MAX_STATEMENTS, Origin, Statement, shorten

POSITION = "there is one, which is shown on request"


@dataclass(frozen=True)
class OriginReader:
    """Read the origin of one file, as a task for `worker_pool.map_unordered`; a file that cannot be read has its reason under
    `error`."""

    coordinates: bool = False

    def __call__(self, path: str) -> Origin:
        try:
            return read_origin(path, self.coordinates)
        except (sniff.MediaError, OSError) as error:
            return Origin(str(path), error=sniff.failure_reason(error))


def read_origin(path: str | Path, coordinates: bool = False) -> Origin:
    """Return what an image or video says of its origin; `coordinates` also shows where it was taken.

    Broken metadata cost nothing but a note. Raises MediaError if the file is no image or video, OSError if it cannot be read.
    """
    name = str(path)
    kind = sniff.media_kind(name)
    with open(name, "rb") as file:
        head = file.read(sniff.HEAD_BYTES)
    form, size = sniff.image_format(head) or sniff.video_demuxer(head), os.path.getsize(name)
    if kind == "video":
        content = videos.read_video(name, form)
    elif size > MAX_BYTES:
        content = Content(notes=[f"The image file has {size:,} bytes, of at most {MAX_BYTES:,} the metadata are read."])
    else:
        content = images.read_image(Path(name).read_bytes(), form)
    found = sorted(_interpret(name, content, coordinates), key=lambda each: list(KINDS).index(each.kind))
    if len(found) > MAX_STATEMENTS:
        content.note(f"There are {len(found)} statements; the first {MAX_STATEMENTS} are listed.")
    return Origin(name, digest(name), size, form, tuple(found[:MAX_STATEMENTS]), bool(content.positions), content.audio_tracks,
                  tuple(content.notes))


def _interpret(path: str, content: Content, coordinates: bool) -> list[Statement]:
    """Return the statements of a file's metadata, each once; those before a broken part are kept."""
    found: dict[Statement, None] = {}

    def collect(what: str, statements: Iterator[Statement]) -> None:
        with content.tolerating(what):
            for each in statements:
                found[each] = None

    if content.has_credentials:
        collect("The content credentials (C2PA)", credentials.statements(path))
    collect("A text", (statement(*text) for text in content.texts))
    if content.exif:
        collect("EXIF", exif.statements(content.exif))
        with content.tolerating("The position in EXIF"):
            content.add_position("EXIF", exif.position(content.exif))
    for packet in content.xmp:
        with content.tolerating("XMP"):
            properties = xmp.properties(packet)
            collect("XMP", xmp.statements(properties))
            content.add_position("XMP", xmp.position(properties))
    for place, text in content.positions:
        found[Statement("other", f"{place} position", shorten(text) if coordinates else POSITION)] = None
    return list(found)
