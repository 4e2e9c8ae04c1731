"""How fast `clip` is: files to features beside Hugging Face's code, stored features beside a backbone in each step, heads.

    python benchmarks/clip.py [OUT.json] [--parts b32 l14 epochs heads] [--rounds 3]

b32, l14: JPEG files to features on disk. Ours is `prepare` (starting its processes included) and `training.caches_features.Features`;
theirs what one would write: CLIPModel and its image processor of `transformers`, Pillow, batches of 32, torch.inference_mode,
numpy.save. Weights are random, of OpenAI's sizes, the same on both sides. Sides take turns, each in a new process; imports,
building the model and a batch to warm up are told apart, as `start`. epochs: ten of a linear head, on stored features, and
through the backbone in every step. heads: each trained on 10,000 features of 512 numbers. Other parts of the JSON stay.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, installed or not

ONCE, BATCH, SIDE = "--once", 32, 224
SIZES = {  # features, what the picture's side has unlike transformers' own settings, which are ViT-B/32's, files
    "b32": (512, {}, 256),
    "l14": (768, {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
                  "patch_size": 14}, 32),
}  # fmt: skip
TEXT = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}  # not used here
PARTS = (*SIZES, "epochs", "heads")
HEADS = ("linear", "mlp", "logistic", "nearest", "triplet_svm", "svm")
ROWS, WIDTH, EPOCHS, IMAGES, SHARE = 10_000, 512, 10, 1000, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    found = json.loads(asked.out.read_text()) if asked.out and asked.out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for part in asked.parts:
            about = {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}  # what else ran, of the minute before
            given = Path(folder), asked.rounds
            found[part] = about | (compare(part, *given) if part in SIZES else once(part, weights("b32", given[0]), *given))
            print(part, json.dumps(found[part], indent=1), flush=True)
            if asked.out:
                asked.out.write_text(json.dumps(found, indent=1) + "\n")


def once(what: str, *arguments: object) -> dict:
    """What one part of this file found, in a process of its own."""
    with tempfile.NamedTemporaryFile("r") as answer:
        subprocess.run([sys.executable, __file__, ONCE, answer.name, what, *map(str, arguments)], check=True)
        return json.load(answer)


def compare(size: str, folder: Path, rounds: int) -> dict:
    """Images a second of both sides, by turns, and whether they find the same."""
    model, files, seconds = weights(size, folder), folder / f"{size}-files", {"ours": [], "theirs": []}
    draw(files, count := SIZES[size][2])
    for number in range(rounds):
        for side in ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours"):
            seconds[side].append(once(side, model, files, folder / f"{size}-{side}-{number}"))
    ours, theirs = (np.load(folder / f"{size}-{side}-0.npy").astype(np.float64) for side in seconds)
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    rates = {side: [round(count / row["seconds"], 2) for row in rows] for side, rows in seconds.items()}
    ratios = [round(ours / theirs, 2) for ours, theirs in zip(*rates.values(), strict=True)]
    medians = {side: round(median(row), 2) for side, row in rates.items()}
    return {"files": count, "images_per_second": medians, "ratio": round(median(ratios), 2), "ratios": ratios,
            "least_cosine": round(float(cosine.min()), 7), "rounds": seconds}  # fmt: skip


def weights(size: str, folder: Path) -> Path:
    """A folder with a random CLIP of that size as `transformers` saves it."""
    if not (place := folder / size).exists():
        once("weights", size, place)
    return place


def make(size: str, place: str) -> dict:
    """The folder of `weights`. Of texts it has no vocabulary, as none are read."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    width, vision, _ = SIZES[size]
    sides = ({**side, "projection_dim": width} for side in (TEXT, vision))
    config = CLIPConfig(**dict(zip(("text_config", "vision_config"), sides, strict=True)), projection_dim=width)
    CLIPModel(config).save_pretrained(place)
    CLIPImageProcessor().save_pretrained(place)
    for name, text in (("vocab.json", "{}"), ("merges.txt", "")):
        Path(place, name).write_text(text)
    return {}


