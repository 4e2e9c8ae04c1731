"""Every detector by its own command, on the embedded sample and on a folder of real pictures: AUC, minutes, seeds.

    python benchmarks/detectors.py benchmarks/detectors.json --faces DIR --squeezenet WEIGHTS.h5 [--seeds 0 1] [--only NAME ...]

DIR holds real/ and fake/ with faces of 256 x 256 pixels; those of the README are 700 of FFHQ and 700 of StyleGAN. What the JSON
has already is not run again. The table it prints is the one in the README.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRANSFER = ["--detector.weights", "{squeezenet}"]
# name of a row -> (set, arguments of train.py)
ROWS = {
    "cnn": ("sample", ["cnn"]),
    "mesonet": ("sample", ["mesonet"]),
    "residual": ("sample", ["residual"]),
    "squeezenet, from scratch": ("sample", ["squeezenet", "--detector.weights", "none"]),
    "cnn_lstm": ("sample", ["cnn_lstm"]),
    "cnn_lstm, attention and differences": ("sample", ["cnn_lstm", "--detector.temporal", "attention", "--detector.differences"]),
    "cnn on faces": ("faces", ["cnn"]),
    "mesonet on faces": ("faces", ["mesonet"]),
    "residual on faces": ("faces", ["residual"]),
    "squeezenet on faces, from scratch": ("faces", ["squeezenet", "--detector.weights", "none"]),
    "squeezenet on faces, frozen": ("faces", ["squeezenet", *TRANSFER, "--detector.unfreeze_from", ""]),
    "squeezenet on faces, fine-tuned": ("faces", ["squeezenet", *TRANSFER]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--faces", type=Path)
    parser.add_argument("--squeezenet", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    asked = parser.parse_args()
    found = json.loads(asked.out.read_text()) if asked.out.exists() else []
    for seed in asked.seeds:
        for name in asked.only:
            where, arguments = ROWS[name]
            if any((row["name"], row["seed"]) == (name, seed) for row in found) or (where == "faces" and not asked.faces):
                continue
            arguments = [word.format(squeezenet=asked.squeezenet) for word in arguments]
            found.append({"name": name, "seed": seed, **run(arguments, asked.faces if where == "faces" else None, seed)})
            asked.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


def run(arguments: list[str], data: Path | None, seed: int) -> dict:
    """One training in a process of its own: its command, figures and time."""
    said = [*arguments, *(["--data.path", "FACES", "--data.size", "256"] if data else []), "--train.seed", str(seed)]
    words = [str(data) if word == "FACES" else word for word in said]
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, str(ROOT / "scripts" / "train.py"), *words, "--out", out, "--name", "run"]
        start = time.monotonic()
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        minutes = (time.monotonic() - start) / 60
        metrics = json.loads((Path(out) / "run" / "metrics.json").read_text())
        epochs = len((Path(out) / "run" / "history.csv").read_text().splitlines()) - 1
    kept = ("auc", "auc_interval", "accuracy", "n")
    said = [Path(word).name if word.endswith(".h5") else word for word in said]
    return {"command": f"python scripts/train.py {' '.join(said)}", "epochs": epochs, "minutes": round(minutes, 1),
            "cores": os.cpu_count(), "validation_auc": metrics["validation"]["auc"],
            "test": {key: metrics["test"][key] for key in kept}}  # fmt: skip


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
