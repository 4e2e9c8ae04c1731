"""Find the faces of an image or video, track them through the frames and crop them from the native pixels.

YuNet (Wu, Peng and Yu, Machine Intelligence Research 2023) detects faces in each frame as it is decoded, and their crops are
kept at the clip's size. Once all frames are read, overlapping crops are linked into tracks, so that a clip shows one identity:
the main face of the file, or each of its faces in turn. A crop is a square within the frame, moved and if necessary shrunk to
fit: padding would add pixels that neither a camera nor a generator produced.
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

from tfdetect.data.media.frames import SQUEEZE, Face, Fit, Media, to_squares
from tfdetect.data.media.sniff import MediaError
from tfdetect.errors import UserError
from tfdetect.files import write_bytes
from tfdetect.stages import stage

# The commit in the address pins the file with this hash, which the repository's LFS pointer states.
URL = ("https://media.githubusercontent.com/media/opencv/opencv_zoo/f12e12798e8314f7c074a6656816c048dcc95b7a/"
       "models/face_detection_yunet/face_detection_yunet_2023mar.onnx")  # fmt: skip
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
MAX_BYTES = 10_000_000  # downloaded at most; the model has 232,589

SEARCH_SIDES = (640, 200)  # longer side, in pixels, of the first and second search; docs/faces.md has the measurements
LARGE_FACE = 300  # pixels in the first search; YuNet's boxes of larger faces are inaccurate, so the second search is used
MIN_SEARCH_SIDE = 128  # smaller images are enlarged to this, because YuNet misses the face in a thumbnail
WEAK_SCORE = 0.5  # a face with this score continues a track that reaches the full score in another frame
LINK_SCALE = 2.0  # crops are enlarged by this factor before their overlap is measured, because heads move between frames
MIN_OVERLAP = 0.2  # intersection over union of the enlarged crops from which they show the same face
MAX_FACES = 5  # per frame, among which the main face is looked for; the largest are kept
ALL_FACES = 8  # with --data.faces all: per frame and per file
MIN_SIDE = 24  # pixels; longer side of the box that a face after the main one must reach in a frame (docs/faces.md)


@dataclass(frozen=True)
class FaceSettings:
    """How a face is found and cropped. Picklable; each process loads its own detector."""

    model: Path
    sha256: str
    margin: float = 1.3  # side of the crop as a multiple of the longer side of the face's box
    score: float = 0.7  # 0..1, which a face must reach in at least one frame
    most: int = 1  # faces of a file that become clips

    @classmethod
    def from_model(cls, path: Path, most: int = 1) -> "FaceSettings":
        """Return the settings for that model. Raises UserError if OpenCV cannot run it as YuNet, OSError if it cannot be read."""
        settings = cls(path, _sha256(path.read_bytes()), most=most)
        try:
            detect(np.zeros((MIN_SEARCH_SIDE, MIN_SEARCH_SIDE, 3), np.uint8), settings)
        except cv2.error as error:
            reason = " ".join(str(error.err).split())
            raise UserError(f"{path} is not a YuNet model that OpenCV {cv2.__version__} can run ({reason}). "
                            "--data.face_model must name YuNet's ONNX file.") from None  # fmt: skip
        return settings

    @property
    def key(self) -> str:
        """Everything that decides the crops, as part of a folder name."""
        every = f"-all{self.most}-{MIN_SIDE}" if self.most > 1 else ""
        return f"yunet-{self.sha256[:8]}-{self.margin:g}-{self.score:g}{every}"


def model_path(path: Path | None, cache_dir: Path) -> Path:
    """Return the path to the model: `path` if given, otherwise the official file, downloaded to `cache_dir` on first use.

    Raises UserError if there is no such file, or if it cannot be downloaded or has the wrong hash.
    """
    if path is not None:
        if not path.is_file():
            raise UserError(f"There is no face model {path}. --data.face_model must name YuNet's ONNX file.")
        return path
    cached = cache_dir / URL.rpartition("/")[2]
    hint = f"Download {URL} and save it as {cached}, or name another YuNet file with --data.face_model."
    content = cached.read_bytes() if cached.exists() else _download(hint)
    if (sha256 := _sha256(content)) != SHA256:
        raise UserError(f"The face model has the SHA-256 {sha256}, expected {SHA256}. {hint}")
    if not cached.exists():
        write_bytes(cached, content)
    return cached


def _download(hint: str) -> bytes:
    try:
        with urllib.request.urlopen(URL, timeout=30) as response:
            return bytes(response.read(MAX_BYTES))
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"The face model cannot be downloaded ({getattr(error, 'reason', error)}). {hint}") from None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@lru_cache(maxsize=1)
def _load_detector(path: Path, sha256: str) -> Any:
    """Load the detector once per process. Raises UserError if the file is not the one that the settings were made for."""
    try:
        actual = _sha256(path.read_bytes())
    except OSError as error:
        raise UserError(f"The face model {path} cannot be read: {error.strerror}.") from error
    if actual != sha256:
        raise UserError(f"The face model {path} has changed: its SHA-256 is {actual}, expected {sha256}. Restore the file.")
    cv2.utils.logging.setLogLevel(0)  # OpenCV 5 warns about one of its own defaults
    try:
        size = (MIN_SEARCH_SIDE, MIN_SEARCH_SIDE)
        return cv2.FaceDetectorYN.create(str(path), "", size, score_threshold=0.1, nms_threshold=0.3)
    except cv2.error as error:
        raise UserError(f"The face model {path} is not an ONNX file that OpenCV can read; expected YuNet's.") from error


def detect(frame: np.ndarray, settings: FaceSettings) -> np.ndarray:
    """Detect faces in a (height, width, 3) uint8 RGB frame.

    Returns (faces, 15) float: left, top, width and height in pixels of the frame, the score 0..1, then x and y of five points:
    the eye on the left of the frame, the other eye, the tip of the nose, and the two corners of the mouth.
    """
    longer_side = max(frame.shape[:2])
    first = _detect_at(frame, SEARCH_SIDES[0], settings)
    face = max(first, key=lambda row: row[4], default=np.zeros(15))
    is_large = max(face[2:4]) * min(1, SEARCH_SIDES[0] / longer_side) > LARGE_FACE
    if longer_side <= SEARCH_SIDES[1] or (face[4] >= settings.score and not is_large):
        return first
    second = _detect_at(frame, SEARCH_SIDES[1], settings)
    return second if _best_score(second) >= settings.score else max(first, second, key=_best_score)


def detect_largest(frame: np.ndarray, settings: FaceSettings) -> np.ndarray | None:
    """Return the row of `detect`, (15,) float, of the largest face with the required score; None if there is none."""
    rows = detect(frame, settings)
    return max(rows[rows[:, 4] >= settings.score], key=lambda row: row[2] * row[3], default=None)


def _detect_at(frame: np.ndarray, longer_side: int, settings: FaceSettings) -> np.ndarray:
    """Like `detect`, in a copy whose longer side has at most `longer_side` pixels."""
    height, width = frame.shape[:2]
    scale = min(max(height, width, MIN_SEARCH_SIDE), longer_side) / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    detector = _load_detector(settings.model, settings.sha256)
    detector.setInputSize(size)
    rows = detector.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    boxes = np.zeros((0, 15)) if rows is None else rows[:, [0, 1, 2, 3, 14, *range(4, 14)]].astype(float)
    boxes[:, [0, 1, 2, 3, *range(5, 15)]] *= (width / size[0], height / size[1]) * 7
    return boxes[np.isfinite(boxes).all(axis=1) & (boxes[:, 2:4] > 0).all(axis=1)]


def _best_score(boxes: np.ndarray) -> float:
    return float(boxes[:, 4].max(initial=0.0))


Square = tuple[float, float, float]  # x and y of the centre, and the side, in pixels of the frame


@dataclass(frozen=True)
class FaceDetection:
    """One face in one frame."""

    square: Square  # the crop before it is moved and shrunk to fit into the frame
    box: tuple[float, float, float, float]  # left, top, width and height of the face, in native pixels
    score: float  # 0..1
    crop: np.ndarray  # (size, size, 3) uint8 RGB

    @property
    def area(self) -> float:
        """Of the box."""
        return self.box[2] * self.box[3]


Track = dict[int, FaceDetection]  # frame position -> the face in that frame


@dataclass
class FaceTracker:
    """Collects the faces of one file frame by frame, then builds the clip of its main face, or of up to `settings.most`."""

    settings: FaceSettings
    size: int  # side of a crop in pixels
    fit: Fit = SQUEEZE  # how the square around a face becomes a crop of that size; a single one
    detections: dict[int, list[FaceDetection]] = field(default_factory=dict, init=False)  # by frame position
    best_score: float = field(default=0.0, init=False)  # over all frames, weak detections included
    most_seen: int = field(default=0, init=False)  # faces of a frame that might each become a clip

    @stage("face")
    def add_frame(self, position: int, frame: np.ndarray) -> None:
        """Detect the faces of a native (height, width, 3) uint8 RGB frame; a repeated position replaces the earlier result."""
        boxes = detect(frame, self.settings)
        self.best_score = max(self.best_score, _best_score(boxes))
        faces = boxes[boxes[:, 4] >= min(WEAK_SCORE, self.settings.score)]
        is_sure = (faces[:, 2:4].max(axis=1, initial=0) >= MIN_SIDE) & (faces[:, 4] >= self.settings.score)
        self.most_seen = max(self.most_seen, int(is_sure.sum()))
        largest = sorted(faces, key=lambda row: -row[2] * row[3])[: max(MAX_FACES, self.settings.most)]
        self.detections[position] = [self._crop_face(frame, *map(float, row[:5])) for row in largest]

    def restart(self) -> None:
        """Forget all frames."""
        self.detections.clear()
        self.best_score, self.most_seen = 0.0, 0

    def _crop_face(self, frame: np.ndarray, left: float, top: float, width: float, height: float, score: float) -> FaceDetection:
        square = (left + width / 2, top + height / 2, self.settings.margin * max(width, height))
        crop = to_squares(crop_square(frame, square), self.size, self.fit)[0].copy()  # a view would keep the frame in memory
        return FaceDetection(square, (left, top, width, height), score, crop)

    def to_clip(self, media: Media) -> Media:
        """Return `media` with its frames replaced by crops of the face with the largest area, summed over all frames.

        Frames without this face get its nearest crop, and the note gives their number. If `settings.most` is above 1, crops of
        the other faces follow, and `faces` says where they are. Raises MediaError if no face reaches the required score.
        """
        found, most = self.find_tracks(), self.settings.most
        if not (tracks := found[:most]):
            best = int(self.best_score * 100) / 100  # rounded down, because rounding up might read as sufficient
            raise MediaError(f"no face found (best detection score {best}, {self.settings.score} required)")
        positions = self._frame_positions(media)
        without = sum(position not in tracks[0] for position in positions)
        notes = [media.note, f"no face in {without} of {len(positions)} frames" if without else ""]
        if 1 < most < max(self.most_seen, len(found)):
            notes.append(f"more than {most} faces: only the largest are used")
        crops = np.concatenate([_fill(track, positions) for track in tracks])
        indices = dict(zip(positions, media.indices, strict=True))
        faces = tuple(_largest_box(track, indices) for track in tracks) if most > 1 else ()
        return replace(media, frames=crops, note="; ".join(filter(None, notes)), faces=faces)

    def find_tracks(self) -> list[Track]:
        """Return the faces of the file, the main one first, which does not depend on `settings.most`.

        It is one of the MAX_FACES largest of each frame; the others are only linked among themselves.
        """
        groups = [{position: faces[part] for position, faces in self.detections.items()}
                  for part in (slice(MAX_FACES), slice(MAX_FACES, None))]  # fmt: skip
        found: list[Track] = []
        for tracks in map(link_tracks, groups):
            tracks = [track for track in tracks if max(face.score for face in track.values()) >= self.settings.score]
            found += sorted(tracks, key=lambda track: -sum(face.area for face in track.values()))
        others = [track for track in found[1:] if max(max(face.box[2:]) for face in track.values()) >= MIN_SIDE]
        return [*found[:1], *others]

    def _frame_positions(self, media: Media) -> list[int]:
        """Return the position passed to `add_frame` for each frame of the clip, whose frames may repeat.

        Positions and `media.indices` both ascend, but in a damaged video they number different sets of frames.
        """
        indices, positions = sorted(set(media.indices)), sorted(self.detections)
        if len(indices) != len(positions):
            raise ValueError(f"{len(positions)} frames were searched for faces, but {len(indices)} were read; pass each one once")
        return [dict(zip(indices, positions, strict=True))[index] for index in media.indices]


def _fill(track: Track, positions: Sequence[int]) -> np.ndarray:
    """Return the crop of a face in each of these frames, (frames, size, size, 3); where it is missing, the nearest one."""
    with_face = [n for n, position in enumerate(positions) if position in track]
    nearest = [min(with_face, key=lambda k: abs(k - n)) for n in range(len(positions))]
    return np.stack([track[positions[n]].crop for n in nearest])


def _largest_box(track: Track, indices: Mapping[int, int]) -> Face:
    """Return where a face is at its largest; `indices` are those of the frames in the file, by their position."""
    position = max(track, key=lambda position: track[position].area)
    left, top, width, height = map(round, track[position].box)
    return Face(left, top, width, height, indices[position])


def crop_square(frame: np.ndarray, square: Square) -> np.ndarray:
    """Crop a square from a (height, width, 3) frame: shrunk to the frame's shorter side, then moved inside the frame."""
    left, top, side = place_square(frame, square)
    return frame[top : top + side, left : left + side]


