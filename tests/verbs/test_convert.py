"""export --format: the converted detector is compared with the SavedModel on files; a failure is one sentence, exit code 1."""

import json
import re

import pytest
import served
import tensorflow as tf

import tfdetect
from tfdetect import cli
from tfdetect.artifact import Artifact
from tfdetect.evaluation.calibration import Calibration
from tfdetect.serving import convert, convert_notes, converted


@pytest.fixture(scope="module")
def cnn(tmp_path_factory, light):
    """The folder of an image detector that was never trained."""
    folder = tmp_path_factory.mktemp("runs")
    run, lines = served.write_run(folder / "cnn"), ["path,label,split"]
    for number in range(12):
        path = folder / f"{number}.png"
        path.write_bytes(served.picture(number))
        lines.append(f"{path},{number % 2},{'test' if number < 8 else 'validation'}")
    Artifact(run).manifest.write_text("\n".join(lines))
    return run


@pytest.fixture
def saved_model_as(monkeypatch):
    """Take the place of converters and runtimes: a function that makes `export --format onnx` give the SavedModel's outputs after
    `change(outputs)`."""

    shapes = set()

    def install(change, write=lambda file: file.write_bytes(b"model")):
        monkeypatch.setattr(convert, "convert", lambda functions, form, file, *_, **__: write(file))
        monkeypatch.setattr("tfdetect.api.export.require_ready", lambda *_: None)

        def load(file, clip_input):
            model = tf.saved_model.load(str(Artifact(file.parents[1]).saved_model))

            def call(clips, model=model):
                shapes.add(clips.shape[1:])
                outputs = model.signatures["serving_default"](**{clip_input: tf.constant(clips)})
                return change({name: value.numpy() for name, value in outputs.items() if value.dtype != tf.string})

            return call

        monkeypatch.setitem(converted.FORMATS, "onnx", converted.Format("ONNX", "model.onnx", load, (), True))
        return shapes

    return install


def test_a_conversion_is_compared_described_and_replaced(cnn, saved_model_as, capsys):
    shapes = saved_model_as(lambda outputs: outputs)
    for flags, files in (["--files", str(cnn.parent / "0.png"), str(cnn.parent / "9.png")], 2), ([], 8):
        assert cli.main(["export", str(cnn), "--format", "onnx", *flags]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert f"with the SavedModel on {files} files; allowed 0.0001, largest differences: none" in printed
    told = json.loads((cnn / "onnx" / "model.json").read_bytes())
    assert told["compared"] == {"files": 8, "largest": 0.0, "differences": dict.fromkeys(told["outputs"], 0.0)}
    assert told["calibration"] == served.CALIBRATION | {"method": "platt"}
    assert told["input"] == {"name": "clip", "dtype": "uint8", "shape": [None, None, None, None, 3], "values": "RGB, 0..255",
                             "axes": "batch, frames, height, width, channels"}  # fmt: skip
    assert "`score`" in (cnn / "onnx" / "README.md").read_text()
    assert not list(cnn.glob(".part-*"))
    assert shapes == {(1, 40, 48, 3)}, "native frames, which the graph resizes"


def test_int8_says_what_it_costs(cnn, saved_model_as):
    saved_model_as(lambda outputs: outputs)
    assert tfdetect.load(cnn).export(format="onnx", quantize="int8").name == "onnx-int8"
    cost = json.loads((cnn / "onnx-int8" / "model.json").read_bytes())["quantized"]
    assert cost["auc_before"] == cost["auc_after"] and cost["files"] == 8 and cost["other_decisions"] == 0


@pytest.mark.parametrize(("change", "sentence"), [
    (lambda outputs: outputs | {"score": outputs["score"] + 0.01}, r"differs from the SavedModel .* in score \(0.01\)"),
    (lambda outputs: outputs | {"fake": ~outputs["fake"]}, r"differs from the SavedModel .* in fake \(inf\)"),
    (lambda outputs: 1 / 0, "loads, but fails on clips of the shape")])  # fmt: skip
def test_another_result_is_refused_and_not_kept(cnn, saved_model_as, capsys, change, sentence):
    saved_model_as(change)
    (cnn / "onnx").mkdir(exist_ok=True)
    (cnn / "onnx" / "model.onnx").write_bytes(b"the last one")
    assert cli.main(["export", str(cnn), "--format", "onnx", "--count", "2"]) == 1
    assert re.search(rf"^tfdetect export: .*{sentence}", capsys.readouterr().err, re.M)
    assert (cnn / "onnx" / "model.onnx").read_bytes() == b"the last one"


def test_a_converter_that_fails_and_a_file_that_does_not_load(cnn, saved_model_as, monkeypatch, capsys):
    def fail(file):
        raise ValueError("no such operation\nand a long list")

    saved_model_as(dict, fail)
    command = ["export", str(cnn), "--format", "onnx"]
    assert cli.main(command) == 1
    assert "cnn cannot be converted to ONNX: ValueError: no such operation" in capsys.readouterr().err
    saved_model_as(dict)
    monkeypatch.setitem(converted.FORMATS, "onnx", converted.Format("ONNX", "model.onnx", lambda *_: 1 / 0, (), True))
    assert cli.main(command) == 1
    assert "was written, but does not load: ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "sentence"), [
    (["--quantize", "int8"], "--quantize int8 needs --format"),
    (["--format", "onnx", "--quantize", "int8", "--files", "a.jpg"], "leave out --files"),
    (["--format", "onnx", "--count", "0"], "--count must be at least 1")])  # fmt: skip
def test_flags_that_do_not_go_together(cnn, capsys, flags, sentence):
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", str(cnn), *flags])
    assert stop.value.code == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_without_the_extra(cnn, capsys, monkeypatch):
    monkeypatch.setitem(converted.FORMATS, "onnx", converted.Format("ONNX", "model.onnx", None, ("no_such_package",), True))
    assert cli.main(["export", str(cnn), "--format", "onnx"]) == 2
    assert "--format onnx needs no_such_package: pip install 'tfdetect[onnx]'" in capsys.readouterr().err


def test_the_readme_of_a_run_on_faces_asks_for_one_face():
    facts = convert_notes.facts(Calibration.from_dict(served.CALIBRATION), (None,) * 4 + (3,), ["score"], "face_crop")
    told = facts | {"file": "model.onnx", "detector": "cnn", "run": "x", "version": 1, "sources": [], "quantized": None,
                    "compared": {"files": 1, "largest": 0.0}}  # fmt: skip
    text = convert_notes.readme("onnx", "ONNX", told, 32, [convert_notes.FACES.format(1.3)])
    assert "1.3 times the longer side" in text and "height, width, 3), of one face\n" in text and '{"face_crop": clips}' in text
