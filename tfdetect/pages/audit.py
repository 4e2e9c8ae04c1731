"""The page of an audit: the conclusion and what to do about it, then the composition of the data set."""

from collections.abc import Mapping, Sequence
from html import escape
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from tfdetect.data.audit import duplicates
from tfdetect.data.audit.shortcuts import SEVERE_AUC, WARNING_AUC
from tfdetect.files import plural
from tfdetect.pages import html
from tfdetect.plots import standard

MAX_ROWS = 30  # of each kind of finding
MAX_VALUES = 12  # of each property
SHORTCUT_LEARNED = "a detector trained on this data set learns the file format, not the forgery"
PROPERTY_TITLES = {
    "source": "Source", "split": "Split", "size": "Size in pixels", "extension": "Extension", "container": "Container",
    "codec": "Codec", "subsampling": "Chroma subsampling or mode", "jpeg_quality": "JPEG quality (estimated)",
    "fps": "Frames per second", "duration": "Duration in seconds"}  # fmt: skip


def write(path: str | PathLike[str], name: str, found: Mapping[str, Any], properties: pd.DataFrame) -> None:
    """Write the page to `path`. `found` is the content of audit.json, `properties` has one row per file with its path."""
    counts = found["counts"]
    subtitle = "{real} real and {fake} fake files".format(**counts["label"]) + f", {counts['unreadable']} of them unreadable"
    if ignored := sum(counts["others"].values()):
        kinds = ", ".join(f"{count} {name}" for name, count in counts["others"].items())
        subtitle += f"; {plural(ignored, 'other file')} left out ({kinds})"
    small = {} if "small" not in properties else dict(zip(properties["path"], properties["small"], strict=True))
    html.write(path, "audit", name, subtitle, (
        _summary_section(found), _shortcuts_section(found), _leaks_section(found["leaks"]),
        _duplicates_section(found["duplicates"], small), _counts_section(counts),
        _failures_section(found["failures"])))  # fmt: skip


def verdict(found: Mapping[str, Any]) -> str:
    """Return the conclusion of an audit in one or two sentences. `found` is the content of audit.json."""
    container = [warning for warning in found["warnings"] if warning["kind"] == "container"]
    worst = max((warning["auc"] for warning in container), default=0.0)
    leaks = [leak for leak in found["leaks"] if leak["splits"]]
    latent = len(found["leaks"]) - len(leaks)
    contradictions = sum(map(duplicates.has_contradicting_labels, found["duplicates"]))
    findings = []
    if worst > SEVERE_AUC:
        names = _property_names(container, SEVERE_AUC)
        findings.append(f"{SHORTCUT_LEARNED}: {', '.join(names)} reveal{'s' * (len(names) == 1)} the label")
    elif container:
        findings.append(f"{', '.join(_property_names(container, WARNING_AUC))} may be learned instead of the forgery")
    if leaks:
        make = "makes" if len(leaks) == 1 else "make"
        findings.append(f"{plural(len(leaks), 'leak')} between splits {make} test results look better than they are")
    if latent:
        sets = f"{plural(latent, 'set')} of copies in different groups"
        findings.append(f"{sets} would leak when the data are split by group")
    if contradictions:
        are = "is" if contradictions == 1 else "are"
        findings.append(f"{plural(contradictions, 'set')} of identical files {are} labelled both real and fake")
    ungrouped = "" if found["groups"]["known"] else (
        " No groups are given, though, so the audit cannot tell whether files of one person or recording are in several splits.")
    if not findings:
        if not found["shortcuts"]:
            return f"Shortcuts could not be measured: that takes real and fake files, each in at least two groups.{ungrouped}"
        content = " The content of the two classes differs, though." if found["warnings"] else ""
        return f"No property of the file format reveals the label, and no copies leak between splits.{content}{ungrouped}"
    text = "; ".join(findings)
    return f"{text[0].upper()}{text[1:]}.{ungrouped}"


def _property_names(warnings: Sequence[Mapping[str, Any]], above: float) -> list[str]:
    """Return the properties with an AUC above a limit, without combinations of several unless there is nothing else."""
    keys = [warning["property"] for warning in warnings if warning["auc"] > above]
    return [standard.property_name(key) for key in [key for key in keys if not key.startswith("all")] or keys]


def _summary_section(found: Mapping[str, Any]) -> str:
    best, auc = max(found["shortcuts"].items(), key=lambda item: item[1], default=("", None))
    counts = found["counts"]
    leaks = sum(bool(leak["splits"]) for leak in found["leaks"])
    tiles = [
        (html.format_cell(auc), "best shortcut AUC", standard.property_name(best) or "not measured"),
        (leaks, "leaks between splits", "groups, copies or near copies in several splits"),
        (len(found["duplicates"]), "sets of duplicates", "exact copies, or near copies in different groups"),
        (counts["unreadable"], "unreadable files", f"of {counts['files']}")]  # fmt: skip
    lead = f'<p class="lead">{escape(verdict(found))}</p><p>{escape(found["groups"]["said"])}</p>'
    return f'<section class="verdict"><h2>Summary</h2>{lead}{html.tiles(tiles)}</section>'


