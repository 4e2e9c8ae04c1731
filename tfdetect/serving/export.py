"""A trained model -> a SavedModel whose inputs are what a user has.

`serving_default` takes uint8 frames of any size and number, (batch, frames, height, width, 3) RGB 0..255; image
detectors also have `serve_bytes`, which takes encoded JPEG, PNG or WebP, (batch,) string. Both return `score` and
`probability` of being fake, (batch,) float32. A detector of sources also returns `source`, (batch, sources) float32, how likely
a fake is of each, and `source_name`, (sources,) string. One that joins pictures with texts also returns `text`, (batch,)
string: the closest of its training texts, of several frames that of the middle one. A detector with a frozen first part has
`serve_features` besides, which takes what that part makes of pictures, (batch, n) float32.
"""

import os
import shutil
import tempfile
from pathlib import Path

import keras
import tensorflow as tf

from tfdetect import backend
from tfdetect.data import graph
from tfdetect.detector import Detector
from tfdetect.models import layers
from tfdetect.models.head_layers import ClosestText


def export(model: keras.Model, calibration: dict[str, float], detector: Detector, target: Path) -> None:
    """Write the SavedModel, whole or not at all. `calibration` has slope and intercept. ValueError on another backend than
    TensorFlow."""
    backend.require_tensorflow("A SavedModel")
    single, classes = detector.sees == "frame", detector.classes
    model, texts = worded(model)
    archive = keras.export.ExportArchive()
    archive.track(model)
    frames, size = model.input_shape[1:3]

    def answer(clips, files=None, model=model):
        """Of single clips, or of `files` files the mean over their frames."""
        out, said = model(clips, training=False), {}
        if texts:
            out, number = out
            number = number if files is None else tf.reshape(number, (files, -1))
            number = number if files is None else number[:, tf.shape(number)[1] // 2]
            said = {"text": tf.gather(tf.constant(texts), number)}
        out = tf.concat([out[:, :1], tf.nn.softmax(out[:, 1:])], axis=1) if classes else out
        out = out if files is None else tf.reduce_mean(tf.reshape(out, (files, -1, 1 + len(classes))), axis=1)
        probability = tf.sigmoid(calibration["slope"] * out[:, 0] + calibration["intercept"])
        sources = {"source": out[:, 1:], "source_name": tf.constant(list(classes))} if classes else {}
        return {"score": out[:, 0], "probability": probability, **sources, **said}

    def serve(clip):
        shape = tf.shape(clip)
        if not single:
            clip = tf.gather(clip, picked(shape[1], frames), axis=1)
            shape = tf.shape(clip)
        small = graph.resize(tf.reshape(clip, tf.concat([[shape[0] * shape[1]], shape[2:]], 0)), size)
        return answer(tf.reshape(small, (-1, frames, size, size, 3)), shape[0] if single else None)

    def serve_bytes(image):
        small = tf.map_fn(
            lambda data: graph.resize(graph.decode(data)[None], size), image,
            fn_output_signature=tf.TensorSpec((1, size, size, 3), tf.uint8),
        )  # fmt: skip
        return answer(small)

    archive.add_endpoint("serving_default", serve, [tf.TensorSpec((None, None, None, None, 3), tf.uint8, "clip")])
    if single:
        archive.add_endpoint("serve_bytes", serve_bytes, [tf.TensorSpec((None,), tf.string, "image")])
    if detector.stored:
        rest = layers.after(model, "features")
        archive.track(rest)
        spec = tf.TensorSpec((None, rest.input_shape[-1]), tf.float32, "features")
        archive.add_endpoint("serve_features", lambda features: answer(features, model=rest), [spec])
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".part-"))
    try:
        archive.write_out(str(temporary / "1"), verbose=False)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary / "1", target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
