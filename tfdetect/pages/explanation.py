"""The page of an explanation: for each file its verdict, its frames, and a heat-map of what drives the score."""

from collections.abc import Sequence
from html import escape
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfdetect.files import plural
from tfdetect.pages import html
from tfdetect.plots import style

METHOD_NOTES = {
    "error": "The reconstruction error of each region in grey levels: the brighter, the larger. Edges are always hard to "
             "reconstruct; what counts is bright regions where the image is smooth.",
    "occlusion": "How much the score drops when a region is hidden. Orange regions are evidence for fake, blue ones for "
                 "real. The colour scale differs from file to file, so a strong colour does not mean a strong verdict. If "
                 "everything is blue, hiding a region makes the image unusual in itself, as for one-class detectors; then the "
                 "palest regions count.",
}  # fmt: skip
CHECK_NOTE = (
    "The numbers below each figure check its map: how much the score drops when the hottest tenth of the image is hidden behind "
    "its mean colour, and how much when the same shape is hidden elsewhere (the median of 16 positions). If the first is not "
    "larger, do not trust the map. A map shows what this detector looks at; it proves nothing about the file.")


def write(path: str | PathLike[str], name: str, method: str, threshold: float, sections: Sequence[str]) -> None:
    """Write a page of these sections, each from `section`, to `path`. `threshold` is a probability, 0..1."""
    subtitle = f"{plural(len(sections), 'file')}; called fake if the probability is at least {threshold:.3f}"
    text = f"<section><h2>How to read it</h2><p>{escape(METHOD_NOTES[method])}</p><p>{escape(CHECK_NOTE)}</p></section>"
    html.write(path, "explanation", name, subtitle, (text, *sections))


def section(title: str, caption: str, frames: NDArray[np.uint8], heatmaps: NDArray[np.floating], method: str) -> str:
    """Return the section of a file: its figure and caption. `frames` (n, height, width, 3), `heatmaps` (n, height, width)."""
    return html.figure_section(f"<code>{escape(title)}</code>", [(caption, figure(frames, heatmaps, method))])


def figure(frames: NDArray[np.uint8], heatmaps: NDArray[np.floating], method: str) -> Any:
    """Return a figure of the frames, their heat-maps, and both overlaid: in rows, or side by side for a single frame.

    `frames` are uint8 RGB (n, height, width, 3); `heatmaps` (n, height, width) are score drops for "occlusion", grey levels for
    "error".
    """
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    largest = float(np.abs(heatmaps).max()) or 1.0
    signed = method == "occlusion"
    colors = LinearSegmentedColormap.from_list("", [style.REAL, "white", style.FAKE]) if signed else colormaps["magma"]
    low, scale = (-largest, f"score drop,\n±{largest:.3g}") if signed else (0.0, f"error, 0 to\n{largest:.3g} grey levels")
    shade = colors((heatmaps - low) / (largest - low))[..., :3]
    weight = (np.abs(heatmaps) / largest)[..., None]
    grey = np.repeat(frames.mean(axis=-1, keepdims=True), 3, axis=-1) / 255
    rows = (frames / 255, shade, np.clip(grey * (1 - 0.7 * weight) + 0.7 * weight * shade, 0, 1))
    if len(frames) == 1:
        return style.image_grid([(scale, np.concatenate(rows), {})])
    return style.image_grid([(name, row, {}) for name, row in zip(("image", scale, "overlay"), rows, strict=True)])