def _shortcuts_section(found: Mapping[str, Any]) -> str:
    rows = [(standard.property_name(warning["property"]), warning["auc"], warning["kind"], _severity(warning), warning["advice"])
            for warning in found["warnings"]]  # fmt: skip
    table = html.table(["property", "AUC", "kind", "meaning", "what to do"], rows) if rows else (
        f"<p>No property has an AUC above {WARNING_AUC} that is also clearly better than chance for this number of files.</p>")
    note = ("<p>Container: how a file was created and stored. Content: what the image shows; a difference may be the forgery "
            "itself, or the two classes may simply show different things.</p>")  # fmt: skip
    caption = standard.caption("shortcuts")
    drawn = standard.shortcuts(found["shortcuts"], WARNING_AUC, SEVERE_AUC, found.get("shortcut_intervals", {}))
    figure = html.figure_section("All properties", [(caption, drawn)])
    return f"<section><h2>Shortcuts</h2>{note}{table}</section>{figure}"


def _severity(warning: Mapping[str, Any]) -> str:
    severe = warning["auc"] > SEVERE_AUC
    if warning["kind"] == "content":
        return "the classes have little content in common" if severe else "the classes show different things"
    return SHORTCUT_LEARNED if severe else "may be learned instead of the forgery"


def _leaks_section(leaks: Sequence[Mapping[str, Any]]) -> str:
    if not leaks:
        return ""
    rows = [(leak["kind"], " and ".join(leak["splits"]) or "groups (no split yet)", _join_paths(leak["paths"]), leak["advice"])
            for leak in leaks[:MAX_ROWS]]  # fmt: skip
    table = html.table(["kind", "between", "files", "what to do"], rows)
    return f"<section><h2>Leaks</h2>{_truncation_note(leaks)}{table}</section>"


def _duplicates_section(sets: Sequence[Mapping[str, Any]], small: Mapping[str, Any]) -> str:
    if not sets:
        return ""
    shown = "".join(
        f"<tr><td>{entry['kind']}</td><td>{_thumbnails(entry['paths'], small)}</td><td>{escape(_join_paths(entry['paths']))}</td>"
        f"<td>{escape(', '.join(entry['across']) or 'nothing')}</td><td>{escape(entry['advice'])}</td></tr>"
        for entry in sets[:MAX_ROWS])  # fmt: skip
    head = "".join(f"<th>{name}</th>" for name in ("kind", "", "files", "differ in", "what to do"))
    return (f"<section><h2>Duplicates</h2>{_truncation_note(sets)}<div class='scroll'><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{shown}</tbody></table></div></section>")  # fmt: skip


def _thumbnails(paths: Sequence[str], small: Mapping[str, Any]) -> str:
    """Return the small grey images by which the first two files of a set were compared."""
    images = [small[path][0] for path in paths[:2] if path in small and small[path] is not None and len(small[path])]
    return "".join(f'<img alt="" width=64 height=64 src="{html.thumbnail(np.repeat(image[..., None], 3, axis=2))}"> '
                   for image in images)  # fmt: skip


def _counts_section(counts: Mapping[str, Any]) -> str:
    out = []
    for key, title in PROPERTY_TITLES.items():
        values = {name or "(none)": by_label for name, by_label in counts[key].items()}
        if set(values) <= {"none", "(none)"}:
            continue
        rows = [(name, by_label["real"], by_label["fake"]) for name, by_label in list(values.items())[:MAX_VALUES]]
        more = f"<p class=fine>and {plural(len(values) - MAX_VALUES, 'other value')}</p>" if len(values) > MAX_VALUES else ""
        out.append(f"<div><h3>{title}</h3>{html.table(['', 'real', 'fake'], rows)}{more}</div>")
    return f'<section><h2>Composition</h2><div class="figures">{"".join(out)}</div></section>'


def _failures_section(failures: Sequence[Mapping[str, str]]) -> str:
    if not failures:
        return ""
    rows = [(failure["path"], failure["reason"]) for failure in failures[:MAX_ROWS]]
    return f"<section><h2>Unreadable files</h2>{_truncation_note(failures)}{html.table(['file', 'reason'], rows)}</section>"


def _truncation_note(entries: Sequence[Any]) -> str:
    return f"<p>The first {MAX_ROWS} of {len(entries)}; audit.json lists all.</p>" if len(entries) > MAX_ROWS else ""


def _join_paths(paths: Sequence[str]) -> str:
    return "; ".join(paths[:3]) + (f"; and {len(paths) - 3} more" if len(paths) > 3 else "")
