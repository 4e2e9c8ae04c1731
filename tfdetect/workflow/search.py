"""train --search: try settings, judged on validation files alone, and train the best to the end.

Optuna (T. Akiba et al. 2019) proposes the settings, by its tree-structured Parzen estimator, and keeps what it knows in the file
search.log of the study, so that an interrupted search goes on. The test files are scored once, for the chosen settings.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import TYPE_CHECKING, Any

from tfdetect import artifact as artifacts
from tfdetect import config, installation, models
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError, suggestion
from tfdetect.settings import Run, RunOf
from tfdetect.workflow import operating_point
from tfdetect.workflow.console import console, printable
from tfdetect.workflow.protocols import Member, Study, Trainer, flatten, record

if TYPE_CHECKING:
    import optuna
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache
    from tfdetect.training.fit import Fitted

EXAMPLE = '"train.learning_rate=1e-4..1e-2 detector.dropout=0,0.3"'
DATA_KEYS = ("frames", "size", "fit", "crops", "fps", "faces")  # others would change which files validation has
NOT_SEARCHED = ("train.seed", "train.seeds", "train.monitor", "train.threshold", "train.strategy", "train.tracker")
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
FAR_APART = 10  # ends of a range with this ratio or more are searched on a logarithmic scale
CORNERS = 16  # combinations in which a value is tried before it is refused
TRIAL = "trial-{:03d}"
IMPORTANCE_TRIALS = 10


@dataclass(frozen=True)
class Parameter:
    """What a setting may be: one of several values, or anything within a range."""

    name: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_integer: bool = False

    @classmethod
    def parse(cls, word: str) -> "Parameter":
        """Return what NAME=A..B or NAME=A,B,... says. Raises UserError for anything else."""
        name, _, text = word.partition("=")
        if not name or not text:
            raise UserError(f"--search takes NAME=LOW..HIGH or NAME=A,B,..., such as {EXAMPLE}; got {word!r}.")
        if ".." not in text:
            values = tuple(part.strip() for part in re.split(r",(?![^(]*\))", text))
            if "" in values or len({*values}) < len(values):
                raise UserError(f"--search {word}: expected different values with commas between them.")
            return cls(name, values)
        match = re.fullmatch(rf"({NUMBER})\.\.({NUMBER})", text)
        if not match or not float(match[1]) < float(match[2]):
            raise UserError(f"--search {word}: expected two numbers, the lower first, such as {name}=1e-4..1e-2.")
        return cls(name, (), float(match[1]), float(match[2]), all(re.fullmatch(r"[+-]?\d+", end) for end in match.groups()))

    @property
    def is_log(self) -> bool:
        """Whether a range is searched on a logarithmic scale."""
        return self.low > 0 and self.high / self.low >= FAR_APART

    @property
    def ends(self) -> tuple[str, ...]:
        """All values, or the ends of the range."""
        return self.values or tuple(str(int(end)) if self.is_integer else repr(end) for end in (self.low, self.high))

    @property
    def distribution(self) -> "optuna.distributions.BaseDistribution":
        """The same for Optuna."""
        from optuna import distributions

        if self.values:
            return distributions.CategoricalDistribution(self.values)
        if self.is_integer:
            return distributions.IntDistribution(int(self.low), int(self.high), log=self.is_log)
        return distributions.FloatDistribution(self.low, self.high, log=self.is_log)


def parse_space(text: str, run: Run) -> list[Parameter]:
    """Return the parameters of --search. Raises UserError for a setting that does not exist or must not be searched, and for
    a value that it cannot have."""
    found = [Parameter.parse(word) for word in text.split()]
    names = [name for name in flatten(config.run_to_dict(run)) if is_searchable(name)]
    for number, parameter in enumerate(found):
        name = parameter.name.removeprefix("--")
        matches = [known for known in names if known == name or known.endswith(f".{name}")]
        if len(matches) != 1:
            raise UserError(explain_unknown(name, names, matches))
        found[number] = replace(parameter, name=matches[0])
    if not found:
        raise UserError(f"--search names no setting; expected such as {EXAMPLE}.")
    if twice := [one.name for number, one in enumerate(found) if one.name in {other.name for other in found[:number]}]:
        raise UserError(f"--search names {twice[0]} twice.")
    for parameter in found:
        for value in parameter.ends:
            require_possible(run, parameter, value, [other for other in found if other is not parameter])
    return found


def is_searchable(name: str) -> bool:
    """Return whether a setting may be searched: trials must be judged on the same validation files by the same figure."""
    section, _, key = name.partition(".")
    return name not in NOT_SEARCHED and name != "detector.name" and (section in ("detector", "train") or key in DATA_KEYS)


def explain_unknown(name: str, names: Sequence[str], matches: Sequence[str]) -> str:
    """Return why a name is none of the settings that may be searched."""
    if matches:
        return f"--search: {name} may mean {' or '.join(matches)}: give one of these names."
    hint = suggestion(name, [*names, *(known.rpartition(".")[2] for known in names)])
    if name.partition(".")[0] in ("data", "evaluate") or name in NOT_SEARCHED:
        return (f"--search cannot try {name}: trials are judged on the same validation files by --train.monitor. It can try "
                f"detector.*, train.* and {', '.join(f'data.{key}' for key in DATA_KEYS)}.{hint}")  # fmt: skip
    return f"--search: there is no setting {name!r}.{hint or ' Settings: ' + ', '.join(names) + '.'}"


def without_search(run: Run) -> Run:
    """Return the run as a single training with its own settings."""
    return replace(run, search="", trials=type(run).trials)


def with_settings(run: Run, settings: Mapping[str, Any]) -> Run:
    """Return the run with these settings, given as the words of flags. Raises UserError for a value that one cannot have."""
    words = {"true": True, "false": False}
    typed = {name: words.get(value, value) for name, value in settings.items()}
    spec = RunOf[type(run.detector)]  # type: ignore[misc, valid-type]  # a class at run time
    with config.parser_errors():
        changed: Run = config.parse_flags(spec, config.keywords_to_flags(run, typed), f"train {run.detector.name}", run)
    return changed


def require_possible(run: Run, parameter: Parameter, value: str, others: Sequence[Parameter]) -> None:
    """Raise UserError if a setting cannot have this value, neither with the other settings as they are nor with others."""
    base = without_search(run)
    tries = [{}, *(dict(zip([other.name for other in others], ends, strict=True))
                   for ends in islice(product(*(other.ends for other in others)), CORNERS) if ends)]  # fmt: skip
    reason = ""
    for other in tries:
        try:
            with_settings(base, {**other, parameter.name: value})
            return
        except UserError as error:
            reason = reason or str(error)
    raise UserError(f"--search {parameter.name}: {value} is not possible: {reason}")


class Search:
    """The trials of a study, and the choice among them."""

    def __init__(self, study: Study):
        """Raises UserError if the settings to search are not valid, or Optuna is missing."""
        self.study = study
        self.space = parse_space(study.run.search, study.run)
        finite = all(parameter.values for parameter in self.space)
        self.grid = list(product(*(parameter.values for parameter in self.space))) if finite else []
        self.total = min(study.run.trials, len(self.grid)) if self.grid else study.run.trials
        try:
            import optuna
        except ImportError as error:
            raise UserError("--search needs Optuna, which is not installed: pip install 'tfdetect[search]'.") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)

    @property
    def monitor(self) -> str:
        """The validation figure that all finished trials have and that judges them."""
        monitor, finished = self.study.run.train.monitor, self.finished
        return monitor if all(monitor in each["validation"] for each in finished.values()) else "val_loss"

    @property
    def finished(self) -> dict[str, dict[str, Any]]:
        """The records of the trials that gave a figure."""
        return {name: self.study.records[name] for name in self.study.named("finished")}

    def goodness(self, record: Mapping[str, Any]) -> tuple[float, float]:
        """Return what the best trial has most of: the monitored figure, and for equal ones the negative loss."""
        found = record["validation"]
        sign = -1 if self.monitor.endswith("loss") else 1
        return sign * found.get(self.monitor, -sign * math.inf), -found.get("val_loss", math.inf)

    @property
    def best(self) -> str:
        """The name of the best trial so far; "" without one."""
        finished = self.finished
        return max(finished, key=lambda name: self.goodness(finished[name]), default="")

    def run(self, train: Trainer, try_out: Trainer) -> None:
        """Try settings, then train the best to the end: its test files are the only ones that are scored."""
        self.study.train(self.members(), try_out)
        best = self.best
        record = self.study.records[best]
        run = self.trial_run(best, record["factors"])
        console.print(f"\nBest of {len(self.study.records)} trials: {best}, {describe(record['factors'])}")
        if not Artifact(self.study.folder / best).is_finished:
            train(run)
        record["tested"] = True
        self.study.save()

    def trial_run(self, name: str, settings: Mapping[str, Any]) -> Run:
        """Return the run of a trial."""
        run = with_settings(without_search(self.study.run), settings)
        return replace(run, out=self.study.folder, name=name)

    def members(self) -> Iterator[Member]:
        """Yield the trials that are still to be made; each must be recorded before the next is asked for."""
        from optuna.trial import TrialState

        sampler = self.open_storage()
        for begun in sampler.get_trials(states=(TrialState.RUNNING,)):  # by a process that was interrupted
            yield from self.attempt(sampler, begun.number, begun.params)
        distributions = {parameter.name: parameter.distribution for parameter in self.space}
        while len(sampler.get_trials(states=(TrialState.COMPLETE, TrialState.FAIL))) < self.total:
            trial = sampler.ask(distributions)
            yield from self.attempt(sampler, trial.number, trial.params)

    def open_storage(self) -> "optuna.Study":
        """Return Optuna's study, which holds all trials so far; a small set of combinations is tried completely."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        storage = JournalStorage(JournalFileBackend(str(self.study.folder / "search.log")))
        found = optuna.create_study(storage=storage, study_name="search", direction="maximize", load_if_exists=True)
        trials = found.get_trials(deepcopy=False)
        found.sampler = optuna.samplers.TPESampler(seed=self.study.run.train.seed + len(trials))  # no draw is repeated
        if self.grid and len(self.grid) <= self.study.run.trials:
            known = [trial.system_attrs.get("fixed_params", trial.params) for trial in trials]
            for values in self.grid:
                combination = {parameter.name: value for parameter, value in zip(self.space, values, strict=True)}
                if combination not in known:
                    found.enqueue_trial(combination)
        return found

    def attempt(self, sampler: "optuna.Study", number: int, settings: Mapping[str, Any]) -> Iterator[Member]:
        """Yield the trial unless it was recorded or equals another, and tell Optuna the outcome."""
        from optuna.trial import TrialState

        name, records = TRIAL.format(number + 1), self.study.records
        words = {key: value if isinstance(value, str) else repr(value) for key, value in settings.items()}
        twin = next((other for other, each in self.finished.items() if each["factors"] == words and other != name), None)
        if len(words) < len(self.space):  # interrupted while it was being proposed
            sampler.tell(number, state=TrialState.FAIL)
            return
        if twin:
            records[name] = {**records[twin], "minutes": 0.0, "same_as": twin}
        if name not in records:
            yield from self.train_member(name, words)
        outcome = records[name]
        if outcome["state"] == "finished":
            sampler.tell(number, self.goodness(outcome)[0])
        else:
            sampler.tell(number, state=TrialState.FAIL)
        self.delete_worse()

    def train_member(self, name: str, words: Mapping[str, str]) -> Iterator[Member]:
        """Yield the trial with these settings, or record why they cannot be combined."""
        console.print(f"\n{name} of {self.total}: {describe(words)}")
        try:
            run = self.trial_run(name, words)
        except UserError as error:
            console.print(printable(f"{name} failed: {error}"))
            self.study.records[name] = record(Member(name, self.study.run, words), "failed", reason=str(error))
            self.study.save()
            return
        config.write_yaml(run, self.study.folder / "trials" / f"{name}.yaml")
        yield Member(name, run, words)

    def importance(self) -> dict[str, float]:
        """Return the share of the variation of the figure that each setting explains, 0..1, by fANOVA (F. Hutter et al. 2014);
        {} for fewer than IMPORTANCE_TRIALS finished trials, or if the figure does not vary."""
        import optuna

        if len(self.finished) < IMPORTANCE_TRIALS or len(self.space) < 2:
            return {}
        try:
            shares = optuna.importance.get_param_importances(self.open_storage())
        except (ValueError, RuntimeError):  # all trials are equal
            return {}
        return {name: float(share) for name, share in shares.items() if math.isfinite(share)}

    def delete_worse(self) -> None:
        """Delete the models of trials that are not the best so far; their settings remain in trials/."""
        for name in self.study.records:
            artifact = Artifact(self.study.folder / name)
            if name != self.best and artifact.config.exists() and not artifact.is_finished:
                with suppress(OSError, UserError):
                    artifacts.delete(artifact)


