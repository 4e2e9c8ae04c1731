"""evaluate --compare: finished runs side by side, from what they stored; or on another data set, which they score first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from tfdetect import artifact as artifacts
from tfdetect import config, files, installation, versions
from tfdetect.artifact import NOT_COMPARED, Artifact
from tfdetect.data import manifest
from tfdetect.detector import describe_detector
from tfdetect.errors import UserError
from tfdetect.evaluation import comparison, metrics, predictions
from tfdetect.evaluation.ensemble import unique_names
from tfdetect.files import plural
from tfdetect.pages import advice, compare, tables
from tfdetect.pages.content import Report
from tfdetect.plots import compare as plots
from tfdetect.plots.standard import save_plots
from tfdetect.settings import Run
from tfdetect.workflow import cost
from tfdetect.workflow.console import console
from tfdetect.workflow.ensemble import absolute_paths
from tfdetect.workflow.output_paths import evaluation_folder
from tfdetect.workflow.test_files import Evaluate

EvaluateRun = Callable[[Evaluate, Artifact, Run], Artifact]  # evaluates a run on --data.path

NAME = "compare.json"
MISSING = "evaluate the run again, or train it again."
TRAINED_ON = "{} of the test files of {} were in the training or validation of {}; they are in no shared figure."
DISAGREE = "{} and {} disagree on the labels of {}, which count as different files."


@dataclass(frozen=True)
class Scored:
    """A finished run."""

    artifact: Artifact
    run: Run
    metrics: Mapping[str, Any]
    manifest: pd.DataFrame
    frames: pd.DataFrame
    """predictions.csv of its test files, with a column `key`: (content of the file, label)."""
    results: Artifact
    """Where metrics and predictions are from: the run itself, or its evaluation on another data set."""

    @property
    def keys(self) -> set[tuple[str, int]]:
        """Of all test files."""
        return set(self.frames["key"])

    def rows(self, keys: set[tuple[str, int]]) -> pd.DataFrame:
        """Return the predictions of the test files with these keys; of files with the same content, those of the first."""
        paths = self.frames[self.frames["key"].isin(keys)].drop_duplicates("key")["path"]
        return self.frames[self.frames["path"].isin(paths)].drop(columns="key").reset_index(drop=True)

    def contents(self, *splits: str) -> set[str]:
        """Return the hashes of the files of these splits."""
        return set(self.manifest.loc[self.manifest["split"].isin(splits), "sha"]) - {""}


def evaluate(args: Evaluate, evaluate_run: EvaluateRun) -> Artifact:
    """Write report.html, report.md and compare.json, print the conclusions, and return the folder; `evaluate_run` evaluates a
    run on --data.path, if that is given."""
    runs = load(args.runs, args.trust)
    if args.data.path:
        runs = {name: on_other_files(name, run, args, evaluate_run) for name, run in runs.items()}
    target = Artifact(evaluation_folder(args, [*runs], "compare"))
    content = build(runs)
    shown = {name: run.rows(shared_keys(runs) if content.comparable else run.keys) for name, run in runs.items()}
    figure = plots.roc({name: predictions.by_file(rows) for name, rows in shown.items()})
    drawn = save_plots(target.plots, {"roc": figure})["roc"]
    files.write_json(target.folder / NAME, content.to_dict())
    for path, write in ((target.report_text, compare.write_markdown), (target.report, compare.write_html)):
        with files.atomic_write(path) as temporary:
            write(temporary, content, drawn)
    for sentence in (*content.warnings, *map(comparison.sentence, filter(is_compared, content.differences)),
                     compare.conclusion(content)):  # fmt: skip
        console.print(files.printable(sentence))
    return target


def load(folders: Sequence[Path], trust: bool = False) -> dict[str, Scored]:
    """Return the runs by unique names. Raises UserError for a folder of runs, for fewer than two different runs, or if one has no
    test figures."""
    for folder in folders:
        refuse_folder_of_runs(folder)
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UserError(f"--compare takes two or more different runs, got {', '.join(map(str, folders)) or 'none'}.")
    found = [artifacts.find(folder, "predictions", trust) for folder in folders]
    names = unique_names([versions.name(artifact.folder) for artifact in found])
    return dict(zip(names, map(read, found), strict=True))


def refuse_folder_of_runs(folder: Path) -> None:
    """Raise UserError, with the command that compares them, for the folder of a study or any other that holds runs."""
    inside = [run for run in artifacts.find_runs(folder) if run != folder and Artifact(run).is_finished]
    if len(inside) > 1:
        raise UserError(f"{folder} is no run, but a folder with {plural(len(inside), 'finished run')}; name those to compare: "
                        f"{installation.command('evaluate', '--compare', *inside)}")  # fmt: skip


def on_other_files(name: str, run: Scored, args: Evaluate, evaluate_run: EvaluateRun) -> Scored:
    """Evaluate a run on --data.path, and return it with the files, scores and figures of that; a file is known by its path."""
    console.print(f"\n{files.printable(f'{name} on {args.data.path}')}")
    alone = replace(args, compare=False, out=None, runs=(run.artifact.folder,))
    results = evaluate_run(alone, run.artifact, run.run)
    frames = predictions.read(results.predictions)
    frames["key"] = [*zip(frames["path"], frames["label"], strict=True)]
    tested = frames.drop_duplicates("path").reindex(columns=run.manifest.columns, fill_value="")
    rows = pd.concat([run.manifest[run.manifest["split"] != "test"], tested], ignore_index=True)
    found = files.read_json(results.metrics, ("test",), MISSING)
    return replace(run, metrics=found, manifest=rows, frames=frames, results=results)


def read(artifact: Artifact) -> Scored:
    """Return a run with its stored predictions."""
    found = files.read_json(artifact.metrics, ("test",), MISSING) if artifact.metrics.exists() else {}
    if not found:
        raise UserError(f"{artifact.folder} has no {artifact.metrics.name}: {MISSING}")
    rows = manifest.read_unchecked(artifact.manifest)
    shas = dict(zip(rows["path"], rows["sha"], strict=True))
    frames = predictions.read(artifact.predictions)
    frames = frames[frames["split"] == "test"].reset_index(drop=True)
    paths = absolute_paths(list(frames["path"]), shas)
    contents = [shas.get(path) or path for path in paths]
    frames["key"] = [*zip(contents, frames["label"], strict=True)]
    return Scored(artifact, artifacts.load_config(artifact), found, rows, frames, artifact)


def build(runs: Mapping[str, Scored]) -> compare.Comparison:
    """Return the content of the page."""
    shared = shared_keys(runs)
    same = all(run.keys == shared for run in runs.values())
    can_compare = len({label for _, label in shared}) == 2
    members = [member(name, run, shared if can_compare else None) for name, run in runs.items()]
    rows = [difference(pair) for pair in combinations(runs.items(), 2)]
    return compare.Comparison(members, len(shared), same, rows, warnings(runs, shared, same), installation.command_line(),
                              installation.utc_now(), installation.versions())  # fmt: skip


def shared_keys(runs: Mapping[str, Scored]) -> set[tuple[str, int]]:
    """Return the keys of the files that all runs were tested on."""
    return set.intersection(*(run.keys for run in runs.values()))


def difference(pair: tuple[tuple[str, Scored], tuple[str, Scored]]) -> dict[str, Any]:
    """Return the row of `comparison.compare` for two runs, on the files that both were tested on."""
    (first, one), (second, other) = pair
    keys = one.keys & other.keys
    scores = [scored.frames.assign(path=scored.frames["key"].map(repr)) for scored in (one, other)]
    scores = [predictions.file_scores(rows[rows["key"].isin(keys)].drop_duplicates(["key", "frame"])) for rows in scores]
    left, right = (rows.drop_duplicates("path").set_index("path") for rows in scores)
    right = right.loc[left.index]
    found = comparison.compare(left["label"], left["group"], {first: left["score"], second: right["score"]}) if keys else []
    none = {"first": first, "second": second, **dict.fromkeys(("difference", "interval", "delong_p")),
            "conclusion": "no shared test files of both classes"}  # fmt: skip
    return {**(found[0] if found else none), "files": len(keys)}


def is_compared(row: Mapping[str, Any]) -> bool:
    """Return whether two runs share test files of both classes."""
    return row["difference"] is not None


def warnings(runs: Mapping[str, Scored], shared: set[tuple[str, int]], same: bool) -> list[str]:
    """Return what makes the comparison worth less."""
    out = []
    if not same:
        sizes = ", ".join(f"{name} {len(run.keys)}" for name, run in runs.items())
        out.append(f"The runs were tested on different files ({sizes}), of which all share {len(shared)}.")
    for (first, one), (second, other) in combinations(runs.items(), 2):
        contents = [{content for content, _ in keys} for keys in (one.keys - other.keys, other.keys - one.keys)]
        if clash := contents[0] & contents[1]:
            out.append(DISAGREE.format(first, second, plural(len(clash), "test file")))
        for (name, tested), (by, trained) in (((first, one), (second, other)), ((second, other), (first, one))):
            if leaked := len(tested.contents("test") & trained.contents("train", "validation")):
                out.append(TRAINED_ON.format(leaked, name, by))
    if len({training_files(run) for run in runs.values()}) > 1:
        out.append("The runs were trained on different files, so a difference is not that of their detectors alone.")
    return out


def training_files(run: Scored) -> frozenset[str]:
    """Return the hashes of the files that a run was trained on."""
    return frozenset(run.contents("train"))


def member(name: str, run: Scored, shared: set[tuple[str, int]] | None) -> compare.Member:
    """Return what the page says of a run."""
    artifact, results, own = run.artifact, run.results, run.metrics["test"]
    shortcuts = files.read_json(results.shortcuts, (), "delete it.") if results.shortcuts.exists() else {}
    swept = results.folder / "evaluations" / "own_test" / artifact.metrics.name
    again = files.read_json(swept, (), "delete its folder.") if swept.exists() else {}
    kept = pd.read_csv(artifact.history)["epoch"].max() if artifact.history.exists() else None
    spent = {**cost.read(artifact), "parameters": cost.count_parameters(artifact.model),
             **({"epochs": int(kept)} if kept and kept == kept else {}),
             **({"bytes": artifact.model.stat().st_size} if artifact.model.exists() else {})}  # fmt: skip
    flat = tables.flatten(config.sections(run.run))
    return compare.Member(
        name=name, facts=facts(run), grade=advice.grade(Report(name, run.metrics, shortcuts=shortcuts)), own=own,
        shared=None if shared is None else metrics.summarise(run.rows(shared), own["threshold"]),
        shortcuts=shortcuts, robustness={**run.metrics.get("robustness", {}), **again.get("robustness", {})},
        stress=run.metrics.get("stress", {}), cost=spent,
        settings={key: value for key, value in flat if key not in NOT_COMPARED})  # fmt: skip


def facts(run: Scored) -> dict[str, str]:
    """Return what a run is and was trained on."""
    data = run.run.data
    good = run.manifest[run.manifest["error"] == ""] if "error" in run.manifest else run.manifest
    out = {"detector": describe_detector(run.run.detector), "run": str(run.artifact.folder),
           "version": str(versions.number(run.artifact.folder)), "data": str(data.path or "embedded sample"),
           **({} if run.results is run.artifact else {"compared on": str(run.results.folder)})}  # fmt: skip
    for split in ("train", "validation", "test"):
        rows = good[good["split"] == split]
        of_class = {kind: rows[rows["label"].astype(str) == str(label)] for label, kind in enumerate(("real", "fake"))}
        out[f"{split} files"] = ", ".join(f"{len(own):,} {kind}{list_sources(own)}" for kind, own in of_class.items() if len(own))
    return {**out, "threshold by": str(run.metrics.get("threshold_rule", ""))}


def list_sources(rows: pd.DataFrame) -> str:
    """Return the sources of files in brackets; "" if none is given."""
    named = sorted(filter(None, rows["source"].unique()))
    return f" ({', '.join(named)})" if named else ""
