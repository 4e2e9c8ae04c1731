"""Predict files with the exported SavedModel and the settings of its run.

Neither Keras nor TensorFlow is imported before the model is loaded, and Keras not at all where a SavedModel is served.
"""

import copy
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import closing
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from tfdetect.artifact import Artifact, load_calibration
from tfdetect.data.media.frames import Media
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.data.worker_pool import WorkerFailure
from tfdetect.detector import Detector
from tfdetect.errors import UserError, is_out_of_memory
from tfdetect.evaluation import aggregation
from tfdetect.evaluation.calibration import INCONCLUSIVE, Calibration
from tfdetect.evaluation.familiarity import DISTANCES, Familiarity
from tfdetect.limits import Decoding, Limits
from tfdetect.machine import available_cores
from tfdetect.serving.batching import File, Group, score_groups, sort_results
from tfdetect.serving.decode_ahead import DecodeAhead
from tfdetect.serving.saved_model import import_tensorflow, load_saved_model
from tfdetect.serving.verdict import Verdict as Verdict
from tfdetect.serving.verdict import face_rows
from tfdetect.stages import stage

BATCH_BYTES = 2**26  # of the frames that are scored in one call; bounds the memory
MAX_BATCH = 16  # clips per call; from 8 on a CPU takes as long for each clip (benchmarks/predict.py)
MAX_WAIT = 1.0  # seconds that a decoded file waits for others to be scored with while none is ready
MAX_BEHIND = 16  # batches of later files that may be scored while a file of a rare shape waits for another one


