"""The page of a case report: self-contained, without scripts, fit for printing and filing."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

from tfdetect.files import plural, printable
from tfdetect.pages import html, timeline
from tfdetect.pages.case_content import (
    INTERVAL,
    STABILITY,
    USE,
    Case,
    CaseFile,
    Finding,
    Model,
    conclusion,
    file_caveats,
    meaning,
    sound_sentence,
)
from tfdetect.pages.origin import origin_section
from tfdetect.plots.style import FAKE, REAL

PARTS = {"interval": "Interval of the probability", "places": "Place among the test files", "heat_map": "Heat-map",
         "stability": "Stability", "familiarity": "Familiarity", "timeline": "Scores over time"}  # fmt: skip
CHECK = ("<p>Each map is checked: if hiding its hottest tenth does not lower the score by more than hiding the same shape "
         "elsewhere does, do not rely on it. A map shows what a detector looks at; it proves nothing.</p>")  # fmt: skip
STYLE = """<style>
.case{display:grid;grid-template-columns:minmax(0,15rem) minmax(0,1fr);gap:1rem 1.5rem;align-items:start}
.case>img{width:100%;height:auto;border-radius:6px} .case p{margin-top:0}
.heat{max-width:44rem} .case .tile b{font-size:1.1rem} .case .tiles{grid-template-columns:repeat(auto-fit,minmax(9.4rem,1fr))}
.case>div:only-child{grid-column:1/-1}
.heat img{max-width:100%;height:auto} .histogram{width:100%;max-width:40rem;height:auto;display:block;margin:.6rem 0}
.histogram text{font-size:11px;fill:currentColor} .missing{font-size:.9rem} .crops{display:flex;flex-wrap:wrap;gap:.8rem}
article+article{margin-top:4rem}
@media (max-width:40rem){.case{grid-template-columns:1fr} .case .tile{padding:.8rem .6rem}}
@media print{article+article{break-before:page} .case>img{max-height:7cm;object-fit:contain}}
</style>"""


def write(path: str | PathLike[str], case: Case) -> None:
    """Write the page to `path`."""
    name = printable(Path(case.files[0].path).name) if len(case.files) == 1 else plural(len(case.files), "file")
    judged = " and ".join(model.name for model in case.models)
    html.write(path, "case report", name, f"judged by {judged}; {case.date}; tfdetect {case.versions.get('tfdetect', '')}",
               [STYLE, left_out(case), *(file_article(case, file) for file in case.files), models_section(case),
                use_section(case)])  # fmt: skip


def left_out(case: Case) -> str:
    """Return a warning about files that were not judged."""
    if not case.left_out:
        return ""
    names = html.bullet_list([printable(path) for path in case.left_out])
    return f'<section class="warning"><h2>Incomplete: interrupted before these files were judged</h2>{names}</section>'


def file_article(case: Case, file: CaseFile) -> str:
    """Return all that is to be said about a file."""
    pairs = list(zip(case.models, file.findings, strict=True))
    scored = [(model, finding) for model, finding in pairs if finding.verdict["error"] is None]
    sections = [verdict_section(file, pairs), origin_section(file.origin)]
    if scored:
        sections += [meaning_section(scored), stability_section(scored), heat_section(scored), *timelines(scored),
                     seen_section(scored), missing_section(scored)]  # fmt: skip
    return f"<article>{''.join(filter(None, sections))}</article>"


def verdict_section(file: CaseFile, pairs: Sequence[tuple[Model, Finding]]) -> str:
    """Return the verdicts of all models, and what to be careful about."""
    image = f'<img alt="the file" src="{html.thumbnail(file.picture, side=480)}">' if file.picture is not None else ""
    text = "".join(f'<p class="lead">{escape(printable(conclusion(*pair)))}</p>' for pair in pairs)
    caveats = [f"{model.name}: {text}" if len(pairs) > 1 else text
               for model, finding in pairs for text in (*file_caveats(finding), *model.doubts)]  # fmt: skip
    verdicts = {finding.verdict["verdict"] for _, finding in pairs} - {None}
    if len(verdicts) > 1:
        caveats.insert(0, "The detectors disagree.")
    careful = f'<div class="careful"><h3>Careful</h3>{html.bullet_list(caveats)}</div>' if caveats else ""
    sound = f'<p class="fine">{sound_sentence(file)}</p>' if file.kind == "video" else ""
    tiles = "".join(figures(*pair, name=len(pairs) > 1) for pair in pairs)
    return (f'<section class="verdict"><h2><code>{escape(printable(file.path))}</code></h2>'
            f'<div class="case">{image}<div>{text}{tiles}{careful}{sound}</div></div></section>')  # fmt: skip


def figures(model: Model, finding: Finding, name: bool) -> str:
    """Return the key figures of a verdict, under the name of the model if it is one of several."""
    found = finding.verdict
    if found["error"] is not None:
        return ""
    interval = f"calibration {html.format_cell(finding.interval)}" if finding.interval else "no interval"
    band = f"; inconclusive {html.format_cell(model.inconclusive)}" if model.inconclusive else ""
    tiles = [(escape(found["verdict"]), "verdict", f"fake from {model.threshold:.3f}{band}"),
             (html.format_cell(found["probability"]), "probability of being fake", interval),
             (html.format_cell(found["score"]), "score", plural(found["frames"], "frame"))]  # fmt: skip
    if found.get("familiarity") is not None:
        small = found["unfamiliar_reason"] if found["unfamiliar"] else "like the training files"
        tiles.append((f"p = {found['familiarity']:.2g}", "familiarity", small))
    if finding.judged:
        tiles.append((f"{len(finding.changes)} of {len(finding.judged)}", "re-encodings change the verdict", ""))
    if found["source"]:
        share = f"{found['source_probability']:.2f}, if it is fake"
        tiles.append((escape(printable(found["source"])), "most likely source", share))
    return (f"<h3>{escape(model.name)}</h3>" if name else "") + html.tiles(tiles)


def meaning_section(scored: Sequence[tuple[Model, Finding]]) -> str:
    """Return what the probabilities and scores mean."""
    parts = [f"{_heading(model, scored)}{html.bullet_list(meaning(model, finding))}{score_chart(model, finding.verdict['score'])}"
             for model, finding in scored]  # fmt: skip
    note = INTERVAL if any(finding.interval for _, finding in scored) else ""
    return f"<section><h2>What it means</h2>{''.join(parts)}<p>{note}</p></section>"


def _heading(model: Model, scored: Sequence[Any]) -> str:
    return f"<h3>{escape(model.name)}</h3>" if len(scored) > 1 else ""


def score_chart(model: Model, score: float) -> str:
    """Return the test files' scores by class, reals upwards and fakes downwards, and where this file's is, as an SVG; "" without
    test files."""
    if model.histogram is None:
        return ""
    edges, *counts = model.histogram
    low, high = min(edges[0], score), max(edges[-1], score)
    width, middle, scale = 640.0, 70.0, 60.0 / max(1, *counts[0], *counts[1])

    def x(value: float) -> float:
        return 10 + (width - 20) * (value - low) / ((high - low) or 1)

    bars = "".join(f'<rect x="{x(edges[n]):.1f}" y="{middle - (0 if down else count * scale):.1f}" '
                   f'width="{max(0.5, x(edges[n + 1]) - x(edges[n]) - 0.5):.1f}" height="{count * scale:.1f}" fill="{colour}">'
                   f"<title>{plural(count, f'{kind} test file')}, score {edges[n]:.3g} to {edges[n + 1]:.3g}</title></rect>"
                   for kind, colour, down, values in (("real", REAL, False, counts[0]), ("fake", FAKE, True, counts[1]))
                   for n, count in enumerate(values) if count)  # fmt: skip
    here = x(score)
    anchor = "start" if here < width / 2 else "end"
    named = 'role="img" aria-label="Scores of the test files and of this file"'
    return (f'<svg class="histogram" viewBox="0 0 {width:.0f} 160" {named}>{bars}'
            f'<line x1="10" x2="{width - 10:.0f}" y1="{middle}" y2="{middle}" stroke="currentColor" stroke-width=".5"/>'
            f'<line x1="{here:.1f}" x2="{here:.1f}" y1="2" y2="138" stroke="currentColor" stroke-width="2"/>'
            f'<text x="{here:.1f}" y="150" text-anchor="{anchor}">this file, score {score:.3f}</text>'
            '</svg><p class="fine">Scores of the test files: reals upwards (blue), fakes downwards (orange).</p>')  # fmt: skip


def stability_section(scored: Sequence[tuple[Model, Finding]]) -> str:
    """Return the verdicts after each re-encoding, of all models side by side."""
    scored = [pair for pair in scored if pair[1].stability]  # of one file, all or none
    if not scored:
        return ""
    several = len(scored) > 1
    header = ["re-encoding", *(f"{model.name}: {name}" if several else name
                               for model, _ in scored for name in ("verdict", "probability", "score"))]  # fmt: skip
    rows: list[list[Any]] = [["none, the file as it is", *(cell for _, finding in scored for cell in _cells(finding.verdict))]]
    for number, each in enumerate(scored[0][1].stability):
        others = [(finding, finding.stability[number]) for _, finding in scored]
        rows.append([each.name, *(cell for finding, other in others for cell in _cells(vars(other), finding.verdict["verdict"]))])
    return f"<section><h2>How it holds</h2><p>{STABILITY}</p>{html.table(header, rows)}</section>"


def _cells(found: Mapping[str, Any], before: str | None = None) -> list[Any]:
    """Return verdict, probability and score; a verdict that has changed says so."""
    if found["error"] is not None:
        return [f"none: {found['error']}", None, None]
    changed = " (changed)" if before not in (None, found["verdict"]) else ""
    reason = f", {found['unfamiliar_reason']}" if found.get("unfamiliar_reason") else ""
    return [f"{found['verdict']}{reason}{changed}", found["probability"], found["score"]]


def heat_section(scored: Sequence[tuple[Model, Finding]]) -> str:
    """Return the heat-maps with their checks."""
    maps = [(model, finding.heat_map) for model, finding in scored if finding.heat_map]
    shown = [f'{_heading(model, scored)}<figure class="heat"><img alt="heat-map" src="{_png(heat.picture)}">'
             f"<figcaption>{escape(heat.result)}</figcaption></figure>" for model, heat in maps]  # fmt: skip
    notes = "".join(f"<p>{escape(note)}</p>" for note in dict.fromkeys(heat.note for _, heat in maps))
    return f"<section><h2>What drives the score</h2>{notes}{CHECK}{''.join(shown)}</section>" if shown else ""


def _png(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def timelines(scored: Sequence[tuple[Model, Finding]]) -> Iterator[str]:
    """Yield the sections on scores over time."""
    for model, finding in scored:
        if finding.timeline:
            yield timeline.section(finding.timeline, "Scores over time" + f", {model.name}" * (len(scored) > 1))


def seen_section(scored: Sequence[tuple[Model, Finding]]) -> str:
    """Return what the models saw, and the score of each face."""
    crops, tables = [], []
    for model, finding in scored:
        faces = finding.verdict.get("faces") or ()
        names = [f"{model.name}: {name}" if len(scored) > 1 else name
                 for name in [f"face {face['face']}" for face in faces] or ["middle of what was scored"]]  # fmt: skip
        crops += [f'<figure><img alt="" src="{html.thumbnail(image)}"><figcaption>{escape(name)}</figcaption></figure>'
                  for name, image in zip(names, finding.seen, strict=False)]  # fmt: skip
        places = ["{2} x {3} at {0}, {1}".format(*face["box"]) for face in faces]
        rows = [[face["face"], face["probability"], face["score"], place, face["box_frame"]]
                for face, place in zip(faces, places, strict=True)]  # fmt: skip
        if rows:
            tables.append(_heading(model, scored) + html.table(["face", "probability", "score", "pixels", "frame"], rows))
    return (f'<section><h2>What the detector saw</h2><div class="crops">{"".join(crops)}</div>'
            f"{''.join(tables)}</section>")  # fmt: skip


def missing_section(scored: Sequence[tuple[Model, Finding]]) -> str:
    """Return which parts are missing, and why."""
    rows = [f"{PARTS[name]}{f' ({model.name})' if len(scored) > 1 else ''}: {reason}."
            for model, finding in scored for name, reason in finding.missing.items()]  # fmt: skip
    return f'<section class="missing"><h2>Not in this report</h2>{html.bullet_list(rows)}</section>' if rows else ""


def models_section(case: Case) -> str:
    """Return what is known about the detectors."""
    return f"<section><h2>Which detector judged</h2>{''.join(map(_model, case.models))}</section>"


def _model(model: Model) -> str:
    facts = [("detector", model.detector), ("run", model.folder), ("version", model.version), ("scored with", model.scored_with),
             ("settings", model.settings), *((f"SHA-256 of {name}", value) for name, value in model.hashes.items())]  # fmt: skip
    known = html.table(("split", "class", "source", "files"), model.training)
    training = f"<h3>Files it was trained and tested on</h3>{known}" if model.training else ""
    caveats = f'<div class="careful"><h3>Caveats</h3>{html.bullet_list(model.caveats)}</div>' if model.caveats else ""
    said = " ".join(filter(None, (model.card.get("headline"), model.card.get("use"))))
    quoted = f'<p>Its model card says: <q>{escape(said)}</q></p>' if said else "<p>It has no model card.</p>"
    return (f"<h3>{escape(model.name)}</h3><p>{escape(model.measured)} {escape(model.calibration)}</p>{quoted}{caveats}"
            f"{html.table(('what', 'value'), [row for row in facts if row[1]])}{training}")  # fmt: skip


def use_section(case: Case) -> str:
    """Return what the report must not be used for, and how it was made."""
    unfit = [text for model in case.models for text in model.unfit]
    versions = ", ".join(f"{name} {version}" for name, version in case.versions.items())
    command = f"<pre>{escape(printable(case.command))}</pre>" if case.command else ""
    return (f"<section><h2>What it must not be used for</h2>{html.bullet_list([*unfit, *USE])}</section>"
            f"<section><h2>How it was made</h2>{command}<p>{escape(case.date)}; {escape(versions)}</p></section>")  # fmt: skip
