"""The model card of a run: README.md in its folder, in the form that the Hugging Face Hub shows and searches."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import pandas as pd

from tfdetect.files import printable, without_folders
from tfdetect.pages import html, summary, tables, verdicts
from tfdetect.pages.advice import grade, unfit_uses
from tfdetect.pages.conclusion import cautions
from tfdetect.pages.content import Report
from tfdetect.pages.markdown import bullets, escape, section, table

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

USE = (
    "It is meant to help a person judge whether an image or a video was recorded, or generated or manipulated. Its verdict is "
    "one piece of evidence beside others, such as where a file comes from, and no proof. It does not judge sound.")  # fmt: skip
LICENCE = (
    "None is stated. Before you publish the model, choose one that the training data and the pretrained weights allow, and add "
    "it to the front matter of this file, such as `license: apache-2.0`.")  # fmt: skip
SCRIPT = re.compile(r"python (?:'[^'\n]*?|\S*?)scripts[\\/](\w+)\.py'?")
TASKS = {False: "image-classification", True: "video-classification"}


def write(path: str | PathLike[str], report: Report) -> None:
    """Write the card of the run that `report` is about; its metrics of the test are required."""
    from huggingface_hub import ModelCard

    blocks = filter(None, (f"---\n{front_matter(report).to_yaml()}\n---", *_blocks(report)))
    text = ModelCard("\n\n".join(blocks) + "\n").content  # reads it as the Hub does
    Path(path).write_text(text, encoding="utf-8", errors="backslashreplace")


def front_matter(report: Report) -> "ModelCardData":
    """Return the keys that the Hub reads; results are those on the test files, and left out if there is no AUC."""
    from huggingface_hub import EvalResult, ModelCardData

    test, detector = report.metrics["test"], report.detector.partition(":")[0]
    # A manifest that is read from its file holds text.
    frames = pd.to_numeric(report.data.get("frames", pd.Series()), errors="coerce") if report.data is not None else pd.Series()
    task = TASKS[bool((frames > 1).any())]
    found = {"roc_auc": ("test AUC", test["auc"]), "accuracy": ("test accuracy", test["accuracy"])}
    results = [EvalResult(task, "custom", data_name(report), kind, round(value, 4), metric_name=name)
               for kind, (name, value) in found.items() if value is not None]  # fmt: skip
    tags = [*dict.fromkeys(("deepfake-detection", "tfdetect", detector))]
    return ModelCardData(library_name="keras", pipeline_tag=task, tags=tags, model_name=report.name, eval_results=results or None)


def data_name(report: Report) -> str:
    """Return the name of the data set without the folders that it lies in, which are nobody's business."""
    data = report.settings.get("data")
    path = data.get("path") if isinstance(data, Mapping) else None
    return PurePath(str(path)).name or "data" if path else "embedded sample"


def _blocks(report: Report) -> Iterator[str]:
    test = report.metrics["test"]
    yield f"# {escape(report.name)}"
    yield escape(report.detector)
    yield f"**{escape(grade(report))}** {escape(summary.lead(report))}"
    yield from section("Intended use", [escape(USE)])
    yield from bullets("Do not use it", unfit_uses(report), level=3)
    caveats = [*report.warnings, *cautions(report.metrics, len(report.failures), report.suspects)]
    yield from bullets("Caveats", anonymous(caveats, () if report.data is None else report.data.get("path", ())), level=3)
    if report.data is not None:
        yield from section("Data", (f"From {escape(data_name(report))}.", table(*tables.data_table(report.data))))
    yield from section("Results", (escape(tables.confusion_sentence(test)), escape(tables.INTERVALS),
                                   table(*tables.metrics_table({"test": test}))))  # fmt: skip
    if test["by_source"]:
        yield from section("Results by source", (escape(tables.SOURCES), table(*tables.sources_table(test))))
    yield from section("Calibration and threshold", [*_calibration(test)])
    yield from section("How to use it", [*_usage()])
    yield from section("Licence", [LICENCE])
    yield from section("Versions", [table(["package", "version"], report.versions.items())])


def anonymous(sentences: Sequence[str], paths: Iterable[str]) -> list[str]:
    """Return sentences that name neither the files of the data set, at `paths`, nor folders: the card is made to be published."""
    text = "\x1e".join(sentences)  # which counts as a space, and stands in no sentence
    for path in sorted({name for own in paths for name in (own, printable(own))}, key=len, reverse=True):
        if path in text:
            text = re.sub(rf"(?<![\w./-]){re.escape(path)}(?![\w/-])", "[a file]", text)
    return without_folders(SCRIPT.sub(r"tfdetect \1", text)).split("\x1e")


def _calibration(test: Mapping[str, Any]) -> Iterator[str]:
    if test["threshold"] is None:
        yield "The scores are not calibrated: they only rank files."
        return
    yield f"Files with a probability of at least {html.plain_cell(test['threshold'])} are called fake."
    if found := test.get("verdicts"):
        yield escape(verdicts.band_sentence(found))
        yield escape(verdicts.method_sentence(found))


def _usage() -> Iterator[str]:
    yield "```\ntfdetect predict THIS_FOLDER FILE\ntfdetect explain THIS_FOLDER FILE\n```"
    yield ("`model.keras` is the Keras model, the numbered folder a SavedModel with the same scores; SERVING.md lists its inputs "
           "and outputs, report.html all results.")  # fmt: skip


def quote(text: str) -> dict[str, str]:
    """Return what a card says in short, by name: how good the detector is ("headline") and its intended use ("use"); without
    those that it lacks, since anyone may have rewritten it."""
    body = text.split("---\n", 2)[-1]
    patterns = {"headline": r"^\*\*(.+?)\*\*", "use": r"^## Intended use\n+(.+)$"}
    found = {name: re.search(pattern, body, re.M) for name, pattern in patterns.items()}
    return {name: re.sub(r"\\(.)", r"\1", match[1]) for name, match in found.items() if match}
