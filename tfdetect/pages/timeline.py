"""A timeline of scores as inline SVG, with the values on hovering and pictures of the peaks; it needs no script."""

from html import escape

import numpy as np

from tfdetect.evaluation.timeline import Timeline
from tfdetect.pages import html
from tfdetect.plots import style

WIDTH, HEIGHT = 1000, 230  # units of the SVG, which scales to the page
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 22, 34  # margins around the axes
LETTERS = "ABCD"
CAUTION = "The threshold was chosen for verdicts on whole files: of many points the highest is high by chance, too."


def section(line: Timeline, title: str = "Scores over time", overlay: str = "") -> str:
    """Return a section: the chart, what its points are, pictures of the peaks, and, if there is one, the video with heat-maps.

    "" for a timeline of one point. `overlay` is the address of the video, relative to the page.
    """
    if len(line.scores) < 2:
        return ""
    at_most = f"The highest is {line.probabilities.max():.3f}, the lowest {line.probabilities.min():.3f}."
    text = " ".join(filter(None, (line.describe(), at_most, line.note and f"{line.note}.", CAUTION)))
    address = escape(overlay)
    link = (f'<figure style="margin-top:1rem"><video controls src="{address}" style="max-width:100%"></video><figcaption>'
            f'Heat-maps over the frames: <a href="{address}">{address}</a></figcaption></figure>' if overlay else "")  # fmt: skip
    return (f"<section><h2>{escape(title)}</h2><div class=scroll>{chart(line)}</div><p>{escape(text)}</p>"
            f'<div class="pictures">{_pictures(line)}</div>{link}</section>')  # fmt: skip


def chart(line: Timeline) -> str:
    """Return the SVG of a timeline: the probability of each point over the seconds of the video, with the threshold."""
    x, y, threshold = _xs(line), _ys(line.probabilities), float(_ys(np.array([line.threshold]))[0])
    path = " ".join(f"{left:.1f},{top:.1f}" for left, top in zip(x, y, strict=True))
    letters = "".join(_text(x[at], max(12.0, y[at] - 9), letter, "middle", ' font-weight="bold"')
                      for letter, at in zip(LETTERS, line.peaks, strict=False))  # fmt: skip
    grid = "".join(_text(LEFT - 6, top + 4, f"{value:g}", "end") + _rule(top, 'stroke="currentColor" opacity="0.15"')
                   for value, top in zip((0, 0.5, 1), _ys(np.array([0, 0.5, 1.0])), strict=True))  # fmt: skip
    seconds = "".join(_text(_x(line, at), HEIGHT - 14, f"{at:g} s", "middle") for at in _ticks(line))
    called = _text(WIDTH - RIGHT, threshold + (15 if threshold < 35 else -5), f"called fake from {line.threshold:.3f}", "end")
    dashed = f'stroke="{style.FAKE}" stroke-dasharray="6 4"'
    return (f'<svg class="timeline" viewBox="0 0 {WIDTH} {HEIGHT}" style="width:100%;min-width:34rem" role="img" font-size="13" '
            f'fill="currentColor" aria-label="Probability of being fake over time" xmlns="http://www.w3.org/2000/svg">{grid}{seconds}'
            f"{_rule(threshold, dashed)}{called}"
            f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="1.5" opacity="0.6"/>{letters}'
            f"{_points(line, x, y)}</svg>")  # fmt: skip


def _points(line: Timeline, x: np.ndarray, y: np.ndarray) -> str:
    """Return the points, each in a strip of the chart where hovering shows its values."""
    edges = np.concatenate([[LEFT], (x[1:] + x[:-1]) / 2, [WIDTH - RIGHT]])
    radius, rows = 4 if len(x) <= 100 else 2, zip(edges[:-1], edges[1:], x, y, _colours(line), strict=True)
    return "".join(
        f'<g class="point"><title>{escape(hover(line, at))}</title><rect x="{start:.1f}" y="{TOP}" '
        f'width="{max(0.1, end - start):.1f}" height="{HEIGHT - TOP - BOTTOM}" fill="transparent"/>'
        f'<circle cx="{left:.1f}" cy="{top:.1f}" r="{radius}" fill="{colour}"/></g>'
        for at, (start, end, left, top, colour) in enumerate(rows))  # fmt: skip


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _rule(y: float, options: str) -> str:
    """Return a line across the chart."""
    return f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" {options}/>'


def hover(line: Timeline, at: int) -> str:
    """Return what is said of a point: its time, its frames, its probability and its score."""
    window = line.windows[at]
    frames = f"frame {window[0] + 1}" if window[0] == window[-1] else f"frames {window[0] + 1} to {window[-1] + 1}"
    return f"{line.centres[at]:.2f} s, {frames}: probability {line.probabilities[at]:.3f}, score {line.scores[at]:.3f}"


def _pictures(line: Timeline) -> str:
    """Return the pictures of the peaks, with the letters of the chart."""
    kinds = np.where(line.probabilities >= line.threshold, "fake", "real")
    return "".join(
        f'<figure class="{kinds[at]}"><img alt="" src="{html.thumbnail(line.pictures[at])}"><figcaption><b>{letter}</b> '
        f"{escape(hover(line, at))}</figcaption></figure>"
        for letter, at in zip(LETTERS, line.peaks, strict=False) if at in line.pictures)  # fmt: skip


def _colours(line: Timeline) -> list[str]:
    return [style.FAKE if value >= line.threshold else style.REAL for value in line.probabilities]


def _x(line: Timeline, seconds: float) -> float:
    return float(LEFT + (WIDTH - LEFT - RIGHT) * seconds / max(1e-9, float(line.times[-1])))


def _xs(line: Timeline) -> np.ndarray:
    return np.array([_x(line, seconds) for seconds in line.centres])


def _ys(values: np.ndarray) -> np.ndarray:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - values)


def _ticks(line: Timeline) -> list[float]:
    """Return at most seven round numbers of seconds within the video."""
    length = float(line.times[-1])
    raw = max(length, 1e-6) / 6
    unit = 10.0 ** np.floor(np.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    return [round(float(at), 6) for at in np.arange(0, length + 1e-9, step)]
