"""Decoded clips on disk, keyed by content and settings: the same bytes looked at the same way are decoded once, ever.

`<cache>/<settings>/ab/<sha256 of the file>.npy` (or `.tfrecord`) holds the frames, a `.json` of the same name says how
they were had, or why not. The json is written last, so what has one is whole: a run that was killed goes on with the
files that lack theirs, and its result is the same, byte for byte. Names and labels live in the manifest alone.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tfdetect.data.equalise import Plan, equalised_copy
from tfdetect.data.media.faces import FaceSettings, FaceTracker
from tfdetect.data.media.frames import Media
from tfdetect.data.media.read import READER_VERSION, digest, read_media
from tfdetect.data.media.sniff import MediaError
from tfdetect.data.worker_pool import WorkerFailure
from tfdetect.files import atomic_write, write_arrays, write_json
from tfdetect.limits import Limits

MAX_HEADER = 256  # bytes of an .npy's, at most


@dataclass(frozen=True)
class ClipSpec:
    """How a file becomes a clip: `frames` of size x size pixels, evenly or at `fps`, of the whole picture or of a face."""

    frames: int
    size: int
    fps: float | None = None
    still: bool = False  # an image stands for a clip of `frames` equal frames, for detectors that see clips
    faces: FaceSettings | None = None
    limits: Limits = field(default_factory=Limits)
    plan: Plan | None = None  # by which the files that a detector learnt from were equalised; others go through it first

    @property
    def key(self) -> str:
        """What of the view decides an entry, as a folder name."""
        rate = "" if self.fps is None else f"-{self.fps:g}fps"
        made = f"-{'x'.join(f'{value:g}' for value in asdict(self.plan).values())}" if self.plan else ""
        return f"{self.frames}x{self.size}{rate}{f'-{self.faces.key}' if self.faces else ''}{made}"

    def read(self, path: str | Path) -> Media:
        """The clip of a file, an image as one frame. Raises media.MediaError and OSError."""
        if self.plan:
            with equalised_copy(path, self.plan, self.limits) as made:
                return replace(self, plan=None).read(made)
        if self.faces is None:
            return read_media(path, self.frames, self.fps, self.size, limits=self.limits)
        faces = FaceTracker(self.faces, self.size)
        return faces.to_clip(read_media(path, self.frames, self.fps, self.size, limits=self.limits, on_frame=faces.add_frame))

    def attempt(self, item: tuple[int, str]) -> Media | WorkerFailure:
        """`read` of the path in (number, path) for `pool.results`, with the reason where it cannot be read."""
        try:
            return self.read(item[1])
        except MediaError as error:
            return WorkerFailure(str(error))
        except OSError as error:
            return WorkerFailure(error.strerror or str(error))

    def repeats(self, frames: int) -> int:
        """How often a clip of so many frames stands in what a detector sees."""
        return self.frames if self.still and frames == 1 else 1

    def note(self, note: str, frames: int) -> str:
        """The note of a clip of so many frames, with what this view adds to it."""
        times = self.repeats(frames)
        return "; ".join(filter(None, (note, f"a still image: its one frame stands {times} times" if times > 1 else "")))


@dataclass(frozen=True)
class Cache:
    """A folder of entries for one view."""

    root: Path
    spec: ClipSpec
    kind: Literal["npy", "tfrecord"] = "npy"

    @property
    def folder(self) -> Path:
        return self.root / f"v{READER_VERSION}-{self.kind}-{self.spec.key}"

    def entry(self, sha: str) -> Path:
        """Where the frames of the file with that hash are."""
        return self.folder / sha[:2] / f"{sha}.{self.kind}"

    def add(self, path: str) -> dict[str, Any]:
        """Decode a file unless that is done: {"sha", "frames", "width", "height", "note", "error"}.

        What holds no picture has its reason under "error" and is remembered, for the limits it was tried with; what cannot
        be opened (no such file, no permission) has one too, and is tried again next time. Raises OSError where the cache
        cannot be written.
        """
        try:
            sha = digest(path)
        except OSError as error:
            return failure_result("", error.strerror or str(error))
        except MediaError as error:
            return failure_result("", str(error))
        about = self.entry(sha).with_suffix(".json")
        if (known := self.remembered(about)) is not None and (known.get("error") or self.whole(sha, known.get("frames", -1))):
            return {"sha": sha, **known}
        try:
            clip = self.spec.read(path)
        except MediaError as error:
            found = failure_result(sha, str(error))
        except OSError as error:
            return failure_result(sha, error.strerror or str(error))
        else:
            self.write(sha, path, clip)
            found = {"sha": sha, "frames": len(clip.frames), "width": clip.width, "height": clip.height,
                     "note": clip.note, "error": ""}  # fmt: skip
        self.remember(about, found)
        return found

    def whole(self, sha: str, frames: int) -> bool:
        """Whether an entry of so many frames is there in its full length; the disk may have lost some of it."""
        try:
            length = os.path.getsize(self.entry(sha))
        except OSError:
            return False
        pixels = frames * self.spec.size**2 * 3
        return 0 < length - pixels <= MAX_HEADER if self.kind == "npy" else length > 0

    def remember(self, about: Path, found: Mapping[str, Any]) -> None:
        """Write the .json of an entry; a failure with the limits under which it came."""
        limits = {"limits": asdict(self.spec.limits)} if found["error"] else {}
        write_json(about, {key: value for key, value in found.items() if key != "sha"} | limits)

    def remembered(self, about: Path) -> dict[str, Any] | None:
        """What the .json of an entry says, but the hash; None where there is none, or it tells of a failure by other limits."""
        try:
            known = json.loads(about.read_bytes())
        except (FileNotFoundError, ValueError):  # none, or damaged
            return None
        return known if known.pop("limits", None) in (None, asdict(self.spec.limits)) else None

    def write(self, sha: str, path: str, clip: Media) -> None:
        if self.kind == "npy":
            write_arrays(self.entry(sha), clip.frames)
            return
        from tfdetect.data.media.tf_decode import write_record  # here, because it imports TensorFlow

        with atomic_write(self.entry(sha)) as temporary:
            write_record(temporary, None if self.spec.faces or self.spec.plan else path, clip.frames, self.spec.limits)

    def load(self, sha: str) -> np.ndarray:
        """The clip of an entry as a detector sees it, (frames, size, size, 3) uint8 RGB, mapped from an .npy, not read."""
        if self.kind == "npy":
            clip = np.load(self.entry(sha), mmap_mode="r")
        else:
            from tfdetect.data.media.tf_decode import read_record

            clip = read_record(os.fsencode(self.entry(sha)), self.spec.size).numpy()
        return np.repeat(clip, times, axis=0) if (times := self.spec.repeats(len(clip))) > 1 else clip

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self.spec)}


def failure_result(sha: str, reason: str) -> dict[str, Any]:
    return {"sha": sha, "frames": 0, "width": 0, "height": 0, "note": "", "error": reason}
