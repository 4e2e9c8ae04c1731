"""Train every detector with its own command and compare their test AUCs.

    python benchmarks/detectors.py benchmarks/detectors.json --faces DIR --squeezenet WEIGHTS.h5 [--seeds 0 1] [--only NAME ...]

The data are the embedded sample and DIR, which holds real/ and fake/ with face images of 256 x 256 pixels; the published figures
use 700 of FFHQ and 700 of StyleGAN. Without --faces, only the rows on the sample are run. The JSON file gets a row per detector
and seed with the command, epochs, minutes, validation AUC and test metrics; rows that it has already are not run again. A run
that exists in --runs is resumed, and its minutes are those of the last part. The table of all rows is printed as Markdown.
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
# name of a row -> (data set, arguments of train.py), or ("mean", rows whose runs evaluate.py averages)
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
    parser.add_argument("out", type=Path, help="JSON file to read and extend")
    parser.add_argument("--faces", type=Path, help="folder of face images with real/ and fake/")
    parser.add_argument("--squeezenet", type=Path, help="pretrained weights of SqueezeNet")
    parser.add_argument("--runs", type=Path, default=ROOT / "saved_models" / "benchmark", help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the trainings")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), help="rows to run")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    for seed in options.seeds:
        for name in options.only:
            data, arguments = ROWS[name]
            if any((row["name"], row["seed"]) == (name, seed) for row in rows) or (data != "sample" and not options.faces):
                continue
            row = average(arguments, options.runs, seed) if data == "mean" else train(name, options, seed)
            rows.append({"name": name, "seed": seed, "cores": os.cpu_count(), **row})
            options.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(markdown_table(rows))


def run_name(name: str, seed: int) -> str:
    """Return the name of the run of a row."""
    return re.sub(r"\W+", "-", f"{name} {seed}")


def train(name: str, options: argparse.Namespace, seed: int) -> dict:
    """Train a detector in a new process. Return its command with placeholders for paths, epochs, minutes and metrics."""
    data, arguments = ROWS[name]
    flags = ["--data.path", "FACES", "--data.size", "256"] if data == "faces" else []
    template = [*arguments, *flags, "--train.seed", str(seed)]
    words = [str(options.faces) if word == "FACES" else word.format(squeezenet=options.squeezenet) for word in template]
    folder = options.runs / run_name(name, seed)
    minutes = run_script("train.py", *words, "--out", str(options.runs), "--name", folder.name, *["--resume"] * folder.exists())
    epochs = len((folder / "history.csv").read_text().splitlines()) - 1
    command = f"python scripts/train.py {shlex.join(word.format(squeezenet='FILE') for word in template)}"
    return {"command": command, "epochs": epochs, "minutes": minutes, **read_metrics(folder)}


def average(names: list[str], runs: Path, seed: int) -> dict:
    """Evaluate the mean of the probabilities of existing runs of this seed."""
    folders = [runs / run_name(name, seed) for name in names]
    target = runs / run_name("mean", seed)
    minutes = run_script("evaluate.py", *map(str, folders), "--out", str(target))
    return {"command": f"python scripts/evaluate.py {' '.join(folder.name for folder in folders)}", "minutes": minutes,
            **read_metrics(target)}  # fmt: skip


def run_script(script: str, *words: str) -> float:
    """Run a script of scripts/ in a new process and return the minutes it took."""
    start = time.monotonic()
    command = [sys.executable, str(ROOT / "scripts" / script), *words]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return round((time.monotonic() - start) / 60, 1)


def read_metrics(folder: Path) -> dict:
    """Return the validation AUC and the test metrics of a run."""
    metrics = json.loads((folder / "metrics.json").read_text())
    keys = ("auc", "auc_interval", "accuracy", "n")
    return {"validation_auc": metrics["validation"]["auc"], "test": {key: metrics["test"][key] for key in keys}}


def markdown_table(results: list[dict]) -> str:
    """Return a Markdown table with a line per detector; all seeds share a cell."""
    lines = ["| detector | command | test AUC (95 % interval), seed | minutes |", "|---|---|---|---|"]
    for name in ROWS:
        rows = [row for row in results if row["name"] == name]
        if not rows:
            continue
        cells = [(row["test"]["auc"], *row["test"]["auc_interval"], row["seed"]) for row in rows]
        intervals = "; ".join("{:.3f} ({:.3f} to {:.3f}), {}".format(*cell) for cell in cells)
        minutes = ", ".join(str(row["minutes"]) for row in rows)
        command = rows[0]["command"].rsplit(" --train.seed", 1)[0]
        lines.append(f"| {name} | `{command}` | {intervals} | {minutes} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
