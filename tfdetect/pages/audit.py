"""The page of an audit: first what to do, then what the data are made of."""

from collections.abc import Mapping, Sequence
from html import escape
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from tfdetect.data.audit import duplicates
from tfdetect.data.audit.shortcuts import FATAL, SUSPECT
from tfdetect.files import plural
from tfdetect.pages import html
from tfdetect.plots import standard

SHOWN = 30  # of each kind of finding
VALUES = 12  # of each property
LEARNT = "a detector trained on this learns the container, not the fake"
COUNTED = {"source": "Source", "split": "Split", "size": "Size in pixels", "extension": "Extension", "container": "Container",
           "codec": "Codec", "subsampling": "Chroma subsampling or mode", "jpeg_quality": "JPEG quality, estimated",
           "fps": "Frames a second", "duration": "Duration, seconds"}  # fmt: skip


def write(path: str | PathLike[str], name: str, found: Mapping[str, Any], properties: pd.DataFrame) -> None:
    """Write the page of these findings, as `audit.json` holds them, to `path`."""
    counts = found["counts"]
    subtitle = "{real} real and {fake} fake files".format(**counts["label"]) + f", {counts['unreadable']} of them unreadable"
    if left := sum(counts["others"].values()):
        subtitle += f"; {left} others left out ({', '.join(f'{count} {name}' for name, count in counts['others'].items())})"
    small = {} if "small" not in properties else dict(zip(properties["path"], properties["small"], strict=True))
    html.write(path, "audit", name, subtitle, (
        _verdict(found), _shortcuts(found), _leaks(found["leaks"]), _duplicates(found["duplicates"], small),
        _counts(counts), _failures(found["failures"])))  # fmt: skip


def verdict(found: Mapping[str, Any]) -> str:
    """The one sentence to take home."""
    container = [warning for warning in found["warnings"] if warning["kind"] == "container"]
    worst = max((warning["auc"] for warning in container), default=0.0)
    leaks = [leak for leak in found["leaks"] if leak["splits"]]
    would = len(found["leaks"]) - len(leaks)
    torn = sum(map(duplicates.contradiction, found["duplicates"]))
    said = []
    if worst > FATAL:
        said.append(f"{LEARNT}: {', '.join(_names(container, FATAL))} tell{'s' * (len(_names(container, FATAL)) == 1)} the label")
    elif container:
        said.append(f"{', '.join(_names(container, SUSPECT))} may be learnt in place of the fake")
    if leaks:
        make = "makes" if len(leaks) == 1 else "make"
        said.append(f"{plural(len(leaks), 'leak')} between splits {make} a test look better than the detector is")
    if would:
        sets = f"{plural(would, 'set')} of copies in several groups"
        said.append(f"{sets} would leak once a split is made by group")
    if torn:
        said.append(f"{torn} file{' is' if torn == 1 else 's are'} labelled both real and fake")
    alone = "" if found["groups"]["known"] else (
        " No groups are given, though: whether files of one person or recording stand on both sides was not looked at.")
    if not said:
        if not found["shortcuts"]:
            return f"No shortcut could be measured: that takes real and fake files, each in at least two groups.{alone}"
        content = " What the pictures show differs, though." if found["warnings"] else ""
        return f"No property of the container tells the label, and no copy leaks between splits.{content}{alone}"
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}.{alone}"


def _names(warnings: Sequence[Mapping[str, Any]], above: float) -> list[str]:
    names = [w["property"].replace("_", " ") for w in warnings if w["auc"] > above]
    return [name for name in names if not name.startswith("all")] or names


def _verdict(found: Mapping[str, Any]) -> str:
    best = max(found["shortcuts"].items(), key=lambda item: item[1], default=None)
    counts = found["counts"]
    leaks = sum(bool(leak["splits"]) for leak in found["leaks"])
    tiles = [(html.cell(best[1] if best else None), "best shortcut's AUC", best[0].replace("_", " ") if best else "not measured"),
             (leaks, "leaks between splits", "of groups, copies or near copies"),
             (len(found["duplicates"]), "sets of duplicates", "exact, or near in another group"),
             (counts["unreadable"], "unreadable files", f"of {counts['files']}")]  # fmt: skip
    shown = "".join(f'<div class="tile"><b>{big}</b><span>{what}</span><small>{escape(small)}</small></div>'
                    for big, what, small in tiles)  # fmt: skip
    lead = f'<p class="lead">{escape(verdict(found))}</p><p>{escape(found["groups"]["said"])}</p>'
    return f'<section class="verdict"><h2>In short</h2>{lead}<div class="tiles">{shown}</div></section>'


