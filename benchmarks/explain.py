"""Whether heat-maps find what was forged: pixel AUC of each method on the embedded sample, whose forged regions are known.

    python benchmarks/explain.py benchmarks/explain.json

Of each test fake of `swap` and `upsample`, the heat of the pixels in the forged region against that of all others: 0.5 is
chance. The region lies near the middle, so a map that is always hot there would do well: the same figure on the fake's real
twin, where nothing was forged, says how well. `true` is the share of fakes whose hottest tenth takes more from the score than
the same shape does elsewhere. Runs that are there are used again.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
METHODS = [{"method": "occlusion", "cells": cells} for cells in (8, 4, 3)]
RUNS = {"cnn": METHODS, "cnn_lstm": METHODS, "feature_oneclass": METHODS, "oc_fakedect": [{"method": "error"}, *METHODS]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=Path, default=ROOT / "saved_models" / "explain")
    parser.add_argument("--split", default="test")
    parser.add_argument("--files", type=int, default=20, help="of each source")
    parser.add_argument("--only", nargs="+", default=list(RUNS))
    asked = parser.parse_args()
    found = json.loads(asked.out.read_text()) if asked.out.exists() else []
    for name in asked.only:
        if any(row["detector"] == name for row in found):
            continue
        found += measured(name, asked)
        asked.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


def measured(name: str, asked: argparse.Namespace) -> list[dict]:
    """A row for each method and source."""
    if not (asked.runs / name / "metrics.json").exists():
        subprocess.run([sys.executable, ROOT / "scripts" / "train.py", name, "--out", asked.runs], check=True,
                       env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    from tfdetect import artifact, models  # noqa: F401
    from tfdetect.serving.predictor import Predictor
    from tfdetect.verbs.explain import Explain, explain_clip
    from tfdetect.workflow.dataset import cache_for

    found = artifact.find(asked.runs / name)
    run = artifact.load_config(found)
    predictor = Predictor(found, cache_for(run.data, run.detector).spec, run.detector)
    table = pd.read_csv(found.manifest, keep_default_na=False).query("split == @asked.split and error == ''")
    fakes = table[table["source"].isin(["swap", "upsample"])].groupby("source").head(asked.files)
    reals = table[table["label"] == 0].set_index("group")["path"]
    rows = []
    for options in RUNS[name]:
        settings = Explain(asked.runs / name, (), frames=1, **options)
        for source, part in fakes.groupby("source"):
            seen = {kind: [judged(predictor, path, group, run.data.size, explain_clip, settings)
                           for path, group in zip(paths, part["group"], strict=True)]
                    for kind, paths in (("fake", part["path"]), ("twin", reals[part["group"]]))}  # fmt: skip
            auc = {kind: round(float(np.mean([one for one, _ in pairs])), 3) for kind, pairs in seen.items()}
            true = round(float(np.mean([larger for _, larger in seen["fake"]])), 3)
            rows.append({"detector": name, **options, "source": source, "files": len(part), **auc, "true": true})
            print(rows[-1], flush=True)
    return rows


def judged(predictor, path: str, group: str, size: int, explain_clip, settings) -> tuple[float, bool]:
    """(pixel AUC of the region of that scene, whether the hottest tenth takes more than elsewhere) of a file."""
    from tfdetect.data.sample import Scene
    from tfdetect.evaluation import metrics

    _, heat, check = explain_clip(predictor, predictor.model_frames(predictor.spec.read(path)), settings.method, settings)
    scene = Scene.draw(np.random.default_rng([0, int(group.removeprefix("scene-"))]), size)
    region = scene.mask(size, np.zeros(2), 1.0)[..., 0] > 0.5
    return metrics.auc(region.ravel().astype(int), heat[0].ravel()), check["hottest_tenth"] > check["elsewhere"]


def table(found: list[dict]) -> str:
    """Markdown."""
    lines = ["| detector | method | source | pixel AUC, fakes | real twins | true |", "|---|---|---|---|---|---|"]
    for row in found:
        how = row["method"] + (f", --cells {row['cells']}" if "cells" in row else "")
        numbers = f"{row['fake']:.3f} | {row['twin']:.3f} | {row['true']:.0%}"
        lines.append(f"| {row['detector']} | {how} | {row['source']} | {numbers} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
