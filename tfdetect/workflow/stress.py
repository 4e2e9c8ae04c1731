"""Did a detector learn the forgery, or how the files were made? Its AUC on test files that were compressed, resized or blurred,
and on test files equalised against their shortcuts."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from tfdetect import files, installation
from tfdetect.data import equalise
from tfdetect.data.audit.shortcuts import Shortcuts
from tfdetect.data.input_pipeline import corruptions
from tfdetect.data.input_pipeline.dataset import expand_frames
from tfdetect.data.prepare import decode
from tfdetect.data.prepare.clip_cache import FACES, Cache
from tfdetect.detector import ReportContext
from tfdetect.errors import UserError
from tfdetect.evaluation import metrics, predictions, stability
from tfdetect.pages.conclusion import has_few_groups
from tfdetect.pages.learnt import Learnt, Mistake
from tfdetect.plots.standard import STRESS_NAMES, UNCHANGED, property_name
from tfdetect.serving.predictor import Predictor
from tfdetect.settings import Data, Run
from tfdetect.training.feature_extractor import FeatureExtractor
from tfdetect.workflow import neighbours, scoring
from tfdetect.workflow.console import plural, progress

FILES = 400  # test files by default
# By default, detectors on stored features get fewer, because their large frozen part has to run again for each frame.
FRAMES_FROM_FEATURES, MIN_FILES_FROM_FEATURES = 100, 20
GROUP_SHARE = 20  # no group gives more than one in so many of the files, or few groups would leave no interval
ORDINARY = "jpeg(70)"  # what happens to any file that is shared
KEYS = ("n", "n_real", "n_fake", "n_groups", "auc", "auc_interval")
STABILITY = ("flipped", "flipped_interval", "became_inconclusive", "became_inconclusive_interval")


def plan_study(count: int | None, run: Run, data: Data, context: ReportContext, predictor: Predictor, cache: Cache,
               extractor: FeatureExtractor | None = None) -> Callable[[Shortcuts], Learnt] | None:  # fmt: skip
    """Return the function that studies about `count` test files, by default as many as take little time; None for 0.

    With `extractor`, the features of altered files are stored: for another head on them, the frozen part need not run again.
    """
    if count is None:
        frames = context.files["frames"].mean()
        few = max(int(FRAMES_FROM_FEATURES / frames), MIN_FILES_FROM_FEATURES)
        count = min(few, FILES) if run.detector.caches_features else FILES
    return partial(study, count, run, data, context, predictor, cache, extractor) if count else None


def study(count: int, run: Run, data: Data, context: ReportContext, predictor: Predictor, cache: Cache,
          extractor: FeatureExtractor | None, shortcuts: Shortcuts) -> Learnt:  # fmt: skip
    """Return what about `count` test files say about what the detector learnt, and if it was trained just now, the training files
    nearest to its mistakes. The exported model scores all altered files."""
    split = dict(iter(context.files.groupby("split")))
    sample, scored = sample_files(split["test"], count), context.predictions
    aucs: dict[str, dict[str, Any]] = {}
    equalised: dict[str, Any] = {}
    note = ""
    if sample["label"].nunique() == 2:
        aucs = corrupted_aucs(predictor, sample, scored, cache, extractor)
        equalised, note = equalised_auc(predictor, sample, scored, cache, data, shortcuts)
    mistakes: list[Mistake] = []
    compared = ""
    if "train" in split:
        train = sample_files(split["train"], count)
        mistakes, compared = neighbours.most_wrong(context, cache, predictor.is_frame_detector, train)
    return Learnt(aucs, conclude(aucs, shortcuts), equalised, note, len(split["test"]), mistakes, compared,
                  warnings(aucs, shortcuts, run))  # fmt: skip


def sample_files(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return at most about `count` rows, half of each class, in whole groups except for large ones; the same in each call."""
    shuffled = table.sample(frac=1, random_state=0)
    rows = shuffled.groupby(["label", "group"], sort=False).head(max(count // GROUP_SHARE, 1)).sort_index()
    order, chosen = list(dict.fromkeys(shuffled["group"])), set()
    for _, of_class in rows.groupby("label"):
        sizes = of_class.groupby("group").size().reindex(order).dropna()
        chosen |= set(sizes.index[: max(int((sizes.cumsum() <= count / 2).sum()), 1)])
    return rows[rows["group"].isin(chosen)].reset_index(drop=True)


def summarise(scored: pd.DataFrame) -> dict[str, Any]:
    """Return the numbers of files and the AUC with its interval, under the names of metrics.json."""
    found = metrics.compute_metrics(predictions.by_file(scored), None)
    return {key: found[key] for key in KEYS}


def summarise_altered(before: pd.DataFrame, after: pd.DataFrame, predictor: Predictor) -> dict[str, Any]:
    """Return the same of altered files, and how many verdicts changed: the figures of STABILITY, by `stability.compare`."""
    changed, _ = stability.compare(before, after, predictor.calibration.threshold, predictor.calibration)
    return summarise(after) | {key: changed[key] for key in STABILITY}


def corrupted_aucs(predictor: Predictor, sample: pd.DataFrame, scored: pd.DataFrame, cache: Cache,
                   extractor: FeatureExtractor | None = None) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Return the summary of the sampled files as they are, whose predictions are in `scored`, and after each corruption."""
    before = of_files(scored, sample)
    found = {UNCHANGED: summarise(before)}
    texts = [text for text in STRESS_NAMES if text != UNCHANGED]
    if extractor:
        features = {text: extractor.of_corrupted(sample, text) for text in texts}
        altered = {text: scoring.score_features(predictor, features[text], sample) for text in texts}
        return found | {text: summarise_altered(before, after, predictor) for text, after in altered.items()}
    inputs = len(expand_frames(sample, predictor.is_frame_detector))
    with progress("Scoring after corruptions", len(texts) * inputs, "frames" if predictor.is_frame_detector else "files") as step:
        for text in texts:
            after = scoring.score_with(predictor, sample, cache, corruptions.parse(text), step)
            found[text] = summarise_altered(before, after, predictor)
    return found


def of_files(scored: pd.DataFrame, listed: pd.DataFrame) -> pd.DataFrame:
    """Return the predictions of the test files that a manifest lists."""
    return scored[(scored["split"] == "test") & scored["path"].isin(set(listed["path"]))].reset_index(drop=True)


def equalised_auc(predictor: Predictor, sample: pd.DataFrame, scored: pd.DataFrame, cache: Cache, data: Data,
                  shortcuts: Shortcuts) -> tuple[dict[str, Any], str]:  # fmt: skip
    """Return the summary of the sampled files after `prepare --equalise`, and a sentence that says what was found.

    The summary is {} if there is no shortcut that equalising would remove. "before" holds the summary of the same files as they
    are, "plan" the common crop and encoding.
    """
    if reason := why_not_equalised(sample, cache, shortcuts):
        return {}, reason
    container = [warning for warning in shortcuts.warnings if warning.kind == "container"]
    single = [warning for warning in container if not warning.property.startswith("all")] or container
    names = ", ".join(f"{property_name(warning.property)} (AUC {warning.auc:.2f})" for warning in single[:3])
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = score_equalised(predictor, sample, scored, cache, data, Path(folder))
    except UserError as error:
        return {}, f"The label can be told from {names}, but the test files could not be equalised: {error}"
    return found, (f"The label can be told from {names}. With one crop and encoding for both classes, "
                   f"{plural(found['n'], 'test file')} give {describe(found)}; as they are, {describe(found['before'])}.")


def why_not_equalised(sample: pd.DataFrame, cache: Cache, shortcuts: Shortcuts) -> str:
    """Return why there is nothing to equalise; "" if there is."""
    if not shortcuts.aucs:
        return "Shortcuts were not measured (too few files or groups, or files unavailable), so no test file was equalised."
    if cache.spec.plan or all(map(equalise.find_plan, sample["path"])):
        return "The detector gets equalised test files only: both classes have the same crop and encoding."
    if any(warning.kind == "container" for warning in shortcuts.warnings):
        return ""
    if shortcuts.warnings:
        worst = shortcuts.warnings[0]
        return (f"What the files show tells the label ({property_name(worst.property)}: AUC {worst.auc:.2f}), not their format: "
                "equalising them would change nothing.")  # fmt: skip
    return "No property of the files tells the label, so there is nothing to equalise."


def score_equalised(predictor: Predictor, sample: pd.DataFrame, scored: pd.DataFrame, cache: Cache, data: Data,
                    folder: Path) -> dict[str, Any]:  # fmt: skip
    """Equalise, decode and score the sampled files in a folder. Raises UserError if no file is left."""
    plain, other = sample.drop(columns=[*decode.RESULT_FIELDS, FACES], errors="ignore"), replace(cache, root=folder, kind="npy")
    with progress("Equalising test files", 3 * len(sample)) as step:
        copies = equalise.equalise(plain, folder / "copies", data.workers, step, data.timeout, data.limits,
                                    decoding=data.decoding)  # fmt: skip
        done = copies[copies["error"] == ""].drop(columns="error").reset_index(drop=True)
        rows = decode.usable_rows(decode.prepare(done, other, data.workers, step, data.timeout))
    if rows.empty:
        raise UserError("none is left.")
    with progress("Scoring equalised files", len(expand_frames(rows, predictor.is_frame_detector))) as step:
        found = summarise(scoring.score_with(predictor, rows, other, None, step))
    plan = files.read_json(folder / "copies" / equalise.PLAN_NAME, (), "")
    return {**found, "before": summarise(of_files(scored, rows.assign(path=rows["original"]))), "plan": plan}


def describe(summary: Mapping[str, Any]) -> str:
    """Return an AUC with its interval as text."""
    auc = "no AUC, one class only" if summary["auc"] is None else f"AUC {summary['auc']:.3f}"
    interval = f" ({text})" if (text := metrics.describe_interval(summary)) else ""
    return f"{auc}{interval}"


def limit(shortcuts: Shortcuts) -> tuple[float, str]:
    """Return the AUC that a detector must exceed to prove anything, at least that of chance, and its name."""
    alone = shortcuts.aucs.get("all", 0.5)
    return (alone, f"the {alone:.3f} that file size, format and colour alone reach") if alone > 0.5 else (0.5, "chance")


def conclude(found: Mapping[str, Mapping[str, Any]], shortcuts: Shortcuts) -> str:
    """Return whether the detector is clearly above its shortcuts once the test files are compressed; "" without an interval."""
    row = found.get(ORDINARY, {})
    if not (interval := row.get("auc_interval")) or has_few_groups(row):
        return ""
    least, name = limit(shortcuts)
    return f"After JPEG compression of quality 70, its AUC is {'still' if interval[0] > least else 'not'} clearly above {name}."


def warnings(found: Mapping[str, Mapping[str, Any]], shortcuts: Shortcuts, run: Run) -> tuple[str, ...]:
    """Warn if the detector is better than chance, but falls to its shortcuts once the test files are compressed.

    That is, it is then no longer clearly above them, and either lower than before or on files with a shortcut.
    """
    before, after, (least, name) = found.get(UNCHANGED, {}), found.get(ORDINARY, {}), limit(shortcuts)
    if not before.get("auc_interval") or before["auc_interval"][0] <= 0.5 or after["auc_interval"][0] > least:
        return ()
    if has_few_groups(before):
        return ()
    if after["auc"] >= before["auc_interval"][0] and not shortcuts.warnings:
        return ()
    views = ", with 2 or more --detector.views" if run.detector.caches_features else ""
    augment = f'train with --train.augment "jpeg(30,100,p=0.5)"{views}, and ' if "jpeg" not in run.train.augment else ""
    command = f"{installation.command('prepare', 'DIR', '--out', 'NEW')} --equalise"
    return (f"After JPEG compression of quality 70, the test files give {describe(after)}, not clearly above {name}; before, "
            f"{describe(before)}. The detector may have learnt how the files were made, not the forgery: {augment}give both "
            f"classes the same encoding with {command}.",)  # fmt: skip
