"""train: from files to a judged, exported detector.

What is heavy is imported where it is used, so that `--help` and a mistake in a flag answer at once.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect import artifact as artifacts
from tfdetect import backend, config, files, models
from tfdetect.artifact import Artifact
from tfdetect.detector import REGISTRY
from tfdetect.errors import UserError
from tfdetect.settings import Run
from tfdetect.workflow import dataset
from tfdetect.workflow.console import console, devices_line, embedding, import_keras, say_command

if TYPE_CHECKING:
    import keras
    import numpy as np
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache
    from tfdetect.evaluation.calibration import Calibration
    from tfdetect.training.fit import Fitted

SPLITS = ("train", "validation", "test")
FEW = 5  # files of a class in validation below which chance picks the epoch
Tables = Callable[[Artifact], "Mapping[str, pd.DataFrame]"]  # of a judged run, for its report


def usage() -> str:
    """What `train --help` answers without a detector's name."""
    first = {name: (cls.__doc__ or "").splitlines()[0] for name, cls in sorted(REGISTRY.items())}
    listed = "\n".join(f"  {name:{max(map(len, first)) + 2}}{line}" for name, line in first.items())
    ways = "train.py DETECTOR [--flags]  |  train.py --config FILE [--flags]"
    return f"{ways}\n\n{listed}\n\n`train.py DETECTOR --help` lists its flags."


def main(argv: Sequence[str]) -> int:
    """Parse, resolve names of other runs, train. ValueError for a threshold that only recipes may ask for."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    run = parse(argv, "train.py")
    refuse_pooled(run.train.threshold)
    train(run)
    return 0


def refuse_pooled(rule: str) -> None:
    """ValueError for a threshold read off the test: a published table may be repeated with it, nothing else."""
    from tfdetect.evaluation import calibration

    if calibration.is_pooled(rule):
        raise UserError(f"--train.threshold {rule} is read off the test's own scores, and then that test judges nothing: only "
                         "reproduce.py RECIPE takes it, to repeat a published table; give quantile:0.8, which is read off "
                         "validation's reals.")  # fmt: skip


def parse(argv: Sequence[str], prog: str) -> Run:
    """The run, with names of other runs resolved: models know no artifacts."""
    run = config.parse(argv, prog)
    frame_model = getattr(run.detector, "frame_model", None)
    if frame_model and Path(frame_model).suffix != ".keras":
        path = str(artifacts.find(Path(frame_model), "model").model)
        run = replace(run, detector=replace(run.detector, frame_model=path))
    return run


def train(run: Run, tables: Tables | None = None) -> Artifact:
    """The whole story: files, clips, training, calibration, export, judgement. `tables` adds to the report."""
    import_keras()
    console.print(devices_line(run.train.precision))
    run.detector.require()
    if backend.worker():
        return assist(run)
    with artifacts.claim(run) as (artifact, going_on):
        if going_on and artifact.finished and (why := nothing_left(run, artifact)):
            console.print(f"{artifact.folder} is finished, {why}: {artifact.report}")
            return artifact
        run, table, cache = prepare(run)
        if going_on:
            require_same_splits(artifact, table)
            console.print(f"Going on with {artifact.folder}")
            reopen(artifact, run)
        else:
            artifacts.create(artifact, run)
        remember(artifact, table, cache)
        fitted = learn(run, artifact, table, cache)
        finish(run, artifact, table, cache, fitted, tables)
    return artifact


def nothing_left(run: Run, artifact: Artifact) -> str:
    """Why a finished run cannot be trained further by these settings; "" where it can."""
    old = artifacts.load_config(artifact).train
    if not (states := checkpointed(artifact) or regained(run, artifact)):
        return "and there is nothing to go on from: its head knows no epochs, or its checkpoints/ is gone"
    done = max(len(state["history"]) for state in states)
    if run.train.epochs > done and (run.train.epochs, run.train.patience) != (old.epochs, old.patience):
        return ""
    early = f", and stopped early, after {done} of {old.epochs} epochs" if done < old.epochs else f", all its {done} epochs"
    return f"{early.removeprefix(', ')}; to train it further, raise --train.epochs, or --train.patience if it stopped early"


def checkpointed(artifact: Artifact) -> "list[Mapping[str, Any]]":
    """What the run's checkpoints say of its epochs. UserError where that is damaged."""
    from tfdetect.training.callbacks import RESTART_HINT

    return [files.read_json(path, ("history", "last"), RESTART_HINT) for path in artifact.checkpoints.glob("*/state.json")]


