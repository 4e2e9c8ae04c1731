"""Compare the anomaly scores of the one-class detectors by test AUC.

    python benchmarks/oneclass.py benchmarks/oneclass.json --faces DIR --squeezenet FILE

The data sets are `upsample`, the fakes of that source of the embedded sample against all its reals, and `faces`: DIR with real/
and fake/ of 256 x 256 pixels, skipped without --faces. train.py trains each detector on reals alone, once per data set and seed,
in --runs. An autoencoder's other scores are then computed by a model with the same weights, loaded from `model.keras`; the
exported model, which a run evaluates, gives the same AUCs to the digits shown. Fakes are expected far from the reals;
with --detector.score_direction near, each AUC would be 1 minus the one listed.

The JSON file gets a row per data set, detector and seed with the command, the minutes, and the validation and test AUC of each
score; rows that it has already are not run again. The table of all rows is printed as Markdown.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.artifact import Artifact
    from tfdetect.settings import Run

ROOT = Path(__file__).resolve().parents[1]
# name -> arguments of train.py. A model with the score `frequency` has all the weights that the other scores need.
AUTOENCODERS = {
    "oc_ae": ["oc_ae", "--detector.score", "frequency"],
    "oc_fakedect, variant 1": ["oc_fakedect", "--detector.score", "frequency"],
    "oc_fakedect, variant 2": ["oc_fakedect", "--detector.variant", "2"],
    "resnet_vae, symmetric": ["resnet_vae", "--detector.score", "frequency", "--train.epochs", "6", "--train.eval_every", "3"],
    "resnet_vae, asymmetric": ["resnet_vae", "--detector.score", "frequency", "--train.epochs", "6", "--train.eval_every", "3",
                               "--detector.variant", "asymmetric"],
}  # fmt: skip
DENSITY_MODELS = ("subspace", "mahalanobis", "nearest", "mixture", "vae")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="JSON file to read and extend")
    parser.add_argument("--faces", type=Path, help="folder of face images with real/ and fake/")
    parser.add_argument("--squeezenet", type=Path, help="pretrained weights of SqueezeNet")
    parser.add_argument("--runs", type=Path, default=ROOT / "saved_models" / "oneclass", help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the trainings")
    parser.add_argument("--only", nargs="+", help="data sets or detectors to run, by the start of their names")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    for seed in options.seeds:
        for data, flags in {"upsample": [], "faces": ["--data.path", str(options.faces)]}.items():
            for name, words in detectors(options.squeezenet).items():
                is_done = any((row["data"], row["detector"], row["seed"]) == (data, name, seed) for row in rows)
                if is_done or (data == "faces" and not options.faces) or not is_selected(options.only, data, name):
                    continue
                rows.append({"data": data, "detector": name, "seed": seed, **train(data, name, words + flags, options, seed)})
                options.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(markdown_table(rows))


def is_selected(prefixes: list[str] | None, *names: str) -> bool:
    """Return whether each prefix is the start of one of the names."""
    return all(any(name.startswith(prefix) for name in names) for prefix in prefixes or ())


def detectors(squeezenet: Path | None) -> dict[str, list[str]]:
    """Return the arguments of train.py for each detector by name."""
    out = dict(AUTOENCODERS)
    backbones = {"cosines": "cosines"} | ({"squeezenet": f"squeezenet:{squeezenet}"} if squeezenet else {})
    for backbone, value in backbones.items():
        for model in DENSITY_MODELS:
            out[f"{model} on {backbone}"] = ["feature_oneclass", "--detector.backbone", value, "--detector.model", model]
    return out


def train(data: str, name: str, words: list[str], options: argparse.Namespace, seed: int) -> dict:
    """Train a detector in a new process. Return its command, minutes, and the validation and test AUCs of all its scores."""
    folder = options.runs / "-".join([data, *name.replace(",", "").split(), str(seed)])
    command = [*words, "--train.seed", str(seed)]
    start, is_resumed = time.monotonic(), folder.exists()
    subprocess.run([sys.executable, str(ROOT / "scripts" / "train.py"), *command, "--out", str(options.runs),
                    "--name", folder.name, *["--resume"] * is_resumed], check=True,
                   env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    minutes = None if is_resumed else round((time.monotonic() - start) / 60, 1)
    faces, squeezenet = str(options.faces), str(options.squeezenet)
    shown = shlex.join("FACES" if word == faces else word.replace(squeezenet, "FILE") for word in command)
    return {"command": f"python scripts/train.py {shown}", "minutes": minutes, "auc": aucs_by_score(folder, data)}


def aucs_by_score(folder: Path, data: str) -> dict[str, dict[str, float]]:
    """Return {score: {split: AUC}} for the score of a run and the others that its weights can compute."""
    sys.path.insert(0, str(ROOT))
    from tfdetect import artifact, models
    from tfdetect.models.autoencoder import NEEDS_VARIANCE, ScoreName

    files = artifact.find(folder)
    run = artifact.load_config(files)
    run_score = getattr(run.detector, "effective_score", None) or "score"
    out = {run_score: exported_aucs(files, data)}
    if run_score != "frequency":
        return out
    trained = models.load(files.model)
    for name in get_args(ScoreName):
        too_slow = name == "likelihood_regret" and run.detector.name == "resnet_vae"  # on two cores
        if name == run_score or too_slow or (name in NEEDS_VARIANCE and run.detector.name == "oc_ae"):
            continue
        out[name] = rescored_aucs(files, run, trained, name, data)
    return out


def exported_aucs(files: "Artifact", data: str) -> dict[str, float]:
    """Return the AUC per split of the predictions of the exported model."""
    from tfdetect.evaluation import predictions

    return aucs_by_split(predictions.by_file(predictions.read(files.predictions)), data)


def aucs_by_split(table: "pd.DataFrame", data: str) -> dict[str, float]:
    """Return the AUC of each split but training; for `upsample`, of the fakes of that source against all reals."""
    from tfdetect.evaluation import metrics

    table = table[(table["label"] == 0) | (table["source"] == data)] if data == "upsample" else table
    splits = table[table["split"] != "train"].groupby("split")
    return {str(split): round(metrics.auc(rows["label"], rows["score"]), 3) for split, rows in splits}


def rescored_aucs(files: "Artifact", run: "Run", trained: Any, score: str, data: str) -> dict[str, float]:
    """Return the AUC per split of another score, computed with the trained encoder and decoder."""
    from dataclasses import replace

    import pandas as pd

    from tfdetect.data.input_pipeline.dataset import expand_frames
    from tfdetect.evaluation import predictions
    from tfdetect.training.fit import predict_scores
    from tfdetect.workflow.dataset import cache_for

    detector: Any = run.detector
    detector = replace(detector, score=score, **({"weights": "none"} if hasattr(detector, "weights") else {}))
    model = detector.build(trained.input_shape[1:])
    model.get_layer("encoder").set_weights(trained.get_layer("encoder").get_weights())
    decoder = model.get_layer("regret").layer if score == "likelihood_regret" else model.get_layer("decoder")
    decoder.set_weights(trained.get_layer("decoder").get_weights())
    rows = pd.read_csv(files.manifest, keep_default_na=False)
    rows = rows[(rows["error"] == "") & (rows["split"] != "train")].reset_index(drop=True)
    out = expand_frames(rows, True)
    out["score"] = predict_scores(model, rows, cache_for(run.data, detector), detector, 32)
    return aucs_by_split(predictions.file_scores(out, ["split"]), data)


def markdown_table(results: list[dict]) -> str:
    """Return a Markdown table with a line per detector and score and a column per data set; all seeds share a cell."""
    lines = ["| detector | score | upsample: test (validation) | faces: test (validation) |", "|---|---|---|---|"]
    for name, score in dict.fromkeys((row["detector"], score) for row in results for score in row["auc"]):
        cells = []
        for data in ("upsample", "faces"):
            rows = [row["auc"] for row in results if (row["data"], row["detector"]) == (data, name)]
            values = [row[score] for row in rows if score in row]
            cells.append("; ".join(f"{value['test']:.3f} ({value['validation']:.3f})" for value in values) or "–")
        lines.append(f"| {name} | {score} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
