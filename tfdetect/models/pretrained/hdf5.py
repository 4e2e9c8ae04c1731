"""Published weights into a model: looked up or fetched, and read from HDF5 by names and shapes alone.

A Keras `.h5` may hold code that Keras would run (`safe_mode` does not apply to it); here h5py reads numbers, and
only such as fit. Links and data in other files are refused (CVE-2026-1669).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfdetect.errors import UserError


@dataclass(frozen=True)
class Published:
    """A file of weights on the net."""

    url: str
    hash: str  # MD5 or SHA-256

    def find(self) -> Path:
        """The file in Keras's folder of downloads, fetched if need be. ValueError that says what to put where."""
        import keras

        name = self.url.rsplit("/", 1)[1]
        folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
        try:
            return Path(keras.utils.get_file(name, self.url, file_hash=self.hash, cache_subdir="models"))
        except Exception as error:  # get_file raises a bare Exception where the address does not answer
            reason = " ".join(str(error).split(" -- ")[-1].split())
            raise UserError(
                f"The ImageNet weights are not on this machine and could not be fetched ({reason}). "
                f"Fetch {self.url} elsewhere and put it into {folder}, or give its path "
                "as --detector.weights FILE; --detector.weights none starts from random weights."
            ) from error


def resolve(weights: str | Path, published: Published | None) -> Path | None:
    """The file that a flag `imagenet`, `none` or a path means; None for `none`. ValueError where it is not there."""
    if weights == "imagenet" and published:
        return published.find()
    if weights == "none":
        return None
    path = Path(weights)
    if not path.is_file():
        raise UserError(f"--detector.weights {path} is no file; expected imagenet, none, or an HDF5 file of weights.")
    return path


def load(model: Any, path: Path) -> None:
    """Fill a Keras model from an HDF5 file as Keras 1 and 2 wrote them: by the layers' names where all are known, else in order.

    Raises ValueError, with nothing changed, where the file is no such file, or a layer's shapes differ.
    """
    ours = [layer for layer in model.layers if layer.weights]
    found = read(path, ours)
    for layer, arrays in found:
        layer.set_weights(arrays)


def read(path: Path, layers: Sequence[Any]) -> list[tuple[Any, list[Any]]]:
    """(layer, its arrays) for each of the layers, from the file. ValueError as for `load`."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            pairs = _pairs(file.get("model_weights", file), layers)
            return [(layer, [_array(group, name, weight) for name, weight in zip(names, layer.weights, strict=True)])
                    for layer, group, names in pairs]  # fmt: skip
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} does not hold weights for this detector: {' '.join(str(error).split())}.") from error


def _pairs(file: Any, layers: Sequence[Any]) -> list[tuple[Any, Any, list[str]]]:
    if "layer_names" not in file.attrs:
        raise UserError("it has no layer_names, as the HDF5 files of Keras 1 and 2 have")
    stored = {}
    for name in _texts(file.attrs["layer_names"]):
        group = _inside(file, name)
        if len(names := _texts(group.attrs["weight_names"])):
            stored[name.replace("/", "_")] = (group, names)  # Keras 3 allows no slash in a name
    if len(stored) != len(layers):
        raise UserError(f"it has {len(stored)} layers with weights, expected {len(layers)}")
    by_name = all(layer.name in stored for layer in layers)
    values = [stored[layer.name] for layer in layers] if by_name else list(stored.values())
    for layer, (_, names) in zip(layers, values, strict=True):
        if len(names) != len(layer.weights):
            raise UserError(f"{layer.name} takes {len(layer.weights)} arrays, the file has {names}")
    return [(layer, group, names) for layer, (group, names) in zip(layers, values, strict=True)]


def _array(group: Any, name: str, weight: Any) -> Any:
    found = _inside(group, name)
    if found.external or found.is_virtual:
        raise UserError(f"{name} points at another file")
    if tuple(found.shape) != tuple(weight.shape):
        raise UserError(f"{name} is {tuple(found.shape)}, expected {tuple(weight.shape)} for {weight.path}")
    return found[()]


def _inside(group: Any, name: str) -> Any:
    """The object of that name in the very same file."""
    import h5py

    at = group
    for part in name.split("/"):
        if not isinstance(at.get(part, getlink=True), h5py.HardLink):
            raise UserError(f"{name} is missing, or a link")
        at = at[part]
    return at


def _texts(names: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]
