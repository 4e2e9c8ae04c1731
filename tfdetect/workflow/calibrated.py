"""calibrate, its second half: figures before and after on files that were not fitted to, and the files of the new version."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from tfdetect import backend, files, hashes, models, versions
from tfdetect.artifact import Artifact, load_calibration
from tfdetect.data import manifest
from tfdetect.data.audit import shortcuts
from tfdetect.evaluation import adaptation, predictions
from tfdetect.evaluation.adaptation import Judged
from tfdetect.evaluation.calibration import MIN_FILES_PER_CLASS, Calibration
from tfdetect.evaluation.familiarity import DISTANCES
from tfdetect.pages.adaptation import Adaptation
from tfdetect.pages.learnt import Learnt
from tfdetect.settings import Run
from tfdetect.workflow import dataset, operating_point, results, seen
from tfdetect.workflow.adaptation import flattered, load_familiarity, make_part, marks, print_changes, write_config
from tfdetect.workflow.console import console
from tfdetect.workflow.familiarity import store
from tfdetect.workflow.refitted import Known

YOURS, OWN_TEST = ("own", "your files"), ("run_test", "the run's own test files")
CROSS_FITTED = ("After: each file is judged by a calibration that was fitted, like that of the new version, to the files of "
                "other groups (cross-fitting, five folds), so no figure comes from files that it was fitted to. The new version "
                "itself is fitted to all of them.")  # fmt: skip
HELD_OUT = ("After: these files are the test split of the data set and chose nothing; the new version is fitted to its other "
            "files.")  # fmt: skip
OF_TEST = ("Scored when the run was trained; neither version was fitted to them. Marks of files unlike the training files are "
           "not counted here.")  # fmt: skip
SAME_RANKING = "AUC is that of the scores, which a monotone calibration does not change."


def no_better_than_chance(found: Adaptation) -> tuple[str, ...]:
    """Return a sentence if the detector may rank the files no better than chance, which no calibration mends."""
    auc = next((change for change in found.parts[0].changes if change.key == "auc"), None)
    if auc is None or auc.before is None or (auc.before_interval or [auc.before])[0] > 0.5:
        return ()
    return (f"The scores may rank your files no better than chance (AUC {auc.before:.3f}), and no calibration makes verdicts of "
            "such scores, only doubt: train --from fine-tunes the detector on more files of yours.",)  # fmt: skip


@dataclass(frozen=True)
class Calibrated:
    """A version before, and what was fitted to other files."""

    before: Artifact
    run: Run
    """The settings of the new version."""
    fitted: Calibration
    known: Known
    """What is familiar to the new version."""
    own: pd.DataFrame
    """The scores of the files fitted to or judged, a row per frame, as in predictions.csv."""
    table: pd.DataFrame
    """The prepared manifest of these files, failures included."""
    adapted: Mapping[str, Any]
    """What config.yaml says of the new version."""
    notes: tuple[str, ...] = ()

    @cached_property
    def tested(self) -> pd.DataFrame:
        """The scores of the run's own test files, a row per frame."""
        rows = predictions.read(self.before.predictions)
        return rows[rows["split"] == "test"].reset_index(drop=True)

    def compare(self, judged: pd.DataFrame, fit: Callable[[pd.DataFrame], Calibration] | None) -> Adaptation:
        """Return what changes on the files `judged`, and on the run's own test files.

        With `fit`, each of the files is judged by what it returns for those of other groups.
        """
        stored, name = load_calibration(self.before), versions.title(self.before.folder)
        after = adaptation.cross_fitted(judged, fit) if fit else Judged.by(self.fitted, judged["score"])
        again = flattered(self.before, self.table[self.table["path"].isin(judged["path"])])
        how = f"Before: {name}. {CROSS_FITTED if fit else HELD_OUT} {SAME_RANKING}{again}"
        tested = predictions.file_scores(self.tested)
        was = marks(self.own[self.own["path"].isin(judged["path"])], load_familiarity(self.before))
        now = (self.known.marks if fit else None) if self.known.is_new else was
        if now is None and self.known.familiarity:
            was = None  # nothing to compare with
        parts = [make_part(*YOURS, how, judged, Judged.by(stored, judged["score"]).marked(was), after.marked(now)),
                 make_part(*OWN_TEST, OF_TEST, tested, Judged.by(stored, tested["score"]),
                           Judged.by(self.fitted, tested["score"]))]  # fmt: skip
        origin = f"Version {self.adapted['version']} is {name}, calibrated on {self.adapted['data']}. The model is the same."
        return Adaptation(origin, name, parts)

    def write(self, staged: Artifact, found: Adaptation) -> None:
        """Write the new version into an empty folder: what it shares with the one before as hard links."""
        versions.copy(self.before.folder, staged.folder)
        own = str(versions.number(self.before.folder))
        versions.remove(staged.folder, own, "evaluations", "plots", "README.md", "report.md", "report.html")
        write_config(self.run, staged, dict(self.adapted))
        files.write_json(staged.calibration, self.fitted.to_dict())
        store(self.known.familiarity, staged)
        if backend.is_tensorflow():
            from tfdetect.serving.export import export

            cache = dataset.with_equalisation(dataset.cache_for(self.run.data, self.run.detector), staged)
            export(models.load(staged.model), self.fitted.to_dict(), self.run.detector, staged.saved_model, cache.spec,
                   self.run.evaluate.aggregate, self.known.familiarity)  # fmt: skip
        hashes.write(staged.folder)
        table = self.manifest()
        manifest.write(table, staged.manifest)
        manifest.write(table[table["error"] != ""], staged.failures)
        results.write(staged, self.evaluation(table, found), self.shortcuts(), Learnt())
        print_changes(found)

    def manifest(self) -> pd.DataFrame:
        """Return the manifest of the new version: the files of the training, and those calibrated on as validation files, so that
        `evaluate` knows that it must not judge by them."""
        old = manifest.read_unchecked(Artifact(versions.trained(self.before.folder)).manifest)
        old["label"] = old["label"].astype(int)
        own = self.table.assign(path=[str(Path(path).absolute()) for path in self.table["path"]], split="validation")
        return pd.concat([old, own], ignore_index=True).fillna("")

    def evaluation(self, table: pd.DataFrame, found: Adaptation) -> results.Evaluation:
        """Return what the report of the new version says."""
        fitted = self.fitted.with_prevalence(None)
        rows = pd.concat([self.own.assign(split="validation"), self.tested], ignore_index=True)
        rows = rows.drop(columns=["probability", "log_odds", predictions.FILE_LOG_ODDS], errors="ignore")
        if self.known.is_new:  # distances of the version before say nothing of this one
            rows = rows.drop(columns=list(DISTANCES), errors="ignore")
        history = pd.read_csv(self.before.history) if self.before.history.exists() else None
        warnings = (*self.notes, *self.known.notes, *no_better_than_chance(found), *self.warnings())
        for warning in warnings[len(self.notes) :]:
            console.print(warning)
        evaluated = table[table["split"] != "train"].reset_index(drop=True)
        return results.Evaluation(self.run, evaluated, self.run.data, predictions.add_probabilities(rows, fitted),
                                  fitted.threshold, self.run.threshold_rule, None, warnings, history=history,
                                  training=seen.of_run(self.before, self.run, None), calibration=self.fitted, adaptation=found,
                                  familiarity=None if self.known.is_new else self.known.familiarity)  # fmt: skip

    def warnings(self) -> tuple[str, ...]:
        """Return what the report must say about the files that were fitted to."""
        label = predictions.file_scores(self.own)["label"]
        reals, fakes = int((label == 0).sum()), int((label == 1).sum())
        if not fakes:
            return ("All files given are real: the map to probabilities is still that of the version before, as it takes fakes "
                    "as well. What reals alone determine was fitted: their edge of the inconclusive band, and a threshold at a "
                    "false positive rate.",)  # fmt: skip
        few = (f"Calibrated on {reals} real and {fakes} fake files: with fewer than {MIN_FILES_PER_CLASS} of a class, the "
               "probabilities only rank, and threshold and band are left to chance. Add files.",)  # fmt: skip
        own = self.own.assign(split="validation")
        notes = operating_point.notes(self.fitted, own, self.run.evaluate.coverage, self.run.threshold_rule)
        return (*(few if min(reals, fakes) < MIN_FILES_PER_CLASS else ()), *notes)

    def shortcuts(self) -> shortcuts.Shortcuts:
        """Return what the report of the version before says of shortcuts: the files of training and test are the same."""
        if not self.before.shortcuts.exists():
            return shortcuts.Shortcuts({}, [])
        aucs = files.read_json(self.before.shortcuts, (), "delete it.")
        suspects = shortcuts.find_warnings(aucs, list(self.tested["label"]), list(self.tested["group"]))
        measured = files.read_json(self.before.metrics, (), "train the run again.") if self.before.metrics.exists() else {}
        return shortcuts.Shortcuts(aucs, suspects, measured.get("test", {}).get("shortcut_intervals", {}))
