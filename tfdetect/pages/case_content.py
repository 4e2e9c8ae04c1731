"""The content of a case report: what detectors found about a few files, as plain data, and sentences that say what it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfdetect.data.origin.statement import Origin
from tfdetect.evaluation.single_file import Place
from tfdetect.evaluation.timeline import Timeline
from tfdetect.files import plural
from tfdetect.pages.html import format_percent

SOUND = "Only the pictures were judged. Sound was not."
USE = (
    "A detector gives statistical evidence about the pixels. It says neither who made a file, nor how, nor whether what it shows "
    "took place: it must not be the only ground for a decision about a person.",
    "Its figures hold for files like those that it was tested on. On other generators, cameras, subjects and platforms they are "
    "not known, and usually worse.",
    "A verdict of real is no proof: a fake by a generator that the detector never saw may well be called real.",
)
INTERVAL = ("The interval says how far the probability depends on the validation files that it was calibrated on: it holds 95 % "
            "of the probabilities that resamples of them give this score. It is no interval for this file, which is real or "
            "fake, and it does not cover files unlike those of validation.")  # fmt: skip
STABILITY = ("The same file as others might send it on, scored again. A verdict that stays is no proof; one that changes rests "
             "on traces that re-encoding removes or adds.")  # fmt: skip
NAMES = {
    "jpeg(90)": "JPEG, quality 90", "jpeg(70)": "JPEG, quality 70", "webp(80)": "WebP, quality 80",
    "resize(0.5)": "half the size", "blur(1)": "slight blur (sigma 1 pixel)",
    "max_side(1600)|jpeg(75)|max_side(1080)|jpeg(70)": "shared twice: 1600 pixels and JPEG 75, then 1080 pixels and JPEG 70",
    "h264(23)": "H.264, CRF 23", "h264(28)": "H.264, CRF 28", "hevc(28)": "HEVC, CRF 28",
    "resize(0.5)|h264(23)": "half the size, H.264 CRF 23", "fps(15)|h264(23)": "15 frames/s, H.264 CRF 23",
    "max_side(1280)|h264(28)|max_side(854)|h264(28)": "shared twice: 1280, then 854 pixels, both H.264 CRF 28",
}  # fmt: skip


@dataclass(frozen=True)
class Reencoded:
    """The verdict on a file after a re-encoding."""

    corruption: str
    name: str
    """The same in words."""
    verdict: str | None = None
    probability: float | None = None
    score: float | None = None
    familiarity: float | None = None
    unfamiliar_reason: str | None = None
    error: str | None = None
    """Why there is none; the numbers are then None."""


@dataclass(frozen=True)
class HeatMap:
    """Which regions drive a score."""

    method: str
    note: str
    """How to read it."""
    result: str
    """What its check says."""
    check: Mapping[str, float]
    passed: bool
    """Whether it passed its check."""
    picture: bytes = field(repr=False)
    """A PNG of the frames, their maps, and both overlaid."""


@dataclass(frozen=True)
class Finding:
    """What one detector found about one file."""

    verdict: Mapping[str, Any]
    """The fields of `serving.verdict.Verdict`."""
    interval: tuple[float, float] | None = None
    """Of the probability; see INTERVAL."""
    places: tuple[Place, ...] = ()
    """Of the score among the test files of the run."""
    by_prevalence: tuple[tuple[float, float], ...] = ()
    """(share of fakes, probability of this file where that share of the files is fake)."""
    used_in: str = ""
    """The split of the run, "train", "validation" or "test", that holds this very file; "" if none does."""
    stability: tuple[Reencoded, ...] = ()
    heat_map: HeatMap | None = None
    timeline: Timeline | None = None
    """The scores of a video over time."""
    seen: tuple[NDArray[np.uint8], ...] = field(default=(), repr=False)
    """The middle frame of what was scored, or of each face, (height, width, 3) RGB."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Part of the report -> why it is not there."""

    @property
    def judged(self) -> tuple[Reencoded, ...]:
        """The re-encodings after which the file could be judged."""
        return tuple(each for each in self.stability if each.error is None)

    @property
    def changes(self) -> tuple[Reencoded, ...]:
        """The re-encodings after which the verdict is another."""
        return tuple(each for each in self.judged if each.verdict != self.verdict["verdict"])


@dataclass(frozen=True)
class Model:
    """Which detector judged, and what is known about it."""

    name: str
    folder: str
    version: str
    """The number of the run's version."""
    detector: str
    scored_with: str
    hashes: Mapping[str, str]
    """SHA-256 by file of the run's folder; that of a folder is of the list that `sha256sum` prints of its files."""
    settings: str
    """The hash of all that a verdict depends on besides its file; the column of that name in a table of verdicts."""
    threshold: float
    inconclusive: tuple[float, float] | None
    prevalence: float | None
    """The share of fakes where its probabilities hold, 0..1; None if that is not known."""
    calibration: str
    """How scores became probabilities, in a sentence."""
    training: Sequence[tuple[str, str, str, int]]
    """(split, class, source, number of files)."""
    measured: str
    """How good it is on its test files, in words."""
    unfit: Sequence[str]
    """What it is not fit for, in sentences."""
    caveats: Sequence[str]
    histogram: tuple[Sequence[float], Sequence[int], Sequence[int]] | None = None
    """Edges of bins of the score, and the real and the fake test files in each."""
    card: Mapping[str, str] = field(default_factory=dict)
    """What its model card says of it in short; see `pages.card.quote`. Empty without a card."""
    doubts: Sequence[str] = ()
    """What makes all of its verdicts doubtful, in sentences that stand beside each of them."""


