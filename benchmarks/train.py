"""Measure how fast `cnn_lstm` trains at its published size, beside the same network in plain Keras and in PyTorch.

    python benchmarks/train.py [--torch PYTHON]

Clips of 20 frames of 64 x 64 pixels, batches of 32. Ours is `training.fit` on cached clips, as `train` runs it. The others have
all clips in memory: the same model in Keras' `fit`; Keras with TimeDistributed around each layer, as published; PyTorch with its
usual loop, frames folded into the batch, with contiguous and with channels-last images. PyTorch is left out unless --torch names
an interpreter that has it.

Each side runs in a process of its own. A round trains a new network for some steps, of which the first two, which compile, do not
count. The networks must have as many parameters (PyTorch's LSTM has a second bias of 256), and all losses must fall below
MAX_LOSS. Waiting for input is the time in which a step waits for its batch, as TensorFlow's profiler records it, divided by the
time of the steps, in a run of its own.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import clip_files
from side_by_side import WORKER, Report, Timed, Worker, cpu_seconds, options_parser, serve

FRAMES, SIZE, BATCH, SKIPPED = 20, 64, 32, 2
PARAMETERS, SECOND_BIAS, MAX_LOSS = 552_609, 256, 0.5
TITLES = {"ours": "tfdetect, cached clips", "arrays": "Keras fit, arrays in memory", "published": "Keras, TimeDistributed",
          "contiguous": "PyTorch", "channels_last": "PyTorch, channels_last"}  # fmt: skip


def main() -> None:
    parser = options_parser(__doc__, __file__)
    parser.add_argument("--torch", metavar="PYTHON", help="Python interpreter that has PyTorch")
    options = parser.parse_args()
    steps = 4 if options.quick else 12
    report = Report(__file__, options, ("tensorflow", "keras", "numpy", "tfdetect"), {"data": 0, "weights": 0})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip_files.write_clips(folder, BATCH * (steps + SKIPPED), FRAMES, SIZE, validation=BATCH)
        workers = {task: Worker(__file__) for task in ("ours", "arrays", "published")}
        if options.torch:
            torch = Worker(__file__, options.torch)
            workers |= {"contiguous": torch, "channels_last": torch}
            report.about["versions"]["torch"] = torch.call("torch_version").result
        else:
            print("PyTorch is left out: --torch names no interpreter that has it")
        sides = {TITLES[task]: lambda worker=worker, task=task: worker.call(task, name, SKIPPED)
                 for task, worker in workers.items()}  # fmt: skip
        report.compare("cnn_lstm", sides, steps * BATCH, "clips", lambda results: check(results, steps))
        wait = workers["ours"].call("waiting", name).result
    ours = TITLES["ours"]
    report.line("training against Keras fit on arrays", "cnn_lstm", ours, TITLES["arrays"], 0.97, 1.0)
    report.line("training against TimeDistributed", "cnn_lstm", ours, TITLES["published"], None, None)
    if options.torch:
        for task in ("contiguous", "channels_last"):
            report.line(f"training against {TITLES[task]}", "cnn_lstm", ours, TITLES[task], 2, 4)
    report.add_line("waiting for input, share of a step", wait, 0.05, 0.01, better="lower", floor=0.005)
    report.write()


def check(results: dict[str, Any], steps: int) -> None:
    """Exit unless all networks have the same parameters and their losses fall alike."""
    for title, (parameters, losses) in results.items():
        expected = PARAMETERS + SECOND_BIAS * ("PyTorch" in title)
        print(f"  {title}: {parameters:,} parameters, loss {losses[0]:.3f} to {losses[-1]:.3f}")
        if parameters != expected or len(losses) != steps + SKIPPED:
            raise SystemExit(f"{title} has {parameters} parameters and took {len(losses)} steps, expected {expected}")
        if steps > 10 and not losses[-1] < MAX_LOSS:
            raise SystemExit(f"the loss of {title} does not fall: {losses}")


class Clock:
    """Times the steps after the first `skipped`."""

    def __init__(self, skipped: int) -> None:
        self.skipped, self.losses = skipped, []
        self.start = self.end = (0.0, 0.0)

    def step(self, loss: float) -> None:
        """Note the end of a step."""
        self.losses.append(loss)
        self.end = (time.perf_counter(), cpu_seconds())
        if len(self.losses) == self.skipped:
            self.start = self.end

    def timed(self, parameters: int) -> Timed:
        """Return the time, and what `check` looks at."""
        wall, cpu = (end - start for start, end in zip(self.start, self.end, strict=True))
        return Timed(wall, cpu, [parameters, self.losses])


def keras_clock(clock: Clock) -> Any:
    """Return a Keras callback that notes the loss of each single step; Keras logs the mean since the epoch's start."""
    import keras

    class Steps(keras.callbacks.Callback):
        total = 0.0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            mean = float(logs["loss"])
            clock.step(mean * (batch + 1) - self.total)
            self.total = mean * (batch + 1)

    return Steps()


