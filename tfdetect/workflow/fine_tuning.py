"""train --from: the folder of the version to come, its old and new files, and what changed on the test files of both."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tfdetect import artifact as artifacts
from tfdetect import versions
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.settings import Run
from tfdetect.workflow import adaptation, dataset
from tfdetect.workflow.adaptation import print_changes as print_changes
from tfdetect.workflow.console import console, plural

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache
    from tfdetect.evaluation.calibration import Calibration
    from tfdetect.evaluation.familiarity import Familiarity
    from tfdetect.pages.adaptation import Adaptation, Part

    Judge = tuple[Calibration, Familiarity | None]

NEXT = "next"  # in versions/: what is being trained, and can go on after an interruption
SHAPE = ("frames", "size", "fit", "crops", "fps", "faces")  # settings of clips that a network was made for
NEW, OLD = ("new_test", "the new test files"), ("old_test", "the old test files")
OF_NEW = "The test split of the new data set: neither version was trained on them."
OF_OLD = ("The test files of {before}, as far as they still exist. What is lost here is forgotten; --rehearse old trains on the "
          "old training files as well.")  # fmt: skip


def resolve(run: Run) -> Run:
    """Return the run with the version that it starts from spelt out. Raises UserError if its network is another one."""
    if not run.from_run:
        return run
    before = artifacts.find(_existing(run.from_run), "model", run.trust)
    changed = {name: text for name, text in artifacts.changed_settings(run, before).items()
               if name.startswith("detector") or name in {f"data.{key}" for key in SHAPE}}  # fmt: skip
    if changed:
        raise UserError(f"--from {run.from_run} goes on with its network, for which these settings must stay: "
                        f"{', '.join(changed.values())}. Train a new run to change them.")  # fmt: skip
    named = versions.base(before.folder) / versions.FOLDER / str(versions.number(before.folder))
    face_model = before.face_model.absolute() if before.face_model.exists() else run.data.face_model
    return replace(run, from_run=named.absolute(), data=replace(run.data, face_model=face_model))


def find_model(named: str, trust: bool = False) -> str:
    """Return the path of the model in a run that is named by its folder; or that path itself, or one outside of runs, as it is.

    Raises UserError if the run's files differ from its SHA256SUMS, unless `trust`.
    """
    path = Path(named)
    in_run = path.suffix != ".keras" or (Artifact(path.parent).model == path and Artifact(path.parent).config.exists())
    folder = path.parent if path.suffix == ".keras" else path
    return str(artifacts.find(folder, "model", trust, saved_model=False).model) if in_run else named


def before(run: Run) -> Artifact:
    """Return the version that a resolved run starts from."""
    if not run.from_run:
        raise ValueError("This run starts from no other.")
    return Artifact(_existing(run.from_run))


def _existing(folder: Path) -> Path:
    """Return the folder of a version; that of its run as long as it is the only, or the newest one."""
    run = folder.parent.parent
    if folder.exists() or folder.parent.name != versions.FOLDER or not (run / "config.yaml").exists():
        return folder
    return run if str(versions.number(run)) == folder.name else folder


@contextmanager
def reserve(run: Run) -> Iterator[tuple[Artifact, bool]]:
    """Create and lock the folder for a run, as `artifact.reserve_folder` does; for a new version, one in versions/.

    Yields the artifact, and whether to resume the interrupted training in it.
    """
    if not run.from_run or run.name is not None:
        with artifacts.reserve_folder(run) as reserved:
            yield reserved
        return
    base = versions.base(before(run).folder)
    with adaptation.adapting(base) as folder:
        artifact = Artifact(folder / NEXT)
        resumes = (artifact.config.exists() and versions.number(artifact.folder) == versions.next_number(base)
                   and not artifacts.changed_settings(run, artifact))  # fmt: skip
        try:
            yield artifact, resumes
        finally:
            if artifact.folder.exists() and not artifact.manifest.exists():  # nothing was begun
                versions.remove(folder, NEXT)


def mark(run: Run, artifact: Artifact) -> None:
    """Write into the config.yaml of a new version how it came about."""
    if not run.from_run or artifact.folder.name != NEXT:
        return
    base = versions.base(artifact.folder)
    adapted = {"version": versions.next_number(base), "by": "train", "from": versions.number(before(run).folder),
               "data": str(Path(str(run.data.path)).absolute())}  # fmt: skip
    adaptation.write_config(run, artifact, adapted)


def publish(run: Run, artifact: Artifact) -> Artifact:
    """Make a new version that is complete the newest one, and return the run; any other run is returned as it is."""
    if not run.from_run or artifact.folder.name != NEXT or not artifact.is_finished:
        return artifact
    return adaptation.publish(versions.base(artifact.folder), artifact)


def cache_of(run: Run) -> "Cache":
    """Return the cache of the clips that a run is trained on."""
    if run.from_run:
        return dataset.evaluation_cache(run.data, run.detector, before(run))
    return dataset.cache_for(run.data, run.detector)


def start(run: Run) -> Path | None:
    """Return the model whose weights a run starts from, None for those that its detector builds: heads are fitted anew."""
    return before(run).model if run.from_run and not run.detector.caches_features else None


def adjust(table: "pd.DataFrame", run: Run, cache: "Cache") -> "pd.DataFrame":
    """Return the decoded table without files that the run before was trained or tested on, and with its training files if they
    are to be rehearsed."""
    if not run.from_run:
        return table
    import pandas as pd

    console.print(f"Starting from {versions.title(before(run).folder)}, with a learning rate of {run.train.learning_rate:g}")
    kept, notes = adaptation.leave_out_own(table, Artifact(versions.trained(before(run).folder)), cache, Path(str(run.data.path)))
    rehearses = run.rehearse == "old" or (run.rehearse == "auto" and run.detector.caches_features)
    rehearsed = old_files(run, cache, "train") if rehearses else None
    if rehearsed is not None:
        attrs, kept = kept.attrs, pd.concat([kept, rehearsed], ignore_index=True)
        kept = kept.fillna({name: "" for name in kept.columns if kept[name].dtype == object})
        kept.attrs = attrs
    kept.attrs["alike"] = (*kept.attrs.get("alike", ()), *notes)
    return kept


def old_files(run: Run, cache: "Cache", split: str) -> "pd.DataFrame | None":
    """Return the decoded files of a split of the version before, as far as they exist; None if there is none."""
    import os

    import pandas as pd

    from tfdetect.data import manifest

    rows = manifest.read(Artifact(versions.trained(before(run).folder)).manifest)
    rows = rows[rows["split"] == split]
    there = rows[rows["path"].map(os.path.exists)].reset_index(drop=True)
    name = {"train": "training", "test": "test"}[split]
    console.print(f"{len(there):,} of {plural(len(rows), f'old {name} file')} still exist")
    if there.empty:
        return None
    return dataset.add_texts(dataset.decode(there, run.data, cache, pd.DataFrame()), run.detector)


def with_old_files(table: "pd.DataFrame", run: Run) -> "pd.DataFrame":
    """Return the manifest to store: all files that the weights have seen, so that `evaluate` does not judge by them."""
    if not run.from_run:
        return table
    import pandas as pd

    from tfdetect.data import manifest

    old = manifest.read_unchecked(before(run).manifest)
    old = old[(old["split"] != "test") & ~old["path"].isin(table["path"])]
    old = old.assign(label=old["label"].astype(int), split="train")
    return pd.concat([table, old], ignore_index=True).fillna("")


def compare(run: Run, fitted: "Calibration", scored: "pd.DataFrame", table: "pd.DataFrame", artifact: Artifact,
            cache: "Cache") -> "Adaptation | None":  # fmt: skip
    """Return what changed on the test files of the new data set, with their scores in `scored`, and on those of the old one; None
    for a run that starts from no other."""
    if not run.from_run:
        return None
    from tfdetect.pages.adaptation import Adaptation

    old = before(run)
    name, stored, settings = versions.title(old.folder), artifacts.load_calibration(old), artifacts.load_config(old)
    test = table[table["split"] == "test"].reset_index(drop=True)
    by_old = partial(adaptation.score_rows, old, settings, stored)
    judges = (stored, adaptation.load_familiarity(old)), (fitted, adaptation.load_familiarity(artifact))
    new = OF_NEW + adaptation.flattered(old, test)
    parts = [_part(*NEW, new, judges, by_old(test, cache), scored[scored["split"] == "test"])]
    if (rows := old_files(run, cache, "test")) is not None:
        rows, _ = dataset.add_source_classes(rows, run.detector)
        after = adaptation.score_rows(artifact, run, fitted, rows, cache)
        parts.append(_part(*OLD, OF_OLD.format(before=name), judges, by_old(rows, cache), after))
    origin = f"This is {name}, fine-tuned on {run.data.path} with a learning rate of {run.train.learning_rate:g}."
    return Adaptation(origin, name, parts)


def _part(key: str, name: str, note: str, judges: "Sequence[Judge]", *scored: "pd.DataFrame") -> "Part":
    """Return what changed on the files that the tables of scores before and after both hold."""
    from tfdetect.evaluation import predictions
    from tfdetect.evaluation.adaptation import Judged

    before, after = (predictions.file_scores(rows) for rows in scored)
    files = after.reset_index().merge(before.reset_index()[[*predictions.FILE_KEYS, "index", "score"]], on=predictions.FILE_KEYS,
                                      suffixes=("", "_before"))  # fmt: skip
    judged = []
    for (fitted, known), rows, end in zip(judges, scored, ("_before", ""), strict=True):
        marked = adaptation.marks(rows, known)
        judged.append(Judged.by(fitted, files[f"score{end}"]).marked(None if marked is None else marked[files[f"index{end}"]]))
    return adaptation.make_part(key, name, note, files, *judged)
