"""predict: classify images and videos as real or fake."""

import dataclasses
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from tfdetect import artifact as artifacts
from tfdetect import config
from tfdetect.errors import UserError
from tfdetect.workflow.console import plural, printable
from tfdetect.workflow.verdicts import FileList, PredictData, format_verdict

if TYPE_CHECKING:
    from tfdetect.api.load import TrainedDetector


@dataclass(frozen=True)
class Predict:
    """Print a verdict for each image and video, or write a table of them. Exit code 1 if any file failed."""

    run: tyro.conf.Positional[Path]
    """Folder of the run, such as saved_models/cnn."""
    files: tyro.conf.Positional[tuple[Path, ...]]
    """Images, videos, folders of them, and tables (CSV, .xlsx, Parquet) with a column path."""
    data: PredictData = field(default_factory=PredictData)
    json: bool = False
    """One JSON object per line: path, probability, label, score, frames, note, error, source, source_probability, text."""
    out: Path | None = None
    """Table to write instead: .parquet, .csv, .jsonl or .xlsx, with the columns of --json, run, version, threshold and date.
    The same command again, also after an interruption, scores only the files that are not in it yet."""

    def __post_init__(self) -> None:
        if self.json and self.out:
            raise UserError("--json prints the verdicts and --out writes them: give one of them.")
        if self.out:
            from tfdetect.workflow import table_formats

            table_formats.by_suffix(self.out)


def main(argv: Sequence[str]) -> int:
    """Parse the flags, find the files, and print or write each verdict as soon as its file is scored."""
    args = config.parse_flags(Predict, argv, "predict")
    artifact = artifacts.find(args.run)
    paths = FileList(args.files)
    from tfdetect.api.load import TrainedDetector

    detector = TrainedDetector(artifact.folder)
    failed = write_table(detector, paths, args) if args.out else print_verdicts(detector, paths, args)
    if not args.json:
        print(f"{summarise(paths, failed)}. Called fake from a probability of {detector.predictor.threshold:.3f}.")
    return 1 if failed else 0


def write_table(detector: "TrainedDetector", paths: FileList, args: Predict) -> int:
    """Write the verdicts to the table --out, and return the number of files that failed."""
    assert args.out is not None
    written = detector.predict_list_to(args.out, paths, args.data)
    print(f"Verdicts  {printable(str(written.path))}")
    return written.failed


def print_verdicts(detector: "TrainedDetector", paths: FileList, args: Predict) -> int:
    """Print each verdict, and return the number of files that failed."""
    failed = 0
    with closing(detector.predict_each(paths, args.data)) as verdicts:
        if not args.json:
            print(f"{'verdict':8}{'probability':>12}{'score':>9}{'frames':>8}  file")
        for verdict in verdicts:
            failed += verdict.error is not None
            print(json.dumps(dataclasses.asdict(verdict)) if args.json else format_verdict(verdict), flush=True)
    return failed


def summarise(paths: FileList, failed: int) -> str:
    """Return a line such as "12 files: 10 scored, 1 failed, 1 left out (1 .txt)" that counts every file in the given folders."""
    listed = ", ".join(printable(f"{count} {name}") for name, count in paths.left_out.items())
    others = f"{paths.left_out.total()} left out{f' ({listed})' if listed else ''}"
    return f"{plural(len(paths) + paths.left_out.total(), 'file')}: {len(paths) - failed:,} scored, {failed} failed, {others}"
