"""TensorBoard's projector reads the files that are written for it."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from werkzeug.test import Client

from tfdetect.data import manifest
from tfdetect.training import tensorboard

RUN = "run/logs/test"  # relative to saved_models, where TensorBoard is started


def table(count):
    rows = pd.DataFrame({"path": [f"/set/{i}.png" for i in range(count)], "label": np.arange(count) % 2})
    return manifest.validate(rows.assign(split="test", source="camera"), "test")


@pytest.fixture
def logs(tmp_path):
    """Log folder of a run that contains events."""
    folder = tmp_path / "run" / "logs"
    with tf.summary.create_file_writer(str(folder / "test")).as_default(step=0):
        tf.summary.scalar("test_auc", 0.5)
    return folder


def get(logs, route, **query):
    """Return the projector's response to a GET request of /route."""
    root = str(logs.parents[1])
    runs = EventMultiplexer()
    runs.AddRunsFromDirectory(root)
    runs.Reload()
    plugin = ProjectorPlugin(TBContext(logdir=root, data_provider=MultiplexerDataProvider(runs, root)))
    response = Client(plugin.get_plugin_apps()[f"/{route}"]).get(query_string=query)
    assert response.status_code == 200, response.text
    return response


def test_projector_serves_features_metadata_and_images(logs, rng):
    features = rng.normal(size=(7, 5)).astype(np.float32)
    tensorboard.projector(logs, features, table(7), lambda row: np.full((20, 30, 3), 30 * row, np.uint8))
    assert json.loads(get(logs, "runs").text) == [RUN]
    embeddings = json.loads(get(logs, "info", run=RUN).text)["embeddings"]
    assert [(item["tensorName"], item["tensorShape"]) for item in embeddings] == [("features", [7, 5])]
    values = np.frombuffer(get(logs, "tensor", run=RUN, name="features").data, np.float32).reshape(7, 5)
    np.testing.assert_allclose(values, features, rtol=1e-4)
    lines = get(logs, "metadata", run=RUN, name="features").text.splitlines()
    assert lines[:3] == ["label\tsplit\tsource\tfile", "real\ttest\tcamera\t0.png", "fake\ttest\tcamera\t1.png"]
    response = get(logs, "sprite_image", run=RUN, name="features")
    assert response.content_type == "image/jpeg"
    assert embeddings[0]["sprite"]["singleImageDim"] == [tensorboard.SIDE, tensorboard.SIDE]
    pixels = np.asarray(Image.open(io.BytesIO(response.data)))
    assert pixels.shape == (3 * tensorboard.SIDE, 3 * tensorboard.SIDE, 3)
    centres = pixels[tensorboard.SIDE // 2 :: tensorboard.SIDE, tensorboard.SIDE // 2 :: tensorboard.SIDE, 0].ravel()
    np.testing.assert_allclose(centres, [0, 30, 60, 90, 120, 150, 180, 255, 255], atol=2)


def test_control_characters_in_names_do_not_break_lines(logs):
    rows = table(3).assign(path=["/set/a\tb\nc\rd\u2028e.png", "/set/\udcff.png", "/set/ü #.png"], source="a\tb")
    tensorboard.projector(logs, np.eye(3), rows)
    lines = (logs / "test" / "files.tsv").read_text(encoding="utf-8").split("\n")
    assert len(lines) == 5 and all(line.count("\t") == 3 for line in lines[:4])
    assert [line.split("\t")[3] for line in lines[1:4]] == ["a b c d e.png", " .png", "ü #.png"]


def test_subset_of_many_files_holds_both_classes(logs, monkeypatch):
    monkeypatch.setattr(tensorboard, "POINTS", 10)
    rows = table(40).assign(label=[1] * 36 + [0] * 4)
    tensorboard.projector(logs, np.arange(80.0).reshape(40, 2), rows)
    lines = [line.split("\t") for line in (logs / "test" / "files.tsv").read_text().splitlines()[1:]]
    assert [line[0] for line in lines].count("real") == 4 and len(lines) == 10
    first = np.loadtxt(logs / "test" / "features.tsv")[:, 0]
    np.testing.assert_array_equal(first, [2 * int(line[3].removesuffix(".png")) for line in lines])


@pytest.mark.parametrize("features", [np.ones((3, 2)), np.ones(4), np.ones((0, 2))])
def test_features_that_do_not_match_the_table_are_refused(logs, features):
    with pytest.raises(ValueError, match="Expected features"):
        tensorboard.projector(logs, features, table(4 if len(features) else 0))


def test_hyper_parameters_are_listed_under_the_name_of_the_run(tmp_path):
    logs = [tmp_path / "saved_models" / name / "logs" for name in ("cnn", "cnn-2", "study/cnn")]
    for folder in logs:  # with equal settings, which TensorBoard's own default merges into one row
        with tf.summary.create_file_writer(str(folder / "test")).as_default(step=0):
            tensorboard._settings({"data": {"size": 32}}, tensorboard.run_name(folder))
            tf.summary.scalar("test_auc", 0.5)
    runs = EventMultiplexer()
    runs.AddRunsFromDirectory(str(tmp_path / "saved_models"))
    runs.Reload()
    plugin = HParamsPlugin(TBContext(logdir=str(tmp_path), data_provider=MultiplexerDataProvider(runs, str(tmp_path))))
    request = {"colParams": [], "startIndex": 0, "sliceSize": 10, "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_RUNNING"]}
    response = Client(plugin.get_plugin_apps()["/session_groups"]).post(data=json.dumps(request), content_type="application/json")
    groups = {group["name"]: group for group in json.loads(response.text)["sessionGroups"]}
    assert set(groups) == {"cnn", "cnn-2", "study/cnn"} and groups["cnn"]["hparams"] == {"data.size": 32}
    assert [(value["name"]["tag"], value["value"]) for value in groups["cnn"]["metricValues"]] == [("test_auc", 0.5)]
