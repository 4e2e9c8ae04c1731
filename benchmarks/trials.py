"""The trainings that `detectors.py` and `generalise.py` measure: a name, the data and the arguments of `train` of each.

In arguments, {clip}, {dino}, {inception}, {lite}, {squeezenet} and {yunet} stand for files in the folder given by --weights.
"""

import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that the benchmarks run from a checkout, installed or not

if TYPE_CHECKING:
    from tfdetect import TrainedDetector

# placeholder -> name in the folder of weights, and where they come from, as the tables say it
WEIGHTS = {
    "clip": ("clip_vit_b16", "CLIP ViT-B/16, int8, dequantised"),
    "dino": ("dinov2_vit_s14", "DINOv2 ViT-S/14, fine-tuned for saliency"),
    "inception": ("inception_v3.h5", "InceptionV3, uint8, dequantised; ImageNet up to mixed5, fine-tuned for another task above"),
    "lite": ("efficientnet_lite0.pth", "EfficientNet-Lite0, ImageNet"),
    "squeezenet": ("squeezenet.h5", "SqueezeNet 1.1, ImageNet"),
    "yunet": ("yunet.onnx", "YuNet"),
}
CLIP = ["clip", "--detector.preset", "hf-clip:{clip}"]
CLIP_FEATURES, HEADS = ("projected", "pooled", "penultimate"), ("logistic", "linear", "mlp", "svm", "nearest", "triplet_svm")
SCRATCH = ["--detector.weights", "none"]
SETS = ["fusion", "--detector.sets", "hf-clip:{clip}@layers:7,8,12+patches:7,8,12"]
LAYERS, CROP = [*SETS, "--detector.head", "average"], ["--data.fit", "crop"]
VIEWS = ["--detector.views", "2", "--train.augment", "resize(0.4,1,p=0.4)|blur(0.3,1.5,p=0.3)|jpeg(40,98)"]
BLENDED = [*VIEWS, "--data.make_fakes", "1", "--data.face_model", "{yunet}"]

SAMPLE, FACES, VIDEOS = "sample", "faces", "videos"
# name -> (data, arguments of `train`). The sample is the default of `train`.
TRIALS: dict[str, tuple[str, list[str]]] = {
    "cnn": (SAMPLE, ["cnn"]),
    "mesonet": (SAMPLE, ["mesonet"]),
    "residual": (SAMPLE, ["residual"]),
    "squeezenet, from scratch": (SAMPLE, ["squeezenet", *SCRATCH]),
    "feature_oneclass": (SAMPLE, ["feature_oneclass"]),
    "cnn_lstm": (SAMPLE, ["cnn_lstm"]),
    "cnn_lstm, attention and differences": (
        SAMPLE, ["cnn_lstm", "--detector.temporal", "attention", "--detector.differences"]),
    "cnn on faces": (FACES, ["cnn"]),
    "mesonet on faces": (FACES, ["mesonet"]),
    "residual on faces": (FACES, ["residual"]),
    "squeezenet on faces, from scratch": (FACES, ["squeezenet", *SCRATCH]),
    "squeezenet on faces, frozen": (
        FACES, ["squeezenet", "--detector.weights", "{squeezenet}", "--detector.unfreeze_from", ""]),
    "squeezenet on faces, fine-tuned": (FACES, ["squeezenet", "--detector.weights", "{squeezenet}"]),
    "inception on faces, head": (FACES, ["inception", "--detector.weights", "{inception}"]),
    "inception on faces, from mixed7": (
        FACES, ["inception", "--detector.weights", "{inception}", "--detector.unfreeze_from", "mixed7"]),
    "backbone on faces, head": (FACES, ["backbone", "--detector.network", "efficientnet_lite0", "--detector.weights", "{lite}"]),
    "backbone on faces, all layers": (
        FACES, ["backbone", "--detector.network", "efficientnet_lite0", "--detector.weights", "{lite}",
                "--detector.unfreeze_from", "all"]),
    "feature_oneclass on faces": (FACES, ["feature_oneclass", "--detector.score_direction", "near"]),
    **{f"clip on faces, {features}, {head}": (FACES, [*CLIP, "--detector.features", features, "--detector.head", head])
       for features in CLIP_FEATURES for head in HEADS},
    **{f"dino on faces, {features}, logistic": (
        FACES, ["clip", "--detector.preset", "{dino}", "--detector.features", features, "--detector.head", "logistic"])
       for features in CLIP_FEATURES[1:]},
    "clip on faces, layers:8, logistic": (FACES, [*CLIP, "--detector.features", "layers:8", "--detector.head", "logistic"]),
    "backbone on faces, head, logistic": (
        FACES, ["backbone", "--detector.network", "efficientnet_lite0", "--detector.weights", "{lite}",
                "--detector.head", "logistic", "--detector.C", "0.01"]),
    "feature_oneclass on faces, variances of CLIP": (
        FACES, ["feature_oneclass", "--detector.backbone", "hf-clip:{clip}", "--detector.features", "variances:7,8,9,10,11",
                "--detector.score_direction", "near", "--data.size", "224"]),
    "fusion on faces, without CLIP": (FACES, ["fusion"]),
    "fusion on faces, CLIP's layers, one head": (FACES, SETS),
    "fusion on faces, CLIP's layers": (FACES, LAYERS),
    "fusion on faces, CLIP's layers, crop": (FACES, [*LAYERS, *CROP]),
    "fusion on faces, CLIP's layers, augmented": (FACES, [*LAYERS, *VIEWS]),
    "fusion on faces, CLIP's layers, and self-blended fakes": (FACES, [*LAYERS, *BLENDED, "--data.keep_fakes"]),
    "fusion on photographs and self-blended fakes alone": (FACES, [*LAYERS, *BLENDED]),
}  # fmt: skip


