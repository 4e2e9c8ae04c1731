"""Files -> verdicts, by the exported SavedModel and the artifact's settings alone."""

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfdetect.artifact import Artifact
from tfdetect.data.cache import View
from tfdetect.data.media import Media, MediaError


@dataclass(frozen=True)
class Verdict:
    """What `predict` says of a file; the numbers are None where it could not be read, and `error` says why."""

    path: str
    probability: float | None = None  # 0..1, of being fake; calibrated on the run's validation files
    label: str | None = None  # "fake" from the run's threshold on, else "real"
    score: float | None = None  # the detector's own number, higher is more likely fake
    frames: int = 0  # how many frames were looked at
    note: str = ""  # such as "damaged: 28 whole frames of 50"
    error: str | None = None


class Predictor:
    """An exported detector. `score` and `probability` of clips; `predict` for files."""

    def __init__(self, artifact: Artifact, view: View):
        self.view = view
        self.threshold = float(json.loads(artifact.calibration.read_text())["threshold"])
        self.loaded = tf.saved_model.load(str(artifact.saved_model))  # kept: the signature holds no reference to it
        self.serve = self.loaded.signatures["serving_default"]

    def judge(self, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 clips (batch, frames, height, width, 3) of any size -> score and probability, (batch,) float32 each."""
        out = self.serve(clip=tf.constant(clips))
        return out["score"].numpy(), out["probability"].numpy()

    def predict(self, paths: Iterable[str | Path]) -> Iterator[Verdict]:
        """A verdict for each path, in order; files ahead are decoded while one is judged."""
        ahead: deque[tuple[str, Future[Media]]] = deque()
        workers = os.cpu_count() or 1
        with ThreadPoolExecutor(workers) as pool:  # the decoders let go of Python's lock
            for path in paths:
                ahead.append((str(path), pool.submit(self.view.read, path, self.view.size)))
                if len(ahead) > 2 * workers:
                    yield self.verdict(*ahead.popleft())
            while ahead:
                yield self.verdict(*ahead.popleft())

    def verdict(self, path: str, media: "Future[Media]") -> Verdict:
        try:
            clip = media.result()
        except MediaError as error:
            return Verdict(path, error=str(error))
        except OSError as error:
            return Verdict(path, error=error.strerror or str(error))
        score, probability = (float(value[0]) for value in self.judge(clip.frames[None]))
        label = "fake" if probability >= self.threshold else "real"
        return Verdict(path, probability, label, score, len(clip.frames), clip.note)
