"""The functions behind the signatures of the SavedModel; `export` describes them."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdetect.data.media import tf_decode, tf_images
from tfdetect.data.media.tf_images import evenly_spaced_indices
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.detector import Detector
from tfdetect.evaluation.aggregation import MEAN, frame_rule
from tfdetect.evaluation.calibration import Calibration
from tfdetect.evaluation.familiarity import DISTANCES, Familiarity
from tfdetect.models import autoencoder
from tfdetect.models.layers.heads import ClosestText
from tfdetect.models.vectors import WithVectors
from tfdetect.serving import aggregation
from tfdetect.serving.explain_graph import HeatMaps
from tfdetect.serving.verdict_graph import familiarity_outputs, verdict_outputs, word_outputs


def trace(model: keras.Model, call: Callable[..., Any] | None = None) -> Any:
    """Return a model's call as one concrete function: all signatures share it, so it is traced and written once.

    `call` is called in its place, with the same inputs.
    """
    inputs, function = tf.TensorSpec((None, *model.input_shape[1:]), model.inputs[0].dtype), call or model
    return tf.function(lambda x: function(x, training=False), autograph=False).get_concrete_function(inputs)


class ServingFunctions:
    """The functions behind the signatures."""

    def __init__(self, model: keras.Model, texts: Sequence[str], calibration: Calibration, detector: Detector,
                 clip_spec: ClipSpec, aggregate: str = MEAN, familiarity: Familiarity | None = None):  # fmt: skip
        self.aggregate, self.familiarity = frame_rule(aggregate), familiarity  # a clip shows one face
        self.model, self.texts, self.calibration, self.spec = model, texts, calibration, clip_spec
        self.call = trace(model, WithVectors(model, familiarity.layer, familiarity) if familiarity else None)
        self.is_frame_detector, self.classes = detector.input_kind == "frame", detector.classes
        self.frames, self.size = model.input_shape[1:3]
        if detector.reconstructs:
            self.reconstruction_model = autoencoder.reconstruction_model(model)

    def predict_frames(self, clip: tf.Tensor) -> dict[str, tf.Tensor]:
        """Score clips of any frame size and number of frames, uint8 (batch, frames, height, width, 3)."""
        return self.predict(self.fit_clips(clip), tf.shape(clip)[0] if self.is_frame_detector else None)

    def fit_clips(self, clip: tf.Tensor) -> tf.Tensor:
        """Convert clips to the model's input, (batch, frames, size, size, 3); for a frame detector each square becomes a clip."""
        if not self.is_frame_detector:
            clip = tf.gather(clip, evenly_spaced_indices(tf.shape(clip)[1], self.frames), axis=1)
        shape = tf.shape(clip)
        squares = self.to_squares(tf.reshape(clip, tf.concat([[shape[0] * shape[1]], shape[2:]], 0)))
        return tf.reshape(squares, (-1, self.frames, self.size, self.size, 3))

    def to_squares(self, frames: tf.Tensor) -> tf.Tensor:
        """Convert native frames (batch, height, width, 3) to squares (batch x squares, size, size, 3), both uint8."""
        return tf_decode.to_squares(frames, self.size, self.spec.fit)

    def reconstruct(self, clip: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the autoencoder's reconstruction of each frame and its error per pixel; see the docstring of `export`."""
        after, error = self.reconstruction(self.fit_clips(clip))
        shape = (tf.shape(clip)[0], -1, self.size, self.size)
        after = tf.cast(tf.round(tf.clip_by_value(after, 0.0, 255.0)), tf.uint8)
        return {"reconstruction": tf.reshape(after, (*shape, 3)), "error": tf.reshape(error, shape)}

    def reconstruction(self, clips: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the reconstruction of clips that fit the model, float32 in their shape, and its error for each pixel."""
        outputs = self.reconstruction_model(clips, training=False)[:2]
        before, after = (tf.reshape(autoencoder.to_pixels(self.model, output), tf.shape(clips)) for output in outputs)
        return after, tf.reduce_mean(tf.abs(before - after), axis=-1)

    def score(self, clips: tf.Tensor) -> tf.Tensor:
        """Return the scores (batch,) of clips that fit the model."""
        return tf.nest.flatten(self.call(clips))[0][:, 0]

    def explain(self, clip: tf.Tensor, method: str, heat_maps: HeatMaps) -> dict[str, tf.Tensor]:
        """Score clips, and return what the detector sees of them and its heat-maps; see the docstring of `export`."""
        clips, count = self.fit_clips(clip), tf.shape(clip)[0]
        outputs = self.predict(clips, count if self.is_frame_detector else None)
        shape = (count, -1, self.size, self.size)
        return {**outputs, "heat_map": tf.reshape(heat_maps(clips), shape), "picture": tf.reshape(clips, (*shape, 3)),
                "method": tf.fill([count], method)}  # fmt: skip

    def predict_images(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Score encoded images, (batch,) string; one that cannot be decoded gets NaN and an `error`, without affecting others."""
        spec, count = self.spec, tf.shape(image)[0]
        rows, squares, error = tf_images.decode_images(image, self.to_squares, spec.frames, spec.fps, spec.limits, spec.fit.crops)
        failed = error != ""
        if self.is_frame_detector:
            outputs = self.predict(squares[:, None], rows=rows, num_files=count)
        else:
            clips, still = self.fill_clips(rows, squares, count)
            outputs = {**self.predict(clips), "note": tf.where(still & ~failed, spec.extend_note("", 1), "")}
        numbers = {name: tf.where(failed, np.nan, outputs[name])
                   for name in ("score", "probability", "familiarity", *DISTANCES) if name in outputs}  # fmt: skip
        words = {name: tf.where(failed, "", outputs[name]) for name in ("label", "verdict")}
        decisions = {name: value & ~failed for name, value in outputs.items() if value.dtype == tf.bool}
        return {**outputs, **numbers, **words, **decisions, "error": error}

    def fill_clips(self, rows: tf.Tensor, squares: tf.Tensor, num_files: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the clip of each file, (files, frames, size, size, 3), and whether it is a still, whose one frame is repeated.

        `rows` (squares,), in ascending order, is the index of the file of each square; a file without any gets a black clip.
        """
        counts = tf.math.bincount(rows, minlength=num_files, maxlength=num_files)
        steps = tf.where(counts[:, None] > 1, tf.range(self.frames), 0)
        first = tf.where(counts > 0, tf.cumsum(counts, exclusive=True), tf.shape(squares)[0])
        return tf.gather(tf.concat([squares, tf.zeros_like(squares[:1])], 0), first[:, None] + steps), counts == 1

    def predict(self, inputs: tf.Tensor, num_clips: tf.Tensor | None = None, call: Any = None,
                rows: tf.Tensor | None = None, num_files: tf.Tensor | None = None) -> dict[str, tf.Tensor]:  # fmt: skip
        """Score inputs of `call`, from `trace`, by default the whole model, and combine the frames of each file by `aggregate`.

        By default every input is a file. With `num_clips`, the inputs are the frames of that many clips of equal length. With
        `rows`, (inputs,) int, `rows[i]` is the index of the file, below `num_files`, to which input i belongs; files may
        differ in their number of frames or have none.
        """
        output, *others = tf.nest.flatten((call or self.call)(inputs))
        text: dict[str, tf.Tensor] = {}
        if self.texts:
            text_index, *others = others
            text = {"text": tf.gather(tf.constant(self.texts), select_middle_frames(text_index, num_clips, rows, num_files))}
        if self.classes:
            output = tf.concat([output[:, :1], tf.nn.softmax(output[:, 1:])], axis=1)
        output = tf.concat([output, *others], axis=1)  # distances of frames are averaged
        if rows is not None:
            output = aggregation.of_files(output, self.aggregate, rows, num_files)
        elif num_clips is not None:
            output = aggregation.of_clips(tf.reshape(output, (num_clips, -1, output.shape[1])), self.aggregate)
        # Frame scores are combined before calibration, as in `predictions.file_scores`, but in the graph.
        end = 1 + len(self.classes)
        score, distances = output[:, 0], dict(zip(DISTANCES, tf.unstack(output[:, end:], axis=1), strict=False))
        sources = {"source": output[:, 1:end], "source_name": self.source_names(score)} if self.classes else {}
        verdict = dict(verdict_outputs(self.calibration, score))
        if distances and self.familiarity:
            verdict |= {**familiarity_outputs(self.familiarity, *distances.values()), **distances}
            verdict["inconclusive"] |= verdict["unfamiliar"]
        return {"score": score, **verdict, **word_outputs(self.calibration, verdict), **sources, **text}

    def source_names(self, score: tf.Tensor) -> tf.Tensor:
        """Return the names of the sources for each file, (batch, sources): servers split all outputs by files."""
        return tf.tile(tf.constant(list(self.classes))[None], (tf.size(score), 1))


def select_middle_frames(values: tf.Tensor, num_clips: tf.Tensor | None = None, rows: tf.Tensor | None = None,
                         num_files: tf.Tensor | None = None) -> tf.Tensor:  # fmt: skip
    """Select from `values`, (inputs,) int, the value of each file's middle frame, 0 for a file without frames.

    `num_clips`, `rows` and `num_files` are those of `ServingFunctions.predict`.
    """
    if rows is not None:
        index = tf.range(tf.size(values))
        first = tf.math.unsorted_segment_min(index, rows, num_files)
        frames = tf.math.bincount(rows, minlength=num_files, maxlength=num_files)
        return tf.gather(tf.concat([values, [0]], 0), tf.where(frames > 0, first + frames // 2, tf.size(values)))
    if num_clips is None:
        return values
    values = tf.reshape(values, (num_clips, -1))
    return values[:, tf.shape(values)[1] // 2]


def split_text_output(model: keras.Model) -> tuple[keras.Model, Sequence[str]]:
    """Return the model and the training texts it matches images with; the model then also returns the text's index.

    Models without texts are returned unchanged, with no texts.
    """
    for layer in model.layers:
        if isinstance(layer, ClosestText):
            return keras.Model(model.inputs, [model.outputs[0], layer.output[1]]), layer.texts
    return model, []
