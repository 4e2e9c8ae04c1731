"""The report's section "Before and after" of a version that was calibrated or fine-tuned on other files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import pandas as pd

from tfdetect.evaluation.adaptation import Change
from tfdetect.files import plural
from tfdetect.pages import html

MAX_FILES = 20  # listed
HEADER = ("figure", "before", "95 % interval", "after", "95 % interval", "difference", "95 % interval")
LEADS = ("auc", "log_loss", "real_coverage")  # the section begins with the first of them that there is, AUC if it changed


@dataclass(frozen=True)
class Part:
    """The same files, judged by both versions."""

    key: str
    """Their name in metrics.json."""
    name: str
    """Which files, such as "your files"."""
    note: str
    """How they were judged, in whole sentences."""
    n_real: int
    n_fake: int
    groups: int
    changes: Sequence[Change]
    flips: pd.DataFrame
    """A row for each file whose verdict changes: path, label ("real" or "fake"), before and after."""

    @property
    def title(self) -> str:
        """Which files these are, and how many."""
        return f"On {self.name}: {self.n_real:,} real and {self.n_fake:,} fake, {plural(self.groups, 'group')}"

    @property
    def lead(self) -> str:
        """The most telling change, as a sentence."""
        found = {change.key: change for change in self.changes if change.key != "auc" or change.change}
        if (change := next((found[key] for key in LEADS if key in found), None)) is None:
            return ""
        low_high = f" ({html.format_cell(change.change_interval)})" if change.change_interval else ""
        return (f"On {self.name}, {change.name} was {html.format_cell(change.before)} and is {html.format_cell(change.after)}: a "
                f"difference of {html.format_cell(change.change)}{low_high}.")  # fmt: skip

    @property
    def rows(self) -> list[list[Any]]:
        """The cells of the table below HEADER."""
        return [[change.name, change.before, change.before_interval, change.after, change.after_interval, change.change,
                 change.change_interval] for change in self.changes]  # fmt: skip


@dataclass(frozen=True)
class Adaptation:
    """How a version came about, and what it changed."""

    origin: str
    """In whole sentences: from which version, by which command, on which files."""
    before: str
    """The name of the version before."""
    parts: Sequence[Part]

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json says."""
        parts = {}
        for part in self.parts:
            rows = {change.key: asdict(change) for change in part.changes}
            figures = {key: {name: row[name] for name in row if name not in ("key", "name")} for key, row in rows.items()}
            parts[part.key] = {"n_real": part.n_real, "n_fake": part.n_fake, "groups": part.groups, "figures": figures,
                               "verdicts_changed": len(part.flips)}  # fmt: skip
        return {"adapted": {"before": self.before, "files": parts}}


def adaptation_section(found: Adaptation | None) -> str:
    """Return the section as HTML, "" for a run that was not adapted."""
    if found is None:
        return ""
    leads = " ".join(part.lead for part in found.parts)
    return (f"<section><h2>Before and after</h2><p>{escape(found.origin)}</p><p><b>{leads}</b></p><p>The 95 % intervals are "
            "percentiles of resamples of whole groups; both versions are judged on the same resamples, so a difference whose "
            f"interval excludes 0 is not chance.</p>{''.join(map(_part, found.parts))}</section>")  # fmt: skip


def _part(part: Part) -> str:
    out = f"<h3>{escape(part.title)}</h3><p>{escape(part.note)}</p>{html.table(HEADER, part.rows)}"
    total = part.n_real + part.n_fake
    if part.flips.empty:
        return f"{out}<p>The verdict changes for none of them.</p>"
    shown = f"; the first {MAX_FILES} are listed" if len(part.flips) > MAX_FILES else ""
    rows = html.table(["file", "label", "before", "after"],
                      part.flips.head(MAX_FILES)[["path", "label", "before", "after"]].itertuples(index=False))  # fmt: skip
    return f"{out}<p>The verdict changes for {len(part.flips):,} of {plural(total, 'file')}{shown}.</p>{rows}"
