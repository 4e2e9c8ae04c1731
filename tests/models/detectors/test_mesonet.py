"""MesoNet: the published parameter counts, and a forward pass compared with NumPy."""

import h5py
import numpy as np
import pytest
from scipy.signal import correlate

from tfdetect.models.detectors.mesonet import MesoNet


@pytest.mark.parametrize(("variant", "count"), [("meso4", 27977), ("mesoinception4", 28615)])
def test_the_parameter_count_is_the_papers(variant, count):
    model = MesoNet(variant=variant).build((1, 256, 256, 3))
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == count


def write_weights(path, variant, seed=0):
    """Write an HDF5 file as Keras 2 did, and return its arrays by name."""
    rng = np.random.default_rng(seed)
    model = MesoNet(variant=variant).build((1, 256, 256, 3))
    arrays = {}
    with h5py.File(path, "w") as file:
        layers = [layer for layer in model.layers if layer.weights]
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                low, high = (0.5, 1.5) if "variance" in name else (-0.2, 0.3)
                arrays[name] = rng.uniform(low, high, weight.shape).astype(np.float32)
                group[name] = arrays[name]
    return arrays


class Reference:
    """The forward pass of the paper in NumPy and SciPy."""

    def __init__(self, arrays):
        self.arrays = arrays

    def convolution(self, x, name, dilation=1):
        kernel, bias = self.arrays[f"{name}/kernel:0"].astype(float), self.arrays[f"{name}/bias:0"]
        wide = np.zeros(((kernel.shape[0] - 1) * dilation + 1, (kernel.shape[1] - 1) * dilation + 1, *kernel.shape[2:]))
        wide[::dilation, ::dilation] = kernel
        inputs, outputs = wide.shape[2:]
        maps = [sum(correlate(x[..., i], wide[..., i, o], "same", "fft") for i in range(inputs)) for o in range(outputs)]
        return np.maximum(np.stack(maps, -1) + bias, 0)

    def normalised(self, x, number, pool):
        scale, shift, mean, variance = (
            self.arrays[f"batch_normalization_{number}/{name}:0"] for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        x = (x - mean) / np.sqrt(variance + 1e-3) * scale + shift
        return x.reshape(x.shape[0] // pool, pool, x.shape[1] // pool, pool, -1).max((1, 3))

    def inception(self, x, first, number):
        branches = [self.convolution(x, f"conv2d_{first}")]
        for dilation in (1, 2, 3):
            narrow = self.convolution(x, f"conv2d_{first + 2 * dilation - 1}")
            branches.append(self.convolution(narrow, f"conv2d_{first + 2 * dilation}", dilation))
        return self.normalised(np.concatenate(branches, -1), number, 2)

    def real_logit(self, image, variant):
        """Return the published output before the sigmoid: higher is more likely real."""
        x = image / 255
        if variant == "meso4":
            for number, pool in ((5, 2), (6, 2), (7, 2), (8, 4)):
                x = self.normalised(self.convolution(x, f"conv2d_{number}"), number, pool)
        else:
            x = self.inception(self.inception(x, 1, 1), 8, 2)
            x = self.normalised(self.convolution(x, "conv2d_15"), 3, 2)
            x = self.normalised(self.convolution(x, "conv2d_16"), 4, 4)
        first, last = ("dense_3", "dense_4") if variant == "meso4" else ("dense_1", "dense_2")
        x = x.ravel() @ self.arrays[f"{first}/kernel:0"] + self.arrays[f"{first}/bias:0"]
        return np.where(x > 0, x, 0.1 * x) @ self.arrays[f"{last}/kernel:0"] + self.arrays[f"{last}/bias:0"]


@pytest.mark.parametrize("variant", ["meso4", "mesoinception4"])
def test_published_weights_give_the_negated_output_of_the_paper(variant, tmp_path, rng):
    arrays = write_weights(tmp_path / "w.h5", variant)
    image = rng.integers(0, 256, (256, 256, 3), np.uint8)
    model = MesoNet(variant=variant, weights=tmp_path / "w.h5").build((1, 256, 256, 3))
    score = model.predict(image[None, None], verbose=0)[0, 0]
    assert score == pytest.approx(-Reference(arrays).real_logit(image.astype(float), variant)[0], rel=1e-4)


def test_the_score_with_fixed_weights(tmp_path):
    write_weights(tmp_path / "w.h5", "meso4")
    image = (np.indices((256, 256)).sum(0)[..., None] * [1, 2, 3] % 256).astype(np.uint8)
    model = MesoNet(weights=tmp_path / "w.h5").build((1, 256, 256, 3))
    assert model.predict(image[None, None], verbose=0)[0, 0] == pytest.approx(-10.597380, rel=1e-4)


def test_weights_of_another_variant_or_size_are_refused(tmp_path):
    write_weights(tmp_path / "w.h5", "meso4")
    with pytest.raises(ValueError, match=r"conv2d_5/kernel:0 is \(3, 3, 3, 8\), expected \(1, 1, 3, 4\)"):
        MesoNet(variant="mesoinception4", weights=tmp_path / "w.h5").build((1, 256, 256, 3))
    with pytest.raises(ValueError, match=r"\(1024, 16\), expected \(256, 16\)"):
        MesoNet(weights=tmp_path / "w.h5").build((1, 128, 128, 3))


def test_a_missing_file_is_reported_by_require(tmp_path):
    with pytest.raises(ValueError, match="is not a file"):
        MesoNet(weights=tmp_path / "none.h5").require()
