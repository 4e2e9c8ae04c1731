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
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfdetect import backend, files
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.detector import Detector
from tfdetect.evaluation.aggregation import MEAN
from tfdetect.evaluation.calibration import Calibration
from tfdetect.evaluation.familiarity import Familiarity
from tfdetect.models.layers import common
from tfdetect.models.pretrained.weight_files import flat_layers
from tfdetect.serving import explain_graph, serving_config, warmup
from tfdetect.serving.functions import ServingFunctions, split_text_output, trace
from tfdetect.serving.notes import (
    BYTES,
    DEFAULT,
    EXPLAIN,
    FACE_CROP,
    FEATURES,
    RECONSTRUCTION,
    SERVING_NOTES,
    describe_signatures,
    format_serving_notes,
    frames_input_name,
)


def export(model: keras.Model, calibration: Mapping[str, Any], detector: Detector, target: Path,
           clip_spec: ClipSpec | None = None, aggregate: str = MEAN,
           familiarity: Familiarity | None = None) -> tf.Graph:  # fmt: skip
    """Write the SavedModel to the folder `target`, atomically, with SERVING.md and the configuration of TensorFlow Serving beside
    it; return the graph of the model's scores.

    `calibration` is the content of calibration.json, at least slope, intercept and threshold. `clip_spec` says how the run makes
    clips of files; the default is as many frames of a file as the model takes. `aggregate` says how the scores of frames become
    that of a file, and `familiarity`, where it is known, what the training files were like. Raises UserError on another Keras
    backend than TensorFlow.
    """
    backend.require_tensorflow("A SavedModel")
    clip_spec = replace(clip_spec or ClipSpec(*model.input_shape[1:3]), still=detector.input_kind == "clip")
    fitted, name = Calibration.from_dict(calibration), serving_config.model_name(target.parent)
    functions = ServingFunctions(*split_text_output(model), fitted, detector, clip_spec, aggregate, familiarity)
    descriptions = describe_signatures(detector, clip_spec, familiarity)
    errors = lambda clips: functions.reconstruction(clips)[1]  # noqa: E731
    method, heat_maps, instead = explain_graph.make(model, detector, functions.score, errors)
    signatures = make_signatures(functions, method, heat_maps, descriptions)
    inputs = {name: function.structured_input_signature[0][0] for name, function in signatures.items()}
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".part-"))
    try:
        with files.tensorflow_path(temporary) as folder:
            save(f"{folder}/1", model, signatures)
            warmup.write(f"{folder}/1", warmup.requests(name, inputs, clip_spec))
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary / "1", target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    notes = format_serving_notes(descriptions, clip_spec, fitted, method, familiarity, target.name, instead)
    files.write_bytes(target.parent / SERVING_NOTES, notes.encode())
    serving_config.write(target.parent, name)
    return functions.call.graph


def make_signatures(functions: ServingFunctions, method: str, heat_maps: explain_graph.HeatMaps,
                    names: Mapping[str, str]) -> dict[str, Any]:  # fmt: skip
    """Return the concrete functions of the signatures with these names; `method` and `heat_maps` are those of `explain`."""
    frames = tf.TensorSpec((None, None, None, None, 3), tf.uint8, frames_input_name(functions.spec))
    endpoints: dict[str, Any] = {
        DEFAULT: (functions.predict_frames, frames), FACE_CROP: (functions.predict_frames, frames),
        BYTES: (functions.predict_images, tf.TensorSpec((None,), tf.string, "image")),
        EXPLAIN: (lambda clip: functions.explain(clip, method, heat_maps), frames),
        RECONSTRUCTION: (functions.reconstruct, frames)}  # fmt: skip
    if FEATURES in names:
        head = common.submodel_from(functions.model, "features")
        call_head, spec = trace(head), tf.TensorSpec((None, head.input_shape[-1]), tf.float32, "features")
        endpoints[FEATURES] = (lambda features: functions.predict(features, call=call_head), spec)
    return {name: tf.function(function, autograph=False).get_concrete_function(spec)
            for name, (function, spec) in endpoints.items() if name in names}  # fmt: skip


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
