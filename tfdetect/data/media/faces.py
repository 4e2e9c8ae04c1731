"""Frames -> one face, followed through them and cut out of the native pixels.

YuNet (Wu, Peng and Yu, Machine Intelligence Research 2023) finds faces in each frame as it is decoded, their crops are kept
at the clip's size, and when all frames are in, crops that overlap are linked: one identity stays one clip. The crop is a
square within the frame, moved and if need be shrunk to fit: padding would add pixels that no camera and no generator made.
"""

import hashlib
import http.client
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tfdetect.data.media.frames import Media, resize
from tfdetect.data.media.sniff import MediaError
from tfdetect.errors import UserError
from tfdetect.files import write_bytes

# The commit is part of the address, so that it stays the file of this hash, which the repository's LFS pointer states.
URL = ("https://media.githubusercontent.com/media/opencv/opencv_zoo/f12e12798e8314f7c074a6656816c048dcc95b7a/"
       "models/face_detection_yunet/face_detection_yunet_2023mar.onnx")  # fmt: skip
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
MAX_BYTES = 10_000_000  # of what the address sends; the model has 232,589

LOOKS = (640, 200)  # longer side in pixels of the picture that is searched; see docs/faces.md for what was measured
LARGE = 300  # pixels of a face in the first picture, beyond which YuNet's boxes become wrong, so that the second is better
SMALLEST = 128  # smaller pictures are enlarged to this: a thumbnail's face is too small for YuNet
WEAK = 0.5  # a face seen this surely continues a track that is sure of itself in another frame
REACH = 2.0  # crops are linked by the overlap of squares so many times as wide: between frames far apart a head moves on
OVERLAP = 0.2  # intersection over union of those from which they show the same face
MOST = 5  # largest faces of a frame whose crops are kept


@dataclass(frozen=True)
class FaceSettings:
    """How a face is found and cut out. Picklable: each process makes a detector of its own."""

    model_path: Path
    sha256: str
    margin: float = 1.3  # side of the crop, in longer sides of the face's box
    score: float = 0.7  # 0..1, which a face has to reach in one frame at least

    @classmethod
    def of(cls, path: Path) -> "FaceSettings":
        """The settings for that model. ValueError where OpenCV finds no YuNet in the file, OSError where it is unreadable."""
        found = cls(path, _hash(path.read_bytes()))
        try:
            detect(np.zeros((SMALLEST, SMALLEST, 3), np.uint8), found)
        except cv2.error as error:
            reason = " ".join(str(error.err).split())
            raise UserError(f"{path} is no YuNet face model that OpenCV {cv2.__version__} can run ({reason}).") from None
        return found

    @property
    def key(self) -> str:
        """What decides the crops, for the name of a folder."""
        return f"yunet-{self.sha256[:8]}-{self.margin:g}-{self.score:g}"


def model_path(path: Path | None, cache_dir: Path) -> Path:
    """The model's file: `path` as it is, or else the official one, fetched into `cache_dir` on first use.

    Raises ValueError, which says what to put where, if there is no such file, it cannot be fetched or its hash is wrong.
    """
    if path is not None:
        if not path.is_file():
            raise UserError(f"There is no face model {path}; --data.face_model must name YuNet's ONNX file.")
        return path
    kept = cache_dir / URL.rpartition("/")[2]
    mend = f"fetch {URL}, save it as {kept}, or name a YuNet file of yours by --data.face_model."
    content = kept.read_bytes() if kept.exists() else _fetch(mend)
    if (found := _hash(content)) != SHA256:
        raise UserError(f"The face model has the SHA-256 {found}, {SHA256} was expected: {mend}")
    if not kept.exists():
        write_bytes(kept, content)
    return kept


def _fetch(mend: str) -> bytes:
    try:
        with urllib.request.urlopen(URL, timeout=30) as answer:
            return bytes(answer.read(MAX_BYTES))
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"The face model cannot be fetched ({getattr(error, 'reason', error)}): {mend}") from None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@lru_cache(maxsize=1)
def _detector(path: Path, sha256: str) -> Any:
    """One for each process. ValueError, which ends a run, where the file is not the one that the settings were made for."""
    try:
        found = _hash(path.read_bytes())
    except OSError as error:
        raise UserError(f"The face model {path} cannot be read: {error.strerror}.") from error
    if found != sha256:
        raise UserError(f"The face model {path} has the SHA-256 {found}, {sha256} was expected: put the former file there.")
    cv2.utils.logging.setLogLevel(0)  # OpenCV 5 warns of a default of its own
    try:
        return cv2.FaceDetectorYN.create(str(path), "", (SMALLEST, SMALLEST), score_threshold=0.1, nms_threshold=0.3)
    except cv2.error as error:
        raise UserError(f"The face model {path} is no ONNX file that OpenCV reads; expected YuNet's.") from error


def detect(frame: np.ndarray, settings: FaceSettings) -> np.ndarray:
    """Faces in a (height, width, 3) uint8 RGB frame: (faces, 5) left, top, width, height in its pixels, and score 0..1."""
    longer = max(frame.shape[:2])
    first = _detect_at(frame, LOOKS[0], settings)
    face = max(first, key=lambda row: row[4], default=np.zeros(5))
    large = max(face[2:4]) * min(1, LOOKS[0] / longer) > LARGE
    if longer <= LOOKS[1] or (face[4] >= settings.score and not large):
        return first
    second = _detect_at(frame, LOOKS[1], settings)
    return second if _surest(second) >= settings.score else max(first, second, key=_surest)


