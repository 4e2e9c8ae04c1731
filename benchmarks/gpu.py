"""Measure the steps of the large detectors on a GPU, beside the same networks in PyTorch and what the card can do at most.

    KERAS_BACKEND=tensorflow|jax|torch python benchmarks/gpu.py [--torch PYTHON] [--only NAME ...] [--ahead 4] [--tiny]

Training steps of `cnn`, `cnn_lstm`, `inception`, `resnet50` and `resnet_vae`, all layers trained, and CLIP ViT-L/14 features, all
with random weights, in float32 and mixed_bfloat16, compiled (XLA, torch.compile) and not. Each step copies a batch of uint8 clips
from memory to the device. Keras' `fit` and `predict` run on a keras.utils.PyDataset, so no tf.data is needed on JAX and PyTorch.
Times are of whole epochs, whose end waits for the device.

The peer is idiomatic PyTorch: torchvision's and transformers' networks, channels_last, autocast to bfloat16, TF32 allowed as
Keras' backends do, torch.compile where ours is compiled. --torch names another interpreter for it. A network whose library is
missing, or that a backend cannot compile, has the reason in its place.

Two ceilings are measured first, through Keras: the product of two large matrices, and adding 1 to a large array. The share of the
product counts the multiplications of layers with a kernel, the share of the copy what all layers read and write if each does so
once; training counts as three forward passes. --tiny takes small inputs and two steps, to try the script without a GPU.
"""

import functools
import itertools
import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import numpy as np
from layer_costs import counted_layers
from side_by_side import WORKER, Report, Timed, Worker, cpu_seconds, options_parser, serve

# name -> frames, size, batch, size and batch with --tiny
NETWORKS = {"cnn": (1, 256, 128, 32, 2), "cnn_lstm": (20, 64, 128, 32, 2), "inception": (1, 256, 64, 75, 2),
            "resnet50": (1, 224, 64, 32, 2), "clip": (1, 224, 128, 32, 2), "resnet_vae": (1, 224, 64, 32, 2)}  # fmt: skip
PRECISIONS, WAYS = ("float32", "mixed_bfloat16"), ("plain", "compiled")
ERROR_LINE = re.compile(r"[\w.]+(Error|Exception|Exit)\b")  # the last line of a traceback
STEPS, TINY_STEPS = 20, 2
VIT_L14 = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14,
           "image_size": 224, "hidden_act": "quick_gelu"}  # fmt: skip
VIT_TINY = {**VIT_L14, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "patch_size": 8, "image_size": 32}  # fmt: skip
SHARED_MEMORY = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # two processes on one card


def main() -> None:
    parser = options_parser(__doc__, __file__)
    parser.add_argument("--torch", metavar="PYTHON", default=sys.executable, help="interpreter for the PyTorch side")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="networks to measure")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="precisions to measure")
    parser.add_argument("--steps", nargs="+", choices=WAYS, default=WAYS, help="kinds of steps to measure")
    parser.add_argument("--ahead", type=int, default=1, help="cases that are built and compiled at the same time")
    parser.add_argument("--tiny", action="store_true", help="small inputs and two steps")
    options = parser.parse_args()
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    report = Report(__file__, options, ("keras", "keras-hub", backend, "torch", "torchvision", "transformers"), {"weights": 0})
    worker = Worker(__file__, env=SHARED_MEMORY)
    report.facts |= worker.call("about", options.tiny).result
    worker.close()
    print("\n".join(f"{name}: {value}" for name, value in report.facts.items()))
    cases = list(itertools.product(options.only, options.precisions, [way == "compiled" for way in options.steps]))
    for start in range(0, len(cases), options.ahead):
        batch = cases[start : start + options.ahead]
        with ThreadPoolExecutor(2 * len(batch)) as pool:  # of calls to processes
            prepared = [{title: pool.submit(warm_up, python, task, (*case, options.tiny))
                         for title, python, task in (("tfdetect", sys.executable, "keras_steps"),
                                                     ("PyTorch", options.torch, "torch_steps"))} for case in batch]  # fmt: skip
        for case, sides in zip(batch, prepared, strict=True):
            measure(report, *case, {title: side.result() for title, side in sides.items()}, options.tiny)
            report.write()


def warm_up(python: str, task: str, how: tuple[Any, ...]) -> tuple[Worker, Callable[[], Timed]] | str:
    """Return a process that has built, compiled and run an epoch and a function that runs another, or why it cannot."""
    worker = Worker(__file__, python, SHARED_MEMORY)
    try:
        worker.call(task, *how)
    except SystemExit as error:
        return next((line.strip()[:300] for line in str(error).splitlines()[-2::-1] if ERROR_LINE.match(line)), "it ended")
    return worker, functools.partial(worker.call, task, *how)