def regained(run: Run, artifact: Artifact) -> "list[Mapping[str, Any]]":
    """As `checkpointed`, of a finished run whose checkpoints are gone, by its history; nothing for a head's."""
    import pandas as pd

    from tfdetect.training.callbacks import rebuild_state

    history = pd.read_csv(artifact.history) if artifact.history.exists() and not run.detector.caches_features else ()
    if len(history):
        rebuild_state(artifact.checkpoints, history, run.train.monitor)
    return checkpointed(artifact)


def require_same_splits(artifact: Artifact, table: "pd.DataFrame") -> None:
    """UserError where files that the run was trained on are judged now, or the other way round, as new files moved the splits."""
    from tfdetect.data import manifest

    if not artifact.manifest.exists():
        return
    old = manifest.read(artifact.manifest)
    was = dict(zip(old["path"], old["split"], strict=True))
    paths = [str(Path(path).absolute()) for path in table["path"]]
    moved = [path for path, split in zip(paths, table["split"], strict=True) if was.get(path, split) != split]
    if moved:
        raise UserError(f"{len(moved)} files are in another split than {artifact.folder} had them, the first {moved[0]}: "
                        "the data have changed, and it would be judged by what it has learnt. Give another --name.")  # fmt: skip


def reopen(artifact: Artifact, run: Run) -> None:
    """From here on the settings are those of the longer run. The report goes, which says that a run is finished."""
    if artifact.finished:
        if any(state["history"] and not state["last"] for state in checkpointed(artifact)):
            console.print("Its optimizer is gone (large ones are not kept): it goes on from the best epoch, with a fresh one.")
        artifact.report.unlink()
        shutil.rmtree(artifact.logs / "test", ignore_errors=True)
    config.write(run, artifact.config)


def assist(run: Run) -> Artifact:
    """The part of a worker that is not the chief: the same data and steps, but nothing of the result is its to write."""
    if run.name is None:
        raise UserError("Several workers need --name: all must mean the same run.")
    artifact = Artifact(run.out / run.name)
    run, table, cache = prepare(run)
    learn(run, artifact, table, cache, watched=False)
    return artifact


def remember(artifact: Artifact, table: "pd.DataFrame", cache: "Cache") -> None:
    """What the run saw into the artifact: the prepared manifest with absolute paths, what failed, the face detector."""
    from tfdetect.data import manifest
    from tfdetect.data.equalise import plan_of

    faces = cache.spec.faces
    if faces:
        files.write_bytes(artifact.face_model, faces.model.read_bytes())
        files.write_json(artifact.faces, {**asdict(faces), "model": artifact.face_model.name})

    plans = {plan_of(path) for path in table.loc[(table["split"] == "train") & (table["error"] == ""), "path"]}
    if len(plans) == 1 and (plan := plans.pop()):
        files.write_bytes(artifact.plan, plan.read_bytes())

    table = table.assign(path=[str(Path(path).absolute()) for path in table["path"]])
    manifest.write(table, artifact.manifest)
    manifest.write(table[table["error"] != ""], artifact.failures)


