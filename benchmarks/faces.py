"""In how many files a face is found, for each folder, and how fast: python benchmarks/faces.py DIR --face-model FILE"""

import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, installed or not

if TYPE_CHECKING:
    import numpy as np

    from tfdetect.data.media.faces import FaceSettings

# name -> middle part of the photo that is taken, side in pixels to which it is resized, width of the 16:9 frame it is put in
CHANGES = {
    **{f"shrunk to {side} x {side}": (1.0, side, side) for side in (24, 32, 48, 64)},
    **{f"{side} x {side} in a frame of 640": (1.0, side, 640) for side in (16, 24, 32, 48, 64)},
    **{f"middle {share:.0%} enlarged to 1024": (share, 1024, 1024) for share in (1.0, 0.8, 0.65, 0.5, 0.4, 0.3)},
}
OUTCOMES = ("face", "in every frame", "no face", "unreadable")


@dataclass(frozen=True)
class Asked:
    """Count the files with a face, as `prepare --data.faces yunet` would find them."""

    path: tyro.conf.Positional[Path]
    """Folder of images and videos; each folder in it that holds any is a class."""
    face_model: Path | None = None
    """YuNet's ONNX file; without it, it is fetched into the folder cache."""
    frames: int = 8
    """Frames of each video."""
    size: int = 256
    """Pixels of the side of a crop."""
    workers: int | None = None
    """Processes; by default one for each core."""
    sheet: Path | None = None
    """A picture to write, with the crops of up to 24 files, evenly taken: videos a row each, images 12 in a row."""
    sizes: bool = False
    """Instead: how well the face of 100 photos is found when they are made smaller or larger, for each way to search."""


def main() -> None:
    """Count, or compare ways to search."""
    from tfdetect.data.media.faces import FaceSettings, model_path
    from tfdetect.data.media.frames import evenly_spaced
    from tfdetect.data.media.read import read_media
    from tfdetect.data.media.sniff import is_media

    asked = tyro.cli(Asked)
    settings = FaceSettings.from_model(model_path(asked.face_model, Path("cache")))
    paths = sorted(str(path) for path in asked.path.rglob("*") if is_media(path) and path.is_file())
    if not paths:
        sys.exit(f"There is no image or video in {asked.path}.")
    if asked.sizes:
        compare([read_media(paths[n]).frames[0] for n in evenly_spaced(len(paths), min(100, len(paths)))], settings)
    else:
        count(asked, paths, settings)


def count(asked: Asked, paths: list[str], settings: "FaceSettings") -> None:
    """Print a row for each folder, the files without a face, and files a second, the start of the processes included."""
    from tfdetect.data.media.frames import evenly_spaced
    from tfdetect.data.prepare.clip_cache import ClipSpec
    from tfdetect.data.worker_pool import WorkerFailure, map_unordered

    view = ClipSpec(asked.frames, asked.size, faces=settings)
    counts: dict[str, Counter[str]] = {str(Path(path).parent): Counter() for path in paths}
    shown, crops, start = {paths[n] for n in evenly_spaced(len(paths), min(24, len(paths)))}, {}, time.perf_counter()
    for (_, path), clip in map_unordered(enumerate(paths), view.try_read, asked.workers, seconds=120):
        row = counts[str(Path(path).parent)]
        if isinstance(clip, WorkerFailure):
            row["no face" if clip.reason.startswith("no face") else "unreadable"] += 1
            print(f"{path}: {clip.reason}")
            continue
        row["face"] += 1
        row["in every frame"] += "no face" not in clip.note
        if asked.sheet and path in shown:
            crops[path] = clip.frames
    seconds = time.perf_counter() - start
    for folder, row in counts.items():
        files = row["face"] + row["no face"] + row["unreadable"]
        print(f"{folder}: {files} files, {', '.join(f'{row[name]} {name}' for name in OUTCOMES)}: {row['face'] / files:.1%}")
    print(f"{len(paths)} files in {seconds:.1f} s, {len(paths) / seconds:.1f} files/s")
    if asked.sheet and crops:
        draw([crops[path] for path in sorted(crops)], asked.sheet)


def compare(photos: list["np.ndarray"], settings: "FaceSettings") -> None:
    """Print for each change of the photos, and each way to search, in how many the face is found, and how near its box is.

    Near: mean intersection over union with the box in the photo as it is, of the part of it that is still in the picture.
    """
    import numpy as np

    from tfdetect.data.media import faces
    from tfdetect.data.media.frames import resize

    ways = {f"at {n}": partial(faces._detect_at, longer_side=n, settings=settings) for n in (640, 320, 200, 160)}
    ways["as used"] = partial(faces.detect, settings=settings)
    print(f"{'found, box':32}" + "".join(f"{name:>14}" for name in ways))
    for name, (share, side, width) in CHANGES.items():
        cells = []
        for way in ways.values():
            found, near = [], []
            for photo in photos:
                truth = surest(faces.detect(photo, settings))
                k = round(len(photo) * share)
                at = (len(photo) - k) // 2
                picture = resize(photo[at : at + k, at : at + k], side)
                spare = width - side
                row = surest(way(np.pad(picture, ((0, spare * 9 // 16), (0, spare), (0, 0)), mode="edge")))
                found.append(row[4] >= settings.score)
                near.append(shared(clipped((truth[:4] - (at, at, 0, 0)) * side / k, side), clipped(row[:4], side)))
            cells.append(f"{np.mean(found):7.0%}  {np.mean(near):.2f}")
        print(f"{name:32}" + "".join(f"{cell:>14}" for cell in cells))


def surest(found: "np.ndarray") -> "np.ndarray":
    """Of (faces, 5) boxes the one with the highest score, or zeros."""
    import numpy as np

    return max(found, key=lambda row: row[4], default=np.zeros(5))


def clipped(box: "np.ndarray", side: int) -> tuple[float, float, float, float]:
    """(left, top, width, height) -> (left, top, right, bottom) within a picture of that side."""
    left, top, right, bottom = (min(max(float(v), 0.0), side) for v in (*box[:2], *(box[:2] + box[2:])))
    return left, top, right, bottom


def shared(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    both = max(min(one[2], other[2]) - max(one[0], other[0]), 0) * max(min(one[3], other[3]) - max(one[1], other[1]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / max(sum(areas) - both, 1e-9)


def draw(clips: list["np.ndarray"], path: Path) -> None:
    """Clips (frames, size, size, 3) uint8 RGB in one picture."""
    import cv2
    import numpy as np

    longest = max(len(clip) for clip in clips)
    wide = longest if longest > 1 else 12
    rows: list[list[np.ndarray]] = [[]]
    for clip in clips:
        rows = rows if len(rows[-1]) + len(clip) <= wide else [*rows, []]
        rows[-1] += list(clip)
    blank = [np.zeros_like(clips[0][0])]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.concatenate([np.concatenate(row + blank * (wide - len(row)), axis=1) for row in rows])[..., ::-1])


if __name__ == "__main__":
    main()
