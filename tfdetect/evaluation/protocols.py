"""Figures of several trainings: over folds and seeds, over sources left out of training, and over amounts of training data.

An interval is that of the choice of test files: the 95 % percentile bootstrap over groups of `intervals.py`, with the same
resamples for all trainings. A spread is that of the trainings: the standard deviation (n - 1) over seeds, or over folds. What
trainings say about the same files is compared by log-odds of their calibrated probabilities, because each has scores of its own
scale.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tfdetect.evaluation.intervals import Resamples, TestSet, to_intervals
from tfdetect.evaluation.metrics import auc, lookup
from tfdetect.evaluation.predictions import FILE_KEYS, by_file

FIGURES = {"auc": "AUC", "ap": "average precision", "eer": "EER", "accuracy": "accuracy",
           "balanced_accuracy": "balanced accuracy", "f1": "F1 (fake)", "log_loss": "log loss",
           "calibration_error": "ECE"}  # fmt: skip
HARDLY = 0.01  # AUC; a doubling of the data that changes less hardly helps


@dataclass(frozen=True)
class Scored:
    """What one training said about its test files."""

    name: str
    factors: Mapping[str, Any]
    """What distinguishes it from the others: fold, seed, amount or left_out."""
    files: pd.DataFrame
    """A row per test file: path, group, source, label, score (log-odds if it is calibrated), and probability if it is."""
    metrics: Mapping[str, Any]
    """The summary of the test split in its metrics.json."""
    trained_on: int
    """Number of training files."""

    @classmethod
    def of(cls, name: str, factors: Mapping[str, Any], predictions: pd.DataFrame, metrics: Mapping[str, Any],
           trained_on: int) -> Scored:  # fmt: skip
        """Return the test files of a table of predictions."""
        files = by_file(predictions[predictions["split"] == "test"])
        probability = ["probability"] if "probability" in files else []
        files = files.assign(score=files["log_odds"]) if probability else files
        return cls(name, factors, files[[*FILE_KEYS, "label", "score", *probability]], metrics, trained_on)


class Aucs:
    """The AUCs of several tables of scored files, and what is computed from them, with one set of resamples for all."""

    def __init__(self, tables: Mapping[Hashable, pd.DataFrame]):
        """The tables have the columns label, score and group, whose names mean the same groups in all of them."""
        self.value: dict[Hashable, float | None] = {key: auc(rows["label"], rows["score"]) for key, rows in tables.items()}
        self.draws: dict[Hashable, NDArray[np.float64] | None] = {}
        groups = pd.concat([rows["group"] for rows in tables.values()]) if tables else pd.Series(dtype=str)
        shared, start = Resamples(groups), 0
        self.groups = shared.groups
        for key, rows in tables.items():
            own = copy.copy(shared)
            own.group = shared.group[start : start + len(rows)]
            start += len(rows)
            label = rows["label"].to_numpy()
            can_vary = self.value[key] is not None and own.can_vary(label)
            self.draws[key] = TestSet(label, rows["score"].to_numpy(), None, None, own).draw_auc() if can_vary else None

    def combine(self, weights: Mapping[Hashable, float], name: str = "auc") -> dict[str, Any]:
        """Return the weighted sum of AUCs as {"auc", "interval"}, None where it is undefined; `name` "difference" may be
        negative."""
        values, draws = [self.value[key] for key in weights], [self.draws[key] for key in weights]
        if not weights or any(value is None for value in values):
            return {name: None, "interval": None}
        factors = np.array(list(weights.values()))
        total = float(factors @ np.array(values))
        known = [draw for draw in draws if draw is not None]
        drawn = {name: factors @ np.stack(known)} if len(known) == len(draws) else {}
        return {name: total, "interval": to_intervals(drawn, {name: total}, self.groups)[name]}

    def mean(self, keys: Iterable[Hashable]) -> dict[str, Any]:
        """Return the mean of AUCs as {"auc", "interval"}."""
        keys = list(keys)
        return self.combine(dict.fromkeys(keys, 1 / max(len(keys), 1)))


def deviation(values: Iterable[float | None]) -> float | None:
    """Return the standard deviation (n - 1) of the values that are not None, None for fewer than two."""
    known = [value for value in values if value is not None]
    return float(np.std(known, ddof=1)) if len(known) > 1 else None


def across_folds(members: Sequence[Scored]) -> dict[str, Any]:
    """Return what trainings over folds and seeds, or over seeds alone, say together.

    `auc` is the mean over seeds of the AUC of all test files, each scored by the training of the fold that tests it; `interval`
    that of this mean; `sd_seeds` the spread of these AUCs, `by_seed` themselves. `figures` has for each of FIGURES the mean over
    all trainings, `sd_seeds` and `sd_folds`, the spread of the means of each seed and fold, `lowest` and `highest`.
    """
    seeds = sorted({member.factors["seed"] for member in members})
    pooled = {seed: pd.concat([member.files for member in members if member.factors["seed"] == seed]) for seed in seeds}
    aucs = Aucs(pooled)
    files = pd.concat(pooled.values()).drop_duplicates(FILE_KEYS)
    return {
        **aucs.mean(seeds),
        "by_seed": {str(seed): aucs.value[seed] for seed in seeds},
        "sd_seeds": deviation(aucs.value.values()),
        "n_real": int((files["label"] == 0).sum()),
        "n_fake": int((files["label"] == 1).sum()),
        "n_groups": int(files["group"].nunique()),
        "figures": {name: spread(members, name) for name in FIGURES},
    }


def spread(members: Sequence[Scored], figure: str) -> dict[str, float | None]:
    """Return mean, spread over seeds and over folds, lowest and highest of a figure of the test files; None without a value."""
    rows = pd.DataFrame([{"value": lookup(member.metrics, figure), "seed": member.factors["seed"],
                          "fold": member.factors.get("fold", 0)} for member in members]).dropna(subset="value")  # fmt: skip
    values = rows["value"].astype(float)
    if values.empty:
        return dict.fromkeys(("mean", "sd_seeds", "sd_folds", "lowest", "highest"))
    by = {name: deviation(values.groupby(rows[name]).mean()) for name in ("seed", "fold")}
    return {"mean": float(values.mean()), "sd_seeds": by["seed"], "sd_folds": by["fold"], "lowest": float(values.min()),
            "highest": float(values.max())}  # fmt: skip


def out_of_fold(members: Sequence[Scored]) -> pd.DataFrame:
    """Return a row per file: path, label, group, source, split (test), fold, score, and probability if all trainings have one.

    The score is the mean over seeds of the log-odds; with several seeds, the columns `seed 0` ... have those of each. The
    probability is that of the score.
    """
    from scipy.special import expit

    columns = {f"seed {member.factors['seed']}": None for member in members}
    long = pd.concat([member.files.assign(seed=f"seed {member.factors['seed']}", fold=member.factors["fold"])
                      for member in members])  # fmt: skip
    keys = ["path", "label", "group", "source", "fold"]
    wide = long.pivot_table(index=keys, columns="seed", values="score", sort=False)[list(columns)]
    table = wide.mean(axis=1).rename("score").reset_index()
    table.insert(4, "split", "test")
    if "probability" in long and long["probability"].notna().all():
        table["probability"] = expit(table["score"])
    return table.join(wide.reset_index(drop=True)) if len(columns) > 1 else table


def side_by_side(members: Sequence[Scored]) -> pd.DataFrame:
    """Return a row per file: path, label, group, source, split (test), and the score of each training, by its name; NaN where
    it was not tested on the file."""
    keys = ["path", "label", "group", "source"]
    columns = [member.files.set_index(keys)["score"].rename(member.name) for member in members]
    table = pd.concat(columns, axis=1).reset_index()
    table.insert(4, "split", "test")
    return table


def across_sources(members: Sequence[Scored]) -> dict[str, Any]:
    """Return what trainings say that leave out a source each.

    `rows` has for each source the AUC of its fakes (`unseen`) and of the other fakes (`seen`), both against all reals of the test
    and as means over seeds, with intervals, numbers of fakes and `sd_seeds`. `unseen` and `seen` are the means over sources,
    `difference` that of unseen less seen, `worst` the source with the lowest unseen AUC.
    """
    sources = list(dict.fromkeys(member.factors["left_out"] for member in members))
    tables = source_tables(members)
    aucs = Aucs(tables)

    def keys(kind: str, source: str | None = None) -> list[Hashable]:
        return [key for key in tables if key[0] == kind and source in (None, key[1])]  # type: ignore[index]

    rows = []
    for source in sources:
        unseen, seen = (aucs.mean(keys(kind, source)) for kind in ("unseen", "seen"))
        files = tables[keys("unseen", source)[0]]
        rows.append({"source": source, "n_fake": int((files["label"] == 1).sum()), "n_real": int((files["label"] == 0).sum()),
                     "unseen": unseen["auc"], "unseen_interval": unseen["interval"], "seen": seen["auc"],
                     "seen_interval": seen["interval"],
                     "sd_seeds": deviation(aucs.value[key] for key in keys("unseen", source))})  # fmt: skip
    known = [row for row in rows if row["unseen"] is not None]
    both = [row["source"] for row in known if row["seen"] is not None]
    mean = {kind: aucs.mean(key for row in chosen for key in keys(kind, row))
            for kind, chosen in (("unseen", [row["source"] for row in known]), ("seen", both))}  # fmt: skip
    pairs = [key for source in both for key in keys("seen", source)]
    weights = {key: -1 / len(pairs) for key in pairs} | {("unseen", *key[1:]): 1 / len(pairs) for key in pairs}  # type: ignore[index]
    difference = aucs.combine(weights, "difference")
    return {
        "rows": rows,
        **{kind: found["auc"] for kind, found in mean.items()},
        **{f"{kind}_interval": found["interval"] for kind, found in mean.items()},
        "difference": difference["difference"],
        "difference_interval": difference["interval"],
        "worst": min(known, key=lambda row: row["unseen"])["source"] if known else None,
    }


def source_tables(members: Sequence[Scored]) -> dict[Hashable, pd.DataFrame]:
    """Return the test files of each training by ("unseen", source, seed) and ("seen", source, seed): all reals, with the fakes of
    the source that it left out, and with all others."""
    tables: dict[Hashable, pd.DataFrame] = {}
    for member in members:
        is_real, is_left_out = member.files["label"] == 0, member.files["source"] == member.factors["left_out"]
        for kind, chosen in (("unseen", is_real | is_left_out), ("seen", ~is_left_out | is_real)):
            tables[(kind, member.factors["left_out"], member.factors["seed"])] = member.files[chosen]
    return tables


def across_amounts(members: Sequence[Scored]) -> dict[str, Any]:
    """Return the learning curve: `rows` with the mean AUC over seeds for each amount, its interval, `sd_seeds` and
    `trained_on`, the number of training files; and `slope`, of the two largest amounts (see `last_slope`)."""
    aucs = Aucs({(member.factors["amount"], member.factors["seed"]): member.files for member in members})
    rows = []
    for amount in sorted({member.factors["amount"] for member in members}):
        own = [member for member in members if member.factors["amount"] == amount]
        keys = [(amount, member.factors["seed"]) for member in own]
        rows.append({"amount": amount, "trained_on": own[0].trained_on, **aucs.mean(keys),
                     "sd_seeds": deviation(aucs.value[key] for key in keys),
                     "by_seed": {str(seed): aucs.value[(amount, seed)] for _, seed in keys}})  # fmt: skip
    return {"rows": rows, "slope": last_slope(rows, aucs)}


def last_slope(rows: Sequence[Mapping[str, Any]], aucs: Aucs) -> dict[str, Any] | None:
    """Return by how much the AUC grows per doubling of the data between the two largest amounts; None for fewer.

    The keys are from, to (amounts), doublings, slope, interval, seeds and verdict: helps, hardly, falls, unclear or perfect. The
    interval is that of the difference for the choice of test files; with several seeds, it is widened by the half-width of
    Student's t interval of the seeds' differences, both being independent. One seed leaves out the chance of training.
    """
    if len(rows) < 2:
        return None
    first, last = rows[-2], rows[-1]
    seeds = [seed for seed in last["by_seed"] if seed in first["by_seed"]]
    keys = [((first["amount"], int(seed)), (last["amount"], int(seed))) for seed in seeds]
    doublings = float(np.log2(max(last["trained_on"], 1) / max(first["trained_on"], 1)))
    out = {"from": first["amount"], "to": last["amount"], "doublings": doublings, "seeds": len(seeds), "slope": None,
           "interval": None, "verdict": "unclear"}  # fmt: skip
    weights = {pair[place]: sign / len(keys) for pair in keys for place, sign in ((0, -1), (1, 1))}
    found = aucs.combine(weights, "difference")  # type: ignore[arg-type]
    if found["difference"] is None or doublings <= 0:
        return out
    out["slope"] = found["difference"] / doublings
    if last["auc"] > 1 - 1e-9:
        return {**out, "verdict": "perfect"}
    if found["interval"] is None:
        return out
    differences = [aucs.value[large] - aucs.value[small] for small, large in keys]  # type: ignore[operator]
    ends = np.clip(widen(found["difference"], found["interval"], differences), -1, 1) / doublings
    return {**out, "interval": ends.tolist(), "verdict": judge_slope(*ends)}


def widen(value: float, interval: Sequence[float], differences: Sequence[float]) -> tuple[float, float]:
    """Return an interval widened by the half-width of Student's t interval of the mean of these differences, one per seed."""
    from scipy.stats import t

    n = len(differences)
    half = float(t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    return value - float(np.hypot(value - interval[0], half)), value + float(np.hypot(interval[1] - value, half))


def judge_slope(low: float, high: float) -> str:
    """Return what the interval of the gain in AUC per doubling says."""
    if low > -HARDLY and high < HARDLY:
        return "hardly"
    return "helps" if low > 0 else "falls" if high < 0 else "unclear"
