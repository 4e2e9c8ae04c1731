"""TensorFlow Serving takes an exported folder as it is: shown by TensorFlow without Keras, and by the server's own messages."""

import io
import subprocess
import sys
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from in_process import map_here
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_log_pb2
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tfdetect import files
from tfdetect.artifact import Artifact
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.evaluation.calibration import Band, Calibration
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.models.detectors.cnn_lstm import CnnLstm
from tfdetect.serving import warmup
from tfdetect.serving.export import export
from tfdetect.serving.predictor import Predictor
from tfdetect.serving.saved_model import WARM_UP_REQUESTS

SIZE, FRAMES = 32, 3
SERVER = Path(__file__).parents[1] / "plain_server.py"
ANSWER = {"score", "probability", "label", "verdict", "threshold", "band_from", "band_to", "fake", "inconclusive"}


def pictures(rng, *shape):
    """Return blurred noise (*shape, 3) uint8, its colours different from picture to picture."""
    *many, height, width = shape
    noise = rng.integers(0, 256, (height, np.prod(many, dtype=int) * width, 3), np.uint8)
    return np.moveaxis(cv2.GaussianBlur(noise, (0, 0), 2).reshape(height, *many, width, 3), 0, -3)


def make(kind, folder):
    """Export a detector with random weights to a run folder; return its artifact and predictor."""
    keras.utils.set_random_seed(0)
    detector, frames = (Cnn(width=4), 1) if kind == "frame" else (CnnLstm(), FRAMES)
    model, spec, artifact = detector.build((frames, SIZE, SIZE, 3)), ClipSpec(FRAMES, SIZE, still=frames > 1), Artifact(folder)
    *_, kernel, _ = model.weights
    kernel.assign(kernel * 100)  # scores that differ
    clips = np.repeat(pictures(np.random.default_rng(1), 40, 1, SIZE, SIZE), frames, axis=1)
    low, middle, high = np.quantile(model.predict(clips, verbose=0)[:, 0].astype(float), [0.3, 0.5, 0.7])
    calibration = Calibration(1.0, -middle, 0.5, band=Band(0.9, low, high))
    folder.mkdir()
    files.write_json(artifact.calibration, calibration.to_dict())
    export(model, calibration.to_dict(), detector, artifact.saved_model, spec)
    return artifact, Predictor(artifact, spec, detector)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What `make` returns, for a frame and a clip detector."""
    return {kind: make(kind, tmp_path_factory.mktemp(kind) / "run") for kind in ("frame", "clip")}


@pytest.fixture(params=["frame", "clip"])
def served(request, both):
    """One of them."""
    return both[request.param]


def meta_graph(artifact):
    """Return the MetaGraphDef of a SavedModel."""
    return saved_model_pb2.SavedModel.FromString((artifact.saved_model / "saved_model.pb").read_bytes()).meta_graphs[0]


def records(path, message):
    """Return the messages in a TFRecord."""
    return [message.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]


def encoded(rng, kind=".png", size=(40, 30)):
    """Return the file of a picture."""
    return cv2.imencode(kind, pictures(rng, *size))[1].tobytes()


def requests(rng):
    """Yield (signature, input, value) of what clients send: frames of several sizes, encoded images, some of them broken."""
    yield "serving_default", "clip", rng.integers(0, 256, (1, 1, SIZE, SIZE, 3), np.uint8)
    yield "serving_default", "clip", rng.integers(0, 256, (3, 5, 37, 29, 3), np.uint8)
    yield "explain", "clip", rng.integers(0, 256, (2, 1, 50, 70, 3), np.uint8)
    images = [encoded(rng), b"no image", encoded(rng, ".jpg", (25, 90)), encoded(rng, ".jpg")[:-60], encoded(rng, ".webp")]
    yield from (("serve_bytes", "image", np.array(some, object)) for some in (images, images[:1], images[1:2]))


def record(artifact):
    """Write the requests into the folder of a run; return them and those of the warm-up, as (signature, input, value)."""
    sent = list(requests(np.random.default_rng(0)))
    with tf.io.TFRecordWriter(str(artifact.folder / "requests")) as file:
        for signature, name, value in sent:
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = "run", signature
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            file.write(request.SerializeToString())
    warm = [log.predict_log.request for log in records(artifact.saved_model / WARM_UP_REQUESTS, prediction_log_pb2.PredictionLog)]
    assert [each.model_spec.signature_name for each in warm] == ["serving_default", "serve_bytes"]
    return sent + [(each.model_spec.signature_name, name, tf.make_ndarray(value)) for each in warm
                   for name, value in each.inputs.items()]  # fmt: skip


@pytest.mark.parametrize("kind, loader", [("frame", "session"), *(pytest.param(*each, marks=pytest.mark.slow) for each in (
    ("frame", "saved_model"), ("clip", "session"), ("clip", "saved_model")))])  # fmt: skip
def test_tensorflow_without_keras_and_the_suite_gives_the_same_answers(both, kind, loader):
    artifact, predictor = both[kind]
    sent = record(artifact)
    subprocess.run([sys.executable, "-P", SERVER, loader, artifact.folder], check=True)
    answers = records(artifact.folder / "answers", predict_pb2.PredictResponse)
    for (signature, name, value), answer in zip(sent, answers, strict=True):
        expected = predictor.model.signatures[signature](**{name: tf.constant(value)})
        assert set(answer.outputs) == set(expected) >= ANSWER
        for key, output in answer.outputs.items():
            found, wanted = tf.make_ndarray(output), expected[key].numpy()
            assert found.shape == wanted.shape and len(found) == len(value), f"{signature}: {key} is split by rows"
            if found.dtype.kind == "f":
                np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=1e-6, err_msg=key)
            else:
                assert found.tolist() == wanted.tolist(), key


def test_the_graph_consists_of_tensorflow_s_own_operations(served):
    graph = meta_graph(served[0]).graph_def
    ops = {node.op for nodes in (graph.node, *(function.node_def for function in graph.library.function)) for node in nodes}
    functions = {function.signature.name for function in graph.library.function}
    known = set(dir(tf.raw_ops))
    assert {"DecodeJpeg", "DecodeWebP", "PartitionedCall", "Conv2D"} <= ops, "the walk sees the bodies of functions"
    assert {op for op in ops - functions if op not in known} == set()
    assert {op for op in ops if "PyFunc" in op} == set()


def test_the_server_s_metadata_names_the_inputs_and_splits_all_outputs_by_rows(served):
    """`GetModelMetadata` answers with the signatures of the SavedModel, which clients read."""
    given = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in meta_graph(served[0]).signature_def.items():
        given.signature_def[name].CopyFrom(signature)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.metadata["signature_def"].Pack(given)
    parsed = get_model_metadata_pb2.SignatureDefMap()
    get_model_metadata_pb2.GetModelMetadataResponse.FromString(response.SerializeToString()).metadata["signature_def"].Unpack(parsed)
    signatures = {name: each for name, each in parsed.signature_def.items() if not name.startswith("__")}
    inputs = {name: [(key, info.dtype) for key, info in each.inputs.items()] for name, each in signatures.items()}
    frames = [("clip", tf.uint8.as_datatype_enum)]
    assert inputs == {"serving_default": frames, "explain": frames, "serve_bytes": [("image", tf.string.as_datatype_enum)]}
    for name, signature in signatures.items():
        assert signature.method_name == "tensorflow/serving/predict" and set(signature.outputs) >= ANSWER
        assert not [key for key in signature.outputs if key.endswith("_bytes")], "the REST API would encode them in base64"
        for key, info in [*signature.inputs.items(), *signature.outputs.items()]:
            assert not info.tensor_shape.unknown_rank and info.tensor_shape.dim[0].size == -1, f"{name}: {key}"


def test_words_and_numbers_are_those_of_predict(served, rng, tmp_path, monkeypatch):
    monkeypatch.setattr("tfdetect.serving.decode_ahead.map_unordered", map_here)
    _, predictor = served
    images = [encoded(rng, size=(SIZE, SIZE)) for _ in range(24)]
    for number, image in enumerate(images):
        (tmp_path / f"{number:02}.png").write_bytes(image)
    verdicts = list(predictor.predict_files(sorted(tmp_path.glob("*.png"))))
    out = {name: value.numpy() for name, value in predictor.model.signatures["serve_bytes"](image=tf.constant(images)).items()}
    np.testing.assert_allclose(out["score"], [verdict.score for verdict in verdicts], atol=1e-6)
    np.testing.assert_allclose(out["probability"], [verdict.probability for verdict in verdicts], atol=1e-6)
    assert out["label"].astype(str).tolist() == [verdict.label for verdict in verdicts]
    assert out["verdict"].astype(str).tolist() == [verdict.verdict for verdict in verdicts]
    assert len({verdict.verdict for verdict in verdicts}) > 1
    low, high = predictor.calibration.inconclusive
    assert (out["threshold"] == np.float32(0.5)).all() and (out["band_from"] == np.float32(low)).all()
    assert (out["band_to"] == np.float32(high)).all() and 0 < low < 0.5 < high < 1
    note = [verdict.note for verdict in verdicts]
    assert ("note" not in out and set(note) == {""}) if predictor.is_frame_detector else out["note"].astype(str).tolist() == note


def test_a_clip_detector_takes_stills_and_moving_gifs_and_refuses_a_broken_image_alone(served, rng):
    _, predictor = served
    if predictor.is_frame_detector:
        pytest.skip("test_bytes.py is about these")
    moving, buffer = [Image.fromarray(frame).quantize(64) for frame in pictures(rng, 7, SIZE, SIZE)], io.BytesIO()
    moving[0].save(buffer, "GIF", save_all=True, append_images=moving[1:], duration=80)
    gif = buffer.getvalue()
    still = encoded(rng)
    out = predictor.model.signatures["serve_bytes"](image=tf.constant([still, gif, b"broken", still[:-9], still]))
    scores, expected = out["score"].numpy(), predictor.outputs(tf.io.decode_gif(gif).numpy()[None])["score"]
    assert scores[1] == pytest.approx(expected[0], abs=1e-6) and scores[0] == pytest.approx(scores[4], abs=1e-6)
    assert abs(scores[1] - scores[0]) > 1e-4 and np.isnan(scores[2:4]).all()
    repeated = b"a still image: its one frame is repeated 3 times"
    assert out["note"].numpy().tolist() == [repeated, b"", b"", b"", repeated]
    assert out["verdict"].numpy()[2:4].tolist() == out["label"].numpy()[2:4].tolist() == [b"", b""]
    assert [bool(error) for error in out["error"].numpy()] == [False, False, True, True, False]


def message_class(name, **messages):
    """Return a message class of TensorFlow Serving that its Python package lacks, from {message: {field: (number, type)}}."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="tensorflow.serving", syntax="proto3",
                                              dependency=["google/protobuf/wrappers.proto"])  # fmt: skip
    for message, fields in messages.items():
        added = file.message_type.add(name=message)
        for field, (number, kind) in fields.items():
            own = {"bool": {"type": 8}, "string": {"type": 9}}.get(kind, {"type": 11, "type_name": kind})
            added.field.add(name=field, number=number, label=1, **own)
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))


