"""predict: classify images and videos as real or fake."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from tfdetect import artifact as artifacts
from tfdetect import config
from tfdetect.api.load import TrainedDetector
from tfdetect.workflow.console import plural, printable
from tfdetect.workflow.verdicts import PredictData, expand_paths, format_verdict


@dataclass(frozen=True)
class Predict:
    """Print a verdict for each image and video. Exit code 1 if any file failed."""

    run: tyro.conf.Positional[Path]
    """Folder of the run, such as saved_models/cnn."""
    files: tyro.conf.Positional[tuple[Path, ...]]
    """Images, videos, folders of them, and tables (CSV, .xlsx, Parquet) with a column path."""
    data: PredictData = field(default_factory=PredictData)
    json: bool = False
    """One JSON object per line: path, probability, label, score, frames, note, error, source, source_probability, text."""


def main(argv: Sequence[str]) -> int:
    """Parse the flags, find the files, and print each verdict as soon as its file is decoded."""
    args = config.parse_flags(Predict, argv, "predict")
    detector = TrainedDetector(artifacts.find(args.run).folder)
    paths = expand_paths(args.files)
    threshold = detector.predictor.threshold
    failed = 0
    if not args.json:
        print(f"{'verdict':8}{'probability':>12}{'score':>9}{'frames':>8}  file")
    for verdict in detector.predict_each(paths, args.data):
        failed += verdict.error is not None
        print(json.dumps(dataclasses.asdict(verdict)) if args.json else format_verdict(verdict), flush=True)
    if not args.json:
        print(f"{summarise(args.files, paths, failed)}. Called fake from a probability of {threshold:.3f}.")
    return 1 if failed else 0


def summarise(given: Sequence[Path], paths: Sequence[Path], failed: int) -> str:
    """Return a line such as "12 files: 10 scored, 1 failed, 1 left out (1 .txt)" that counts every file in the given folders."""
    from tfdetect.data.layouts.tree import count_left_out

    other_files: Counter[str] = Counter()
    for folder in filter(Path.is_dir, given):
        other_files.update(count_left_out(folder, map(str, paths), ()))
    listed = ", ".join(printable(f"{count} {name}") for name, count in other_files.items())
    others = f"{other_files.total()} left out{f' ({listed})' if listed else ''}"
    return f"{plural(len(paths) + other_files.total(), 'file')}: {len(paths) - failed:,} scored, {failed} failed, {others}"
