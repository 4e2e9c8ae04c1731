"""Read the arrays of a PyTorch file (.pth, .pt) without PyTorch, and without running anything that the file names.

Such a file is a pickle, which may name any function to be called. Here a few names stand for the functions of this module, and
every other name is refused. Both of PyTorch's formats are read: the zip archive, and the pickles in a row that it replaced.
"""

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np

from tfdetect.errors import UserError

OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled number that files in the old format start with
DTYPES = {"Float": "<f4", "Double": "<f8", "Half": "<f2", "BFloat16": "bfloat16", "Long": "<i8", "Int": "<i4", "Short": "<i2",
          "Char": "i1", "Byte": "u1", "Bool": "?"}  # fmt: skip
STATE_KEYS = ("state_dict", "model_state_dict", "model", "net")  # where training scripts keep the weights
MAX_MEMO = 10_000_000  # of a pickle; a single number of it could otherwise reserve any amount of memory


class Storage(NamedTuple):
    """A row of numbers in the file."""

    dtype: str
    key: str
    size: int


class Tensor(NamedTuple):
    """A view of a storage: its offset, shape and strides in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Rebuild:
    """Takes the place of a function of PyTorch. Unlike a function, it has no attributes that a pickle could set."""

    __slots__ = ()

    def __call__(self, value: Any, *arguments: Any) -> Any:
        """Return the tensor of the arguments of `_rebuild_tensor_v2`, or the first argument of `_rebuild_parameter`."""
        return value if isinstance(value, Tensor) else Tensor(value, *arguments[:3])


class _Unpickler(pickle.Unpickler):
    """Unpickles dicts, lists, numbers, texts and tensors, and refuses everything else."""

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        allowed = {("collections", "OrderedDict"): OrderedDict, ("torch", "Size"): tuple,
                   ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(), ("torch._utils", "_rebuild_parameter"): _Rebuild(),
                   **{("torch", f"{kind}Storage"): dtype for kind, dtype in DTYPES.items()}}  # fmt: skip
        if (module, name) not in allowed:
            raise UserError(f"it names {module}.{name}, which is not read; save the arrays alone, by "
                            "torch.save(model.state_dict(), FILE)")  # fmt: skip
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _, size = pid[:5]
        if kind != "storage" or dtype not in DTYPES.values() or not isinstance(size, int):
            raise UserError(f"it refers to {kind!r} of type {dtype!r}")
        return self.storages.setdefault(str(key), Storage(dtype, str(key), size))


def read(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a state dict by name, in the order of the file. Raises UserError for any other content."""
    import ml_dtypes  # noqa: F401  (adds bfloat16 to NumPy)

    try:
        with open(path, "rb") as file:
            tree, read_storage = _read_old(file) if file.read(len(OLD_FORMAT)) == OLD_FORMAT else _read_archive(file)
            arrays = {name: _to_array(tensor, read_storage) for name, tensor in _tensors(tree)}
    except UserError:
        raise
    except Exception as error:  # a damaged or hostile pickle raises any kind of exception
        raise UserError(f"it is damaged ({type(error).__name__}: {' '.join(str(error).split())[:200]})") from error
    return arrays or _fail("it holds no arrays")


def _read_archive(file: BinaryIO) -> tuple[Any, Callable[[Storage], np.ndarray]]:
    archive = zipfile.ZipFile(file)
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise UserError("it is compressed, which PyTorch's files are not")
    root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise UserError("its numbers are big-endian")

    def read_storage(storage: Storage) -> np.ndarray:
        return np.frombuffer(archive.read(f"{root}data/{storage.key}"), storage.dtype)

    return _unpickle(io.BytesIO(archive.read(f"{root}data.pkl")))[0], read_storage


def _read_old(file: BinaryIO) -> tuple[Any, Callable[[Storage], np.ndarray]]:
    """Read the pickles: version, machine, content and keys of the storages. The storages follow, each after its length."""
    _, (machine, _) = _unpickle(file), _unpickle(file)
    if not machine["little_endian"]:
        raise UserError("its numbers are big-endian")
    (tree, storages), (keys, _) = _unpickle(file), _unpickle(file)
    places = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        places[key] = (file.tell(), count)
        file.seek(count * np.dtype(storages[key].dtype).itemsize, io.SEEK_CUR)

    def read_storage(storage: Storage) -> np.ndarray:
        start, count = places[storage.key]
        file.seek(start)
        return np.frombuffer(file.read(count * np.dtype(storage.dtype).itemsize), storage.dtype)

    return tree, read_storage


def _unpickle(file: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    """Return the content of the next pickle, and the storages that it refers to by their keys."""
    start = file.tell()
    for operation, argument, _ in pickletools.genops(file):
        if operation.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > MAX_MEMO:
            raise UserError("its pickle is not one of PyTorch's")
    file.seek(start)
    unpickler = _Unpickler(file)
    return unpickler.load(), unpickler.storages


def _tensors(tree: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and tensors of a state dict, which may be one of the entries of a checkpoint."""
    inner = next((tree[key] for key in STATE_KEYS if isinstance(tree.get(key), dict)), tree)
    names = [str(name) for name, value in inner.items() if isinstance(value, Tensor)]
    prefix = "module." if names and all(name.startswith("module.") for name in names) else ""  # of DataParallel
    yield from ((str(name).removeprefix(prefix), value) for name, value in inner.items() if isinstance(value, Tensor))


def _to_array(tensor: Tensor, read_storage: Callable[[Storage], np.ndarray]) -> np.ndarray:
    """Return a tensor's numbers. Raises UserError if they lie outside of its storage, or if it repeats numbers."""
    numbers = read_storage(tensor.storage)
    ends = [size - 1 for size in tensor.shape]
    whole = all(isinstance(value, int) and value >= 0 for value in (tensor.offset, *tensor.shape, *tensor.strides))
    last = tensor.offset + sum(end * stride for end, stride in zip(ends, tensor.strides, strict=True))
    if not whole or last >= max(len(numbers), 1) or int(np.prod(tensor.shape, dtype=object)) > len(numbers):
        raise UserError(f"an array of shape {tensor.shape} lies outside of its {len(numbers)} numbers")
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides))


def _fail(message: str) -> NoReturn:
    raise UserError(message)
