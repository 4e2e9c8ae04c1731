"""Load published weights: find or download the file, and read it from HDF5 by names and shapes alone.

A Keras `.h5` file may contain code that Keras would run (`safe_mode` does not apply to it). Here, h5py reads only arrays, and
only those whose shapes match. Links and data in other files are refused (CVE-2026-1669).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfdetect.errors import UserError


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights to download."""

    url: str
    hash: str  # MD5 or SHA-256

    def download(self) -> Path:
        """Return the file in Keras' download folder, downloaded if needed.

        Raises UserError that says which file to put where.
        """
        import keras

        name = self.url.rsplit("/", 1)[1]
        folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
        try:
            return Path(keras.utils.get_file(name, self.url, file_hash=self.hash, cache_subdir="models"))
        except Exception as error:  # get_file raises a bare Exception if the server does not answer
            reason = " ".join(str(error).split(" -- ")[-1].split())
            raise UserError(
                f"The ImageNet weights are not on this machine and could not be downloaded ({reason}). "
                f"Download {self.url} on another machine and put it into {folder}, or give its path "
                "as --detector.weights FILE; --detector.weights none starts from random weights."
            ) from error


def resolve_weights(weights: str | Path, imagenet_weights: WeightsFile | None) -> Path | None:
    """Return the file that `--detector.weights` names by `imagenet`, `none` or a path; None for `none`.

    Raises UserError if the file is missing.
    """
    if weights == "imagenet" and imagenet_weights:
        return imagenet_weights.download()
    if weights == "none":
        return None
    path = Path(weights)
    if not path.is_file():
        raise UserError(f"--detector.weights {path} is not a file; expected imagenet, none, or an HDF5 file of weights.")
    return path


def load_weights(model: Any, path: Path) -> None:
    """Load an HDF5 file as written by Keras 1 and 2: by layer names if all of them match, else in the order of the layers.

    Raises UserError, with the model unchanged, if the file is not of this format or shapes differ.
    """
    layers = [layer for layer in model.layers if layer.weights]
    for layer, arrays in read_weights(path, layers):
        layer.set_weights(arrays)


def read_weights(path: Path, layers: Sequence[Any]) -> list[tuple[Any, list[Any]]]:
    """Return (layer, arrays) for each layer. Raises UserError as `load_weights` does."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            groups = _match_groups(file.get("model_weights", file), layers)
            return [(layer, [_read_array(group, name, weight) for name, weight in zip(names, layer.weights, strict=True)])
                    for layer, group, names in groups]  # fmt: skip
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} does not hold weights for this detector: {' '.join(str(error).split())}.") from error


def _match_groups(file: Any, layers: Sequence[Any]) -> list[tuple[Any, Any, list[str]]]:
    """Return (layer, HDF5 group, names of its arrays) for each layer."""
    if "layer_names" not in file.attrs:
        raise UserError("it has no attribute layer_names, which the HDF5 files of Keras 1 and 2 have")
    stored = {}
    for name in _decode(file.attrs["layer_names"]):
        group = _get_local(file, name)
        if len(names := _decode(group.attrs["weight_names"])):
            stored[name.replace("/", "_")] = (group, names)  # Keras 3 does not allow slashes in names
    if len(stored) != len(layers):
        raise UserError(f"it has {len(stored)} layers with weights, expected {len(layers)}")
    by_name = all(layer.name in stored for layer in layers)
    groups = [stored[layer.name] for layer in layers] if by_name else list(stored.values())
    for layer, (_, names) in zip(layers, groups, strict=True):
        if len(names) != len(layer.weights):
            raise UserError(f"{layer.name} takes {len(layer.weights)} arrays, the file has {names}")
    return [(layer, group, names) for layer, (group, names) in zip(layers, groups, strict=True)]


def _read_array(group: Any, name: str, weight: Any) -> Any:
    dataset = _get_local(group, name)
    if dataset.external or dataset.is_virtual:
        raise UserError(f"{name} points at another file")
    if tuple(dataset.shape) != tuple(weight.shape):
        raise UserError(f"{name} is {tuple(dataset.shape)}, expected {tuple(weight.shape)} for {weight.path}")
    return dataset[()]


def _get_local(group: Any, name: str) -> Any:
    """Return the object of that name if it is in this file itself, not behind a link."""
    import h5py

    item = group
    for part in name.split("/"):
        if not isinstance(item.get(part, getlink=True), h5py.HardLink):
            raise UserError(f"{name} is missing, or a link")
        item = item[part]
    return item


def _decode(names: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]
