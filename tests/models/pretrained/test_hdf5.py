"""Weights from HDF5: matched by name or order and by shape; only arrays in the file itself are read."""

import h5py
import keras
import numpy as np
import pytest

from tfdetect.models.pretrained import hdf5, weight_files
from tfdetect.models.pretrained.hdf5 import WeightsFile


def build_model(names=("a", "b")):
    first, last = names
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name=first), keras.layers.Dense(2, name=last)])


def write(path, names=("a", "b"), change=None):
    """Write a file as Keras 2 did; `change(file)` then damages it."""
    arrays = [np.full(shape, number, np.float32) for number, shape in enumerate([(4, 3), (3,), (3, 2), (2,)])]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in names]
        for at, name in enumerate(names):
            group = file.create_group(name)
            group.attrs["weight_names"] = [b"kernel", b"bias"]
            group["kernel"], group["bias"] = arrays[2 * at : 2 * at + 2]
        if change:
            change(file)
    return path


def weight_means(model):
    return [float(weight.mean()) for weight in model.get_weights()]


def test_weights_are_matched_by_name_if_all_names_match_else_by_order(tmp_path):
    same_names, other_names = build_model(("b", "a")), build_model(("x", "y"))
    with pytest.raises(ValueError, match="expected"):
        weight_files.load_weights(same_names, write(tmp_path / "w.h5"))  # matched by name, the shapes differ
    weight_files.load_weights(other_names, tmp_path / "w.h5")
    assert weight_means(other_names) == [0, 1, 2, 3]


def use_link(file):
    del file["a"]["kernel"]
    file["a"]["kernel"] = h5py.ExternalLink("other.h5", "kernel")


def use_external_storage(file):
    del file["a"]["kernel"]
    file["a"].create_dataset("kernel", (4, 3), "f4", external=[("/etc/hostname", 0, 48)])


def use_virtual_dataset(file):
    del file["a"]["kernel"]
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "kernel", (4, 3))
    file["a"].create_virtual_dataset("kernel", layout)


def change_shape(file):
    del file["b"]["kernel"]
    file["b"]["kernel"] = np.zeros((3, 3), np.float32)


def remove_layer_names(file):
    del file.attrs["layer_names"]


def remove_layer(file):
    file.attrs["layer_names"] = [b"a"]


@pytest.mark.parametrize(("change", "message"), [
    (use_link, "a link"), (use_external_storage, "points at another file"), (use_virtual_dataset, "points at another file"),
    (change_shape, r"kernel is \(3, 3\), expected \(3, 2\)"), (remove_layer_names, "no attribute layer_names"),
    (remove_layer, "2 arrays, expected 4: .*kernel .* is missing"),
])  # fmt: skip
def test_unsafe_or_mismatched_files_are_refused_and_change_nothing(tmp_path, change, message):
    model = build_model(("x", "y"))
    before = weight_means(model)
    with pytest.raises(ValueError, match=message):
        weight_files.load_weights(model, write(tmp_path / "w.h5", change=change))
    assert weight_means(model) == before


def test_a_file_that_is_not_hdf5_is_refused(tmp_path):
    (tmp_path / "w.h5").write_bytes(b"not at all")
    with pytest.raises(ValueError, match="does not hold weights for this detector"):
        weight_files.load_weights(build_model(), tmp_path / "w.h5")


def test_a_failed_download_says_what_to_put_where(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    weights_file = WeightsFile("http://127.0.0.1:9/weights_notop.h5", "00")
    with pytest.raises(ValueError) as error:
        hdf5.resolve_weights("imagenet", weights_file)
    text = str(error.value)
    assert "Download http://127.0.0.1:9/weights_notop.h5" in text and "models" in text and "--detector.weights FILE" in text
    assert hdf5.resolve_weights("none", weights_file) is None
