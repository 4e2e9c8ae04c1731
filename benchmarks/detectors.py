"""Train every detector with its own command and compare their test AUCs.

    python benchmarks/detectors.py benchmarks/detectors.json --faces FACES --weights WEIGHTS [--seeds 0 1] [--only NAME ...]

The data are the embedded sample and FACES, which holds real/ and fake/ with face images of 256 x 256 pixels; the figures of the
README use 700 of FFHQ and 700 of StyleGAN. WEIGHTS holds pretrained weights under the names in `trials.py`. Rows without their
data or weights are left out. The JSON file gets a row per detector and seed with the command, epochs, minutes, validation AUC and
test metrics; rows that it has already are not run again. A run that exists in --runs is resumed, and its minutes are those of the
last part; detectors on stored features that an earlier row has computed take only the minutes of their heads. The table of all
rows is printed as Markdown.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from trials import ROOT, SAMPLE, TRIALS, command, missing_weights, provenance, run_name, train

# name of a row -> rows whose runs evaluate.py averages
MEANS = {"mean of residual and squeezenet on faces": ("residual on faces", "squeezenet on faces, fine-tuned")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="JSON file to read and extend")
    parser.add_argument("--faces", type=Path, help="folder of face images with real/ and fake/")
    parser.add_argument("--weights", type=Path, help="folder of pretrained weights")
    parser.add_argument("--runs", type=Path, default=ROOT / "saved_models" / "benchmark", help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the trainings")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[""], help="rows to run, by the start of their names")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    for seed in options.seeds:
        for name in (name for name in (*TRIALS, *MEANS) if name.startswith(tuple(options.only))):
            if any((row["name"], row["seed"]) == (name, seed) for row in rows) or not is_possible(name, options):
                continue
            row = average(name, options.runs, seed) if name in MEANS else measure(name, options, seed)
            rows.append({"name": name, "seed": seed, "cores": os.cpu_count(), **row})
            options.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(markdown_table(rows))


def is_possible(name: str, options: argparse.Namespace) -> bool:
    """Return whether the data and the weights of a row are there."""
    parts = MEANS.get(name, (name,))
    return all(not missing_weights(part, options.weights) and (TRIALS[part][0] == SAMPLE or options.faces) for part in parts)


def measure(name: str, options: argparse.Namespace, seed: int) -> dict:
    """Train a detector. Return its command with placeholders for paths, epochs, minutes and metrics."""
    detector, minutes = train(name, seed, options.faces, options.weights, options.runs)
    return {"command": command(name), "weights": provenance(name), "epochs": len(detector.history), **minutes,
            **select_metrics(detector.metrics)}  # fmt: skip


def average(name: str, runs: Path, seed: int) -> dict:
    """Evaluate the mean of the probabilities of existing runs of this seed."""
    folders = [runs / run_name(part, seed) for part in MEANS[name]]
    target, start = runs / run_name("mean", seed), time.monotonic()
    words = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), *map(str, folders), "--out", str(target)]
    subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return {"command": f"python scripts/evaluate.py {' '.join(folder.name for folder in folders)}",
            "minutes": round((time.monotonic() - start) / 60, 1),
            **select_metrics(json.loads((target / "metrics.json").read_text()))}  # fmt: skip


def select_metrics(metrics: dict) -> dict:
    """Return the validation AUC and the test metrics of a run."""
    keys = ("auc", "auc_interval", "accuracy", "n")
    return {"validation_auc": metrics["validation"]["auc"], "test": {key: metrics["test"][key] for key in keys}}


def markdown_table(results: list[dict]) -> str:
    """Return a Markdown table with a line per detector; all seeds share a cell."""
    lines = ["| detector | command | weights | test AUC (95 % interval), seed | minutes |", "|---|---|---|---|---|"]
    for name in (*TRIALS, *MEANS):
        rows = [row for row in results if row["name"] == name]
        if not rows:
            continue
        cells = [(row["test"]["auc"], *row["test"]["auc_interval"], row["seed"]) for row in rows]
        intervals = "; ".join("{:.3f} ({:.3f} to {:.3f}), {}".format(*cell) for cell in cells)
        minutes = ", ".join(str(row["minutes"]) for row in rows)
        lines.append(f"| {name} | `{rows[0]['command']}` | {rows[0].get('weights', '')} | {intervals} | {minutes} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