def measure(report: Report, name: str, precision: str, compiled: bool,
            prepared: Mapping[str, tuple[Worker, Callable[[], Timed]] | str], tiny: bool) -> None:  # fmt: skip
    """Measure one network in one way; what cannot be measured is noted with its reason."""
    case = f"{name}, {precision}{', compiled' if compiled else ''}"
    for title, side in prepared.items():
        if isinstance(side, str):
            report.facts[f"{case}: {title}"] = side
            print(f"\n{case}: {title} is left out: {side}", flush=True)
    workers = {title: side for title, side in prepared.items() if not isinstance(side, str)}
    if workers:
        _, batch, steps = shape_of(name, tiny)
        times = report.compare(case, {title: run for title, (_, run) in workers.items()}, steps * batch * NETWORKS[name][0],
                               "images")  # fmt: skip
        for title, (worker, _) in workers.items():
            seconds = median(row.wall for row in times[title]) / steps
            found = worker.call("cost", name, precision, tiny).result if title == "tfdetect" else {}
            row = {"steps_per_second": round(1 / seconds, 3), **shares(report, found, seconds, case)}
            report.cases[case]["sides"][title] |= row
            print(f"  {title}, batch {batch}: {', '.join(f'{key} {value}' for key, value in row.items())}", flush=True)
            worker.close()
    if len(workers) == 2:
        report.line(f"gpu: {case}", case, "tfdetect", "PyTorch", None, None)


def shares(report: Report, found: dict[str, float], seconds: float, case: str) -> dict[str, float]:
    """Return a step's shares of the two ceilings."""
    if not found:
        return {}
    dtype = "bfloat16" if "bfloat16" in case else "float32"
    matrix = found["flops"] / seconds / 1e12 / report.facts[f"matrix product, {dtype}, TFLOP/s"]
    copy = found["bytes"] / seconds / 1e9 / report.facts["copy, GB/s"]
    return {"share_of_product": round(matrix, 4), "share_of_copy": round(copy, 4), "parameters": int(found["parameters"])}


def shape_of(name: str, tiny: bool) -> tuple[int, int, int]:
    """Return size, batch and steps of a network."""
    _, size, batch, tiny_size, tiny_batch = NETWORKS[name]
    return (tiny_size, tiny_batch, TINY_STEPS) if tiny else (size, batch, STEPS)


