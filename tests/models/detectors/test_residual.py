"""`residual`: its block DCT, its augmentation, which changes no pixel values, and its two branches."""

import keras
import numpy as np
import pytest

from tfdetect import backend
from tfdetect.models.detectors.residual import Residual
from tfdetect.models.layers import block_dct, common


def values(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_block_dct_is_zero_on_flat_colour_and_finds_a_single_frequency():
    flat = np.broadcast_to(np.array([0.3, -0.6, 0.9], np.float32), (2, 32, 40, 3))
    layer = block_dct.BlockDCT()
    assert layer(flat).shape == (2, 4, 5, 2 * 3 * 63)
    np.testing.assert_allclose(values(layer(flat)), 0, atol=1e-4)
    wave = np.cos(np.pi * (2 * np.arange(8) + 1) * 2 / 16).astype(np.float32)[:, None, None] * np.ones((1, 8, 3), np.float32) / 8
    coefficients = values(layer(wave[None]))[0, 0, 0, : 3 * 63]
    assert np.flatnonzero(np.abs(coefficients) > 0.01).tolist() == [2 * 8 - 1], "Y, vertical frequency 2, horizontal 0"


def test_the_basis_is_orthonormal_and_high_frequencies_can_be_left_out():
    kernel = block_dct.dct_kernel(14)[:, :, :, :63].sum(axis=2).reshape(64, 63) / 127.5
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(63), atol=1e-5)
    layer = block_dct.BlockDCT(max_frequency=4, log_magnitude=False)
    assert layer(np.zeros((1, 8, 8, 3))).shape == (1, 1, 1, 3 * 14)


def test_crops_keep_pixels_and_the_block_grid(rng):
    images = rng.normal(size=(3, 48, 40, 3)).astype(np.float32)
    crop = common.AlignedCrop(16, seed=0)
    assert np.array_equal(crop(images, training=False), images)
    corners = set()
    for _ in range(60):
        out = values(crop(images, training=True))
        y, x = np.argwhere((images[0] == out[0, 0, 0]).all(axis=-1))[0]
        assert np.array_equal(out, images[:, y : y + 16, x : x + 16])
        corners.add((int(y), int(x)))
    assert all(y % 8 == x % 8 == 0 for y, x in corners) and len(corners) > 12, "there are 5 x 4 positions"
    assert crop(images[:, :8], training=True).shape == (3, 8, 16, 3)


def test_each_image_of_a_training_batch_trains_one_of_the_branches():
    layer = block_dct.BranchDropout(first_rate=0.7, seed=0)
    branches = [np.ones((500, 2), np.float32), np.ones((500, 3), np.float32)]
    assert np.array_equal(layer(branches), np.ones((500, 5)))
    out = values(layer(branches, training=True))
    first = out[:, 0] == 1
    assert np.array_equal(out, np.repeat(np.stack([first, ~first], axis=1), (2, 3), axis=1)) and 300 < first.sum() < 400


def test_running_mean_subtraction_follows_the_mean_of_the_training_features(rng):
    layer = block_dct.RunningMeanSubtraction(momentum=0.5)
    x = rng.normal(5, 2, (400, 3)).astype(np.float32)
    for _ in range(20):
        layer(x, training=True)
    np.testing.assert_allclose(values(layer(x)), x - x.mean(axis=0), atol=1e-3)


def test_without_a_fingerprint_a_mirror_image_has_the_same_score(rng):
    clips = rng.integers(0, 256, (2, 1, 32, 32, 3), np.uint8)
    model = Residual(places=0).build(clips.shape[1:])
    np.testing.assert_allclose(model.predict(clips, verbose=0), model.predict(clips[:, :, :, ::-1], verbose=0), atol=1e-5)


def test_training_is_random_only_where_it_augments(rng):
    clips = rng.integers(0, 256, (4, 1, 160, 160, 3), np.uint8)
    plain, augmented = (Residual(augment=augment, dropout=0.0).build(clips.shape[1:]) for augment in (False, True))
    assert np.array_equal(values(plain(clips, training=True)), values(plain(clips, training=True)))
    assert not np.array_equal(values(augmented(clips, training=True)), values(augmented(clips, training=True)))


@pytest.mark.parametrize("detector", [Residual(places=0, sides=False, crop=0), Residual(depth=2, crop=16), Residual(widths=(8,))])
@pytest.mark.parametrize("size", [(8, 8), (36, 52)])
def test_other_settings_and_sizes_can_be_trained(detector, size, rng):
    clips = rng.integers(0, 256, (2, 1, *size, 3), np.uint8)
    model = detector.build(clips.shape[1:])
    model.compile("adam", detector.losses(), run_eagerly=backend.is_tensorflow())  # a graph takes longer than a step
    assert np.isfinite(model.train_on_batch(clips, np.array([[0.0], [1.0]])))
    assert model.predict(clips, verbose=0).shape == (2, 1) and model.get_layer("features")


def test_invalid_settings_are_refused():
    with pytest.raises(ValueError, match="8 x 8 pixels"):
        Residual().build((1, 7, 40, 3))
    with pytest.raises(ValueError, match="widths"):
        Residual(widths=())
    with pytest.raises(ValueError, match="crop"):
        Residual(crop=7)
