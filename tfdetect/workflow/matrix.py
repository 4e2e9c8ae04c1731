"""evaluate with several data sets: a matrix of runs and data sets, each cell of which is an evaluation by itself."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tfdetect import __version__, config, files, installation, versions
from tfdetect import artifact as artifacts
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.settings import Run
from tfdetect.workflow import output_paths, overlap
from tfdetect.workflow.console import console, plural, print_columns, printable
from tfdetect.workflow.test_files import Evaluate

NAME = "matrix.json"
FLAG = "--data.path"
ONE_CLASS = "only {} files, so there is no AUC"
Evaluation = Callable[[Evaluate, Artifact, Run], Artifact]  # of one run on one data set


def find_paths(argv: Sequence[str]) -> list[Path]:
    """Return the values of all --data.path of a command line, in their order."""
    parts = [(*word.partition("="), after) for word, after in zip_longest(argv, argv[1:], fillvalue="")]
    return [Path(value if equals else after) for name, equals, value, after in parts if name == FLAG]


@dataclass(frozen=True)
class Matrix:
    """What is evaluated on what, and where the results go."""

    args: Evaluate
    runs: dict[str, Path]
    """Name in the matrix -> folder of the run."""
    data: dict[str, Path]
    """Name in the matrix -> data set."""
    folder: Path

    @property
    def target(self) -> Artifact:
        """The folder of the matrix: its page is called as any report."""
        return Artifact(self.folder)

    def cell_folder(self, run: str, data: str) -> Path:
        """Return the folder of one evaluation, below that of the matrix."""
        return self.folder.joinpath(*(f"{list(names).index(name) + 1}-{output_paths.slug(name)}"
                                      for names, name in ((self.runs, run), (self.data, data))))  # fmt: skip


def evaluate(args: Evaluate, paths: Sequence[Path], evaluate_run: Evaluation) -> Artifact:
    """Evaluate each run on each data set and return the folder with matrix.json and the page.

    Cells that are finished, and whose run, files and settings have not changed, are kept. A cell that cannot be computed has a
    reason. Raises UserError if a run or data set is given twice, if the settings are not for runs, and if no cell can be
    computed; FileNotFoundError if a run or data set does not exist.
    """
    matrix = plan(args, paths)
    known = read_cells(matrix.folder / NAME)
    places = [(run, data) for run in matrix.runs for data in matrix.data]
    cells: list[dict[str, Any]] = []
    try:
        for number, (run, data) in enumerate(places, 1):
            key = cell_key(matrix, run, data)
            kept = next((cell for cell in known if cell["key"] == key and (matrix.folder / cell["report"]).exists()), None)
            console.print(f"\nCell {number} of {len(places)}: {printable(run)} on {printable(data)}{': kept' if kept else ''}")
            cells.append({**kept, "run": run, "data": data} if kept else compute_cell(matrix, run, data, key, evaluate_run))
            write_cells(matrix, [*cells, *(cell for cell in known if cell["key"] not in {each["key"] for each in cells})])
    except KeyboardInterrupt:
        console.print(f"\n{len(cells)} of {plural(len(places), 'cell')} are finished: the same command keeps them.")
        raise
    found = write_cells(matrix, cells)
    write_page(matrix, found)
    if not found["counts"]["computed"] + found["counts"]["without_auc"]:
        raise UserError(f"No cell of the matrix could be computed; the first reason: {cells[0]['reason']} All are in "
                        f"{matrix.target.report}.")  # fmt: skip
    print_matrix(found)
    return matrix.target


def plan(args: Evaluate, paths: Sequence[Path]) -> Matrix:
    """Return the matrix of an evaluation. Raises UserError and FileNotFoundError as `evaluate` does."""
    from tfdetect.evaluation.ensemble import unique_names

    if args.predictions or args.model:
        raise UserError("Several --data.path make a matrix of runs and data sets; --predictions and --model have no runs.")
    if not args.runs:
        raise UserError("No run given; name the folder of one, such as saved_models/cnn, or of several.")
    for given, what in ((args.runs, "run"), (paths, "data set")):
        resolved = [path.resolve() for path in given]
        if twice := [str(path) for number, path in enumerate(given) if resolved[number] in resolved[:number]]:
            raise UserError(f"{twice[0]} was given twice; a matrix takes each {what} once.")
    for run in args.runs:
        artifacts.find(run, trust=args.trust)
    if missing := [path for path in paths if not path.exists()]:
        raise FileNotFoundError(f"No data set {str(missing[0])!r}: there is no such file or folder.")
    runs = dict(zip(unique_names([versions.name(run.resolve()) for run in args.runs]), args.runs, strict=True))
    names = [path.resolve().stem if path.is_file() else path.resolve().name or "root" for path in paths]
    data = dict(zip(unique_names(names), paths, strict=True))
    return Matrix(args, runs, data, find_folder(args, paths, data))


def find_folder(args: Evaluate, paths: Sequence[Path], names: Iterable[str]) -> Path:
    """Return --out, else a folder in `evaluations/` of the first run, named after the data sets and a digest of all settings.

    Raises UserError if --out holds anything but a matrix.
    """
    if not args.out:
        given = [str(path.resolve()) for path in (*args.runs, *paths)]
        digest = hashlib.sha256(json.dumps([given, settings(args)], default=str).encode()).hexdigest()[:6]
        return args.runs[0] / "evaluations" / f"matrix-{output_paths.slug('+'.join(names))}-{digest}"
    if args.out.exists() and not (args.out / NAME).exists() and (not args.out.is_dir() or os.listdir(args.out)):
        raise UserError(f"--out {args.out} holds something other than a matrix: give a folder that is new, empty or holds an "
                        "earlier matrix, or omit --out.")  # fmt: skip
    return args.out


def settings(args: Evaluate) -> dict[str, Any]:
    """Return the settings that all cells share."""
    data = replace(args.data, path=None, workers=None)
    return config.settings_to_dict(replace(args, runs=(), out=None, trust=False, data=data))


def cell_key(matrix: Matrix, run: str, data: str) -> str:
    """Return a text that changes with the run, the files and the settings of a cell, and with the version of tfdetect."""
    artifact, path = Artifact(matrix.runs[run]), matrix.data[data]
    model = artifact.model.stat() if artifact.model.exists() else None
    texts = [file.read_text() for file in (artifact.config, artifact.calibration)]
    places, weights = [str(place.resolve()) for place in (artifact.folder, path)], model and (model.st_size, model.st_mtime_ns)
    identity = [__version__, settings(matrix.args), places, texts, weights, list(listing(path))]
    return hashlib.sha256(json.dumps(identity, default=str).encode()).hexdigest()[:16]


def listing(path: Path) -> Iterable[tuple[str, int, int]]:
    """Return path, size and modification time of each file of a data set, sorted: a folder, or a table and what it names."""
    from tfdetect.data import manifest

    if path.is_dir():
        found = [(os.fsencode(name).hex(), status.st_size, status.st_mtime_ns) for name, status in files.walk(path)]
        return sorted(found)
    try:
        named = [Path(name) for name in manifest.read(path)["path"]]
    except UserError:  # such as a list of another layout
        named = []
    return sorted((os.fsencode(file).hex(), file.stat().st_size, file.stat().st_mtime_ns) for file in (path, *named)
                  if file.exists())  # fmt: skip


def compute_cell(matrix: Matrix, run: str, data: str, key: str, evaluate_run: Evaluation) -> dict[str, Any]:
    """Evaluate one run on one data set and return its cell; on an error, a cell with the reason."""
    artifact, path = Artifact(matrix.runs[run]), matrix.data[data]
    out = matrix.cell_folder(run, data)
    args = replace(matrix.args, runs=(artifact.folder,), out=out, data=replace(matrix.args.data, path=path))
    cell: dict[str, Any] = {"run": run, "data": data, "key": key, "reason": "", "report": None}
    try:
        target = evaluate_run(args, artifact, artifacts.load_config(artifact))
    except Exception as error:  # of this cell alone: the others may be fine
        if os.environ.get("TFDETECT_DEBUG"):
            raise
        kind = "" if isinstance(error, UserError | OSError) else f"{type(error).__name__}: "
        console.print(reason := f"{kind}{' '.join(str(error).split())}")
        return cell | dict.fromkeys(FIGURES) | {"reason": reason}
    report = str(target.report.relative_to(matrix.folder))
    return cell | read_figures(target) | {"report": report}


FIGURES = ("n", "n_real", "n_fake", "in_training", "threshold", "auc", "auc_interval", "balanced_accuracy",
           "balanced_accuracy_interval", "recall", "false_positive_rate")  # fmt: skip


def read_figures(target: Artifact) -> dict[str, Any]:
    """Return the FIGURES of an evaluation, and why it has no AUC."""
    import pandas as pd

    test = files.read_json(target.metrics, ["test"], "evaluate again.")["test"]
    listed, passed = target.folder / overlap.LIST_NAME, test["per_class"]["real"]["recall"]
    reason = "" if test["auc"] is not None else ONE_CLASS.format("real" if test["n_real"] else "fake")
    return {name: test[name] for name in ("n", "n_real", "n_fake", "threshold", "auc", "auc_interval", "balanced_accuracy")} | {
        "balanced_accuracy_interval": test["intervals"]["balanced_accuracy"], "recall": test["per_class"]["fake"]["recall"],
        "false_positive_rate": None if passed is None else 1 - passed,
        "in_training": len(pd.read_csv(listed)) if listed.exists() else 0, "reason": reason}  # fmt: skip


def read_cells(path: Path) -> list[dict[str, Any]]:
    """Return the cells of an earlier call that have a report, [] if there was none. Raises UserError if the file is damaged."""
    if not path.exists():
        return []
    return [cell for cell in files.read_json(path, ["cells"], "delete it, and all cells are computed again.")["cells"]
            if cell["report"]]  # fmt: skip


def write_cells(matrix: Matrix, cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write matrix.json and return its content."""
    counts = {"computed": sum(cell["auc"] is not None for cell in cells),
              "without_auc": sum(cell["auc"] is None and cell["report"] is not None for cell in cells),
              "failed": sum(cell["report"] is None for cell in cells)}  # fmt: skip
    sides = {"rows": matrix.runs, "columns": matrix.data}
    found = {name: [{"name": key, "path": str(path.absolute())} for key, path in side.items()] for name, side in sides.items()}
    content = {**found, "cells": list(cells), "counts": counts}
    files.write_json(matrix.folder / NAME, content)
    return content


