"""Which score of which one-class detector tells fakes: trains each on reals alone, and lists test AUCs.

    python benchmarks/oneclass.py benchmarks/oneclass.json --faces DIR --squeezenet FILE

DIR holds real/ and fake/ of faces, 256 x 256. Each autoencoder is trained once for each data set and seed, by train.py; its other
scores are then those of a model of the same weights, from `model.keras` (the report of a run judges the exported model, to the
same digits). `upsample` is that source of the embedded sample against all its reals. Fakes are looked for far from the reals;
looking for them nearer than reals are (--detector.score_direction near) turns an AUC round, to 1 less it. What is there already is kept.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

ROOT = Path(__file__).resolve().parents[1]
# name: what train.py is asked for. `frequency` has all parts that the other scores need.
TRAINED = {
    "oc_ae": ["oc_ae", "--detector.score", "frequency"],
    "oc_fakedect, variant 1": ["oc_fakedect", "--detector.score", "frequency"],
    "oc_fakedect, variant 2": ["oc_fakedect", "--detector.variant", "2"],
    "resnet_vae, symmetric": ["resnet_vae", "--detector.score", "frequency", "--train.epochs", "6", "--train.eval_every", "3"],
    "resnet_vae, asymmetric": ["resnet_vae", "--detector.score", "frequency", "--train.epochs", "6", "--train.eval_every", "3",
                               "--detector.variant", "asymmetric"],
}  # fmt: skip
MODELS = ("subspace", "mahalanobis", "nearest", "mixture", "vae")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--faces", type=Path)
    parser.add_argument("--squeezenet", type=Path)
    parser.add_argument("--runs", type=Path, default=ROOT / "saved_models" / "oneclass")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", help="data sets or names that begin like this")
    asked = parser.parse_args()
    found = json.loads(asked.out.read_text()) if asked.out.exists() else []
    for seed in asked.seeds:
        for data, flags in {"upsample": [], "faces": ["--data.path", str(asked.faces)]}.items():
            for name, words in rows(asked).items():
                known = any((row["data"], row["detector"], row["seed"]) == (data, name, seed) for row in found)
                if known or (data == "faces" and not asked.faces) or not wanted(asked.only, data, name):
                    continue
                found.append({"data": data, "detector": name, "seed": seed, **run(data, name, words, flags, asked, seed)})
                asked.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


def wanted(only: list[str] | None, *names: str) -> bool:
    """Whether each of --only is met by one of the names."""
    return all(any(name.startswith(start) for name in names) for start in only or ())


def rows(asked: argparse.Namespace) -> dict[str, list[str]]:
    """All detectors by name."""
    out = dict(TRAINED)
    backbones = {"cosines": "cosines"} | ({"squeezenet": f"squeezenet:{asked.squeezenet}"} if asked.squeezenet else {})
    for backbone, value in backbones.items():
        for model in MODELS:
            out[f"{model} on {backbone}"] = ["feature_oneclass", "--detector.backbone", value, "--detector.model", model]
    return out


def run(data: str, name: str, words: list[str], flags: list[str], asked: argparse.Namespace, seed: int) -> dict:
    """One training in a process of its own, and the test and validation AUCs of all its scores."""
    folder = asked.runs / "-".join([data, *name.replace(",", "").split(), str(seed)])
    command = [*words, *flags, "--train.seed", str(seed)]
    start, begun = time.monotonic(), folder.exists()
    subprocess.run([sys.executable, str(ROOT / "scripts" / "train.py"), *command, "--out", str(asked.runs), "--name", folder.name,
                    *["--resume"] * begun], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    minutes = None if begun else round((time.monotonic() - start) / 60, 1)  # part of it is not the whole
    shown = shlex.join(["FACES" if word == str(asked.faces) else word.replace(str(asked.squeezenet), "FILE") for word in command])
    return {"command": f"python scripts/train.py {shown}", "minutes": minutes, "auc": scores(folder, data)}


def scores(folder: Path, data: str) -> dict[str, dict[str, float]]:
    """{score: {validation, test}} of a run, of all that its weights can give."""
    sys.path.insert(0, str(ROOT))
    from tfdetect import artifact, models
    from tfdetect.data import manifest  # noqa: F401
    from tfdetect.models.autoencoder import NEEDS_VARIANCE, ScoreName

    found = artifact.find(folder)
    run = artifact.load_config(found)
    own = getattr(run.detector, "effective_score", None) or "score"
    out = {own: judged(found, data)}
    if own != "frequency":
        return out
    trained = models.load(found.model)
    for name in get_args(ScoreName):
        slow = name == "likelihood_regret" and run.detector.name == "resnet_vae"  # on two cores
        if name == own or slow or (name in NEEDS_VARIANCE and run.detector.name == "oc_ae"):
            continue
        out[name] = rescored(found, run, trained, name, data)
    return out


def judged(found, data: str) -> dict[str, float]:
    """AUCs by the run's predictions, which the exported model made."""
    from tfdetect.evaluation import predictions

    return aucs(predictions.by_file(predictions.read(found.predictions)), data)


def aucs(files, data: str) -> dict[str, float]:
    """Of each split; `upsample`: the fakes of that source against all reals."""
    from tfdetect.evaluation import metrics

    kept = files[(files["label"] == 0) | (files["source"] == data)] if data == "upsample" else files
    parts = {split: part for split, part in kept.groupby("split") if split != "train"}
    return {split: round(metrics.auc(part["label"], part["score"]), 3) for split, part in parts.items()}


def rescored(found, run, trained, score: str, data: str) -> dict[str, float]:
    """AUCs of another score by the same encoder and decoder."""
    from dataclasses import replace

    import pandas as pd

    from tfdetect.data.input_pipeline.dataset import expand_frames
    from tfdetect.training.fit import predict_scores as scored
    from tfdetect.workflow.dataset import cache_for

    detector = replace(run.detector, score=score, weights="none") if hasattr(run.detector, "weights") else replace(
        run.detector, score=score)  # fmt: skip
    model = detector.build(trained.input_shape[1:])
    model.get_layer("encoder").set_weights(trained.get_layer("encoder").get_weights())
    decoder = model.get_layer("regret").layer if score == "likelihood_regret" else model.get_layer("decoder")
    decoder.set_weights(trained.get_layer("decoder").get_weights())
    rows = pd.read_csv(found.manifest, keep_default_na=False)
    rows = rows[(rows["error"] == "") & (rows["split"] != "train")].reset_index(drop=True)
    out = expand_frames(rows, True)
    out["score"] = scored(model, rows, cache_for(run.data, detector), detector, 32)
    by_file = out.groupby(["path", "label", "source", "split"], as_index=False)["score"].mean()
    return aucs(by_file, data)


def table(found: list[dict]) -> str:
    """Markdown: a line for each detector and score, test AUCs by data set; the seeds stand in one cell."""
    lines = ["| detector | score | upsample: test (validation) | faces: test (validation) |", "|---|---|---|---|"]
    for name, score in dict.fromkeys((row["detector"], score) for row in found for score in row["auc"]):
        cells = []
        for data in ("upsample", "faces"):
            rows = [row["auc"] for row in found if (row["data"], row["detector"]) == (data, name)]
            values = [row[score] for row in rows if score in row]
            cells.append("; ".join(f"{value['test']:.3f} ({value['validation']:.3f})" for value in values) or "–")
        lines.append(f"| {name} | {score} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