class Predictor:
    """An exported detector that predicts clips, stored features and files.

    Uses the SavedModel of the run. Runs trained on torch or jax have none; then model.keras is loaded instead, and
    `scored_with` and `warnings` say so. For a frame detector, `aggregate` says how the scores of a file's frames become its own.
    """

    def __init__(self, artifact: Artifact, spec: ClipSpec, detector: Detector, before_load: Callable[[], None] | None = None,
                 aggregate: str = aggregation.MEAN, calibration: Calibration | None = None):  # fmt: skip
        """Load the calibration, unless another one is given; the model is loaded when it is first needed, after a call of
        `before_load`."""
        self.spec, self.is_frame_detector, self.classes = spec, detector.input_kind == "frame", detector.classes
        self.calibration, self.aggregate = calibration or load_calibration(artifact), aggregate
        self.familiarity = Familiarity.load(artifact.familiarity) if artifact.familiarity.exists() else None
        self.decides_on_unfamiliar = False
        self.scored_with, self.warnings = "saved_model", self.calibration.warnings
        self.batch = _clips_in_memory(spec, 1 if self.is_frame_detector else spec.frames)
        self._outputs: Callable[[np.ndarray], Mapping[str, Any]] = self._saved_model_outputs
        served = artifact.saved_model  # of the version whose calibration was just read
        if not served.exists():
            import keras

            self.scored_with = f"model.keras on {keras.backend.backend()}"
            self.warnings += (f"Scored with {self.scored_with}, since there is no SavedModel; run export for one.",)
            self._outputs = self._keras_outputs
        self._load = cache(partial(_load, artifact, served, self.scored_with, before_load))  # once for all its copies

    @property
    def threshold(self) -> float:
        """The probability from which on files are called fake."""
        return self.calibration.threshold

    @property
    def model(self) -> Any:
        """The SavedModel, or else the Keras model. Raises UserError if it is damaged."""
        return self._load()

    @cached_property
    def reconstruction_model(self) -> Any:
        """The Keras model of an autoencoder with its reconstruction as output; only where there is no SavedModel."""
        from tfdetect.models import autoencoder

        return autoencoder.reconstruction_model(self.model)

    def predict_clips(self, clips: np.ndarray) -> tuple[np.ndarray, ...]:
        """Score uint8 RGB clips of any frame size, (batch, frames, height, width, 3) in 0..255.

        Returns score, (batch,) float32, probability of being fake, (batch,) float64, and, for detectors that attribute
        fakes to sources, the probability of each source given that the clip is fake, (batch, sources) float32.
        """
        return self._calibrate(self.outputs(clips))

    def outputs(self, clips: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs for such clips by name: score; source and text of detectors that have them; and DISTANCES, (batch,)
        float32, where the run knows what is familiar."""
        found = self._outputs(clips)
        return {name: np.asarray(found[name]) for name in ("score", "source", "text", *DISTANCES) if name in found}

    def predict_features(self, features: np.ndarray) -> tuple[np.ndarray, ...]:
        """Score the features, (batch, n) float32, that the frozen part of the model computed of frames, or of clips.

        Returns the same as `predict_clips`.
        """
        if self.scored_with == "saved_model":
            signature = self.model.signatures["serve_features"]
            return self._calibrate(signature(features=import_tensorflow().constant(features)))
        from tfdetect.models.layers import common

        return self._calibrate(_by_name(common.submodel_from(self.model, "features").predict_on_batch(features)))

    def reconstruction_errors(self, clips: np.ndarray) -> np.ndarray:
        """Return the absolute error of an autoencoder at each pixel, (batch, frames, size, size) float32.

        `clips` are as in `predict_clips`; the error is in grey levels of 0..255, averaged over the channels.
        """
        if self.scored_with == "saved_model":
            return self._call_signature("serve_reconstruction", clips)["error"].numpy()
        from tfdetect.models import autoencoder

        outputs = self.reconstruction_model.predict_on_batch(self._fit(clips))[:2]
        before, after = (autoencoder.to_pixels(self.model, output) for output in outputs)
        error = np.abs(before - after).mean(axis=-1)
        return error.reshape(len(clips), -1, *error.shape[1:])

    def _calibrate(self, outputs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
        score, *source = (np.asarray(outputs[name]) for name in ("score", *(["source"] if self.classes else [])))
        return score, self.calibration.probability(score), *source

    @stage("step")
    def _saved_model_outputs(self, clips: np.ndarray) -> Mapping[str, Any]:
        name = "serve_face_crop" if "serve_face_crop" in self.model.signatures else "serving_default"
        return self._call_signature(name, clips)

    def _call_signature(self, name: str, clips: np.ndarray) -> Mapping[str, Any]:
        """Call a signature that has one input, whatever its name."""
        signature = self.model.signatures[name]
        return signature(**dict.fromkeys(signature.structured_input_signature[1], import_tensorflow().constant(clips)))

    def _fit(self, clips: np.ndarray) -> np.ndarray:
        """Convert clips to the model's input, as `ServingFunctions.fit_clips` does."""
        from tfdetect.data.media import tf_decode
        from tfdetect.data.media.tf_images import evenly_spaced_indices

        frames, size = self.model.input_shape[1:3]
        if not self.is_frame_detector:
            clips = clips[:, evenly_spaced_indices(clips.shape[1], frames)]
        squares = tf_decode.to_squares(clips.reshape(-1, *clips.shape[2:]), size, self.spec.fit).numpy()
        return squares.reshape(-1, frames, size, size, 3)

    @stage("step")
    def _keras_outputs(self, clips: np.ndarray) -> Mapping[str, Any]:
        output, *distances = self._observing_model.predict_on_batch(self._fit(clips)) if self.familiarity else [
            self.model.predict_on_batch(self._fit(clips))]  # fmt: skip
        if self.classes:
            from scipy.special import softmax

            output = np.concatenate([output[:, :1], softmax(output[:, 1:], axis=1)], axis=1)
        of_clips = np.concatenate([output, *distances], axis=1).reshape(len(clips), -1, output.shape[1] + len(distances))
        combined = aggregation.aggregate(of_clips[..., 0], aggregation.frame_rule(self.aggregate))
        columns = np.column_stack([combined, of_clips[..., 1:].mean(axis=1)]).astype(output.dtype)
        count = output.shape[1]
        return _by_name(columns[:, :count]) | dict(zip(DISTANCES, columns[:, count:].T, strict=False))

    @cached_property
    def _observing_model(self) -> Any:
        """The Keras model with distances from the training files as further outputs; only where there is no SavedModel."""
        from tfdetect.models.vectors import WithVectors

        assert self.familiarity is not None
        return WithVectors(self.model, self.familiarity.layer, self.familiarity)

    def with_calibration(self, calibration: Calibration) -> "Predictor":
        """Return the same predictor, which decides by this calibration."""
        other = copy.copy(self)
        other.calibration = calibration
        return other

    def judging(self, level: float | None, any_file: bool) -> "Predictor":
        """Return the same predictor, which marks files as unfamiliar at this level, by default the run's, and with `any_file`
        gives its verdict on them, too. Raises UserError if the run does not know what is familiar, or knows too few files."""
        if level and self.familiarity is None:
            raise UserError(f"--evaluate.unfamiliar {level:g}: this run does not know what its training files were like. It is "
                            "of an older version, or had too few validation files: train it again, or fit it to files of "
                            "yours with calibrate.")  # fmt: skip
        other = copy.copy(self)
        other.familiarity = self.familiarity and self.familiarity.with_level(level)
        other.decides_on_unfamiliar = any_file
        return other

    def with_limits(self, limits: Limits, decoding: Decoding | None = None) -> "Predictor":
        """Return the same predictor, which reads files within these limits and, where it is given, with this decoding."""
        other = copy.copy(self)
        other.spec = replace(self.spec, limits=limits, decoding=decoding or self.spec.decoding)
        return other

    def predict_files(self, paths: Iterable[str | Path], seconds: float | None = None,
                      workers: int | None = None, in_order: bool = True) -> Generator[Verdict]:  # fmt: skip
        """Return the verdicts on the files, in the order of `paths` or else as they come.

        `seconds` and `workers` are those of `decode`. Files are decoded while the network is loaded and while it scores others,
        several per call; each file waits for others at most MAX_WAIT seconds. A file that cannot be decoded only fails itself.
        """
        verdicts = self._predict_files(paths, seconds, workers, in_order)
        next(verdicts)  # starts decoding and loads the model; from here on, closing the iterator ends the processes
        return verdicts

    def _predict_files(self, paths: Iterable[str | Path], seconds: float | None, workers: int | None,
                       in_order: bool) -> Generator[Any]:  # fmt: skip
        with closing(self.decode(paths, seconds, workers)) as decoded:
            _ = self.model
            yield None
            scored = score_groups(self._gather(decoded), self.to_verdicts)
            yield from sort_results(scored) if in_order else (verdict for _, verdict in scored)

    def decode(self, paths: Iterable[str | Path], seconds: float | None = None,
               workers: int | None = None) -> "DecodeAhead[tuple[int, str]]":  # fmt: skip
        """Start to decode files, each within `seconds`, by `workers` processes, by default one per core; close what it returns.

        Its items are (number, path) of a file.
        """
        count = min(workers or available_cores(), max(1, len(paths))) if isinstance(paths, Sized) else workers
        ahead = _clips_in_memory(self.spec, self.spec.max_squares)
        return DecodeAhead(enumerate(map(str, paths)), self.spec.try_read, count, seconds, ahead)

    def map_files(self, paths: Iterable[str | Path], function: Callable[[str, Media | WorkerFailure], Any],
                  seconds: float | None = None, workers: int | None = None) -> Iterator[Any]:  # fmt: skip
        """Yield `function(path, media)` for each file, in the order of `paths`; see `decode`."""
        with closing(self.decode(paths, seconds, workers)) as decoded:
            results = iter(decoded.get, None)
            yield from sort_results((number, function(path, media)) for (number, path), media in results)

    def _gather(self, decoded: "DecodeAhead[tuple[int, str]]") -> Iterator[list[File]]:
        """Yield groups of files that are scored together: clips of equal shape, at most `batch` unless a file has more frames."""
        groups: dict[Any, Group] = {}  # the oldest first
        while True:
            oldest = next(iter(groups), None)
            try:
                found = decoded.get(None if oldest is None else max(0.0, groups[oldest].since + MAX_WAIT - time.monotonic()))
            except TimeoutError:
                yield groups.pop(oldest).files
                continue
            if found is None:
                break
            (number, path), media = found
            if oldest is not None and number > groups[oldest].files[0][0] + MAX_BEHIND * self.batch:
                yield groups.pop(oldest).files
            if isinstance(media, WorkerFailure):
                yield [(number, path, media)]
                continue
            key = media.clips[0].shape[self.is_frame_detector :]
            clips = len(media.frames) if self.is_frame_detector else len(media.clips)
            if key in groups and groups[key].clips + clips > self.batch:
                yield groups.pop(key).files
            group = groups.setdefault(key, Group([], 0, time.monotonic()))
            group.files.append((number, path, media))
            group.clips += clips
            if group.clips >= self.batch:
                yield groups.pop(key).files
        yield from (group.files for group in groups.values())

    def model_frames(self, media: Media) -> np.ndarray:
        """Return the frames that the detector scores, (frames, height, width, 3) uint8, of all faces in turn; a still image is
        repeated for a clip detector."""
        return np.repeat(media.frames, self.spec.repeat_count(len(media.clips[0])), axis=0)

    def to_verdict(self, path: str, media: Media | WorkerFailure) -> Verdict:
        """Score a decoded file."""
        return self.to_verdicts([path], [media])[0]

    def to_verdicts(self, paths: Sequence[str], decoded: Sequence[Media | WorkerFailure]) -> list[Verdict]:
        """Score decoded files in one call; all clips must have the same shape, for a frame detector all frames."""
        media = [each for each in decoded if not isinstance(each, WorkerFailure)]
        outputs = iter(self.score_clips([self.model_frames(each) for each in media], [len(each.clips) for each in media])
                       if media else ())  # fmt: skip
        return [Verdict(path, error=each.reason) if isinstance(each, WorkerFailure) else self._verdict(path, each, next(outputs))
                for path, each in zip(paths, decoded, strict=True)]  # fmt: skip

    def score_clips(self, files: Sequence[np.ndarray], faces: Sequence[int]) -> Iterator[dict[str, np.ndarray]]:
        """Yield the outputs for each file, from its frames (frames, height, width, 3) uint8, those of each of its faces in turn.

        Their first axis is the frames if they are scored separately, else the faces, 1 where they are not told apart.
        """
        counts = list(map(len, files)) if self.is_frame_detector else list(faces)
        clips = [frames.reshape(count, -1, *frames.shape[1:]) for frames, count in zip(files, counts, strict=True)]
        outputs = self._outputs_in_batches(np.concatenate(clips))
        ends = np.cumsum(counts)
        for start, end in zip([0, *ends], ends, strict=False):
            yield {name: values[start:end] for name, values in outputs.items()}

    def _outputs_in_batches(self, clips: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs for clips of any number; if memory runs out, `batch` is halved for good."""
        parts: list[dict[str, np.ndarray]] = []
        start = 0
        while start < len(clips):
            batch = clips[start : start + self.batch]
            try:
                part = self.outputs(batch)
            except Exception as error:
                if not is_out_of_memory(error) or len(batch) == 1:
                    raise
                self.batch = len(batch) // 2
                continue
            parts.append(part)
            start += len(batch)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _verdict(self, path: str, media: Media, outputs: Mapping[str, np.ndarray]) -> Verdict:
        # As `predictions.file_scores` in `evaluate`: each frame is scored separately, and their aggregate, in double precision,
        # is calibrated. For one file pandas takes hundreds of times as long (benchmarks/libraries.py).
        score, of_faces = aggregation.aggregate_faces(outputs["score"], self.aggregate, len(media.clips))
        probability = float(self.calibration.probability(score))
        text = outputs["text"][len(outputs["text"]) // 2].decode() if "text" in outputs else None
        label = "fake" if probability >= self.threshold else "real"
        source, source_probability = None, None
        if self.classes and label == "fake":
            mean = np.mean(outputs["source"], axis=0)
            source, source_probability = self.classes[mean.argmax()], float(mean.max())
        frames = len(media.clips[0])
        note, verdict = self.spec.extend_note(media.note, frames), str(self.calibration.verdicts(score))
        frames *= self.spec.repeat_count(frames) * len(media.clips)
        faces = face_rows(media.faces, of_faces, self.calibration.probability(of_faces)) if media.faces else None
        p_value, reason = None, None
        if self.familiarity and DISTANCES[0] in outputs:
            distances = [float(np.mean(outputs[name], dtype=np.float64)) for name in DISTANCES]
            p_value, reason = float(self.familiarity.p_values(*distances)), str(self.familiarity.reasons(*distances))
            verdict = INCONCLUSIVE if reason and not self.decides_on_unfamiliar else verdict
        return Verdict(path, probability, label, score, frames, note, None, source, source_probability, text, verdict, p_value,
                       None if reason is None else bool(reason), reason or None, faces)  # fmt: skip


def _clips_in_memory(spec: ClipSpec, squares: int) -> int:
    """Return how many clips of so many squares may be in memory at a time, 1 to MAX_BATCH."""
    return max(1, min(MAX_BATCH, BATCH_BYTES // (3 * spec.size**2 * squares)))


def _load(artifact: Artifact, served: Path, scored_with: str, before_load: Callable[[], None] | None) -> Any:
    """Return the model of a run, which is to be kept: a signature does not keep its SavedModel alive."""
    if before_load:
        before_load()
    if scored_with == "saved_model":
        return load_saved_model(served)
    from tfdetect import models

    return models.load(artifact.model)


def _by_name(output: np.ndarray) -> dict[str, np.ndarray]:
    """Name the columns of the model's output, as the signatures do."""
    return {"score": output[:, 0], "source": output[:, 1:]}
