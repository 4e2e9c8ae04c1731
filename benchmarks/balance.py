"""What --train.balance does where one file in eleven is fake: the embedded images, a small CNN, a few seeds.

    python benchmarks/balance.py [OUT.json] [--seeds 0 1 2] [--count 330]

AUC is of the test; `found` the share of the test's fakes with a score above 0, before any calibration: what the loss by itself
decided; `flagged` that of the reals.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, installed or not

from tfdetect.data import manifest
from tfdetect.data.layouts import detect
from tfdetect.data.sample import Sample, write

ROOT = Path(__file__).parents[1]
WAYS = ("none", "weights", "resample", "focal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=330)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        data = uneven(Path(place), asked.count)
        rows = [{"balance": way, "seed": seed, **run(data, way, seed, Path(place))} for seed in asked.seeds for way in WAYS]
    table = pd.DataFrame(rows)
    print(table.groupby("balance", sort=False).mean(numeric_only=True).drop(columns="seed").round(3).to_string())
    if asked.out:
        asked.out.write_text(json.dumps(rows, indent=1) + "\n")


def uneven(place: Path, count: int) -> Path:
    """A manifest of `count` reals and, in each split alike, a tenth as many fakes."""
    table = manifest.split(detect.read(write(Sample("image", count, size=64), place / "set").parent))
    kept = table[(table["label"] == 0) | (table.groupby(["label", "split"]).cumcount() % 10 == 0)]
    manifest.write(kept.assign(path=[str(Path(path).absolute()) for path in kept["path"]]), place / "uneven.csv")
    return place / "uneven.csv"


def run(data: Path, way: str, seed: int, place: Path) -> dict[str, float]:
    """One training's figures on its test files."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "cnn", "--data.path", str(data), "--data.size", "64",
               "--train.epochs", "8", "--train.balance", way, "--train.seed", str(seed), "--data.cache_dir", str(place / "cache"),
               "--out", str(place / "runs"), "--name", f"{way}-{seed}"]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    folder = place / "runs" / f"{way}-{seed}"
    test = pd.read_csv(folder / "predictions.csv").query("split == 'test'")
    called = (test["score"] > 0).groupby(test["label"]).mean()
    return {"auc": json.loads((folder / "metrics.json").read_text())["test"]["auc"], "found": called[1], "flagged": called[0]}


if __name__ == "__main__":
    main()
