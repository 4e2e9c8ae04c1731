"""The page that compares runs: what each is, how good, whether they differ, what they cost; as HTML and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

from tfdetect.evaluation import comparison
from tfdetect.evaluation.metrics import REPORT_ROWS, lookup
from tfdetect.files import format_bytes, plural
from tfdetect.pages import advice, html, markdown, tables
from tfdetect.plots import compare as plots
from tfdetect.plots.standard import STRESS_NAMES, property_name
from tfdetect.plots.style import caption

OWN = "These figures are on the test files of each run, which differ from run to run: they must not be compared."
SHARED = "All figures are on {}, so they can be compared."
PAIRED = ("Each pair on the test files of both. The interval resamples whole groups, the same for both runs; DeLong's test "
          "counts files as independent. Only the ranking is compared: thresholds may differ.")  # fmt: skip
MANY = "{} pairs were tested, each by itself: of twenty such tests between equal runs, about one finds a difference by chance."
SOURCES = "AUC of the fakes of a source against all real files, and whether the run never saw fakes of that source in training."
SHORTCUTS = "What file size, format and colour alone reach on the test files of each run."
ROBUSTNESS = ("AUC on corrupted test files, its 95 % interval, and the share of verdicts that change side, from `evaluate RUN "
              "--robustness`.")  # fmt: skip
STRESS = 'AUC on altered clips of some test files, from the section "What it learnt" of each report.'
COST = "Seconds of training are those on the device named below them, without decoding, and without features that were cached."
SETTINGS = "Settings that all have alike are left out."
FIGURES = ("auc", "ap", "eer", "tpr_at_fpr_1e-2", "accuracy", "balanced_accuracy", "per_class.fake.recall",
           "per_class.real.recall", "log_loss", "brier", "calibration_error")  # fmt: skip  # of REPORT_ROWS

Table = tuple[Sequence[str], list[list[Any]]]


@dataclass(frozen=True)
class Member:
    """What is known about one of the runs; JSON as it is."""

    name: str
    facts: Mapping[str, str]
    """Detector, folder, data and the like, by their names on the page."""
    grade: str
    """How good it is, as its report says."""
    own: Mapping[str, Any]
    """Metrics of its own test files, from `metrics.summarise`."""
    shared: Mapping[str, Any] | None
    """The same of the test files of all runs; None if these lack a class."""
    shortcuts: Mapping[str, float]
    robustness: Mapping[str, Mapping[str, Any]]
    """Metrics for each corruption, as `evaluate --robustness` writes them; empty if it was not measured."""
    stress: Mapping[str, Mapping[str, Any]]
    cost: Mapping[str, Any]
    """training_seconds, device, parameters, epochs, bytes; each may be missing."""
    settings: Mapping[str, str]
    """By flag, such as "train.epochs"."""


Rows = Sequence[tuple[str, Callable[[Member], Any]]]  # the name of a row, and what its cell for a run is


@dataclass(frozen=True)
class Comparison:
    """Content of the page."""

    members: Sequence[Member]
    shared: int
    """The number of files in the test of all runs."""
    same: bool
    """Whether all have the same test files."""
    differences: Sequence[Mapping[str, Any]]
    """Rows of `comparison.compare` with `files`, the number of files, for each pair; those without a shared file of each class
    have None."""
    warnings: Sequence[str]
    command: str
    date: str
    versions: Mapping[str, str]

    @property
    def comparable(self) -> bool:
        """Whether the figures are on the same files."""
        return all(member.shared for member in self.members)

    def metrics(self, member: Member) -> Mapping[str, Any]:
        """Return the metrics that are shown."""
        return member.shared if self.comparable and member.shared else member.own

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {**asdict(self), "conclusion": conclusion(self)}


@dataclass(frozen=True)
class Section:
    """A heading, and what is below it."""

    title: str
    lead: str = ""
    table: Table | None = None
    figure: Path | None = None


def write_html(path: str | PathLike[str], content: Comparison, roc: Path) -> None:
    """Write the page; `roc` is the PNG of the ROC curves."""
    html.write(path, "comparison", title(content), content.date, (_summary(content), *map(_section, sections(content, roc)),
                                                                  _made(content)))  # fmt: skip


def write_markdown(path: str | PathLike[str], content: Comparison, roc: Path) -> None:
    """Write the same in Markdown, beside the folder of `roc`."""
    blocks = [f"# {markdown.escape(title(content))}",
              *markdown.section("Summary", [f"**{markdown.escape(conclusion(content))}**", markdown.escape(basis(content))]),
              *markdown.bullets("Careful", content.warnings)]  # fmt: skip
    for part in sections(content, roc):
        drawn = f"![{markdown.escape(part.title)}]({part.figure.parent.name}/{part.figure.name})" if part.figure else ""
        table = markdown.table(*part.table) if part.table else ""
        blocks += markdown.section(part.title, [markdown.escape(part.lead), table, drawn])
    blocks += markdown.section("How it was made", [f"    {content.command}" if content.command else "", _made_with(content)])
    Path(path).write_text("\n\n".join(filter(None, blocks)) + "\n", encoding="utf-8", errors="backslashreplace")


def title(content: Comparison) -> str:
    """Return the names of the runs."""
    return " and ".join(member.name for member in content.members)


def conclusion(content: Comparison) -> str:
    """Return in a line which run ranks the test files better, if that is more than chance."""
    found = [row for row in content.differences if row["interval"] is not None]
    if not found:
        return "These runs cannot be compared: their test files have too little in common."
    wins = [*filter(None, map(comparison.order, found))]
    if not wins:
        return "No run is shown to rank the shared test files better than another."
    names = [member.name for member in content.members]
    for name in names:
        if len(names) > 2 and all((name, other) in wins for other in names if other != name):
            return f"{name} ranks the shared test files better than all others."
    return "; ".join(f"{better} ranks the shared test files better than {worse}" for better, worse in wins) + "."


def basis(content: Comparison) -> str:
    """Return which files the figures are on."""
    if not content.comparable:
        return OWN
    files = plural(content.shared, "test file")
    return SHARED.format(f"the same {files}" if content.same else f"the {files} that all runs share")


def sections(content: Comparison, roc: Path) -> Iterator[Section]:
    """Yield the parts below the summary; those without content are left out."""
    yield Section("What each is", "", _facts(content))
    yield Section("Test figures", f"{basis(content)} {tables.INTERVALS}", _figures(content))
    if content.differences:
        tested = sum(row["difference"] is not None for row in content.differences)
        lead = PAIRED + (f" {MANY.format(tested)}" if tested > 1 else "")
        yield Section("Is the difference more than chance?", lead, _differences(content))
    yield Section("ROC curves", f"{caption(plots.roc)} {basis(content)}", figure=roc)
    rest = (("By source", f"{basis(content)} {SOURCES}", _sources), ("Robustness and stability", ROBUSTNESS, _corrupted),
            ("Altered clips", STRESS, _stress), ("Shortcuts", SHORTCUTS, _shortcuts), ("Cost", COST, _cost),
            ("Settings that differ", SETTINGS, _settings))  # fmt: skip
    for name, lead, make in rest:
        if (table := make(content))[1]:
            yield Section(name, lead, table)


def _per_run(content: Comparison, rows: Rows, first: str = "what") -> Table:
    """Return a table with a column for each run, and a row for each name and function; rows without any value are left out."""
    made = [[name, *(cell(member) for member in content.members)] for name, cell in rows]
    header = [first, *(member.name for member in content.members)]
    return header, [row for row in made if any(cell is not None for cell in row[1:])]


def _rows(keys: Iterable[str], cell: Callable[[Member, str], Any], names: Mapping[str, str] | None = None) -> Rows:
    """Return a row for each key, named so or as `names` say."""
    return [((names or {}).get(key, key), partial(lambda key, member: cell(member, key), key)) for key in keys]


def _value(value: Any, interval: Any = None, more: str = "") -> str | None:
    """Return a figure and its interval in one cell; None if there is no figure."""
    if value is None:
        return None
    ends = f" ({html.plain_cell(interval)})" if interval is not None else ""
    return f"{html.plain_cell(value)}{ends}{more}"


def _facts(content: Comparison) -> Table:
    names = list(dict.fromkeys(name for member in content.members for name in member.facts))
    rows = _rows(names, lambda member, name: member.facts.get(name))
    own = ("AUC on its test files", lambda member: _value(member.own["auc"], member.own["auc_interval"]))
    return _per_run(content, [*rows, own, ("as its report says", lambda member: member.grade)])


def _figures(content: Comparison) -> Table:
    def cell(member: Member, key: str) -> Any:
        found = content.metrics(member)
        few = " *" if key in found["few_files"] else ""
        return _value(lookup(found, key), found["intervals"].get(key), few)

    names = {key: name for key, name, _ in REPORT_ROWS}
    counts = {"n_real": "real files", "n_fake": "fake files", "n_groups": "groups"}
    return _per_run(content, _rows((*counts, "threshold", *FIGURES), cell, {**names, **counts}), "metric")


def _differences(content: Comparison) -> Table:
    rows = [[row["first"], row["second"], row["files"], row["difference"], row["interval"], row["delong_p"], row["conclusion"]]
            for row in content.differences]  # fmt: skip
    return ["first", "second", "shared files", "difference of AUC", "95 % interval", "DeLong p", "conclusion"], rows


def _sources(content: Comparison) -> Table:
    by_source = {member.name: content.metrics(member)["by_source"] for member in content.members}
    names = list(dict.fromkeys(name for found in by_source.values() for name, row in found.items() if row["auc"] is not None))

    def cell(member: Member, name: str) -> Any:
        row = by_source[member.name].get(name)
        trained = member.own["by_source"].get(name, {}).get("in_training")
        return row and _value(row["auc"], row["auc_interval"], "; never seen" if trained is False else "")

    return _per_run(content, _rows(names, cell, {"": "(no name)"}), "AUC of fakes from")


def _corrupted(content: Comparison) -> Table:
    def cell(member: Member, name: str) -> Any:
        if not (row := member.robustness.get(name)):
            return None
        changed = "" if row.get("flipped") is None else f"; {html.format_percent(100 * row['flipped'])} % change"
        return _value(row["auc"], row["auc_interval"], changed)

    names = list(dict.fromkeys(name for member in content.members for name in member.robustness))
    return _per_run(content, _rows(names, cell), "test files")


def _stress(content: Comparison) -> Table:
    def cell(member: Member, key: str) -> Any:
        row = member.stress.get(key)
        return row and _value(row["auc"], row["auc_interval"])

    return _per_run(content, _rows(STRESS_NAMES, cell, STRESS_NAMES), "test files")


def _shortcuts(content: Comparison) -> Table:
    def compared(member: Member) -> str | None:
        best = ("all", member.shortcuts["all"]) if "all" in member.shortcuts else None
        return advice.against_shortcuts(member.own, best) or None

    names = sorted({name for member in content.members for name in member.shortcuts},
                   key=lambda name: -max(member.shortcuts.get(name, 0) for member in content.members))  # fmt: skip
    shown = ["all", *(name for name in names if not name.startswith("all"))][:6]
    rows = _rows(shown, lambda member, name: _value(member.shortcuts.get(name)), {name: property_name(name) for name in shown})
    return _per_run(content, [*rows, ("beside the detector", compared)], "AUC of")


def _cost(content: Comparison) -> Table:
    def cell(member: Member, key: str) -> str | None:
        found = member.cost.get(key)
        if found is None or isinstance(found, str):
            return found
        return format_bytes(found) if key == "bytes" else f"{found:,.0f}"

    names = {"training_seconds": "seconds of training", "device": "on", "epochs": "epochs", "parameters": "parameters",
             "bytes": "model.keras"}  # fmt: skip
    return _per_run(content, _rows(names, cell, names))


def _settings(content: Comparison) -> Table:
    names = list(dict.fromkeys(name for member in content.members for name in member.settings))
    differing = [name for name in names if len({member.settings.get(name) for member in content.members}) > 1]
    return _per_run(content, _rows(differing, lambda member, name: member.settings.get(name)), "setting")


def _summary(content: Comparison) -> str:
    tiles = []
    for member in content.members:
        found = content.metrics(member)
        interval = found["auc_interval"]
        small = f"95 % interval {html.plain_cell(interval)}" if interval else "no interval"
        tiles.append((html.format_cell(found["auc"]), f"AUC of {member.name}", small))
    careful = f'<div class="careful"><h3>Careful</h3>{html.bullet_list(content.warnings)}</div>' if content.warnings else ""
    return (f'<section class="verdict"><h2>Summary</h2><p class="grade">{escape(conclusion(content))}</p>'
            f'<p class="lead">{escape(basis(content))}</p>{html.tiles(tiles)}{careful}</section>')  # fmt: skip


def _section(part: Section) -> str:
    table = html.table(*part.table) if part.table else ""
    drawn = f'<div class="figures">{html.figure(part.title, part.figure)}</div>' if part.figure else ""
    text = html.COMMAND.sub(r"<code>\1</code>", escape(part.lead))
    lead = f"<p>{text}</p>" if text else ""
    return f"<section><h2>{escape(part.title)}</h2>{lead}{table}{drawn}</section>"


def _made(content: Comparison) -> str:
    command = f"<pre>{escape(content.command)}</pre>" if content.command else ""
    return f"<section><h2>How it was made</h2>{command}<p>{escape(_made_with(content))}</p></section>"


def _made_with(content: Comparison) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in content.versions.items())
    return f"From the stored predictions of the runs, which were not scored again; {content.date}; {versions}."
