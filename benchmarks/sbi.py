"""Swap faces between the real test photographs of a run, to judge it on fakes that are unlike its training's.

    python benchmarks/sbi.py saved_models/RUN --out swaps
    tfdetect evaluate saved_models/RUN --data.path swaps [--data.corrupt "video(23)"]

Each face goes to the next photograph: shrunk to 64 to 160 pixels, as face swappers' networks have them, laid over the five
landmarks of the other face by a similarity, and blended in with OpenCV's Poisson blending. No network draws anything, so this is
easier or harder than real swaps in unknown ways: it tells whether borders are found that are not those of the training.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

import cv2
import numpy as np
import tyro

from tfdetect.artifact import Artifact
from tfdetect.data import manifest, self_blended
from tfdetect.data.media.faces import FaceSettings, detect_largest
from tfdetect.data.media.read import read_media

INNER_FACE = (*self_blended.JAW, *self_blended.BROWS)


def main(run: tyro.conf.Positional[Path], out: Path, seed: int = 0) -> None:
    """Swap faces between the real test photographs of a run.

    Args:
        run: Folder of a run that was trained with --data.faces yunet.
        out: Folder to write real/ and fake/ to, as PNG.
        seed: Random seed of the resolutions.
    """
    artifact, draw = Artifact(run), np.random.default_rng(seed)
    table = manifest.read(artifact.manifest)
    paths = table.loc[(table["split"] == "test") & (table["label"] == 0), "path"]
    settings = FaceSettings.from_model(artifact.face_model)
    photos = [(Path(path).stem, frame, face[5:].reshape(5, 2)) for path in paths
              if (face := detect_largest(frame := read_media(path).frames[0], settings)) is not None]  # fmt: skip
    for kind in ("real", "fake"):
        (out / kind).mkdir(parents=True, exist_ok=True)
    for number, (name, frame, points) in enumerate(photos):
        _, other, other_points = photos[number - 1]
        fake = swap(other, other_points, frame, points, int(draw.integers(64, 161)))
        for kind, picture in (("real", frame), ("fake", fake)):
            cv2.imwrite(str(out / kind / f"{name}.png"), picture[..., ::-1])
    print(f"{len(photos)} photographs and as many swaps in {out}")


def swap(source: np.ndarray, source_points: np.ndarray, target: np.ndarray, points: np.ndarray, side: int) -> np.ndarray:
    """Return `target` with the face of `source`, both (height, width, 3) uint8, at `side` pixels between its eyes times four."""
    matrix = cv2.estimateAffinePartial2D(source_points, points)[0]
    moved = cv2.warpAffine(source, matrix, target.shape[1::-1], borderMode=cv2.BORDER_REFLECT_101)
    shrink = min(1.0, side / (4 * np.linalg.norm(points[1] - points[0])))
    small = cv2.resize(moved, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    moved = cv2.resize(small, target.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    hull = cv2.convexHull(outline(points))
    mask = np.zeros(target.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, hull.round().astype(np.int32), 255)
    mask[[0, -1]] = mask[:, [0, -1]] = 0
    left, top, width, height = cv2.boundingRect(mask)
    return cv2.seamlessClone(moved, target, mask, (left + width // 2, top + height // 2), cv2.NORMAL_CLONE)


def outline(points: np.ndarray) -> np.ndarray:
    """Return the outline (points, 2) of a face with these five landmarks."""
    template = np.concatenate([INNER_FACE, np.multiply(INNER_FACE, (-1, 1))])
    matrix = cv2.estimateAffine2D(self_blended.FIVE_POINTS, points)[0]
    return cv2.transform(template[None], matrix)[0].astype(np.float32)


if __name__ == "__main__":
    tyro.cli(main)