def prepare(run: Run) -> "tuple[Run, pd.DataFrame, Cache]":
    """The prepared manifest, all splits decided, and the cache that holds the clips; the run with what it learnt of them."""
    from tfdetect.data import manifest
    from tfdetect.data.prepare.decode import usable
    from tfdetect.evaluation import calibration

    cache = dataset.cache_for(run.data, run.detector)
    table, left = dataset.separate_excluded(dataset.load_dataset(run.data, run.detector), cache, run.data.workers)
    given = bool((table["split"] != "").any())
    table = dataset.restrict_sources(manifest.split(table), run.data)
    manifest.require_classes(table, SPLITS, run.detector.trains_on)
    table = dataset.with_texts(dataset.decode(table, run.data, cache, left), run.detector)
    dataset.say_count(table)
    dataset.require_few_failures(table, run.data.max_failed)
    good = usable(table)
    manifest.require_classes(good, SPLITS, run.detector.trains_on)
    calibration.check_rule(run.train.threshold, good.loc[good["split"] == "validation", "label"])
    dataset.say_one_class(good)
    for warning in warnings(run, good):
        console.print(warning)
    if run.data.path:  # the embedded sample draws each scene for itself; some look alike
        table = dataset.say_alike(table, cache, given)
    table, detector = dataset.with_source_classes(table, run.detector)
    return replace(run, detector=detector), table, cache


def warnings(run: Run, table: "pd.DataFrame") -> tuple[str, ...]:
    """Where there are too few files for what is asked of them: a batch, or the choice of an epoch."""
    rows, unit = table[table["split"] == "train"], run.detector.input_kind
    count, out = int(rows["frames"].sum()) if unit == "frame" else len(rows), []
    if run.train.batch > count:
        out.append(f"--train.batch {run.train.batch} is more than the {count} {unit}s to train on: an epoch is one step.")
    held = table.loc[table["split"] == "validation", "label"]
    reals, fakes = int((held == 0).sum()), int((held == 1).sum())
    if min(reals, fakes or reals) < FEW:
        out.append(f"Validation holds {reals} real and {fakes} fake files: below {FEW} of a class, chance picks the epoch and "
                   "the threshold. Give more files.")  # fmt: skip
    return tuple(out)


@contextmanager
def memory(run: Run) -> Iterator[None]:
    """UserError that says what to lower, where memory runs out."""
    try:
        yield
    except Exception as error:
        names = {cls.__name__ for cls in type(error).__mro__}
        if not names & {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"} and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(f"Memory ran out in training: lower --train.batch, which is {run.train.batch}, or --data.size, which is "
                        f"{run.data.size}, or take --train.precision mixed_bfloat16.") from error  # fmt: skip


def learn(run: Run, artifact: Artifact, table: "pd.DataFrame", cache: "Cache", watched: bool = True) -> "Fitted":
    """Fit, and leave the best epoch's model in the artifact. `watched`: with TensorBoard, and a line an epoch."""
    keras = import_keras()
    from tfdetect.data.prepare.decode import usable
    from tfdetect.training.callbacks import ProgressLogger
    from tfdetect.training.fit import fit
    from tfdetect.training.fit_head import fit_head
    from tfdetect.workflow import reconstruction_report

    with files.plain(artifact.logs) as logs:
        board = keras.callbacks.TensorBoard(logs, write_graph=False, profile_batch=0)  # board.write draws it
        callbacks = [board, ProgressLogger(console, run.train.epochs)] if watched else []
        if watched and run.detector.reconstructs:
            callbacks.append(reconstruction_report.tensorboard_callback(artifact.logs, usable(table), cache))
        what = (run.detector, usable(table), cache, run.train, artifact.checkpoints, artifact.model, callbacks)
        with memory(run):
            return fit_head(*what, embedding) if run.detector.caches_features else fit(*what)


