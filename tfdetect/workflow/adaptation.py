"""New versions of a run: the folder in which one is written, the files that it may learn from, and what changed."""

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tfdetect import artifact as artifacts
from tfdetect import config, files, models, versions
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.settings import Run
from tfdetect.workflow import operating_point, overlap
from tfdetect.workflow.console import console, plural, print_columns

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from tfdetect.data.prepare.clip_cache import Cache
    from tfdetect.evaluation.adaptation import Judged
    from tfdetect.evaluation.calibration import Calibration
    from tfdetect.evaluation.familiarity import Familiarity
    from tfdetect.pages.adaptation import Adaptation, Part

ATTEMPTS, PAUSE = 50, 0.1  # seconds: other processes look at the lock of a run for moments


@contextmanager
def adapting(run: Path) -> Iterator[Path]:
    """Create and lock the folder versions/ of a run, so that one process at a time makes a new version; yield it.

    If it is empty at the end, it is deleted. Raises BlockingIOError if another process makes a version.
    """
    folder = run / versions.FOLDER
    folder.mkdir(exist_ok=True)
    with ExitStack() as locks:
        try:
            locks.enter_context(artifacts.lock(Artifact(folder)))
        except BlockingIOError as error:
            raise BlockingIOError(f"Another process is making a new version of {run}; wait until it has finished.") from error
        versions.remove_parts(folder)
        try:
            yield folder
        finally:
            with suppress(OSError):  # it holds versions
                folder.rmdir()


@contextmanager
def new_folder(folder: Path) -> Iterator[Artifact]:
    """Yield a new folder in versions/, to be published; if it is not, it is deleted."""
    part = folder / f"{versions.PART}{time.monotonic_ns()}"
    part.mkdir()
    try:
        yield Artifact(part)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def publish(run: Path, staged: Artifact) -> Artifact:
    """Make a complete version the newest one, print where the versions are, and return the run."""
    with ExitStack() as locks:
        for attempt in range(ATTEMPTS):
            try:
                locks.enter_context(artifacts.lock(Artifact(run)))
                break
            except BlockingIOError:
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(PAUSE)
        before = versions.number(run)
        new = versions.publish(run, staged.folder)
    console.print(f"\nVersion {new.name} of {files.printable(str(run))} is in use; version {before} stays in "
                  f"{files.printable(str(run / versions.FOLDER / str(before)))}")  # fmt: skip
    return Artifact(run)


def write_config(run: Run, staged: Artifact, adapted: dict[str, Any]) -> None:
    """Write the config.yaml of a new version, which says how it came about; `adapted` holds its number as `version`."""
    config.write_yaml(run, staged.config)
    text = staged.config.read_text(encoding="utf-8")
    comment = f"# Version {adapted['version']}: version {adapted['from']} after {adapted['by']} on {adapted['data']}\n"
    block = yaml.safe_dump({"adapted": adapted}, sort_keys=False)
    files.write_bytes(staged.config, f"{comment}{text}{block}".encode())


def leave_out_own(table: "pd.DataFrame", run: Artifact, cache: "Cache", path: Path) -> "tuple[pd.DataFrame, tuple[str, ...]]":
    """Return the decoded table of the data set at `path` without the files that the run was trained or tested on, and sentences
    that count them.

    The test files choose nothing, or later figures on them would say nothing. Raises UserError if no file is left.
    """
    from tfdetect.data import manifest
    from tfdetect.data.prepare.decode import usable_rows

    matches, _, notes = overlap.match_training(table, overlap.Trained(run, artifacts.load_config(run), cache), path)
    rows = manifest.read_unchecked(run.manifest)
    tested = overlap.find_content(table, rows[rows["split"] == "test"]).notna() & ~table.index.isin(matches.index)
    texts = [overlap.describe(matches, len(table), "this run")] if len(matches) else []
    if tested.any():
        texts.append(f"{tested.sum():,} of {plural(len(table), 'file')} are test files of this run, which choose nothing")
    texts = [f"{text}; they are left out here." for text in texts]
    for text in texts:
        console.print(text)
    kept = table[~tested & ~table.index.isin(matches.index)].reset_index(drop=True)
    kept.attrs = {**table.attrs, "left_out": {**table.attrs.get("left_out", {}), "used by the run": len(table) - len(kept)}}
    if usable_rows(kept).empty:
        raise UserError("No file is left: the run was trained or tested on all of them. Give files that it has not seen.")
    return kept, (*notes, *texts)


