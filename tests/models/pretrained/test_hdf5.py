"""Weights from HDF5: by name or order, by shape, and nothing but numbers from the very file."""

import h5py
import keras
import numpy as np
import pytest

from tfdetect.models.pretrained import hdf5
from tfdetect.models.pretrained.hdf5 import WeightsFile


def net(names=("a", "b")):
    first, last = names
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name=first), keras.layers.Dense(2, name=last)])


def write(path, names=("a", "b"), change=None):
    """A file as Keras 2 wrote it; `change(file)` spoils it."""
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


def filled(model):
    return [float(weight.mean()) for weight in model.get_weights()]


def test_by_name_where_all_names_are_known_else_in_order(tmp_path):
    known, unknown = net(("b", "a")), net(("x", "y"))
    with pytest.raises(ValueError, match="expected"):
        hdf5.load_weights(known, write(tmp_path / "w.h5"))  # by name, the shapes are the other way round
    hdf5.load_weights(unknown, tmp_path / "w.h5")
    assert filled(unknown) == [0, 1, 2, 3]


def link(file):
    del file["a"]["kernel"]
    file["a"]["kernel"] = h5py.ExternalLink("other.h5", "kernel")


def external(file):
    del file["a"]["kernel"]
    file["a"].create_dataset("kernel", (4, 3), "f4", external=[("/etc/hostname", 0, 48)])


def virtual(file):
    del file["a"]["kernel"]
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "kernel", (4, 3))
    file["a"].create_virtual_dataset("kernel", layout)


def shape(file):
    del file["b"]["kernel"]
    file["b"]["kernel"] = np.zeros((3, 3), np.float32)


def nameless(file):
    del file.attrs["layer_names"]


def fewer(file):
    file.attrs["layer_names"] = [b"a"]


@pytest.mark.parametrize(("change", "why"), [
    (link, "a link"), (external, "points at another file"), (virtual, "points at another file"),
    (shape, r"kernel is \(3, 3\), expected \(3, 2\)"), (nameless, "no layer_names"), (fewer, "1 layers with weights, expected 2"),
])  # fmt: skip
def test_what_does_not_fit_or_points_elsewhere_is_refused_and_changes_nothing(tmp_path, change, why):
    model = net(("x", "y"))
    before = filled(model)
    with pytest.raises(ValueError, match=why):
        hdf5.load_weights(model, write(tmp_path / "w.h5", change=change))
    assert filled(model) == before


def test_a_file_that_is_no_hdf5_is_refused(tmp_path):
    (tmp_path / "w.h5").write_bytes(b"not at all")
    with pytest.raises(ValueError, match="does not hold weights for this detector"):
        hdf5.load_weights(net(), tmp_path / "w.h5")


def test_weights_that_cannot_be_fetched_say_what_to_put_where(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    published = WeightsFile("http://127.0.0.1:9/weights_notop.h5", "00")
    with pytest.raises(ValueError) as error:
        hdf5.resolve_weights("imagenet", published)
    text = str(error.value)
    assert "Fetch http://127.0.0.1:9/weights_notop.h5" in text and "models" in text and "--detector.weights FILE" in text
    assert hdf5.resolve_weights("none", published) is None
