"""Requests with which TensorFlow Serving warms a model up while it loads it, so that the first user does not wait for that.

The server replays `assets.extra/tf_serving_warmup_requests` of a SavedModel, a TFRecord of `PredictionLog`; see
https://www.tensorflow.org/tfx/serving/saved_model_warmup. Equal exports write equal bytes.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.serving.notes import EXPLAIN
from tfdetect.serving.saved_model import WARM_UP_REQUESTS


def requests(name: str, inputs: Mapping[str, tf.TensorSpec], spec: ClipSpec) -> Iterator[predict_pb2.PredictRequest]:
    """Yield a request of one row for each signature of the model called `name`, from its input.

    None is for `explain`, which takes many times as long as a score. The pictures are colours that change slowly.
    """
    for signature, given in inputs.items():
        if signature == EXPLAIN:
            continue
        values: Any
        if given.dtype == tf.string:
            values = [tf.io.encode_jpeg(picture(2 * spec.size)).numpy()]
        elif given.dtype == tf.uint8:
            values = np.repeat(picture(spec.size)[None, None], spec.frames, axis=1)
        else:
            values = np.zeros((1, given.shape[-1]), np.float32)
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = name, signature
        request.inputs[given.name].CopyFrom(tf.make_tensor_proto(values, given.dtype))
        yield request


def picture(size: int) -> np.ndarray:
    """Return a picture (size, size, 3) uint8."""
    ramp = np.linspace(32, 223, size)
    return np.stack(np.broadcast_arrays(ramp[:, None], ramp, ramp[::-1, None]), axis=-1).astype(np.uint8)


def write(saved_model: str, found: Iterable[predict_pb2.PredictRequest]) -> None:
    """Write the requests into the folder of a SavedModel."""
    os.makedirs(os.path.dirname(f"{saved_model}/{WARM_UP_REQUESTS}"))
    with tf.io.TFRecordWriter(f"{saved_model}/{WARM_UP_REQUESTS}") as file:
        for request in found:
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            file.write(log.SerializeToString(deterministic=True))
