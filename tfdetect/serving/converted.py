"""Run a converted detector with the runtime of its format; neither Keras nor TensorFlow is needed for that."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Outputs: TypeAlias = Mapping[str, np.ndarray]
Call: TypeAlias = Callable[[np.ndarray], Outputs]  # uint8 clips (batch, frames, height, width, 3) -> (batch, ...) by name
F32 = {"INFERENCE_PRECISION_HINT": "f32"}  # OpenVINO may compute in bfloat16 otherwise, with scores that differ by 1e-2


def load_onnx(file: Path, clip_input: str) -> Call:
    """Return the model in an ONNX file, run by ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda clips: dict(zip(names, session.run(None, {clip_input: clips}), strict=True))


def load_openvino(file: Path, clip_input: str) -> Call:
    """Return the model in an OpenVINO IR file, compiled for the CPU anew for each size of frames.

    OpenVINO 2026.4 computes the first inference of a model whose height and width are not fixed wrongly, without a message.
    """
    import openvino

    core = openvino.Core()

    @functools.lru_cache(maxsize=2)
    def compiled(*shape: int) -> Any:
        model = core.read_model(str(file))
        model.reshape({clip_input: [-1, *shape]})
        return core.compile_model(model, "CPU", F32)

    def call(clips: np.ndarray) -> Outputs:
        model = compiled(*clips.shape[1:])
        results = model({clip_input: clips})
        return {name: results[output] for output in model.outputs for name in output.get_names()}

    return call


def load_litert(file: Path, clip_input: str) -> Call:
    """Return the model in a LiteRT file, run by its interpreter on the CPU, one clip at a time."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(file)).get_signature_runner()

    def call(clips: np.ndarray) -> Outputs:
        results = [runner(**{clip_input: clips[number : number + 1]}) for number in range(len(clips))]
        return {name: np.concatenate([each[name] for each in results]) for name in results[0]}

    return call


@dataclass(frozen=True)
class Format:
    """A format that detectors are converted to."""

    title: str
    file: str
    load: Callable[[Path, str], Call]
    requires: tuple[str, ...]  # packages that only the extra of the format's name installs
    any_size: bool  # whether one file takes frames of any size as it is


FORMATS = {
    "onnx": Format("ONNX", "model.onnx", load_onnx, ("tf2onnx", "onnx", "onnxruntime"), True),
    "openvino": Format("OpenVINO", "model.xml", load_openvino, ("tf2onnx", "onnx", "onnxruntime", "openvino"), False),
    "litert": Format("LiteRT", "model.tflite", load_litert, ("ai_edge_litert",), True),
}
