"""Load weights from elsewhere into a network: Keras .h5 and .keras, .safetensors, and PyTorch's .pth.

Arrays are matched by the names of layers where all of them match, otherwise in order. Every array must have the expected shape,
and what it is (a kernel, a running mean ...) must agree where the file says so. A classifier at the end of the file is left out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfdetect.errors import UserError
from tfdetect.models.pretrained import hdf5, torch_file
from tfdetect.models.pretrained.stored_array import StoredArray

FORMATS = "a Keras .h5 or .keras, a .safetensors, or a PyTorch .pth file"
# PyTorch's names of the arrays of normalisation and other layers, in the order of Keras, and the names in Keras.
NORMALISATION = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
OTHERS = {"weight": "kernel", "bias": "bias"}
# From PyTorch's axes to those of Keras, by number of axes; the last is for depthwise convolutions.
AXES: dict[int, Sequence[tuple[int, ...]]] = {2: [(1, 0)], 3: [(2, 1, 0)], 4: [(2, 3, 1, 0), (2, 3, 0, 1)]}


def load_weights(model: Any, path: Path) -> str:
    """Load a file into a model and return a sentence about the classifier that was left out, or "".

    Raises UserError, with the model unchanged, if an array is missing, left over or of the wrong shape.
    """
    layers = [layer for layer in flat_layers(model) if layer.weights and type(layer).__name__ != "Normalization"]
    variables = [variable for layer in layers for variable in layer.weights]
    try:
        stored = [array for array in read(path) if not re.fullmatch(r"normalization(_\d+)?", array.layer)]
        chosen = _by_name(layers, stored) or stored
        _check(variables, chosen)
        left_out = _require_classifier(stored, chosen[: len(variables)])
        values = [array.read(tuple(variable.shape)) for variable, array in zip(variables, chosen, strict=False)]
    except (OSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{path} does not hold weights for this detector: {reason}.") from error
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return f"{path} is loaded without its classifier: {', '.join(left_out)}." if left_out else ""


def flat_layers(model: Any) -> Iterator[Any]:
    """Yield the layers of a model, with the layers of a model inside of it in its place."""
    for layer in model.layers:
        yield from flat_layers(layer) if hasattr(layer, "layers") and hasattr(layer, "get_layer") else [layer]


def read(path: Path) -> list[StoredArray]:
    """Return the arrays of a file, in its order. Raises UserError if it is in none of the formats."""
    with open(path, "rb") as file:
        start = file.read(len(torch_file.OLD_FORMAT))
    if start.startswith(b"\x89HDF"):
        return hdf5.read(path)
    if start.startswith(b"PK"):
        import zipfile

        with zipfile.ZipFile(path) as archive:
            is_keras = "model.weights.h5" in archive.namelist()
        return _read_keras(path) if is_keras else from_pytorch(torch_file.read(path))
    if start == torch_file.OLD_FORMAT:
        return from_pytorch(torch_file.read(path))
    if start[8:9] == b"{":
        return from_pytorch(_read_safetensors(path))
    raise UserError(f"it is not {FORMATS}")


def _read_keras(path: Path) -> list[StoredArray]:
    from keras import ops

    from tfdetect import models

    return [StoredArray(layer.name, weight.name, weight.path, tuple(weight.shape), partial(ops.convert_to_numpy, weight))
            for layer in flat_layers(models.load(path)) for weight in layer.weights]  # fmt: skip


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    import ml_dtypes  # noqa: F401  (adds bfloat16 to NumPy)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"it is damaged ({error})") from error


def from_pytorch(named: Mapping[str, np.ndarray]) -> list[StoredArray]:
    """Return arrays that are named as in PyTorch or in Keras, with their roles in Keras and the axes to transpose."""
    modules: dict[str, dict[str, np.ndarray]] = {}
    for name, array in named.items():
        module, suffix = re.fullmatch(r"(?:(.*)[./])?([^./]*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
        if suffix != "num_batches_tracked":
            modules.setdefault(module or "", {})[suffix] = array
    return [stored for module, arrays in modules.items() for stored in _from_module(module, arrays)]


def _from_module(module: str, arrays: Mapping[str, np.ndarray]) -> Iterator[StoredArray]:
    is_norm = "running_mean" in arrays or ("weight" in arrays and arrays["weight"].ndim == 1)
    roles = NORMALISATION if is_norm else OTHERS
    for suffix in [*(name for name in roles if name in arrays), *(name for name in arrays if name not in roles)]:
        array = arrays[suffix]
        axes = AXES.get(array.ndim, ()) if suffix == "weight" else ()
        name = f"{module}.{suffix}" if module else suffix
        yield StoredArray(re.sub(r"[./]", "_", module), roles.get(suffix, suffix), name, array.shape, array.view, axes)


def _by_name(layers: Sequence[Any], stored: Sequence[StoredArray]) -> list[StoredArray]:
    """Return the arrays of these layers, if the file has all of the layers, else nothing."""
    arrays: dict[str, list[StoredArray]] = {}
    for array in stored:
        arrays.setdefault(array.layer, []).append(array)
    if not all(layer.name in arrays for layer in layers):
        return []
    for layer in layers:
        if len(found := arrays[layer.name]) != len(layer.weights):
            raise UserError(f"{layer.name} takes {len(layer.weights)} arrays, the file has {[array.name for array in found]}")
    return [array for layer in layers for array in _in_order(layer, arrays[layer.name])]


def _in_order(layer: Any, arrays: list[StoredArray]) -> list[StoredArray]:
    """Return the arrays of a layer in the order of its variables, if the file says what they are; else as they are."""
    names = [variable.name for variable in layer.weights]
    by_role = {array.role: array for array in arrays}
    return [by_role[name] for name in names] if {*by_role} == {*names} and len(arrays) == len(by_role) else arrays


def _check(variables: Sequence[Any], chosen: Sequence[StoredArray]) -> None:
    """Raise UserError for the first array that does not fit its variable, or for missing ones."""
    for variable, array in zip(variables, chosen, strict=False):
        shape = tuple(variable.shape)
        if not array.fits(shape):
            order = f", in Keras' order {array.shapes[0]}" if array.axes else ""
            raise UserError(f"{array.name} is {array.shape}{order}, expected {shape} for {variable.path}")
        if array.role_differs(variable.name):
            raise UserError(f"{array.name} comes where {variable.path} is expected, so it is of another network")
    if len(chosen) < len(variables):
        missing = variables[len(chosen)]
        raise UserError(f"it has {len(chosen)} arrays, expected {len(variables)}: {missing.path} {tuple(missing.shape)} is "
                        "missing")  # fmt: skip


def _require_classifier(stored: Sequence[StoredArray], used: Sequence[StoredArray]) -> list[str]:
    """Return the names of the arrays that are not used. Raises UserError unless they are dense layers at the end of the file."""
    names = {array.name for array in used}
    rest = [array for array in stored if array.name not in names]
    last = max((place for place, array in enumerate(stored) if array.name in names), default=-1)
    for array in rest:
        if not array.is_dense or stored.index(array) < last:
            raise UserError(f"it has {len(stored)} arrays, expected {len(used)}: {array.name} {array.shape} has no place in the "
                            "network")  # fmt: skip
    return [f"{array.name} {array.shape}" for array in rest]