@dataclass(frozen=True)
class CaseFile:
    """A file, what it says of its origin, and what each detector found about it."""

    path: str
    sha256: str
    origin: Origin
    kind: str
    """"image", "video", or "" for a file that is neither."""
    findings: tuple[Finding, ...]
    picture: NDArray[np.uint8] | None = field(default=None, repr=False)
    """A small copy of the image, or of the middle frame of a video, (height, width, 3) RGB."""

    @property
    def failed(self) -> bool:
        """Whether a detector could not judge it."""
        return any(each.verdict["error"] is not None for each in self.findings)


@dataclass(frozen=True)
class Case:
    """A few files, judged by one detector or several."""

    files: tuple[CaseFile, ...]
    models: tuple[Model, ...]
    date: str
    command: str
    versions: Mapping[str, str]
    left_out: tuple[str, ...] = ()
    """Files that were given and not judged, since the command was interrupted."""

    def to_dict(self) -> dict[str, Any]:
        """Return all but the pictures as plain data for JSON, the sentences of the page included."""
        rows = [{"path": each.path, "sha256": each.sha256, "kind": each.kind, "origin": each.origin.to_dict(),
                 "sound": sound_sentence(each) if each.kind == "video" else None,
                 "findings": list(map(_finding_dict, self.models, each.findings))}
                for each in self.files]  # fmt: skip
        return {"files": rows, "left_out": list(self.left_out), "models": [asdict(model) for model in self.models],
                "date": self.date, "command": self.command, "versions": dict(self.versions),
                "use": list(USE), "interval": INTERVAL}  # fmt: skip


def _finding_dict(model: Model, finding: Finding) -> dict[str, Any]:
    found = {each.name: getattr(finding, each.name) for each in fields(finding) if each.name not in ("seen", "heat_map")}
    found |= {name: [asdict(each) for each in found[name]] for name in ("places", "stability")}
    found["verdict"], found["missing"] = dict(finding.verdict), dict(finding.missing)
    found["timeline"] = finding.timeline.as_dict() if finding.timeline else None
    heat = finding.heat_map
    found["heat_map"] = heat and {each.name: getattr(heat, each.name) for each in fields(heat) if each.name != "picture"}
    return {"model": model.name, **found, "meaning": meaning(model, finding), "caveats": file_caveats(finding)}


def sound_sentence(file: CaseFile) -> str:
    """Return whether a video has sound, and that it was not judged."""
    tracks = file.origin.audio_tracks
    if tracks is None:
        return SOUND
    return f"It has {plural(tracks, 'audio track')}. {SOUND}" if tracks else "It has no audio track."


def conclusion(model: Model, finding: Finding) -> str:
    """Return the verdict on a file in a sentence."""
    found = finding.verdict
    if found["error"] is not None:
        return f"{model.name} could not judge this file: {found['error']}."
    doubt = "the file is unlike its training data" if found.get("unfamiliar") else "files of both classes have such scores"
    what = {"fake": "calls this file fake", "real": "calls this file real"}.get(found["verdict"], f"cannot tell: {doubt}")
    return f"{model.name} {what}. Probability of being fake {found['probability']:.3f}; called fake from {model.threshold:.3f}."


def meaning(model: Model, finding: Finding) -> list[str]:
    """Return what probability and score mean, in sentences; none for a file that could not be judged."""
    found = finding.verdict
    if found["error"] is not None:
        return []
    out = []
    if model.prevalence is not None:
        out.append(f"Where {format_percent(100 * model.prevalence)} % of the files are fake, of 100 files like those of "
                   f"validation with this score about {100 * found['probability']:.0f} are fake.")  # fmt: skip
    if finding.by_prevalence:
        others = ", ".join(f"{value:.3f} where {format_percent(100 * share)} % are" for share, value in finding.by_prevalence)
        out.append(f"The same score means a probability of {others}.")
    words = {"real": "at least", "fake": "at most"}
    for place in finding.places:
        share, low, high = (format_percent(100 * value) for value in (place.share, *place.interval))
        out.append(f"Of {plural(place.files, f'{place.label} test file')}, {share} % have {words[place.label]} this score; of "
                   f"others like them {low} to {high} % (95 % interval).")  # fmt: skip
    return out


def fails(check: Mapping[str, float]) -> bool:
    """Return whether hiding the hottest tenth of a heat-map lowers the score no more than hiding the same shape elsewhere."""
    return check["hottest_tenth"] <= check["elsewhere"]


def file_caveats(finding: Finding) -> list[str]:
    """Return what to be careful about in the verdict on a file, in sentences."""
    found, out = finding.verdict, []
    if finding.used_in in ("train", "validation"):
        purpose = "trained on" if finding.used_in == "train" else "calibrated on"
        out.append(f"This detector was {purpose} this very file, so its verdict says nothing.")
    elif finding.used_in:
        out.append("This very file is one of the run's test files.")
    if found.get("unfamiliar"):
        out.append(f"The file is unlike the training data ({found['unfamiliar_reason']}, p = {found['familiarity']:.3g}): the "
                   "detector's figures say nothing about such files.")  # fmt: skip
    if finding.changes:
        out.append(f"The verdict changes after {len(finding.changes)} of {plural(len(finding.judged), 're-encoding')}.")
    heat = finding.heat_map
    if heat and not heat.passed:
        out.append("The heat-map fails its check: do not rely on it.")
    if found["note"]:
        out.append(f"While reading the file: {found['note']}.")
    return out
