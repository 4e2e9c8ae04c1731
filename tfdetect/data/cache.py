"""Decoded clips on disk, keyed by content and settings: the same bytes looked at the same way are decoded once, ever.

`<cache>/<settings>/ab/<sha256 of the file>.npy` (or `.tfrecord`) holds the frames, a `.json` of the same name says how
they were had, or why not. The json is written last, so what has one is whole: a run that was killed goes on with the
files that lack theirs, and its result is the same, byte for byte. Names and labels live in the manifest alone.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tfdetect.data import media
from tfdetect.files import atomic, write_arrays, write_json

VERSION = 1  # of what the reader makes of a file; a change of it makes all entries anew


@dataclass(frozen=True)
class View:
    """How a file becomes a clip: `frames` of size x size pixels, evenly or at `fps`; `still` repeats an image."""

    frames: int
    size: int
    fps: float | None = None
    still: bool = False  # an image becomes a clip of `frames` equal frames, for detectors that see clips

    def read(self, path: str | Path, size: int | None = None) -> media.Media:
        """The clip of a file at `size` (native if None). Raises media.MediaError and OSError."""
        found = media.read(path, self.frames, self.fps, size)
        if self.still and len(found.frames) < self.frames:
            return media.Media(
                np.repeat(found.frames, self.frames, axis=0), found.indices * self.frames, found.total, found.width,
                found.height, f"a still image: its one frame stands {self.frames} times",
            )  # fmt: skip
        return found


@dataclass(frozen=True)
class Cache:
    """A folder of entries for one view."""

    root: Path
    view: View
    kind: Literal["npy", "tfrecord"] = "npy"

    @property
    def folder(self) -> Path:
        view = self.view
        rate = "" if view.fps is None else f"-{view.fps:g}fps"
        return self.root / f"v{VERSION}-{self.kind}-{view.frames}x{view.size}{rate}{'-still' if view.still else ''}"

    def entry(self, sha: str) -> Path:
        """Where the frames of the file with that hash are."""
        return self.folder / sha[:2] / f"{sha}.{self.kind}"

    def add(self, path: str) -> dict[str, Any]:
        """Decode a file unless that is done: {"sha", "frames", "width", "height", "note", "error"}.

        What holds no picture has its reason under "error" and is remembered; what cannot be opened (no such file, no
        permission) has one too, and is tried again next time. Raises OSError where the cache cannot be written.
        """
        try:
            sha = digest(path)
        except OSError as error:
            return failed("", error.strerror or str(error))
        about = self.entry(sha).with_suffix(".json")
        if about.exists():
            return {"sha": sha, **json.loads(about.read_text())}
        try:
            clip = self.view.read(path, self.view.size)
        except media.MediaError as error:
            found = failed(sha, str(error))
        except OSError as error:
            return failed(sha, error.strerror or str(error))
        else:
            self.write(sha, path, clip)
            found = {"sha": sha, "frames": len(clip.frames), "width": clip.width, "height": clip.height,
                     "note": clip.note, "error": ""}  # fmt: skip
        write_json(about, {key: value for key, value in found.items() if key != "sha"})
        return found

    def write(self, sha: str, path: str, clip: media.Media) -> None:
        if self.kind == "npy":
            write_arrays(self.entry(sha), clip.frames)
            return
        from tfdetect.data.graph import write_record  # here, because it imports TensorFlow

        with atomic(self.entry(sha)) as temporary:
            write_record(temporary, path, clip.frames)

    def load(self, sha: str) -> np.ndarray:
        """The frames of an entry, (frames, size, size, 3) uint8 RGB; those of an .npy are mapped, not read."""
        if self.kind == "npy":
            return np.load(self.entry(sha), mmap_mode="r")
        from tfdetect.data.graph import read_record

        return read_record(str(self.entry(sha)), self.view.size, self.view.frames if self.view.still else 1).numpy()

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self.view)}


def failed(sha: str, reason: str) -> dict[str, Any]:
    return {"sha": sha, "frames": 0, "width": 0, "height": 0, "note": "", "error": reason}


def digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
