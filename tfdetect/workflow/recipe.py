"""A recipe's published figures beside those of a finished run, and what differs between the two protocols."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfdetect import config, models
from tfdetect.artifact import Artifact, load_calibration
from tfdetect.detector import Detector
from tfdetect.errors import UserError
from tfdetect.evaluation import calibration
from tfdetect.files import read_json
from tfdetect.models.pretrained import presets
from tfdetect.settings import Run

UNKNOWN = "not stated"
METRICS = {"accuracy": "accuracy", "precision": "per_class.fake.precision", "recall": "per_class.fake.recall",
           "real_precision": "per_class.real.precision", "real_recall": "per_class.real.recall", "real_f1": "per_class.real.f1",
           "loss": "log_loss", "auc": "auc", "ap": "ap", "source_accuracy": "attribution.accuracy"}  # fmt: skip
DECIDED = {"accuracy", "precision", "recall", "real_precision", "real_recall", "real_f1"}  # at a threshold
FIGURE = re.compile(rf"(?P<split>validation|test)_(?P<frame>frame_)?(?P<metric>{'|'.join(METRICS)})")
ALWAYS = ("data", "files", "size", "epochs", "seed", "split", "measured_on")  # said of each side, known or not
SOMETIMES = ("frames", "faces", "batch", "parameters", "weights", "augment", "backend", "threshold", "loss")
JUDGED = {"validation": "validation files, which also chose epoch and threshold", "test": "test files, which chose nothing"}
POOLED = {"validation": "validation files, which also chose the epoch", "test": "test files, which chose the threshold"}
PARTS = {"title", "source", "protocol", "notes", "by_source"}  # of `published:`; all else there is a figure


@dataclass(frozen=True)
class Recipe:
    """What a recipe says beyond its run."""

    path: Path
    title: str
    source: str
    figures: Mapping[str, float | None]  # such as {"test_accuracy": 0.84}, over all files; None: ours alone is shown
    by_source: Mapping[str, Mapping[str, float | None]]  # the same of each source's files, or of "dalle + laion"
    protocol: Mapping[str, Any]  # how the figures came about, by the names of ALWAYS and SOMETIMES
    dataset: Mapping[str, str]  # name, where, layout
    notes: tuple[str, ...] = field(default=())

    @property
    def names(self) -> list[str]:
        """Its figures, each once."""
        return list(dict.fromkeys([*self.figures, *(name for row in self.by_source.values() for name in row)]))


def read(path: Path) -> Recipe:
    """The recipe in a YAML. ValueError where it is none, or holds what this module does not know."""
    import yaml

    config.read(path)  # it is a run's YAML, too
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        said = dict(tree["published"])
        figures = {name: value for name, value in said.items() if name not in PARTS}
        dataset = {name: tree["dataset"][name] for name in ("name", "where", "layout")}
        recipe = Recipe(path, said["title"], said["source"], figures, dict(said.get("by_source", {})),
                        dict(said["protocol"]), dataset, tuple(said.get("notes", ())))  # fmt: skip
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is no recipe: it needs published: (title, source, figures, protocol) and dataset: (name, "
                         f"where, layout), as docs/recipes.md shows; it lacks {error}.") from error  # fmt: skip
    strange = [name for name in recipe.names if not FIGURE.fullmatch(name)]
    strange += sorted({*recipe.protocol} - {*ALWAYS, *SOMETIMES})
    if strange:
        raise UserError(f"{path}: {', '.join(strange)} is unknown. Figures are called test_accuracy, validation_auc, "
                         f"test_frame_ap and the like; the protocol's parts {', '.join((*ALWAYS, *SOMETIMES))}.")  # fmt: skip
    return recipe


def compare(recipe: Recipe, run: Run, artifact: Artifact) -> dict[str, Any]:
    """What comparison.json holds: pairs of rows, of all files and of each source, and what differs."""
    stand_in = run.data.path is None
    where = "measured on the stand-in" if stand_in else "measured"
    where += f"; {calibration.SEEN}" if calibration.pooled(run.train.threshold) else ""
    rows = pair(recipe, recipe.figures, ours(recipe, artifact), where)
    for source, figures in recipe.by_source.items():
        rows += pair(recipe, figures, ours(recipe, artifact, source), where, f", {source}")
    sides = protocol(recipe, run, artifact)
    return {
        "recipe": recipe.path.stem,
        "title": recipe.title,
        "source": recipe.source,
        "stand_in": stand_in,
        "rows": rows,
        "differences": [row for row in sides if str(row["published"]) != str(row["ours"])],
        "same": [row["what"] for row in sides if str(row["published"]) == str(row["ours"])],
        "notes": list(recipe.notes),
        "warnings": [*calibration.warnings(run.train.threshold), *run.detector.warnings()],
    }


def pair(recipe: Recipe, published: Mapping[str, float | None], found: Mapping[str, Any], where: str,
         what: str = "") -> list[dict[str, Any]]:
    """The published row and ours, of the same columns; where nothing was published, ours alone."""
    theirs = {"row": f"published{what}: not measured here", **{name: published.get(name) for name in recipe.names}}
    there = any(value is not None for value in published.values())
    return [*([theirs] if there else []), {"row": f"ours{what}: {where}", **found}]


def parts(recipe: Recipe) -> list[re.Match[str]]:
    """Split, frame and metric of each figure's name; `read` has seen to it that all have them."""
    return [part for part in map(FIGURE.fullmatch, recipe.names) if part]


