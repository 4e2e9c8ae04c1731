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
CLASSES = {"": "per_class.fake", "real_": "per_class.real", "macro_": "macro"}  # macro: the mean over both classes
# Metrics that depend on the threshold, and where the summary of a split has them.
AT_THRESHOLD = {"accuracy": "accuracy"} | {f"{prefix}{name}": f"{place}.{name}" for prefix, place in CLASSES.items()
                                           for name in ("precision", "recall", "f1")}  # fmt: skip
METRICS = AT_THRESHOLD | {"loss": "log_loss", "auc": "auc", "ap": "ap", "source_accuracy": "attribution.accuracy"}
FIGURE = re.compile(rf"(?P<split>train|validation|test)_(?P<frame>frame_)?(?P<metric>{'|'.join(METRICS)})")
FACTS = {
    "first_component": "share of the first principal component, test files",
    "components": "principal components that explain nearly all",
    "best_epoch": "best epoch",
    "fit_loss": "loss in training: training files",
    "fit_validation_loss": "loss in training: validation files",
    "loss_gap": "loss in training: validation minus training files",
    "objective": "loss function",
    "steps": "steps",
    "step_time": "time per step",
    "epoch_time": "time per epoch",
    "total_time": "time in total",
    "speed": "speed",
    "hardware": "hardware",
}  # of `facts:`, with the names that the report shows; of the first six it shows ours as well
ALWAYS = ("data", "files", "size", "epochs", "seed", "split", "measured_on")  # protocol items that are compared even if unknown
OPTIONAL = ("frames", "faces", "batch", "parameters", "weights", "augment", "backend", "threshold", "loss")
MEASURED_ON = {"train": "training files",
               "validation": "validation files, which also chose epoch and threshold",
               "test": "test files, which were used for no choice"}  # fmt: skip
MEASURED_ON_POOLED = MEASURED_ON | {"validation": "validation files, which also chose the epoch",
                                    "test": "test files, which chose the threshold"}  # fmt: skip
NOT_FIGURES = {"title", "source", "protocol", "facts", "notes", "by_source"}  # keys of `published:`; all others are figures
SOURCE_SETTINGS = ("sources", "train_sources", "test_sources")  # of `data:`


@dataclass(frozen=True)
class Recipe:
    """What a recipe's YAML says besides the settings of its run."""

    path: Path
    title: str
    source: str
    figures: Mapping[str, float | None]  # such as {"test_accuracy": 0.84}, over all files; None: only ours is shown
    by_source: Mapping[str, Mapping[str, float | None]]  # the same per source, or per group of sources such as "dalle + laion"
    facts: Mapping[str, Any]  # what else was published about the run, numbers or texts; keys are in FACTS
    protocol: Mapping[str, Any]  # how the figures were measured; keys are in ALWAYS or OPTIONAL
    dataset: Mapping[str, str]  # name, where, layout
    counts: Mapping[str, int]  # numbers of files by split, as far as they were published
    sources: tuple[str, ...]  # of the fakes that the recipe's run uses; () for all
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
        recipe = Recipe(
            path=path,
            title=published["title"],
            source=published["source"],
            figures={name: value for name, value in published.items() if name not in NOT_FIGURES},
            by_source=dict(published.get("by_source", {})),
            facts=dict(published.get("facts", {})),
            protocol=dict(published["protocol"]),
            dataset={name: tree["dataset"][name] for name in ("name", "where", "layout")},
            counts=dict(tree["dataset"].get("counts", {})),
            sources=tuple(source for name in SOURCE_SETTINGS for source in (tree.get("data") or {}).get(name, ())),
            notes=tuple(published.get("notes", ())),
        )
    except (KeyError, TypeError) as error:
        guide = installation.page("recipes.md")
        raise UserError(f"{path} is not a recipe: {error} is missing. A recipe needs published: (title, source, figures, "
                        f"protocol) and dataset: (name, where, layout); see {guide}.") from error  # fmt: skip
    unknown = [name for name in recipe.names if not FIGURE.fullmatch(name)]
    unknown += sorted({*recipe.protocol} - {*ALWAYS, *OPTIONAL}) + sorted({*recipe.facts} - {*FACTS})
    if unknown:
        raise UserError(f"{path}: unknown {', '.join(unknown)}. Figures have names such as test_accuracy, validation_auc or "
                        f"test_frame_ap; the protocol may hold {', '.join((*ALWAYS, *OPTIONAL))}; facts are "
                        f"{', '.join(FACTS)}.")  # fmt: skip
    return recipe


