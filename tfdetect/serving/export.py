"""A trained model -> a SavedModel whose inputs are what a user has.

`serving_default` takes uint8 frames of any size and number, (batch, frames, height, width, 3) RGB 0..255; image
detectors also have `serve_bytes`, which takes encoded JPEG, PNG, WebP, GIF or BMP, (batch,) string. Both return `score` and
`probability` of being fake, (batch,) float32, and `fake`, (batch,) bool, the decision at the run's threshold. A detector of
sources also returns `source`, (batch, sources) float32, how likely a fake is of each, and `source_name`, (sources,) string. One
that joins pictures with texts also returns `text`, (batch,) string: the closest of its training texts, of several frames that
of the middle one. A detector with a frozen first part has `serve_features` besides, which takes what that part makes of
pictures, (batch, n) float32. An autoencoder has `serve_reconstruction`, which takes frames and returns what it makes of them,
`reconstruction` (batch, frames, size, size, 3) uint8, and `error` (batch, frames, size, size) float32, how far that is off, in
grey levels of 0..255, as a mean over channels.

A run that judges faces has no `serve_bytes`, for the graph finds no face: `serve_face_crop` takes crops, under the name
`face_crop`, and so does `serving_default`, which Keras adds.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from scipy.special import logit

from tfdetect import backend, files
from tfdetect.data.media import tf_decode, tf_images
from tfdetect.data.media.tf_images import evenly_spaced_indices
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.detector import Detector
from tfdetect.models import autoencoder
from tfdetect.models.layers import common
from tfdetect.models.layers.heads import ClosestText

DEFAULT, FACE_CROP, BYTES, FEATURES, RECONSTRUCTION = ("serving_default", "serve_face_crop", "serve_bytes", "serve_features",
                                          "serve_reconstruction")  # fmt: skip
SERVING_NOTES = "SERVING.md"


def export(model: keras.Model, calibration: Mapping[str, float], detector: Detector, target: Path,
           view: ClipSpec | None = None) -> None:  # fmt: skip
    """Write the SavedModel, whole or not at all. `calibration` has slope, intercept and threshold; `view` says how the run looks
    at files, by default at one frame each. ValueError on another backend than TensorFlow."""
    backend.require_tensorflow("A SavedModel")
    view = view or ClipSpec(1, model.input_shape[2])
    served = ServingFunctions(*split_text_output(model), calibration, detector, view)
    archive = keras.export.ExportArchive()
    archive.track(model)
    said = describe_signatures(detector, view)
    frames = [tf.TensorSpec((None, None, None, None, 3), tf.uint8, frames_input_name(view))]
    functions = {DEFAULT: (served.clips, frames), FACE_CROP: (served.clips, frames), RECONSTRUCTION: (served.rebuilt, frames),
                 BYTES: (served.files, [tf.TensorSpec((None,), tf.string, "image")])}  # fmt: skip
    if FEATURES in said:
        rest = common.submodel_from(served.model, "features")
        archive.track(rest)
        spec = tf.TensorSpec((None, rest.input_shape[-1]), tf.float32, "features")
        functions[FEATURES] = (lambda features: served.answer(features, model=rest), [spec])
    for name in said:
        archive.add_endpoint(name, *functions[name])
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".part-"))
    try:
        with files.tensorflow_path(temporary) as folder:
            archive.write_out(f"{folder}/1", verbose=False)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary / "1", target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    files.write_bytes(target.parent / SERVING_NOTES, format_serving_notes(said, view).encode())


def frames_input_name(view: ClipSpec) -> str:
    """The name of the input that takes frames."""
    return "face_crop" if view.faces else "clip"


def describe_signatures(detector: Detector, view: ClipSpec) -> dict[str, str]:
    """By name, what each takes and gives. One that cannot do to a file what `predict` does to it is left out: no graph finds the
    face in a picture, or compresses it as the training files were."""
    name = frames_input_name(view)
    what = "square crops of one face, as docs/faces.md has them" if view.faces else "RGB, any size and number of frames"
    answer = "score, probability, fake (batch,)"
    out = {FACE_CROP if view.faces else DEFAULT: f"{name}, uint8 (batch, frames, height, width, 3), {what} -> {answer}"}
    if detector.input_kind == "frame" and not view.faces and not view.plan:
        out[BYTES] = f"image, encoded JPEG, PNG, WebP, GIF or BMP, (batch,) string -> {answer}, error (batch,) string"
    if detector.caches_features:
        out[FEATURES] = f"features, float32 (batch, n), as the backbone gives them -> {answer}"
    if detector.reconstructs:
        out[RECONSTRUCTION] = f"{name} -> reconstruction, uint8 (batch, frames, size, size, 3), and error"
    return out


def format_serving_notes(said: Mapping[str, str], view: ClipSpec) -> str:
    """What stands beside the SavedModel."""
    lines = [f"- `{name}`: {what}" for name, what in said.items()]
    if view.faces:
        lines += [f"- `{DEFAULT}`: the same as `{FACE_CROP}`, for servers that ask for no name", "", "This run judges faces. `predict` "
                  "finds and cuts them out of a file; the SavedModel does not: it wants the crops, and a whole picture in their "
                  "place gets a score that means nothing."]  # fmt: skip
    if view.plan:
        lines += ["", "This run learnt from equalised files, and `predict` makes others like them; the SavedModel does not. It "
                  f"wants frames of such copies: the middle {view.plan.crop} pixels, as JPEG of quality {view.plan.quality} or "
                  "in a video, as docs/equalise.md has it."]  # fmt: skip
    return "\n".join(["# Signatures of the SavedModel in `1/`", "", *lines, ""])


class ServingFunctions:
    """The signatures' functions."""

    def __init__(self, model: keras.Model, texts: Sequence[str], calibration: Mapping[str, float], detector: Detector,
                 view: ClipSpec):  # fmt: skip
        self.model, self.texts, self.calibration, self.spec = model, texts, calibration, view
        self.is_frame_detector, self.classes = detector.input_kind == "frame", detector.classes
        self.frames, self.size = model.input_shape[1:3]
        self.opened = autoencoder.reconstruction_model(model) if detector.reconstructs else None

    def clips(self, clip):
        """Frames of any size and number, or crops of faces."""
        return self.answer(self.small(clip), tf.shape(clip)[0] if self.is_frame_detector else None)

    def small(self, clip):
        """The same as the model takes them; for a frame detector each frame is one clip."""
        if not self.is_frame_detector:
            clip = tf.gather(clip, evenly_spaced_indices(tf.shape(clip)[1], self.frames), axis=1)
        shape = tf.shape(clip)
        small = tf_decode.resize(tf.reshape(clip, tf.concat([[shape[0] * shape[1]], shape[2:]], 0)), self.size)
        return tf.reshape(small, (-1, self.frames, self.size, self.size, 3))

    def rebuilt(self, clip):
        """Frames of any size and number -> what an autoencoder makes of each."""
        before, after = (autoencoder.to_pixels(self.model, out) for out in self.opened(self.small(clip), training=False)[:2])
        shape = (tf.shape(clip)[0], -1, self.size, self.size)
        error = tf.reduce_mean(tf.abs(before - after), axis=-1)
        after = tf.cast(tf.round(tf.clip_by_value(after, 0.0, 255.0)), tf.uint8)
        return {"reconstruction": tf.reshape(after, (*shape, 3)), "error": tf.reshape(error, shape)}

    def files(self, image):
        """Encoded images, each with its own row, whatever becomes of the others."""
        view = self.spec
        rows, small, error = tf_images.pictures(image, lambda frames: tf_decode.resize(frames, self.size), view.frames, view.fps,
                                                   view.limits)  # fmt: skip
        out = self.answer(small[:, None], rows=rows, count=tf.shape(image)[0])
        bad = error != ""
        numbers = {name: tf.where(bad, np.nan, out[name]) for name in ("score", "probability")}
        return {**out, **numbers, "fake": out["fake"] & ~bad, "error": error}

    def answer(self, inputs, files=None, model=None, rows=None, count=None):
        """Of single inputs, or of `files` files the mean over their frames; by a part of the model if one is given. With `rows`,
        which says of which of `count` files each input is, files may have any number of frames, or none."""
        out, said = (model or self.model)(inputs, training=False), {}
        if self.texts:
            out, number = out
            said = {"text": tf.gather(tf.constant(self.texts), select_middle_frames(number, files, rows, count))}
        if self.classes:
            out = tf.concat([out[:, :1], tf.nn.softmax(out[:, 1:])], axis=1)
        if rows is not None:
            out = tf.math.unsorted_segment_mean(out, rows, count)
        elif files is not None:
            out = tf.reduce_mean(tf.reshape(out, (files, -1, 1 + len(self.classes))), axis=1)
        # A file's score is the mean of its frames', then comes the calibration: `predictions.by_file` does the same. The
        # decision compares log-odds, since float32 probabilities near 1 are all the same.
        odds = self.calibration["slope"] * out[:, 0] + self.calibration["intercept"]
        fake = odds >= float(logit(self.calibration["threshold"]))
        sources = {"source": out[:, 1:], "source_name": tf.constant(list(self.classes))} if self.classes else {}
        return {"score": out[:, 0], "probability": tf.sigmoid(odds), "fake": fake, **sources, **said}


def select_middle_frames(number, files=None, rows=None, count=None):
    """What `number` (inputs,) is for the middle frame of each file; `Served.answer` says what the others are."""
    if rows is not None:
        place = tf.range(tf.size(number))
        first, frames = tf.math.unsorted_segment_min(place, rows, count), tf.math.bincount(rows, minlength=count, maxlength=count)
        return tf.gather(tf.concat([number, [0]], 0), tf.where(frames > 0, first + frames // 2, tf.size(number)))
    if files is None:
        return number
    number = tf.reshape(number, (files, -1))
    return number[:, tf.shape(number)[1] // 2]


def split_text_output(model):
    """(model, its texts): one that joins pictures with texts gives the numbers of these too."""
    for layer in model.layers:
        if isinstance(layer, ClosestText):
            return keras.Model(model.inputs, [model.outputs[0], layer.output[1]]), layer.texts
    return model, []
