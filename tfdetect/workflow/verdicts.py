"""What `predict` and `explain` share: finding the files, loading the predictor, and formatting a verdict."""

import hashlib
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from tfdetect import __version__, config, installation, versions
from tfdetect import artifact as artifacts
from tfdetect.errors import UserError
from tfdetect.settings import Data, DecodeOverrides, Run
from tfdetect.verdict_settings import AS_TRAINED, VerdictOverrides
from tfdetect.workflow.console import devices_line, import_keras, print_note, printable, served_devices_line

if TYPE_CHECKING:
    from tfdetect.serving.predictor import Predictor, Verdict

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx", ".parquet")
HEADER = f"{'verdict':12}{'probability':>12}{'score':>9}{'frames':>8}  file"  # of the lines of `format_verdict`


@dataclass(frozen=True)
class PredictData(DecodeOverrides):
    """Limits for decoding files; by default as in training."""

    workers: Annotated[int | None, tyro.conf.arg(aliases=("--workers",))] = None
    """Number of decoding processes; by default as in training."""


@dataclass(frozen=True)
class PredictVerdicts(VerdictOverrides):
    """How scores become verdicts; by default as in training. What is given is fitted to the run's validation files again."""

    any: Annotated[bool, tyro.conf.arg(aliases=("--any",))] = False
    """Give the verdict on files that are unlike the training data, too; they are inconclusive otherwise."""


def load_predictor(artifact: artifacts.Artifact, run: Run, announce: bool = True) -> "Predictor":
    """Return a predictor that decodes files as the run's training did; print its warnings, and with `announce` the device once it
    is loaded. Without, as where several runs are loaded, each warning begins with the name of the run."""
    from tfdetect.serving.predictor import Predictor
    from tfdetect.workflow.dataset import cache_for, with_equalisation

    if not (served := artifact.saved_model.exists()):
        import_keras()

    def announce_device() -> None:
        print_note(served_devices_line() if served else devices_line(run.train.precision))

    spec = with_equalisation(cache_for(run.data, run.detector), artifact).spec
    predictor = Predictor(artifact, spec, run.detector, announce_device if announce else None, run.evaluate.aggregate)
    for warning in predictor.warnings:
        print_note(warning if announce else f"{printable(versions.title(artifact.folder))}: {warning}")
    return predictor


@dataclass(frozen=True)
class PredictSettings:
    """The keywords of the Python calls that predict files."""

    data: DecodeOverrides = field(default_factory=DecodeOverrides)
    evaluate: PredictVerdicts = field(default_factory=PredictVerdicts)


class FileList:
    """The given files, and the images and videos in given folders and tables, in this order.

    Folders are walked anew each time, so that millions of files take no memory; the length is that of the first walk, which also
    counts the other files of the folders. Raises UserError if nothing is given, or a folder or table has no file.
    """

    def __init__(self, given: Sequence[Path]):
        if not given:
            raise UserError("No files given: name images, videos, or folders of them.")
        self.parts: list[Path | list[str]] = []  # a folder, or paths
        self.count, self.left_out = 0, Counter[str]()
        for path in given:
            count, others = self._add(path)
            if not count:
                content = describe_content(path, others)
                raise UserError(f"{path} {'holds' if path.is_dir() else 'lists'} no images or videos{content}.")
            self.count += count
            self.left_out += others

    def _add(self, path: Path) -> tuple[int, Counter[str]]:
        if path.is_dir():
            from tfdetect.data.layouts.tree import count_files

            self.parts.append(path)
            return count_files(path)
        self.parts.append(paths := paths_in_table(path) if path.suffix.lower() in TABLE_SUFFIXES else [str(path)])
        return len(paths), Counter()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Path]:
        for part in self.parts:
            if isinstance(part, list):
                yield from map(Path, part)
            else:
                from tfdetect.data.layouts.tree import walk_media

                yield from walk_media(part)


def paths_in_table(table: Path) -> list[str]:
    """Return the files that a manifest lists, of any split and label; relative paths start at its folder."""
    from tfdetect.data import manifest, tables

    rows = manifest.read_unchecked(table)
    if "path" not in rows:
        raise UserError(f"{table} has no column path; {tables.describe_columns(rows)}.")
    return tables.resolve_paths(table.parent, [path for path in rows["path"] if path])


def describe_content(path: Path, others: Mapping[str, int]) -> str:
    """Return what a folder without images and videos holds, as the end of an error message; "" for a table."""
    if path.is_dir() and (path / config.PREPARED_FILE).exists():
        return f": prepare made it; use {installation.command('evaluate', 'RUN', '--data.path', path)}"
    return f", but {', '.join(f'{count} {name}' for name, count in others.items())}" if others else ""


def table_facts(artifact: artifacts.Artifact, threshold: float) -> dict[str, Any]:
    """Return the columns that all rows of a table of verdicts share; the date is the time at which the command began."""
    date = installation.utc_now()
    return {"run": artifact.folder.resolve().name, "version": __version__, "threshold": threshold, "date": date}


def settings_key(artifact: artifacts.Artifact, data: Data, given: VerdictOverrides = AS_TRAINED) -> str:
    """Return a hash of all that a verdict depends on besides its file: weights, calibration, settings and limits."""
    from tfdetect.data.media.read import READER_VERSION

    weights = artifact.saved_model / "variables" / "variables.index"  # holds a checksum of each variable
    if weights.exists():
        parts = [weights.read_bytes()]
    else:
        with zipfile.ZipFile(artifact.model) as archive:
            parts = [f"{member.filename} {member.CRC}".encode() for member in archive.infolist()]
    settings = (artifact.config, artifact.calibration, artifact.equalisation_plan, artifact.face_model, artifact.familiarity)
    parts += [path.read_bytes() for path in settings if path.exists()]
    parts += [repr((READER_VERSION, data.timeout, data.limits, data.decoding)).encode()]
    if given.changes_verdicts:
        parts += [repr(given).encode()]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def format_verdict(verdict: "Verdict") -> str:
    """Return a verdict as a line of the table."""
    if verdict.error is not None:
        return f"{'failed':12}{'':12}{'':9}{'':8}  {printable(verdict.path)}: {verdict.error}"
    notes = ", ".join(filter(None, (verdict.unfamiliar_reason, verdict.note)))
    note = f"  ({notes})" if notes else ""
    source = f"  most likely {verdict.source} ({verdict.source_probability:.2f})" if verdict.source else ""
    numbers = f"{verdict.verdict or verdict.label:12}{verdict.probability:12.3f}{verdict.score:9.3f}{verdict.frames:8d}"
    lines = [f"  face {face['face']:<5}{face['probability']:12.3f}{face['score']:9.3f}{'':8}    {describe_place(face)}"
             for face in verdict.faces or ()]  # fmt: skip
    return "\n".join([f"{numbers}  {printable(verdict.path)}{source}{note}", *lines])


def describe_place(face: Mapping[str, Any]) -> str:
    """Return where a face of `Verdict.faces` is."""
    left, top, width, height = face["box"]
    return f"{width} x {height} pixels at {left}, {top}" + (f" of frame {face['box_frame']}" if face["box_frame"] else "")
