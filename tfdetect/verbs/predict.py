"""predict: classify images and videos as real or fake."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from tfdetect import artifact as artifacts
from tfdetect import config, installation
from tfdetect.errors import UserError
from tfdetect.evaluation import aggregation
from tfdetect.settings import DaskSettings
from tfdetect.workflow.console import plural, printable
from tfdetect.workflow.profile import profiled
from tfdetect.workflow.verdicts import HEADER, FileList, PredictData, PredictVerdicts, format_verdict

if TYPE_CHECKING:
    from tfdetect.api.load import TrainedDetector
    from tfdetect.evaluation.calibration import Calibration
    from tfdetect.serving.verdict import Verdict
    from tfdetect.workflow.elsewhere import Elsewhere


@dataclass(frozen=True)
class Predict:
    """Print a verdict for each image and video, or write a table of them. Exit code 1 if any file failed."""

    run: tyro.conf.Positional[Path]
    """Folder of the run, such as saved_models/cnn."""
    files: tyro.conf.Positional[tuple[Path, ...]]
    """Images, videos, folders of them, and tables (CSV, .xlsx, Parquet) with a column path."""
    data: PredictData = field(default_factory=PredictData)
    evaluate: PredictVerdicts = field(default_factory=PredictVerdicts)
    json: bool = False
    """One JSON object per line.
    It holds path, probability, label, score, frames, note, error, source, source_probability, text, verdict, familiarity,
    unfamiliar, unfamiliar_reason and faces."""
    out: Path | None = None
    """Table to write instead: .parquet, .csv, .jsonl or .xlsx, with the columns of --json, run, version, threshold and date.
    The same command again, also after an interruption, scores only the files that are not in it yet."""
    case: Path | None = None
    """Page (.html) to write about at most 20 files, for printing and filing, with the same as JSON beside it (docs/case.md).
    It shows origin, verdict, what it rests on and how it holds. More run folders before the files judge them side by side."""
    profile: bool = False
    """Print where the time went, and write a profile for TensorBoard into the run's folder logs/."""
    runner: str = "local"
    """Where files are decoded and scored.
    local: this machine.
    dask: a Dask cluster (docs/cluster.md).
    beam: Apache Beam on this machine.
    NAME: a Beam runner such as FlinkRunner, which receives all unknown flags."""
    dask: DaskSettings = field(default_factory=DaskSettings)
    trust: bool = False
    """Use a run even if its files differ from its SHA256SUMS."""

    def __post_init__(self) -> None:
        self.dask.require_runner(self.runner)
        if self.profile and self.runner != "local":
            raise UserError(f"--profile measures this machine: it needs --runner local, got --runner {self.runner}.")
        if self.json and self.out:
            raise UserError("--json prints the verdicts and --out writes them: give one of them.")
        if self.case and (self.json or self.out or self.profile or self.runner != "local"):
            raise UserError("--case writes a page and JSON on this machine: leave out --json, --out, --profile and --runner.")
        if self.out:
            from tfdetect.workflow import table_formats

            table_formats.by_suffix(self.out)


def main(argv: Sequence[str]) -> int:
    """Parse the flags, find the files, and print or write each verdict as soon as its file is scored."""
    args, beam_options = config.parse_flags(Predict, argv, "predict", unknown=True)
    if beam_options and args.runner in ("local", "dask"):
        config.parse_flags(Predict, argv, "predict")  # exits with a message about the unknown flags
    artifact = artifacts.find(args.run, trust=args.trust)
    if args.case:
        return write_case(args)
    if others := [path for path in args.files if artifacts.Artifact(path).config.exists()]:
        raise UserError(f"{others[0]} is a run, not a file to judge: several runs judge files side by side with --case "
                        f"PAGE.html, and {installation.command('evaluate', args.run, others[0])} measures them.")  # fmt: skip
    paths = FileList(args.files)
    from tfdetect.api.load import TrainedDetector

    detector = TrainedDetector(artifact.folder)
    elsewhere = None if args.runner == "local" else runner(args, beam_options)
    with profiled(args.profile, artifact.logs / "predict"):
        failed, unfamiliar = (write_table if args.out else print_verdicts)(detector, paths, args, elsewhere)
    if not args.json:
        print(f"{summarise(paths, failed)}. {describe(detector.deciding(args.evaluate).calibration)}.")
        print(describe_unfamiliar(unfamiliar, len(paths), args.evaluate.any), end="")
        if detector.run.data.faces == "all":
            print(f"The score of a file is {aggregation.describe(detector.run.evaluate.aggregate, True)}.")
    return 1 if failed else 0


