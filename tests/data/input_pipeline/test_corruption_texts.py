"""Corruptions as users write them: their text, its mistakes, and corruptions of their own."""

import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfdetect import corruption_spec, detector
from tfdetect.data.input_pipeline.corruptions import parse
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.settings import Run, Train

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "text, normal",
    [("", ""), (" ", ""), ("flip( )", "flip"), ("flip(p=.5) | jpeg( 30, 100, p=0.50)", "flip|jpeg(30,100,p=0.5)"),
     ("blur(2,2.0,p=1)", "blur(2)"), ("brightness(-10,+10)", "brightness(-10,10)"), ("noise(1e-3)", "noise(0.001)")],
)  # fmt: skip
def test_the_text_has_a_normal_form(text, normal):
    chain = parse(text)
    assert str(chain) == normal and parse(normal) == chain and bool(chain) == bool(normal)
    with pytest.raises(dataclasses.FrozenInstanceError):
        chain.steps = ()


@pytest.mark.parametrize(
    "text, message",
    [
        ("jpg(80)", "'jpg(80)' is not a known corruption. Perhaps you meant jpeg(quality[,to][,p=1]) with an integer"),
        ("flip|blurr(2)", "'blurr(2)' is not a known corruption. Perhaps you meant blur("),
        ("sepia", "is not a known corruption. Choose from flip, jpeg,"),
        ("posterise(4)", "Perhaps you meant posterize(bits[,to][,p=1]) with an integer bits in 1..8."),
        ("fouriermix(0.2)", "Perhaps you meant fourier_mix(weight"),
        ("posterize(0)", "in 1..8"),
        ("solarize(257)", "in 0..256 levels"),
        ("hue(181)", "in -180..180 degrees"),
        ("autocontrast(2)", "expected autocontrast[(p=1)]"),
        ("jpeg", "'jpeg' is invalid; expected jpeg(quality[,to][,p=1])"),
        ("jpeg(0)", "in 1..100"),
        ("jpeg(80.5)", "integer quality"),
        ("jpeg(1,2,3)", "expected jpeg("),
        ("jpeg(True)", "expected jpeg("),
        ("jpeg('80')", "expected jpeg("),
        ("blur(1e999)", "sigma in 0..50 pixels"),
        ("blur(3,0)", "with the lower bound first"),
        ("blur(2,q=1)", "where p is a probability in 0..1"),
        ("blur(2,p=1.5)", "where p is a probability in 0..1"),
        ("blur(2,p=1,p=0)", "cannot be parsed"),
        ("flip(1)", "expected flip[(p=0.5)]"),
        ("flip|", "'' cannot be parsed; expected steps such as jpeg(80)"),
        ("jpeg(80", "cannot be parsed"),
        ("jpeg(*[80])", "cannot be parsed"),
        ("jpeg(__import__('os').getpid())", "cannot be parsed"),
        ("(" * 9999, "cannot be parsed"),
        ("jpeg(" + "-" * 99999 + "1)", "cannot be parsed"),
        ("jpeg(80)\0", "cannot be parsed"),
    ],
)
def test_an_invalid_text_has_a_helpful_error(text, message):
    with pytest.raises(ValueError) as error:
        parse(text)
    assert message in str(error.value) and str(error.value).endswith(".") and "\n" not in str(error.value)


def test_corruptions_that_change_labels_need_training_on_both_classes():
    assert parse("jpeg(80)|cutout(0.5)").preserves_labels and not parse("jpeg(80)|mixup(0.2)").preserves_labels
    with pytest.raises(ValueError, match=r"--data\.corrupt: selfblend changes labels"):
        corruption_spec.check_flag("jpeg(80)|selfblend(1)", "--data.corrupt", labels=False)

    class OneClass(Cnn):
        trains_on = "real"

    Run(OneClass(), train=Train(augment="jpeg(80)"))
    with pytest.raises(ValueError, match=r"--train\.augment: mixup changes labels"):
        Run(OneClass(), train=Train(augment="mixup(0.5)"))
    assert detector.Detector.trains_on == "both"