def ours(recipe: Recipe, artifact: Artifact, source: str | None = None) -> dict[str, Any]:
    """Our value of each of the recipe's figures, over all files or those of one source; None where there is none."""
    found = read_json(artifact.metrics, (), "python scripts/evaluate.py judges the run again.")
    if source is not None:
        found = {split: of_source(artifact, split, source, found[split].get("threshold")) for split in JUDGED if split in found}
    out = {}
    for name, part in zip(recipe.names, parts(recipe), strict=True):
        out[name] = found.get(part["split"], {})
        for key in [*(["by_frame"] if part["frame"] else []), *METRICS[part["metric"]].split(".")]:
            out[name] = (out[name] or {}).get(key)
    return out


def of_source(artifact: Artifact, split: str, source: str, threshold: float | None) -> dict[str, Any]:
    """The metrics of the own reals and fakes of a source, or of several with " + " between; `metrics.by_source` would take all
    reals. {} where a class is missing: an accuracy of fakes alone is another figure."""
    from tfdetect.evaluation import metrics, predictions

    table = predictions.read(artifact.predictions)
    rows = table[(table["split"] == split) & table["source"].isin(source.split(" + "))]
    return metrics.summary(rows, threshold) if rows["label"].nunique() == 2 else {}


def protocol(recipe: Recipe, run: Run, artifact: Artifact) -> list[dict[str, Any]]:
    """What each side says of how its figures came about."""
    asked = worth_saying(recipe, run)
    here = {**of_run(recipe, run), **of_files(run, artifact)}
    if "parameters" in asked:
        here["parameters"] = parameters(artifact)
    return [{"what": words(name), "published": recipe.protocol.get(name, UNKNOWN), "ours": here[name]} for name in asked]


def worth_saying(recipe: Recipe, run: Run) -> list[str]:
    """The parts of the protocol that both sides are asked for."""
    metrics = {part["metric"] for part in parts(recipe)}
    pretrained = hasattr(run.detector, "weights") or hasattr(run.detector, "preset")
    also = {"loss": "loss" in metrics, "threshold": metrics & DECIDED, "weights": pretrained}
    return [*ALWAYS, *(name for name in SOMETIMES if name in recipe.protocol or also.get(name))]


def of_run(recipe: Recipe, run: Run) -> dict[str, Any]:
    """Our protocol, as far as settings tell it."""
    kind = "videos" if run.detector.input_kind == "clip" else "images"
    splits = dict.fromkeys(part["split"] for part in parts(recipe))
    judged = POOLED if calibration.pooled(run.train.threshold) else JUDGED
    return {
        "data": str(run.data.path or f"the stand-in: the embedded sample of {kind}, drawn by code"),
        "size": run.data.size,
        "frames": run.data.frames,
        "faces": run.data.faces,
        "seed": run.train.seed,
        "split": "the data set's own where it has one, else 70, 10 and 20 % by group",
        "batch": run.train.batch,
        "weights": weights(run.detector),
        "augment": getattr(run.train, "augment", None) or "none",
        "loss": "log loss of the calibrated probability, per file",
        "measured_on": "; ".join([*(judged[split] for split in splits), "the saved model, reloaded"]),
    }


def weights(detector: Detector) -> str:
    """What the detector starts from."""
    preset = getattr(detector, "preset", None)
    if preset and presets.is_random(preset):
        return f"{preset}: drawn by chance, untrained"
    return preset or getattr(detector, "weights", None) or "none"


def of_files(run: Run, artifact: Artifact) -> dict[str, Any]:
    """Our protocol, as far as the run's folder tells it."""
    import keras
    import pandas as pd

    table = pd.read_csv(artifact.manifest, dtype=str, keep_default_na=False)
    counts = table[table["error"] == ""]["split"].value_counts()
    splits = ", ".join(f"{counts.get(name, 0)} {name}" for name in ("train", "validation", "test"))
    epochs = len(pd.read_csv(artifact.history))
    return {
        "files": f"{counts.sum()}: {splits}",
        "epochs": f"{epochs} of at most {run.train.epochs}; the best on validation kept" if epochs else "none",
        "backend": keras.config.backend(),
        "threshold": threshold(artifact, run.train.threshold),
    }


def threshold(artifact: Artifact, rule: str) -> str:
    """The rule, and what it came to: as a probability, and in the units of the detector's score, as published ones are."""
    found = load_calibration(artifact)
    return f"{calibration.describe_rule(rule)}: probability {found.threshold:.4g}, score {found.score_threshold:.4g}"


def parameters(artifact: Artifact) -> int:
    """Of the saved model, all of them."""
    return int(models.load(artifact.model).count_params())


def words(name: str) -> str:
    return name.replace("_", " ")


def text(value: Any) -> str:
    """A cell: a figure with three digits, a fourth where there is one, and a dash where there is no figure."""
    if value is None:
        return "-"
    return f"{value:.4f}".removesuffix("0") if isinstance(value, float) else str(value)
