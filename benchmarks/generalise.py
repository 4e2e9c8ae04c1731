"""Train detectors on one source and test them on others: does a detector know the fake, or the photo shoot?

    python benchmarks/generalise.py benchmarks/generalise.json --train FACES --test DIR [DIR ...] --weights WEIGHTS
        [--only NAME ...] [--seeds 0 1 2] [--heat_map docs/generalisation.png]

FACES and each DIR hold real/ and fake/, or are folders made by `prepare`; a source is named after its folder. WEIGHTS holds
pretrained weights under the names in `trials.py`; trials whose weights it lacks are left out. The JSON file gets a row for each
trial and seed: the command, minutes, and for FACES' own test split and each source the ROC AUC with its 95 % interval. Rows that
it has already are kept, so an interrupted call goes on where it was. The matrix of all rows is printed as Markdown, sorted by the
worst source, and drawn as a heat-map.
"""

import argparse
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from statistics import mean

import pandas as pd
from trials import FACES, TRIALS, command, missing_weights, train

from tfdetect.data.layouts import detect
from tfdetect.evaluation.metrics import summarise
from tfdetect.plots.matrix import heat_map
from tfdetect.plots.style import to_png

OWN = "own test split"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="JSON file to read and extend")
    parser.add_argument("--train", type=Path, required=True, help="folder with the only source that is trained on")
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="folders of other sources")
    parser.add_argument("--weights", type=Path, required=True, help="folder of pretrained weights")
    parser.add_argument("--runs", type=Path, default=Path("saved_models/generalise"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the trainings")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[""], help="trials to run, by the start of their names")
    parser.add_argument("--heat_map", type=Path, help="PNG file of the matrix")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    for seed in options.seeds:
        for name, (data, _) in TRIALS.items():
            if data != FACES or not name.startswith(tuple(options.only)) or missing_weights(name, options.weights):
                continue
            row = next((row for row in rows if (row["trial"], row["seed"]) == (name, seed)), None)
            if row is None:
                rows.append(row := {"trial": name, "seed": seed, "command": command(name), "sources": {}})
            test_on_all(row, options)
            options.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(markdown_table(rows))
    if options.heat_map:
        draw_heat_map(rows, options.heat_map)


def test_on_all(row: dict, options: argparse.Namespace) -> None:
    """Add to the row the AUCs that it lacks; the run is trained if it does not exist yet."""
    missing = [folder for folder in options.test if folder.name not in row["sources"]]
    if not missing:
        return
    detector, minutes = train(row["trial"], row["seed"], options.train, options.weights, options.runs)
    if OWN not in row["sources"]:
        row |= minutes
        row["sources"][OWN] = select(detector.metrics["test"])
    table = join_sources(missing, options.runs / f"sources of {detector.folder.name}.csv")
    shutil.rmtree(target := options.runs / f"{detector.folder.name}-on-others", ignore_errors=True)
    results = detector.evaluate(table, out=target)
    for name, rows in results.predictions.groupby("source"):
        row["sources"][str(name)] = select(summarise(rows, None))


def join_sources(folders: list[Path], path: Path) -> Path:
    """Write one manifest of all files in the folders, each with the name of its folder as source; return its path."""
    tables = [detect.read(folder).assign(source=folder.name, split="test") for folder in folders]
    table = pd.concat([table.assign(group=table["source"] + "/" + table["group"].astype(str)) for table in tables])
    path.parent.mkdir(parents=True, exist_ok=True)
    table.assign(path=[*map(os.path.abspath, table["path"])])[["path", "label", "group", "source"]].to_csv(path, index=False)
    return path


def select(metrics: dict) -> dict:
    """Return the AUC, its 95 % interval and the number of files."""
    return {key: metrics[key] for key in ("auc", "auc_interval", "n")}


def means_over_seeds(rows: Iterable[dict]) -> dict[str, dict[str, float]]:
    """Return {trial: {source: mean AUC over its seeds}}, sorted by the AUC on the worst other source."""
    by_trial: dict[str, list[dict]] = {}
    for row in rows:
        by_trial.setdefault(row["trial"], []).append(row["sources"])
    table = {name: {source: mean(seed[source]["auc"] for seed in seeds) for source in seeds[0]}
             for name, seeds in by_trial.items()}  # fmt: skip
    return dict(sorted(table.items(), key=lambda item: -min(others(item[1]))))


def others(row: dict[str, float]) -> list[float]:
    """Return the AUCs on the other sources."""
    return [auc for source, auc in row.items() if source != OWN]


def markdown_table(rows: list[dict]) -> str:
    """Return the matrix as Markdown: the mean AUC over seeds, and for a single seed its 95 % interval."""
    table = means_over_seeds(rows)
    sources = list(next(iter(table.values())))
    header = ["trial", "seeds", *sources, "mean of the others", "worst"]
    lines = [" | ".join(["", *header, ""]).strip(), "|---" * len(header) + "|"]
    for name, aucs in table.items():
        seeds = [row for row in rows if row["trial"] == name]
        cells = [cell(aucs[source], [row["sources"][source]["auc_interval"] for row in seeds]) for source in sources]
        summary_cells = [f"{mean(others(aucs)):.2f}", f"{min(others(aucs)):.2f}"]
        lines.append(" | ".join(["", name, str(len(seeds)), *cells, *summary_cells, ""]).strip())
    commands = {row["trial"]: row["command"] for row in rows}
    return "\n".join([*lines, "", *(f"- {name}: `{command}`" for name, command in commands.items())])


def cell(auc: float, intervals: list[list[float]]) -> str:
    """Return the text of an AUC, with its interval if there is one seed."""
    return f"{auc:.2f} ({intervals[0][0]:.2f} to {intervals[0][1]:.2f})" if len(intervals) == 1 else f"{auc:.2f}"


def draw_heat_map(rows: list[dict], path: Path) -> None:
    """Draw the matrix: blue above chance, red below."""
    table = means_over_seeds(rows)
    sources = list(next(iter(table.values())))
    path.write_bytes(to_png(heat_map([[aucs[source] for source in sources] for aucs in table.values()], list(table), sources)))


if __name__ == "__main__":
    main()