def draw(folder: Path, count: int) -> None:
    """Soft pictures with some grain, square as the model takes them, so that both sides have the same pixels to see."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        soft = cv2.resize(rng.integers(0, 256, (8, 8, 3)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        picture = np.clip(soft + rng.normal(0, 6, soft.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:04d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])


def ours(model: str, files: str, out: str) -> dict:
    """prepare and FeatureExtractor, into a store of their own."""
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
    start, processor = time.monotonic(), spent()
    prepared = usable_rows(prepare(table, cache))
    decoded = time.monotonic() - start
    found = features.of(prepared).features
    row = {**told(begin, start, processor), "of_which_prepare": round(decoded, 2)}
    np.save(out, found)
    return row


def theirs(model: str, files: str, out: str) -> dict:
    """As their documentation has it; of CLIPProcessor the part for pictures."""
    begin = time.monotonic()
    import torch
    from PIL import Image
    from transformers import CLIPImageProcessor, CLIPModel

    torch.set_num_threads(os.cpu_count() or 1)
    net, prepared = CLIPModel.from_pretrained(model).eval(), CLIPImageProcessor.from_pretrained(model)

    def embed(pictures: list) -> np.ndarray:
        with torch.inference_mode():
            found = net.get_image_features(**prepared(images=pictures, return_tensors="pt"))
        return getattr(found, "pooler_output", found).numpy()  # transformers 5 wraps it

    paths = sorted(Path(files).glob("*.jpg"))
    embed([Image.new("RGB", (SIDE, SIDE))] * BATCH)
    start, processor = time.monotonic(), spent()
    batches = [paths[first : first + BATCH] for first in range(0, len(paths), BATCH)]
    np.save(out, np.concatenate([embed([Image.open(path).convert("RGB") for path in batch]) for batch in batches]))
    return told(begin, start, processor)


def spent() -> float:
    """Seconds of processor time of this process and those that it waited for."""
    return sum(os.times()[:4])


def told(begin: float, start: float, processor: float) -> dict:
    """Seconds on the clock and of the processor since `start`, and what came before."""
    seconds, busy = time.monotonic() - start, spent() - processor
    return {"start": round(start - begin, 1), "seconds": round(seconds, 2), "processor": round(busy, 1)}


def trained(head: str, model: Any, rows: int, folder: str, **settings: int) -> float:
    """Seconds of a training on stored features, random ones with some signal: reading them, all epochs, saving the model."""
    import pandas as pd

    from tfdetect.config import default_run
    from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
    from tfdetect.models.detectors.clip import Clip
    from tfdetect.training.feature_extractor import FeatureExtractor, silent
    from tfdetect.training.fit_head import fit_head

    @dataclass(frozen=True)
    class Ready(Clip):
        build = staticmethod(lambda clip_shape: model)

    rng, count = np.random.default_rng(0), rows + rows // 10
    names, labels = [f"{number:064x}" for number in range(count)], rng.integers(0, 2, count)
    table = pd.DataFrame({"path": names, "sha": names, "label": labels, "split": "train", "frames": 1})
    table.loc[rows:, "split"] = "validation"
    with tempfile.TemporaryDirectory(dir=folder) as place:
        detector, cache = Ready(head=head), Cache(Path(place), ClipSpec(1, SIDE))
        known = rng.normal(size=(count, WIDTH)) + 1.5 * labels[:, None] / np.sqrt(WIDTH)  # an AUC of 0.86 at best
        FeatureExtractor(model, detector, cache, silent).store.add([f"{name}:0" for name in names], known)
        start = time.monotonic()
        fit_head(detector, table, cache, replace(default_run(Clip).train, **settings), Path(place, "c"), Path(place, "m.keras"),
                 [])  # fmt: skip
        return time.monotonic() - start


def epochs(model: str, folder: str, rounds: str) -> dict:
    """Of a linear head. What runs the backbone in each step has its pictures in memory, and fewer of them: each costs alike."""
    import keras

    from tfdetect.models.detectors.clip import Clip

    built = Clip(preset=f"hf-clip:{model}").build((1, SIDE, SIDE, 3))
    built.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    clips, labels = np.random.default_rng(0).integers(0, 256, (SHARE, 1, SIDE, SIDE, 3), np.uint8), np.arange(SHARE)[:, None] % 2
    built.fit(clips[:BATCH], labels[:BATCH], batch_size=BATCH, verbose=0)
    trained("linear", built, IMAGES, folder, epochs=1)
    stored, running = [], []
    for _ in range(int(rounds)):
        stored.append(trained("linear", built, IMAGES, folder, epochs=EPOCHS, patience=EPOCHS))
        start = time.monotonic()
        built.fit(clips, labels, batch_size=BATCH, verbose=0)
        running.append((time.monotonic() - start) * EPOCHS * IMAGES / SHARE)
    return {"images": IMAGES, "epochs": EPOCHS, "stored_seconds": [round(value, 2) for value in stored],
            "backbone_seconds": [round(value) for value in running],
            "backbone_timed_on": f"{SHARE} images for one epoch, times {EPOCHS * IMAGES / SHARE:g}",
            "ratio": round(median(long / short for long, short in zip(running, stored, strict=True)), 1)}  # fmt: skip


def heads(_: str, folder: str, rounds: str) -> dict:
    """By the detector's own settings; `svm` and what `triplet_svm` has of it once."""
    import keras

    from tfdetect.models import heads
    from tfdetect.models.detectors.clip import Clip

    def timed(*arguments, svm=heads.fit_svm):
        start = time.monotonic()
        out = svm(*arguments)
        parts.append(time.monotonic() - start)
        return out

    heads.fit_svm, parts, found = timed, [], {}
    for head in HEADS:
        inputs = keras.Input((1, SIDE, SIDE, 3), dtype="uint8")
        features = keras.layers.Rescaling(1.0, name="features")(keras.layers.Flatten()(inputs)[:, :WIDTH])
        model = keras.Model(inputs, heads.build_head(Clip(head=head), features))
        times = 1 if head.endswith("svm") else int(rounds)
        found[head] = round(median(trained(head, model, ROWS, folder) for _ in range(times)), 2)
    return {"rows": ROWS, "numbers": WIDTH, "seconds": found, "svm_of_triplet_svm": round(parts[0], 2)}


if __name__ == "__main__":
    if sys.argv[1:2] == [ONCE]:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        work = {"weights": make, "ours": ours, "theirs": theirs, "epochs": epochs, "heads": heads}[sys.argv[3]]
        Path(sys.argv[2]).write_text(json.dumps(work(*sys.argv[4:])))
    else:
        main()
