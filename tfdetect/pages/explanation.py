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
    "gradcam": "Grad-CAM: where the maps of the network's last convolution raise the score, the brighter, the more. It shows "
               "evidence for fake alone; a map that is dark all over has none. Its grain is that of the convolution's map, "
               "enlarged.",
    "integrated_gradients": "Integrated gradients: what each pixel adds to the score, compared with the baseline, blurred for "
                            "the eye. Orange regions are evidence for fake, blue ones for real. The colour scale differs from "
                            "file to file, so a strong colour does not mean a strong verdict.",
    "occlusion": "How much the score drops when a region is hidden. Orange regions are evidence for fake, blue ones for "
                 "real. The colour scale differs from file to file, so a strong colour does not mean a strong verdict. If "
                 "everything is blue, hiding a region makes the image unusual in itself, as for one-class detectors; then the "
                 "palest regions count.",
}  # fmt: skip
SIGNED = {"occlusion": "score drop", "integrated_gradients": "part of score"}  # the others are 0 and more
UNITS = {"error": "grey levels", "gradcam": "of the score"}
CHECK_NOTE = (
    "The numbers below each figure check its map: how much the score drops when the hottest tenth of the image is hidden behind "
    "its mean colour, and how much when the same shape is hidden elsewhere (the median of 16 positions). If the first is not "
    "larger, do not trust the map. A map shows what this detector looks at; it proves nothing about the file.")
CURVE_NOTE = (
    "Deletion and insertion: the area under the probability of being fake while the image is hidden, or shown, from the hottest "
    "pixels on. For a fake, a good map has a small deletion area and a large insertion area: compare it with the map of "
    "occlusion, and with a random one, which shows nothing.")


def write(path: str | PathLike[str], name: str, methods: Sequence[str], threshold: float, sections: Sequence[str],
          files: int) -> None:  # fmt: skip
    """Write a page of these sections, most from `section`, on `files` files to `path`. `threshold` is a probability, 0..1."""
    subtitle = f"{plural(files, 'file')}; called fake if the probability is at least {threshold:.3f}"
    notes = (*(METHOD_NOTES[method] for method in methods), CHECK_NOTE, CURVE_NOTE)
    text = f"<section><h2>How to read it</h2>{''.join(f'<p>{escape(note)}</p>' for note in notes)}</section>"
    html.write(path, "explanation", name, subtitle, (text, *sections))


def section(title: str, caption: str, frames: NDArray[np.uint8], heatmaps: NDArray[np.floating], method: str) -> str:
    """Return the section of a file: its figure and caption. `frames` (n, height, width, 3), `heatmaps` (n, height, width)."""
    return html.figure_section(f"<code>{escape(title)}</code>", [(caption, figure(frames, heatmaps, method))])


def figure(frames: NDArray[np.uint8], heatmaps: NDArray[np.floating], method: str) -> Any:
    """Return a figure of the frames, their heat-maps, and both overlaid: in rows, or side by side for a single frame.

    `frames` are uint8 RGB (n, height, width, 3); `heatmaps` (n, height, width) are of a method of METHOD_NOTES.
    """
    largest = float(np.abs(heatmaps).max()) or 1.0
    scale = (f"{SIGNED[method]},\n±{largest:.3g}" if method in SIGNED else f"{method}, 0 to\n{largest:.3g} {UNITS[method]}")
    rows = (frames / 255, *overlay(frames, heatmaps, method, largest)[::-1])
    if len(frames) == 1:
        return style.image_grid([(scale, np.concatenate(rows), {})])
    return style.image_grid([(name, row, {}) for name, row in zip(("image", scale, "overlay"), rows, strict=True)])


def overlay(frames: NDArray[np.uint8], heatmaps: NDArray[np.floating], method: str,
            largest: float) -> tuple[NDArray[np.floating], NDArray[np.floating]]:  # fmt: skip
    """Return grey frames with their heat-maps over them, and the heat-maps in colour, (n, height, width, 3) in 0..1.

    `largest` is the value, above 0, at which the colours are strongest.
    """
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    signed = method in SIGNED
    colors = LinearSegmentedColormap.from_list("", [style.REAL, "white", style.FAKE]) if signed else colormaps["magma"]
    low = -largest if signed else 0.0
    shade = colors((heatmaps - low) / (largest - low))[..., :3]
    weight = np.clip(np.abs(heatmaps) / largest, 0, 1)[..., None]
    grey = np.repeat(frames.mean(axis=-1, keepdims=True), 3, axis=-1) / 255
    return np.clip(grey * (1 - 0.7 * weight) + 0.7 * weight * shade, 0, 1), shade
