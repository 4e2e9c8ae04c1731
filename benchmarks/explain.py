"""Measure whether heat-maps mark the forged region, which is known for the embedded sample.

    python benchmarks/explain.py benchmarks/explain.json

`fake` is the pixel AUC, averaged over test fakes of the sources `swap` and `upsample`: the probability that a pixel in the forged
region is hotter than one outside; chance is 0.5. Because the region lies near the centre, a map that is always hot there would
do well, so `twin` is the same metric on the real twin of each fake, in which nothing was forged. `true` is the share of fakes
whose score drops more when the hottest tenth is hidden than when the same shape is hidden elsewhere.

The JSON file gets a row per detector, method and source; detectors that it has already are skipped. Detectors without a run in
--runs are trained first. The table of all rows is printed as Markdown.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from tfdetect.api.explain import Explain
    from tfdetect.serving.predictor import Predictor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
METHODS: list[dict[str, Any]] = [{"method": "occlusion", "cells": cells} for cells in (8, 4, 3)]
RUNS = {"cnn": METHODS, "cnn_lstm": METHODS, "feature_oneclass": METHODS, "oc_fakedect": [{"method": "error"}, *METHODS]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="JSON file to read and extend")
    parser.add_argument("--runs", type=Path, default=ROOT / "saved_models" / "explain", help="folder of the runs")
    parser.add_argument("--split", default="test", help="split to measure on")
    parser.add_argument("--files", type=int, default=20, help="fakes per source")
    parser.add_argument("--only", nargs="+", default=list(RUNS), help="detectors to measure")
    arguments = parser.parse_args()
    rows = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    for name in arguments.only:
        if any(row["detector"] == name for row in rows):
            continue
        rows += measure(name, arguments)
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(markdown_table(rows))


def measure(name: str, arguments: argparse.Namespace) -> list[dict]:
    """Return a row per method and source for one detector, which is trained if it has no run."""
    if not (arguments.runs / name / "metrics.json").exists():
        subprocess.run([sys.executable, ROOT / "scripts" / "train.py", name, "--out", arguments.runs], check=True,
                       env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    from tfdetect import artifact, models  # noqa: F401
    from tfdetect.api.explain import Explain
    from tfdetect.serving.predictor import Predictor
    from tfdetect.workflow.dataset import cache_for

    folder = artifact.find(arguments.runs / name)
    run = artifact.load_config(folder)
    predictor = Predictor(folder, cache_for(run.data, run.detector).spec, run.detector)
    table = pd.read_csv(folder.manifest, keep_default_na=False).query("split == @arguments.split and error == ''")
    fakes = table[table["source"].isin(["swap", "upsample"])].groupby("source").head(arguments.files)
    reals = table[table["label"] == 0].set_index("group")["path"]
    rows = []
    for options in RUNS[name]:
        settings = Explain(arguments.runs / name, (), frames=1, **options)
        for source, files in fakes.groupby("source"):
            results = {kind: [evaluate_map(predictor, path, group, run.data.size, settings)
                              for path, group in zip(paths, files["group"], strict=True)]
                       for kind, paths in (("fake", files["path"]), ("twin", reals[files["group"]]))}  # fmt: skip
            aucs = {kind: round(float(np.mean([auc for auc, _ in pairs])), 3) for kind, pairs in results.items()}
            true = round(float(np.mean([passed for _, passed in results["fake"]])), 3)
            rows.append({"detector": name, **options, "source": source, "files": len(files), **aucs, "true": true})
            print(rows[-1], flush=True)
    return rows


def evaluate_map(predictor: "Predictor", path: str, group: str, size: int, settings: "Explain") -> tuple[float, bool]:
    """Return the pixel AUC of a file's heat-map for the region of its scene, and whether the map passes the check.

    It passes if hiding the hottest tenth lowers the score more than hiding the same shape elsewhere.
    """
    from tfdetect.api.explain import explain_clip
    from tfdetect.data.sample import Scene
    from tfdetect.evaluation import metrics

    _, heat, check = explain_clip(predictor, predictor.model_frames(predictor.spec.read(path)), settings.method, settings)
    scene = Scene.draw(np.random.default_rng([0, int(group.removeprefix("scene-"))]), size)
    region = scene.mask(size, np.zeros(2), 1.0)[..., 0] > 0.5
    return metrics.auc(region.ravel().astype(int), heat[0].ravel()), check["hottest_tenth"] > check["elsewhere"]


def markdown_table(rows: list[dict]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| detector | method | source | pixel AUC, fakes | real twins | true |", "|---|---|---|---|---|---|"]
    for row in rows:
        method = row["method"] + (f", --cells {row['cells']}" if "cells" in row else "")
        numbers = f"{row['fake']:.3f} | {row['twin']:.3f} | {row['true']:.0%}"
        lines.append(f"| {row['detector']} | {method} | {row['source']} | {numbers} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
