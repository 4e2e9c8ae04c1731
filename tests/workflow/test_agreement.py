"""A converted detector must give what the SavedModel gives, and int8 is measured."""

import numpy as np
import pytest
import served

from tfdetect.data.equalise import Plan
from tfdetect.errors import UserError
from tfdetect.workflow.agreement import Comparison, ConversionError, NativeFrames, Scores, difference
from tfdetect.workflow.conversion import first_line


@pytest.mark.parametrize(("wanted", "got", "largest"), [
    ([1.0, 2.0], [1.0, 2.0001], 5e-5),  # relative beyond 1
    ([0.5], [0.5001], 1e-4),
    ([1000.0], [1000.05], 5e-5),
    ([np.nan, 1.0], [np.nan, 1.0], 0),
    ([np.inf], [np.inf], 0),
    ([np.inf], [1.0], np.inf),
    ([0.0], [np.nan], np.inf),
    ([0.0, 1.0], [0.0], np.inf),
    ([True, False], [True, False], 0),
    ([True, False], [True, True], np.inf)])  # fmt: skip
def test_difference_of_two_outputs(wanted, got, largest):
    assert difference(np.array(wanted), np.array(got)) == pytest.approx(largest, rel=1e-6)


def test_a_comparison_keeps_the_largest_difference_and_its_file():
    comparison = Comparison()
    for path, score in (("a", 0.00001), ("b", 0.3), ("c", 0.0)):
        comparison.add(path, {"score": np.array([0.0]), "familiarity": np.array([0.2])}, {"score": np.array([score])}
                       | {"familiarity": np.array([0.9])})  # fmt: skip
    assert (comparison.files, comparison.worst, comparison.largest) == (3, "b", 0.3)
    assert comparison.outputs == ("score", "familiarity"), "also those that are not compared"
    with pytest.raises(ConversionError, match=r"differs from the SavedModel by more than 0.0001 in score \(0.3\), most on b"):
        comparison.check("ONNX")


def test_outputs_that_agree_or_are_missing_or_were_never_compared():
    comparison = Comparison()
    with pytest.raises(UserError, match="None of the files could be read"):
        comparison.check("ONNX")
    comparison.add("a", {"score": np.array([5.0])}, {"score": np.array([5.0004])})
    comparison.check("ONNX")
    with pytest.raises(ConversionError, match="lacks the output fake"):
        comparison.add("b", {"score": np.array([5.0]), "fake": np.array([True])}, {"score": np.array([5.0])})


def test_the_cost_of_quantizing_is_measured_on_files():
    scores = Scores(np.array([0, 0, 1, 1]), np.array([-2.0, -1, 1, 2]), np.array([-2.0, 1.5, 1, 2]))
    assert scores.summary(0.0) == {"files": 4, "auc_before": 1.0, "auc_after": 0.75, "other_decisions": 1, "largest": 2.5}
    assert Scores(np.ones(2), np.ones(2), np.ones(2)).summary(0.0)["auc_after"] is None


def test_the_reason_of_a_failure_is_a_line_without_temporary_paths(tmp_path):
    file = tmp_path / ".part-x" / "model.onnx"
    unread = ValueError(f"Load model from {file} failed:\nat 0x1")
    assert first_line(unread, file) == "ValueError: Load model from model.onnx failed:"
    nested = RuntimeError("Exception from src/core.cpp:89:\n\nCheck 'x' failed at a.cpp:1:\nThere is no Complex")
    assert first_line(nested, file) == "RuntimeError: There is no Complex" and first_line(OSError()) == "OSError: no message"


def test_what_is_compared_of_an_equalised_run_is_equalised_and_of_native_size(tmp_path):
    (tmp_path / "a.png").write_bytes(served.picture(size=(40, 48)))
    assert NativeFrames(1, 16, plan=Plan(32, 90, 0.0, 1)).read(tmp_path / "a.png").frames.shape == (1, 32, 32, 3)
    assert NativeFrames(1, 16).read(tmp_path / "a.png").frames.shape == (1, 40, 48, 3)
