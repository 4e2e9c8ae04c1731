"""Find the metadata of a video's container and streams with PyAV, and content credentials among its boxes."""

import mmap
import os
from collections.abc import Iterator, Mapping
from typing import Any

from tfdetect.data.media import containers
from tfdetect.data.origin.content import Content
from tfdetect.data.origin.images import find_boxes

# What a program, camera or generator leaves, and the position.
READ = ("make", "model", "manufacturer", "software", "encoder", "writing_app", "handler_name", "creation_time", "creationdate",
         "comment", "description", "synopsis", "prompt", "workflow", "parameters", "aigc", "date",
         "location", "location-eng", "location.iso6709")  # fmt: skip
PREFIXES = ("com.apple.quicktime.", "com.android.")


def read_video(path: str, demuxer: str) -> Content:
    """Return the metadata of a video; `demuxer` is that of `sniff.video_demuxer`. No frame is asked for."""
    content = Content()
    name = {"mov": "MP4/MOV", "matroska": "Matroska"}.get(demuxer, demuxer.upper())
    with content.tolerating(f"The {name} file"):
        if demuxer == "mov" and os.path.getsize(path):
            with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                find_boxes(data, content)
        truncation, _ = containers.inspect(path)
        with containers.decodable_path(path) as readable, containers.open_video(readable, truncation) as (container, _, _):
            content.audio_tracks = len(container.streams.audio)
            for place, metadata in ((name, container.metadata), *_streams(container)):
                _add(content, place, metadata)
    return content


def _streams(container: Any) -> Iterator[tuple[str, Mapping[str, str]]]:
    for stream in container.streams:
        yield f"{stream.type} stream", stream.metadata


def _add(content: Content, place: str, metadata: Mapping[str, str]) -> None:
    for key, text in metadata.items():
        name = key.lower()
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        if text and name in READ:
            content.add_text(place, key, text)