def test_file_names_have_no_brackets():
    assert parse("flip|jpeg(30,100,p=0.5)|brightness(-9)").slug == "flip-jpeg_30_100_p0.5-brightness_-9"


def test_a_mistake_is_reported_before_tensorflow_is_loaded():
    code = "import sys; from tfdetect.settings import Train\ntry: Train(augment='jpg(80)')\n"
    code += "except ValueError as e: print(e, 'tensorflow' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("--train.augment: 'jpg(80)' is not") and done.stdout.endswith("False False\n"), done.stderr


def test_the_documentation_lists_every_corruption():
    text = (ROOT / "docs" / "augment.md").read_text()
    for name, kind in corruption_spec.CORRUPTIONS.items():
        row = next(line for line in text.splitlines() if re.match(rf"\| .*`{name}[`(]", line))
        assert not kind.parameter or (f"`{name}({kind.parameter})`" in row and f"| {kind.low:g}..{kind.high:g} |" in row)


PLUGIN = """
from tfdetect.corruption_spec import Corruption, register

@register("vignette", Corruption("strength", 0, 1, probability=0.5))
def vignette(clips, values, seed):
    import tensorflow as tf

    factor = 1 - values[:, None, None, None, None] * tf.linspace(-1.0, 1.0, tf.shape(clips)[3])[:, None] ** 2
    return tf.saturate_cast(tf.round(tf.cast(clips, tf.float32) * factor), tf.uint8)
"""


@pytest.fixture
def plugin(tmp_path):
    """Import a module that registers the corruption `vignette`, for the duration of the test."""
    (tmp_path / "plugin.py").write_text(PLUGIN)
    spec = importlib.util.spec_from_file_location("plugin", tmp_path / "plugin.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield tmp_path / "plugin.py"
    del corruption_spec.CORRUPTIONS["vignette"], corruption_spec.REGISTERED["vignette"]


def test_a_plugin_adds_a_corruption(plugin, rng):
    clips, labels = rng.integers(1, 256, (6, 3, 5, 61, 3), np.uint8), np.float32([[0], [1], [0], [1], [0], [0]])
    assert str(parse("flip|vignette(0.5,0.90,p=1)")) == "flip|vignette(0.5,0.9,p=1)"
    assert str(parse("vignette(1,p=0.5)")) == "vignette(1)"
    with pytest.raises(ValueError, match=r"expected vignette\(strength\[,to\]\[,p=0.5\]\) with a strength in 0..1"):
        parse("vignette(2)")
    chain, seed = parse("vignette(1,p=1)"), tf.constant([3, 4])
    pixels, same = (part.numpy() for part in chain(clips, labels, seed))
    assert (pixels[..., 0, :] == 0).all() and np.array_equal(pixels[..., 30, :], clips[..., 30, :])
    assert np.array_equal(labels, same)
    data = tf.data.Dataset.from_tensors((clips, labels)).map(lambda *batch: chain(*batch, seed))
    assert np.array_equal(next(iter(data))[0], pixels)
    many = np.repeat(clips[:1], 64, axis=0)
    changed = (parse("vignette(1)")(many, np.zeros((64, 1), np.float32), seed)[0].numpy() != many).any(axis=(1, 2, 3, 4))
    assert 16 < changed.sum() < 48, "p is 0.5 by default"
    Train(augment="vignette(0,1)")


def test_importing_a_plugin_does_not_load_tensorflow(plugin):
    code = "import plugin, sys; from tfdetect.settings import Train; Train(augment='vignette(1)')\n"
    code += "print('tensorflow' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{plugin.parent}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize("name, corruption, message", [
    ("jpeg", corruption_spec.Corruption(), "'jpeg': the name already exists"),
    ("my-jpeg", corruption_spec.Corruption(), "'my-jpeg': the name is not an identifier"),
    ("mix", corruption_spec.Corruption(changes_labels=True), "only built-in corruptions may change labels")])  # fmt: skip
def test_invalid_registrations_are_errors(name, corruption, message):
    with pytest.raises(ValueError, match=message):
        corruption_spec.register(name, corruption)
