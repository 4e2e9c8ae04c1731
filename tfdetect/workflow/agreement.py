"""Compare a converted detector with the SavedModel on real files, and measure what int8 costs."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfdetect.artifact import Artifact
from tfdetect.data.media.frames import Media
from tfdetect.data.media.read import read_media
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.data.worker_pool import WorkerFailure
from tfdetect.errors import UserError
from tfdetect.evaluation import aggregation
from tfdetect.settings import Data

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.serving.converted import Call, Outputs
    from tfdetect.serving.predictor import Predictor

TOLERANCE = 1e-4  # of each output; relative for those beyond -1..1
NOT_COMPARED = ("familiarity",)  # a step function of the distances, which are compared
MAX_SIZES = 8  # of frames, for a format that needs a compilation for each
NATIVE_SIZE = 1080  # pixels; how many decoded files may wait is computed from it
SAMPLES = 64  # validation files on which int8 finds the ranges of activations


class ConversionError(Exception):
    """A detector cannot be converted, or the result does not load or differs from the SavedModel: the message is one sentence."""


@dataclass
class Comparison:
    """How far the outputs of a converted detector are from those of the SavedModel, on how many files."""

    files: int = 0
    differences: dict[str, float] = field(default_factory=dict)  # the largest of each output, inf for another decision
    worst: str = ""  # the path of the file with the largest difference
    outputs: tuple[str, ...] = ()  # of the converted model

    def add(self, path: str, wanted: "Outputs", got: "Outputs") -> None:
        """Take in the outputs for the clips of one file."""
        if missing := set(wanted) - set(got):
            raise ConversionError(f"The converted model lacks the output{'s' * (len(missing) > 1)} {', '.join(sorted(missing))}.")
        found = {name: difference(wanted[name], got[name]) for name in wanted if name not in NOT_COMPARED}
        if not self.files or max(found.values()) > self.largest:
            self.worst = path
        self.differences = {name: max(value, self.differences.get(name, 0.0)) for name, value in found.items()}
        self.files, self.outputs = self.files + 1, tuple(got)

    @property
    def largest(self) -> float:
        """The largest difference of any output."""
        return max(self.differences.values(), default=0.0)

    def check(self, title: str) -> None:
        """Raise ConversionError unless there is a file and all outputs agree to TOLERANCE."""
        if not self.files:
            raise UserError("None of the files could be read, so there is nothing to compare with: give others with --files.")
        if wrong := {name: value for name, value in self.differences.items() if not value <= TOLERANCE}:
            what = ", ".join(f"{name} ({value:.2g})" for name, value in wrong.items())
            raise ConversionError(f"The {title} model differs from the SavedModel by more than {TOLERANCE:g} in {what}, most on "
                                  f"{self.worst}; it was not kept.")  # fmt: skip


def difference(wanted: np.ndarray, got: np.ndarray) -> float:
    """Return the largest difference of two outputs of the same shape, relative to values beyond -1..1.

    inf if decisions differ, or only one of two numbers is finite.
    """
    if wanted.shape != got.shape:
        return np.inf
    if wanted.dtype == bool:
        return 0.0 if np.array_equal(wanted, got) else np.inf
    same = (wanted == got) | (np.isnan(wanted) & np.isnan(got))
    with np.errstate(invalid="ignore"):
        values = np.where(same, 0.0, np.abs(wanted - got) / np.maximum(1.0, np.abs(wanted)))
    return float(np.nan_to_num(values, nan=np.inf).max(initial=0.0))


@dataclass(frozen=True)
class Scores:
    """The scores of files by the SavedModel and by a converted model, (files,) float64 each, and the labels, 1 for fake."""

    labels: np.ndarray
    before: np.ndarray
    after: np.ndarray

    def summary(self, threshold: float) -> dict[str, Any]:
        """Return both AUCs, None without both classes, how many decisions differ, and the largest difference of a score."""
        from tfdetect.evaluation.metrics import auc

        decisions = (self.before >= threshold) != (self.after >= threshold)
        return {"files": len(self.labels), "auc_before": auc(self.labels, self.before), "auc_after": auc(self.labels, self.after),
                "other_decisions": int(decisions.sum()), "largest": float(np.abs(self.before - self.after).max())}  # fmt: skip


class NativeFrames(ClipSpec):
    """Like the run's, but frames stay as they are in the file, so that what is compared contains the resizing in the graph."""

    def read(self, path: str | Path, viewer: Any = None) -> Media:
        """Decode a file at native size, after equalising it where the run was trained on equalised files."""
        if self.plan:
            return super().read(path, viewer)
        return read_media(path, self.frames, self.fps, None, self.limits, decoding=self.decoding)


