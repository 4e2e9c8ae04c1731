"""Grad-CAM and integrated gradients give known answers on networks whose gradients are known, at any depth of nesting."""

import keras
import numpy as np
import pytest
from keras import layers

from tfdetect.explain import gradients
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.models.detectors.cnn_lstm import CnnLstm
from tfdetect.models.detectors.feature_oneclass import FeatureOneClass
from tfdetect.models.float_input import with_float_input

SIZE = 16


def red_network(square=False):
    """Return a model of images whose score is 3 x the mean of the red channel, as a share of 255, or that of its square."""
    inputs = keras.Input((1, SIZE, SIZE, 3), dtype="uint8")
    red = layers.Conv2D(1, 1, use_bias=False, name="red")
    x = red(layers.Reshape((SIZE, SIZE, 3))(layers.Rescaling(1 / 255)(inputs)))
    x = layers.Multiply()([x, x]) if square else layers.ReLU()(x)
    red.set_weights([np.array([1, 0, 0], np.float32).reshape(1, 1, 3, 1)])
    score = layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, score(layers.GlobalAveragePooling2D()(x)))
    score.set_weights([np.full((1, 1), 3, np.float32)])
    return with_float_input(model)


@pytest.fixture
def clip(rng):
    return rng.integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)


def test_grad_cam_is_the_map_times_the_gradient(clip):
    heat = gradients.GradCam(red_network())(np.stack([clip, 255 - clip]))
    assert heat.shape == (2, 1, SIZE, SIZE) and heat.dtype == np.float32
    expected = clip[..., 0] / 255 * 3 / SIZE**2  # each position of the map has the gradient 3 / positions
    np.testing.assert_allclose(heat[0], expected, rtol=1e-5)
    np.testing.assert_allclose(heat[1], 3 / SIZE**2 - expected, atol=1e-7)


def test_grad_cam_finds_evidence_that_counts_at_one_place_alone():
    """A flattened map whose weights are 2 at one place and -1 at all others: the mean gradient would leave nothing."""
    inputs = keras.Input((1, 4, 4, 3), dtype="uint8")
    bright, score = layers.Conv2D(1, 1, use_bias=False), layers.Dense(1, use_bias=False)
    x = bright(layers.Reshape((4, 4, 3))(layers.Rescaling(1 / 255)(inputs)))
    model = keras.Model(inputs, score(layers.Flatten()(x)))
    bright.set_weights([np.full((1, 1, 3, 1), 1 / 3, np.float32)])
    weights = np.full((16, 1), -1, np.float32)
    weights[6] = 2
    score.set_weights([weights])
    heat = gradients.GradCam(with_float_input(model))(np.full((1, 1, 4, 4, 3), 255, np.uint8))[0, 0]
    expected = np.zeros((4, 4))
    expected[1, 2] = 2
    np.testing.assert_allclose(heat, expected, atol=1e-6)


@pytest.mark.parametrize("baseline", ["black", "mean", "blurred"])
def test_integrated_gradients_of_a_sum_are_its_terms(clip, baseline):
    """A pixel's part of a mean of squares is exact, too: the gradient along the way is linear."""
    heat, difference = gradients.integrated_gradients(red_network(square=True), clip, baseline)
    start = gradients.baseline_of(clip, baseline)
    expected = 3 * ((clip / 255) ** 2 - (start / 255) ** 2)[..., 0] / SIZE**2
    np.testing.assert_allclose(heat, expected, atol=1e-7)
    assert heat.sum() == pytest.approx(difference, abs=1e-5) and abs(difference) > (0.01 if baseline != "black" else 0.5)
    assert gradients.smooth(heat).sum() == pytest.approx(heat.sum(), abs=1e-5), "blurred for the eye alone"


def test_baselines(clip):
    assert not gradients.baseline_of(clip, "black").any()
    np.testing.assert_allclose(gradients.baseline_of(clip, "mean")[0, 3, 5], clip[0].mean(axis=(0, 1)), rtol=1e-5)
    blurred = gradients.baseline_of(clip, "blurred")
    assert 0.1 * clip.std() < blurred.std() < 0.9 * clip.std()


@pytest.fixture(scope="module")
def clip_model(tmp_path_factory):
    """A detector of clips on an image detector that takes uint8 frames itself."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("frame") / "frame.keras"
    Cnn(width=4).build((1, SIZE, SIZE, 3)).save(path)
    return CnnLstm(frame_model=str(path), freeze=True).build((3, SIZE, SIZE, 3))


def test_the_copy_with_a_float_input_scores_alike(clip_model, rng):
    clips = rng.integers(0, 256, (2, 3, SIZE, SIZE, 3), np.uint8)
    copy = with_float_input(clip_model)
    np.testing.assert_allclose(copy(clips.astype(np.float32)), clip_model(clips), atol=1e-6)
    half = clips.astype(np.float32) + 0.5
    assert not np.allclose(copy(half), copy(half - 0.5), atol=1e-9), "nothing on the way rounds to whole grey levels"


def test_a_clip_detector_has_a_map_of_each_frame(clip_model, rng):
    """Frames of noise and of one colour alternate: the maps differ, and attributions add up although the models are nested."""
    clip = rng.integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    clip[1] = 128
    model = with_float_input(clip_model)
    attributions, difference = gradients.integrated_gradients(model, clip, "mean", steps=64)
    assert attributions.shape == (3, SIZE, SIZE) and difference != 0
    assert attributions.sum() == pytest.approx(difference, rel=0.05) and not attributions[1].any(), "it equals its baseline"
    cam, score = gradients.GradCam(model), model.get_layer("score")
    for_fake = cam(clip[None])[0]
    score.set_weights([-weight for weight in score.get_weights()])
    for_real = cam(clip[None])[0]
    assert for_fake.shape == (3, SIZE, SIZE) and (for_fake >= 0).all() and (for_fake * for_real == 0).mean() > 0.5
    assert len({heat.sum().round(9) for heat in for_fake + for_real}) == 3, "each frame has a map of its own"


def test_without_a_convolution_or_a_gradient_one_sentence_says_so():
    one_class = with_float_input(FeatureOneClass().build((1, 32, 32, 3)))
    with pytest.raises(gradients.NoGradient, match="no convolution whose map is at least 2 x 2"):
        gradients.GradCam(one_class)
    inputs = keras.Input((1, SIZE, SIZE, 3), dtype="uint8")
    rounded = layers.Flatten()(keras.ops.round(layers.Rescaling(1 / 8)(inputs)))
    patches = layers.Conv2D(2, 8, 8)(layers.Reshape((SIZE, SIZE, 3))(layers.Rescaling(1.0)(inputs)))
    for x, name in ((rounded, "pixels"), (layers.Flatten()(patches), None)):
        model = with_float_input(keras.Model(inputs, layers.Dense(1)(x)))
        with pytest.raises(gradients.NoGradient, match="no convolution"):
            gradients.GradCam(model)
        if name:
            with pytest.raises(gradients.NoGradient, match="no gradient with respect to the pixels"):
                gradients.integrated_gradients(model, np.zeros((1, SIZE, SIZE, 3), np.uint8), steps=1)


def test_mirrored_copies_of_images_are_turned_back():
    heat = np.zeros((2, 4, 4), np.float32)
    heat[0, 1, 0], heat[1, 1, 3] = 2, 4  # the same place, in the image and in its mirror image
    assert np.array(gradients._without_mirrored(heat, 1))[0, 1].tolist() == [3, 0, 0, 0]
