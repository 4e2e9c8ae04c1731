"""What is particular to `residual`: its front sees no flat colour, its augmentation changes no pixel, its sides are joined."""

import keras
import numpy as np
import pytest

from tfdetect.models.detectors.residual import Residual
from tfdetect.models.layers import block_dct, common


def values(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_the_front_is_zero_on_flat_colour_and_shows_a_planted_wave():
    flat = np.broadcast_to(np.array([0.3, -0.6, 0.9], np.float32), (2, 32, 40, 3))
    front = block_dct.BlockDCT()
    assert front(flat).shape == (2, 4, 5, 2 * 3 * 63) == front.compute_output_shape((2, 32, 40, 3))
    np.testing.assert_allclose(values(front(flat)), 0, atol=1e-4)
    wave = np.cos(np.pi * (2 * np.arange(8) + 1) * 2 / 16).astype(np.float32)[:, None, None] * np.ones((1, 8, 3), np.float32) / 8
    found = values(front(wave[None]))[0, 0, 0, : 3 * 63]
    assert np.flatnonzero(np.abs(found) > 0.01).tolist() == [2 * 8 - 1], "grey, two half waves down, none across"


def test_the_waves_are_orthonormal_and_the_finest_can_be_left_out():
    kernel = block_dct.dct_kernel(14)[:, :, :, :63].sum(axis=2).reshape(64, 63) / 127.5
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(63), atol=1e-5)
    coarse = block_dct.BlockDCT(finest=4, strength=False)
    assert coarse(np.zeros((1, 8, 8, 3))).shape == coarse.compute_output_shape((1, 8, 8, 3)) == (1, 1, 1, 3 * 14)


def test_crops_keep_pixels_and_their_place_in_the_grid(rng):
    pictures = rng.normal(size=(3, 48, 40, 3)).astype(np.float32)
    crop = common.AlignedCrop(16, seed=0)
    assert np.array_equal(crop(pictures, training=False), pictures)
    corners = set()
    for _ in range(60):
        out = values(crop(pictures, training=True))
        y, x = np.argwhere((pictures[0] == out[0, 0, 0]).all(axis=-1))[0]
        assert np.array_equal(out, pictures[:, y : y + 16, x : x + 16])
        corners.add((int(y), int(x)))
    assert all(y % 8 == x % 8 == 0 for y, x in corners) and len(corners) > 12, "of 5 x 4 places"
    assert crop(pictures[:, :8], training=True).shape == (3, 8, 16, 3)


def test_each_picture_of_a_training_batch_teaches_one_of_the_two():
    one_of = block_dct.BranchDropout(share=0.7, seed=0)
    both = [np.ones((500, 2), np.float32), np.ones((500, 3), np.float32)]
    assert np.array_equal(one_of(both), np.ones((500, 5)))
    out = values(one_of(both, training=True))
    first = out[:, 0] == 1
    assert np.array_equal(out, np.repeat(np.stack([first, ~first], axis=1), (2, 3), axis=1)) and 300 < first.sum() < 400


def test_centred_follows_the_mean_of_the_training_pictures(rng):
    layer = block_dct.RunningMeanSubtraction(momentum=0.5)
    x = rng.normal(5, 2, (400, 3)).astype(np.float32)
    for _ in range(20):
        layer(x, training=True)
    np.testing.assert_allclose(values(layer(x)), x - x.mean(axis=0), atol=1e-3)


def test_without_places_a_mirror_image_has_the_same_score(rng):
    clips = rng.integers(0, 256, (2, 1, 32, 32, 3), np.uint8)
    model = Residual(places=0).build(clips.shape[1:])
    np.testing.assert_allclose(model.predict(clips, verbose=0), model.predict(clips[:, :, :, ::-1], verbose=0), atol=1e-5)


def test_training_is_random_only_where_it_augments(rng):
    clips = rng.integers(0, 256, (4, 1, 160, 160, 3), np.uint8)
    plain, usual = (Residual(augment=augment, dropout=0.0).build(clips.shape[1:]) for augment in (False, True))
    assert np.array_equal(values(plain(clips, training=True)), values(plain(clips, training=True)))
    assert not np.array_equal(values(usual(clips, training=True)), values(usual(clips, training=True)))


@pytest.mark.parametrize("detector", [Residual(places=0, sides=False, crop=0), Residual(depth=2, crop=16), Residual(widths=(8,))])
@pytest.mark.parametrize("size", [(8, 8), (36, 52)])
def test_it_can_be_built_otherwise_for_any_size(detector, size, rng):
    clips = rng.integers(0, 256, (2, 1, *size, 3), np.uint8)
    model = detector.build(clips.shape[1:])
    model.compile("adam", detector.losses())
    assert np.isfinite(model.train_on_batch(clips, np.array([[0.0], [1.0]])))
    assert model.predict(clips, verbose=0).shape == (2, 1) and model.get_layer("features")


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="8 x 8 pixels"):
        Residual().build((1, 7, 40, 3))
    with pytest.raises(ValueError, match="widths"):
        Residual(widths=())
    with pytest.raises(ValueError, match="crop"):
        Residual(crop=7)
