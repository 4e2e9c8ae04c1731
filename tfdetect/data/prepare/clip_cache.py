"""Decoded clips on disk, keyed by file content and settings, so that no content is decoded twice with the same settings.

`<cache>/<settings>/ab/<sha256 of the file>.npy` (or `.tfrecord`) holds the frames. A `.json` file of the same name
describes the result, or says why decoding failed. It is written last, so an entry that has one is complete: a killed run
resumes with the missing files and ends with the same bytes. File names and labels are only in the manifest.
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
from tfdetect.data.media.frames import SQUEEZE, Fit, Media
from tfdetect.data.media.read import READER_VERSION, digest, read_media
from tfdetect.data.media.sniff import MediaError, failure_reason
from tfdetect.data.worker_pool import WorkerFailure
from tfdetect.files import atomic_write, write_arrays, write_json
from tfdetect.limits import Decoding, Limits

MAX_HEADER = 256  # bytes; upper bound for the header of a .npy file


@dataclass(frozen=True)
class ClipSpec:
    """How a file becomes a clip: `frames`, spaced evenly or at `fps`, of the whole image or of a face, each made into one or more
    squares of size x size pixels by `fit`. To everything that reads the clip, each square is a frame of it."""

    frames: int
    size: int
    fps: float | None = None
    still: bool = False  # repeat the frame of an image `frames` times, for detectors that take clips
    faces: FaceSettings | None = None
    limits: Limits = field(default_factory=Limits)
    plan: Plan | None = None  # how the training files were equalised; other files are equalised the same way first
    fit: Fit = SQUEEZE
    decoding: Decoding = field(default_factory=Decoding)

    @property
    def key(self) -> str:
        """The settings that determine the pixels and verdicts, as a folder name."""
        rate = "" if self.fps is None else f"-{self.fps:g}fps"
        plan = f"-{'x'.join(f'{value:g}' for value in asdict(self.plan).values())}" if self.plan else ""
        faces = f"-{self.faces.key}" if self.faces else ""
        return f"{self.frames}x{self.size}{rate}{self.fit.key}{faces}{plan}{self.decoding.key}"

    @property
    def max_squares(self) -> int:
        """The largest number of squares of a video."""
        return self.frames * self.fit.crops

    def read(self, path: str | Path) -> Media:
        """Decode the clip of a file; an image has one frame. Raises MediaError or OSError."""
        if self.plan:
            with equalised_copy(path, self.plan, self.limits, self.decoding) as copy:
                return replace(self, plan=None).read(copy)
        if self.faces is None:
            return read_media(path, self.frames, self.fps, self.size, self.limits, fit=self.fit, decoding=self.decoding)
        faces = FaceTracker(self.faces, self.size, self.fit)
        return faces.to_clip(read_media(path, self.frames, self.fps, self.size, self.limits, faces.add_frame, self.fit,
                                        self.decoding, faces.restart))  # fmt: skip

    def try_read(self, item: tuple[int, str]) -> Media | WorkerFailure:
        """Read the path in (number, path), as a task for `worker_pool.map_unordered`; return a failure on error."""
        try:
            return self.read(item[1])
        except (MediaError, OSError) as error:
            return WorkerFailure(failure_reason(error))

    def repeat_count(self, frames: int) -> int:
        """Return how many times a clip with `frames` frames is repeated for the detector."""
        return self.frames if self.still and frames == 1 else 1

    def extend_note(self, note: str, frames: int) -> str:
        """Return the note of a clip with `frames` frames, with a remark if its frame is repeated."""
        times = self.repeat_count(frames)
        return "; ".join(filter(None, (note, f"a still image: its one frame is repeated {times} times" if times > 1 else "")))


@dataclass(frozen=True)
class Cache:
    """A folder of clips decoded with one `ClipSpec`."""

    root: Path
    spec: ClipSpec
    kind: Literal["npy", "tfrecord"] = "npy"

    @property
    def folder(self) -> Path:
        """The folder of the clips with this spec, below `root`."""
        return self.root / f"v{READER_VERSION}-{self.kind}-{self.spec.key}"

    def clip_path(self, sha: str) -> Path:
        """Return the path of the frames of the file with this SHA-256."""
        return self.folder / sha[:2] / f"{sha}.{self.kind}"

    def decode_file(self, path: str) -> dict[str, Any]:
        """Decode a file unless the cache has it, and return {"sha", "frames", "width", "height", "note", "error"}.

        A file that cannot be decoded has its reason under "error", which is remembered together with the limits in
        force. A file that cannot be opened (missing, no permission) has a reason as well, but is tried again next time.
        Raises OSError if the cache cannot be written.
        """
        try:
            sha = digest(path)
        except (MediaError, OSError) as error:
            return failure_result("", failure_reason(error))
        result_path = self.clip_path(sha).with_suffix(".json")
        known = self.load_result(result_path)
        if known is not None and (known.get("error") or self.is_complete(sha, known.get("frames", -1))):
            return {"sha": sha, **known}
        try:
            clip = self.spec.read(path)
        except MediaError as error:
            result = failure_result(sha, str(error))
        except OSError as error:
            return failure_result(sha, failure_reason(error))
        else:
            self.write_clip(sha, path, clip)
            result = {"sha": sha, "frames": len(clip.frames), "width": clip.width, "height": clip.height,
                      "note": clip.note, "error": ""}  # fmt: skip
        self.save_result(result_path, result)
        return result

    def is_complete(self, sha: str, frames: int) -> bool:
        """Return whether the clip exists at its full length of `frames` frames; a full disk may have truncated it."""
        try:
            length = os.path.getsize(self.clip_path(sha))
        except OSError:
            return False
        pixels = frames * self.spec.size**2 * 3
        return 0 < length - pixels <= MAX_HEADER if self.kind == "npy" else length > 0

    def save_result(self, result_path: Path, result: Mapping[str, Any]) -> None:
        """Write the .json file of a clip; a failure is saved with the limits in force."""
        limits = {"limits": asdict(self.spec.limits)} if result["error"] else {}
        write_json(result_path, {key: value for key, value in result.items() if key != "sha"} | limits)

    def load_result(self, result_path: Path) -> dict[str, Any] | None:
        """Return a saved result without its hash; None if there is none, or if it is a failure under other limits."""
        try:
            known = json.loads(result_path.read_bytes())
        except (FileNotFoundError, ValueError):  # missing or damaged
            return None
        return known if known.pop("limits", None) in (None, asdict(self.spec.limits)) else None

    def write_clip(self, sha: str, path: str, clip: Media) -> None:
        """Write the frames of the file at `path`."""
        if self.kind == "npy":
            write_arrays(self.clip_path(sha), clip.frames)
            return
        from tfdetect.data.media.tf_decode import write_record  # imported here because it imports TensorFlow

        with atomic_write(self.clip_path(sha)) as temporary:
            write_record(temporary, None if self.spec.faces or self.spec.plan else path, clip.frames, self.spec.limits)

    def load(self, sha: str) -> np.ndarray:
        """Return a clip as detectors see it, (frames, size, size, 3) uint8 RGB; a .npy file is memory-mapped."""
        if self.kind == "npy":
            clip = np.load(self.clip_path(sha), mmap_mode="r")
        else:
            from tfdetect.data.media.tf_decode import read_record

            clip = read_record(os.fsencode(self.clip_path(sha)), self.spec.size, self.spec.fit).numpy()
        return np.repeat(clip, times, axis=0) if (times := self.spec.repeat_count(len(clip))) > 1 else clip

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON-compatible values."""
        return {"kind": self.kind, **asdict(self.spec)}


def failure_result(sha: str, reason: str) -> dict[str, Any]:
    """Return the result of `Cache.decode_file` for a file that failed; `sha` is "" if the file could not be opened."""
    return {"sha": sha, "frames": 0, "width": 0, "height": 0, "note": "", "error": reason}