def describe(settings: Mapping[str, Any]) -> str:
    """Return settings on one line, numbers with four digits."""

    def shorten(value: Any) -> str:
        return f"{float(value):.4g}" if re.fullmatch(NUMBER, str(value)) else str(value)

    return ", ".join(f"{name} {shorten(value)}" for name, value in settings.items())


def repeat_command(run: Run) -> str:
    """Return the command line that trains a run with these settings, as far as they are not the detector's defaults."""
    default, own = (flatten(config.run_to_dict(each)) for each in (config.default_run(type(run.detector)), run))
    own["data.hold_out"] = own["data.hold_out"][:1] if own["data.hold_out"][0] == "auto" else own["data.hold_out"]
    changed = {name: value for name, value in own.items() if value != default.get(name) and name not in
               ("detector.name", *artifacts.NOT_COMPARED)}  # fmt: skip
    return installation.command("train", run.detector.name, *config.to_flags(changed))


def validation_figures(run: Run, artifact: Artifact, table: "pd.DataFrame", cache: "Cache", fitted: "Fitted") -> dict[str, float]:
    """Return val_auc, val_ap and val_loss of the best epoch, as far as they are known; of a head that is not trained in epochs,
    val_auc and val_ap of the saved model, per file.

    Raises UserError if there is none.
    """
    names = ("val_auc", "val_ap", "val_loss")
    history = fitted.history
    rows = history[history["epoch"] == fitted.best_epoch].to_dict("records") if len(history) else []
    found = {name: float(rows[0][name]) for name in names if rows and name in rows[0] and math.isfinite(rows[0][name])}
    if not found:
        found = scored_figures(run, artifact, table, cache)
    if not found:
        raise UserError("The training gave no validation figure that could judge it.")
    return found


def scored_figures(run: Run, artifact: Artifact, table: "pd.DataFrame", cache: "Cache") -> dict[str, float]:
    """Return val_auc and val_ap, per file, of the saved model."""
    from tfdetect.evaluation import metrics

    scored = operating_point.score_files(models.load(artifact.model), table, "validation", cache, run)
    found = {"val_auc": metrics.auc(scored["label"], scored["score"]),
             "val_ap": metrics.average_precision(scored["label"], scored["score"])}  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}

