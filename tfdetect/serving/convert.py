"""Convert a detector to ONNX, OpenVINO or LiteRT, as one graph from frames of any size to verdicts.

The graph is that of the SavedModel's `serving_default`, so the resizing is in it, and so are calibration, threshold and band.
Texts are left out, which these formats or their runtimes lack. `converted.py` runs the result.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdetect.models.layers.common import Tensor
from tfdetect.models.pretrained.weight_files import flat_layers
from tfdetect.models.vectors import WithVectors
from tfdetect.serving.functions import ServingFunctions

QUANTIZED_OPERATIONS = ["Conv", "Gemm", "MatMul"]


class FrameGraph(keras.Model):
    """`ServingFunctions.predict_frames` as a Keras model, which `keras.Model.export` takes: its outputs but for texts.

    With `one_clip`, a clip detector is called with one clip, so that the batch of its recurrent layers has a fixed size.
    """

    def __init__(self, functions: ServingFunctions, one_clip: bool = False):
        super().__init__()
        model, known = functions.model, functions.familiarity
        self.network = WithVectors(model, known.layer, known) if known else model
        self.functions, self.one_clip, self.built = functions, one_clip, True

    def call(self, clip: Tensor, training: bool | None = None) -> Mapping[str, Tensor]:
        """Return the outputs of each clip, (batch, ...) by name, for uint8 (batch, frames, height, width, 3)."""
        self.functions.call = self._call_network
        return {name: value for name, value in self.functions.predict_frames(clip).items() if value.dtype != tf.string}

    def _call_network(self, clips: Tensor) -> Any:
        if self.one_clip and not self.functions.is_frame_detector:
            clips = tf.reshape(clips, (1, *clips.shape[1:]))
        return self.network(clips, training=False)


def input_shape(functions: ServingFunctions, form: str) -> tuple[int | None, ...]:
    """Return the shape of the input, (batch, frames, height, width, 3), None for any; that of a clip detector has its frames."""
    frames = None if functions.is_frame_detector else functions.frames
    return (1 if form == "litert" else None, frames, None, None, 3)


def convert(functions: ServingFunctions, form: str, file: Path, clip_input: str, quantize: bool = False,
            samples: Callable[[], Iterator[np.ndarray]] = lambda: iter(())) -> None:  # fmt: skip
    """Write the detector to `file` in the format `form` of `converted.FORMATS`.

    With `quantize`, layers with weights become int8, for ONNX and OpenVINO together with what they take, whose range is found on
    `samples`, uint8 clips (batch, frames, height, width, 3). Raises whatever the converters raise.
    """
    graph = FrameGraph(functions, one_clip=form == "litert")
    signature = [tf.TensorSpec(input_shape(functions, form), tf.uint8, clip_input)]
    if form == "litert":
        options = {"optimizations": [tf.lite.Optimize.DEFAULT]} if quantize else {}
        graph.export(str(file), "litert", verbose=False, input_signature=signature,
                     target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}, **options)  # fmt: skip
        return
    onnx_file = file.with_suffix(".onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of NumPy about names that Keras looks for
        graph.export(str(onnx_file), "onnx", verbose=False, input_signature=signature)
    spell_out_log1p(onnx_file)
    pad_outputs(onnx_file)
    refer_to_unchanged_state(onnx_file)
    if quantize:
        quantize_onnx(onnx_file, {layer.name for layer in flat_layers(functions.model) if layer.weights}, clip_input, samples())
    if form == "openvino":  # which cannot read the graph of a Keras model itself
        write_openvino(onnx_file, file, functions)


def spell_out_log1p(file: Path) -> None:
    """Replace Log1p, which the converter keeps as if ONNX had it, by the logarithm of 1 + x in an ONNX file."""
    import onnx

    model, nodes = onnx.load(str(file)), []
    for node in model.graph.node:
        if node.op_type == "Log1p":
            sum_name = f"{node.output[0]}/1_plus"
            nodes.append(onnx.helper.make_node("Add", [node.input[0], "log1p/1"], [sum_name], f"{node.name}/1_plus"))
            node = onnx.helper.make_node("Log", [sum_name], node.output, node.name)
        nodes.append(node)
    if len(nodes) == len(model.graph.node):
        return
    model.graph.initializer.append(onnx.helper.make_tensor("log1p/1", onnx.TensorProto.FLOAT, (), [1.0]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(file))


def pad_outputs(file: Path) -> None:
    """Replace the negative padding at the end, which the converter gives transposed convolutions whose kernel is smaller than
    their stride, by the attribute that ONNX has for it, in an ONNX file."""
    import onnx

    model = onnx.load(str(file))
    pads = [(node, given) for node in model.graph.node if node.op_type == "ConvTranspose"
            for given in node.attribute if given.name == "pads" and min(given.ints) < 0]  # fmt: skip
    for node, given in pads:
        ends = given.ints[len(given.ints) // 2 :]
        node.attribute.append(onnx.helper.make_attribute("output_padding", [max(0, -end) for end in ends]))
        given.ints[:] = [max(0, pad) for pad in given.ints]
    if pads:
        onnx.save(model, str(file))


def refer_to_unchanged_state(file: Path) -> None:
    """Remove what loops pass on unchanged from their state, in an ONNX file; their bodies then refer to the value outside.

    OpenVINO 2026.4 counts such state twice and refuses the file: https://github.com/openvinotoolkit/openvino/issues/35874
    """
    import onnx

    model = onnx.load(str(file))
    for loop in [node for node in nodes_within(model.graph) if node.op_type == "Loop"]:
        body = next(given.g for given in loop.attribute if given.name == "body")
        state = zip(body.input[2:], body.output[1:], strict=False)  # after the counter and the condition
        unchanged = [index for index, (before, after) in enumerate(state) if before.name == after.name]
        outside = {body.input[index + 2].name: loop.input[index + 2] for index in unchanged}
        for node in nodes_within(body):
            node.input[:] = [outside.get(name, name) for name in node.input]
        for index in reversed(unchanged):
            del body.input[index + 2], body.output[index + 1], loop.input[index + 2], loop.output[index]
    onnx.save(model, str(file))


def nodes_within(graph: Any) -> Iterator[Any]:
    """Yield the nodes of an ONNX graph and of those inside its nodes."""
    for node in graph.node:
        yield node
        for given in node.attribute:
            yield from nodes_within(given.g)


def write_openvino(onnx_file: Path, file: Path, functions: ServingFunctions) -> None:
    """Write OpenVINO's .xml and .bin in place of an ONNX file, in float32, for frames of the size that the network takes."""
    import openvino

    model = openvino.Core().read_model(str(onnx_file))
    frames = 1 if functions.is_frame_detector else functions.frames
    model.reshape([-1, frames, functions.size, functions.size, 3])
    openvino.save_model(model, str(file), compress_to_fp16=False)
    onnx_file.unlink()


def quantize_onnx(file: Path, layers: Iterable[str], clip_input: str, samples: Iterator[np.ndarray]) -> None:
    """Replace an ONNX file by one with int8 weights and activations in those of its operations that belong to these layers.

    Everything else stays float32, above all what resizes and normalises the pixels.
    """
    import onnx
    from onnxruntime import quantization

    class Samples(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            clips = next(samples, None)
            return None if clips is None else {clip_input: clips}

    model = onnx.load(str(file))
    constants = {tensor.name for tensor in model.graph.initializer}
    names = [node.name for node in model.graph.node if node.op_type in QUANTIZED_OPERATIONS
             and constants.intersection(node.input) and belongs_to(node.name, layers)]  # fmt: skip
    quantization.quantize_static(model, str(file), Samples(), op_types_to_quantize=QUANTIZED_OPERATIONS, nodes_to_quantize=names,
                                 per_channel=True)  # fmt: skip


def belongs_to(node: str, layers: Iterable[str]) -> bool:
    """Return whether the name of an operation, such as "frames_1/conv2d_1/convolution", has one of these layers in it."""
    return not {re.sub(r"_\d+$", "", part) for part in node.split("/")}.isdisjoint(re.sub(r"_\d+$", "", name) for name in layers)
