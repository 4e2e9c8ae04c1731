"""predict: verdicts on files and folders."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from tfdetect import artifact as artifacts
from tfdetect import config, models  # noqa: F401  (registers the detectors)
from tfdetect.workflow.console import plural, printable
from tfdetect.workflow.verdicts import PredictData, apply_overrides, expand_paths, format_verdict, load_predictor


@dataclass(frozen=True)
class Predict:
    """Print a verdict for each image and video. Exit code 1 if any file failed."""

    run: tyro.conf.Positional[Path]
    """The run's folder, such as saved_models/cnn."""
    files: tyro.conf.Positional[tuple[Path, ...]]
    """Images, videos, folders of them, and tables that name them in a column path (CSV, .xlsx, Parquet)."""
    data: PredictData = field(default_factory=PredictData)
    json: bool = False
    """A JSON object a line: path, probability, label, score, frames, note, error, source, source_probability, text."""


def main(argv: Sequence[str]) -> int:
    """Parse, find the files, judge them one by one as they are decoded."""
    asked = config.parse_flags(Predict, argv, "predict.py")
    artifact = artifacts.find(asked.run)
    run = apply_overrides(artifacts.load_config(artifact), asked.data)
    paths = expand_paths(asked.files)
    predictor = load_predictor(artifact, run)
    failed = 0
    if not asked.json:
        print(f"{'verdict':8}{'probability':>12}{'score':>9}{'frames':>8}  file")
    for verdict in predictor.predict_files(paths, run.data.timeout, run.data.workers):
        failed += verdict.error is not None
        print(json.dumps(dataclasses.asdict(verdict)) if asked.json else format_verdict(verdict), flush=True)
    if not asked.json:
        print(f"{count(asked.files, paths, failed)}. The threshold is a probability of {predictor.threshold:.3f}.")
    return 1 if failed else 0


def count(given: Sequence[Path], paths: Sequence[Path], failed: int) -> str:
    """12 files: 10 judged, 1 failed, 1 left out (1 .txt): all that lies in the folders given."""
    from tfdetect.data.layouts.tree import left_out

    found: Counter[str] = Counter()
    for folder in filter(Path.is_dir, given):
        found.update(left_out(folder, map(str, paths), ()))
    others = f" ({', '.join(printable(f'{number} {name}') for name, number in found.items())})" if found else ""
    total = len(paths) + found.total()
    return f"{plural(total, 'file')}: {len(paths) - failed:,} judged, {failed} failed, {found.total()} left out{others}"
