"""The scores of detectors of any origin, calibrated, thresholded and combined, with how that was done in words."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tfdetect.errors import UserError, suggestion
from tfdetect.workflow.console import plural

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from tfdetect.data.score_table import ScoreTable
    from tfdetect.evaluation.stacking import Floats, HoldOut, Scored

WITHIN, HELD_OUT = "within", "sources held out"
HOLD_OUT: "dict[str, HoldOut]" = {WITHIN: "none", HELD_OUT: "fakes"}
AS_GIVEN = 0.5  # threshold of probabilities that are judged as they are
COVERAGE = 0.9


def judged_rows(split: "pd.Series") -> "pd.Series":
    """Return which rows are judged: those of the test split if there is one, else all."""
    return split == "test" if (split == "test").any() else split.notna()


@dataclass(frozen=True)
class Opinion:
    """What a detector or a combination says of the judged files that it scored."""

    predictions: "pd.DataFrame"
    verdicts: "NDArray[Any] | None"
    """"real", "fake" or "inconclusive" for each row of the predictions; None without a band of inconclusive scores."""
    threshold: float = AS_GIVEN
    """Probability from which files are called fake."""


@dataclass(frozen=True)
class Judged:
    """The scores of a table, calibrated, thresholded and combined."""

    table: "ScoreTable"
    as_given: bool = False
    method: str = "auto"
    """How scores are calibrated; see `calibration.fit`."""
    coverage: float = COVERAGE
    """Share of each class that is not to be called the other; 0 for no inconclusive verdicts."""
    rule: str = ""
    """How each threshold is chosen on validation files, such as fpr:0.01; see `calibration.fit`. By default `threshold`."""
    report: str = ""
    """The detector or combination that `main` returns."""

    def __post_init__(self) -> None:
        if self.rule and not self.validation.any():
            raise UserError("--evaluate.fpr chooses the threshold on validation files of both classes, but there are none beside "
                            "test files: give a table with a column split, or a data set with splits.")  # fmt: skip
        if self.as_given and (others := [name for name in self.table.scores if not self.is_probability(name)]):
            raise UserError(f"--columns.as_given takes scores for probabilities, but those of {others[0]} are not within 0..1.")
        labels = self.rows["label"][~self.validation]
        if labels.nunique() < 2:
            only = "fake" if labels.any() else "real"
            raise UserError(f"All {plural(len(labels), 'file')} to judge are {only}; judging takes real and fake ones. Label 1 "
                            "means fake.")  # fmt: skip

    @cached_property
    def rows(self) -> "pd.DataFrame":
        """The files that are judged or fitted on, without those of train; the index is that of the table."""
        files = self.table.files
        kept = judged_rows(files["split"])
        validation = files["split"] == "validation"
        is_fitted_on = (files["split"] == "test").any() and files["label"][validation].nunique() == 2
        return files[kept | validation] if is_fitted_on else files[kept].assign(split="test")

    @cached_property
    def validation(self) -> "NDArray[Any]":
        """Which of the rows calibration and combination are fitted on, if they are not cross-fitted."""
        return (self.rows["split"] == "validation").to_numpy()

    @cached_property
    def files(self) -> "Scored":
        """The scores in the form that is calibrated and combined."""
        from tfdetect.evaluation.stacking import Scored

        scores = self.table.scores.loc[self.rows.index].to_numpy()
        label, group, source = (self.rows[name].to_numpy() for name in ("label", "group", "source"))
        return Scored(scores, label, group, source, self.validation)

    def is_probability(self, name: str) -> bool:
        """Return whether a detector's scores look like probabilities."""
        from tfdetect.evaluation import stacking

        return stacking.is_probability(self.table.scores.loc[self.rows.index, name].to_numpy())

    @cached_property
    def threshold(self) -> float:
        """Probability from which files are called fake: the share of fakes among those fitted on, by which mistakes on either
        class weigh the same; it takes no score into account, so no score has seen it."""
        fitted = self.rows["label"][self.validation] if self.validation.any() else self.rows["label"]
        return AS_GIVEN if self.as_given or self.table.probability is not None else float(fitted.mean())

    @cached_property
    def given(self) -> "pd.DataFrame | None":
        """The probabilities of each detector that are judged as they are; None if scores are calibrated."""
        scores, own = self.table.scores, self.table.probability
        return scores if self.as_given else None if own is None else scores.assign(**dict.fromkeys(scores, own))

    @cached_property
    def detectors(self) -> "dict[str, Opinion]":
        """What each detector says."""
        from scipy.special import logit

        from tfdetect.evaluation import stacking

        scores, given = self.table.scores, self.given
        if given is None:
            log_odds = stacking.calibrate_each(self.files, self.method)
        else:
            log_odds = logit(given.loc[self.rows.index].clip(2.0**-50, 1 - 2.0**-50).to_numpy())
        return {name: self.opinion(scores.loc[self.rows.index, name].to_numpy(), column, given is None,
                                   self.threshold_of(name, column[self.validation], self.files.labels[self.validation]))
                for name, column in zip(scores, log_odds.T, strict=True)}  # fmt: skip

    def threshold_of(self, name: str, log_odds: "Floats", labels: "NDArray[Any]") -> float:
        """Return the probability from which files are called fake: `threshold`, or what the rule chooses for the log-odds of
        validation files, with their labels, (files,). Raises UserError if none of the files it needs has a score."""
        import numpy as np
        from scipy.special import expit

        from tfdetect.evaluation import calibration

        if not self.rule:
            return self.threshold
        known = np.isfinite(log_odds)
        if (labels[known] == 0).sum() == 0:
            raise UserError(f"--evaluate.fpr needs real validation files with a score of each detector; {name} has none.")
        return calibration.compute_threshold(expit(log_odds[known]), labels[known], self.rule)

    def opinion(self, score: "Floats", log_odds: "Floats", with_verdicts: bool, threshold: float,
                hold_out: "HoldOut" = "none") -> Opinion:  # fmt: skip
        """Return the predictions of the judged rows with a score, and the verdicts if asked for."""
        import numpy as np

        from tfdetect.evaluation import stacking

        kept = ~self.validation
        found = None
        if with_verdicts and self.coverage:
            found = stacking.give_verdicts(self.files, log_odds, threshold, self.coverage, hold_out)
        verdicts = None if found is None else found[kept & np.isfinite(score)]
        return Opinion(stacking.to_predictions(self.rows[kept], score[kept], log_odds[kept]), verdicts, threshold)

    @cached_property
    def combinations(self) -> "dict[tuple[str, str], Opinion]":
        """(combination, WITHIN or HELD_OUT) -> what it says; none for a single detector or where nothing can be fitted.

        With validation files there are no verdicts: the stack fits the files it was fitted to better than others. Its threshold,
        if a rule asks for one, is therefore chosen on validation files of which each is scored by a fit to the others.
        """
        from tfdetect.evaluation import stacking

        if len(self.table.scores.columns) < 2 or self.as_given:
            return {}
        files, out = self.files, {}
        sources = len(set(files.sources[files.labels == 1]))
        for how in (WITHIN, HELD_OUT) if sources > 1 else (WITHIN,):
            fitted = stacking.combine(files, HOLD_OUT[how]).T
            crossed = stacking.combine(self.fitted_on, HOLD_OUT[how]).T if self.rule else fitted
            for name, log_odds, others in zip(stacking.COMBINATIONS, fitted, crossed, strict=True):
                threshold = self.threshold_of(f"{name}, {how}", others, self.fitted_on.labels)
                found = self.opinion(log_odds, log_odds, not self.validation.any(), threshold, HOLD_OUT[how])
                if found.predictions["label"].nunique() == 2:
                    out[name, how] = found
        return out

    @cached_property
    def fitted_on(self) -> "Scored":
        """The validation files alone, each to be scored by what is fitted to the others."""
        from tfdetect.evaluation.stacking import Scored

        files, rows = self.files, self.validation
        return Scored(files.scores[rows], files.labels[rows], files.groups[rows], files.sources[rows], rows[rows] & False)

    @property
    def main(self) -> "tuple[str, Opinion]":
        """What the figures of the report show: what `report` names, the only detector, or the stack of several.

        Raises UserError if there is no such detector or combination.
        """
        from tfdetect.evaluation import stacking

        names = [*map(str, self.table.scores), *(stacking.COMBINATIONS if len(self.table.scores.columns) > 1 else ())]
        if self.report and self.report not in names:
            raise UserError(f"--columns.report names no detector {self.report!r}.{suggestion(self.report, names)} There are: "
                            f"{', '.join(names)}.")  # fmt: skip
        if self.report in self.table.scores:
            return self.report, self.detectors[self.report]
        wanted = self.report or stacking.STACK
        for how in (HELD_OUT, WITHIN):
            if (key := (wanted, how)) in self.combinations:
                return f"{key[0]} of {plural(len(self.detectors), 'detector')}, {how}", self.combinations[key]
        return next(iter(self.detectors.items()))

    @property
    def protocol(self) -> str:
        """How calibration and threshold came about, in a sentence."""
        names = [name for name in self.detectors if self.is_probability(name)]
        scale = "all scores" if len(names) == len(self.detectors) else f"the scores of {', '.join(names)}" if names else ""
        cut = (f"Each detector calls files fake from the probability that at most {100 * float(self.rule[4:]):g} % of the real "
               "validation files reach." if self.rule else f"Files are called fake from a probability of {self.threshold:.3f}, "
               "the share of fakes, by which mistakes on either class weigh the same.")  # fmt: skip
        if self.given is not None:
            return "The probabilities are judged as they were given: not calibrated" + (
                f". {cut}" if self.rule else ", and called fake from 0.5.")
        treated = f"; {scale} lie within 0..1 and were taken for probabilities, whose log-odds are calibrated" if scale else ""
        fitted = (f"on {plural(int(self.validation.sum()), 'validation file')}" if self.validation.any()
                  else "by cross-fitting: each file by a fit to other groups")  # fmt: skip
        return f"Scores were calibrated {fitted} ({self.method}){treated}. {cut}"
