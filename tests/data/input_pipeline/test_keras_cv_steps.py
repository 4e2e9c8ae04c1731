"""The steps that keras-cv carries out, against Pillow, OpenCV and Matplotlib, and with draws that are the run's.

test_corruptions.py holds for them, too: the same results eagerly and in tf.data, determined by the seed, one draw for a clip.
"""

import sys

import cv2
import keras
import matplotlib.colors
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from tfdetect.data.input_pipeline import corruptions
from tfdetect.data.input_pipeline.corruptions import parse

STEPS = ("posterize(1,8)|solarize(100,256)|autocontrast(p=0.5)|saturation(0.5,2)|hue(-40,40)|sharpness(0,3)|"
         "grid_mask(0.1,0.5,p=0.5)|fourier_mix(0,0.5)")  # fmt: skip


@pytest.fixture(scope="module")
def clips():
    """Return clips (4, 2, 30, 37, 3) uint8 that span about 20 to 230 levels, of smooth colours with grain."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(4, 2, 30, 37, 3)), (0, 1, 3, 3, 0))
    return np.clip(120 + 200 * smooth + rng.normal(0, 9, smooth.shape), 20, 230).round().astype(np.uint8)


def corrupt(text, clips, seed=(3, 4)):
    return parse(text)(clips, np.zeros((len(clips), 1), np.float32), tf.constant(seed))[0].numpy()


def stack(clip):
    """Return an image (frames * height, width, 3) in which the frames of a clip lie below each other."""
    return clip.reshape(-1, *clip.shape[2:])


def max_difference(ours, theirs):
    """Return the largest difference in levels."""
    return np.abs(ours.astype(float) - theirs).max()


@pytest.mark.parametrize(
    "text, reference, tolerance",
    [
        *((f"posterize({bits})", lambda image, bits=bits: ImageOps.posterize(image, bits), 0) for bits in range(1, 9)),
        *((f"solarize({level})", lambda image, level=level: ImageOps.solarize(image, level), 0) for level in (0, 77, 128, 256)),
        ("autocontrast", ImageOps.autocontrast, 1),  # Pillow rounds down
        ("equalize", ImageOps.equalize, 0),
    ],
)
def test_levels_match_pillow(clips, text, reference, tolerance):
    after = corrupt(text, clips)
    for clip, one in zip(clips, after, strict=True):
        assert max_difference(stack(one), np.asarray(reference(Image.fromarray(stack(clip))))) <= tolerance


def test_autocontrast_stretches_a_clip_as_a_whole_and_leaves_a_plain_channel(clips):
    clips = clips.copy()
    clips[..., 2] = 90
    clips[0, 0] //= 2  # the darker frame stays the darker one
    pixels = clips.astype(np.float64)
    low, high = pixels.min((1, 2, 3), keepdims=True), pixels.max((1, 2, 3), keepdims=True)
    expected = np.where(high > low, (pixels - low) * 255 / np.maximum(high - low, 1), pixels)
    assert max_difference(corrupt("autocontrast", clips), expected) <= 0.501


@pytest.mark.parametrize("factor, degrees", [(0, 0), (0.4, 0), (3, 0), (10, 0), (1, -180), (1, -30), (1, 77), (1, 180)])
def test_saturation_and_hue_match_matplotlib(clips, factor, degrees):
    hsv = matplotlib.colors.rgb_to_hsv(clips / 255)
    changed = np.stack([(hsv[..., 0] + degrees / 360) % 1, np.minimum(hsv[..., 1] * factor, 1), hsv[..., 2]], -1)
    after = corrupt(f"hue({degrees})" if degrees else f"saturation({factor})", clips)
    assert max_difference(after, matplotlib.colors.hsv_to_rgb(changed) * 255) <= 0.501


@pytest.mark.parametrize("factor", [0, 0.5, 2, 10])
def test_sharpness_matches_pillow(clips, factor):
    after, kernel = corrupt(f"sharpness({factor})", clips), np.float32([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    for frame, one in zip(clips[:, 1], after[:, 1], strict=True):
        reference = np.asarray(ImageEnhance.Sharpness(Image.fromarray(frame)).enhance(factor))
        assert max_difference(one, reference) <= 1 + abs(factor - 1) / 2, "Pillow rounds the smoothed image"
        smooth = cv2.filter2D(frame.astype(np.float32), -1, kernel)
        expected = np.clip(smooth + factor * (frame - smooth), 0, 255)
        assert max_difference(one[1:-1, 1:-1], expected[1:-1, 1:-1]) <= 0.51
        assert (one[[0, -1]] == frame[[0, -1]]).all() and (one[:, [0, -1]] == frame[:, [0, -1]]).all()


def test_white_stays_white_when_equalised(clips):
    half = clips.copy()
    half[:, :, :20] = 255
    assert (corrupt("equalize", half)[:, :, :20] == 255).all()
    sorted_levels = np.sort(corrupt("equalize", clips).reshape(4, -1, 3), axis=1)
    assert max_difference(sorted_levels, np.linspace(0, 255, sorted_levels.shape[1])[:, None]) < 25, "a flat histogram"


@pytest.mark.parametrize("ratio", [0.3, 0.6, 1])
def test_a_grid_of_squares_is_covered(ratio):
    white, labels = np.full((24, 2, 40, 56, 3), 255, np.uint8), np.zeros((24, 1), np.float32)
    after = tf.function(parse(f"grid_mask({ratio})").__call__)(white, labels, tf.constant([3, 4]))[0].numpy()
    covered = after[..., 0] == corruptions.CUTOUT_LEVEL
    assert set(np.unique(after)) <= {255, corruptions.CUTOUT_LEVEL} and covered.any(axis=(0, 1)).mean() > 0.9
    assert ratio**2 - 0.02 < covered.mean() < ratio**2 + 0.12, "the squares' rotated edges are rounded up"
    if ratio < 1:
        assert np.mean([ndimage.label(mask)[1] for mask in covered[:, 0]]) > 3, "separate squares"
        assert len({mask.tobytes() for mask in covered[:, 0]}) == 24


def test_blobs_of_another_clip_are_contiguous():
    black_and_white = np.repeat(np.uint8([0, 255]), 8)[:, None, None, None, None] * np.ones((16, 1, 32, 40, 3), np.uint8)
    after = corrupt("fourier_mix(0.5)", black_and_white)[:, 0, ..., 0]
    mixed = after[(after != after[:, :1, :1]).any(axis=(1, 2))] > 0
    assert len(mixed) > 3 and (mixed.mean(axis=(1, 2)) == 0.5).all()
    edges = np.abs(np.diff(mixed.astype(int))).mean()
    assert 0 < edges < 0.15, "half of all neighbours would differ in noise"


def test_two_passes_with_four_parallel_calls_have_the_same_draws(clips, monkeypatch):
    monkeypatch.setattr(tf.random, "get_global_generator", None)  # TensorFlow refuses it in a deterministic training
    chain, labels = parse(STEPS), np.float32([[0], [1], [0], [1]])
    numbers = tf.data.Dataset.range(8)
    data = numbers.map(lambda n: chain(clips, labels, tf.stack([7, tf.cast(n, tf.int32)])), num_parallel_calls=4)
    first, second = ([(pixels.tobytes(), mixed.tobytes()) for pixels, mixed in data.as_numpy_iterator()] for _ in range(2))
    assert first == second and len(set(first)) == 8
    eager = [part.numpy().tobytes() for part in chain(clips, labels, tf.constant([7, 5]))]
    assert eager == list(first[5])


def test_the_precision_of_the_training_changes_nothing(clips):
    expected, policy = corrupt(STEPS, clips), keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        assert np.array_equal(corrupt(STEPS, clips), expected)
    finally:
        keras.config.set_dtype_policy(policy)


def test_other_steps_do_not_import_keras_cv(clips, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    corrupt("flip|jpeg(80)|cutout(0.5)|equalize|cutmix(0.5)|mixup(0.2)", clips)
    with pytest.raises(ImportError):
        corrupt("hue(9)", clips)


def test_layers_that_are_not_used_are_wrong():
    """The reasons that docs/augment.md gives."""
    import keras_cv

    plain = tf.repeat([[0.0], [1.0]], 32, axis=0)
    batch = {"images": 255 * plain[:, None, None] * tf.ones((64, 9, 9, 3)), "labels": plain}
    mixed = next(iter(tf.data.Dataset.from_tensors(batch).map(keras_cv.layers.CutMix(seed=1))))
    assert np.abs(np.mean(mixed["images"], (1, 2, 3)) / 255 - mixed["labels"][:, 0]).max() > 0.1, "labels follow the area"
    half = np.random.default_rng(0).integers(0, 250, (1, 40, 20, 3)).astype(np.float32)
    half[:, :20] = 255
    assert np.max(keras_cv.layers.Equalization(value_range=(0, 255), seed=1)(half)[0, :20]) < 160, "white stays white"
