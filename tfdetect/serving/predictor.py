"""Predict files with the exported SavedModel and the settings of its run."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from tfdetect import files, installation, models
from tfdetect.artifact import Artifact, load_calibration
from tfdetect.data.media import tf_decode
from tfdetect.data.media.frames import Media
from tfdetect.data.media.tf_images import evenly_spaced_indices
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.data.worker_pool import WorkerFailure, map_unordered
from tfdetect.detector import Detector
from tfdetect.errors import UserError
from tfdetect.limits import Decoding, Limits
from tfdetect.models import autoencoder
from tfdetect.models.layers import common


@dataclass(frozen=True)
class Verdict:
    """The prediction for one file. If the file could not be read, `error` says why and the numbers are None."""

    path: str
    probability: float | None = None  # of being fake, 0..1; calibrated on the run's validation files
    label: str | None = None  # "fake" if the probability reaches the run's threshold, otherwise "real"
    score: float | None = None  # raw output of the detector; higher is more likely fake
    frames: int = 0  # number of frames that were scored; with --data.crops, of their crops
    note: str = ""  # such as "damaged: 28 of 50 frames intact"
    error: str | None = None
    source: str | None = None  # the most likely source of a fake, for detectors that attribute fakes to sources
    source_probability: float | None = None  # 0..1, given that the file is fake; not calibrated
    text: str | None = None  # the closest training text, for detectors that match images with texts


def load_saved_model(folder: Path) -> Any:
    """Load the SavedModel in `folder`. Raises UserError if it is damaged; TensorFlow raises many different types for that."""
    try:
        with files.tensorflow_path(folder) as path:
            return tf.saved_model.load(path)
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise
    except Exception as error:
        raise UserError(f"{folder} is not a complete SavedModel; re-export it with "
                        f"{installation.command('export', folder.parent)}.") from error  # fmt: skip


class Predictor:
    """An exported detector that predicts clips, stored features and files.

    Uses the SavedModel of the run. Runs trained on torch or jax have none; then model.keras is loaded instead, and
    `scored_with` and `warnings` say so. For a frame detector, the score of a file is the mean over its frames.
    """

    def __init__(self, artifact: Artifact, spec: ClipSpec, detector: Detector):
        self.spec, self.is_frame_detector, self.classes = spec, detector.input_kind == "frame", detector.classes
        self.calibration = load_calibration(artifact)
        self.threshold = self.calibration.threshold
        self.scored_with, self.warnings = "saved_model", self.calibration.warnings
        if artifact.saved_model.exists():
            self.model = load_saved_model(artifact.saved_model)  # a signature does not keep its model alive
            self._outputs: Callable[[np.ndarray], Mapping[str, Any]] = self._saved_model_outputs
        else:
            self.scored_with = f"model.keras on {keras.backend.backend()}"
            self.warnings += (f"Scored with {self.scored_with}, since there is no SavedModel; run export for one.",)
            self.model = models.load(artifact.model)
            if detector.reconstructs:
                self.reconstruction_model = autoencoder.reconstruction_model(self.model)
            self._outputs = self._keras_outputs

    def predict_clips(self, clips: np.ndarray) -> tuple[np.ndarray, ...]:
        """Score uint8 RGB clips of any frame size, (batch, frames, height, width, 3) in 0..255.

        Returns score, (batch,) float32, probability of being fake, (batch,) float64, and, for detectors that attribute
        fakes to sources, the probability of each source given that the clip is fake, (batch, sources) float32.
        """
        return self._calibrate(self._outputs(clips))

    def predict_features(self, features: np.ndarray) -> tuple[np.ndarray, ...]:
        """Score the features, (batch, n) float32, that the frozen part of the model computed of frames, or of clips.

        Returns the same as `predict_clips`.
        """
        if self.scored_with == "saved_model":
            return self._calibrate(self.model.signatures["serve_features"](features=tf.constant(features)))
        return self._calibrate(_by_name(common.submodel_from(self.model, "features").predict_on_batch(features)))

    def reconstruction_errors(self, clips: np.ndarray) -> np.ndarray:
        """Return the absolute error of an autoencoder at each pixel, (batch, frames, size, size) float32.

        `clips` are as in `predict_clips`; the error is in grey levels of 0..255, averaged over the channels.
        """
        if self.scored_with == "saved_model":
            return self._call_signature("serve_reconstruction", clips)["error"].numpy()
        outputs = self.reconstruction_model.predict_on_batch(self._fit(clips))[:2]
        before, after = (autoencoder.to_pixels(self.model, output) for output in outputs)
        error = np.abs(before - after).mean(axis=-1)
        return error.reshape(len(clips), -1, *error.shape[1:])

    def _calibrate(self, outputs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
        score, *source = (np.asarray(outputs[name]) for name in ("score", *(["source"] if self.classes else [])))
        return score, self.calibration.probability(score), *source

    def _saved_model_outputs(self, clips: np.ndarray) -> Mapping[str, Any]:
        name = "serve_face_crop" if "serve_face_crop" in self.model.signatures else "serving_default"
        return self._call_signature(name, clips)

    def _call_signature(self, name: str, clips: np.ndarray) -> Mapping[str, Any]:
        """Call a signature that has one input, whatever its name."""
        signature = self.model.signatures[name]
        return signature(**dict.fromkeys(signature.structured_input_signature[1], tf.constant(clips)))

    def _fit(self, clips: np.ndarray) -> np.ndarray:
        """Convert clips to the model's input, as `ServingFunctions.fit_clips` does."""
        frames, size = self.model.input_shape[1:3]
        if not self.is_frame_detector:
            clips = clips[:, evenly_spaced_indices(clips.shape[1], frames)]
        squares = tf_decode.to_squares(tf.reshape(clips, (-1, *clips.shape[2:])), size, self.spec.fit).numpy()
        return squares.reshape(-1, frames, size, size, 3)

    def _keras_outputs(self, clips: np.ndarray) -> Mapping[str, Any]:
        output = self.model.predict_on_batch(self._fit(clips))
        if self.classes:
            output = np.concatenate([output[:, :1], softmax(output[:, 1:], axis=1)], axis=1)
        return _by_name(output.reshape(len(clips), -1, output.shape[1]).mean(axis=1))

    def with_limits(self, limits: Limits, decoding: Decoding | None = None) -> "Predictor":
        """Return the same predictor, which reads files within these limits and, where it is given, with this decoding."""
        other = copy.copy(self)
        other.spec = replace(self.spec, limits=limits, decoding=decoding or self.spec.decoding)
        return other

    def predict_files(self, paths: Iterable[str | Path], seconds: float | None = None,
                      workers: int | None = None) -> Iterator[Verdict]:  # fmt: skip
        """Yield the verdict on each file, in the order of `paths`; `seconds` and `workers` are those of `map_files`."""
        return self.map_files(paths, self.to_verdict, seconds, workers)

    def map_files(self, paths: Iterable[str | Path], function: Callable[[str, Media | WorkerFailure], Any],
                  seconds: float | None = None, workers: int | None = None) -> Iterator[Any]:  # fmt: skip
        """Yield `function(path, media)` for each file, in the order of `paths`.

        Files are decoded ahead by `workers` processes, by default one per core, each file within `seconds`. A file that
        crashes its decoder only fails itself.
        """
        pending: dict[int, Any] = {}
        next_index = 0
        for (index, path), media in map_unordered(enumerate(map(str, paths)), self.spec.try_read, workers, seconds):
            pending[index] = function(path, media)
            while next_index in pending:
                yield pending.pop(next_index)
                next_index += 1

    def model_frames(self, media: Media) -> np.ndarray:
        """Return the frames that the detector scores, (frames, height, width, 3) uint8; a still image is repeated for a clip
        detector."""
        return np.repeat(media.frames, self.spec.repeat_count(len(media.frames)), axis=0)

    def to_verdict(self, path: str, media: Media | WorkerFailure) -> Verdict:
        """Score a decoded file."""
        if isinstance(media, WorkerFailure):
            return Verdict(path, error=media.reason)
        frames = self.model_frames(media)
        # As `predictions.file_scores` in `evaluate`: each frame is scored separately, and their mean, in double precision, is
        # calibrated. For one file pandas takes hundreds of times as long (benchmarks/libraries.py).
        outputs = self._outputs(frames[:, None] if self.is_frame_detector else frames[None])
        score = float(np.mean(outputs["score"], dtype=np.float64))
        probability = float(self.calibration.probability(score))
        text = outputs["text"].numpy()[len(outputs["text"]) // 2].decode() if "text" in outputs else None
        label = "fake" if probability >= self.threshold else "real"
        source, source_probability = None, None
        if self.classes and label == "fake":
            mean = np.mean(outputs["source"], axis=0)
            source, source_probability = self.classes[mean.argmax()], float(mean.max())
        note = self.spec.extend_note(media.note, len(media.frames))
        return Verdict(path, probability, label, score, len(frames), note, None, source, source_probability, text)


def _by_name(output: np.ndarray) -> dict[str, np.ndarray]:
    """Name the columns of the model's output, as the signatures do."""
    return {"score": output[:, 0], "source": output[:, 1:]}
