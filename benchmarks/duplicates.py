"""How well near duplicates are told from different pictures: python benchmarks/duplicates.py DIR [--count 200]

Every picture of the folder is compared with every other: pairs taken for one are listed, to be looked at. Then some of them are
changed in ways that copies on the web are, and counted where the change is seen through.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, installed or not

from tfdetect.data.audit import duplicates, properties
from tfdetect.data.layouts import tree
from tfdetect.data.media.read import read_image
from tfdetect.data.media.sniff import IMAGE_EXTENSIONS, is_media


def scaled(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return lambda frame: cv2.resize(frame, None, fx=factor, fy=factor, interpolation=kind)


def cropped(part: float) -> Callable[[np.ndarray], np.ndarray]:
    def crop(frame: np.ndarray) -> np.ndarray:
        rows, columns = (max(int(side * part), 1) for side in frame.shape[:2])
        return frame[rows:-rows, columns:-columns]

    return crop


CHANGES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "JPEG quality 30": (lambda frame: frame, 30),
    "JPEG quality 10": (lambda frame: frame, 10),
    "half size": (scaled(0.5), 90),
    "double size": (scaled(2), 90),
    "brighter by 20": (lambda frame: cv2.add(frame, (20, 20, 20, 0)), 90),
    "gamma 0.7": (lambda frame: (255 * (frame / 255.0) ** 0.7).astype(np.uint8), 90),
    "blur of 3 pixels": (lambda frame: cv2.GaussianBlur(frame, (0, 0), 3), 90),
    "grey": (lambda frame: frame.mean(axis=2, keepdims=True).repeat(3, axis=2).astype(np.uint8), 90),
    "2 % cropped off each side": (cropped(0.02), 90),
    "5 % cropped off each side": (cropped(0.05), 90),
    "mirrored": (lambda frame: frame[:, ::-1], 90),
}


def main(path: Annotated[Path, tyro.conf.Positional], count: int = 200, workers: int = 2) -> None:
    """Measure on the images in a folder."""
    paths = [str(file) for file in sorted(tree.walk_media(path)) if is_media(file) and file.suffix.lower() in IMAGE_EXTENSIONS]
    whole = looked_at(paths, workers)
    table, found = whole
    good = np.flatnonzero((found["error"] == "").to_numpy())
    same = duplicates.find_near_pairs(found, good, np.arange(len(table)))
    print(f"{len(good)} pictures, {len(good) * (len(good) - 1) // 2} pairs, {len(same)} taken for one picture:")
    for one, other in sorted(same):
        print(f"  {table['path'][one]}  {table['path'][other]}")
    chosen = [paths[i] for i in good[:: max(len(good) // count, 1)]]
    print(f"Of {len(chosen)} pictures, changed and seen through:")
    for name, (change, quality) in CHANGES.items():
        print(f"  {name:28} {seen_through(chosen, change, quality, workers):6.1%}")


def looked_at(paths: list[str], workers: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    table = pd.DataFrame({"path": paths})
    return table, properties.collect(table, workers)


def seen_through(paths: list[str], change: Callable[[np.ndarray], np.ndarray], quality: int, workers: int) -> float:
    """The part of the pictures that is found again after a change."""
    with tempfile.TemporaryDirectory() as folder:
        copies = [f"{folder}/{i}.jpg" for i in range(len(paths))]
        for path, copy in zip(paths, copies, strict=True):
            frame = np.ascontiguousarray(change(read_image(path).frames[0]))
            cv2.imwrite(copy, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        _, found = looked_at([*paths, *copies], workers)
    pairs = duplicates.find_near_pairs(found, np.arange(len(found)), np.arange(len(found)))
    return float(np.mean([(i, i + len(paths)) in pairs for i in range(len(paths))]))


if __name__ == "__main__":
    tyro.cli(main)