def train_ours(folder: str, skipped: int, *callbacks: Any) -> Timed:
    """Train one epoch with the suite's own `fit`."""
    from tfdetect.models.detectors.cnn_lstm import CnnLstm
    from tfdetect.settings import Train
    from tfdetect.training.fit import fit

    table, cache, clock = clip_files.read_table(Path(folder)), clip_files.open_cache(Path(folder), FRAMES, SIZE), Clock(skipped)
    settings = replace(Train(), epochs=1, batch=BATCH, balance="none")
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / "model.keras"
        fit(CnnLstm(), table, cache, settings, Path(name), target, [keras_clock(clock), *callbacks])
        import keras

        parameters = keras.models.load_model(target, compile=False).count_params()
    return clock.timed(parameters)


def train_keras(folder: str, skipped: int, build: Callable[[], Any]) -> Timed:
    """Train one epoch of a Keras model with `fit` on arrays in memory."""
    import keras

    clock = Clock(skipped)
    keras.utils.set_random_seed(0)
    model = build()
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.BinaryCrossentropy(from_logits=True),
                  metrics=[keras.metrics.AUC(from_logits=True)])  # fmt: skip
    model.fit(*clip_files.load_arrays(Path(folder)), batch_size=BATCH, epochs=1, callbacks=[keras_clock(clock)], verbose=0)
    return clock.timed(model.count_params())


def our_model() -> Any:
    """Return the network of `cnn_lstm`."""
    from tfdetect.models.detectors.cnn_lstm import CnnLstm

    return CnnLstm().build((FRAMES, SIZE, SIZE, 3))


def time_distributed_model() -> Any:
    """Return the same network as it was published, each layer of the frames in a TimeDistributed."""
    import keras
    from keras import layers

    per_frame = []
    for filters, kernel_size in ((16, 3), (32, 3), (64, 5)):
        per_frame += [layers.Conv2D(filters, kernel_size, activation="relu"), layers.MaxPooling2D(), layers.Dropout(0.1)]
    per_frame += [layers.Flatten(), layers.Dense(256, activation="relu")]
    rest = [layers.LSTM(64), layers.Dense(64, activation="relu"), layers.Dense(1)]
    scale = layers.Rescaling(1 / 127.5, offset=-1)
    return keras.Sequential([keras.Input((FRAMES, SIZE, SIZE, 3), dtype="uint8"), scale,
                             *map(layers.TimeDistributed, per_frame), *rest])  # fmt: skip


def train_torch(folder: str, skipped: int, memory_format: str) -> Timed:
    """Train one epoch of the same network in PyTorch, with its usual loop over tensors in memory."""
    import torch
    from torch_networks import CnnLstm

    torch.manual_seed(0)
    clips, labels = map(torch.from_numpy, clip_files.load_arrays(Path(folder)))
    layout = getattr(torch, memory_format)
    model, clock = CnnLstm(SIZE, layout).to(memory_format=layout), Clock(skipped)
    optimizer, loss_function = torch.optim.Adam(model.parameters(), lr=1e-3), torch.nn.BCEWithLogitsLoss()
    model.train()
    for chosen in torch.randperm(len(clips)).split(BATCH):
        optimizer.zero_grad()
        loss = loss_function(model(clips[chosen]), labels[chosen])
        loss.backward()
        optimizer.step()
        clock.step(loss.item())
    return clock.timed(sum(parameter.numel() for parameter in model.parameters()))


def torch_version() -> str:
    """Return the version of PyTorch."""
    import torch

    return torch.__version__


def waiting(folder: str) -> float:
    """Return the share of a step in which `fit` waits for its next batch."""
    import keras
    import tensorflow as tf

    class Profile(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch == SKIPPED:
                tf.profiler.experimental.start(logs_folder)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch + 1 == self.params["steps"]:
                tf.profiler.experimental.stop()

    with tempfile.TemporaryDirectory() as logs_folder:
        timed = train_ours(folder, SKIPPED, Profile())
        return iterator_seconds(Path(logs_folder)) / timed.wall


def iterator_seconds(folder: Path) -> float:
    """Return the seconds that IteratorGetNext took in a trace of TensorFlow's profiler."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    seconds, found = 0.0, False
    for path in folder.rglob("*.xplane.pb"):
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
        for plane in space.planes:
            names = {number: data.name for number, data in plane.event_metadata.items()}
            for event in (event for line in plane.lines for event in line.events):
                if names[event.metadata_id].startswith("IteratorGetNext"):
                    seconds, found = seconds + event.duration_ps / 1e12, True
    if not found:
        raise SystemExit("TensorFlow's profiler recorded no IteratorGetNext")
    return seconds


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        serve({"ours": train_ours, "torch_version": torch_version, "waiting": waiting,
               "arrays": lambda folder, skipped: train_keras(folder, skipped, our_model),
               "published": lambda folder, skipped: train_keras(folder, skipped, time_distributed_model),
               "contiguous": lambda folder, skipped: train_torch(folder, skipped, "contiguous_format"),
               "channels_last": lambda folder, skipped: train_torch(folder, skipped, "channels_last")})  # fmt: skip
    else:
        main()
