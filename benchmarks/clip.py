"""Measure the speed of the detector `clip`: extracting features, training on stored features, and training each head.

    python benchmarks/clip.py [OUT.json] [--parts b32 b16 l14 epochs heads] [--rounds 3] [--their_python PYTHON]

b32, b16, l14: images per second from JPEG files to features on disk, for ViT-B/32, ViT-B/16 and ViT-L/14. "ours" is `prepare`,
including the start of its processes, and `FeatureExtractor`. "theirs" is the usual code: CLIPModel and CLIPImageProcessor of
`transformers`, Pillow, batches of 32, torch.inference_mode and numpy.save. Both load the same random weights in OpenAI's sizes.
They alternate, each in a new process; imports, building the model and a warm-up batch count as `startup`. `--their_python` runs
"theirs" in another environment. Other programs slow down both sides unevenly, so `cpu_ratio` compares their processor time.
epochs: seconds of ten epochs of a linear head on stored features, and with the backbone run in every step.
heads: seconds to train each head on 10,000 stored features of length 512.

Print each part as JSON; OUT.json is updated with the parts that were run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

WORKER, BATCH, SIDE = "--worker", 32, 224
# name -> number of features, vision settings that differ from the defaults (ViT-B/32), number of files
SIZES: dict[str, tuple[int, dict[str, int], int]] = {
    "b32": (512, {}, 256),
    "b16": (512, {"patch_size": 16}, 64),
    "l14": (768, {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
                  "patch_size": 14}, 32),
}  # fmt: skip
TEXT = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}  # no text is read
PARTS = (*SIZES, "epochs", "heads")
HEADS: tuple[Any, ...] = ("linear", "mlp", "logistic", "nearest", "triplet_svm", "svm")
ROWS, WIDTH = 10_000, 512  # stored features for the part "heads"
EPOCHS, IMAGES, TIMED_IMAGES = 10, 1000, 128  # for the part "epochs"; the backbone is timed on fewer images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", help="JSON file to update")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of each measurement")
    parser.add_argument("--their_python", default=sys.executable, help="Python interpreter that has `transformers`")
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in options.parts:
            machine = {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}  # mean load of the last minute
            model = random_model(part if part in SIZES else "b32", folder, options.their_python)
            result = (compare(part, model, folder, options.rounds, options.their_python) if part in SIZES
                      else run_worker(part, model, folder, options.rounds))  # fmt: skip
            results[part] = machine | result
            print(part, json.dumps(results[part], indent=1), flush=True)
            if options.out:
                options.out.write_text(json.dumps(results, indent=1) + "\n")


def run_worker(task: str, *arguments: object, python: str = sys.executable) -> dict:
    """Run a function of this file in a new process and return its result."""
    with tempfile.NamedTemporaryFile("r") as file:
        subprocess.run([python, __file__, WORKER, file.name, task, *map(str, arguments)], check=True)
        return json.load(file)


def compare(size: str, model: Path, folder: Path, rounds: int, their_python: str) -> dict:
    """Measure the images per second of both implementations, and how well their features agree."""
    files, pythons = folder / f"{size}-files", {"ours": sys.executable, "theirs": their_python}
    timings: dict[str, list[dict]] = {"ours": [], "theirs": []}
    write_images(files, count := SIZES[size][2])
    for number in range(rounds):
        for side in ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours"):
            timings[side].append(run_worker(side, model, files, folder / f"{size}-{side}-{number}", python=pythons[side]))
    ours, theirs = (np.load(folder / f"{size}-{side}-0.npy").astype(np.float64) for side in timings)
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    rates = {side: [round(count / row["seconds"], 2) for row in rows] for side, rows in timings.items()}
    ratios = [round(ours / theirs, 2) for ours, theirs in zip(*rates.values(), strict=True)]
    medians = {side: round(median(row), 2) for side, row in rates.items()}
    cpu = {side: median(row["cpu_seconds"] for row in rows) / count for side, rows in timings.items()}
    return {"files": count, "images_per_second": medians, "ratio": round(median(ratios), 2), "ratios": ratios,
            "cpu_seconds_per_image": {side: round(seconds, 3) for side, seconds in cpu.items()},
            "cpu_ratio": round(cpu["theirs"] / cpu["ours"], 2),
            "min_cosine": round(float(cosine.min()), 7), "rounds": timings}  # fmt: skip


def random_model(size: str, folder: Path, their_python: str) -> Path:
    """Return the folder of a CLIP model of this size with random weights, which is written on the first call."""
    if not (path := folder / size).exists():
        run_worker("weights", size, path, python=their_python)
    return path


def write_random_model(size: str, folder: str) -> dict:
    """Write a CLIP model with random weights as `transformers` saves it, with an empty vocabulary, because no text is read."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    width, vision, _ = SIZES[size]
    text_config, vision_config = ({**config, "projection_dim": width} for config in (TEXT, vision))
    config = CLIPConfig(text_config=text_config, vision_config=vision_config, projection_dim=width)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    for name, text in (("vocab.json", "{}"), ("merges.txt", "")):
        Path(folder, name).write_text(text)
    return {}


