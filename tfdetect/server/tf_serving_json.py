"""Tensors as JSON, as https://www.tensorflow.org/tfx/serving/api_rest defines it: the bodies of `:predict`, and their errors.

Inputs come by row (`instances`) or by column (`inputs`), binary ones as {"b64": "..."}; NaN, Infinity and -Infinity are numbers.
The texts of errors are those of TensorFlow Serving where it has one, shortened where it repeats the whole request.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from reprlib import repr as shorten
from typing import Any

import numpy as np

NAMES = {"float32": "float", "float64": "double", "object": "string"}  # TensorFlow's names of types


class BadRequest(ValueError):
    """The request is not valid; the message says why, as TensorFlow Serving does."""


def parse_body(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a request, whose signature_name, if any, is a text. Raises BadRequest."""
    if not body:
        raise BadRequest("JSON Parse error: The document is empty")
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8
        position = f" at offset: {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise BadRequest(f"JSON Parse error: Invalid value.{position}") from error
    if not isinstance(request, dict):
        raise BadRequest(f"JSON Value: {shorten(request)} Is not object")
    if not isinstance(request.get("signature_name", ""), str):
        raise BadRequest(f"JSON Value: {shorten(request)} not formatted correctly. 'signature_name' key must be a string value.")
    return request


def read_inputs(request: Mapping[str, Any], dtypes: Mapping[str, np.dtype]) -> tuple[dict[str, np.ndarray], bool]:
    """Return the arrays of a request by name, texts and bytes as objects, and whether they came by row.

    `dtypes` are those of the inputs of the signature. Raises BadRequest.
    """
    if "inputs" in request:
        if "instances" in request:
            raise BadRequest(f"JSON Value: {shorten(request)} Not formatted correctly expecting only one of 'inputs' or "
                             "'instances' keys to exist")  # fmt: skip
        return _read_columns(request["inputs"], dtypes), False
    if "instances" not in request:
        raise BadRequest("Missing 'inputs' or 'instances' key")
    rows = request["instances"]
    if not isinstance(rows, list):
        raise BadRequest(f"JSON Value: {shorten(request)} Excepting 'instances' to be an list/array")
    if not rows:
        raise BadRequest(f"JSON Value: {shorten(request)} No values in 'instances' array")
    return _read_rows(rows, dtypes), True


def _read_columns(value: Any, dtypes: Mapping[str, np.dtype]) -> dict[str, np.ndarray]:
    if not _is_object(value):
        if len(dtypes) > 1:
            raise BadRequest("inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                             "tensorinfo_map")  # fmt: skip
        value = dict.fromkeys(dtypes, value)
    if missing := [name for name in dtypes if name not in value]:
        raise BadRequest(f"Missing named input: {missing[0]} in 'inputs' object.")
    return {name: read_tensor(value[name], dtype) for name, dtype in dtypes.items()}


def _read_rows(rows: list[Any], dtypes: Mapping[str, np.dtype]) -> dict[str, np.ndarray]:
    """Return arrays of rows that are values of the only input, or objects with a value for each input, all of one shape."""
    named = _is_object(rows[0])
    if not named and len(dtypes) > 1:
        raise BadRequest("instances is a plain list, but expecting list of objects as multiple input tensors required as per "
                         "tensorinfo_map")  # fmt: skip
    columns: dict[str, list[np.ndarray]] = {name: [] for name in dtypes}
    for number, row in enumerate(rows):
        if _is_object(row) != named:
            raise BadRequest(f"Expecting {'object but got list' if named else 'value/list but got object'} at item {number} of "
                             "input list")  # fmt: skip
        values = row if named else dict.fromkeys(dtypes, row)
        if values.keys() != dtypes.keys():
            raise BadRequest(f"Failed to process element: {number} of 'instances' list. JSON object: {shorten(row)} must only "
                             f"have keys: {','.join(sorted(dtypes))}")  # fmt: skip
        for name, value in values.items():
            try:
                columns[name].append(array := read_tensor(value, dtypes[name]))
                if array.shape != columns[name][0].shape:
                    raise BadRequest(f"Expecting shape {_text(columns[name][0].shape)} but got: {_text(array.shape)}")
            except BadRequest as error:
                key = f" key: {name}" if named else ""
                raise BadRequest(f"Failed to process element: {number}{key} of 'instances' list. Error: {error}") from error
    return {name: np.stack(arrays) for name, arrays in columns.items()}


def read_tensor(value: Any, dtype: np.dtype) -> np.ndarray:
    """Return a JSON value, a scalar or nested lists of one shape, as an array. Raises BadRequest for other values, and for
    numbers that the type cannot hold."""
    if dtype.kind == "O":
        return _read_texts(value)
    try:
        array = np.array(value)
    except ValueError as error:
        raise BadRequest(f"JSON Value: {shorten(value)} has lists of different sizes at one level") from error
    if not array.size and array.dtype == float:
        return array.astype(dtype)
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]  # NumPy's
    if array.dtype.kind not in kinds:
        raise BadRequest(f"JSON Value: {shorten(value)} is not of expected type: {NAMES.get(dtype.name, dtype.name)}")
    if dtype.kind == "b":
        return array
    limits: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    largest = 2 ** (limits.nmant + 1) - 1 if dtype.kind == "f" and array.dtype.kind in "iu" else limits.max
    finite = array[np.isfinite(array)]
    if finite.size and (finite.max() > largest or finite.min() < (-largest if dtype.kind == "f" else limits.min)):
        raise BadRequest(f"Cannot convert JSON value: {shorten(value)} to {NAMES.get(dtype.name, dtype.name)} without loss of "
                         "precision.")  # fmt: skip
    return array.astype(dtype)


