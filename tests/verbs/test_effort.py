"""Decoding limits of predict, explain and evaluate: each flag that a message names is accepted."""

import numpy as np
import pytest
from PIL import Image

from tfdetect import cli
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.limits import LimitOverrides, Limits
from tfdetect.settings import Data, DecodeOverrides

pytestmark = pytest.mark.usefixtures("light")


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    argv = ["cnn", "--data.path", str(images), "--data.size", "16", "--data.frames", "1", "--train.epochs", "0",
            "--data.cache_dir", str(folder / "cache"), "--out", str(folder / "runs"), "--detector.width", "4"]  # fmt: skip
    assert cli.main(["train", *argv]) == 0
    return Artifact(folder / "runs" / "cnn")


@pytest.fixture
def others(tmp_path):
    """4 + 4 images of 40 x 40 pixels."""
    rng = np.random.default_rng(0)
    for label in ("real", "fake"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(4):
            image = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
            image.save(tmp_path / "set" / label / f"{label}{number}.png")
    return tmp_path / "set"


FEW, MANY = ["--data.limits.pixels", "1599"], ["--data.limits.pixels", "1600"]
MESSAGE = "1600 pixels (40 x 40) announced, at most 1599 are read (--data.limits.pixels)"


def test_predict_and_explain_accept_the_flag_that_their_message_names(run, others, tmp_path, capsys):
    file = str(others / "real" / "real0.png")
    for verb, more in (("predict", ["--workers", "1"]), ("explain", ["--out", str(tmp_path / "out"), "--cells", "2"])):
        argv = [verb, str(run.folder), file, "--data.timeout", "50", *more]
        assert cli.main([*argv, *FEW]) == 1 and MESSAGE in capsys.readouterr().out
        assert cli.main([*argv, *MANY]) == 0 and MESSAGE not in capsys.readouterr().out


def test_evaluate_accepts_it_and_retries_failed_files(run, others, capsys):
    argv = ["evaluate", str(run.folder), "--data.path", str(others), "--data.workers", "1"]
    assert cli.main([*argv, *FEW]) == 2
    assert MESSAGE in capsys.readouterr().err
    assert cli.main([*argv, *MANY]) == 0


def test_defaults_are_those_of_training():
    trained = Data(workers=3, timeout=7, limits=Limits(pixels=5, frames=6))
    assert DecodeOverrides().apply_to(trained) == trained
    asked = DecodeOverrides(timeout=9, limits=LimitOverrides(frames=8)).apply_to(trained)
    assert (asked.workers, asked.timeout, asked.limits) == (3, 9, Limits(pixels=5, frames=8))
    for wrong in ({"timeout": 0.0}, {"workers": 0}):
        with pytest.raises(UserError, match="--data"):
            DecodeOverrides(**wrong)
