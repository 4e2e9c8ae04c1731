"""The verdict on a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tfdetect.data.media.frames import Face


@dataclass(frozen=True)
class Verdict:
    """The prediction for one file. If the file could not be read, `error` says why and the numbers are None."""

    path: str
    probability: float | None = None  # of being fake, 0..1; calibrated on the run's validation files
    label: str | None = None  # "fake" if the probability reaches the run's threshold, otherwise "real"
    score: float | None = None  # raw output of the detector; higher is more likely fake
    frames: int = 0  # number of frames that were scored; with --data.crops, of their crops
    note: str = ""  # such as "damaged: 28 of 50 frames intact"
    error: str | None = None
    source: str | None = None  # the most likely source of a fake, for detectors that attribute fakes to sources
    source_probability: float | None = None  # 0..1, given that the file is fake; not calibrated
    text: str | None = None  # the closest training text, for detectors that match images with texts
    verdict: str | None = None  # "real", "fake" or "inconclusive": `label`, unless the score lies in the run's band
    familiarity: float | None = None  # 0..1, p-value of being like the training files; None if the run does not know them
    unfamiliar: bool | None = None  # whether that is at most the run's level; the verdict is then inconclusive, except with --any
    unfamiliar_reason: str | None = None  # "other content" or "other processing"
    faces: tuple[dict[str, Any], ...] | None = None  # with --data.faces all: face, box, box_frame, score and probability of each


def face_rows(faces: Sequence[Face], scores: NDArray[np.float64],
              probabilities: NDArray[np.float64]) -> tuple[dict[str, Any], ...]:  # fmt: skip
    """Return number, place, score and probability of each face, as `Verdict.faces` has them; all are (faces,)."""
    found = zip(faces, scores.tolist(), probabilities.tolist(), strict=True)
    return tuple({"face": number, "box": list(face[:4]), "box_frame": face.frame, "score": score, "probability": probability}
                 for number, (face, score, probability) in enumerate(found))  # fmt: skip
