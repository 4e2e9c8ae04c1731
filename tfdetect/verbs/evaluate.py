"""evaluate: judge a run again, or on another data set; or several runs and their mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from tfdetect import artifact as artifacts
from tfdetect import config, corruption_spec, models  # noqa: F401  (registers the detectors)
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.verbs import loading
from tfdetect.verbs.console import console, import_keras


@dataclass(frozen=True)
class Files:
    """Which files."""

    path: Path | None = None
    """Folder or manifest, as for train. Without it, the run's own test files; of several runs those they all have."""
    fake: tuple[str, ...] = ()
    """Names of the class folders that are fake; by default as in training."""
    layout: str = "auto"
    """How the folder is laid out; by default it is recognised."""
    sources: tuple[str, ...] = ()
    """Judge the fakes of these generators or manipulations only, and all reals."""
    group: str = "auto"
    """What belongs together, as for train; the test's interval goes by it."""
    workers: int | None = None
    """Processes that decode; by default one for each core."""
    corrupt: str = ""
    """What the clips go through before they are judged, such as "jpeg(80)" or "blur(2)"; docs/augment.md lists the steps."""

    def __post_init__(self) -> None:
        corruption_spec.check(self.corrupt, "--data.corrupt", labels=False)


@dataclass(frozen=True)
class Evaluate:
    """Judge an exported detector; threshold and calibration stay those of its validation files."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The run's folder, such as saved_models/cnn. Of several, the mean of their probabilities is judged too."""
    data: Files = Files()
    out: Path | None = None
    """Where the report goes; by default evaluations/NAME in the (first) run's folder, which names --data.corrupt too."""


def main(argv: Sequence[str]) -> int:
    """Parse and evaluate."""
    asked = config.arguments(Evaluate, argv, "evaluate.py")
    if not asked.runs:
        raise UserError("No run came; name the folder of one, such as saved_models/cnn, or of several.")
    if len(asked.runs) > 1:
        from tfdetect.verbs import ensemble

        ensemble.evaluate(asked)
        return 0
    artifact = artifacts.find(asked.runs[0])
    run = artifacts.load_config(artifact)
    evaluate(asked, artifact, run)
    return 0


def evaluate(asked: Evaluate, artifact: Artifact, run: config.Run) -> None:
    """Read, decode, leave out what the run was trained on, score, write."""
    import json

    import_keras()
    from tfdetect.data import corruptions
    from tfdetect.data.prepare import usable
    from tfdetect.evaluation import calibration
    from tfdetect.serving.predictor import Predictor
    from tfdetect.verbs import judging

    data = loading.with_path(run.data, asked.data.path, asked.data.fake, asked.data.workers)
    cache = loading.cache_for(data, run.detector)
    table, warnings = unseen(loading.decode(read(asked, artifact, data), data, cache), artifact)
    table, _ = loading.with_kinds(table, run.detector)
    if usable(table).empty:
        raise UserError("No file is left to judge: all of them were used in training or chose the epoch. Give others.")
    loading.say_one_class(usable(table))
    name = asked.data.path.stem if asked.data.path else "own_test"
    chain = corruptions.parse(asked.data.corrupt)
    if chain:
        name = f"{name}-{chain.slug}"
        warnings = (*warnings, f"The clips were corrupted before they were judged: {chain}.")
    target = Artifact(asked.out or artifact.folder / "evaluations" / name)
    target.folder.mkdir(parents=True, exist_ok=True)
    predictor = Predictor(artifact, cache.view, run.detector)
    predicted = judging.score(predictor, table, cache, chain)
    validation = json.loads(artifact.metrics.read_text()).get("validation") if artifact.metrics.exists() else None
    shortcuts = judging.find_shortcuts(table, data)
    rule = run.train.threshold
    others = {"judged": predictor.judged, "threshold_rule": rule, **({"validation": validation} if validation else {})}
    warnings = (*calibration.warnings(rule), *warnings, *predictor.warnings, *loading.cautions(table))
    found = judging.write(target, run, table, predicted, predictor.threshold, cache, warnings=warnings, others=others,
                          shortcuts=shortcuts)  # fmt: skip
    console.print(judging.line("test", found["test"], rule))
    console.print(judging.attribution_line(found["test"]), end="")
    console.print(judging.shortcut_line(shortcuts.aucs))
    console.print(f"\nReport  {target.report}")


def read(asked: Evaluate, artifact: Artifact, data: config.Data):
    """The files to judge: those of a test split where there is one, else all."""
    from tfdetect.data import layouts, manifest

    if asked.data.path is None:
        table = manifest.read(artifact.manifest)
    else:
        table = layouts.read(asked.data.path, data.fake, asked.data.layout, asked.data.sources, asked.data.group)
        loading.say_read(table)
    if (table["split"] == "test").any():
        others = int((table["split"] != "test").sum())
        table = table[table["split"] == "test"]
        table.attrs["left_out"] = {**table.attrs.get("left_out", {}), **({"other splits": others} if others else {})}
    return table.assign(split="test").reset_index(drop=True)


def unseen(table, *runs: Artifact):
    """The table without the files whose bytes were in training or validation of any run, and without others of their groups,
    such as fakes of a source that was left out there; and a warning that counts them."""
    import pandas as pd

    rows = pd.concat(pd.read_csv(run.manifest, dtype=str, keep_default_na=False) for run in runs)
    seen = set(rows[rows["split"] != "test"]["sha"]) - {""}
    known = table["sha"].isin(seen)
    leak = table["group"].isin(table.loc[known, "group"])
    if not leak.any():
        return table, ()
    which = "this run" if len(runs) == 1 else "one of these runs"
    others = f", and {(leak & ~known).sum()} more are of their groups" if (leak & ~known).any() else ""
    text = f"{known.sum()} of {len(table)} files took part in training {which}{others}; they are left out here."
    console.print(text)
    return table[~leak].reset_index(drop=True), (text,)