def missing_weights(name: str, folder: Path | None) -> list[str]:
    """Return the names of the weights that a trial needs and the folder lacks."""
    needed = [key for key in WEIGHTS if any(f"{{{key}}}" in word for word in TRIALS[name][1])]
    return [WEIGHTS[key][0] for key in needed if not folder or not (folder / WEIGHTS[key][0]).exists()]


def provenance(name: str) -> str:
    """Return where the pretrained weights of a trial come from; "" if it has none."""
    return "; ".join(text for key, (_, text) in WEIGHTS.items() if any(f"{{{key}}}" in word for word in TRIALS[name][1]))


def command(name: str) -> str:
    """Return the command of a trial, with names in capitals in place of paths."""
    data, arguments = TRIALS[name]
    words = [word.format(**{key: file for key, (file, _) in WEIGHTS.items()}) for word in arguments]
    return f"python scripts/train.py {shlex.join(words)}" + (f" --data.path {data.upper()}" if data != SAMPLE else "")


def run_name(name: str, seed: int) -> str:
    """Return the name of the run of a trial."""
    return re.sub(r"\W+", "-", f"{name} {seed}")


def train(name: str, seed: int, data: Path | None, weights: Path | None,
          runs: Path) -> "tuple[TrainedDetector, dict[str, float]]":  # fmt: skip
    """Train a trial, or resume it, and return it with the minutes that this took: by the clock, and of processor time."""
    import keras

    from tfdetect import load
    from tfdetect.api.train import resolve, train_run
    from tfdetect.config import parse
    from tfdetect.workflow.startup import start

    start(())
    keras.backend.clear_session()
    kind, arguments = TRIALS[name]
    places = {key: (weights or Path()) / file for key, (file, _) in WEIGHTS.items()}
    words = [word.format(**places) for word in arguments]
    run = run_name(name, seed)
    flags = ["--stress", "0", *(["--data.path", str(data)] if kind != SAMPLE else [])]
    clock, processor = time.monotonic(), sum(os.times()[:4])
    resume = ["--resume"] if (runs / run).exists() else []
    train_run(resolve(parse([*words, *flags, "--train.seed", str(seed), "--out", str(runs), "--name", run, *resume], "train")))
    minutes = {"minutes": time.monotonic() - clock, "processor_minutes": sum(os.times()[:4]) - processor}
    return load(runs / run), {key: round(seconds / 60, 1) for key, seconds in minutes.items()}
