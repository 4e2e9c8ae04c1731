"""Resizing gives the same values as Pillow on every backend."""

import keras
import numpy as np
import pytest
from PIL import Image

from tfdetect.models.layers.resample import PillowResize


@pytest.mark.parametrize(("source", "target"), [(48, 32), (31, 14), (20, 33), (24, 24)])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_resizing_equals_pillow(kernel, source, target, rng):
    """Compared with Pillow's float mode, which neither rounds nor clips."""
    image = rng.uniform(60, 190, (source, source, 3)).astype(np.float32)
    resized = keras.ops.convert_to_numpy(PillowResize(target, interpolation=kernel)(image[None]))[0]
    resampling = Image.Resampling[kernel.upper()]
    planes = [np.array(Image.fromarray(image[..., channel]).resize((target, target), resampling)) for channel in range(3)]
    np.testing.assert_allclose(resized, np.clip(np.stack(planes, -1), 0, 255), atol=1e-2)


def test_the_centre_is_cropped(rng):
    image = rng.uniform(0, 255, (1, 40, 40, 3)).astype(np.float32)
    full, centre = PillowResize(32)(image), PillowResize(24, resize_to=32)(image)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(full)[:, 4:28, 4:28], keras.ops.convert_to_numpy(centre), atol=1e-3)
    with pytest.raises(ValueError, match="'nearest', expected bilinear or bicubic"):
        PillowResize(24, interpolation="nearest")
