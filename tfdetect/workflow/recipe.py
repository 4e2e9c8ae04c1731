"""Read recipes, and compare their published figures and protocol with those of a finished run."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfdetect import config, installation, models
from tfdetect.artifact import Artifact, load_calibration
from tfdetect.errors import UserError
from tfdetect.evaluation import calibration
from tfdetect.files import read_json
from tfdetect.settings import Run

UNKNOWN = "not stated"
METRICS = {"accuracy": "accuracy", "precision": "per_class.fake.precision", "recall": "per_class.fake.recall",
           "real_precision": "per_class.real.precision", "real_recall": "per_class.real.recall", "real_f1": "per_class.real.f1",
           "loss": "log_loss", "auc": "auc", "ap": "ap", "source_accuracy": "attribution.accuracy"}  # fmt: skip
AT_THRESHOLD = {"accuracy", "precision", "recall", "real_precision", "real_recall", "real_f1"}  # metrics that depend on it
FIGURE = re.compile(rf"(?P<split>validation|test)_(?P<frame>frame_)?(?P<metric>{'|'.join(METRICS)})")
ALWAYS = ("data", "files", "size", "epochs", "seed", "split", "measured_on")  # protocol items that are compared even if unknown
OPTIONAL = ("frames", "faces", "batch", "parameters", "weights", "augment", "backend", "threshold", "loss")
MEASURED_ON = {"validation": "validation files, which also chose epoch and threshold",
               "test": "test files, which were used for no choice"}  # fmt: skip
MEASURED_ON_POOLED = {"validation": "validation files, which also chose the epoch",
                      "test": "test files, which chose the threshold"}  # fmt: skip
NOT_FIGURES = {"title", "source", "protocol", "notes", "by_source"}  # keys of `published:`; all others are figures


@dataclass(frozen=True)
class Recipe:
    """What a recipe's YAML says besides the settings of its run."""

    path: Path
    title: str
    source: str
    figures: Mapping[str, float | None]  # such as {"test_accuracy": 0.84}, over all files; None: only ours is shown
    by_source: Mapping[str, Mapping[str, float | None]]  # the same per source, or per group of sources such as "dalle + laion"
    protocol: Mapping[str, Any]  # how the figures were measured; keys are in ALWAYS or OPTIONAL
    dataset: Mapping[str, str]  # name, where, layout
    notes: tuple[str, ...] = field(default=())

    @property
    def names(self) -> list[str]:
        """Names of all figures, without duplicates."""
        return list(dict.fromkeys([*self.figures, *(name for row in self.by_source.values() for name in row)]))


def read(path: Path) -> Recipe:
    """Read a recipe from a YAML file. Raises UserError if keys are missing or unknown."""
    import yaml

    config.read_yaml(path)  # a recipe is a run's YAML as well
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        published = dict(tree["published"])
        figures = {name: value for name, value in published.items() if name not in NOT_FIGURES}
        dataset = {name: tree["dataset"][name] for name in ("name", "where", "layout")}
        recipe = Recipe(path, published["title"], published["source"], figures, dict(published.get("by_source", {})),
                        dict(published["protocol"]), dataset, tuple(published.get("notes", ())))  # fmt: skip
    except (KeyError, TypeError) as error:
        guide = installation.page("recipes.md")
        raise UserError(f"{path} is not a recipe: {error} is missing. A recipe needs published: (title, source, figures, "
                        f"protocol) and dataset: (name, where, layout); see {guide}.") from error  # fmt: skip
    unknown = [name for name in recipe.names if not FIGURE.fullmatch(name)]
    unknown += sorted({*recipe.protocol} - {*ALWAYS, *OPTIONAL})
    if unknown:
        raise UserError(f"{path}: unknown {', '.join(unknown)}. Figures have names such as test_accuracy, validation_auc or "
                        f"test_frame_ap; the protocol may hold {', '.join((*ALWAYS, *OPTIONAL))}.")  # fmt: skip
    return recipe


def compare(recipe: Recipe, run: Run, artifact: Artifact) -> dict[str, Any]:
    """Return the content of comparison.json: figures over all files and per source, and the differences of the protocols."""
    stand_in = run.data.path is None
    where = "measured on the stand-in" if stand_in else "measured"
    where += f"; {calibration.TEST_SEEN_NOTE}" if calibration.is_pooled(run.train.threshold) else ""
    rows = compare_figures(recipe, recipe.figures, measured_figures(recipe, artifact), where)
    for source, figures in recipe.by_source.items():
        rows += compare_figures(recipe, figures, measured_figures(recipe, artifact, source), where, f", {source}")
    protocol = compare_protocols(recipe, run, artifact)
    return {
        "recipe": recipe.path.stem,
        "title": recipe.title,
        "source": recipe.source,
        "stand_in": stand_in,
        "rows": rows,
        "differences": [row for row in protocol if str(row["published"]) != str(row["ours"])],
        "same": [row["what"] for row in protocol if str(row["published"]) == str(row["ours"])],
        "notes": list(recipe.notes),
        "warnings": [*calibration.rule_warnings(run.train.threshold), *run.detector.warnings()],
    }


def compare_figures(recipe: Recipe, published: Mapping[str, float | None], measured: Mapping[str, Any], where: str,
                    suffix: str = "") -> list[dict[str, Any]]:
    """Return the published row, unless nothing was published, and ours, with the same columns."""
    theirs = {"row": f"published{suffix}: not measured here", **{name: published.get(name) for name in recipe.names}}
    has_published = any(value is not None for value in published.values())
    return [*([theirs] if has_published else []), {"row": f"ours{suffix}: {where}", **measured}]


