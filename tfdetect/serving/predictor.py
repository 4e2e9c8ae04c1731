"""Files -> verdicts, by the exported SavedModel and the artifact's settings alone."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from tfdetect import files, models
from tfdetect.artifact import Artifact, load_calibration
from tfdetect.data.media import tf_decode
from tfdetect.data.media.frames import Media
from tfdetect.data.media.tf_images import picked
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.data.worker_pool import WorkerFailure, results
from tfdetect.detector import Detector
from tfdetect.errors import UserError
from tfdetect.models import autoencoder
from tfdetect.models.layers import common


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
    source: str | None = None  # of a fake, by a detector that tells sources apart: the most likely one
    source_probability: float | None = None  # 0..1, that it is this one, if it is fake; not calibrated
    text: str | None = None  # by a detector that joins pictures with texts: the closest of its training texts


def opened(folder: Path) -> Any:
    """The SavedModel there. UserError where it is damaged, for which TensorFlow has many kinds of errors."""
    try:
        with files.plain(folder) as path:
            return tf.saved_model.load(path)
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise
    except Exception as error:
        raise UserError(f"{folder} is no whole SavedModel; python scripts/export.py {files.quoted(folder.parent)} writes it "
                        "again.") from error  # fmt: skip


class Predictor:
    """An exported detector: `judge` for clips, `predict` for files. Without a SavedModel, as other backends than TensorFlow
    leave it, the reloaded model.keras, which is what `judged` and `warnings` say. A frame detector's verdict on a file is the
    mean of its frames.
    """

    def __init__(self, artifact: Artifact, view: ClipSpec, detector: Detector):
        self.spec, self.single, self.classes = view, detector.input_kind == "frame", detector.classes
        self.calibration = load_calibration(artifact)
        self.threshold = self.calibration.threshold
        self.judged, self.warnings = "saved_model", self.calibration.warnings
        if artifact.saved_model.exists():
            self.loaded = opened(artifact.saved_model)  # kept: the signature holds no reference to it
            self._answer = self._serve
        else:
            self.judged = f"model.keras on {keras.backend.backend()}"
            self.warnings += (f"There is no SavedModel: what judges is the reloaded {self.judged}; export.py writes one.",)
            self.loaded = models.load(artifact.model)
            self.opened = autoencoder.reconstruction_model(self.loaded) if detector.reconstructs else None
            self._answer = self._call

    def judge(self, clips: np.ndarray) -> tuple[np.ndarray, ...]:
        """uint8 clips (batch, frames, height, width, 3) of any size -> score, (batch,) float32, and probability, (batch,)
        float64, and where sources are told apart, how likely a fake is of each: (batch, classes)."""
        return self._numbers(self._answer(clips))

    def judge_features(self, features: np.ndarray) -> tuple[np.ndarray, ...]:
        """As `judge`, of what the frozen first part of a detector made of single frames, (batch, n) float32."""
        if self.judged == "saved_model":
            return self._numbers(self.loaded.signatures["serve_features"](features=tf.constant(features)))
        return self._numbers(self._named(common.submodel_from(self.loaded, "features").predict_on_batch(features)))

    def _numbers(self, out):
        score, *source = (np.asarray(out[name]) for name in ("score", *(["source"] if self.classes else [])))
        return score, self.calibration.probability(score), *source

    def _serve(self, clips):
        return self._frames("serve_face_crop" if "serve_face_crop" in self.loaded.signatures else "serving_default", clips)

    def _frames(self, signature, clips):
        """Whatever a signature calls its only input."""
        served = self.loaded.signatures[signature]
        return served(**dict.fromkeys(served.structured_input_signature[1], tf.constant(clips)))

    def errors(self, clips: np.ndarray) -> np.ndarray:
        """uint8 clips of any size -> how far off an autoencoder gives each place back, in grey levels of 0..255 as a mean over
        channels: (batch, frames, size, size) float32."""
        if self.judged == "saved_model":
            return self._frames("serve_reconstruction", clips)["error"].numpy()
        before, after = self.opened.predict_on_batch(self._small(clips))[:2]
        error = np.abs(autoencoder.to_pixels(self.loaded, before) - autoencoder.to_pixels(self.loaded, after)).mean(axis=-1)
        return error.reshape(len(clips), -1, *error.shape[1:])

    def _small(self, clips):
        frames, size = self.loaded.input_shape[1:3]
        if not self.single:
            clips = clips[:, picked(clips.shape[1], frames)]
        small = tf_decode.resize(tf.reshape(clips, (-1, *clips.shape[2:])), size).numpy()
        return small.reshape(-1, frames, size, size, 3)

    def _call(self, clips):
        out = self.loaded.predict_on_batch(self._small(clips))
        if self.classes:
            out = np.concatenate([out[:, :1], softmax(out[:, 1:], axis=1)], axis=1)
        return self._named(out.reshape(len(clips), -1, out.shape[1]).mean(axis=1))

    def _named(self, out):
        return {"score": out[:, 0], "source": out[:, 1:]}

    def predict(self, paths: Iterable[str | Path], seconds: float | None = None, workers: int | None = None) -> Iterator[Verdict]:
        """A verdict for each path, as `each` has them."""
        return self.each(paths, self.verdict, seconds, workers)

    def each(self, paths: Iterable[str | Path], what: Callable[[str, Media | WorkerFailure], Any], seconds: float | None = None,
             workers: int | None = None):  # fmt: skip
        """What `what(path, clip)` returns of each path, in order; others are decoded while one is looked at, each in at most
        `seconds`.

        Decoding happens in processes of its own: a file that brings a decoder down costs one verdict.
        """
        ready: dict[int, Any] = {}
        following = 0
        for (number, path), clip in results(enumerate(map(str, paths)), self.spec.attempt, workers, seconds):
            ready[number] = what(path, clip)
            while following in ready:
                yield ready.pop(following)
                following += 1

    def clip(self, found: Media) -> np.ndarray:
        """The frames that the detector looks at, (frames, height, width, 3) uint8."""
        return np.repeat(found.frames, self.spec.repeats(len(found.frames)), axis=0)

    def verdict(self, path: str, clip: Media | WorkerFailure) -> Verdict:
        if isinstance(clip, WorkerFailure):
            return Verdict(path, error=clip.reason)
        frames = self.clip(clip)
        # As in `evaluate`, a frame detector scores each frame by itself; their mean, in double precision, is calibrated.
        found = self._answer(frames[:, None] if self.single else frames[None])
        score = float(np.mean(found["score"], dtype=np.float64))
        probability = float(self.calibration.probability(score))
        text = found["text"].numpy()[len(found["text"]) // 2].decode() if "text" in found else None
        label = "fake" if probability >= self.threshold else "real"
        source, likely = None, None
        if self.classes and label == "fake":
            kinds = np.mean(found["source"], axis=0)
            source, likely = self.classes[kinds.argmax()], float(kinds.max())
        note = self.spec.note(clip.note, len(clip.frames))
        return Verdict(path, probability, label, score, len(frames), note, None, source, likely, text)
