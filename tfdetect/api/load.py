"""load: a trained detector that predicts, scores, explains and evaluates."""

from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect import artifact as artifacts
from tfdetect import config, models  # noqa: F401  (registers the detectors)
from tfdetect.api import case, evaluate, explain, export
from tfdetect.api.case import CaseReport
from tfdetect.api.results import Results
from tfdetect.errors import UserError
from tfdetect.settings import DecodeOverrides, Run
from tfdetect.verdict_settings import AS_TRAINED, VerdictOverrides
from tfdetect.workflow import verdicts
from tfdetect.workflow.console import progress
from tfdetect.workflow.startup import as_paths, start

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from tfdetect.serving.predictor import Predictor, Verdict
    from tfdetect.workflow.elsewhere import Elsewhere
    from tfdetect.workflow.verdict_table import WrittenVerdicts

CLIPS_PER_CALL = 32


def load(run: str | Path, plugin: str | Path | Iterable[str | Path] = (), trust: bool = False) -> "TrainedDetector":
    """Return the trained detector in the folder of a run, such as "saved_models/cnn".

    Raises FileNotFoundError, with the names of existing runs, if there is none, and UserError if its files are damaged or, unless
    `trust`, differ from its SHA256SUMS.
    """
    start(plugin)
    return TrainedDetector(artifacts.find(Path(run), trust=trust).folder)