class Files:
    """Files that both models score: the rows of a table with the columns path and label.

    Their frames have native size, and are equalised for a run on equalised files; a run on faces gets crops of its own size.
    """

    def __init__(self, predictor: "Predictor", data: Data, rows: "pd.DataFrame"):
        self.predictor, self.data, self.rows = copy.copy(predictor), data, rows
        if not predictor.spec.faces:
            self.predictor.spec = NativeFrames(**{**vars(predictor.spec), "size": NATIVE_SIZE})
        self.paths = list(rows["path"])

    def each(self, function: Callable[[str, np.ndarray, int], Any], step: Callable[..., None]) -> Iterator[Any]:
        """Yield `function(path, clips, faces)` of each file that can be decoded, in order; `step` is called after each.

        `clips` are uint8 (clips, frames, height, width, 3): the frames of an image detector, else the clip of each face.
        """

        def use(path: str, media: Media | WorkerFailure) -> Any:
            step({"error": isinstance(media, WorkerFailure)})
            return None if isinstance(media, WorkerFailure) else function(path, *clips_of(self.predictor, media))

        found = self.predictor.map_files(self.paths, use, self.data.timeout, self.data.workers)
        with closing(found):  # type: ignore[type-var]
            yield from (result for result in found if result is not None)

    def compare(self, call: "Call", any_size: bool, step: Callable[..., None]) -> Comparison:
        """Compare a converted model with the SavedModel; see MAX_SIZES for one that does not take frames of any size."""
        comparison, sizes = Comparison(), Counter[tuple[int, ...]]()

        def add(path: str, clips: np.ndarray, faces: int) -> None:
            if any_size or clips.shape[1:] in sizes or len(sizes) < MAX_SIZES:
                sizes[clips.shape[1:]] += 1
                comparison.add(path, saved_outputs(self.predictor, clips), call(clips))

        list(self.each(add, step))
        return comparison

    def score(self, call: "Call", step: Callable[..., None]) -> Scores:
        """Return the scores of the files by both models."""
        labels = dict(zip(self.rows["path"], self.rows["label"], strict=True))

        def scores(path: str, clips: np.ndarray, faces: int) -> tuple[float, ...]:
            outputs = (saved_outputs(self.predictor, clips), call(clips))
            both = [aggregation.aggregate_faces(each["score"], self.predictor.aggregate, faces)[0] for each in outputs]
            return (float(labels[path]), *both)

        return Scores(*np.array(list(self.each(scores, step))).reshape(-1, 3).T)


def clips_of(predictor: "Predictor", media: Media) -> tuple[np.ndarray, int]:
    """Return the clips that the detector scores of a decoded file, and the number of its faces."""
    frames, faces = predictor.model_frames(media), len(media.clips)
    return frames.reshape(len(frames) if predictor.is_frame_detector else faces, -1, *frames.shape[1:]), faces


def saved_outputs(predictor: "Predictor", clips: np.ndarray) -> "Outputs":
    """Return the outputs of the SavedModel for clips, but for texts."""
    from tfdetect.serving.saved_model import import_tensorflow

    signatures = predictor.model.signatures
    signature = signatures["serve_face_crop" if "serve_face_crop" in signatures else "serving_default"]
    inputs = dict.fromkeys(signature.structured_input_signature[1], import_tensorflow().constant(clips))
    outputs: Mapping[str, np.ndarray] = {name: value.numpy() for name, value in signature(**inputs).items()}
    return {name: value for name, value in outputs.items() if value.dtype != object}


def own_files(artifact: Artifact, split: str, count: int) -> "pd.DataFrame":
    """Return at most `count` files of a split of the run, evenly spread: the columns path and label (0 or 1).

    Raises UserError if the run holds no list of them.
    """
    import pandas as pd

    from tfdetect.data import manifest

    rows = manifest.read_unchecked(artifact.manifest) if artifact.manifest.exists() else pd.DataFrame()
    if not {"path", "label", "split"} <= set(rows):
        raise UserError(f"{artifact.folder} does not say which its {split} files are: name files to compare with by --files.")
    rows = rows[(rows["split"] == split) & (rows["error"] == "" if "error" in rows else True)]
    if rows.empty:
        raise UserError(f"{artifact.folder} has no {split} files: name files to compare with by --files.")
    chosen = rows.iloc[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]
    return chosen[["path", "label"]].astype({"label": int})


def given_files(paths: Sequence[str]) -> "pd.DataFrame":
    """Return a table of files whose labels are not known."""
    import pandas as pd

    return pd.DataFrame({"path": list(paths), "label": -1})
