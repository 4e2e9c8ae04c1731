"""The report in Markdown, for readers and programs that take text: what the page says, with links to the figures in plots/."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import unescape
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tfdetect.files import plural
from tfdetect.pages import html, learnt, robustness, summary, tables, verdicts
from tfdetect.pages.adaptation import HEADER, Adaptation
from tfdetect.pages.advice import grade
from tfdetect.pages.content import Report
from tfdetect.plots import standard, style

SPECIAL = re.compile(r"[\\`*_\[\]<>|&~]")
CAPTION = {"robustness": style.caption(robustness.robustness)}


def write(path: str | PathLike[str], report: Report) -> None:
    """Write the report to `path`, in the folder that holds plots/; without the pictures of single files."""
    text = "\n\n".join(filter(None, _blocks(report))) + "\n"
    Path(path).write_text(text, encoding="utf-8", errors="backslashreplace")


def _blocks(report: Report) -> Iterator[str]:
    yield f"# {escape(report.name)}"
    yield escape(report.detector)
    yield from bullets("Warnings", report.warnings)
    yield from _summary(report)
    yield from _adaptation(report.adaptation)
    test = report.metrics["test"]
    yield from section("Metrics", (escape(tables.confusion_sentence(test)), escape(tables.INTERVALS),
                                    table(*tables.metrics_table(report.metrics))))  # fmt: skip
    yield from _verdicts(test.get("verdicts"))
    if test["by_source"]:
        yield from section("Metrics by source", (escape(tables.SOURCES), table(*tables.sources_table(test))))
    yield from _learnt(report)
    if report.robustness:
        yield from section("Robustness", (escape(f"{robustness.QUESTION} In short: {report.robustness.headline}."),
                                           table(*robustness.robustness_table(report.robustness))))  # fmt: skip
    captions = {name: standard.caption(name) or CAPTION.get(name, name) for name in report.figures}
    yield from section("Figures", _figures((captions[name], figure) for name, figure in report.figures.items()))
    yield from _mistakes(report)
    yield from section("Figures of this detector", _figures(report.extra_figures.items()))
    for title, rows in report.extra_tables.items():
        yield from section(title, [table(rows.columns, rows.itertuples(index=False))])
    yield from _data(report)
    if report.leaks:
        yield from section("Leaks", [tables.LEAKS, table(["looked for", "found"], report.leaks)])
    yield from _reproduction(report)


def _summary(report: Report) -> Iterator[str]:
    test = report.metrics["test"]
    tiles = [[unescape(big), name, small] for big, name, small in summary.headline_tiles(test, report.shortcuts)]
    yield from section("Summary", (f"**{escape(grade(report))}**", escape(summary.lead(report)),
                                    table(["figure", "what", "note"], tiles), escape(summary.base_rates(test))))  # fmt: skip
    for kind, title, sentences in summary.lists(report):
        yield from bullets(title, sentences, level=3, commands=kind == "next")
    yield escape(summary.scope(report))


def _adaptation(found: Adaptation | None) -> Iterator[str]:
    if not found:
        return
    yield from section("Before and after", [escape(found.origin)])
    for part in found.parts:
        yield f"### {escape(part.title)}"
        yield escape(" ".join(filter(None, (part.lead, part.note))))
        yield table(HEADER, part.rows)
        yield f"The verdict changes for {len(part.flips):,} of {plural(part.n_real + part.n_fake, 'file')}."


def _verdicts(found: Mapping[str, Any] | None) -> Iterator[str]:
    if not found:
        return
    unfamiliar = verdicts.unfamiliar_sentence(found["unfamiliar"]) if found.get("unfamiliar") else ""
    yield from section("Verdicts", (escape(verdicts.band_sentence(found)), table(*verdicts.verdicts_table(found)),
                                     escape(f"{verdicts.precision_sentence(found)} {unfamiliar}".strip())))  # fmt: skip


def _learnt(report: Report) -> Iterator[str]:
    found = report.learnt
    if found and found.stress:
        yield from section("What it learnt", (escape(f"{learnt.QUESTION} {found.conclusion}".strip()), escape(learnt.ALTERED),
                                               table(*learnt.stress_table(found, report.shortcuts.get("all"))),
                                               escape(found.equalised_note)))  # fmt: skip


def _mistakes(report: Report) -> Iterator[str]:
    header = ["file", "label", "source", "probability of being fake", *(["check of its heat-map"] if report.heat_maps else [])]
    rows = [[path, ("real", "fake")[label], source, f"{100 * probability:.1f} %",
             *([found.check if (found := report.heat_maps.get(path)) else None] if report.heat_maps else [])]
            for path, label, source, probability, _ in report.mistakes]  # fmt: skip
    if rows:
        yield from section("Most confident mistakes", [table(header, rows), escape(tables.TRUST) if report.heat_maps else ""])


def _data(report: Report) -> Iterator[str]:
    blocks = [table(*tables.data_table(report.data))] if report.data is not None else []
    for title, rows in (("Could not be read or scored", report.failures), ("Used despite a problem", report.notes)):
        if rows:
            shown = f"; the first {tables.MAX_ROWS} are listed" if len(rows) > tables.MAX_ROWS else ""
            blocks += [f"### {title}", f"{plural(len(rows), 'file')}{shown}.", table(["file", "reason"], rows[: tables.MAX_ROWS])]
    yield from section("Data", blocks)


def _reproduction(report: Report) -> Iterator[str]:
    blocks = ["This command repeats the run:", _code(report.command)] if report.command else []
    blocks.append(escape(tables.seeds_sentence(report.settings)))
    for title, values, kind in tables.reproduction_tables(report):
        blocks += [f"### {title}", table([kind, "value"], tables.flatten(values))] if values else []
    yield from section("Reproducing this run", blocks)


def section(title: str, blocks: Iterable[str]) -> Iterator[str]:
    """Yield a heading and the blocks below it, nothing if all are empty."""
    if found := [*filter(None, blocks)]:
        yield f"## {escape(title)}"
        yield from found


def bullets(title: str, sentences: Sequence[str], level: int = 2, commands: bool = False) -> Iterator[str]:
    """Yield a heading and a list of sentences, nothing without any. With `commands`, text in backticks is code."""
    if sentences:
        yield f"{'#' * level} {escape(title)}"
        yield "\n".join(f"- {_prose(text) if commands else escape(text)}" for text in sentences)


def _figures(figures: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Yield links to the figures that are files; they are relative to the folder that holds plots/."""
    for caption, figure in figures:
        if isinstance(figure, Path):
            yield f"![{escape(caption)}]({quote(f'{figure.parent.name}/{figure.name}')})"


def table(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table in GitHub's Markdown. pandas' `to_markdown` needs another package and escapes nothing."""
    lines = [[*map(escape, map(str, header))], *([escape(html.plain_cell(cell)) for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def escape(text: str) -> str:
    """Return text as one line in which Markdown and HTML find no markup."""
    return SPECIAL.sub(r"\\\g<0>", re.sub(r"\s+", " ", text))


def _prose(text: str) -> str:
    """Return a sentence in which text in backticks is code."""
    return "".join(f"`{part}`" if odd % 2 else escape(part) for odd, part in enumerate(html.COMMAND.split(text)))


def _code(text: str) -> str:
    """Return a block of code, fenced by more backticks than it has in a row."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"
