"""Run published recipes with real weights on data at hand, and print their figures beside ours.

    python benchmarks/recipes.py benchmarks/recipes.json --weights CLIP --data DIR --note "int8, dequantised" [--only NAME ...]

CLIP is a folder with OpenAI's CLIP in Hugging Face form, DIR holds real/ and fake/, and the note says what readers must know of
these weights; the committed file was measured with ViT-B/16 on 700 FFHQ and 700 StyleGAN faces. Each recipe is run by its own
command, in a new process, and its report is in --runs. The JSON file gets a row per recipe with the command, minutes, figures,
and what the report says of features and embedding; rows that it has already are not run again. All rows are printed as Markdown.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that it runs from a checkout, installed or not

PLAIN = ["--detector.views", "1", "--train.augment", ""]  # without augmented copies, whose features take as long again
RECIPES: dict[str, list[str]] = {"clip_triplet_svm_progan": [], "clip_nearest_progan": PLAIN, "clip_mlp_progan": PLAIN}
KEPT = ("train", "validation", "test")  # splits whose metrics are kept
METRICS = ("n", "accuracy", "auc", "auc_interval", "confusion", "macro")
MEASURED = ("principal_components", "triplet_distances")  # of metrics.json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="JSON file to read and extend")
    parser.add_argument("--weights", type=Path, required=True, help="folder of CLIP in Hugging Face form")
    parser.add_argument("--data", type=Path, required=True, help="folder of images with real/ and fake/")
    parser.add_argument("--note", default="", help="what readers must know about the weights")
    parser.add_argument("--runs", type=Path, default=ROOT / "saved_models" / "recipes", help="folder of the runs")
    parser.add_argument("--cache", type=Path, default=ROOT / "cache", help="folder of clips and features")
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES), help="recipes to run")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    for name in options.only:
        if all(row["recipe"] != name for row in rows):
            rows.append(run(name, options))
            options.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(markdown_table(rows))


def run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run a recipe in a new process; return its command with placeholders for paths, minutes, and what it measured."""
    words = ["reproduce.py", name, "--data.path", str(options.data), "--detector.preset", f"hf-clip:{options.weights}",
             *RECIPES[name]]  # fmt: skip
    place = ["--out", str(options.runs), "--name", name, "--overwrite", "--data.cache_dir", str(options.cache)]
    start = time.monotonic()
    subprocess.run([sys.executable, str(ROOT / "scripts" / words[0]), *words[1:], *place], check=True,
                   env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    minutes = round((time.monotonic() - start) / 60, 1)
    comparison, metrics = (json.loads((options.runs / name / file).read_text()) for file in ("comparison.json", "metrics.json"))
    return {
        "recipe": name,
        "command": shlex.join(["python", f"scripts/{words[0]}", name, "--data.path", "DIR", "--detector.preset", "hf-clip:CLIP",
                               *RECIPES[name]]),
        "weights": f"{options.weights.name}, {options.note}" if options.note else options.weights.name,
        "minutes": minutes,
        "cores": os.cpu_count(),
        "other_data": comparison["other_data"],
        "figures": comparison["figures"],
        **{split: {key: metrics[split].get(key) for key in METRICS} for split in KEPT},
        **{key: metrics[key] for key in MEASURED if metrics.get(key)},
    }


def markdown_table(rows: list[Mapping[str, Any]]) -> str:
    """Return a Markdown table with a line for each figure of each recipe."""
    from tfdetect.workflow.recipe import format_cell

    lines = ["| recipe | figure | published (its data) | ours (these data) |", "|---|---|---|---|"]
    for row in rows:
        auc, interval = row["test"]["auc"], row["test"]["auc_interval"]
        added = {"figure": "test AUC (95 % interval)", "published": None,
                 "ours": f"{auc:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"}  # fmt: skip
        for figure in (*row["figures"], added):
            cells = (f"`{row['recipe']}`", figure["figure"], format_cell(figure["published"]), format_cell(figure["ours"]))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