def finish(run: Run, artifact: Artifact, table: "pd.DataFrame", cache: "Cache", fitted: "Fitted",
           tables: Tables | None = None) -> None:
    """Calibrate and export, then judge what was exported."""
    from tfdetect.data.prepare.decode import usable
    from tfdetect.evaluation import calibration as rules
    from tfdetect.serving.export import export
    from tfdetect.serving.predictor import Predictor
    from tfdetect.training import tensorboard
    from tfdetect.training.callbacks import keep_for_resume
    from tfdetect.workflow import feature_report, reconstruction_report, results
    from tfdetect.workflow.scoring import find_shortcuts, score

    with files.atomic(artifact.history) as temporary:
        fitted.history.to_csv(temporary, index=False)
    model = models.load(artifact.model)
    calibration = calibrate(model, usable(table), cache, run)
    files.write_json(artifact.calibration, calibration.to_dict())
    if backend.tensorflow():
        export(model, calibration.to_dict(), run.detector, artifact.saved_model, dataset.with_equalisation(cache, artifact).spec)
    predictor = Predictor(artifact, cache.spec, run.detector)
    if run.detector.caches_features:
        predicted, own = feature_report.judge(predictor, model, run.detector, table, cache, artifact.logs)
    else:
        predicted, own = score(predictor, table[table["split"] != "train"], cache), results.NOTHING
    if run.detector.reconstructs:
        own = reconstruction_report.report_extras(model, predicted, predictor.threshold, fitted, usable(table), cache)
    shortcuts, rule = find_shortcuts(table, run.data), run.train.threshold
    warnings = (*rules.rule_warnings(rule), *dataset.copies_line(table), *predictor.warnings, *dataset.data_warnings(table))
    found = results.write(artifact, run, table, predicted, predictor.threshold, cache, fitted.history, fitted.best_epoch,
                          warnings, {"judged": predictor.judged, "threshold_rule": rule}, shortcuts, tables=tables,
                          own=own)  # fmt: skip
    tensorboard.write(artifact.logs, model, predicted, table, cache, config.tree(run), found)
    keep_for_resume(artifact.checkpoints)
    for warning in predictor.warnings:
        console.print(warning)
    for name in ("validation", "test"):
        console.print(results.summary_line(name, found[name], rule))
    console.print(results.attribution_line(found["test"]), end="")
    console.print(results.shortcut_line(shortcuts.aucs))
    say_where(artifact, run, table)


def calibrate(model: "keras.Model", table: "pd.DataFrame", cache: "Cache", run: Run) -> "Calibration":
    """Probability and threshold from the validation files' scores, by the saved and reloaded model. The threshold that recipes
    alone may ask for is read off the test's."""
    from tfdetect.data.input_pipeline.dataset import expand_frames
    from tfdetect.evaluation import calibration, predictions
    from tfdetect.training.fit import predict_scores

    def files_of(split: str) -> "tuple[np.ndarray, np.ndarray]":
        held = table[table["split"] == split].reset_index(drop=True)
        rows = expand_frames(held, run.detector.input_kind == "frame")
        files = predictions.file_scores(rows.assign(score=predict_scores(model, held, cache, run.detector, run.train.batch)))
        return files["score"].to_numpy(), files["label"].to_numpy()

    rule = run.train.threshold
    if calibration.is_pooled(rule):
        return calibration.pool_threshold(calibration.fit(*files_of("validation")), files_of("test")[0], rule)
    return calibration.fit(*files_of("validation"), rule)


def say_where(artifact: Artifact, run: Run, table: "pd.DataFrame") -> None:
    """Where everything is, and what to do next: a verdict on a test file, if one is still there."""
    served = artifact.saved_model
    if not served.exists():
        served = f"none: KERAS_BACKEND=tensorflow python scripts/export.py {files.quoted(artifact.folder)} writes it"
    console.print(f"\nReport      {artifact.report}\nSavedModel  {served}\nEverything  {artifact.folder}\n\nNext:")
    judged = table.loc[(table["split"] == "test") & (table["error"] == ""), "path"]
    if example := next((path for path in judged if path.isprintable() and os.path.exists(path)), None):
        say_command("predict.py", artifact.folder, example)
    console.print(f"  python scripts/train.py {run.detector.name} --data.path YOUR_FOLDER   # with real/ and fake/ in it")
    console.print(f"  tensorboard --logdir {files.quoted(artifact.folder.parent)}")
