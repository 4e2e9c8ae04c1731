"""The remedy for shortcuts: both classes get one crop and one encoding, so that no container tells them apart.

Cropped, never resized: resampling is itself a trace. What the first compression left in the pixels stays; so the quality is the
lowest that nearly all of the JPEG files have, which leaves least of it. docs/audit.md says what cannot be mended.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from tfdetect.data import media, sample
from tfdetect.data.pool import Lost, results
from tfdetect.data.properties import collect
from tfdetect.files import atomic
from tfdetect.limits import Limits

SPARED = 0.1  # of the files of each class, at most, may be too small or too short for the rest; they fail
GRID = 16  # pixels: crops start on the blocks of the first compression, in both classes alike
BEST, WORST = 95, 60  # JPEG qualities at most and at least
MOST = 2**29  # bytes of the frames of one video
Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Plan:
    """What is done to every file."""

    crop: int  # pixels, of a square in the middle
    quality: int  # of JPEG, 4:2:0
    fps: float  # of the frames taken from a video, in a window in its middle, and all then played at one rate; 0 without videos
    frames: int

    def says(self, image: bool) -> str:
        """For the manifest."""
        return f"crop {self.crop}, " + (
            f"jpeg {self.quality}" if image else f"{self.frames} frames at {self.fps:g} a second, h264 qp {sample.QP}"
        )


def equalise(table: pd.DataFrame, folder: Path, workers: int | None = None, progress: Progress | None = None,
             seconds: float | None = None, limits: Limits | None = None) -> pd.DataFrame:  # fmt: skip
    """Write every file of the manifest anew, alike for both classes, into `folder`; files that are there are kept.

    Returns the manifest with `path` of the new file, `original`, `equalised` (what was done) and `error`: a file that cannot be
    read, or is smaller or shorter than the rest, keeps its path and has the reason. `progress` is called twice for each file.
    Raises ValueError where no file can be read.
    """
    found = collect(table, workers, progress, seconds, limits)
    if (found["error"] != "").all():
        first = f"{table['path'].iloc[0]}: {found['error'].iloc[0]}"
        raise ValueError(f"None of the {len(table)} files could be read. The first: {first}")
    plan = planned(found, table["label"])
    todo = [(path, str(folder / _name(path, sha, plan))) for path, sha, error in
            zip(table["path"], found["sha"], found["error"], strict=True) if not error]  # fmt: skip
    done: dict[str, tuple[str, str]] = {}  # path -> (new path, error)
    for (path, new), result in results(todo, Equaliser(plan, limits or Limits()), workers, seconds):
        error = result.reason if isinstance(result, Lost) else result
        done[path] = (path if error else new + _suffix(path), error)
        if progress:
            progress({"error": error})
    errors = [error or done[path][1] for path, error in zip(table["path"], found["error"], strict=True)]
    news = [done[path][0] if path in done else path for path in table["path"]]
    says = ["" if error else plan.says(new.endswith(".jpg")) for new, error in zip(news, errors, strict=True)]
    return table.assign(original=table["path"], path=pd.Series(news, table.index, object), equalised=says, error=errors)


def planned(properties: pd.DataFrame, label: pd.Series) -> Plan:
    """The largest crop, the highest rate and the greatest length that all but SPARED of the files of each class allow."""
    good = properties[properties["error"] == ""]
    label = label[good.index]

    def common(values: pd.Series) -> float:
        """What all but SPARED of each class reach, the lesser of the two; NaN is no value."""
        each = [values[label == kind].dropna() for kind in (0, 1)]
        return float(min((np.quantile(part, SPARED, method="lower") for part in each if len(part)), default=0))

    crop = int(common(good[["width", "height"]].min(axis=1)))
    crop = crop // GRID * GRID or max(crop, 1)
    fps = common(good["fps"])
    frames = int(common(good["duration"]) * fps + 1e-3)
    quality = int(np.clip(common(good["jpeg_quality"]) or BEST, WORST, BEST))
    return Plan(crop, quality, round(fps, 3), max(min(frames, MOST // (3 * crop * crop)), 1) if fps else 0)


def _name(path: str, sha: str, plan: Plan) -> str:
    """By content, plan and path: copies stay files of their own, and what changed is made anew."""
    mark = hashlib.sha256(b"\0".join((sha.encode(), repr(plan).encode(), os.fsencode(path)))).hexdigest()[:32]
    return f"{mark[:2]}/{mark}"


def _suffix(path: str) -> str:
    return ".jpg" if media.kind(path) == "image" else ".mp4"


@dataclass(frozen=True)
class Equaliser:
    """(path, new path without suffix) -> "" or the reason why the file cannot be made like the others."""

    plan: Plan
    limits: Limits = field(default_factory=Limits)

    def __call__(self, item: tuple[str, str]) -> str:
        path, new = item
        try:
            target = Path(new + _suffix(path))
            if not target.exists():
                content = self.image(path) if target.suffix == ".jpg" else self.video(path)
                with atomic(target) as temporary:
                    temporary.write_bytes(content)
        except media.MediaError as error:
            return str(error)
        return ""

    def crop(self, frame: np.ndarray) -> np.ndarray:
        """The middle of a frame, (height, width, 3) uint8, moved to the grid. Raises MediaError where it is too small."""
        height, width = frame.shape[:2]
        if min(height, width) < self.plan.crop:
            raise media.MediaError(f"{width} x {height} pixels, smaller than the {self.plan.crop} of the common crop")
        top, left = ((side - self.plan.crop) // 2 // GRID * GRID for side in (height, width))
        return np.ascontiguousarray(frame[top : top + self.plan.crop, left : left + self.plan.crop])

    def image(self, path: str) -> bytes:
        frame = self.crop(media.read_image(path, limits=self.limits).frames[0])
        options = [cv2.IMWRITE_JPEG_QUALITY, self.plan.quality]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
        return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)[1].tobytes()

    def video(self, path: str) -> bytes:
        plan, frames = self.plan, {}  # type: ignore[var-annotated]
        found = media.read_video(path, plan.frames, plan.fps, 16, self.limits,
                                 lambda at, frame: frames.update({at: self.crop(frame)}))  # fmt: skip
        if (count := len(set(found.indices))) < plan.frames:
            raise media.MediaError(f"{count} frames at {plan.fps:g} a second, fewer than the common {plan.frames}")
        side = plan.crop // 2 * 2  # 4:2:0 needs even sides
        return sample.mp4(np.stack([frames[at] for at in sorted(frames)])[:, :side, :side])
