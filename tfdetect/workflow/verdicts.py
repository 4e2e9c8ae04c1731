"""What `predict` and `explain` share: finding the files, loading the predictor, and formatting a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tfdetect import artifact as artifacts
from tfdetect import config, installation
from tfdetect.errors import UserError
from tfdetect.settings import DecodeOverrides, Run
from tfdetect.workflow.console import devices_line, import_keras, print_note, printable

if TYPE_CHECKING:
    from tfdetect.serving.predictor import Predictor, Verdict

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx", ".parquet")


@dataclass(frozen=True)
class PredictData(DecodeOverrides):
    """Limits for decoding files; by default as in training."""

    workers: Annotated[int | None, tyro.conf.arg(aliases=("--workers",))] = None
    """Number of decoding processes; by default as in training."""


def load_predictor(artifact: artifacts.Artifact, run: Run) -> "Predictor":
    """Return a predictor that decodes files as the run's training did; print the device and its warnings."""
    import_keras()
    print_note(devices_line(run.train.precision))
    from tfdetect.serving.predictor import Predictor
    from tfdetect.workflow.dataset import cache_for, with_equalisation

    predictor = Predictor(artifact, with_equalisation(cache_for(run.data, run.detector), artifact).spec, run.detector)
    for warning in predictor.warnings:
        print_note(warning)
    return predictor


def expand_paths(given: Sequence[Path]) -> list[Path]:
    """Return the given files, and the images and videos in given folders and tables. Raises UserError if one of them has none."""
    from tfdetect.data.layouts.tree import walk_media

    if not given:
        raise UserError("No files given: name images, videos, or folders of them.")
    out: list[Path] = []
    for path in given:
        if path.is_dir():
            paths = list(walk_media(path))
        else:
            paths = paths_in_table(path) if path.suffix.lower() in TABLE_SUFFIXES else [path]
        if not paths:
            raise UserError(f"{path} {'holds' if path.is_dir() else 'lists'} no images or videos{describe_content(path)}.")
        out += paths
    return out


def paths_in_table(table: Path) -> list[Path]:
    """Return the files that a manifest lists, of any split and label; relative paths start at its folder."""
    from tfdetect.data import manifest, tables

    rows = manifest.read_unchecked(table)
    if "path" not in rows:
        raise UserError(f"{table} has no column path; {tables.describe_columns(rows)}.")
    return list(map(Path, tables.resolve_paths(table.parent, [path for path in rows["path"] if path])))


def describe_content(folder: Path) -> str:
    """Return what a folder without images and videos holds, as the end of an error message; "" for a table."""
    from tfdetect.data.layouts.tree import count_left_out

    if not folder.is_dir():
        return ""
    if (folder / config.PREPARED_FILE).exists():
        return f": prepare made it; use {installation.command('evaluate', 'RUN', '--data.path', folder)}"
    others = ", ".join(f"{count} {name}" for name, count in count_left_out(folder, (), ()).items())
    return f", but {others}" if others else ""


def format_verdict(verdict: "Verdict") -> str:
    """Return a verdict as a line of the table."""
    if verdict.error is not None:
        return f"{'failed':8}{'':12}{'':9}{'':8}  {printable(verdict.path)}: {verdict.error}"
    note = f"  ({verdict.note})" if verdict.note else ""
    source = f"  most likely {verdict.source} ({verdict.source_probability:.2f})" if verdict.source else ""
    numbers = f"{verdict.label:8}{verdict.probability:12.3f}{verdict.score:9.3f}{verdict.frames:8d}"
    return f"{numbers}  {printable(verdict.path)}{source}{note}"