def flattered(before: Artifact, table: "pd.DataFrame") -> str:
    """Return a sentence if a version was calibrated on some files of a prepared table, else ""."""
    from tfdetect.data import manifest

    if versions.adapted(before.folder).get("by") != "calibrate":
        return ""
    rows = manifest.read_unchecked(before.manifest)
    count = int(table["sha"].isin(set(rows.loc[rows["split"] == "validation", "sha"]) - {""}).sum())
    name = versions.title(before.folder)
    return f" {plural(count, 'file')} calibrated {name} as well, which flatters its figures." if count else ""


def marks(scored: "pd.DataFrame", known: "Familiarity | None") -> "NDArray[np.bool_] | None":
    """Return which files of a table of scores are marked as unlike the training files, in order of first appearance; None if the
    version that scored them cannot tell."""
    from tfdetect.evaluation import predictions
    from tfdetect.evaluation.familiarity import DISTANCES

    if known is None or DISTANCES[0] not in scored:
        return None
    files = predictions.by_file(scored.assign(split="test"))
    return known.reasons(*(files[name] for name in DISTANCES)) != ""


def load_familiarity(artifact: Artifact) -> "Familiarity | None":
    """Return what a version knows of its training files, None if nothing."""
    from tfdetect.evaluation.familiarity import Familiarity

    return Familiarity.load(artifact.familiarity) if artifact.familiarity.exists() else None


def score_rows(artifact: Artifact, run: Run, fitted: "Calibration", rows: "pd.DataFrame", cache: "Cache") -> "pd.DataFrame":
    """Return the scores that the exported model gives the decoded rows, a row per frame as in predictions.csv."""
    from tfdetect.data.prepare.decode import usable_rows
    from tfdetect.workflow import run_evaluation

    predictor = operating_point.judged_predictor(artifact, cache.spec, run.detector, run.evaluate.aggregate, fitted)
    extractor = run_evaluation.feature_extractor(partial(models.load, artifact.model), run.detector, cache)
    features = extractor.of(usable_rows(rows)) if extractor else None
    return run_evaluation.score(predictor, rows, run.detector, cache, features)


def make_part(key: str, name: str, note: str, rows: "pd.DataFrame", before: "Judged", after: "Judged") -> "Part":
    """Return what changed on files with the columns path, label and group; the judgements are in their order."""
    import pandas as pd

    from tfdetect.evaluation.adaptation import compare
    from tfdetect.pages.adaptation import Part

    changes = compare(rows["label"], rows["group"], before, after)
    verdicts = pd.DataFrame({"path": rows["path"].to_numpy(), "label": rows["label"].map({0: "real", 1: "fake"}).to_numpy(),
                             "before": before.verdict, "after": after.verdict})  # fmt: skip
    flips = verdicts[verdicts["before"] != verdicts["after"]].reset_index(drop=True)
    n_fake = int((rows["label"] == 1).sum())
    return Part(key, name, note, len(rows) - n_fake, n_fake, rows["group"].nunique(), changes, flips)


def print_changes(found: "Adaptation") -> None:
    """Print the figures before and after."""
    def cell(value: float | None, interval: list[float] | None) -> str:
        low_high = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
        return "-" if value is None else f"{value:.3f}{low_high}"

    for part in found.parts:
        console.print(f"\n{part.title}")
        rows = [(row[0], cell(*row[1:3]), cell(*row[3:5]), cell(*row[5:7])) for row in part.rows]
        print_columns(("", "before", "after", "difference (95 % interval)"), rows)
        console.print(f"{plural(len(part.flips), 'verdict')} changed")


def without_pooled(run: Run) -> Run:
    """Return the run with a threshold that validation files can choose: recipes may have one that reads the test."""
    from tfdetect.evaluation import calibration

    return replace(run, train=replace(run.train, threshold="youden")) if calibration.is_pooled(run.train.threshold) else run