def runner(args: Predict, beam_options: Sequence[str]) -> "Elsewhere":
    """Return what scores files with --runner."""
    from tfdetect.workflow import elsewhere

    if args.runner == "dask":
        return partial(elsewhere.on_dask, address=args.dask.address, workers=args.data.workers)
    from tfdetect.data.prepare.beam import LOCAL_RUNNER, BeamRunner
    from tfdetect.workflow.beam_scoring import on_beam

    folder = (args.out.absolute().parent if args.out else Path.cwd()) / ".beam"  # all machines must see it
    beam = BeamRunner(folder, LOCAL_RUNNER if args.runner == "beam" else args.runner, beam_options, verb="predict")
    beam.parse_options()  # before anything is printed
    return partial(on_beam, beam, args.data.workers)


def write_table(detector: "TrainedDetector", paths: FileList, args: Predict,
                elsewhere: "Elsewhere | None") -> tuple[int, Mapping[str, int]]:  # fmt: skip
    """Write the verdicts to the table --out; return the number of files that failed, and of unfamiliar ones, by reason."""
    assert args.out is not None
    written = detector.predict_list_to(args.out, paths, args.data, elsewhere, args.evaluate)
    print(f"Verdicts  {printable(str(written.path))}")
    return written.failed, written.unfamiliar


def print_verdicts(detector: "TrainedDetector", paths: FileList, args: Predict,
                   elsewhere: "Elsewhere | None") -> tuple[int, Mapping[str, int]]:  # fmt: skip
    """Print each verdict; return the same as `write_table`."""
    failed, unfamiliar = 0, Counter[str]()
    with closing(detector.predict_each(paths, args.data, elsewhere=elsewhere, given=args.evaluate)) as verdicts:
        if not args.json:
            print(HEADER)
        for verdict in verdicts:
            failed += verdict.error is not None
            unfamiliar.update([verdict.unfamiliar_reason] if verdict.unfamiliar_reason else [])
            print(json.dumps(dataclasses.asdict(verdict)) if args.json else format_verdict(verdict), flush=True)
    return failed, unfamiliar


def describe_unfamiliar(reasons: Mapping[str, int], files: int, any_file: bool) -> str:
    """Return a line on how many files are unlike the training data, and why; "" if none is."""
    if not (count := sum(reasons.values())):
        return ""
    listed = ", ".join(f"{number:,} {reason}" for reason, number in sorted(reasons.items()))
    verb, whose = ("is", "its verdict") if count == 1 else ("are", "their verdicts")
    then = (f"; --any gives {whose} all the same" if any_file else
            f"; {whose.removesuffix('s')} is inconclusive. --any gives it anyway")  # fmt: skip
    return f"{count:,} of {plural(files, 'file')} {verb} unlike the training data ({listed}){then}.\n"


def write_case(args: Predict) -> int:
    """Write the case report, print each verdict, and return the exit code."""
    assert args.case is not None
    more = list(takewhile(lambda path: artifacts.Artifact(path).config.exists(), args.files))
    paths = FileList(args.files[len(more) :])
    from tfdetect.api.load import TrainedDetector

    first, *others = (TrainedDetector(artifacts.find(run, trust=args.trust).folder) for run in (args.run, *more))

    def show(name: str, verdict: "Verdict") -> None:
        print(format_verdict(verdict) + f"  by {printable(name)}" * bool(others), flush=True)

    print(HEADER)
    written = first.write_case(paths, args.case, others, args.data, args.evaluate, show)
    print(f"Case report  {printable(str(written.page))}, {printable(str(written.data))}")
    return 1 if written.failed else 0


def describe(calibration: "Calibration") -> str:
    """Return in words which files are called fake, and which are inconclusive."""
    text = f"Called fake from a probability of {calibration.threshold:.3f}"
    if band := calibration.inconclusive:
        text += f"; inconclusive from {band[0]:.3f} to {band[1]:.3f}"
    if calibration.prevalence:
        text += f". Probabilities hold where {100 * calibration.prevalence:.3g} % of the files are fake"
    return text


def summarise(paths: FileList, failed: int) -> str:
    """Return a line such as "12 files: 10 scored, 1 failed, 1 left out (1 .txt)" that counts every file in the given folders."""
    listed = ", ".join(printable(f"{count} {name}") for name, count in paths.left_out.items())
    others = f"{paths.left_out.total()} left out{f' ({listed})' if listed else ''}"
    return f"{plural(len(paths) + paths.left_out.total(), 'file')}: {len(paths) - failed:,} scored, {failed} failed, {others}"
