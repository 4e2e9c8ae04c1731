"""Noise statistics against NumPy loops and images with a known spectrum."""

import keras
import numpy as np

from tfdetect.models.layers import noise


def numpy_of(x):
    return keras.ops.convert_to_numpy(x)


def test_co_occurrences_count_neighbours(rng):
    planes = rng.integers(-2, 3, (5, 6, 2)).astype(np.float32)
    expected = np.zeros((2, 2, 5, 5))
    for plane in range(2):
        for axis, (rows, columns) in enumerate(((5, 5), (4, 6))):
            for row in range(rows):
                for column in range(columns):
                    other = planes[row + axis, column + 1 - axis, plane]
                    expected[plane, axis, int(planes[row, column, plane]) + 2, int(other) + 2] += 1 / (rows * columns)
    np.testing.assert_allclose(numpy_of(noise.co_occurrences(planes)), expected.ravel(), atol=1e-6)


def test_moments_of_noise_whose_planes_are_equal(rng):
    """The kurtosis of Gaussian noise is 3, and planes that are equal correlate fully."""
    filters = len(noise.FILTERS)
    x = np.tile(rng.normal(0, 7, (1, 40_000, filters)), 3).astype(np.float32)
    magnitude, deviation, kurtosis, correlation = np.split(numpy_of(noise.moments(x))[0], [3 * filters, 6 * filters, 9 * filters])
    np.testing.assert_allclose(deviation, np.log(7), atol=0.02)
    np.testing.assert_allclose(magnitude, np.log(7 * np.sqrt(2 / np.pi) + 0.1), atol=0.02)
    np.testing.assert_allclose(kurtosis, np.log(3.1), atol=0.1)
    np.testing.assert_allclose(correlation, 1, atol=1e-3)


def test_residuals_ignore_a_ramp_and_brightness_and_see_noise(rng):
    layer, ramp = noise.ResidualStatistics(), np.full((1, 24, 24, 3), 40.0) + np.arange(24)[:, None] * 2
    flat, brighter, noisy = (numpy_of(layer(np.float32(x)))[0] for x in (ramp, ramp + 90, ramp + rng.normal(0, 9, ramp.shape)))
    np.testing.assert_allclose(flat, brighter, atol=1e-3)
    second_order = slice(2, 6)  # of the mean magnitudes of Y
    np.testing.assert_allclose(flat[second_order], np.log(0.1), atol=1e-2)
    assert (noisy[second_order] > 0.5).all()
    kernel = noise.residual_kernel()
    np.testing.assert_allclose(kernel.sum((0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(np.abs(kernel).max((0, 1)), 1)


def test_a_grid_raises_power_and_peak_of_its_ring_alone(rng):
    x = rng.normal(128, 5, (1, 64, 64, 3))
    grid = x + 10 * np.cos(2 * np.pi * 0.25 * np.arange(64))[:, None]  # a quarter of a cycle per pixel: ring 8 of 16
    plain, peaked = (numpy_of(noise.RadialSpectrum(16)(np.float32(image))).reshape(3, 32) for image in (x, grid))
    change = (peaked - plain)[0]
    for values in (change[:16], change[16:]):
        assert set(np.argsort(values)[-2:]) <= {7, 8} and values.max() > 1 and abs(np.delete(values, [7, 8])).max() < 0.5
    np.testing.assert_allclose(peaked[1:], plain[1:], atol=1e-2, err_msg="a grey pattern does not show in the colours")