def place_square(frame: np.ndarray, square: Square) -> tuple[int, int, int]:
    """Return left, top and side, in pixels, of the crop that `crop_square` makes."""
    height, width = frame.shape[:2]
    side = max(1, min(round(square[2]), height, width))
    left = min(max(round(square[0] - side / 2), 0), width - side)
    top = min(max(round(square[1] - side / 2), 0), height - side)
    return left, top, side


def link_tracks(detections: Mapping[int, Sequence[FaceDetection]]) -> list[Track]:
    """Link the faces of all frames into tracks; in each frame, the pair of track and face with the largest overlap comes first.

    A track without a face in some frames may be continued at the place where the face was last seen.
    """
    tracks: list[Track] = []
    for position in sorted(detections):
        faces = dict(enumerate(detections[position]))
        pairs = sorted(((square_iou(list(track.values())[-1].square, face.square), t, f)
                        for t, track in enumerate(tracks) for f, face in faces.items()), reverse=True)  # fmt: skip
        for iou, t, f in pairs:
            if iou >= MIN_OVERLAP and f in faces and position not in tracks[t]:
                tracks[t][position] = faces.pop(f)
        tracks += [{position: face} for face in faces.values()]
    return tracks


def square_iou(first: Square, second: Square) -> float:
    """Return the intersection over union, 0..1, of two squares, each enlarged by LINK_SCALE."""
    side, other = LINK_SCALE * first[2], LINK_SCALE * second[2]
    across, down = (max(min((side + other) / 2 - abs(first[k] - second[k]), side, other), 0.0) for k in (0, 1))
    return across * down / (side**2 + other**2 - across * down)
