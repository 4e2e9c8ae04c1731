"""The page of an explanation: for each file its verdict, its frames, and where the detector sees it."""

from collections.abc import Sequence
from html import escape
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfdetect.pages import html
from tfdetect.plots import style

METHOD_NOTES = {
    "error": "How far each place is off from what comes back of it, in grey levels: the brighter, the further. Edges are always "
             "hard to give back; what counts is light where a picture is plain.",
    "occlusion": "What covering a place takes from the score. Orange speaks for fake, blue for real; the scale is each "
                 "file's own, so a strong colour is not a strong verdict. Where all is blue, covering itself makes the picture "
                 "unusual, as for detectors of one class; there the palest places count.",
}  # fmt: skip
CHECK_NOTE = ("The check under each figure: how much the score falls when the hottest tenth of the picture is covered with its own "
         "mean colour, and when the same shape lies elsewhere (the median of 16 places). Where the first is not the larger, do "
         "not trust the map. A map says what this detector looks at; it proves nothing of the file.")  # fmt: skip


def write(path: str | PathLike[str], name: str, method: str, threshold: float, sections: Sequence[str]) -> None:
    """A page of these sections, in order."""
    about = f"{len(sections)} file{'s' * (len(sections) != 1)}; fake is a probability of {threshold:.3f} or more"
    text = f"<section><h2>How to read it</h2><p>{escape(METHOD_NOTES[method])}</p><p>{escape(CHECK_NOTE)}</p></section>"
    html.write(path, "explanation", name, about, (text, *sections))


def section(title: str, said: str, frames: NDArray[np.uint8], heat: NDArray[np.floating], method: str) -> str:
    """A file: what is said of it, and its figure. `frames` (n, height, width, 3) uint8, `heat` (n, height, width)."""
    return html.figure_section(f"<code>{escape(title)}</code>", [(said, figure(frames, heat, method))])


def figure(frames: NDArray[np.uint8], heat: NDArray[np.floating], method: str) -> Any:
    """The frames, the heat-map, and it over the grey frames: below each other, of a single frame beside each other."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    most = float(np.abs(heat).max()) or 1.0
    signed = method == "occlusion"
    colors = LinearSegmentedColormap.from_list("", [style.REAL, "white", style.FAKE]) if signed else colormaps["magma"]
    low, scale = (-most, f"heat: ±{most:.3g}\nof the score") if signed else (0.0, f"heat: 0 to\n{most:.3g} grey levels")
    shade = colors((heat - low) / (most - low))[..., :3]
    weight = (np.abs(heat) / most)[..., None]
    grey = np.repeat(frames.mean(axis=-1, keepdims=True), 3, axis=-1) / 255
    rows = (frames / 255, shade, np.clip(grey * (1 - 0.7 * weight) + 0.7 * weight * shade, 0, 1))
    if len(frames) == 1:
        return style.image_grid([(scale, np.concatenate(rows), {})])
    return style.image_grid([(name, row, {}) for name, row in zip(("picture", scale, "both"), rows, strict=True)])
