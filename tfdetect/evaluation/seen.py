"""Metrics on fakes of sources that a detector was trained on, beside those on fakes of sources that it never saw.

The AUC on generators that were trained on is what misleads most: it says little about others.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfdetect.evaluation import intervals
from tfdetect.evaluation.metrics import against_reals
from tfdetect.evaluation.predictions import by_file

SEEN, UNSEEN, UNKNOWN = "seen", "unseen", "unknown"
NAMED = 4  # sources in a sentence


def compare(predictions: pd.DataFrame, threshold: float | None, in_training: Mapping[str, bool | None],
            general: Collection[str] = ("",)) -> dict[str, Any]:  # fmt: skip
    """Return the metrics of fakes of sources that training had ("seen"), had not ("unseen"), and may have had ("unknown").

    `predictions` are those of one split, per frame or file; `in_training` says for each source of a fake whether training or
    validation had it, None if that is not known. Each entry is None without such fakes, else {sources, named, n_real, n_fake,
    auc, ap, eer, ..., recall, auc_interval, intervals, few_files}: the fakes against all real files, per file. `named` are the
    sources whose names, in lower case, are not as `general` as "fake".
    """
    files = by_file(predictions).reset_index(drop=True)
    sample, is_fake = intervals.TestSet.of(files, threshold), files["label"] == 1
    states = {True: SEEN, False: UNSEEN, None: UNKNOWN}
    state = files["source"].map(lambda name: states[in_training.get(name)])
    out: dict[str, Any] = {}
    for name in (SEEN, UNSEEN, UNKNOWN):
        rows = np.flatnonzero(is_fake & (state == name))
        found, _ = against_reals(sample, rows, np.array([], int))
        found |= {"n_real": int((~is_fake).sum())}
        del found["false_positive_rate"], found["intervals"]["false_positive_rate"]
        sources = sorted(set(files["source"][rows]))
        named = [source for source in sources if source.lower() not in general]
        out[name] = {"sources": sources, "named": named, **found} if len(rows) else None
    return out


def sentence(test: Mapping[str, Any]) -> str:
    """Return the figures on seen and unseen sources in one sentence, "" if the metrics of the test have none.

    The figure is the AUC, or without real files the recall.
    """
    parts = {name: test[name] for name in (SEEN, UNSEEN, UNKNOWN) if test.get(name)}
    key = "recall" if any(part["auc"] is None for part in parts.values()) else "auc"
    if not parts or any(part[key] is None for part in parts.values()):
        return ""
    figures = {name: f"{part[key]:.3f} ({describe_interval(part, key)})" for name, part in parts.items()}
    start = {"auc": "AUC", "recall": "Share of fakes found:"}[key]
    learnt = "validated" if test.get("fakes_used_for") == "validation" else "trained"
    if [*parts] == [SEEN]:
        named = list_sources(parts[SEEN]["named"])
        return (f"{start} {figures[SEEN]}, measured only on fakes of sources it was {learnt} on{f' ({named})' if named else ''}: "
                "how it does on fakes of others is not known.")  # fmt: skip
    sources = {name: list_sources(part["named"]) for name, part in parts.items()}
    said = {SEEN: f"on fakes of sources it was {learnt} on"}
    if UNSEEN in parts:
        said[UNSEEN] = f"on {'those' if SEEN in parts else 'fakes'} of {sources[UNSEEN] or 'others'}, which it never saw"
    if UNKNOWN in parts:
        of_them = f" of {sources[UNKNOWN]}" if sources[UNKNOWN] else ""
        said[UNKNOWN] = f"on fakes{of_them}, of which it is not known whether it was {learnt} on their source"
    return f"{start} {'; '.join(f'{figures[name]} {said[name]}' for name in parts)}."


def describe_interval(part: Mapping[str, Any], key: str) -> str:
    """Return "0.912 to 0.954, 120 fakes", or why there is no interval."""
    ends = part["intervals"].get(key)
    interval = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "too few groups for an interval"
    return f"{interval}, {part['n_fake']:,} fake{'s' * (part['n_fake'] != 1)}"


def list_sources(names: Sequence[str]) -> str:
    """Return the names, or the first few and how many more there are."""
    more = len(names) - NAMED
    if more > 1:
        return f"{', '.join(names[:NAMED])} and {more} others"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