def compare(recipe: Recipe, run: Run, artifact: Artifact) -> dict[str, Any]:
    """Return the content of comparison.json: figures over all files and per source, and the differences of the protocols.

    `rows` has a row for the published figures, one for ours, and two for each source; `figures` has the same with a row for each
    figure, and the facts.
    """
    stand_in = run.data.path is None
    other = "" if stand_in else find_other_data(recipe, run, artifact)
    where = "measured on the stand-in" if stand_in else "measured on other data" if other else "measured"
    where += f"; {calibration.TEST_SEEN_NOTE}" if calibration.is_pooled(run.threshold_rule) else ""
    measured = measured_figures(recipe, artifact)
    rows = compare_figures(recipe, recipe.figures, measured, where)
    figures = list_figures({**dict.fromkeys(recipe.names), **recipe.figures}, measured)
    for source, published in recipe.by_source.items():
        measured = measured_figures(recipe, artifact, source)
        rows += compare_figures(recipe, published, measured, where, f", {source}")
        figures += list_figures(published, measured, f", {source}")
    protocol = compare_protocols(recipe, run, artifact)
    return {
        "recipe": recipe.path.stem,
        "title": recipe.title,
        "source": recipe.source,
        "stand_in": stand_in,
        "other_data": other,
        "where": where,
        "rows": rows,
        "figures": [*figures, *compare_facts(recipe, run, artifact)],
        "differences": [row for row in protocol if str(row["published"]) != str(row["ours"])],
        "same": [row["what"] for row in protocol if str(row["published"]) == str(row["ours"])],
        "notes": list(recipe.notes),
        "warnings": [*calibration.rule_warnings(run.threshold_rule), *run.detector.warnings()],
    }


def compare_figures(recipe: Recipe, published: Mapping[str, float | None], measured: Mapping[str, Any], where: str,
                    suffix: str = "") -> list[dict[str, Any]]:
    """Return the published row, unless nothing was published, and ours, with the same columns."""
    theirs = {"row": f"published{suffix}: not measured here", **{name: published.get(name) for name in recipe.names}}
    has_published = any(value is not None for value in published.values())
    return [*([theirs] if has_published else []), {"row": f"ours{suffix}: {where}", **measured}]


def list_figures(published: Mapping[str, Any], measured: Mapping[str, Any], suffix: str = "") -> list[dict[str, Any]]:
    """Return a row for each published figure, with ours."""
    return [{"figure": readable(name) + suffix, "published": value, "ours": measured[name]} for name, value in published.items()]


def find_other_data(recipe: Recipe, run: Run, artifact: Artifact) -> str:
    """Return what shows that the data are not the published ones; "" if nothing does, which does not prove that they are."""
    import pandas as pd

    table = pd.read_csv(artifact.manifest, dtype=str, keep_default_na=False)
    table = table[table["error"] == ""]
    if recipe.sources and not any(getattr(run.data, name) for name in SOURCE_SETTINGS):
        return f"no fakes of {', '.join(recipe.sources)}"
    named = {part for source in recipe.by_source for part in source.split(" + ")}
    if named and not named & {*table["source"]}:
        return f"none of the sources {', '.join(sorted(named))}"
    ours = table["split"].value_counts()
    differing = [name for name, count in recipe.counts.items() if ours.get(name, 0) != count]
    return "; ".join(f"{ours.get(name, 0):,} {name} files instead of {recipe.counts[name]:,}" for name in differing)


def compare_facts(recipe: Recipe, run: Run, artifact: Artifact) -> list[dict[str, Any]]:
    """Return, for each published fact, what was published and what our run has instead; None for what it does not record."""
    ours = measured_facts(run, artifact) if recipe.facts else {}
    return [{"figure": FACTS[name], "published": value, "ours": ours.get(name)} for name, value in recipe.facts.items()]


