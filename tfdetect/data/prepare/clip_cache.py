"""Decoded clips on disk, keyed by file content and settings, so that no content is decoded twice with the same settings.

`<cache>/<settings>/` holds the frames of many files in each of its shards (`shards.py`), and an index of them (`clip_index.py`).
File names are only in the index, labels only in the manifest.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from tfdetect.data.audit import properties, property_cache
from tfdetect.data.equalise import Plan, equalised_copy
from tfdetect.data.media.faces import FaceSettings, FaceTracker
from tfdetect.data.media.frames import SQUEEZE, Fit, Media, to_squares
from tfdetect.data.media.read import DECODER_ERRORS, READER_VERSION, digest, read_media
from tfdetect.data.media.sniff import MediaError, failure_reason
from tfdetect.data.prepare import clip_index, shards
from tfdetect.data.prepare.clip_index import Clip, ClipIndex
from tfdetect.data.prepare.shards import ClipWriter
from tfdetect.data.worker_pool import WorkerFailure
from tfdetect.limits import Decoding, Limits
from tfdetect.stages import stage

CLIP_FIELDS = Clip._fields[3:]  # what the result of a file says of its clip
FACES = "faces"  # with --data.faces all: where the faces of a file are, as JSON of a list of `frames.Face`
MAX_OPEN = 256  # shards that a reader keeps open


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
    def squares(self) -> int:
        """The largest number of squares of a video, or of one face in it."""
        return self.frames * self.fit.crops

    @property
    def max_squares(self) -> int:
        """The largest number of squares of a video, with all faces."""
        return self.squares * (self.faces.most if self.faces else 1)

    @property
    def all_faces(self) -> bool:
        """Whether a file has a clip for each of its faces."""
        return bool(self.faces and self.faces.most > 1)

    def read(self, path: str | Path, viewer: "MiddleFrame | None" = None) -> Media:
        """Decode the clip of a file, whose native frames `viewer` sees; an image has one frame. Raises MediaError or OSError."""
        if self.plan:
            with equalised_copy(path, self.plan, self.limits, self.decoding) as copy:
                return replace(self, plan=None).read(copy, viewer)
        faces = FaceTracker(self.faces, self.size, self.fit) if self.faces else None
        viewers: list[FaceTracker | MiddleFrame] = [each for each in (faces, viewer) if each]

        def add_frame(position: int, frame: np.ndarray) -> None:
            for each in viewers:
                each.add_frame(position, frame)

        def restart() -> None:
            for each in viewers:
                each.restart()

        media = read_media(path, self.frames, self.fps, self.size, self.limits, add_frame, self.fit, decoding=self.decoding,
                           on_restart=restart)  # fmt: skip
        return faces.to_clip(media) if faces else media

    def of_native(self, media: Media) -> Media:
        """Return the clip of frames that were read at native size, as `read` makes it of a file that is not equalised.

        Raises MediaError if no face is found where one is needed.
        """
        faces = FaceTracker(self.faces, self.size, self.fit) if self.faces else None
        squares = {}
        for index, frame in zip(media.indices, media.frames, strict=True):
            if index not in squares:
                squares[index] = to_squares(frame, self.size, self.fit)
                if faces:
                    faces.add_frame(index, frame)
        clip = replace(media, frames=np.concatenate([squares[index] for index in media.indices]))
        return faces.to_clip(clip) if faces else clip

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
class Decoded:
    """A file as a worker process has read it: what the index will say of it, and its pixels, unless it failed or is cached."""

    result: dict[str, Any]
    """The fields sha, error, CLIP_FIELDS and, with all faces, FACES."""
    payload: np.ndarray | bytes | None = None
    """The frames (frames, size, size, 3) uint8 RGB, or a TFRecord; of all faces in turn."""
    facts: str | None = None
    """The properties of the file by which shortcuts are found, as JSON; None if they are to be measured when they are needed."""


class MiddleFrame:
    """Keep the middle of the frames that are added, or the last if there are fewer than expected."""

    def __init__(self, expected: int):
        self.expected = expected
        self.restart()

    def restart(self) -> None:
        """Forget the frames, which will be added again."""
        self.left, self.frame = self.expected // 2, np.empty((0, 0, 3), np.uint8)

    def add_frame(self, position: int, frame: np.ndarray) -> None:
        """Look at a frame (height, width, 3) uint8 RGB."""
        self.frame = frame if self.left >= 0 else self.frame
        self.left -= 1


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

    def writer(self) -> ClipWriter:
        """Return a context manager to add clips with."""
        return ClipWriter(self.folder, self.kind, self.spec.size)

    def decode_file(self, path: str) -> Decoded:
        """Decode a file unless the cache has its content. A file that cannot be read has its reason under "error"; if it cannot
        even be opened (missing, no permission), its hash is ""."""
        try:
            sha = digest(path)
        except (MediaError, OSError) as error:
            return Decoded(failure_result("", failure_reason(error)))
        with ClipIndex(self.folder).open() as connection:
            if known := self.find_result(connection, sha):
                return Decoded(known)
        middle = MiddleFrame(self.spec.frames)
        try:
            clip = self.spec.read(path, middle)
        except MediaError as error:
            return Decoded(failure_result(sha, str(error)))
        except OSError as error:
            return Decoded(failure_result("", failure_reason(error)))
        decoded_frames = clip.total if clip.decoded is None else clip.decoded
        found = Clip(0, 0, 0, len(clip.clips[0]), clip.width, clip.height, clip.note, decoded_frames, clip.total)  # no place yet
        faces = json.dumps(clip.faces) if clip.faces else ""
        return Decoded(clip_result(sha, found, faces), self.encode(path, clip.clips), self._facts(path, clip, middle.frame))

    def find_result(self, connection: sqlite3.Connection, sha: str) -> dict[str, Any] | None:
        """Return the result of the file with this hash, None unless the cache has its clip, or those of all its faces."""
        faces = clip_index.find_faces(connection, sha) if self.spec.all_faces else ""
        count = len(json.loads(faces)) if faces else 1
        clips = [clip_index.find_clip(connection, clip_index.clip_of_face(sha, number)) for number in range(count)]
        if all(clip and shards.is_complete(self.folder, self.kind, clip) for clip in clips) and clips[0]:
            return clip_result(sha, clips[0], faces)
        return None

    @stage("describe")
    def _facts(self, path: str, clip: Media, frame: np.ndarray) -> str | None:
        if self.spec.plan:  # the frame is that of an equalised copy
            return None
        # A whole frame that was made smaller need not be made smaller again, which took a third of the time of large photographs.
        is_whole = self.spec.fit.mode == "squeeze" and not self.spec.faces
        small = clip.frames[len(clip.frames) // 2] if is_whole else properties.shrink(frame)
        try:
            return json.dumps(properties.describe_decoded(path, clip, frame, small), default=property_cache.encode)
        except (MediaError, OSError, ValueError, *DECODER_ERRORS):  # from a header, because the pixels were read
            return None

    def facts(self, shas: Iterable[str]) -> list[dict[str, Any] | None]:
        """Return the properties of the files with these hashes, as `properties.describe_decoded` does, None where it has none."""
        with ClipIndex(self.folder).open() as connection:
            texts = [clip_index.find_facts(connection, sha) for sha in shas]
        return [json.loads(text, object_hook=property_cache.decode_array) if text else None for text in texts]

    def encode(self, path: str, clips: Sequence[np.ndarray]) -> np.ndarray | bytes:
        """Return what the cache stores of the file at `path` with these clips, (frames, size, size, 3) uint8 RGB, one or several
        of faces, which have equally many frames."""
        if self.kind == "npy":
            return np.concatenate(clips)
        from tfdetect.data.media.tf_decode import make_record  # imported here because it imports TensorFlow

        origin = None if self.spec.faces or self.spec.plan else path
        return b"".join(make_record(origin, clip, self.spec.limits) for clip in clips)

    def find(self, shas: Iterable[str]) -> set[str]:
        """Return those of the hashes of which there is a clip."""
        with ClipIndex(self.folder).open() as connection:
            found = [(sha, clip_index.find_clip(connection, sha)) for sha in shas]
        return {sha for sha, clip in found if clip and shards.is_complete(self.folder, self.kind, clip)}

    def reader(self, shas: Iterable[str]) -> "ClipReader":
        """Return a reader of the clips with these hashes, as detectors see them."""
        return ClipReader(self, shas)

    def load(self, sha: str) -> np.ndarray:
        """Return a clip as detectors see it, (frames, size, size, 3) uint8 RGB. For many clips, a reader is faster."""
        return self.reader([sha]).load(sha)

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON-compatible values."""
        return {"kind": self.kind, **asdict(self.spec)}


