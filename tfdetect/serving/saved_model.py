"""Load a SavedModel. TensorFlow is imported without Keras, which takes as long to import and which a SavedModel does not need."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import get_ident
from types import ModuleType
from typing import Any

import numpy as np

from tfdetect import files, installation
from tfdetect.errors import UserError

LAST_IMPORT = "keras.src.optimizers"  # what `import tensorflow` imports at its end, if it is there
WARM_UP_REQUESTS = "assets.extra/tf_serving_warmup_requests"  # `warmup` writes it


def import_tensorflow() -> ModuleType:
    """Return TensorFlow, imported without Keras unless something else imports that."""
    if "tensorflow" in sys.modules:
        return importlib.import_module("tensorflow")
    import_module, thread = importlib.import_module, get_ident()

    def import_all_but_keras(name: str, package: str | None = None) -> ModuleType:
        if name == LAST_IMPORT and get_ident() == thread:
            raise ImportError(name)  # which TensorFlow expects where Keras is not installed
        return import_module(name, package)

    importlib.import_module = import_all_but_keras
    try:
        import tensorflow as tf
    finally:
        importlib.import_module = import_module
    return tf


def load_saved_model(folder: Path) -> Any:
    """Load the SavedModel in `folder`. Raises UserError if it is damaged; TensorFlow raises many different types for that."""
    tf = import_tensorflow()
    try:
        with files.tensorflow_path(folder) as path:
            return tf.saved_model.load(path)
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise
    except Exception as error:
        raise UserError(f"{folder} is not a complete SavedModel; re-export it with "
                        f"{installation.command('export', folder.parent)}.") from error  # fmt: skip


def call_signature(signature: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Call a signature of a SavedModel with arrays by the names of its inputs; return its outputs by name."""
    tf = import_tensorflow()
    outputs = signature(**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in outputs.items()}


def signature_defs(folder: Path) -> dict[str, Any]:
    """Return the signatures of a SavedModel by name as JSON, as TensorFlow Serving's /metadata shows them."""
    import_tensorflow()
    from google.protobuf.json_format import MessageToDict
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    found = SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0].signature_def
    return {name: MessageToDict(found[name], always_print_fields_with_no_presence=True, preserving_proto_field_name=True)
            for name in sorted(found) if not name.startswith("__")}  # fmt: skip  # that one only initialises the model


def warm_up(folder: Path, model: Any) -> None:
    """Call the signatures of a SavedModel that was loaded from `folder`, with the requests that it holds for that or else small
    pictures: the first call of each is slow."""
    tf = import_tensorflow()
    for name, inputs in _warm_up_requests(folder) or [(name, _small_inputs(each)) for name, each in model.signatures.items()]:
        model.signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})


def _warm_up_requests(folder: Path) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Return (signature, inputs) of each request that TensorFlow Serving replays when it loads this SavedModel."""
    if not (path := folder / WARM_UP_REQUESTS).exists():
        return []
    tf = import_tensorflow()
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    logs = [PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    return [(each.predict_log.request.model_spec.signature_name,
             {key: tf.make_ndarray(value) for key, value in each.predict_log.request.inputs.items()})
            for each in logs]  # fmt: skip


def _small_inputs(signature: Any) -> dict[str, Any]:
    """Return inputs of a signature, for one file of one frame of 64 x 64 pixels."""
    tf = import_tensorflow()
    picture, inputs = tf.zeros((64, 64, 3), tf.uint8), {}
    for key, spec in signature.structured_input_signature[1].items():
        sizes = spec.shape.as_list()
        sizes = (1, 1, 64, 64, 3) if len(sizes) == 5 else [size or 1 for size in sizes]
        inputs[key] = tf.io.encode_png(picture)[None] if spec.dtype == tf.string else tf.zeros(sizes, spec.dtype)
    return inputs
