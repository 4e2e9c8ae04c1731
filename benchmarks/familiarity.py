"""Which files runs mark as unlike their training data: their own test files, altered and drawn ones, those of another world.

    python benchmarks/familiarity.py RUN [RUN ...] [--other photos=FOLDER clips=FOLDER] [--files 120] [--json familiarity.json]

A line for each run and kind of files: how many, the share marked as unfamiliar, and the shares with each reason. Own test files
should be marked at most as often as the run's level says, all others always; JPEG 70 and half size, which do not change what is
seen, should be left alone or marked for other processing. Files are altered at their native size, as users do. Noise, black
frames and pages of text have the size and number of frames of a test file, and are drawn with fixed seeds.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

import tfdetect
from tfdetect.data import manifest
from tfdetect.data.media.frames import Media
from tfdetect.data.worker_pool import WorkerFailure
from tfdetect.evaluation.familiarity import OTHER_CONTENT, OTHER_PROCESSING
from tfdetect.serving.predictor import Predictor
from tfdetect.workflow.verdicts import FileList

DRAWN = 20  # files of each kind
PAGE = (600, 450)  # pixels; a page of text
LETTERS = list("etaoinshrdlucmfwypvbgk") + [" "] * 5
Frames = np.ndarray  # (frames, height, width, 3) uint8


def jpeg(frame: np.ndarray, quality: int) -> np.ndarray:
    """Return the frame after JPEG compression."""
    encoded = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]


def half(frame: np.ndarray) -> np.ndarray:
    """Return the frame at half its size."""
    return cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


ALTERED = {"JPEG 70": lambda frame: jpeg(frame, 70), "JPEG 40": lambda frame: jpeg(frame, 40), "half size": half,
           "blurred": lambda frame: cv2.GaussianBlur(frame, (0, 0), 1.5)}  # fmt: skip


def noise(frames: Frames, rng: np.random.Generator) -> Frames:
    """Return independent grey levels, uniform or around a mean."""
    if rng.random() < 0.5:
        return rng.integers(0, 256, frames.shape, np.uint8)
    return np.clip(rng.normal(rng.uniform(60, 200), rng.uniform(10, 60), frames.shape), 0, 255).astype(np.uint8)


def black(frames: Frames, rng: np.random.Generator) -> Frames:
    """Return black frames."""
    return np.zeros_like(frames)


def page(frames: Frames, rng: np.random.Generator) -> Frames:
    """Return a page of printed text, which does not move."""
    image = np.full((*PAGE, 3), rng.integers(235, 256), np.uint8)
    for line in range(30, PAGE[0] - 20, 18):
        text = "".join(rng.choice(LETTERS, rng.integers(20, 50)))
        cv2.putText(image, text, (20, line), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (20, 20, 20), 1, cv2.LINE_AA)
    return np.repeat(image[None], len(frames), axis=0)


MADE = {"noise": noise, "black frames": black, "documents": page}


def read(predictor: Predictor, paths: Iterable[str]) -> list[Media]:
    """Return the decoded files, without those that cannot be read."""
    decoded = predictor.map_files(list(paths), lambda _, media: media, 60)
    return [media for media in decoded if not isinstance(media, WorkerFailure)]


def shares(predictor: Predictor, files: Iterable[Media]) -> dict[str, Any]:
    """Return the number of these files, and the shares marked as unfamiliar, and for each reason."""
    reasons = [predictor.to_verdict("", media).unfamiliar_reason for media in files]
    count = {name: float(np.mean([reason == name for reason in reasons])) for name in (OTHER_CONTENT, OTHER_PROCESSING)}
    return {"files": len(reasons), "unfamiliar": sum(count.values()), **count}


def measure(folder: Path, others: Mapping[str, Path], most: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each kind of files."""
    run = tfdetect.load(folder)
    predictor = run.predictor
    if predictor.familiarity is None:
        raise SystemExit(f"{folder} does not know what its training files were like.")
    table = manifest.read_unchecked(run.artifact.manifest)
    paths = table.loc[(table["split"] == "test") & (table["error"] == ""), "path"]
    own = read(predictor, paths.sample(min(most, len(paths)), random_state=0))
    yield {"run": folder.name, "kind": "own test files", **shares(predictor, own)}
    for name, alter in ALTERED.items():
        files = (replace(media, frames=np.stack([*map(alter, media.frames)])) for media in own)
        yield {"run": folder.name, "kind": name, **shares(predictor, files)}
    for name, draw in MADE.items():
        files = (replace(media, frames=draw(media.frames, np.random.default_rng(k))) for k, media in enumerate(own[:DRAWN]))
        yield {"run": folder.name, "kind": name, **shares(predictor, files)}
    for name, path in others.items():
        yield {"run": folder.name, "kind": name, **shares(predictor, read(predictor, map(str, [*FileList([path])][:most])))}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--other", nargs="*", default=[], help="NAME=FOLDER of files of another world")
    parser.add_argument("--files", type=int, default=120, help="at most, of each kind")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    others = {name: Path(path) for name, _, path in (text.partition("=") for text in options.other)}
    rows = [row for run in options.runs for row in measure(run, others, options.files)]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