class ClipReader:
    """Read clips by their number among the given hashes. Their places are looked up once; threads may share a reader."""

    def __init__(self, cache: Cache, shas: Iterable[str]):
        self.cache, self.numbers = cache, {sha: number for number, sha in enumerate(dict.fromkeys(shas))}
        with clip_index.ClipIndex(cache.folder).open() as connection:
            self.places = clip_index.locate(connection, self.numbers)
        self._open = lru_cache(MAX_OPEN)(self._open_shard)  # a file that is dropped stays open while another thread reads it

    def _open_shard(self, number: int) -> IO[bytes]:
        return open(shards.shard_path(self.cache.folder, self.cache.kind, number), "rb", 0)

    def read(self, number: int, buffer: Any, skip: int = 0) -> None:
        """Fill a buffer, such as an array, with the bytes of a clip from the byte `skip` on. Raises OSError if they are gone."""
        shard, start, *_ = self.places[number]
        file = self._open(int(shard))  # held, because another thread may have opened the one that is kept
        if os.preadv(file.fileno(), [buffer], int(start) + skip) != len(buffer):
            path = shards.shard_path(self.cache.folder, self.cache.kind, shard)
            raise OSError(f"{path} is shorter than its index says: delete it, and the next training decodes its files again")

    @stage("copy")
    def record(self, number: int) -> bytes:
        """Return the bytes of a clip."""
        data = bytearray(int(self.places[number, 2]))
        self.read(number, data)
        return bytes(data)

    def load(self, sha: str) -> np.ndarray:
        """Return a clip as detectors see it, (frames, size, size, 3) uint8 RGB."""
        number, spec = self.numbers[sha], self.cache.spec
        if self.cache.kind == "npy":
            count = int(self.places[number, 3])
            return self.batch(np.array([number]), count * spec.repeat_count(count))[0]
        from tfdetect.data.media.tf_decode import read_record  # imported here because it imports TensorFlow

        clip = read_record(self.record(number), spec.size, spec.fit).numpy()
        return np.repeat(clip, spec.repeat_count(len(clip)), axis=0)

    @stage("copy")
    def batch(self, numbers: np.ndarray, length: int, frames: np.ndarray | None = None) -> np.ndarray:
        """Return clips of kind npy, (batch, length, size, size, 3) uint8, or with `frames` one frame of each, (batch, 1, ...).

        A clip of fewer frames is repeated.
        """
        size = self.cache.spec.size
        out = np.empty((len(numbers), 1 if frames is not None else length, size, size, 3), np.uint8)
        for row, number in enumerate(numbers):
            count = 1 if frames is not None else int(self.places[number, 3])
            skip = 0 if frames is None else int(frames[row]) * size * size * 3
            self.read(number, out[row, :count].reshape(-1), skip)
            if count < out.shape[1]:
                out[row] = np.repeat(out[row, :count], out.shape[1] // count, axis=0)
        return out


def clip_result(sha: str, clip: Clip, faces: str = "") -> dict[str, Any]:
    """Return the result of a file whose clip, or those of whose faces, are in the cache."""
    found = {"sha": sha, "error": "", **{name: getattr(clip, name) for name in CLIP_FIELDS}}
    return found | ({FACES: faces} if faces else {})


def failure_result(sha: str, reason: str) -> dict[str, Any]:
    """Return the result of a file that failed; `sha` is "" if the file could not be opened."""
    return {"sha": sha, "error": reason, **dict.fromkeys(CLIP_FIELDS, 0), "note": ""}
