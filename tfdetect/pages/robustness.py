"""The report's section "Robustness": metrics after each corruption, and the files whose verdicts change."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from tfdetect.files import plural
from tfdetect.pages import html
from tfdetect.plots.robustness import robustness
from tfdetect.plots.style import caption

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

MAX_FILES = 20  # listed; robustness_flips.csv has all
QUESTION = ("The test files as people would send them on: compressed, resized, blurred and so on at their own size, before the "
            "detector's clip is made of them. An AUC that stays while the accuracy falls means that the scores move together, so "
            "that the threshold no longer fits.")  # fmt: skip


@dataclass(frozen=True)
class Robustness:
    """What became of metrics and verdicts."""

    table: pd.DataFrame
    """A row for each corruption, the unchanged files first: corruption, curve and strength, the metrics of `stability.compare`,
    and failed, the number of files that gave no clip."""
    flips: pd.DataFrame
    """A row for each verdict that changed: the columns of `stability.compare`, and corruption."""

    @property
    def headline(self) -> str:
        """After which corruption the most verdicts change, as a sentence without its full stop."""
        shares = self.table[["flipped", "became_inconclusive"]].astype(float).fillna(0).iloc[1:]
        if not shares.sum(axis=1).max():
            return "no verdict changes after any of them"
        worst = self.table.loc[shares.sum(axis=1).idxmax()]
        side, unsure = (html.format_percent(100 * share) for share in shares.loc[worst.name])
        where = f"most verdicts change after {worst['corruption']}: {side} % of {plural(int(worst['n']), 'file')}"
        kinds = f"{worst['to_fake']} to fake and {worst['to_real']} to real"
        return f"{where} change side, {kinds}, and {unsure} % become inconclusive" if self.has_band else f"{where}, {kinds}"

    @property
    def has_band(self) -> bool:
        """Whether verdicts may be inconclusive."""
        return bool(self.table["became_inconclusive"].notna().any())

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json says: the row of each corruption."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict("records")
        return {"robustness": {row.pop("corruption"): row for row in rows}}


def robustness_section(found: Robustness | None, figure: Figure | Path | None) -> str:
    """Return the section as HTML, "" if there was no sweep."""
    if found is None:
        return ""
    drawn = html.figure(caption(robustness), figure, may_be_wide=True) if figure else ""
    lead = found.headline[0].upper() + found.headline[1:]
    return (f"<section><h2>Robustness</h2><p>{QUESTION}</p><p><b>{escape(lead)}.</b></p>"
            f'<div class="figures">{drawn}</div>{_table(found)}{_files(found)}</section>')  # fmt: skip


def _table(found: Robustness) -> str:
    interval = "95 % interval"
    band = {"became inconclusive": "became_inconclusive", f" {interval}": "became_inconclusive_interval",
            "no longer": "from_inconclusive"} if found.has_band else {}  # fmt: skip
    columns = [("corruption", "corruption"), ("files", "n"), ("AUC", "auc"), (interval, "auc_interval"),
               ("accuracy", "accuracy"), (interval, "accuracy_interval"),
               ("verdicts changed" if not band else "changed side", "flipped"), (interval, "flipped_interval"),
               ("to fake", "to_fake"), ("to real", "to_real"), *band.items(), ("failed", "failed")]  # fmt: skip
    header, keys = zip(*columns, strict=True)
    return html.table([name.strip() for name in header], found.table[list(keys)].itertuples(index=False))


def _files(found: Robustness) -> str:
    """Return the files whose verdicts change most often."""
    if found.flips.empty:
        return "<h3>Files whose verdict changes</h3><p>None.</p>"
    to = found.flips["corruption"] + (" (" + found.flips["verdict"] + ")" if found.has_band else "")
    files = found.flips.assign(to=to).groupby(["path", "label", "source"], sort=False)["to"].agg(["count", ", ".join])
    files = files.sort_values("count", ascending=False, kind="stable").reset_index()
    files["label"] = files["label"].map({0: "real", 1: "fake"})
    total = int(found.table["n"].iloc[0])
    shown = f"; the {MAX_FILES} that change most often are listed" if len(files) > MAX_FILES else ""
    text = (f"{len(files)} of {plural(total, 'file')} get another verdict after at least one corruption{shown}. "
            "robustness_flips.csv has all of them, with both probabilities.")  # fmt: skip
    rows = html.table(["file", "label", "source", "changes", "after"], files.head(MAX_FILES).itertuples(index=False))
    return f"<h3>Files whose verdict changes</h3><p>{text}</p>{rows}"