def write_images(folder: Path, count: int) -> None:
    """Write smooth JPEG images with grain, in the input size of the model, so that neither side has to resize them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        smooth = cv2.resize(rng.integers(0, 256, (8, 8, 3)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        image = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:04d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 92])


def extract_ours(model: str, files: str, out: str) -> dict:
    """Write the features of the JPEG files to `out`.npy with `prepare` and `FeatureExtractor`. Return the timings."""
    begin = time.monotonic()
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
    from tfdetect.data.prepare.decode import prepare, usable_rows
    from tfdetect.models.detectors.clip import Clip
    from tfdetect.training.feature_extractor import FeatureExtractor, silent

    table = pd.DataFrame({"path": sorted(map(str, Path(files).glob("*.jpg"))), "label": 0})
    detector, cache = Clip(preset=f"hf-clip:{model}"), Cache(Path(out), ClipSpec(1, SIDE))
    features = FeatureExtractor(detector.build((1, SIDE, SIDE, 3)), detector, cache, silent)
    features.batch(np.zeros((BATCH, 1, SIDE, SIDE, 3), np.uint8))
    start, cpu_start = time.monotonic(), cpu_seconds()
    rows = usable_rows(prepare(table, cache))
    prepare_seconds = time.monotonic() - start
    result = features.of(rows).features
    timings = {**elapsed(begin, start, cpu_start), "prepare_seconds": round(prepare_seconds, 2)}
    np.save(out, result)
    return timings


def extract_theirs(model: str, files: str, out: str) -> dict:
    """Write the features of the JPEG files to `out`.npy as the documentation of `transformers` shows. Return the timings."""
    begin = time.monotonic()
    import torch
    from PIL import Image
    from transformers import CLIPImageProcessor, CLIPModel

    torch.set_num_threads(os.cpu_count() or 1)
    network, processor = CLIPModel.from_pretrained(model).eval(), CLIPImageProcessor.from_pretrained(model)

    def embed(images: list) -> np.ndarray:
        with torch.inference_mode():
            output = network.get_image_features(**processor(images=images, return_tensors="pt"))
        return getattr(output, "pooler_output", output).numpy()  # since transformers 5 it is wrapped

    paths = sorted(Path(files).glob("*.jpg"))
    embed([Image.new("RGB", (SIDE, SIDE))] * BATCH)
    start, cpu_start = time.monotonic(), cpu_seconds()
    batches = [paths[first : first + BATCH] for first in range(0, len(paths), BATCH)]
    np.save(out, np.concatenate([embed([Image.open(path).convert("RGB") for path in batch]) for batch in batches]))
    return elapsed(begin, start, cpu_start)


def cpu_seconds() -> float:
    """Return the processor time of this process and its finished children."""
    return sum(os.times()[:4])


def elapsed(begin: float, start: float, cpu_start: float) -> dict:
    """Return the seconds from `begin` to `start`, and the wall-clock seconds and processor time since then."""
    seconds, cpu = time.monotonic() - start, cpu_seconds() - cpu_start
    return {"startup": round(start - begin, 1), "seconds": round(seconds, 2), "cpu_seconds": round(cpu, 1)}


def time_training(head: Any, model: Any, rows: int, folder: str, **settings: Any) -> float:
    """Return the seconds of a training on stored features: reading them, all epochs, and saving the model.

    The features are noise plus a weak signal.
    """
    import pandas as pd

    from tfdetect.config import default_run
    from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
    from tfdetect.models.detectors.clip import Clip
    from tfdetect.training.feature_extractor import FeatureExtractor, silent
    from tfdetect.training.fit_head import fit_head

    @dataclass(frozen=True)
    class BuiltClip(Clip):
        build = staticmethod(lambda clip_shape: model)

    rng, count = np.random.default_rng(0), rows + rows // 10
    names, labels = [f"{number:064x}" for number in range(count)], rng.integers(0, 2, count)
    table = pd.DataFrame({"path": names, "sha": names, "label": labels, "split": "train", "frames": 1})
    table.loc[rows:, "split"] = "validation"
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        detector, cache = BuiltClip(head=head), Cache(Path(temporary), ClipSpec(1, SIDE))
        features = rng.normal(size=(count, WIDTH)) + 1.5 * labels[:, None] / np.sqrt(WIDTH)  # the best possible AUC is 0.86
        FeatureExtractor(model, detector, cache, silent).stores[0].add([f"{name}:0" for name in names], features)
        start = time.monotonic()
        fit_head(detector, table, cache, replace(default_run(Clip).train, **settings), Path(temporary, "checkpoints"),
                 Path(temporary, "model.keras"), [])  # fmt: skip
        return time.monotonic() - start


def measure_epochs(model: str, folder: str, rounds: str) -> dict:
    """Measure epochs of a linear head on stored features, and with the backbone run in every step.

    The latter are extrapolated from one epoch on fewer images, which are in memory: every image takes the same time.
    """
    import keras

    from tfdetect.models.detectors.clip import Clip

    network = Clip(preset=f"hf-clip:{model}").build((1, SIDE, SIDE, 3))
    network.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    clips = np.random.default_rng(0).integers(0, 256, (TIMED_IMAGES, 1, SIDE, SIDE, 3), np.uint8)
    labels = np.arange(TIMED_IMAGES)[:, None] % 2
    network.fit(clips[:BATCH], labels[:BATCH], batch_size=BATCH, verbose=0)
    time_training("linear", network, IMAGES, folder, epochs=1)
    stored, backbone = [], []
    for _ in range(int(rounds)):
        stored.append(time_training("linear", network, IMAGES, folder, epochs=EPOCHS, patience=EPOCHS))
        start = time.monotonic()
        network.fit(clips, labels, batch_size=BATCH, verbose=0)
        backbone.append((time.monotonic() - start) * EPOCHS * IMAGES / TIMED_IMAGES)
    return {"images": IMAGES, "epochs": EPOCHS, "stored_seconds": [round(value, 2) for value in stored],
            "backbone_seconds": [round(value) for value in backbone],
            "backbone_timed_on": f"{TIMED_IMAGES} images for one epoch, times {EPOCHS * IMAGES / TIMED_IMAGES:g}",
            "ratio": round(median(slow / fast for slow, fast in zip(backbone, stored, strict=True)), 1)}  # fmt: skip


def measure_heads(_: str, folder: str, rounds: str) -> dict:
    """Measure the training of each head with default settings; the two with an SVM, which take longest, once."""
    import keras

    from tfdetect.models import heads
    from tfdetect.models.detectors.clip import Clip

    fit_svm = heads.fit_svm
    svm_seconds: list[float] = []

    def timed_fit_svm(*arguments: Any) -> Any:
        start = time.monotonic()
        out = fit_svm(*arguments)
        svm_seconds.append(time.monotonic() - start)
        return out

    heads.fit_svm, seconds = timed_fit_svm, {}
    for head in HEADS:
        inputs = keras.Input((1, SIDE, SIDE, 3), dtype="uint8")
        features = keras.layers.Rescaling(1.0, name="features")(keras.layers.Flatten()(inputs)[:, :WIDTH])
        model = keras.Model(inputs, heads.build_head(Clip(head=head), features))
        repetitions = 1 if head.endswith("svm") else int(rounds)
        seconds[head] = round(median(time_training(head, model, ROWS, folder) for _ in range(repetitions)), 2)
    return {"rows": ROWS, "features": WIDTH, "seconds": seconds, "svm_of_triplet_svm": round(svm_seconds[0], 2)}


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        tasks: dict[str, Callable[..., dict]] = {"weights": write_random_model, "ours": extract_ours, "theirs": extract_theirs,
                                                 "epochs": measure_epochs, "heads": measure_heads}  # fmt: skip
        Path(sys.argv[2]).write_text(json.dumps(tasks[sys.argv[3]](*sys.argv[4:])))
    else:
        main()