def write_page(matrix: Matrix, found: dict[str, Any]) -> None:
    """Write the heat-map and the page."""
    from tfdetect.pages import matrix as pages
    from tfdetect.plots import standard
    from tfdetect.plots.matrix import heat_map

    by_place = {(cell["run"], cell["data"]): cell["auc"] for cell in found["cells"]}
    aucs = [[by_place[run, data] for data in matrix.data] for run in matrix.runs]
    drawn = standard.save_plots(matrix.target.plots, {"matrix": heat_map(aucs, [*matrix.runs], [*matrix.data])})
    with files.atomic_write(matrix.target.report) as temporary:
        pages.write(temporary, matrix.folder.name, found, drawn["matrix"], installation.command_line())


def print_matrix(found: dict[str, Any]) -> None:
    """Print the AUC of each run on each data set with its interval, and the cells that have none."""
    by_place = {(cell["run"], cell["data"]): cell for cell in found["cells"]}
    names = [column["name"] for column in found["columns"]]
    rows = [[row["name"], *(_describe(by_place[row["name"], name]) for name in names)] for row in found["rows"]]
    console.print("\nAUC, with its 95 % interval")
    print_columns(["run", *names], rows)
    counts = found["counts"]
    console.print(f"{plural(len(found['cells']), 'cell')}: {counts['computed']} with an AUC, {counts['without_auc']} without, "
                  f"{counts['failed']} failed")  # fmt: skip
    for cell in found["cells"]:
        if cell["reason"]:
            console.print(printable(f"{cell['run']} on {cell['data']}: {cell['reason']}"))


def _describe(cell: dict[str, Any]) -> str:
    if cell["auc"] is None:
        return "-"
    low, high = cell["auc_interval"] or (None, None)
    return f"{cell['auc']:.3f}" + ("" if low is None else f" ({low:.3f} to {high:.3f})")
