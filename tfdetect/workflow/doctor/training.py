"""The devices, why a GPU is not used, and a tiny training from generated pictures to a SavedModel that scores one."""

import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect.workflow.doctor.finding import Finding

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache

GROUPS, SIZE = 24, 32  # of the sample: real and fake pictures of each group, and their width and height in pixels
MAX_DIFFERENCE = 0.02  # between scores of the SavedModel and of the Keras model; GPUs round differently


def check_devices(_: str) -> Iterator[Finding]:
    """Yield the devices that Keras uses, and the GPU or why none is used. Raises UserError if the backend is not installed."""
    from tfdetect.workflow import console

    console.import_keras()
    messages = console.initialise_devices()
    from tfdetect.training import devices

    line = devices.describe("float32", messages).splitlines()[0]
    yield Finding("devices", "devices", detail=line.replace("; float32;", ";"))
    if names := devices.gpus():
        yield Finding("devices", "gpu", detail=", ".join(names))
        return
    reason, advice = devices.why_no_gpu(messages)
    unused = (devices.has_nvidia_gpu() or devices.has_nvidia_hardware()) and not devices.are_hidden()
    yield Finding("devices", "gpu", "warning" if unused else "absent", reason, advice)


def check_training(_: str) -> Iterator[Finding]:
    """Draw and decode pictures, train the detector cnn on them, export it and score a picture; yield how long each step took."""
    with tempfile.TemporaryDirectory(prefix="tfdetect-") as name:
        folder = Path(name)
        table, cache = draw(folder)
        count = int((table["error"] == "").sum())
        yield Finding("training", "decode", detail=f"{count} pictures")
        clip, expected = train(folder, table, cache)
        yield Finding("training", "train", detail="one epoch of cnn")
        from tfdetect import backend

        if not backend.is_tensorflow():
            yield Finding("training", "export", "not tried", "only TensorFlow has SavedModels")
            return
        export(folder, cache)
        yield Finding("training", "export", detail="to a SavedModel")
        yield score(folder, clip, expected)


def draw(folder: Path) -> "tuple[pd.DataFrame, Cache]":
    """Draw the sample and decode it in this process; return the prepared manifest and the cache."""
    from tfdetect.data import manifest, sample
    from tfdetect.data.layouts import detect
    from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
    from tfdetect.data.prepare.decode import prepare

    spec = sample.Sample("image", GROUPS, size=SIZE)
    for row in sample.manifest_rows(spec):
        sample.write_file(spec, folder / "sample", row)
    cache = Cache(folder / "cache", ClipSpec(1, SIZE))
    table = manifest.split(detect.read(folder / "sample"))
    return prepare(table, cache, runner=lambda paths, cache, *_: ((path, cache.decode_file(path)) for path in paths)), cache


def train(folder: Path, table: "pd.DataFrame", cache: "Cache") -> tuple[Any, float]:
    """Train for one epoch and save the model; return a clip, (1, 1, size, size, 3) uint8, and its score by the saved model."""
    from tfdetect import models
    from tfdetect.detector import find
    from tfdetect.settings import Train
    from tfdetect.training.feature_extractor import silent
    from tfdetect.training.train import train

    settings = Train(epochs=1, batch=16)
    train(find("cnn")(), table, cache, settings, folder / "checkpoints", folder / "model.keras", [], silent)
    clip = cache.load(table["sha"].iloc[0])[None]
    return clip, float(models.load(folder / "model.keras").predict(clip, verbose=0)[0, 0])


def export(folder: Path, cache: "Cache") -> None:
    """Export the saved model to a SavedModel."""
    from tfdetect import models
    from tfdetect.detector import find
    from tfdetect.serving.export import export

    calibration = {"slope": 1.0, "intercept": 0.0, "threshold": 0.5}
    export(models.load(folder / "model.keras"), calibration, find("cnn")(), folder / "1", cache.spec)


def score(folder: Path, clip: Any, expected: float) -> Finding:
    """Score a clip with the SavedModel, and compare with the score of the Keras model."""
    from tfdetect.serving.saved_model import load_saved_model

    model = load_saved_model(folder / "1")
    found = float(model.signatures["serving_default"](clip=clip)["score"][0])
    if not abs(found - expected) <= MAX_DIFFERENCE:
        return Finding("training", "score", "problem", f"the SavedModel scores {found:.3f}, the Keras model {expected:.3f}",
                       "Report this page as a bug of tfdetect.")  # fmt: skip
    return Finding("training", "score", detail=f"with the SavedModel; peak memory of all checks {peak_memory() / 1e9:.1f} GB")


def peak_memory() -> int:
    """Return the highest memory use of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
