"""Building blocks of the HTML pages: escaped text, tables and images in one self-contained file.

All text from outside, file names above all, is escaped. Besides, a Content-Security-Policy forbids the page to load anything but
videos beside it, and to run anything but page.js, which it allows by its hash. Pages are complete without that script.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from os import PathLike
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tfdetect.plots.style import VALUES, to_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCRIPT = Path(__file__).with_name("page.js")
THUMBNAIL_SIDE = 160  # pixels
DASH = "\u2013"
COMMAND = re.compile(r"`([^`]+)`")


def write(path: str | PathLike[str], kind: str, name: str, subtitle: str, sections: Iterable[str]) -> None:
    """Write a page of the given kind ("report", "audit") to `path`; empty sections are skipped."""
    script = SCRIPT.read_text(encoding="utf-8")
    page = PAGE.substitute(kind=kind, name=escape(name), subtitle=escape(subtitle), style=STYLE, script=script,
                           hash=source_hash(script), body="\n".join(filter(None, sections)))  # fmt: skip
    # File names that are not valid UTF-8 contain surrogates, which cannot be encoded; they are written as \udc...
    Path(path).write_text(page, encoding="utf-8", errors="backslashreplace")


def source_hash(script: str) -> str:
    """Return the source expression of Content Security Policy Level 3, section 2.3.1, that allows exactly this inline script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def head(page: str) -> str:
    """Return a page without its sections from the first one of figures on."""
    before, figures, _ = page.partition('<div class="figures">')
    return before.rpartition("<section>")[0] + "</body></html>" if figures else page


def bullet_list(sentences: Sequence[str], commands: bool = False) -> str:
    """Return an HTML list of escaped sentences, or "" if there are none. With `commands`, text in backticks is code."""
    items = (COMMAND.sub(r"<code>\1</code>", escape(text)) if commands else escape(text) for text in sentences)
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>" if sentences else ""


def table(header: Iterable[Any], rows: Iterable[Iterable[Any]], foot: int = 0) -> str:
    """Return an HTML table that scrolls sideways on narrow screens. Cells are formatted by `format_cell`; numbers do not wrap.

    The page's script makes it sortable, but for so many last rows, the `foot`, such as a mean of the others.
    """
    head = "".join(f"<th>{escape(str(name))}</th>" for name in header)
    cells = (((" class=n" * (not isinstance(value, str)), format_cell(value)) for value in row) for row in rows)
    body = [f"<tr>{''.join(f'<td{kind}>{text}</td>' for kind, text in row)}</tr>" for row in cells]
    last = len(body) - foot
    below = f"<tfoot>{''.join(body[last:])}</tfoot>" if foot else ""
    return (f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body[:last])}</tbody>{below}</table>'
            "</div>")  # fmt: skip


def tiles(rows: Iterable[tuple[Any, str, str]]) -> str:
    """Return key figures side by side: (the figure as HTML, its name, small print)."""
    shown = "".join(f'<div class="tile"><b>{big}</b><span>{escape(name)}</span><small>{escape(small)}</small></div>'
                    for big, name, small in rows)  # fmt: skip
    return f'<div class="tiles">{shown}</div>'


def format_cell(value: Any) -> str:
    """Return a value as escaped text: three decimals for floats, a dash for None and NaN, "a to b" for an interval."""
    return escape(plain_cell(value)).replace(DASH, "&ndash;") if not isinstance(value, str) else escape(value)


def plain_cell(value: Any) -> str:
    """Return what `format_cell` does without escaping it."""
    if isinstance(value, (list, tuple)):
        return " to ".join(plain_cell(part) for part in value)
    if value is None or (isinstance(value, (float, np.floating)) and not np.isfinite(value)):
        return DASH
    return f"{value:.3f}" if isinstance(value, (float, np.floating)) else str(value)


def format_percent(value: float) -> str:
    """Return a percentage with at most one decimal; 0 and 100 are shown only for exact values."""
    if 0 < value < 0.05 or 99.95 <= value < 100:
        return "under 0.1" if value < 50 else "over 99.9"
    return f"{value:.1f}".removesuffix(".0")


