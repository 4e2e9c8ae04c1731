"""Files -> verdicts, by the exported SavedModel and the artifact's settings alone."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfdetect.artifact import Artifact
from tfdetect.data.cache import View
from tfdetect.data.media import Media
from tfdetect.data.pool import Lost, results


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

    def predict(self, paths: Iterable[str | Path], seconds: float | None = None) -> Iterator[Verdict]:
        """A verdict for each path, in order; others are decoded while one is judged, each in at most `seconds`.

        Decoding happens in processes of its own: a file that brings a decoder down costs one verdict.
        """
        ready: dict[int, Verdict] = {}
        following = 0
        for (number, path), clip in results(enumerate(map(str, paths)), self.view.attempt, seconds=seconds):
            ready[number] = self.verdict(path, clip)
            while following in ready:
                yield ready.pop(following)
                following += 1

    def verdict(self, path: str, clip: Media | Lost) -> Verdict:
        if isinstance(clip, Lost):
            return Verdict(path, error=clip.reason)
        frames = np.repeat(clip.frames, self.view.repeats(len(clip.frames)), axis=0)
        score, probability = (float(value[0]) for value in self.judge(frames[None]))
        label = "fake" if probability >= self.threshold else "real"
        return Verdict(path, probability, label, score, len(frames), self.view.note(clip.note, len(clip.frames)))
