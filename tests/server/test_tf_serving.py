"""TensorFlow Serving's REST contract as a table, from https://www.tensorflow.org/tfx/serving/api_rest.

The model half_plus_three of that page is one of its signatures here; the others have the inputs and outputs that it speaks of.
"""

import json
import re

import numpy as np
import pytest
from served import write_settings
from starlette.testclient import TestClient

from tfdetect.server.app import create_app
from tfdetect.server.models import Models
from tfdetect.server.settings import ServeSettings

HALF = "half_plus_three"


def half_plus_three():
    """A module with the signatures of this test."""
    import tensorflow as tf

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def half(self, x):
            return {"y": x / 2 + 3}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "tag"), tf.TensorSpec([None, 5], tf.int32, "signal"),
                                      tf.TensorSpec([None, 2, 2], tf.float64, "sensor")])  # fmt: skip
        def several(self, tag, signal, sensor):
            even = signal[:, 0] % 2 == 0
            return {"tag": tag, "raw_bytes": tag, "total": tf.reduce_sum(signal, 1), "sensor": sensor, "even": even}

        @tf.function(input_signature=[tf.TensorSpec([None, 1, 2], tf.int64, "x")])
        def names(self, x):
            return {"y": x, "names": tf.constant(["a", "b", "c"])}

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.uint8, "x"), tf.TensorSpec([None], tf.float32, "offset")])
        def unequal(self, x, offset):
            return {"y": tf.cast(x, tf.float32) + tf.reduce_sum(offset)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, "index")])
        def strict(self, index):
            with tf.control_dependencies([tf.debugging.assert_less(index, 3, "index is too large")]):
                return {"y": tf.identity(index)}

    module = Module()
    return module, {"serving_default": module.half, "several": module.several, "names": module.names, "unequal": module.unequal,
                    "strict": module.strict}  # fmt: skip


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of a server with that model, version 1 of which has the label stable."""
    import tensorflow as tf

    artifact = write_settings(tmp_path_factory.mktemp("contract") / HALF)
    module, signatures = half_plus_three()
    tf.saved_model.save(module, str(artifact.saved_model), signatures)
    settings = ServeSettings(labels=("stable=1",))
    models = Models([artifact.folder], settings).load()
    yield TestClient(create_app(models, settings), base_url="http://127.0.0.1", raise_server_exceptions=False)
    models.close()


STATUS = {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]}
ROWS = [{"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
        {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]}]  # fmt: skip
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
ANSWERS = [{"even": False, "raw_bytes": {"b64": "Zm9v"}, "sensor": [[1.0, 2.0], [3.0, 4.0]], "tag": "foo", "total": 15},
           {"even": False, "raw_bytes": {"b64": "YmFy"}, "sensor": [[4.0, 5.0], [6.0, 8.0]], "tag": "bar", "total": 15}]


def several(**given):
    return {"signature_name": "several", **given}


SUCCESSES = {  # name: (path after the model, request, answer)
    "status": ("", None, STATUS),
    "status of a version": ("/versions/1", None, STATUS),
    "status of a label": ("/labels/stable", None, STATUS),
    "the page's predict": (":predict", {"instances": [1.0, 2.0, 5.0]}, {"predictions": [3.5, 4.0, 5.5]}),
    "a version": ("/versions/1:predict", {"instances": [1.0]}, {"predictions": [3.5]}),
    "a label": ("/labels/stable:predict", {"instances": [1.0]}, {"predictions": [3.5]}),
    "signature by name": (":predict", {"signature_name": "serving_default", "instances": [2]}, {"predictions": [4.0]}),
    "the empty name is the default": (":predict", {"signature_name": "", "instances": [2]}, {"predictions": [4.0]}),
    "named single input by row": (":predict", {"instances": [{"x": 1.0}, {"x": 2.0}]}, {"predictions": [3.5, 4.0]}),
    "single output by column": (":predict", {"inputs": [2.0, 4.0]}, {"outputs": [4.0, 5.0]}),
    "named single input by column": (":predict", {"inputs": {"x": [2.0]}}, {"outputs": [4.0]}),
    "several inputs by row": (":predict", several(instances=ROWS), {"predictions": ANSWERS}),
    "several inputs by column": (":predict", several(inputs=COLUMNS),
                                 {"outputs": {name: [answer[name] for answer in ANSWERS] for name in ANSWERS[0]}}),
    "binary values": (":predict", several(instances=[ROWS[0] | {"tag": {"b64": "Zm9v"}}]), {"predictions": ANSWERS[:1]}),
    "a list is a tensor": (":predict", {"signature_name": "names", "inputs": [[[1, 2]], [[3, 4]]]},
                           {"outputs": {"names": ["a", "b", "c"], "y": [[[1, 2]], [[3, 4]]]}}),
    "other first dimensions": (":predict", {"signature_name": "unequal", "inputs": {"x": [[1, 2]], "offset": [1, 2, 3]}},
                               {"outputs": [[7.0, 8.0]]}),
    "numbers that are none": (":predict", '{"instances": [NaN, Infinity, -Infinity, 1e3]}',
                              {"predictions": [np.nan, np.inf, -np.inf, 503.0]}),
    "the shortest digits of a float": (":predict", {"instances": [0.1]}, {"predictions": [3.05]}),
}  # fmt: skip
FAILURES = {  # name: (method, path, request, status, text in the error)
    "the page's error": ("POST", "/v1/models/half:predict", {"instances": [1.0, 5.0]}, 404,
                         "Servable not found for request: Latest(half)"),
    "unknown version": ("POST", f"/v1/models/{HALF}/versions/7:predict", {"instances": [1.0]}, 404, f"Specific({HALF}, 7)"),
    "unknown label": ("POST", f"/v1/models/{HALF}/labels/x:predict", {}, 400, "Unrecognized servable version label: x"),
    "status of an unknown model": ("GET", "/v1/models/half", None, 404, "Could not find any versions of model half"),
    "status of an unknown version": ("GET", f"/v1/models/{HALF}/versions/7", None, 404, "Could not find version 7 of model"),
    "metadata of an unknown model": ("GET", "/v1/models/half/metadata", None, 404, "Servable not found"),
    "no model name": ("GET", "/v1/models", None, 400, "Missing model name in request."),
    "version in words": ("POST", f"/v1/models/{HALF}/versions/one:predict", {}, 400, "Malformed request: POST"),
    "version too large": ("POST", f"/v1/models/{HALF}/versions/{2**64}:predict", {}, 400, "Failed to convert version"),
    "version and label": ("POST", f"/v1/models/{HALF}/versions/1/labels/x:predict", {}, 400, "Malformed request"),
    "another method": ("GET", f"/v1/models/{HALF}:predict", None, 400, "Malformed request: GET"),
    "no method": ("POST", f"/v1/models/{HALF}", {}, 400, "Malformed request: POST"),
    "another verb": ("DELETE", f"/v1/models/{HALF}", None, 400, "Malformed request: DELETE"),
    "metadata by POST": ("POST", f"/v1/models/{HALF}/metadata", {}, 400, "Malformed request"),
}  # fmt: skip
BAD = {  # name: (request, text in the error)
    "empty": ("", "JSON Parse error: The document is empty"),
    "no JSON": ("instances = [1, 2]", "JSON Parse error: Invalid value"),
    "no UTF-8": (b'{"instances": ["\xff"]}', "JSON Parse error: Invalid value"),
    "nested too deep": ('{"instances": ' + "[" * 100_000 + "]" * 100_000 + "}", ""),
    "no object": ([1.0], "Is not object"),
    "neither": ({"x": 1}, "Missing 'inputs' or 'instances' key"),
    "both": ({"instances": [1], "inputs": [1]}, "only one of 'inputs' or 'instances' keys"),
    "instances that are no list": ({"instances": 1.0}, "Excepting 'instances' to be an list/array"),
    "no instances": ({"instances": []}, "No values in 'instances' array"),
    "signature that is no text": ({"signature_name": 100, "instances": [1]}, "'signature_name' key must be a string value."),
    "unknown signature": ({"signature_name": "x", "instances": [1]}, 'Serving signature name: "x" not found in signature def'),
    "texts for numbers": ({"instances": ["x", "y"]}, "not of expected type: float"),
    "bools for numbers": ({"instances": [True]}, "not of expected type: float"),
    "null": ({"instances": [None]}, "not of expected type: float"),
    "an object for a number": ({"instances": [{"b64": "Zm9v"}]}, "not of expected type: float"),
    "numbers for texts": (several(instances=[ROWS[0] | {"tag": 1}]), "not of expected type: string"),
    "fractions for integers": (several(instances=[ROWS[0] | {"signal": [1.5, 2, 3, 4, 5]}]), "not of expected type: int32"),
    "bad base64": (several(instances=[ROWS[0] | {"tag": {"b64": "x*"}}]), "Unable to base64 decode"),
    "more beside b64": (several(instances=[ROWS[0] | {"tag": {"b64": "Zm9v", "c": 1}}]), "not formatted correctly for base64"),
    "rows of two shapes": ({"instances": [[1.0], [1.0, 2.0]]},
                           "Failed to process element: 1 of 'instances' list. Error: Expecting shape [1] but got: [2]"),
    "a ragged row": ({"instances": [[[1.0], [1.0, 2.0]]]}, "lists of different sizes"),
    "objects among values": ({"instances": [1.0, {"x": 1.0}]}, "Expecting value/list but got object at item 1 of input list"),
    "values among objects": ({"instances": [{"x": 1.0}, 1.0]}, "Expecting object but got list at item 1 of input list"),
    "a plain list for several inputs": (several(instances=[1]), "instances is a plain list, but expecting list of objects"),
    "plain inputs for several": (several(inputs=[1]), "inputs is a plain value/list, but expecting an object"),
    "an input is missing in a row": (several(instances=[{"tag": "a"}]), "must only have keys: sensor,signal,tag"),
    "an input is missing": (several(inputs={"tag": ["a"]}), "Missing named input: sensor in 'inputs' object."),
    "too large an integer": ({"instances": [2**24 + 1]}, "Cannot convert JSON value: 16777217 to float without loss of"),
    "too large a number": ({"instances": [1e39]}, "Cannot convert JSON value: 1e+39 to float without loss of precision."),
    "a scalar where a list is due": ({"inputs": 1.0}, "Input x must have the shape (None,) and not be empty, got ()."),
    "another rank": ({"inputs": [[1.0]]}, "Input x must have the shape (None,) and not be empty, got (1, 1)."),
    "no rows": ({"inputs": []}, "Input x must have the shape (None,) and not be empty, got (0,)."),
    "an output that has no rows": ({"signature_name": "names", "instances": [[[1, 2]], [[3, 4]]]},
                                   "Tensor name: y has inconsistent batch size: 2 expecting: 3"),
    "inputs that the model refuses": ({"signature_name": "strict", "instances": [3]}, "index is too large"),
}  # fmt: skip
OTHER_METHODS = {  # name: (method, request, text in the error)
    "classify": ("classify", {"examples": [{"x": 1.0}]}, "Expected classification signature method_name to be "
                 "tensorflow/serving/classify. Was: tensorflow/serving/predict"),
    "regress": ("regress", {"examples": [{"x": 1.0}]}, "Expected regression signature method_name to be "
                "tensorflow/serving/regress. Was: tensorflow/serving/predict"),
    "unknown signature": ("regress", {"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}]},
                          "No signature was found with the name: tensorflow/serving/regress"),
    "no examples": ("classify", {}, "When method is classify, key 'examples' is expected and was not found"),
    "an empty list": ("classify", {"examples": []}, "'examples' value must be a list that is not empty"),
    "no JSON": ("regress", "x", "JSON Parse error"),
}  # fmt: skip


def send(client, method, path, body):
    content = body if isinstance(body, str | bytes | None) else json.dumps(body)
    return client.request(method, path, content=content)


@pytest.mark.parametrize("name", SUCCESSES)
def test_answers(client, name):
    path, body, expected = SUCCESSES[name]
    answer = send(client, "GET" if body is None else "POST", f"/v1/models/{HALF}{path}", body)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert json.dumps(answer.json()) == json.dumps(expected), "also NaN, and the order of names"


@pytest.mark.parametrize("name", FAILURES)
def test_what_is_not_there(client, name):
    method, path, body, status, text = FAILURES[name]
    answer = send(client, method, path, body)
    assert (answer.status_code, [*answer.json()]) == (status, ["error"]) and text in answer.json()["error"]


@pytest.mark.parametrize("name", BAD)
def test_bad_requests(client, name):
    body, text = BAD[name]
    answer = send(client, "POST", f"/v1/models/{HALF}:predict", body)
    assert (answer.status_code, [*answer.json()]) == (400, ["error"]) and text in answer.json()["error"], answer.text
    assert len(answer.text) < 400 and "function_node" not in answer.text


@pytest.mark.parametrize("name", OTHER_METHODS)
def test_methods_that_the_models_lack(client, name):
    method, body, text = OTHER_METHODS[name]
    answer = send(client, "POST", f"/v1/models/{HALF}:{method}", body)
    assert answer.status_code == 400 and text in answer.json()["error"]


def test_metadata(client):
    found = client.get(f"/v1/models/{HALF}/versions/1/metadata").json()
    assert found["model_spec"] == {"name": HALF, "signature_name": "", "version": "1"}
    signatures = found["metadata"]["signature_def"]["signature_def"]
    assert sorted(signatures) == ["names", "serving_default", "several", "strict", "unequal"]
    default = signatures["serving_default"]
    assert default["method_name"] == "tensorflow/serving/predict"
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    name = default["inputs"]["x"]["name"]
    assert default["inputs"] == {"x": {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": name}} and re.fullmatch(r"\w+:0", name)


def test_a_bad_request_in_a_batch_fails_alone(client):
    from concurrent.futures import ThreadPoolExecutor

    bodies = [{"signature_name": "strict", "instances": [number]} for number in (0, 1, 2, 3, 0, 5, 2)]
    with ThreadPoolExecutor(7) as pool:
        answers = list(pool.map(lambda body: send(client, "POST", f"/v1/models/{HALF}:predict", body), bodies))
    assert [answer.status_code for answer in answers] == [200, 200, 200, 400, 200, 400, 200]
    assert [answer.json().get("predictions") for answer in answers] == [[0], [1], [2], None, [0], None, [2]]
