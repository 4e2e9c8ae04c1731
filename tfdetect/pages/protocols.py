"""The report of a study, which is several trainings: what they say together, in sentences, a table and a figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from tfdetect.evaluation.metrics import FEW
from tfdetect.evaluation.protocols import FIGURES, HARDLY
from tfdetect.files import plural
from tfdetect.pages import html
from tfdetect.plots import protocols as plots
from tfdetect.plots.style import caption

TITLES = {"folds": "Cross-validation", "seeds": "Repeated with other seeds",
          "leave_out": "One source of fakes left out at a time",
          "amounts": "Learning curve", "search": "Search over settings"}  # fmt: skip
TEST_FILES = "The interval is for the choice of test files (bootstrap over groups)"


@dataclass(frozen=True)
class Page:
    """Content of the report of a study."""

    name: str
    kind: str
    detector: str
    results: Mapping[str, Any]
    """As in study.json."""
    failures: Sequence[tuple[str, str]]
    """(name, reason) of the members that failed."""
    figures: Mapping[str, Path]
    """By the name of their function in plots/protocols.py."""
    command: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def sentences(self) -> list[str]:
        """What the study says, the result first."""
        own = {"folds": fold_sentences, "seeds": fold_sentences, "leave_out": source_sentences, "amounts": amount_sentences,
               "search": search_sentences}[self.kind](self.results)  # fmt: skip
        return [*own, *self.unseen_sentences, *self.failure_sentences]

    @property
    def unseen_sentences(self) -> list[str]:
        """Which sources the test has that training did not, where the study is about something else."""
        names = self.results.get("unseen_sources", ())
        if not names or self.kind == "leave_out":
            return []
        return [f"The test files include fakes of {', '.join(names)}, held out of training (--data.hold_out none trains on all "
                "sources); the report of each training has the figures apart."]  # fmt: skip

    @property
    def failure_sentences(self) -> list[str]:
        """How many members failed, and what their absence means."""
        if not self.failures:
            return []
        effect = {"search": " They count as trials.", "folds": " The figures are of the others, without their test files."}
        names = ", ".join(name for name, _ in self.failures[:8]) + ", ..." * (len(self.failures) > 8)
        text = f"{plural(len(self.failures), 'training')} failed: {names}.{effect.get(self.kind, '')}"
        return [text + (" The same command tries them again." if self.kind != "search" else "")]


def write(path: str | PathLike[str], page: Page) -> None:
    """Write the report to `path`."""
    lead, *others = page.sentences
    summary = f'<section class="verdict"><p class="lead">{escape(lead)}</p>{html.bullet_list(others)}</section>'
    drawn = [(caption(getattr(plots, name)), figure) for name, figure in page.figures.items()]
    html.write(path, "study", page.name, f"{TITLES[page.kind]}: {page.detector}", (
        summary, html.figure_section("Figure", drawn), *tables(page.kind, page.results), failed_section(page.failures),
        settings_section(page)))  # fmt: skip


def number(value: float | None, interval: Sequence[float] | None = None, sign: str = "") -> str:
    """Return a figure with its interval: "0.912 (95 % interval 0.880 to 0.941)"."""
    if value is None:
        return "none"
    ends = f" (95 % interval {interval[0]:{sign}.3f} to {interval[1]:{sign}.3f})" if interval else ""
    return f"{value:{sign}.3f}{ends}"


def fold_sentences(found: Mapping[str, Any]) -> list[str]:
    """Return what folds and seeds say."""
    seeds, is_folds = len(found["by_seed"]), any("fold" in row for row in found["members"])
    files = f"{found['n_real']:,} real and {found['n_fake']:,} fake files"
    of_seeds = f", the mean over {seeds} seeds" if seeds > 1 else ""
    how = ", each scored by the training that did not see its group" if is_folds else ""
    out = [f"AUC {number(found['auc'], found['interval'])}{of_seeds}, on {files} in {plural(found['n_groups'], 'group')}{how}."]
    if min(found["n_real"], found["n_fake"]) < FEW:
        out.append(f"These are fewer than {FEW} files of a class: others may change the figure much.")
    out.append(f"{TEST_FILES}, not for the chance of training.")
    if found["sd_seeds"] is not None:
        out.append(f"Standard deviation over {seeds} seeds: {found['sd_seeds']:.3f} of this AUC.")
    elif seeds == 1:
        out.append("One seed shows no spread of training: --train.seeds 3 adds two.")
    figures = found["figures"]["auc"]
    if is_folds and figures["mean"] is not None:
        deviation = "" if figures["sd_folds"] is None else f", standard deviation over folds {figures['sd_folds']:.3f}"
        out.append(f"Each training by itself: mean AUC {figures['mean']:.3f}{deviation}, {figures['lowest']:.3f} to "
                   f"{figures['highest']:.3f}. Folds differ in their test files, too.")  # fmt: skip
    return out


def source_sentences(found: Mapping[str, Any]) -> list[str]:
    """Return what leaving out each source says."""
    rows = {row["source"]: row for row in found["rows"]}
    unseen, seen = (number(found[kind], found[f"{kind}_interval"]) for kind in ("unseen", "seen"))
    out = [f"On sources of fakes that training did not see: AUC {unseen}, the mean over {plural(len(rows), 'source')}; on those "
           f"that it saw: {seen}."]  # fmt: skip
    if found["worst"] is not None:
        worst = rows[found["worst"]]
        out.append(f"The hardest unseen source is {found['worst']}: AUC {number(worst['unseen'], worst['unseen_interval'])}.")
    if found["difference"] is not None:
        difference = number(found["difference"], found["difference_interval"], "+")
        out.append(f"The difference of AUC, unseen less seen, is {difference}.")
    if few := [row["source"] for row in found["rows"] if row["n_fake"] < FEW]:
        out.append(f"The test has fewer than {FEW} fakes of {', '.join(few)}: other files may change these figures much.")
    return [*out, f"{TEST_FILES}, not for that of sources: another generator may be harder than all of these."]


def amount_sentences(found: Mapping[str, Any]) -> list[str]:
    """Return what the learning curve says, first of all whether more data would still help."""
    last, slope = found["rows"][-1], found["slope"]
    out = [f"With {plural(last['trained_on'], 'training file')}: AUC {number(last['auc'], last['interval'])}."]
    if slope is None:
        return [*out, "Whether more data would help cannot be told from one amount."]
    gain = number(slope["slope"], slope["interval"], "+")
    span = f"From {slope['from']:.3g} to {slope['to']:.3g} of the training groups"
    say = {"helps": f"More training data would probably still help. {span}, AUC rose by {gain} per doubling.",
           "hardly": f"More training data like these would hardly help. {span}, AUC changed by {gain} per doubling, less than "
                     f"{HARDLY:g}.",
           "falls": f"More training data did not help. {span}, AUC fell: {gain} per doubling.",
           "perfect": "Whether more data would help cannot be told: with all of them, every test file is ranked correctly. A "
                      "harder test could tell.",
           "unclear": f"Whether more data would help cannot be told. {span}, AUC changed by {gain} per doubling"
                      f"{', an interval with zero in it' if slope['interval'] else ''}."}  # fmt: skip
    out = [say[slope["verdict"]], *out]
    if slope["seeds"] == 1:
        return [*out, f"{TEST_FILES}. One training of each amount leaves out the chance of training: --train.seeds 3 adds it."]
    return [*out, f"{TEST_FILES}, for the gain also for that of {slope['seeds']} seeds. Which groups each amount has is the same "
            "for all seeds."]  # fmt: skip


def search_sentences(found: Mapping[str, Any]) -> list[str]:
    """Return what a search found."""
    best = next(row for row in found["trials"] if row["name"] == found["best"])
    settings = ", ".join(f"{name} {value}" for name, value in found["settings"].items())
    finished, test = len(found["trials"]) - found["failed"], found["test"]
    out = [f"Best of {plural(finished, 'trial')}: {settings}, with {found['monitor']} {best[found['monitor']]:.3f}.",
           f"On the test files, which were scored for this trial only: AUC {number(test['auc'], test['auc_interval'])}, on "
           f"{test['n_real']:,} real and {test['n_fake']:,} fake files."]  # fmt: skip
    if len(others := [name for name in found["tested"] if name != found["best"]]):
        out[1] = (f"On the test files: AUC {number(test['auc'], test['auc_interval'])}. They were scored before, for the best of "
                  f"fewer trials ({', '.join(others)}).")  # fmt: skip
    return [*out, f"{found['monitor']} chose the trial, so it is too good, the more so the more trials there are; the test "
            "figure is not.", f"To train with these settings: {found['command']}"]  # fmt: skip


def tables(kind: str, found: Mapping[str, Any]) -> Iterable[str]:
    """Yield the sections with tables."""
    if kind == "search":
        names, figures = list(found["settings"]), [key for key in ("val_auc", "val_ap", "val_loss")
                                                   if any(key in row for row in found["trials"])]  # fmt: skip
        yield section("Trials, the best first", ["trial", *names, *figures, "minutes", ""], (
            [row["name"], *(row["settings"].get(name) for name in names), *(row.get(key) for key in figures), row["minutes"],
             row["reason"]] for row in found["trials"]))  # fmt: skip
        return
    if kind == "leave_out":
        yield section("Sources", ["left out", "fakes", "AUC unseen", "95 % interval", "SD over seeds", "AUC of the seen others",
                                  "95 % interval"],
                      ([row[key] for key in ("source", "n_fake", "unseen", "unseen_interval", "sd_seeds", "seen",
                                             "seen_interval")] for row in found["rows"]))  # fmt: skip
    elif kind == "amounts":
        yield section("Amounts of training data", ["share of groups", "training files", "AUC", "95 % interval", "SD over seeds"],
                      ([f"{row['amount']:g}", row["trained_on"], row["auc"], row["interval"], row["sd_seeds"]]
                       for row in found["rows"]))  # fmt: skip
    else:
        keys = ("mean", "sd_seeds", "sd_folds", "lowest", "highest")
        header = ["figure of each training", "mean", "SD over seeds", "SD over folds", "lowest", "highest"]
        yield section("Spread", header, ([FIGURES[name], *(row[key] for key in keys)] for name, row in found["figures"].items()))
    yield section("Trainings, each a folder with its own report.html", ["folder", "training files", "test: real", "fake", "AUC",
                                                                        "95 % interval", "accuracy", "balanced accuracy"],
                  ([row[key] for key in ("name", "trained_on", "n_real", "n_fake", "auc", "auc_interval", "accuracy",
                                         "balanced_accuracy")] for row in found["members"]))  # fmt: skip


def section(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a section with a table."""
    return f"<section><h2>{escape(title)}</h2>{html.table(header, rows)}</section>"


def failed_section(failures: Sequence[tuple[str, str]]) -> str:
    """Return the members that failed, "" if none did."""
    return section("Trainings that failed", ["folder", "reason"], failures) if failures else ""


def settings_section(page: Page) -> str:
    """Return the command, the settings and the versions."""
    settings = yaml.safe_dump(dict(page.settings), sort_keys=False, allow_unicode=True)
    versions = ", ".join(f"{name} {version}" for name, version in page.versions.items())
    command = f"<pre>{escape(page.command)}</pre>" if page.command else ""
    return f"<section><h2>Repeat it</h2>{command}<pre>{escape(settings)}</pre><p class=fine>{escape(versions)}</p></section>"
