"""Measure how reliably near duplicates are found among the images in a folder.

    python benchmarks/duplicates.py DIR [--count 200]

Compare every image with every other and list the pairs that are taken for duplicates: in a folder without duplicates, these are
the false positives. Then edit about `--count` of the images as copies on the web are edited, and print for each edit the share
of copies that are recognised, and of those of which it is certain that both show the same (`shows_the_same`).
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import pandas as pd
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

from tfdetect.data.audit import duplicates, properties
from tfdetect.data.layouts import tree
from tfdetect.data.media.read import read_image
from tfdetect.data.media.sniff import IMAGE_EXTENSIONS, is_media


def scale(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that resizes an image (height, width, 3) uint8 by this factor."""
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return lambda frame: cv2.resize(frame, None, fx=factor, fy=factor, interpolation=interpolation)


def crop(fraction: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that crops this fraction of the side off each edge of an image."""

    def crop_edges(frame: np.ndarray) -> np.ndarray:
        rows, columns = (max(int(side * fraction), 1) for side in frame.shape[:2])
        return frame[rows:-rows, columns:-columns]

    return crop_edges


# name -> edit of an image (height, width, 3) uint8 RGB, JPEG quality of the copy
EDITS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "JPEG quality 30": (lambda frame: frame, 30),
    "JPEG quality 10": (lambda frame: frame, 10),
    "half size": (scale(0.5), 90),
    "double size": (scale(2), 90),
    "brighter by 20": (lambda frame: cv2.add(frame, np.array((20.0, 20, 20, 0))), 90),
    "gamma 0.7": (lambda frame: (255 * (frame / 255.0) ** 0.7).astype(np.uint8), 90),
    "blur of 3 pixels": (lambda frame: cv2.GaussianBlur(frame, (0, 0), 3), 90),
    "grey": (lambda frame: frame.mean(axis=2, keepdims=True).repeat(3, axis=2).astype(np.uint8), 90),
    "2 % cropped off each side": (crop(0.02), 90),
    "5 % cropped off each side": (crop(0.05), 90),
    "mirrored": (lambda frame: frame[:, ::-1], 90),
}


def main(path: Annotated[Path, tyro.conf.Positional], count: int = 200, workers: int = 2) -> None:
    """Measure how reliably near duplicates are found among the images in a folder.

    Args:
        path: Folder of images.
        count: Minimum number of images to edit.
        workers: Number of processes.
    """
    paths = [str(file) for file in sorted(tree.walk_media(path)) if is_media(file) and file.suffix.lower() in IMAGE_EXTENSIONS]
    table = properties.collect(pd.DataFrame({"path": paths}), workers)
    readable = np.flatnonzero((table["error"] == "").to_numpy())
    pairs = duplicates.find_near_pairs(table, readable, np.arange(len(table)))
    print(f"{len(readable)} images, {len(readable) * (len(readable) - 1) // 2} pairs, {len(pairs)} taken for duplicates:")
    for first, second in sorted(pairs):
        certain = duplicates.shows_the_same(*(read_image(paths[row]).frames[:1] for row in (first, second)))
        print(f"  {paths[first]}  {paths[second]}{'  (certain)' if certain else ''}")
    chosen = [paths[i] for i in readable[:: max(len(readable) // count, 1)]]
    print(f"Share of {len(chosen)} edited copies that are recognised, and that are certain:")
    for name, (edit, quality) in EDITS.items():
        recognised, certain = recognised_shares(chosen, edit, quality, workers)
        print(f"  {name:28} {recognised:6.1%} {certain:6.1%}")


def recognised_shares(paths: list[str], edit: Callable[[np.ndarray], np.ndarray], quality: int,
                      workers: int) -> tuple[float, float]:  # fmt: skip
    """Return the share of images whose edited copy, a JPEG file of this quality, is paired with its original; and certainly."""
    with tempfile.TemporaryDirectory() as folder:
        copies = [f"{folder}/{i}.jpg" for i in range(len(paths))]
        for path, copy in zip(paths, copies, strict=True):
            frame = np.ascontiguousarray(edit(read_image(path).frames[0]))
            cv2.imwrite(copy, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        table = properties.collect(pd.DataFrame({"path": [*paths, *copies]}), workers)
        pairs = duplicates.find_near_pairs(table, np.arange(len(table)), np.arange(len(table)))
        found = [(path, copy) for i, (path, copy) in enumerate(zip(paths, copies, strict=True)) if (i, i + len(paths)) in pairs]
        certain = [duplicates.shows_the_same(*(read_image(each).frames[:1] for each in pair)) for pair in found]
    return len(found) / len(paths), sum(certain) / len(paths)


if __name__ == "__main__":
    tyro.cli(main)
