"""Write self-blended fakes of real photographs and videos as PNG files, for training without fakes (docs/sbi.md).

The largest face of a picture is blended at native size, and the rest of the picture stays as it is. So real and fake files go the
same way through face search, crop and resizing. The content of a file decides the draws: its fakes are the same in every run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tfdetect.data import self_blended
from tfdetect.data.media.faces import FaceSettings, detect_largest, place_square
from tfdetect.data.media.read import READER_VERSION, digest, read_media
from tfdetect.data.media.sniff import MediaError, failure_reason
from tfdetect.data.worker_pool import WorkerFailure, map_unordered
from tfdetect.files import write_bytes
from tfdetect.limits import Decoding, Limits
from tfdetect.pandas_settings import pd

SOURCE = "self-blended"  # of the made fakes in the manifest
FOLDER = "self_blended"  # below the cache folder
VERSION = 1  # of the fakes; increase it when they change
MARGIN = 1.6  # side of the blended square as a multiple of the longer side of the face's box


@dataclass(frozen=True)
class FakeMaker:
    """Makes fakes of a file in a worker process: a call returns the paths of `count` PNG files, or the reason why there are none.

    A video gives fakes of as many frames, spread evenly; a frame without a face gives none.
    """

    root: Path
    count: int
    faces: FaceSettings
    limits: Limits = field(default_factory=Limits)
    decoding: Decoding = field(default_factory=Decoding)

    @property
    def folder(self) -> Path:
        """The folder of the fakes, whose name has everything that decides their pixels."""
        return self.root / FOLDER / f"v{VERSION}-{READER_VERSION}-{self.count}-{self.faces.key}{self.decoding.key}"

    def __call__(self, path: str) -> list[str] | WorkerFailure:
        try:
            sha = digest(path)
            targets = [self.folder / sha[:2] / f"{sha}-{number}.png" for number in range(self.count)]
            if not (made := [str(target) for target in targets if target.exists()]):
                made = self.write(path, targets, int(sha[:15], 16))
        except (MediaError, OSError) as error:
            return WorkerFailure(failure_reason(error))
        return made or WorkerFailure("no face found")

    def write(self, path: str, targets: Sequence[Path], seed: int) -> list[str]:
        """Write those fakes for which there is a face, the first one last, since it marks the others as complete."""
        frames, made = read_media(path, self.count, limits=self.limits, decoding=self.decoding).frames, []
        for number, target in reversed([*enumerate(targets)]):
            if (fake := self.blend(frames[number % len(frames)], (seed, number))) is not None:
                write_bytes(target, cv2.imencode(".png", fake[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())
                made.append(str(target))
        return made

    def blend(self, frame: np.ndarray, seed: tuple[int, int]) -> np.ndarray | None:
        """Return the frame (height, width, 3) uint8 RGB with its largest face blended; None if it has none."""
        if (face := detect_largest(frame, self.faces)) is None:
            return None
        x, y, width, height = face[:4]
        left, top, side = place_square(frame, (x + width / 2, y + height / 2, MARGIN * max(width, height)))
        fake, points, inside = frame.copy(), face[5:].reshape(5, 2) - (left, top), np.s_[top : top + side, left : left + side]
        fake[inside] = self_blended.self_blend(frame[inside], points, seed, recolour_frame=False)
        return fake


def make_fakes(table: pd.DataFrame, maker: FakeMaker, workers: int | None = None, seconds: float | None = None,
               progress: Callable[[dict[str, Any]], None] = lambda result: None) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the rows of the fakes made of the rows of a manifest, in their split and group, and by path why others gave none.

    Existing fakes are kept. `progress` is called once per row. Raises OSError if writing fails.
    """
    made: dict[str, list[str]] = {}
    failures: dict[str, str] = {}
    for path, result in map_unordered(table["path"], maker, workers, seconds):
        if isinstance(result, WorkerFailure):
            failures[path] = result.reason
        else:
            made[path] = sorted(result)
        progress({"error": failures.get(path, "")})
    rows = table[table["path"].isin(list(made))]
    rows = rows.assign(path=rows["path"].map(made), label=1, source=SOURCE).explode("path")
    return rows.drop_duplicates("path").reset_index(drop=True), failures
