"""Measure in how many files a face is detected, per folder, and how fast.

    python benchmarks/faces.py DIR --face-model FILE [--sheet crops.png]
    python benchmarks/faces.py DIR --face-model FILE --sizes

The first command detects faces as `prepare --data.faces yunet` does. It prints the reason of each file without a face, then per
folder the number of files by outcome and the detection rate, and the files per second; --sheet writes an image of the crops. The
second compares search resolutions on up to 100 photos that are shrunk, padded or enlarged: it prints the share of faces that are
detected and how well their boxes overlap with those in the original photo.
"""

import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

if TYPE_CHECKING:
    import numpy as np

    from tfdetect.data.media.faces import FaceSettings

# name -> side of the central crop as a share of the photo's, side in pixels to which it is resized, width of the padded image
EDITS = {
    **{f"shrunk to {side} x {side}": (1.0, side, side) for side in (24, 32, 48, 64)},
    **{f"{side} x {side} in a frame of 640": (1.0, side, 640) for side in (16, 24, 32, 48, 64)},
    **{f"middle {share:.0%} enlarged to 1024": (share, 1024, 1024) for share in (1.0, 0.8, 0.65, 0.5, 0.4, 0.3)},
}
OUTCOMES = ("face", "in every frame", "no face", "unreadable")


@dataclass(frozen=True)
class Options:
    """Measure in how many files a face is detected, per folder, and how fast."""

    path: tyro.conf.Positional[Path]
    """Folder of images and videos; its subfolders are counted separately."""
    face_model: Path | None = None
    """ONNX file of YuNet; by default it is downloaded into the folder `cache`."""
    frames: int = 8
    """Frames per video."""
    size: int = 256
    """Side of the crops in pixels."""
    workers: int | None = None
    """Number of processes; by default one per core."""
    sheet: Path | None = None
    """Image to write with the crops of up to 24 evenly spaced files: a row per video, or 12 images per row."""
    sizes: bool = False
    """Compare search resolutions on up to 100 photos instead, shrunk, padded and enlarged."""


def main() -> None:
    from tfdetect.data.media.faces import FaceSettings, model_path
    from tfdetect.data.media.frames import evenly_spaced
    from tfdetect.data.media.read import read_media
    from tfdetect.data.media.sniff import is_media

    options = tyro.cli(Options)
    settings = FaceSettings.from_model(model_path(options.face_model, Path("cache")))
    paths = sorted(str(path) for path in options.path.rglob("*") if is_media(path) and path.is_file())
    if not paths:
        sys.exit(f"There is no image or video in {options.path}: name a folder that contains some.")
    if options.sizes:
        compare_resolutions([read_media(paths[n]).frames[0] for n in evenly_spaced(len(paths), min(100, len(paths)))], settings)
    else:
        count_faces(options, paths, settings)


def count_faces(options: Options, paths: list[str], settings: "FaceSettings") -> None:
    """Print the files without a face, the counts of each folder, and the files per second, which include the start of workers."""
    from tfdetect.data.media.frames import evenly_spaced
    from tfdetect.data.prepare.clip_cache import ClipSpec
    from tfdetect.data.worker_pool import WorkerFailure, map_unordered

    spec = ClipSpec(options.frames, options.size, faces=settings)
    counts: dict[str, Counter[str]] = {str(Path(path).parent): Counter() for path in paths}
    sampled, crops, start = {paths[n] for n in evenly_spaced(len(paths), min(24, len(paths)))}, {}, time.perf_counter()
    for (_, path), clip in map_unordered(enumerate(paths), spec.try_read, options.workers, seconds=120):
        row = counts[str(Path(path).parent)]
        if isinstance(clip, WorkerFailure):
            row["no face" if clip.reason.startswith("no face") else "unreadable"] += 1
            print(f"{path}: {clip.reason}")
            continue
        row["face"] += 1
        row["in every frame"] += "no face" not in clip.note
        if options.sheet and path in sampled:
            crops[path] = clip.frames
    seconds = time.perf_counter() - start
    for folder, row in counts.items():
        files = row["face"] + row["no face"] + row["unreadable"]
        print(f"{folder}: {files} files, {', '.join(f'{row[name]} {name}' for name in OUTCOMES)}: {row['face'] / files:.1%}")
    print(f"{len(paths)} files in {seconds:.1f} s, {len(paths) / seconds:.1f} files/s")
    if options.sheet and crops:
        write_sheet([crops[path] for path in sorted(crops)], options.sheet)


def compare_resolutions(photos: list["np.ndarray"], settings: "FaceSettings") -> None:
    """Print for each edit and search resolution the share of photos in which a face is detected, and the mean overlap of its box.

    The overlap is the intersection over union with the box in the unedited photo, clipped to the crop. Photos are squares
    (side, side, 3) uint8 RGB.
    """
    import numpy as np

    from tfdetect.data.media import faces
    from tfdetect.data.media.frames import resize

    searches = {f"at {n}": partial(faces._detect_at, longer_side=n, settings=settings) for n in (640, 320, 200, 160)}
    searches["default"] = partial(faces.detect, settings=settings)
    print(f"{'detected, overlap':32}" + "".join(f"{name:>14}" for name in searches))
    for name, (share, side, width) in EDITS.items():
        cells = []
        for search in searches.values():
            detected, overlaps = [], []
            for photo in photos:
                original = best_box(faces.detect(photo, settings))
                crop_side = round(len(photo) * share)
                start = (len(photo) - crop_side) // 2
                image = resize(photo[start : start + crop_side, start : start + crop_side], side)
                padding = width - side
                box = best_box(search(np.pad(image, ((0, padding * 9 // 16), (0, padding), (0, 0)), mode="edge")))
                expected = (original[:4] - (start, start, 0, 0)) * side / crop_side
                detected.append(box[4] >= settings.score)
                overlaps.append(iou(to_corners(expected, side), to_corners(box[:4], side)))
            cells.append(f"{np.mean(detected):7.0%}  {np.mean(overlaps):.2f}")
        print(f"{name:32}" + "".join(f"{cell:>14}" for cell in cells))


def best_box(boxes: "np.ndarray") -> "np.ndarray":
    """Return the row with the highest score of boxes (faces, 5), or zeros if there is none."""
    import numpy as np

    return max(boxes, key=lambda row: row[4], default=np.zeros(5))


def to_corners(box: "np.ndarray", side: int) -> tuple[float, float, float, float]:
    """Convert a box (left, top, width, height) to (left, top, right, bottom), clipped to a square image of this side."""
    left, top, right, bottom = (min(max(float(v), 0.0), side) for v in (*box[:2], *(box[:2] + box[2:])))
    return left, top, right, bottom


def iou(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Return the intersection over union of two boxes (left, top, right, bottom)."""
    width, height = (max(min(first[i + 2], second[i + 2]) - max(first[i], second[i]), 0) for i in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / max(sum(areas) - width * height, 1e-9)


def write_sheet(clips: list["np.ndarray"], path: Path) -> None:
    """Write one image with all frames of the clips (frames, size, size, 3) uint8 RGB."""
    import cv2
    import numpy as np

    longest = max(len(clip) for clip in clips)
    columns = longest if longest > 1 else 12
    rows: list[list[np.ndarray]] = [[]]
    for clip in clips:
        rows = rows if len(rows[-1]) + len(clip) <= columns else [*rows, []]
        rows[-1] += list(clip)
    blank = [np.zeros_like(clips[0][0])]
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = np.concatenate([np.concatenate(row + blank * (columns - len(row)), axis=1) for row in rows])
    cv2.imwrite(str(path), sheet[..., ::-1])


if __name__ == "__main__":
    main()