def _detect_at(frame: np.ndarray, longer: int, settings: FaceSettings) -> np.ndarray:
    """`detect` in a copy whose longer side has at most `longer` pixels."""
    height, width = frame.shape[:2]
    scale = min(max(height, width, SMALLEST), longer) / max(height, width)
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = cv2.resize(frame, small, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    detector = _detector(settings.model, settings.sha256)
    detector.setInputSize(small)
    rows = detector.detect(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    found = np.zeros((0, 5)) if rows is None else rows[:, [0, 1, 2, 3, 14]].astype(float)
    found[:, :4] *= (width / small[0], height / small[1]) * 2
    return found[np.isfinite(found).all(axis=1) & (found[:, 2:4] > 0).all(axis=1)]


def _surest(found: np.ndarray) -> float:
    return float(found[:, 4].max(initial=0.0))


Square = tuple[float, float, float]  # x and y of its centre, and its side, in pixels of the frame


@dataclass(frozen=True)
class FaceDetection:
    """One face in one frame."""

    square: Square  # the crop as it would be in an endless frame
    area: float  # of the face's box, native pixels
    score: float  # 0..1
    crop: np.ndarray  # (size, size, 3) uint8 RGB


Track = dict[int, FaceDetection]  # position of the frame -> the face in it


@dataclass
class FaceTracker:
    """Looks at the frames of one file, then makes the clip of its face of them."""

    settings: FaceSettings
    size: int  # pixels, of a crop's side
    sights: dict[int, list[FaceDetection]] = field(default_factory=dict, init=False)  # by position of the frame
    best: float = field(default=0.0, init=False)  # score of the surest face, or what came nearest to one

    def look(self, position: int, frame: np.ndarray) -> None:
        """Find the faces of a native (height, width, 3) uint8 RGB frame; a second look at a position replaces the first."""
        found = detect(frame, self.settings)
        self.best = max(self.best, _surest(found))
        large = sorted(found[found[:, 4] >= min(WEAK, self.settings.score)], key=lambda row: -row[2] * row[3])[:MOST]
        self.sights[position] = [self.sight(frame, *map(float, row)) for row in large]

    def sight(self, frame: np.ndarray, left: float, top: float, width: float, height: float, score: float) -> FaceDetection:
        square = (left + width / 2, top + height / 2, self.settings.margin * max(width, height))
        crop = np.array(resize(crop_square(frame, square), self.size))  # a copy: a view would keep the whole frame in memory
        return FaceDetection(square, width * height, score, crop)

    def clip(self, found: Media) -> Media:
        """`found` with the crops of its largest face as frames, the nearest one where it is not seen; the note says how often.

        Largest by the sum over all frames. Raises media.MediaError where no face is sure enough.
        """
        tracks = [track for track in link_tracks(self.sights) if max(s.score for s in track.values()) >= self.settings.score]
        if not tracks:
            near = int(self.best * 100) / 100  # rounded it might read as enough
            raise MediaError(f"no face found (largest detection score {near}, {self.settings.score} needed)")
        track = max(tracks, key=lambda track: sum(sight.area for sight in track.values()))
        shown = self.positions(found)
        seen = [n for n, position in enumerate(shown) if position in track]
        nearest = [min(seen, key=lambda k: abs(k - n)) for n in range(len(shown))]
        note = f"no face in {len(shown) - len(seen)} of {len(shown)} frames" if len(seen) < len(shown) else ""
        crops = np.stack([track[shown[n]].crop for n in nearest])
        return replace(found, frames=crops, note="; ".join(filter(None, (found.note, note))))

    def positions(self, found: Media) -> list[int]:
        """The position that `look` was told for each frame of the clip: both ascend, but count from other frames in a damaged
        video. A clip may repeat frames."""
        indices, looked = sorted(set(found.indices)), sorted(self.sights)
        if len(indices) != len(looked):
            raise ValueError(f"{len(looked)} frames were searched for faces, {len(indices)} were read: look at each one once.")
        return [dict(zip(indices, looked, strict=True))[index] for index in found.indices]


def crop_square(frame: np.ndarray, square: Square) -> np.ndarray:
    """The square out of a (height, width, 3) frame: shrunk to its shorter side, then moved until all of it is in the frame."""
    height, width = frame.shape[:2]
    side = max(1, min(round(square[2]), height, width))
    left = min(max(round(square[0] - side / 2), 0), width - side)
    top = min(max(round(square[1] - side / 2), 0), height - side)
    return frame[top : top + side, left : left + side]


def link_tracks(sights: Mapping[int, Sequence[FaceDetection]]) -> list[Track]:
    """Join the faces of all frames to tracks: in each frame, the pair of track and face that overlaps most comes first.

    A track waits for its face as long as it takes, at the place where it was seen last.
    """
    tracks: list[Track] = []
    for position in sorted(sights):
        faces = dict(enumerate(sights[position]))
        pairs = sorted(((square_iou(list(track.values())[-1].square, face.square), t, f)
                        for t, track in enumerate(tracks) for f, face in faces.items()), reverse=True)  # fmt: skip
        for shared, t, f in pairs:
            if shared >= OVERLAP and f in faces and position not in tracks[t]:
                tracks[t][position] = faces.pop(f)
        tracks += [{position: face} for face in faces.values()]
    return tracks


def square_iou(one: Square, other: Square) -> float:
    """Intersection over union, 0..1, of two squares, each made REACH times as wide."""
    wide, wider = REACH * one[2], REACH * other[2]
    across, down = (max(min((wide + wider) / 2 - abs(one[k] - other[k]), wide, wider), 0.0) for k in (0, 1))
    return across * down / (wide**2 + wider**2 - across * down)