def _read_texts(value: Any) -> np.ndarray:
    """Return texts, as UTF-8, and {"b64": ...}, in nested lists of one shape, as an array of bytes objects."""
    if isinstance(value, list):
        parts = [_read_texts(each) for each in value]
        if len({part.shape for part in parts}) > 1:
            raise BadRequest(f"JSON Value: {shorten(value)} has lists of different sizes at one level")
        return np.stack(parts) if parts else np.empty(0, object)
    array = np.empty((), object)
    if isinstance(value, str):
        array[()] = value.encode("utf-8", "surrogatepass")
    elif isinstance(value, dict):
        if not _is_base64(value):
            raise BadRequest(f"JSON Value: {shorten(value)} not formatted correctly for base64 data")
        array[()] = _decode_base64(value["b64"])
    else:
        raise BadRequest(f"JSON Value: {shorten(value)} is not of expected type: string")
    return array


def _decode_base64(text: str) -> bytes:
    try:
        text = "".join(text.split()).rstrip("=")  # line breaks may be there, and the padding missing
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError as error:
        raise BadRequest("Unable to base64 decode") from error


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def write_outputs(outputs: Mapping[str, np.ndarray], by_row: bool) -> bytes:
    """Return the body of an answer by row or by column; a single output goes without its name.

    Raises BadRequest if it is by row and an output has not as many rows as the others.
    """
    columns = {name: _values(name, value) for name, value in sorted(outputs.items())}
    if not by_row:
        return _dump({"outputs": columns if len(columns) > 1 else next(iter(columns.values()))})
    counts = {name: len(value) if isinstance(value, list) else 0 for name, value in columns.items()}
    expected = next(iter(counts.values()))
    if wrong := [name for name, count in counts.items() if count != expected or not count]:
        raise BadRequest(f"Tensor name: {wrong[0]} has inconsistent batch size: {counts[wrong[0]]} expecting: {expected}")
    rows: Iterable[Any] = zip(*columns.values(), strict=True)
    rows = (row[0] for row in rows) if len(columns) == 1 else (dict(zip(columns, row, strict=True)) for row in rows)
    return _dump({"predictions": list(rows)})


def _values(name: str, array: np.ndarray) -> Any:
    """Return an output as nested lists, floats with the fewest digits that give the same float32."""
    if array.dtype == np.float32:
        return np.array(list(map(float, map(str, array.ravel()))), float).reshape(array.shape).tolist()
    if array.dtype != object:
        return array.tolist()
    as_text = _as_base64 if name.endswith("_bytes") else _as_text
    texts = np.empty(array.size, object)
    texts[:] = list(map(as_text, array.ravel()))
    return texts.reshape(array.shape).tolist()


def _as_text(value: bytes) -> str:
    return value.decode(errors="replace")


def _as_base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _dump(answer: Any) -> bytes:
    return json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode()


def _text(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"
