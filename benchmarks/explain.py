"""Measure whether heat-maps mark the forged region, which is known for the embedded sample.

    python benchmarks/explain.py benchmarks/explain.json

`fake` is the pixel AUC, averaged over fakes of the sources `swap` and `upsample`: the probability that a pixel in the forged
region is hotter than one outside; chance is 0.5. Because the region lies near the centre, a map that is always hot there would
do well, so `twin` is the same metric on the real twin of each fake, in which nothing was forged. `pointed` is the share of fakes
whose hottest pixel is in the region, `pointed_twin` that of the twins. `deletion` and `insertion` are the mean areas under the
curves of `heatmaps.curve_areas`, of fakes. `true` is the share of fakes whose score drops more when the hottest tenth is hidden
than when the same shape is hidden elsewhere.

The JSON file gets a row per split, detector, method and source; those that it has already are skipped. Detectors without a run in
--runs are trained first. The rows of the test split are printed as a Markdown table, and those of validation tell which method
measured best for each detector: the one with the largest mean of `fake`, less what `twin` exceeds chance (`values_table`).
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
METHODS = ("occlusion:4", "gradcam", "integrated_gradients:black", "random")
RUNS = {"cnn": METHODS, "cnn_lstm": METHODS, "feature_oneclass": METHODS, "mesonet": METHODS, "oc_fakedect": ("error", *METHODS),
        "residual": METHODS}  # fmt: skip
NUMBERS = ("fake", "twin", "pointed", "pointed_twin", "deletion", "insertion")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="JSON file to read and extend")
    parser.add_argument("--runs", type=Path, default=ROOT / "saved_models" / "explain", help="folder of the runs")
    parser.add_argument("--splits", nargs="+", default=["validation", "test"], help="splits to measure on")
    parser.add_argument("--files", type=int, default=10, help="fakes per source")
    parser.add_argument("--only", nargs="+", default=list(RUNS), help="detectors to measure")
    parser.add_argument("--methods", nargs="+", help="such as occlusion:8 (cells) or integrated_gradients:mean (baseline)")
    arguments = parser.parse_args()
    rows = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    for name in arguments.only:
        done = {(row["split"], row["method"]) for row in rows if row["detector"] == name}
        for split, method in itertools.product(arguments.splits, arguments.methods or RUNS[name]):
            if (split, method) not in done:
                rows += measure(name, method, split, arguments)
                arguments.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(markdown_table([row for row in rows if row["split"] == "test"]))
    print(values_table([row for row in rows if row["split"] == "validation"]))


def measure(name: str, method: str, split: str, arguments: argparse.Namespace) -> list[dict]:
    """Return a row per source for one detector, which is trained if it has no run; none if the method is impossible for it."""
    if not (arguments.runs / name / "metrics.json").exists():
        subprocess.run([sys.executable, ROOT / "scripts" / "train.py", name, "--out", arguments.runs], check=True,
                       env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    from tfdetect import artifact, models  # noqa: F401
    from tfdetect.errors import UserError
    from tfdetect.serving.predictor import Predictor
    from tfdetect.workflow import explaining
    from tfdetect.workflow.dataset import cache_for

    folder = artifact.find(arguments.runs / name)
    run = artifact.load_config(folder)
    predictor = Predictor(folder, cache_for(run.data, run.detector).spec, run.detector)
    kind, _, option = method.partition(":")
    options = {"cells": int(option) if kind == "occlusion" else 4, "baseline": option or "black"}
    asked = "occlusion" if kind == explaining.RANDOM else kind
    try:
        maps = explaining.prepare(predictor, folder, run.detector, asked, **options)
    except UserError as error:
        print(error)
        return []
    table = pd.read_csv(folder.manifest, keep_default_na=False).query("split == @split and error == ''")
    fakes = table[table["source"].isin(["swap", "upsample"])].groupby("source").head(arguments.files)
    reals = table[table["label"] == 0].set_index("group")["path"]
    rows = []
    for source, files in fakes.groupby("source"):
        pairs = [[evaluate_map(maps, kind, each, group, run.data.size) for each in (path, reals[group])]
                 for path, group in zip(files["path"], files["group"], strict=True)]  # fmt: skip
        values = [[fake["pixel_auc"], twin["pixel_auc"], fake["pointed"], twin["pointed"], fake["deletion"], fake["insertion"],
                   fake["hottest_tenth"] > fake["elsewhere"]] for fake, twin in pairs]  # fmt: skip
        means = np.mean(values, axis=0).round(3).tolist()
        rows.append({"split": split, "detector": name, "method": method, "source": source, "files": len(files),
                     **dict(zip((*NUMBERS, "true"), means, strict=True))})  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def evaluate_map(maps: Any, kind: str, path: str, group: str, size: int) -> dict[str, float]:
    """Return what was measured of the heat-map of a file's middle frame, or clip, with the region of its scene."""
    from tfdetect.data.sample import Scene
    from tfdetect.explain import heatmaps

    predictor = maps.predictor
    clip = predictor.model_frames(predictor.spec.read(path))
    clip = clip[len(clip) // 2 :][:1] if predictor.is_frame_detector else clip
    number = int(group.removeprefix("scene-"))
    scene = Scene.draw(np.random.default_rng([0, number]), size)
    region = scene.mask(size, np.zeros(2), 1.0)[..., 0] > 0.5
    heat = heatmaps.random_map(size, size, maps.cells, number)[None] if kind == "random" else maps.of(clip)[0]
    flat = heat.mean(axis=0)
    hottest, elsewhere = heatmaps.deletion_check(maps.score, clip, flat)
    found = heatmaps.localisation(heat, np.broadcast_to(region, heat.shape))
    return {**found, **heatmaps.curve_areas(maps.probability, clip, flat), "hottest_tenth": hottest, "elsewhere": elsewhere}


def values_table(rows: list[dict]) -> str:
    """Return a Markdown table of the value of each method, by which the default is chosen; the best one of a detector is bold.

    It is the mean AUC on fakes, less what that on their twins exceeds chance.
    """
    table = pd.DataFrame([row for row in rows if row["method"] != "random"])
    if table.empty:
        return ""
    table["value"] = table["fake"] - (table["twin"] - 0.5).clip(lower=0)
    values = table.groupby(["detector", "method"])["value"].mean().unstack()
    lines = [f"| validation | {' | '.join(values)} |", "|---" * (1 + len(values.columns)) + "|"]
    for name, of_detector in values.iterrows():
        cells = ["" if np.isnan(value) else f"**{value:.3f}**" if value == of_detector.max() else f"{value:.3f}"
                 for value in of_detector]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def markdown_table(rows: list[dict]) -> str:
    """Return the results as a Markdown table; each second AUC and pointing game is that of the real twins."""
    names = ["detector", "method", "source", "fakes", "pixel AUC", "twins", "pointing", "twins", "deletion", "insertion", "true"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [row["detector"], row["method"], row["source"], row["files"], *(f"{row[name]:.3f}" for name in NUMBERS)]
        lines.append(f"| {' | '.join(map(str, cells))} | {row['true']:.0%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
