"""Converters and runtimes give what the SavedModel gives; needs the extras onnx, openvino and litert."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import tfdetect
from tfdetect import cli
from tfdetect.models.layers.pixel_statistics import PixelStatistics
from tfdetect.serving import converted

pytestmark = pytest.mark.slow
FORMATS = sorted(converted.FORMATS)


def train(name, data, frames, out):
    assert cli.main(["train", name, "--data.path", str(data), "--data.size", "32", "--data.frames", str(frames),
                     "--train.epochs", "1", "--out", str(out)]) == 0  # fmt: skip
    return out / name


@pytest.fixture(scope="module")
def cnn(images, tmp_path_factory):
    """The folder of a trained image detector."""
    return train("cnn", images, 1, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def cnn_lstm(videos, tmp_path_factory):
    """The folder of a trained clip detector."""
    return train("cnn_lstm", videos, 4, tmp_path_factory.mktemp("runs"))


@pytest.fixture(params=["cnn", "cnn_lstm"])
def run(request):
    """The folder of each of them."""
    return request.getfixturevalue(request.param)


def convert(run, form):
    """Return the folder of the run as this format."""
    for name in converted.FORMATS[form].requires:
        pytest.importorskip(name)
    return run / form if (run / form).exists() else tfdetect.load(run).export(format=form)


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_agrees_on_frames_of_other_sizes(run, rng, form):
    detector, folder = tfdetect.load(run), convert(run, form)
    told = json.loads((folder / "model.json").read_bytes())
    assert told["compared"]["largest"] <= 1e-4
    call = converted.FORMATS[form].load(folder / told["file"], "clip")
    for height, width in ((48, 80), (32, 32), (20, 31)):
        clips = rng.integers(0, 256, (2, told["input"]["shape"][1] or 1, height, width, 3), np.uint8)
        np.testing.assert_allclose(call(clips)["score"], detector.predictor.predict_clips(clips)[0], atol=1e-5)


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_resizes_to_the_same_pixels(tmp_path, rng, form):
    """OpenVINO fuses products with sums, which rounds some halves the other way where sides grow."""
    for name in converted.FORMATS[form].requires:
        pytest.importorskip(name)
    import keras
    import tensorflow as tf

    from tfdetect.data.media import frames, tf_decode
    from tfdetect.serving.convert import convert

    def resize_only(clips):
        shape = tf.shape(clips)
        squares = tf_decode.resize(tf.reshape(clips, (-1, shape[2], shape[3], 3)), 224)
        return {"pixels": tf.cast(squares, tf.float32)}

    functions = SimpleNamespace(predict_frames=resize_only, model=keras.Sequential(), familiarity=None, is_frame_detector=True,
                                frames=1, size=224)  # fmt: skip
    file = tmp_path / converted.FORMATS[form].file
    convert(functions, form, file, "clip")
    call = converted.FORMATS[form].load(file, "clip")
    for height, width in ((480, 640), (378, 504), (64, 64), (218, 178)):
        frame = rng.integers(0, 256, (height, width, 3), np.uint8)
        difference = call(frame[None, None])["pixels"][0] - frames.resize(frame, 224)
        assert np.abs(difference).max() <= (form == "openvino" and height < 224)
        assert np.mean(difference != 0) <= 0.005


@pytest.mark.parametrize("form", FORMATS)
def test_int8_keeps_most_of_the_ranking(run, form):
    whole, folder = convert(run, form), tfdetect.load(run).export(format=form, quantize="int8")
    told = json.loads((folder / "model.json").read_bytes())
    assert told["quantized"]["auc_after"] >= told["quantized"]["auc_before"] - 0.1
    model = "model.bin" if form == "openvino" else told["file"]
    assert (folder / model).stat().st_size < (whole / model).stat().st_size


@pytest.mark.parametrize("form", FORMATS)
def test_the_snippet_of_the_readme_gives_the_score(run, images, videos, form):
    folder = convert(run, form)
    file = next(Path(videos).rglob("*.mp4") if run.name == "cnn_lstm" else Path(images).rglob("*.jpg"))
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)[1].replace('"FILE"', repr(str(file)))
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code += "\nimport sys\nassert not {'tfdetect', 'tensorflow', 'keras'} & {*sys.modules}"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = tfdetect.load(run).predict(file)["score"][0]
    assert float(re.search(r"'score': array\(\[(.*?)\]", done.stdout)[1]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("form", FORMATS)
def test_a_run_on_equalised_files(images, tmp_path, form):
    """Frames of its own files are equalised, and those of the native size agree."""
    assert cli.main(["prepare", str(images), "--out", str(tmp_path / "alike"), "--equalise"]) == 0
    folder = convert(train("cnn", tmp_path / "alike", 1, tmp_path), form)
    told = json.loads((folder / "model.json").read_bytes())
    assert told["compared"]["largest"] <= 1e-4 and "Equalised files" in (folder / "README.md").read_text()


def test_log1p_is_spelt_out(tmp_path):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from tfdetect.serving.convert import spell_out_log1p

    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None]) for name in "xy")
    nodes = [onnx.helper.make_node(kind, [given], [out], kind)
             for kind, given, out in (("Abs", "x", "a"), ("Log1p", "a", "b"), ("Neg", "b", "y"))]  # fmt: skip
    graph = onnx.helper.make_graph(nodes, "graph", [x], [y])
    file = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 15)]), file)
    spell_out_log1p(file)
    x = np.array([-3.0, 0.0, 1e-3, 7.0], np.float32)
    found = runtime.InferenceSession(file).run(None, {"x": x})[0]
    np.testing.assert_allclose(found, -np.log1p(abs(x)), atol=1e-6)


def test_statistics_of_a_whole_picture_keep_their_digits(tmp_path, rng):
    pytest.importorskip("onnx")
    clip, runtime = rng.integers(0, 256, (1, 1, 256, 256, 3), np.uint8), pytest.importorskip("onnxruntime")
    statistics = keras.Sequential([keras.Input(clip.shape[1:], dtype="uint8"), PixelStatistics()])
    expected = statistics.predict(clip, verbose=0)
    statistics.export(str(tmp_path / "s.onnx"), "onnx", verbose=False)
    session = runtime.InferenceSession(str(tmp_path / "s.onnx"))
    found = session.run(None, {session.get_inputs()[0].name: clip})[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_negative_padding_becomes_padding_of_the_output(tmp_path):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from tfdetect.serving.convert import pad_outputs

    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 1, side, side))
            for name, side in (("x", 2), ("y", 4)))  # fmt: skip
    kernel = onnx.helper.make_tensor("kernel", onnx.TensorProto.FLOAT, (1, 1, 1, 1), [2.0])
    node = onnx.helper.make_node("ConvTranspose", ["x", "kernel"], ["y"], strides=[2, 2], pads=[0, 0, -1, -1])
    file = tmp_path / "model.onnx"
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "graph", [x], [y], [kernel]),
                                   opset_imports=[onnx.helper.make_opsetid("", 15)])  # fmt: skip
    onnx.save(model, file)
    pad_outputs(file)
    found = runtime.InferenceSession(file).run(None, {"x": np.array([[[[1, 2], [3, 4]]]], np.float32)})[0]
    assert found[0, 0].tolist() == [[2, 0, 4, 0], [0, 0, 0, 0], [6, 0, 8, 0], [0, 0, 0, 0]]  # as TensorFlow's "same"


def test_loops_refer_to_what_they_do_not_change(tmp_path):
    """y = 2 + 3 x, where x is handed from pass to pass; OpenVINO refuses that."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from tfdetect.serving.convert import refer_to_unchanged_state

    helper, kinds = onnx.helper, onnx.TensorProto
    value = lambda name, kind=kinds.FLOAT, shape=(1,): helper.make_tensor_value_info(name, kind, shape)  # noqa: E731
    steps = [helper.make_node("Identity", ["go"], ["still"]), helper.make_node("Add", ["total", "inside"], ["after"])]
    given = [value("count", kinds.INT64, ()), value("go", kinds.BOOL, ()), value("inside"), value("total")]
    body = helper.make_graph(steps, "body", given, [value("still", kinds.BOOL, ()), value("inside"), value("after")])
    constants = [helper.make_tensor("times", kinds.INT64, [], [3]), helper.make_tensor("start", kinds.FLOAT, [1], [2.0])]
    loop = helper.make_node("Loop", ["times", "", "x", "start"], ["same", "y"], body=body)
    file = tmp_path / "model.onnx"
    model = helper.make_model(helper.make_graph([loop], "graph", [value("x")], [value("y")], constants),
                              opset_imports=[helper.make_opsetid("", 15)], ir_version=8)  # fmt: skip
    onnx.save(model, file)
    refer_to_unchanged_state(file)
    assert [*onnx.load(file).graph.node[0].input] == ["times", "", "start"]
    assert runtime.InferenceSession(file).run(None, {"x": np.array([5], np.float32)})[0] == [17]


def test_openvino_needs_the_size_of_the_frames(cnn, rng):
    """The reason why the file is written for one size. If this fails, OpenVINO has been mended: see `converted.load_openvino`."""
    file = convert(cnn, "openvino") / "model.xml"
    import openvino

    model = openvino.Core().read_model(file)
    model.reshape([-1, 1, -1, -1, 3])
    compiled = openvino.compile_model(model, "CPU", converted.F32)
    clips = rng.integers(0, 256, (1, 1, 32, 32, 3), np.uint8)
    scores = [compiled(clips)[compiled.output("score")][0] for _ in range(2)]
    assert scores[1] == pytest.approx(tfdetect.load(cnn).predictor.predict_clips(clips)[0][0], abs=1e-5)
    assert scores[0] != pytest.approx(scores[1], abs=1e-4)
