"""Weight files of other origins: read without running code, matched by names or order, or refused with the array that differs."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from tfdetect.errors import UserError
from tfdetect.models.pretrained import torch_file, weight_files
from tfdetect.models.pretrained.weight_files import load_weights

RNG = np.random.default_rng(0)


def build_model():
    """A convolution, a depthwise one, their normalisation and a dense layer."""
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, use_bias=False), keras.layers.BatchNormalization(),
                             keras.layers.DepthwiseConv2D(3), keras.layers.SeparableConv2D(5, 3), keras.layers.Flatten(),
                             keras.layers.Dense(20)])  # fmt: skip


def state_dict():
    """The arrays of that model, named, ordered and with axes as in PyTorch."""
    random = lambda *shape: RNG.normal(size=shape).astype(np.float32)  # noqa: E731
    return OrderedDict({
        "stem.weight": random(4, 3, 3, 3), "norm.weight": random(4), "norm.bias": random(4), "norm.running_mean": random(4),
        "norm.running_var": random(4) ** 2, "norm.num_batches_tracked": np.array(7), "depth.weight": random(4, 1, 3, 3),
        "depth.bias": random(4), "separable.weight": random(4, 1, 3, 3), "separable.point.weight": random(5, 4, 1, 1),
        "separable.point.bias": random(5), "fc.weight": random(20, 20), "fc.bias": random(20),
    })  # fmt: skip


class Name:
    """Pickles as the global `module.name`."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """Pickles as the result of calling a global."""

    def __init__(self, name, *arguments):
        self.name, self.arguments = name, arguments


class Pickler(pickle._Pickler):
    """Writes the names of things that are not installed here."""

    def save(self, value, *arguments, **options):
        if isinstance(value, Name):
            self.write(b"c" + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Call):
            self.save(value.name)
            self.save(value.arguments)
            self.write(b"R")
        else:
            super().save(value, *arguments, **options)

    def persistent_id(self, value):
        return value.pid if isinstance(value, Stored) else None


class Stored:
    """Numbers that are stored outside of the pickle."""

    def __init__(self, key, array):
        kind = {"f": "Float", "i": "Long"}[array.dtype.kind]
        self.pid, self.data = ("storage", Name("torch", f"{kind}Storage"), key, "cpu", array.size), array.tobytes()


def pickled(value):
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(value)
    return buffer.getvalue()


def tensor(stored, array, offset=0, strides=None):
    strides = tuple(step // array.itemsize for step in array.strides) if strides is None else strides
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), stored, offset, array.shape, strides, False, OrderedDict())


def write_torch(path, arrays, old=False, wrap=lambda tree: tree, **options):
    """Write a state dict as torch.save does, in the old or the present format."""
    storages = {name: Stored(str(number), array) for number, (name, array) in enumerate(arrays.items())}
    tree = wrap({name: tensor(storages[name], array, **options) for name, array in arrays.items()})
    if old:
        keys = [stored.pid[2] for stored in storages.values()]
        header = torch_file.OLD_FORMAT + pickled(1001) + pickled({"little_endian": True})
        data = b"".join(struct.pack("<q", stored.pid[4]) + stored.data for stored in storages.values())
        path.write_bytes(header + pickled(tree) + pickled(keys) + data)
        return path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", pickled(tree))
        for stored in storages.values():
            archive.writestr(f"w/data/{stored.pid[2]}", stored.data)
    return path


def expected(arrays):
    """The same arrays in the order and with the axes of Keras."""
    values = [array for name, array in arrays.items() if array.ndim]
    depthwise = ("depth.weight", "separable.weight")
    axes = {name: (2, 3, 0, 1) if name in depthwise else (2, 3, 1, 0) for name, array in arrays.items() if array.ndim == 4}
    axes["fc.weight"] = (1, 0)
    return [array.transpose(axes.get(name)) for name, array in arrays.items() if array.ndim] if axes else values


def checkpoint(tree):
    """What training scripts save: also the state of the optimizer, and the names of DataParallel."""
    return {"epoch": 3, "optimizer": {"momentum": tree.pop("momentum")},
            "state_dict": {f"module.{name}": value for name, value in tree.items()}}  # fmt: skip


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("is_checkpoint", [False, True])
def test_a_pytorch_file_is_read_in_order_with_the_axes_of_keras(tmp_path, old, is_checkpoint):
    arrays, model = state_dict(), build_model()
    if is_checkpoint:
        path = write_torch(tmp_path / "w.pth", {"momentum": np.zeros(3, np.float32), **arrays}, old, checkpoint)
    else:
        path = write_torch(tmp_path / "w.pth", arrays, old)
    assert load_weights(model, path) == ""
    for actual, array in zip(model.get_weights(), expected(arrays), strict=True):
        np.testing.assert_array_equal(actual, array)


def test_a_transposed_view_of_a_storage_is_read():
    """What PyTorch writes for `weight.T`: strides that are not those of the shape."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    view = torch_file.Tensor(torch_file.Storage("<f4", "0", 6), 0, (3, 2), (1, 3))
    np.testing.assert_array_equal(torch_file._to_array(view, lambda storage: array.ravel()), array.T)