def parse_figures(recipe: Recipe) -> list[re.Match[str]]:
    """Return split, frame and metric of each figure's name; `read` has checked that all names match."""
    return [match for match in map(FIGURE.fullmatch, recipe.names) if match]


def measured_figures(recipe: Recipe, artifact: Artifact, source: str | None = None) -> dict[str, Any]:
    """Return our value of each of the recipe's figures, over all files or those of one source; None where it is undefined."""
    metrics = read_json(artifact.metrics, (), f"{installation.command('evaluate', artifact.folder)} evaluates it again.")
    if source is not None:
        metrics = {split: source_metrics(artifact, split, source, metrics[split].get("threshold"))
                   for split in MEASURED_ON if split in metrics}  # fmt: skip
    out = {}
    for name, figure in zip(recipe.names, parse_figures(recipe), strict=True):
        out[name] = metrics.get(figure["split"], {})
        for key in [*(["by_frame"] if figure["frame"] else []), *METRICS[figure["metric"]].split(".")]:
            out[name] = (out[name] or {}).get(key)
    return out


def source_metrics(artifact: Artifact, split: str, source: str, threshold: float | None) -> dict[str, Any]:
    """Return the metrics over the reals and fakes of a source, or of several joined by " + ".

    `metrics.by_source` would compare its fakes with all reals. Return {} if it has one class only: the accuracy on fakes alone is
    another figure.
    """
    from tfdetect.evaluation import metrics, predictions

    table = predictions.read(artifact.predictions)
    rows = table[(table["split"] == split) & table["source"].isin(source.split(" + "))]
    return metrics.summarise(rows, threshold) if rows["label"].nunique() == 2 else {}


def compare_protocols(recipe: Recipe, run: Run, artifact: Artifact) -> list[dict[str, Any]]:
    """Return, for each protocol item, what was published and what holds for our run."""
    items = protocol_items(recipe, run)
    ours = {**protocol_of_settings(recipe, run), **protocol_of_artifact(run, artifact)}
    if "parameters" in items:
        ours["parameters"] = count_parameters(artifact)
    return [{"what": readable(name), "published": recipe.protocol.get(name, UNKNOWN), "ours": ours[name]} for name in items]


def protocol_items(recipe: Recipe, run: Run) -> list[str]:
    """Return the names of the protocol items to compare: those of ALWAYS, and the optional ones that matter for this recipe."""
    metrics = {figure["metric"] for figure in parse_figures(recipe)}
    relevant = {"loss": "loss" in metrics, "threshold": metrics & AT_THRESHOLD,
                "weights": run.detector.initial_weights is not None}  # fmt: skip
    return [*ALWAYS, *(name for name in OPTIONAL if name in recipe.protocol or relevant.get(name))]


def protocol_of_settings(recipe: Recipe, run: Run) -> dict[str, Any]:
    """Return the items of our protocol that follow from the settings."""
    kind = "videos" if run.detector.input_kind == "clip" else "images"
    splits = dict.fromkeys(figure["split"] for figure in parse_figures(recipe))
    measured_on = MEASURED_ON_POOLED if calibration.is_pooled(run.train.threshold) else MEASURED_ON
    return {
        "data": str(run.data.path or f"the stand-in: the embedded sample of generated {kind}"),
        "size": run.data.size,
        "frames": run.data.frames,
        "faces": run.data.faces,
        "seed": run.train.seed,
        "split": "the data set's own if it has one, else 70, 10 and 20 % by group",
        "batch": run.train.batch,
        "weights": run.detector.initial_weights or "none",
        "augment": run.train.augment or "none",
        "loss": "log loss of the calibrated probability, per file",
        "measured_on": "; ".join([*(measured_on[split] for split in splits), "the saved model, reloaded"]),
    }


def protocol_of_artifact(run: Run, artifact: Artifact) -> dict[str, Any]:
    """Return the items of our protocol that are read from the run's folder."""
    import keras
    import pandas as pd

    table = pd.read_csv(artifact.manifest, dtype=str, keep_default_na=False)
    counts = table[table["error"] == ""]["split"].value_counts()
    splits = ", ".join(f"{counts.get(name, 0)} {name}" for name in ("train", "validation", "test"))
    epochs = len(pd.read_csv(artifact.history))
    return {
        "files": f"{counts.sum()}: {splits}",
        "epochs": f"{epochs} of at most {run.train.epochs}; the best on validation is kept" if epochs else "none",
        "backend": keras.config.backend(),
        "threshold": describe_threshold(artifact, run.train.threshold),
    }


def describe_threshold(artifact: Artifact, rule: str) -> str:
    """Return the rule and its threshold, as a probability and as a score of the detector, since published ones are scores."""
    fitted = load_calibration(artifact)
    return f"{calibration.describe_rule(rule)}: probability {fitted.threshold:.4g}, score {fitted.score_threshold:.4g}"


def count_parameters(artifact: Artifact) -> int:
    """Return the number of all parameters of the saved model."""
    return int(models.load(artifact.model).count_params())


def readable(name: str) -> str:
    """Return a key as words."""
    return name.replace("_", " ")


def format_cell(value: Any) -> str:
    """Return a table cell: a float with three or four decimals, "-" for None."""
    if value is None:
        return "-"
    return f"{value:.4f}".removesuffix("0") if isinstance(value, float) else str(value)
