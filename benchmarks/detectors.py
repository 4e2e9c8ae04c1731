"""Every detector by its own command, on the embedded sample and on a folder of real pictures: AUC, minutes, seeds.

    python benchmarks/detectors.py benchmarks/detectors.json --faces DIR --squeezenet WEIGHTS.h5 [--seeds 0 1] [--only NAME ...]

DIR holds real/ and fake/ with faces of 256 x 256 pixels; those of the README are 700 of FFHQ and 700 of StyleGAN. What the JSON
has already is not run again; a run that --runs holds is gone on with, and its minutes are those of this time. The table it prints
is the README's.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRANSFER = ["--detector.weights", "{squeezenet}"]
SCRATCH = ["--detector.weights", "none"]
# name of a row -> (set, arguments of train.py), or ("mean", rows whose runs evaluate.py averages)
ROWS = {
    "cnn": ("sample", ["cnn"]),
    "mesonet": ("sample", ["mesonet"]),
    "residual": ("sample", ["residual"]),
    "squeezenet, from scratch": ("sample", ["squeezenet", *SCRATCH]),
    "feature_oneclass": ("sample", ["feature_oneclass"]),
    "cnn_lstm": ("sample", ["cnn_lstm"]),
    "cnn_lstm, attention and differences": ("sample", ["cnn_lstm", "--detector.temporal", "attention", "--detector.differences"]),
    "cnn on faces": ("faces", ["cnn"]),
    "mesonet on faces": ("faces", ["mesonet"]),
    "residual on faces": ("faces", ["residual"]),
    "feature_oneclass on faces": ("faces", ["feature_oneclass", "--detector.score_direction", "near"]),
    "squeezenet on faces, from scratch": ("faces", ["squeezenet", *SCRATCH]),
    "squeezenet on faces, frozen": ("faces", ["squeezenet", *TRANSFER, "--detector.unfreeze_from", ""]),
    "squeezenet on faces, fine-tuned": ("faces", ["squeezenet", *TRANSFER]),
    "mean of residual and squeezenet on faces": ("mean", ["residual on faces", "squeezenet on faces, fine-tuned"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--faces", type=Path)
    parser.add_argument("--squeezenet", type=Path)
    parser.add_argument("--runs", type=Path, default=ROOT / "saved_models" / "benchmark")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    asked = parser.parse_args()
    found = json.loads(asked.out.read_text()) if asked.out.exists() else []
    for seed in asked.seeds:
        for name in asked.only:
            where, arguments = ROWS[name]
            if any((row["name"], row["seed"]) == (name, seed) for row in found) or (where != "sample" and not asked.faces):
                continue
            row = mean(arguments, asked.runs, seed) if where == "mean" else run(name, asked, seed)
            found.append({"name": name, "seed": seed, "cores": os.cpu_count(), **row})
            asked.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


def slug(name: str, seed: int) -> str:
    """A run's name."""
    return re.sub(r"\W+", "-", f"{name} {seed}")


def run(name: str, asked: argparse.Namespace, seed: int) -> dict:
    """One training in a process of its own: its command, figures and time."""
    where, arguments = ROWS[name]
    said = [*arguments, *(["--data.path", "FACES", "--data.size", "256"] if where == "faces" else []), "--train.seed", str(seed)]
    words = [str(asked.faces) if word == "FACES" else word.format(squeezenet=asked.squeezenet) for word in said]
    folder = asked.runs / slug(name, seed)
    minutes = call("train.py", *words, "--out", str(asked.runs), "--name", folder.name, *["--resume"] * folder.exists())
    epochs = len((folder / "history.csv").read_text().splitlines()) - 1
    command = f"python scripts/train.py {shlex.join(word.format(squeezenet='FILE') for word in said)}"
    return {"command": command, "epochs": epochs, "minutes": minutes, **figures(folder)}


def mean(rows: list[str], runs: Path, seed: int) -> dict:
    """Runs of this seed that are there, and the mean of their probabilities."""
    folders = [runs / slug(name, seed) for name in rows]
    target = runs / slug("mean", seed)
    minutes = call("evaluate.py", *map(str, folders), "--out", str(target))
    return {"command": f"python scripts/evaluate.py {' '.join(folder.name for folder in folders)}", "minutes": minutes,
            **figures(target)}  # fmt: skip


def call(script: str, *words: str) -> float:
    """Minutes that a command took."""
    start = time.monotonic()
    command = [sys.executable, str(ROOT / "scripts" / script), *words]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return round((time.monotonic() - start) / 60, 1)


def figures(folder: Path) -> dict:
    """What the run's folder says of validation and test."""
    metrics = json.loads((folder / "metrics.json").read_text())
    kept = ("auc", "auc_interval", "accuracy", "n")
    return {"validation_auc": metrics["validation"]["auc"], "test": {key: metrics["test"][key] for key in kept}}


def table(found: list[dict]) -> str:
    """Markdown; the seeds of a row stand in one cell."""
    lines = ["| detector | command | test AUC (95 % interval), seed | minutes |", "|---|---|---|---|"]
    for name in ROWS:
        rows = [row for row in found if row["name"] == name]
        if not rows:
            continue
        cells = [(row["test"]["auc"], *row["test"]["auc_interval"], row["seed"]) for row in rows]
        measured = "; ".join("{:.3f} ({:.3f} to {:.3f}), {}".format(*cell) for cell in cells)
        minutes = ", ".join(str(row["minutes"]) for row in rows)
        command = rows[0]["command"].rsplit(" --train.seed", 1)[0]
        lines.append(f"| {name} | `{command}` | {measured} | {minutes} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