def test_a_classifier_at_the_end_is_left_out_and_named(tmp_path):
    arrays, model = state_dict(), build_model()
    arrays |= {"top.weight": np.zeros((1000, 20), np.float32), "top.bias": np.zeros(1000, np.float32)}
    text = load_weights(model, write_torch(tmp_path / "w.pth", arrays))
    assert "without its classifier: top.weight (1000, 20), top.bias (1000,)" in text


@pytest.mark.parametrize(("change", "message"), [
    ({"stem.weight": (4, 3, 5, 5)}, r"stem.weight is \(4, 3, 5, 5\), in Keras' order \(5, 5, 3, 4\), expected \(3, 3, 3, 4\)"),
    ({"fc.weight": None, "fc.bias": None}, r"it has 10 arrays, expected 12.*kernel \(20, 20\) is missing"),
    ({"norm.running_var": None}, r"depth.weight .* expected \(4,\) for .*moving_variance"),
    ({"extra.running_mean": (4,)}, r"extra.running_mean \(4,\) has no place in the network"),
])  # fmt: skip
def test_a_file_that_does_not_fit_says_which_array_and_changes_nothing(tmp_path, change, message):
    arrays, model = state_dict(), build_model()
    for name, shape in change.items():
        arrays[name] = np.zeros(shape or (), np.float32)
    arrays = {name: array for name, array in arrays.items() if change.get(name, 0) is not None}
    before = model.get_weights()
    with pytest.raises(UserError, match=message):
        load_weights(model, write_torch(tmp_path / "w.pth", arrays))
    assert all(map(np.array_equal, before, model.get_weights()))


def test_whole_numbers_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, use_bias=False)])
    with pytest.raises(UserError, match=r"fc.weight holds numbers of type int64"):
        load_weights(model, write_torch(tmp_path / "w.pth", {"fc.weight": np.zeros((3, 2), np.int64)}))


def hostile(*arguments):
    return pickled(Call(*arguments))


@pytest.mark.parametrize(("content", "message"), [
    (hostile(Name("os", "system"), "touch /tmp/x"), "names os.system, which is not read; save the arrays alone"),
    (hostile(Name("builtins", "eval"), "1"), "names builtins.eval"),
    (hostile(Name("torch._utils", "_rebuild_tensor_v2")), "it is damaged"),
    (pickled([1, 2]), "it is damaged"),
    (pickled({"a": 1}), "it holds no arrays"),
    (b"\x80\x02N" + b"r" + struct.pack("<I", 2**31 - 1) + b".", "not one of PyTorch's"),
    (b"\x80\x02}", "it is damaged"),
], ids=["system", "eval", "arguments", "list", "empty", "memo", "cut"])  # fmt: skip
@pytest.mark.parametrize("old", [False, True])
def test_a_hostile_pickle_runs_nothing_and_gives_one_sentence(tmp_path, content, message, old):
    path = tmp_path / "w.pth"
    if old:
        path.write_bytes(torch_file.OLD_FORMAT + pickled(1001) + pickled({"little_endian": True}) + content + pickled([]))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("w/data.pkl", content)
    with pytest.raises(UserError, match=message) as error:
        load_weights(build_model(), path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{"offset": 1}, {"strides": (0,)}, {"strides": (-1,)}, {"strides": (2,)}])
def test_an_array_must_lie_within_its_numbers(tmp_path, options):
    with pytest.raises(UserError, match="lies outside of its 4 numbers" if options != {"strides": (0,)} else "expected"):
        load_weights(build_model(), write_torch(tmp_path / "w.pth", {"a": np.ones(4, np.float32)}, **options))


def test_safetensors_with_the_names_of_keras_are_matched_by_name_in_any_order(tmp_path):
    model, source = build_model(), build_model()
    names = [layer.name for layer in model.layers]
    arrays = {f"{layer.name}.{weight.name}": RNG.normal(size=weight.shape).astype(np.float32)
              for layer in model.layers for weight in layer.weights}  # fmt: skip
    assert len(names) == len(set(names)) and source.name != model.name
    save_file(arrays, tmp_path / "w.safetensors")
    load_weights(model, tmp_path / "w.safetensors")
    for layer in model.layers:
        for weight in layer.weights:
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), arrays[f"{layer.name}.{weight.name}"])


def test_a_keras_file_is_read(tmp_path):
    source, model = build_model(), build_model()
    source.save(tmp_path / "w.keras")
    load_weights(model, tmp_path / "w.keras")
    assert all(map(np.array_equal, source.get_weights(), model.get_weights()))


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.keras"])
def test_other_files_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\0" * 8 + b"{" if name.endswith("tensors") else b"no weights at all")
    with pytest.raises(UserError, match="does not hold weights for this detector: it is (not a Keras|damaged)"):
        weight_files.load_weights(build_model(), tmp_path / name)