def _shortcuts(found: Mapping[str, Any]) -> str:
    rows = [(warning["property"].replace("_", " "), warning["auc"], warning["kind"], _severity(warning), warning["advice"])
            for warning in found["warnings"]]  # fmt: skip
    table = html.table(["property", "AUC", "kind", "what it means", "what to do"], rows) if rows else (
        "<p>None tells the label better than chance would among so few files, or better than 0.65.</p>")  # fmt: skip
    note = ("<p>Container: what comes from how a file was made and stored. Content: what the picture shows; that may be the fake "
            "itself, or that the two classes show different things.</p>")  # fmt: skip
    caption = standard.caption("shortcuts")
    figure = html.figures("Every property", [(caption, standard.shortcuts(found["shortcuts"], SUSPECT, FATAL))])
    return f"<section><h2>Shortcuts</h2>{note}{table}</section>{figure}"


def _severity(warning: Mapping[str, Any]) -> str:
    if warning["kind"] == "content":
        return "the classes show different things" if warning["auc"] <= FATAL else "the classes hardly show the same things"
    return LEARNT if warning["auc"] > FATAL else "may be learnt in place of the fake"


def _leaks(leaks: Sequence[Mapping[str, Any]]) -> str:
    if not leaks:
        return ""
    rows = [(leak["kind"], " and ".join(leak["splits"]) or "no split yet, several groups", _some(leak["paths"]), leak["advice"])
            for leak in leaks[:SHOWN]]  # fmt: skip
    return f"<section><h2>Leaks</h2>{_first(leaks)}{html.table(['kind', 'between', 'files', 'what to do'], rows)}</section>"


def _duplicates(sets: Sequence[Mapping[str, Any]], small: Mapping[str, Any]) -> str:
    if not sets:
        return ""
    shown = "".join(
        f"<tr><td>{entry['kind']}</td><td>{_pictures(entry['paths'], small)}</td><td>{escape(_some(entry['paths']))}</td>"
        f"<td>{escape(', '.join(entry['across']) or 'nothing')}</td><td>{escape(entry['advice'])}</td></tr>"
        for entry in sets[:SHOWN])  # fmt: skip
    head = "".join(f"<th>{name}</th>" for name in ("kind", "", "files", "differ in", "what to do"))
    return (f"<section><h2>Duplicates</h2>{_first(sets)}<div class='scroll'><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{shown}</tbody></table></div></section>")  # fmt: skip


def _pictures(paths: Sequence[str], small: Mapping[str, Any]) -> str:
    """The first two of a set, as the grey pictures by which they were compared."""
    pictures = [small[path][0] for path in paths[:2] if path in small and small[path] is not None and len(small[path])]
    return "".join(f'<img alt="" width=64 height=64 src="{html.thumbnail(np.repeat(picture[..., None], 3, axis=2))}"> '
                   for picture in pictures)  # fmt: skip


def _counts(counts: Mapping[str, Any]) -> str:
    parts = []
    for key, title in COUNTED.items():
        values = {name or "(none)": found for name, found in counts[key].items()}
        if set(values) <= {"none", "(none)"}:
            continue
        rows = [(name, found["real"], found["fake"]) for name, found in list(values.items())[:VALUES]]
        more = f"<p class=fine>and {len(values) - VALUES} other values</p>" if len(values) > VALUES else ""
        parts.append(f"<div><h3>{title}</h3>{html.table(['', 'real', 'fake'], rows)}{more}</div>")
    return f'<section><h2>What it is made of</h2><div class="figures">{"".join(parts)}</div></section>'


def _failures(failures: Sequence[Mapping[str, str]]) -> str:
    if not failures:
        return ""
    rows = [(failure["path"], failure["reason"]) for failure in failures[:SHOWN]]
    return f"<section><h2>Unreadable</h2>{_first(failures)}{html.table(['file', 'reason'], rows)}</section>"


def _first(entries: Sequence[Any]) -> str:
    return f"<p>The first {SHOWN} of {len(entries)}; all are in audit.json.</p>" if len(entries) > SHOWN else ""


def _some(paths: Sequence[str]) -> str:
    return "; ".join(paths[:3]) + (f"; and {len(paths) - 3} more" if len(paths) > 3 else "")
