"""Resizing: Pillow's numbers on every backend."""

import keras
import numpy as np
import pytest
from PIL import Image

from tfdetect.models.layers.resample import PillowResize


@pytest.mark.parametrize(("source", "target"), [(48, 32), (31, 14), (20, 33), (24, 24)])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_resizing_is_pillows(kernel, source, target, rng):
    """In Pillow's mode of floats, which rounds nothing; it does not clip either."""
    picture = rng.uniform(60, 190, (source, source, 3)).astype(np.float32)
    found = keras.ops.convert_to_numpy(PillowResize(target, interpolation=kernel)(picture[None]))[0]
    kind = Image.Resampling[kernel.upper()]
    planes = [np.array(Image.fromarray(picture[..., channel]).resize((target, target), kind)) for channel in range(3)]
    np.testing.assert_allclose(found, np.clip(np.stack(planes, -1), 0, 255), atol=1e-2)


def test_the_middle_is_kept(rng):
    picture = rng.uniform(0, 255, (1, 40, 40, 3)).astype(np.float32)
    whole, middle = PillowResize(32)(picture), PillowResize(24, whole=32)(picture)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(whole)[:, 4:28, 4:28], keras.ops.convert_to_numpy(middle), atol=1e-3)
    with pytest.raises(ValueError, match="'nearest', expected bilinear or bicubic"):
        PillowResize(24, interpolation="nearest")
