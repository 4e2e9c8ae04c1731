"""The files that a run is trained and tested on: read, split, decoded and checked, and stored in its folder."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tfdetect import files
from tfdetect.artifact import Artifact
from tfdetect.settings import Run
from tfdetect.workflow import dataset, fine_tuning, made_fakes, operating_point, overlap, splits
from tfdetect.workflow.console import console

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache

FEW = 5  # validation files of a class below which the choice of the epoch is left to chance


def prepare(run: Run) -> "tuple[Run, pd.DataFrame, Cache]":
    """Read, split and decode the data; return the run with what the data determine, the prepared manifest and the cache."""
    from tfdetect.data.prepare.decode import main_faces, usable_rows

    cache = fine_tuning.cache_of(run)
    table, excluded = dataset.separate_excluded(dataset.load_dataset(run.data, run.detector), cache, run.data.workers)
    given_splits = run.data.fold is None and bool((table["split"] != "").any())
    table, run = splits.assign(table, run)
    table = made_fakes.add_made_fakes(table, run, cache)
    require_classes(table, run)
    table = dataset.add_texts(dataset.decode(table, run.data, cache, excluded), run.detector)
    # The label of a fake file does not say which of its faces is fake, and small faces must not be a sign of real files.
    table = main_faces(fine_tuning.adjust(table, run, cache), "train")
    dataset.print_count(table)
    dataset.require_few_failures(table, run.data.max_failed)
    if run.data.path:  # scenes of the embedded sample look alike by design
        table = overlap.check_splits(table, cache, run, given_splits)
    good = usable_rows(table)
    require_classes(good, run)
    asked = run.evaluate
    validation = good[good["split"] == "validation"]
    operating_point.check(validation, asked.calibration, asked.coverage, asked.prevalence, run.threshold_rule, asked.unfamiliar)
    dataset.print_if_one_class(good)
    for warning in warnings(run, good):
        console.print(warning)
    table, detector = dataset.add_source_classes(table, run.detector)
    return replace(run, detector=detector), table, cache


def require_classes(table: "pd.DataFrame", run: Run) -> None:
    """Raise UserError unless each split has the classes that it needs; training on fakes of its own making needs only reals."""
    from tfdetect.data import manifest

    trains_on = run.detector.trains_on
    manifest.require_classes(table, ["train"], "real" if run.train.makes_face_fakes else trains_on)
    manifest.require_classes(table, ["validation", "test"], trains_on)


def warnings(run: Run, table: "pd.DataFrame") -> tuple[str, ...]:
    """Warn if there are too few files for a batch, or for choosing an epoch."""
    rows, unit = table[table["split"] == "train"], run.detector.input_kind
    count, out = int(rows["frames"].sum()) if unit == "frame" else len(rows), []
    if run.train.batch > count:
        out.append(f"--train.batch {run.train.batch} is more than the {count} training {unit}s: an epoch is one step.")
    validation = table.loc[table["split"] == "validation", "label"]
    reals, fakes = int((validation == 0).sum()), int((validation == 1).sum())
    if min(reals, fakes or reals) < FEW:
        out.append(f"Validation has only {reals} real and {fakes} fake files: with fewer than {FEW} of a class, the choice of "
                   "epoch and threshold is left to chance. Add files.")  # fmt: skip
    return tuple(out)


def save_inputs(artifact: Artifact, table: "pd.DataFrame", cache: "Cache") -> None:
    """Save what the run saw: the prepared manifest with absolute paths, the failures, the face detector, the equalisation."""
    from tfdetect.data import manifest
    from tfdetect.data.equalise import find_plan

    if faces := cache.spec.faces:
        files.write_bytes(artifact.face_model, faces.model.read_bytes())
        files.write_json(artifact.faces, {**asdict(faces), "model": artifact.face_model.name})
    plans = {find_plan(path) for path in table.loc[(table["split"] == "train") & (table["error"] == ""), "path"]}
    if len(plans) == 1 and (plan := plans.pop()):
        files.write_bytes(artifact.equalisation_plan, plan.read_bytes())
    table = table.assign(path=[str(Path(path).absolute()) for path in table["path"]])
    manifest.write(table, artifact.manifest)
    manifest.write(table[table["error"] != ""], artifact.failures)