def test_configuration_files_parse_as_the_server_s_messages(served):
    """The fields of the two that tensorflow-serving-api lacks are those of the server's session_bundle_config.proto and
    monitoring_config.proto."""
    from google.protobuf import wrappers_pb2  # noqa: F401  (registers the file that the description below depends on)

    folder = served[0].folder
    config = text_format.Parse((folder / "models.config").read_text(), ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("run", "/models/run", "tensorflow")
    value = ".google.protobuf.Int64Value"
    batching = message_class("BatchingParameters", BatchingParameters={
        "max_batch_size": (1, value), "batch_timeout_micros": (2, value), "max_enqueued_batches": (3, value),
        "num_batch_threads": (4, value), "pad_variable_length_inputs": (7, "bool")})  # fmt: skip
    monitoring = message_class("MonitoringConfig", PrometheusConfig={"enable": (1, "bool"), "path": (2, "string")},
                               MonitoringConfig={"prometheus_config": (1, ".tensorflow.serving.PrometheusConfig")})  # fmt: skip
    assert text_format.Parse((folder / "batching.config").read_text(), batching()).max_batch_size.value == 16
    found = text_format.Parse((folder / "monitoring.config").read_text(), monitoring()).prometheus_config
    assert found.enable and found.path == "/monitoring/prometheus/metrics"


def test_equal_exports_write_equal_warm_up_requests(served, tmp_path):
    artifact, predictor = served
    inputs = {name: next(iter(each.structured_input_signature[1].values()))
              for name, each in predictor.model.signatures.items()}  # fmt: skip
    for name in ("a", "b"):
        warmup.write(str(tmp_path / name), warmup.requests("run", inputs, predictor.spec))
    first, second = ((tmp_path / name / WARM_UP_REQUESTS).read_bytes() for name in ("a", "b"))
    assert first == second == (artifact.saved_model / WARM_UP_REQUESTS).read_bytes()


def test_saved_models_of_older_versions_still_predict(served, rng, tmp_path):
    """They returned fewer outputs, without words."""
    _, predictor = served
    old, module = Artifact(tmp_path), tf.Module()
    clip = tf.TensorSpec((None, None, None, None, 3), tf.uint8, "clip")
    brightness = lambda clip: {"score": tf.reduce_mean(tf.cast(clip, tf.float32), (1, 2, 3, 4)) / 100 - 1}  # noqa: E731
    module.serve = tf.function(brightness).get_concrete_function(clip)
    tf.saved_model.save(module, str(old.saved_model), {"serving_default": module.serve})
    files.write_json(old.calibration, predictor.calibration.to_dict())
    frames = rng.integers(0, 256, (2, 1, SIZE, SIZE, 3), np.uint8)
    detector = Cnn() if predictor.is_frame_detector else CnnLstm()
    found = Predictor(old, predictor.spec, detector).predict_clips(frames)[0]
    np.testing.assert_allclose(found, frames.mean(axis=(1, 2, 3, 4)) / 100 - 1, atol=1e-5)