@dataclass(frozen=True)
class TrainedDetector(Results):
    """A trained detector: the folder of a run. Its SavedModel is loaded when it is first needed, also in a copy of it and in
    another process that it is sent to."""

    def __getstate__(self) -> dict[str, Path]:
        """Return what a copy or a pickle holds: a loaded SavedModel can be neither copied nor pickled."""
        return {"folder": self.folder}

    @cached_property
    def run(self) -> Run:
        """The settings of the run: detector, data and training."""
        return artifacts.load_config(self.artifact)

    @property
    def history(self) -> "pd.DataFrame":
        """A row per epoch; none for a head that is not trained by gradient descent."""
        import pandas as pd

        return pd.read_csv(self.artifact.history)

    @cached_property
    def predictor(self) -> "Predictor":
        """The exported model and its calibration."""
        return verdicts.load_predictor(self.artifact, self.run)

    def deciding(self, given: VerdictOverrides) -> "Predictor":
        """Return the predictor with the calibration, threshold and band that are given; see `operating_point`."""
        from tfdetect.workflow import operating_point

        if not given.changes_verdicts:
            return self.predictor
        predictor = self.predictor.judging(given.unfamiliar, given.any)
        return predictor.with_calibration(operating_point.calibration_of(self.artifact, given)) if given.refits else predictor

    def predict(self, files: "str | Path | Iterable[str | Path]", **settings: Any) -> "pd.DataFrame":
        """Return a row for each of these images, videos, folders of them, and tables with a column path.

        The columns are those of `Verdict`: path, probability of being fake (0..1), label ("real" or "fake"), score, frames, note,
        error, source, source_probability, text, verdict ("real", "fake" or "inconclusive"), familiarity (a p-value: is the file
        like those of training?), unfamiliar, unfamiliar_reason and faces. A file that cannot be read has its reason in `error`,
        and no numbers. The keywords are flags of the command `predict`, such as `workers=1` and
        `coverage=0.95`. Raises UserError if there is no file.
        """
        from tfdetect.pandas_settings import pd
        from tfdetect.serving.predictor import Verdict

        paths, rows = verdicts.FileList(as_paths(files)), []
        given = config.parse_keywords(verdicts.PredictSettings(), settings, "predict")
        found = self.predict_each(paths, given.data, given=given.evaluate)  # the model is loaded before the bar starts
        with closing(found), progress("Predicting", len(paths)) as step:
            for verdict in found:
                rows.append(asdict(verdict))
                step(rows[-1])
        return pd.DataFrame(rows, columns=list(Verdict.__dataclass_fields__))

    def predict_to(self, out: str | Path, files: "str | Path | Iterable[str | Path]", **settings: Any) -> "WrittenVerdicts":
        """Write the verdicts on these files, which may be millions, to a table: .parquet, .csv, .jsonl or .xlsx.

        Returns its path, the number of files and that of failures. `files` and `settings` are those of `predict`. The columns are
        those of `predict` and run, version, threshold, date, bytes, modified (of the file) and settings: docs/predict.md. Files
        whose verdict is in the table already, also after an interruption, are not scored again. Raises UserError if `out` holds
        anything else.
        """
        given = config.parse_keywords(verdicts.PredictSettings(), settings, "predict")
        return self.predict_list_to(Path(out), verdicts.FileList(as_paths(files)), given.data, given=given.evaluate)

    def predict_list_to(self, out: Path, paths: verdicts.FileList, data: DecodeOverrides, elsewhere: "Elsewhere | None" = None,
                        given: VerdictOverrides = AS_TRAINED) -> "WrittenVerdicts":  # fmt: skip
        """Write the verdicts on a list of files to a table; see `predict_to` and `predict_each`."""
        from tfdetect.workflow import table_formats, verdict_table

        table_formats.require_room(out, len(paths))
        limits = data.apply_to(self.run.data)
        facts = verdicts.table_facts(self.artifact, self.deciding(given).threshold)
        settings = verdicts.settings_key(self.artifact, limits, given)
        with verdict_table.open_table(out, facts, settings) as table, progress("Predicting", len(paths)) as step:
            missing = table.missing(paths, step)
            if first := next(missing, None):
                with closing(self.predict_each(chain([first], missing), data, False, elsewhere, given)) as found:
                    for verdict in found:
                        table.add(verdict)
                        step({"error": verdict.error})
            return table.write()

    def predict_each(self, paths: Iterable[str | Path], data: DecodeOverrides, in_order: bool = True,
                     elsewhere: "Elsewhere | None" = None,
                     given: VerdictOverrides = AS_TRAINED) -> "Generator[Verdict]":  # fmt: skip
        """Return the verdicts on the files, each as soon as there is one, by default in the order of `paths`; close it to end the
        processes that decode. With `elsewhere`, they are scored by what it starts or reaches."""
        if elsewhere:
            from tfdetect.workflow.elsewhere import ScoreFiles

            return elsewhere(ScoreFiles.of(self.artifact, data, given), paths)
        limits = data.apply_to(self.run.data)
        predictor = self.deciding(given).with_limits(limits.limits, limits.decoding)
        return predictor.predict_files(paths, limits.timeout, limits.workers, in_order)

    def score(self, frames: "np.ndarray") -> "pd.DataFrame":
        """Return a row for each clip: its score, its probability of being fake (0..1), its label and, for a detector with
        attribution, the probability of each source.

        `frames` is uint8 RGB (batch, frames, height, width, 3) in 0..255, of any size; for a run on faces they are cropped to one
        face. Raises UserError for any other shape or dtype.
        """
        import numpy as np
        import pandas as pd

        from tfdetect.evaluation.metrics import SOURCE_PREFIX

        try:
            frames = np.asarray(frames)
        except ValueError as error:
            raise UserError("score takes clips of one size at a time; call it once for each size.") from error
        if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3 or not frames.size:
            raise UserError("score takes uint8 clips (batch, frames, height, width, 3), RGB in 0..255, got "
                            f"{frames.dtype} {frames.shape}; a single image is image[None, None].")  # fmt: skip
        batches = [frames[start : start + CLIPS_PER_CALL] for start in range(0, len(frames), CLIPS_PER_CALL)]
        score, probability, *source = map(np.concatenate, zip(*map(self.predictor.predict_clips, batches), strict=True))
        label = np.where(probability >= self.predictor.threshold, "fake", "real")
        table = pd.DataFrame({"score": score, "probability": probability, "label": label})
        names = [f"{SOURCE_PREFIX}{name}" for name in self.predictor.classes]
        return table.join(pd.DataFrame(source[0], columns=names)) if source else table

    def evaluate(self, data: "str | Path | Iterable[str | Path] | None" = None, **settings: Any) -> Results:
        """Evaluate the detector on other data sets, or again on its own test files; see `tfdetect.evaluate`."""
        return evaluate.evaluate(self.folder, data, **settings)

    def explain(self, files: "str | Path | Iterable[str | Path]", **settings: Any) -> explain.Explanation:
        """Write a page of heat-maps that show which regions of each file drive its score.

        The keywords are flags of the command `explain`, such as `out="explained"` and `cells=6`. Raises UserError for a setting
        that is not valid, and if there is no file.
        """
        default = explain.Explain(self.folder, tuple(as_paths(files)))
        return explain.explain_files(config.parse_keywords(default, settings, "explain"), lambda: self.predictor)

    def case(self, files: "str | Path | Iterable[str | Path]", out: str | Path = "case.html",
             also: "Iterable[TrainedDetector]" = (), **settings: Any) -> CaseReport:  # fmt: skip
        """Write a case report about a few files, which also asks the detectors `also`; see docs/case.md.

        The keywords are those of `predict`. Raises UserError for more than 20 files, and if there is no file.
        """
        given = config.parse_keywords(verdicts.PredictSettings(), settings, "predict")
        return self.write_case(verdicts.FileList(as_paths(files)), Path(out), also, given.data, given.evaluate)

    def write_case(self, paths: verdicts.FileList, out: Path, also: "Iterable[TrainedDetector]", data: DecodeOverrides,
                   given: VerdictOverrides = AS_TRAINED, show: Any = None) -> CaseReport:  # fmt: skip
        """Write a case report about a list of files; see `case` and `api.case.write_case`."""
        case.check(out, len(paths))
        found = []
        for each in (self, *also):
            limits = data.apply_to(each.run.data)
            found.append((each.artifact, each.run, limits, each.deciding(given).with_limits(limits.limits, limits.decoding)))
        from tfdetect.workflow.case import Judge  # after TensorFlow, which a predictor imports quietly

        judges = [Judge(*each) for each in found]
        return case.write_case(judges, list(map(str, paths)), out, given, show)

    def export(self, **settings: Any) -> Path:
        """Re-export the SavedModel from model.keras and calibration.json, or with `format="onnx"`, "openvino" or "litert" convert
        the detector; return the folder.

        The keywords are flags of the command `export`, such as `quantize="int8"`. Raises `agreement.ConversionError` if the
        detector cannot be converted or the result differs from the SavedModel.
        """
        given = config.parse_keywords(export.Export(self.folder), settings, "export")
        return export.export_run(self.folder)[0] if given.format == "saved_model" else export.convert_run(given).folder
