"""What `predict` and `explain` share: the files that are named, the predictor that judges them, a verdict on a line."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tfdetect import artifact as artifacts
from tfdetect import config
from tfdetect.errors import UserError
from tfdetect.settings import DecodeOverrides, Run
from tfdetect.workflow.console import devices_line, import_keras, printable

if TYPE_CHECKING:
    from tfdetect.serving.predictor import Predictor

TABLES = (".csv", ".tsv", ".xlsx", ".parquet")


@dataclass(frozen=True)
class PredictData(DecodeOverrides):
    """How much work a file may be, and on how many cores; by default as in training."""

    workers: Annotated[int | None, tyro.conf.arg(aliases=("--workers",))] = None
    """Processes that decode; by default one for each core."""


def apply_overrides(run: Run, effort: PredictData) -> Run:
    """The run, at work on other files."""
    return dataclasses.replace(run, data=effort.apply_to(run.data))


def load_predictor(artifact: artifacts.Artifact, run: Run) -> "Predictor":
    """What judges files as the run saw its own; its warnings are said."""
    import_keras()
    print(devices_line(run.train.precision), file=sys.stderr)
    from tfdetect.serving.predictor import Predictor
    from tfdetect.workflow.dataset import cache_for, with_equalisation

    predictor = Predictor(artifact, with_equalisation(cache_for(run.data, run.detector), artifact).spec, run.detector)
    for warning in predictor.warnings:
        print(warning, file=sys.stderr)
    return predictor


def expand_paths(given: Sequence[Path]) -> list[Path]:
    """The files given, and the images and videos in the folders and tables given. ValueError for none, or an empty one."""
    from tfdetect.data.layouts.detect import walk

    if not given:
        raise UserError("No file came; name images, videos, or folders of them.")
    out: list[Path] = []
    for path in given:
        inside = list(walk(path)) if path.is_dir() else paths_in_table(path) if path.suffix.lower() in TABLES else [path]
        if not inside:
            raise UserError(f"{path} {'holds' if path.is_dir() else 'names'} no image or video{others(path)}.")
        out += inside
    return out


def paths_in_table(table: Path) -> list[Path]:
    """The files that a manifest names, of any split and label; those names start at its folder."""
    from tfdetect.data import manifest, tables

    rows = manifest.raw(table)
    if "path" not in rows:
        raise UserError(f"{table} has no column path; {tables.held(rows)}.")
    return list(map(Path, tables.located(table.parent, [path for path in rows["path"] if path])))


def others(folder: Path) -> str:
    """What a folder without media holds."""
    from tfdetect.data.layouts.tree import left_out

    if not folder.is_dir():
        return ""
    if (folder / config.PREPARED_FILE).exists():
        return f": prepare made it, and evaluate.py RUN --data.path {folder} judges it"
    found = ", ".join(f"{number} {name}" for name, number in left_out(folder, (), ()).items())
    return f", but {found}" if found else ""


def format_verdict(verdict) -> str:
    """A line of the table."""
    if verdict.error is not None:
        return f"{'failed':8}{'':12}{'':9}{'':8}  {printable(verdict.path)}: {verdict.error}"
    note = f"  ({verdict.note})" if verdict.note else ""
    source = f"  most likely {verdict.source} ({verdict.source_probability:.2f})" if verdict.source else ""
    numbers = f"{verdict.label:8}{verdict.probability:12.3f}{verdict.score:9.3f}{verdict.frames:8d}"
    return f"{numbers}  {printable(verdict.path)}{source}{note}"