def thumbnail(image: NDArray[np.uint8], side: int = THUMBNAIL_SIDE) -> str:
    """Return a uint8 RGB image (height, width, 3) as the data URI of a JPEG of at most `side` pixels per side.

    Raises ValueError for any other shape or dtype.
    """
    from PIL import Image

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"Expected a uint8 image (height, width, 3), got {image.dtype} {image.shape}.")
    buffer, small = io.BytesIO(), Image.fromarray(image)
    small.thumbnail((side, side))
    small.save(buffer, format="JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def figure_section(title: str, figures: Iterable[tuple[str, Figure | Path]]) -> str:
    """Return a section of (caption, figure or path of a PNG) in two columns; wide figures span both. The title is HTML."""
    shown = "".join(figure(caption, drawn, may_be_wide=True) for caption, drawn in figures)
    return f'<section><h2>{title}</h2><div class="figures">{shown}</div></section>' if shown else ""


def figure(caption: str, drawn: Figure | Path, may_be_wide: bool = False) -> str:
    """Return a figure, or the PNG at a path, with its caption; a wide one spans both columns if it may."""
    from PIL import Image
    from PIL.PngImagePlugin import PngImageFile

    data = to_png(drawn)
    image = Image.open(io.BytesIO(data))
    width, height = image.size
    source = "data:image/png;base64," + base64.b64encode(data).decode()
    kind = " class=wide" if may_be_wide and width > 1.6 * height else ""
    shown = f'<img alt="{escape(caption)}" src="{source}">'
    if isinstance(image, PngImageFile) and (values := image.text.get(VALUES)) is not None:
        shown = f'<div class="chart">{shown}{_points(json.loads(values), width, height)}</div>'
    return f"<figure{kind}>{shown}<figcaption>{escape(caption)}</figcaption></figure>"


def _points(values: Sequence[tuple[str, float, float, Sequence[float]]], width: int, height: int) -> str:
    """Return a transparent layer for a chart of this size in pixels, whose points show their values on hovering.

    `values` are those of `style.values_of`.
    """
    shown = "".join(
        f'<g class="point"><title>{escape(text)}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="9"/>'
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{wide:.0f}" height="{high:.0f}"/></g>'
        for text, x, y, (left, top, wide, high) in values)  # fmt: skip
    return f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">{shown}</svg>'


PAGE = Template("""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src '$hash'; style-src 'unsafe-inline'; img-src data:; media-src 'self';
 base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$name: tfdetect $kind</title><style>$style</style></head>
<body><header><p>tfdetect $kind</p><h1>$name</h1><p>$subtitle</p></header>
$body
<script>$script</script>
</body></html>
""")

STYLE = """
body{font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;color:#1f2933;background:#fff;
 max-width:70rem;margin:0 auto;padding:1.5rem 1rem 4rem;overflow-wrap:break-word}
header p{margin:0;color:#5b6672} h1{margin:0;font-size:2rem;overflow-wrap:anywhere}
section{margin:2.5rem 0} h2{font-size:1.35rem;margin:0 0 .6rem} h3{font-size:1.05rem;margin:1.5rem 0 .4rem}
.verdict,.warning{border-radius:10px;padding:1.2rem 1.4rem;margin:1.5rem 0}
.verdict{background:#f3f6f9;border:1px solid #d9e0e7}
.warning{background:#fff4e5;border:2px solid #D55E00} .warning h2{color:#9a3f00}
.grade{font-size:1.45rem;font-weight:600;line-height:1.3;margin:.2rem 0 .5rem}
.lead{font-size:1.2rem;margin:.2rem 0 1rem} .fine{color:#5b6672;font-size:.9rem;margin-bottom:0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.6rem,1fr));gap:.8rem;margin:1rem 0}
.tile{background:#fff;border:1px solid #d9e0e7;border-radius:8px;padding:.8rem 1rem}
.tile b{display:block;font-size:1.45rem;line-height:1.3} .tile span,.tile small{display:block} .tile small{color:#5b6672}
.careful,.next{border-left:4px solid #D55E00;padding:.1rem 0 .1rem 1rem;margin:1rem 0} .careful h3,.next h3{margin:0}
.next{border-color:#0072B2}
ul{margin:.3rem 0;padding-left:1.2rem}
:root{--paper:#fff;--shade:#0003}
.scroll{overflow-x:auto;background:linear-gradient(90deg,var(--paper) 30%,transparent) 0 0/2.5rem 100% no-repeat local,
 linear-gradient(270deg,var(--paper) 30%,transparent) 100% 0/2.5rem 100% no-repeat local,
 linear-gradient(90deg,var(--shade),transparent) 0 0/.8rem 100% no-repeat scroll,
 linear-gradient(270deg,var(--shade),transparent) 100% 0/.8rem 100% no-repeat scroll} /* shaded where it scrolls */
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.32rem 1.1rem .32rem 0;border-bottom:1px solid #e4e7eb}
th{font-weight:600;border-bottom:2px solid #c5ced8;vertical-align:bottom}
th button{font:inherit;color:inherit;text-align:left;background:none;border:0;padding:0;cursor:pointer}
th button::after{content:"\\2195";opacity:.35;padding-left:.25em} th[aria-sort] button::after{content:"\\2191";opacity:1}
th[aria-sort=descending] button::after{content:"\\2193"} tfoot td{border-top:2px solid #c5ced8}
td.n,.numbers td:first-child{white-space:nowrap} .numbers td:last-child{min-width:15rem}
td:not(.n){min-width:6.2rem}
td,code{overflow-wrap:anywhere;unicode-bidi:isolate} code,pre{font:.85em ui-monospace,"DejaVu Sans Mono",monospace}
pre{background:#f3f6f9;border:1px solid #d9e0e7;border-radius:8px;padding:.8rem 1rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr));gap:1.5rem 2rem}
figure{margin:0;min-width:0;break-inside:avoid} figure img{width:100%;height:auto} .wide{grid-column:1/-1;max-width:58rem}
figcaption{font-size:.9rem;color:#46525e} figcaption small{display:block;margin-top:.2rem}
.chart{position:relative} .chart svg{position:absolute;inset:0;width:100%;height:100%}
.chart rect{fill:transparent} .chart circle{fill:#D55E00;stroke:#fff;stroke-width:2;opacity:0}
.chart .point:hover circle{opacity:1}
.value{position:fixed;z-index:1;max-width:min(23rem,92vw);padding:.3rem .6rem;border-radius:6px;font-size:.85rem;
 pointer-events:none;color:#fff;background:#1f2933;white-space:pre-line}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:1rem}
.neighbours{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,30rem),1fr));gap:1.2rem 2rem}
.neighbours div{display:grid;grid-template-columns:minmax(0,1fr) 0 repeat(3,minmax(0,1fr));gap:.5rem;break-inside:avoid}
.neighbours div figure:nth-child(2){grid-column:3}
.neighbours figcaption{font-size:.8rem;line-height:1.3} .neighbours img{aspect-ratio:1;object-fit:cover}
.real img{border-bottom:4px solid #0072B2} .fake img{border-bottom:4px solid #D55E00}
@media screen and (max-width:36rem){th,td{padding-right:.7rem}
 .wide{overflow-x:auto} .wide .chart,.wide>img{min-width:34rem}}
@media screen and (prefers-color-scheme:dark){:root{color-scheme:dark;--paper:#14191e;--shade:#fff4}
 body{color:#dfe5ea;background:#14191e}
 header p,.fine,.tile small{color:#9fabb6} figcaption{color:#b4bfc9} a{color:#7cc4f0}
 .verdict,pre{background:#1c232a;border-color:#35404a} .tile{background:#14191e;border-color:#35404a}
 .warning{background:#33230f} .warning h2{color:#ffb27a} th,td{border-color:#35404a}
 th,tfoot td{border-color:#55626e} figure img{background:#fff} .value{color:#14191e;background:#dfe5ea}
 .chart img{filter:invert(1) hue-rotate(180deg);background:none;mix-blend-mode:screen}}
@media print{.value,th button::after{display:none} body{max-width:none;font-size:11pt;padding:0}
 .lead,.tiles,.careful,.next,tr{break-inside:avoid}
 table{font-size:8pt} td:not(.n),.numbers td:last-child{min-width:3.4rem} th,td{padding-right:.5rem}
 .scroll td.n{white-space:normal;overflow-wrap:normal} .figures,.neighbours{grid-template-columns:1fr 1fr}
 .scroll{overflow:visible;background:none} h2,h3,h2+p{break-after:avoid}
 *{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
