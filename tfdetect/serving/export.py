"""A trained model -> a SavedModel whose inputs are what a user has.

`serving_default` takes uint8 frames of any size and number, (batch, frames, height, width, 3) RGB 0..255; image
detectors also have `serve_bytes`, which takes encoded JPEG, PNG or WebP, (batch,) string. Both return `score` and
`probability` of being fake, (batch,) float32, and `fake`, (batch,) bool, the decision at the run's threshold. A detector of
sources also returns `source`, (batch, sources) float32, how likely a fake is of each, and `source_name`, (sources,) string. One
that joins pictures with texts also returns `text`, (batch,) string: the closest of its training texts, of several frames that
of the middle one. A detector with a frozen first part has `serve_features` besides, which takes what that part makes of
pictures, (batch, n) float32. An autoencoder has `serve_reconstruction`, which takes frames and returns what it makes of them,
`reconstruction` (batch, frames, size, size, 3) uint8, and `error` (batch, frames, size, size) float32, how far that is off, in
grey levels of 0..255, as a mean over channels.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf
from scipy.special import logit

from tfdetect import backend, files
from tfdetect.data import graph
from tfdetect.detector import Detector
from tfdetect.models import layers, one_class
from tfdetect.models.head_layers import ClosestText


def export(model: keras.Model, calibration: Mapping[str, float], detector: Detector, target: Path) -> None:
    """Write the SavedModel, whole or not at all. `calibration` has slope, intercept and threshold. ValueError on another backend
    than TensorFlow."""
    backend.require_tensorflow("A SavedModel")
    served = Served(*worded(model), calibration, detector)
    archive = keras.export.ExportArchive()
    archive.track(model)
    frames = [tf.TensorSpec((None, None, None, None, 3), tf.uint8, "clip")]
    archive.add_endpoint("serving_default", served.clips, frames)
    if served.single:
        archive.add_endpoint("serve_bytes", served.files, [tf.TensorSpec((None,), tf.string, "image")])
    if detector.stored:
        rest = layers.after(served.model, "features")
        archive.track(rest)
        spec = tf.TensorSpec((None, rest.input_shape[-1]), tf.float32, "features")
        archive.add_endpoint("serve_features", lambda features: served.answer(features, model=rest), [spec])
    if detector.reconstructs:
        archive.add_endpoint("serve_reconstruction", served.rebuilt, frames)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".part-"))
    try:
        with files.plain(temporary) as folder:
            archive.write_out(f"{folder}/1", verbose=False)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary / "1", target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class Served:
    """The signatures' functions."""

    def __init__(self, model: keras.Model, texts: Sequence[str], calibration: Mapping[str, float], detector: Detector):
        self.model, self.texts, self.calibration = model, texts, calibration
        self.single, self.classes = detector.sees == "frame", detector.classes
        self.frames, self.size = model.input_shape[1:3]
        self.opened = one_class.opened(model) if detector.reconstructs else None

    def clips(self, clip):
        """Frames of any size and number."""
        return self.answer(self.small(clip), tf.shape(clip)[0] if self.single else None)

    def small(self, clip):
        """The same as the model takes them; for a frame detector each frame is one clip."""
        if not self.single:
            clip = tf.gather(clip, picked(tf.shape(clip)[1], self.frames), axis=1)
        shape = tf.shape(clip)
        small = graph.resize(tf.reshape(clip, tf.concat([[shape[0] * shape[1]], shape[2:]], 0)), self.size)
        return tf.reshape(small, (-1, self.frames, self.size, self.size, 3))

    def rebuilt(self, clip):
        """Frames of any size and number -> what an autoencoder makes of each."""
        before, after = (one_class.pixels(self.model, out) for out in self.opened(self.small(clip), training=False)[:2])
        shape = (tf.shape(clip)[0], -1, self.size, self.size)
        error = tf.reduce_mean(tf.abs(before - after), axis=-1)
        after = tf.cast(tf.round(tf.clip_by_value(after, 0.0, 255.0)), tf.uint8)
        return {"reconstruction": tf.reshape(after, (*shape, 3)), "error": tf.reshape(error, shape)}

    def files(self, image):
        """Encoded images."""
        small = tf.map_fn(
            lambda data: graph.resize(graph.decode(data)[None], self.size), image,
            fn_output_signature=tf.TensorSpec((1, self.size, self.size, 3), tf.uint8),
        )  # fmt: skip
        return self.answer(small)

    def answer(self, inputs, files=None, model=None):
        """Of single inputs, or of `files` files the mean over their frames; by a part of the model if one is given."""
        out, said = (model or self.model)(inputs, training=False), {}
        if self.texts:
            out, number = out
            number = number if files is None else tf.reshape(number, (files, -1))
            number = number if files is None else number[:, tf.shape(number)[1] // 2]
            said = {"text": tf.gather(tf.constant(self.texts), number)}
        if self.classes:
            out = tf.concat([out[:, :1], tf.nn.softmax(out[:, 1:])], axis=1)
        out = out if files is None else tf.reduce_mean(tf.reshape(out, (files, -1, 1 + len(self.classes))), axis=1)
        # A file's score is the mean of its frames', then comes the calibration: `predictions.by_file` does the same. The
        # decision compares log-odds, since float32 probabilities near 1 are all the same.
        odds = self.calibration["slope"] * out[:, 0] + self.calibration["intercept"]
        fake = odds >= float(logit(self.calibration["threshold"]))
        sources = {"source": out[:, 1:], "source_name": tf.constant(list(self.classes))} if self.classes else {}
        return {"score": out[:, 0], "probability": tf.sigmoid(odds), "fake": fake, **sources, **said}


def worded(model):
    """(model, its texts): one that joins pictures with texts gives the numbers of these too."""
    for layer in model.layers:
        if isinstance(layer, ClosestText):
            return keras.Model(model.inputs, [model.outputs[0], layer.output[1]]), layer.texts
    return model, []


def picked(total, frames):
    """Indices of `frames` frames evenly over 0..total-1, as `media.pick` takes them."""
    if frames == 1:
        return [total // 2]
    last = tf.cast(total - 1, tf.float64)
    return tf.cast(tf.round(tf.linspace(tf.constant(0, tf.float64), last, frames)), tf.int32)