def measured_facts(run: Run, artifact: Artifact) -> dict[str, Any]:
    """Return the facts that a run records: principal components of stored features, epochs and losses of the training."""
    import pandas as pd

    from tfdetect.training.callbacks import best_row

    out: dict[str, Any] = {}
    spaces = read_metrics(artifact).get("principal_components", {})
    if found := spaces.get("embedding") or spaces.get("features"):  # the published ones are of the embedding, if there is one
        nearly_all = found["components for 99% of the variance"]
        out |= {"first_component": found["variance share of the first component"],
                "components": nearly_all and f"{nearly_all} for 99 %"}  # fmt: skip
    history = pd.read_csv(artifact.history)
    if {"epoch", "loss", "val_loss"} <= {*history} and len(rows := history.dropna().to_dict("records")):
        best = rows[best_row(rows, run.train.monitor if run.train.monitor in history else "val_loss")]
        out |= {"best_epoch": int(best["epoch"]), "fit_loss": best["loss"], "fit_validation_loss": best["val_loss"],
                "loss_gap": best["val_loss"] - best["loss"]}  # fmt: skip
    return out


def read_metrics(artifact: Artifact) -> dict[str, Any]:
    """Return the content of metrics.json. Raises UserError if it is damaged."""
    return read_json(artifact.metrics, (), f"{installation.command('evaluate', artifact.folder)} evaluates it again.")


def parse_figures(recipe: Recipe) -> list[re.Match[str]]:
    """Return split, frame and metric of each figure's name; `read` has checked that all names match."""
    return [match for match in map(FIGURE.fullmatch, recipe.names) if match]


def measured_figures(recipe: Recipe, artifact: Artifact, source: str | None = None) -> dict[str, Any]:
    """Return our value of each of the recipe's figures, over all files or those of one source; None where it is undefined."""
    metrics = read_metrics(artifact)
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
    relevant = {"loss": "loss" in metrics, "threshold": metrics & {*AT_THRESHOLD},
                "weights": run.detector.initial_weights is not None}  # fmt: skip
    return [*ALWAYS, *(name for name in OPTIONAL if name in recipe.protocol or relevant.get(name))]


def protocol_of_settings(recipe: Recipe, run: Run) -> dict[str, Any]:
    """Return the items of our protocol that follow from the settings."""
    kind = "videos" if run.detector.input_kind == "clip" else "images"
    splits = dict.fromkeys(figure["split"] for figure in parse_figures(recipe))
    measured_on = MEASURED_ON_POOLED if calibration.is_pooled(run.threshold_rule) else MEASURED_ON
    return {
        "data": str(run.data.path or f"the stand-in: the embedded sample of generated {kind}"),
        "size": run.data.size,
        "frames": run.data.frames,
        "faces": run.data.faces,
        "seed": run.train.seed,
        "split": "the data set's own if it has one, else {}, {} and {} % by group".format(*run.data.split.split("/")),
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
        "threshold": describe_threshold(artifact, run.threshold_rule),
    }


def describe_threshold(artifact: Artifact, rule: str) -> str:
    """Return the rule and its threshold, as a probability and as a score of the detector, since published ones are scores."""
    fitted = load_calibration(artifact)
    return f"{calibration.describe_rule(rule)}: probability {fitted.threshold:.4g}, score {fitted.score_threshold:.4g}"


def count_parameters(artifact: Artifact) -> int:
    """Return the number of all parameters of the saved model."""
    return int(models.load(artifact.model).count_params())


def figure_columns(comparison: Mapping[str, Any]) -> dict[str, str]:
    """Return the headings of the columns of `figures`."""
    return {"figure": "", "published": "published: not measured here", "ours": f"ours: {comparison['where']}"}


def data_note(comparison: Mapping[str, Any]) -> str:
    """Return a sentence that says that ours were measured on other data than the published figures; "" if that is not known."""
    if comparison["stand_in"]:
        return "ours on the embedded sample, not on the published data"
    reason = comparison["other_data"]
    return f"the data are not the published ones: {reason}" if reason else ""


def readable(name: str) -> str:
    """Return a key as words."""
    return name.replace("_", " ")


def format_cell(value: Any) -> str:
    """Return a table cell: a float with three or four decimals, "-" for None."""
    if value is None:
        return "-"
    return f"{value:.4f}".removesuffix("0") if isinstance(value, float) else str(value)
