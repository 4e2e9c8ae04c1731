"""Export a trained model as a SavedModel whose inputs are what a user has.

`serving_default` takes uint8 RGB frames of any size and number, (batch, frames, height, width, 3) in 0..255. It returns
`score` and `probability` of being fake, both (batch,) float32, `fake`, (batch,) bool, the decision at the run's threshold, and
`inconclusive`, (batch,) bool: whether the score lies in the run's band, so that the verdict is neither real nor fake.
Where the run knows what its training files were like (`evaluation.familiarity`), there are `familiarity`, (batch,) float32, the
p-value of being like them, `unfamiliar`, (batch,) bool, whether it is at most the run's level, which makes the verdict
inconclusive, too, the reasons `other_content` and `other_processing`, (batch,) bool, and the distances they were decided by,
`content_distance` and `processing_distance`, (batch,) float32. `serve_features`, which gets no pixels, does not return them.
Further outputs and signatures depend on the detector:

Frames of any size become squares as in training, by the run's --data.fit; the score is then that of all frames and crops,
combined by the run's --evaluate.aggregate.

- Frame detectors have `serve_bytes`, which takes encoded JPEG, PNG, WebP, GIF or BMP images, (batch,) string, and also
  returns `error`, (batch,) string: why an image could not be decoded, or "".
- Detectors that attribute fakes to sources also return `source`, (batch, sources) float32, the probability of each source
  given that the file is fake, and `source_name`, (sources,) string.
- Detectors that match images with texts also return `text`, (batch,) string: the closest training text, for a clip that of
  its middle frame.
- Detectors with a frozen backbone have `serve_features`, which takes the features of single images, (batch, n) float32, or
  for a clip detector those of all frames of a clip, one frame after the other, (batch, frames x n).
- Autoencoders have `serve_reconstruction`, which takes frames and returns `reconstruction`, (batch, frames, size, size, 3)
  uint8, and `error`, (batch, frames, size, size) float32: the absolute error per pixel in grey levels of 0..255, averaged
  over the channels.

A run trained on faces has no `serve_bytes`, since no face detector runs in the graph. `serve_face_crop` takes face crops under
the input name `face_crop`, as does `serving_default`, which Keras adds as an alias.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdetect import backend, files
from tfdetect.data.media import tf_decode, tf_images
from tfdetect.data.media.tf_images import evenly_spaced_indices
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.detector import Detector
from tfdetect.evaluation.aggregation import MEAN, frame_rule
from tfdetect.evaluation.calibration import Calibration
from tfdetect.evaluation.familiarity import DISTANCES, Familiarity
from tfdetect.models import autoencoder
from tfdetect.models.layers import common
from tfdetect.models.layers.heads import ClosestText
from tfdetect.models.pretrained.weight_files import flat_layers
from tfdetect.models.vectors import WithVectors
from tfdetect.serving import aggregation
from tfdetect.serving.verdict_graph import familiarity_outputs, verdict_outputs

DEFAULT, FACE_CROP, BYTES, FEATURES, RECONSTRUCTION = (
    "serving_default", "serve_face_crop", "serve_bytes", "serve_features", "serve_reconstruction")  # fmt: skip
FAMILIARITY = ("familiarity", "unfamiliar", "other_content", "other_processing")
SERVING_NOTES = "SERVING.md"


def export(model: keras.Model, calibration: Mapping[str, Any], detector: Detector, target: Path,
           clip_spec: ClipSpec | None = None, aggregate: str = MEAN,
           familiarity: Familiarity | None = None) -> tf.Graph:  # fmt: skip
    """Write the SavedModel to the folder `target`, atomically, and SERVING.md beside it; return the graph of the model's scores.

    `calibration` is the content of calibration.json, at least slope, intercept and threshold. `clip_spec` says how the run makes
    clips of files; the default is one frame per file. `aggregate` says how the scores of frames become that of a file, and
    `familiarity`, where it is known, what the training files were like. Raises UserError on another Keras backend than
    TensorFlow.
    """
    backend.require_tensorflow("A SavedModel")
    clip_spec = clip_spec or ClipSpec(1, model.input_shape[2])
    fitted = Calibration.from_dict(calibration)
    functions = ServingFunctions(*split_text_output(model), fitted, detector, clip_spec, aggregate, familiarity)
    descriptions = describe_signatures(detector, clip_spec, familiarity)
    frames = tf.TensorSpec((None, None, None, None, 3), tf.uint8, frames_input_name(clip_spec))
    endpoints = {DEFAULT: (functions.predict_frames, frames), FACE_CROP: (functions.predict_frames, frames),
                 RECONSTRUCTION: (functions.reconstruct, frames),
                 BYTES: (functions.predict_images, tf.TensorSpec((None,), tf.string, "image"))}  # fmt: skip
    if FEATURES in descriptions:
        head = common.submodel_from(functions.model, "features")
        call_head, spec = trace(head), tf.TensorSpec((None, head.input_shape[-1]), tf.float32, "features")
        endpoints[FEATURES] = (lambda features: functions.predict(features, call=call_head), spec)
    signatures = {name: tf.function(function, autograph=False).get_concrete_function(spec)
                  for name, (function, spec) in endpoints.items() if name in descriptions}  # fmt: skip
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".part-"))
    try:
        with files.tensorflow_path(temporary) as folder:
            save(f"{folder}/1", model, signatures)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary / "1", target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    notes = format_serving_notes(descriptions, clip_spec, fitted, familiarity, target.name)
    files.write_bytes(target.parent / SERVING_NOTES, notes.encode())
    return functions.call.graph


def save(folder: str, model: keras.Model, signatures: Mapping[str, Any]) -> None:
    """Write concrete functions as a SavedModel, with the variables and lookup tables that they use.

    `keras.export.ExportArchive` would trace each function twice and write each weight twice.
    """
    module = tf.Module()
    module.used = list({id(used): used for function in signatures.values() for used in function.variables}.values())
    module.tables = [value for layer in flat_layers(model) for value in vars(layer).values()
                     if isinstance(value, tf.saved_model.experimental.TrackableResource)]  # fmt: skip
    for name, function in signatures.items():
        setattr(module, name, function)
    default = signatures.get(DEFAULT) or next(iter(signatures.values()))  # for servers that do not choose a signature
    tf.saved_model.save(module, folder, {DEFAULT: default, **signatures})


def trace(model: keras.Model, call: Callable[..., Any] | None = None) -> Any:
    """Return a model's call as one concrete function: all signatures share it, so it is traced and written once.

    `call` is called in its place, with the same inputs.
    """
    inputs, function = tf.TensorSpec((None, *model.input_shape[1:]), model.inputs[0].dtype), call or model
    return tf.function(lambda x: function(x, training=False), autograph=False).get_concrete_function(inputs)


def frames_input_name(clip_spec: ClipSpec) -> str:
    """Return the name of the input that takes frames."""
    return "face_crop" if clip_spec.faces else "clip"


def describe_signatures(detector: Detector, clip_spec: ClipSpec, familiarity: Familiarity | None = None) -> dict[str, str]:
    """Map the name of each signature to a description of its inputs and outputs.

    There is no `serve_bytes` for runs on faces or equalised files: the graph cannot find faces or compress files as
    `predict` does.
    """
    name = frames_input_name(clip_spec)
    content = "RGB, any size and number of frames"
    squares = "frames, size" if clip_spec.fit.crops == 1 else "frames x crops, size"
    if clip_spec.faces:
        content = "square crops of one face, see docs/faces.md of tfdetect"
    outputs = verdict = "score, probability, fake, inconclusive (batch,)"
    if familiarity:
        outputs = verdict.replace(" (batch,)", f", {', '.join(FAMILIARITY)}, {', '.join(DISTANCES)} (batch,)")
    signature = FACE_CROP if clip_spec.faces else DEFAULT
    descriptions = {signature: f"{name}, uint8 (batch, frames, height, width, 3), {content} -> {outputs}"}
    if detector.input_kind == "frame" and not clip_spec.faces and not clip_spec.plan:
        descriptions[BYTES] = f"image, encoded JPEG, PNG, WebP, GIF or BMP, (batch,) string -> {outputs}, error (batch,) string"
    if detector.caches_features:
        features = "(batch, n), the output of the backbone"
        if detector.input_kind == "clip":
            features = f"(batch, {clip_spec.frames} x n), the outputs of the frame model, one frame after the other"
        descriptions[FEATURES] = f"features, float32 {features} -> {verdict}"
    if detector.reconstructs:
        descriptions[RECONSTRUCTION] = f"{name} -> reconstruction, uint8 (batch, {squares}, size, 3), and error"
    return descriptions


def format_serving_notes(descriptions: Mapping[str, str], clip_spec: ClipSpec, calibration: Calibration,
                         familiarity: Familiarity | None = None, folder: str = "1") -> str:  # fmt: skip
    """Return the text of SERVING.md, which is written beside the `folder` of the SavedModel."""
    lines = [f"- `{name}`: {text}" for name, text in descriptions.items()]
    lines += ["", describe_verdicts(calibration), *(["", describe_familiarity(familiarity)] if familiarity else [])]
    side, fit = clip_spec.size, clip_spec.fit
    squares = {"squeeze": f"resized to {side} x {side} pixels, whatever its aspect ratio",
               "shortest_side": f"resized so that its shorter side has {side} pixels, and cropped to the central square",
               "crop": f"cropped to {side} x {side} native pixels, at its centre" if fit.crops == 1 else
                       f"cropped to at most {fit.crops} squares of {side} x {side} native pixels, whose scores are combined",
               "pad": f"resized so that its longer side has {side} pixels, and extended to a square by reflection"}  # fmt: skip
    frame = "face crop" if clip_spec.faces else "frame"
    lines += ["", f"Each {frame} is {squares[fit.mode]} (`--data.fit {fit.mode}`), by `predict` and by the SavedModel alike."]
    if clip_spec.faces:
        lines += [f"- `{DEFAULT}`: an alias of `{FACE_CROP}`, for servers that do not choose a signature", "",
                  "This detector was trained on face crops. `predict` finds and crops the face of each file; the SavedModel "
                  "expects crops, and its score for a whole image is meaningless."]  # fmt: skip
    if clip_spec.all_faces:
        lines += ["", "`predict` scores each face of a file and combines their scores (`--evaluate.aggregate`); a clip of the "
                  "SavedModel shows one face, and its score is that of this face."]  # fmt: skip
    if clip_spec.plan:
        lines += ["", "This detector was trained on equalised files. `predict` equalises each file first; the SavedModel expects "
                  f"frames of equalised files: the central {clip_spec.plan.crop} x {clip_spec.plan.crop} pixels, compressed as "
                  f"JPEG of quality {clip_spec.plan.quality} or as a video, see docs/equalise.md of tfdetect."]  # fmt: skip
    return "\n".join([f"# Signatures of the SavedModel in `{folder}/`", "", *lines, ""])


def describe_verdicts(calibration: Calibration) -> str:
    """Return what `probability`, `fake` and `verdict` mean for a run, as a paragraph."""
    share = "" if calibration.prevalence is None else f" where a share of {calibration.prevalence:g} of the files is fake"
    text = (f"`probability` is that of being fake{share}, calibrated on validation files by the method `{calibration.method}`. "
            f"`fake` is true from {calibration.threshold:.4g} on.")  # fmt: skip
    if not (band := calibration.band):
        return f"{text} No score is `inconclusive`: there is no band."
    errors = f"{100 * (1 - band.coverage):.3g} %"
    return (f"{text} Where `inconclusive` is true, the verdict is neither real nor fake, whatever `fake` says. Of files like "
            f"those of validation, at most {errors} of the real ones are called fake otherwise, and at most {errors} of the "
            "fakes real.")  # fmt: skip


def describe_familiarity(familiarity: Familiarity) -> str:
    """Return what `familiarity` and `unfamiliar` mean for a run, as a paragraph."""
    when = f"true where it is at most {familiarity.level:g}, and so is `inconclusive` then" if familiarity.level else "never true"
    return ("`familiarity` is the p-value of a file being like the training files, uniform in 0..1 for files like those of "
            f"validation. `unfamiliar` is {when}. `other_content` and `other_processing` say why: by what the network sees in a "
            "clip, or by statistics of its pixels such as sharpness and noise.")  # fmt: skip


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
        """Return the autoencoder's reconstruction of each frame and its error per pixel; see the module docstring."""
        outputs = self.reconstruction_model(self.fit_clips(clip), training=False)[:2]
        before, after = (autoencoder.to_pixels(self.model, output) for output in outputs)
        shape = (tf.shape(clip)[0], -1, self.size, self.size)
        error = tf.reduce_mean(tf.abs(before - after), axis=-1)
        after = tf.cast(tf.round(tf.clip_by_value(after, 0.0, 255.0)), tf.uint8)
        return {"reconstruction": tf.reshape(after, (*shape, 3)), "error": tf.reshape(error, shape)}

    def predict_images(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Score encoded images, (batch,) string; one that cannot be decoded gets NaN and an `error`, without affecting others."""
        spec = self.spec
        rows, squares, error = tf_images.decode_images(image, self.to_squares, spec.frames, spec.fps, spec.limits, spec.fit.crops)
        outputs = self.predict(squares[:, None], rows=rows, num_files=tf.shape(image)[0])
        failed = error != ""
        numbers = {name: tf.where(failed, np.nan, outputs[name])
                   for name in ("score", "probability", "familiarity", *DISTANCES) if name in outputs}  # fmt: skip
        decisions = {name: value & ~failed for name, value in outputs.items() if value.dtype == tf.bool}
        return {**outputs, **numbers, **decisions, "error": error}

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
        sources = {"source": output[:, 1:end], "source_name": tf.constant(list(self.classes))} if self.classes else {}
        verdict = dict(verdict_outputs(self.calibration, score))
        if distances and self.familiarity:
            verdict |= {**familiarity_outputs(self.familiarity, *distances.values()), **distances}
            verdict["inconclusive"] |= verdict["unfamiliar"]
        return {"score": score, **verdict, **sources, **text}


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
