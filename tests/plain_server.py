"""Stands in for TensorFlow Serving: answers recorded requests with TensorFlow alone, by its two loaders of SavedModels.

`python plain_server.py LOADER FOLDER`: the folder holds a SavedModel `1` and a TFRecord `requests` of PredictRequest. A TFRecord
`answers` of PredictResponse is written beside them; the requests with which the SavedModel is to be warmed up come last.
"""

import os
import sys

sys.modules.update({"tfdetect": None, "keras": None})  # importing either is an error
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow as tf  # noqa: E402
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2  # noqa: E402

WARM_UP = "1/assets.extra/tf_serving_warmup_requests"


def response(request, outputs):
    """Return the response to a request."""
    found = predict_pb2.PredictResponse(model_spec=request.model_spec)
    for name, value in outputs.items():
        found.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    return found


def by_saved_model_load(folder, requests):
    """Answer as a program that loads the SavedModel in Python."""
    model = tf.saved_model.load(f"{folder}/1")
    for request in requests:
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        outputs = model.signatures[request.model_spec.signature_name](**inputs)
        yield response(request, {name: value.numpy() for name, value in outputs.items()})


def by_session(folder, requests):
    """Answer as the server in C++: a session runs the tensors that the signature names."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], f"{folder}/1")
        for request in requests:
            signature = meta_graph.signature_def[request.model_spec.signature_name]
            inputs = {signature.inputs[name].name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            names = {name: info.name for name, info in signature.outputs.items()}
            yield response(request, session.run(names, inputs))


def records(path, message):
    """Return the messages in a TFRecord."""
    return [message.FromString(record.numpy()) for record in tf.data.TFRecordDataset(path)]


loader, place = sys.argv[1:]
asked = records(f"{place}/requests", predict_pb2.PredictRequest)
asked += [log.predict_log.request for log in records(f"{place}/{WARM_UP}", prediction_log_pb2.PredictionLog)]
with tf.io.TFRecordWriter(f"{place}/answers") as answers:
    for answer in {"saved_model": by_saved_model_load, "session": by_session}[loader](place, asked):
        answers.write(answer.SerializeToString())
