"""Compare the values of --train.balance on data where one file in eleven is fake.

    python benchmarks/balance.py [OUT.json] [--seeds 0 1 2] [--count 330]

Train the detector `cnn` with each value and seed on the embedded images: `--count` real ones and a tenth as many fakes. Print the
means over the seeds of three metrics of the test split; OUT.json gets a row per training. `auc` is the AUC. `recall` and
`false_positive_rate` are the shares of fakes and of reals with a score above 0, that is before calibration: they show what the
loss alone decides.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

from tfdetect.data import manifest
from tfdetect.data.layouts import detect
from tfdetect.data.sample import Sample, write

ROOT = Path(__file__).parents[1]
METHODS = ("none", "weights", "resample", "focal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", help="JSON file to write")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the trainings")
    parser.add_argument("--count", type=int, default=330, help="number of real images")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_imbalanced(folder, options.count)
        rows = [{"balance": method, "seed": seed, **train(data, method, seed, folder)}
                for seed in options.seeds for method in METHODS]  # fmt: skip
    table = pd.DataFrame(rows)
    print(table.groupby("balance", sort=False).mean(numeric_only=True).drop(columns="seed").round(3).to_string())
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


def write_imbalanced(folder: Path, count: int) -> Path:
    """Write a manifest of `count` real images and, in each split, a tenth as many fakes. Return its path."""
    table = manifest.split(detect.read(write(Sample("image", count, size=64), folder / "set").parent))
    table = table[(table["label"] == 0) | (table.groupby(["label", "split"]).cumcount() % 10 == 0)]
    manifest.write(table.assign(path=[str(Path(path).absolute()) for path in table["path"]]), folder / "imbalanced.csv")
    return folder / "imbalanced.csv"


def train(data: Path, method: str, seed: int, folder: Path) -> dict[str, float]:
    """Train once and return the metrics of the test split."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "cnn", "--data.path", str(data), "--data.size", "64",
               "--train.epochs", "8", "--train.balance", method, "--train.seed", str(seed), "--data.cache_dir",
               str(folder / "cache"), "--out", str(folder / "runs"), "--name", f"{method}-{seed}"]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    run = folder / "runs" / f"{method}-{seed}"
    test = pd.read_csv(run / "predictions.csv").query("split == 'test'")
    positive = (test["score"] > 0).groupby(test["label"]).mean()
    auc = json.loads((run / "metrics.json").read_text())["test"]["auc"]
    return {"auc": auc, "recall": positive[1], "false_positive_rate": positive[0]}


if __name__ == "__main__":
    main()
