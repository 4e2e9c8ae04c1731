"""The scores of a video over time: a window of frames for each point, and the points where the scores peak."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_PEAKS = 4  # pictures beside each other
PROMINENCE = 0.05  # of probability, by which a peak rises above the valleys beside it


@dataclass(frozen=True)
class Timeline:
    """One point for each window of a video, in order. A frame detector's window is one frame."""

    windows: NDArray[np.int64]
    """(points, frames): the frames of the video that the detector was shown for each point, counted from 0."""
    scores: NDArray[np.float64]
    """(points,); higher means more likely fake."""
    probabilities: NDArray[np.float64]
    """(points,), of being fake, 0..1."""
    times: NDArray[np.float64]
    """(frames of the video,) seconds since its first frame."""
    stride: int
    """Frames of the video from one window to the next; the last window ends with the video."""
    threshold: float
    """The probability from which on a file is called fake."""
    pictures: Mapping[int, NDArray[np.uint8]] = field(default_factory=dict, compare=False)
    """The middle frame of the window at each peak, small, (height, width, 3) RGB, by the number of the point."""
    note: str = ""
    """What was left out, such as windows without a face."""

    @property
    def span(self) -> int:
        """Frames of the video from the first to the last of a window, both included."""
        return int(np.ptp(self.windows, axis=1).max()) + 1

    @property
    def centres(self) -> NDArray[np.float64]:
        """(points,) seconds: the middle of each window."""
        return (self.times[self.windows[:, 0]] + self.times[self.windows[:, -1]]) / 2

    @property
    def peaks(self) -> list[int]:
        """The points where the scores peak, the highest first, at most MAX_PEAKS; see `find_peaks`."""
        return find_peaks(self.scores, self.probabilities)[:MAX_PEAKS]

    def describe(self) -> str:
        """Return in words what a point is, and how far apart they are."""
        count, taken = len(self.times), self.windows.shape[1]
        length = f"{count} frames in {self.times[-1]:.2f} s"
        if taken == 1:
            return f"One point for every {_ordinal(self.stride)}frame of the video ({length}); each is scored by itself."
        frames = f"{self.span} consecutive frames" if self.span == taken else f"{self.span} frames, of which it takes {taken}"
        if len(self.scores) == 1:
            return f"The video ({length}) is not longer than one window of the detector: {frames}."
        stride = f"{self.stride} frame{'s' * (self.stride > 1)}"
        return f"Each point is the score of a window of {frames}; the next window begins {stride} later. The video has {length}."

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: how the windows were laid, and a row for each."""
        rows = zip(self.windows[:, 0].tolist(), self.windows[:, -1].tolist(), self.centres.tolist(), self.scores.tolist(),
                   self.probabilities.tolist(), strict=True)  # fmt: skip
        names = ("first_frame", "last_frame", "seconds", "score", "probability")
        return {"frames": len(self.times), "seconds": float(self.times[-1]), "window": self.span,
                "frames_per_window": self.windows.shape[1], "stride": self.stride, "threshold": self.threshold, "note": self.note,
                "peaks": self.peaks, "points": [dict(zip(names, row, strict=True)) for row in rows]}  # fmt: skip


def find_peaks(scores: NDArray[np.float64], probabilities: NDArray[np.float64]) -> list[int]:
    """Return the point with the highest score, and other local maxima of the probability, by their scores; all (points,).

    The others rise above the valleys beside them by PROMINENCE (`scipy.signal.find_peaks`), and such a valley lies between each
    and the first. Of a plateau the middle counts, and the ends count, too.
    """
    from scipy.signal import find_peaks as local_maxima

    top = int(np.argmax(scores))
    found = local_maxima(np.concatenate([[-1.0], probabilities, [-1.0]]), prominence=PROMINENCE)[0] - 1
    others = [int(at) for at in found
              if probabilities[min(at, top) : max(at, top) + 1].min() <= probabilities[at] - PROMINENCE]  # fmt: skip
    return [top, *sorted(others, key=lambda at: -scores[at])]


def _ordinal(number: int) -> str:
    """Return "" for 1, and "2nd ", "3rd ", "11th " for others."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return "" if number == 1 else f"{number}{ending} "