def make_batch(name: str, tiny: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch of clips (batch, frames, size, size, 3) uint8 and labels (batch, 1) float32."""
    rng, (size, batch, _) = np.random.default_rng(0), shape_of(name, tiny)
    clips = rng.integers(0, 256, (batch, NETWORKS[name][0], size, size, 3), np.uint8)
    return clips, rng.integers(0, 2, (batch, 1)).astype(np.float32)


# --- ours ------------------------------------------------------------------------------------------------------------


def build_keras(name: str, tiny: bool) -> tuple[Any, Any]:
    """Return the model of a detector and its loss; of `clip` the features, without a loss."""
    import keras

    shape = make_batch(name, tiny)[0].shape[1:]
    if name == "clip":
        return build_clip(shape, tiny), None
    from tfdetect.models.detectors.cnn import Cnn
    from tfdetect.models.detectors.cnn_lstm import CnnLstm
    from tfdetect.models.detectors.inception import Inception
    from tfdetect.models.detectors.resnet50 import ResNet50
    from tfdetect.models.detectors.resnet_vae import ResNetVae

    detectors = {"cnn": Cnn(), "cnn_lstm": CnnLstm(), "inception": Inception(weights="none"),
                 "resnet50": ResNet50(weights="none"), "resnet_vae": ResNetVae()}  # fmt: skip
    keras.utils.set_random_seed(0)
    return detectors[name].build(shape), detectors[name].losses()


def build_clip(shape: tuple[int, ...], tiny: bool) -> Any:
    """Return the projected features of a random CLIP, as `clip` computes them."""
    import keras

    from tfdetect.models import feature_sets
    from tfdetect.models.pretrained import backbones, fast_blocks, hf_clip, tiny_clip
    from tfdetect.models.pretrained.backbone import Backbone, Preprocessing

    text = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}  # no text is read
    vision, text = hf_clip.encoder_configs({"vision_config": VIT_TINY if tiny else VIT_L14, "text_config": text})
    preprocessing = Preprocessing.from_mean_and_std(tiny_clip.MEAN, tiny_clip.STD, vision["image_size"])
    backbone = Backbone("random", hf_clip.build_network(vision, text, 768), preprocessing)
    inputs = keras.Input(shape, dtype="uint8")
    features = feature_sets.apply_vision(backbones.vision_model(backbone, shape[1], "projected"), inputs)
    model = keras.Model(inputs, feature_sets.join(features))
    fast_blocks.speed_up(model)
    return model


@functools.cache
def prepare_keras(name: str, precision: str, compiled: bool, tiny: bool) -> tuple[Any, Any]:
    """Return the compiled model and its PyDataset."""
    import keras

    keras.config.set_dtype_policy(precision)
    model, loss = build_keras(name, tiny)
    batch, steps = make_batch(name, tiny), shape_of(name, tiny)[2]

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return steps

        def __getitem__(self, index: int) -> Any:
            return batch if name != "clip" else batch[0]

    model.compile(keras.optimizers.Adam(1e-4), loss, jit_compile=compiled)
    return model, Batches()


def keras_steps(name: str, precision: str, compiled: bool, tiny: bool) -> Timed:
    """Run an epoch of our model and return its time; the first call also compiles."""
    model, batches = prepare_keras(name, precision, compiled, tiny)
    start, cpu = time.perf_counter(), cpu_seconds()
    if name == "clip":
        result = float(model.predict(batches, verbose=0).mean())
    else:
        result = float(model.fit(batches, epochs=1, verbose=0, shuffle=False).history["loss"][0])
    if not math.isfinite(result):
        raise SystemExit(f"the result of {name} is {result}")
    return Timed(time.perf_counter() - start, cpu_seconds() - cpu, result)


def cost(name: str, precision: str, tiny: bool) -> dict[str, float]:
    """Return the floating-point operations and the bytes of a step, and the number of parameters."""
    import keras

    keras.config.set_dtype_policy(precision)
    model, (clips, _) = build_keras(name, tiny)[0], make_batch(name, tiny)
    times, itemsize = len(clips) * (1 if name == "clip" else 3), 2 if "16" in precision else 4
    with counted_layers() as counts:
        model(clips[:1])
    return {"flops": times * counts["flops"], "bytes": times * itemsize * counts["values"], "parameters": model.count_params()}


def about(tiny: bool) -> dict[str, Any]:
    """Return the device and its measured ceilings."""
    import keras
    from keras import ops

    def wait_for(result: Any) -> None:
        float(ops.cast(result[0, 0], "float32"))

    def seconds(function: Callable[[], Any], repeats: int = 1 if tiny else 20) -> float:
        wait_for(function())
        best = math.inf
        for _ in range(3):
            start = time.perf_counter()
            for _ in range(repeats):
                result = function()
            wait_for(result)
            best = min(best, (time.perf_counter() - start) / repeats)
        return best

    side, facts = 256 if tiny else 8192, {"backend": keras.backend.backend(), "device": device_name()}
    for dtype in ("float32", "bfloat16"):
        matrix = ops.cast(keras.random.normal((side, side)), dtype)
        facts[f"matrix product, {dtype}, TFLOP/s"] = round(2 * side**3 / seconds(lambda m=matrix: ops.matmul(m, m)) / 1e12, 4)
    array = ops.ones((side, 2 * side), "float32")
    facts["copy, GB/s"] = round(2 * 8 * side**2 / seconds(lambda: ops.add(array, 1.0)) / 1e9, 2)
    return facts


def device_name() -> str:
    """Return the name of the device that Keras' backend uses."""
    import keras

    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].device_kind
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else "CPU"


# --- PyTorch ---------------------------------------------------------------------------------------------------------


@functools.cache
def prepare_torch(name: str, precision: str, compiled: bool, tiny: bool) -> Callable[[], float]:
    """Return a function that runs an epoch in PyTorch and returns its last loss, or the mean of its features."""
    import torch
    import torch_networks

    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    device, steps = "cuda" if torch.cuda.is_available() else "cpu", shape_of(name, tiny)[2]
    model = torch_networks.build(name, shape_of(name, tiny)[0], (VIT_TINY if tiny else VIT_L14, 768))
    model = model.to(device, memory_format=torch.channels_last).train(name != "clip")
    optimizer, network = torch.optim.Adam(model.parameters(), lr=1e-4), torch.compile(model) if compiled else model
    clips, labels = map(torch.from_numpy, make_batch(name, tiny))
    if device == "cuda":
        clips, labels = clips.pin_memory(), labels.pin_memory()

    def step() -> torch.Tensor:
        x, y = clips.to(device, non_blocking=True), labels.to(device, non_blocking=True)[:, 0]
        with torch.autocast(device, torch.bfloat16, enabled=precision == "mixed_bfloat16"):
            if name == "clip":
                with torch.inference_mode():
                    return network(x).mean()
            outputs = network(x)
        loss = outputs.mean() if name == "resnet_vae" else \
            torch.nn.functional.binary_cross_entropy_with_logits(outputs.float(), y)  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return lambda: float([step() for _ in range(steps)][-1])  # float() waits for the device


def torch_steps(name: str, precision: str, compiled: bool, tiny: bool) -> float:
    """Run an epoch in PyTorch; the first call also compiles."""
    return prepare_torch(name, precision, compiled, tiny)()


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        serve({"about": about, "cost": cost, "keras_steps": keras_steps, "torch_steps": torch_steps})
    else:
        main()
