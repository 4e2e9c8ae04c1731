"""Remove shortcuts: crop and encode both classes alike, so that no file property tells them apart.

Files are cropped, never resized, because resampling leaves a trace. So does an earlier compression: images that were
compressed less than those of the other class are first compressed at the same quality (`match_qualities`).
docs/equalise.md has measurements and limitations.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from tfdetect.data import sample
from tfdetect.data.media.encode import encode_jpeg, h264_writer
from tfdetect.data.media.read import DECODING, READER_VERSION, read_image, read_video
from tfdetect.data.media.sniff import MediaError, failure_reason
from tfdetect.data.worker_pool import WorkerFailure, map_unordered
from tfdetect.errors import UserError
from tfdetect.files import write_bytes, write_json
from tfdetect.limits import Decoding, Limits

if TYPE_CHECKING:
    import pandas as pd

MAX_FAILED = 0.1  # share of each class that may be too small or too short for the plan; those files fail
GRID = 16  # pixels; crops start on the block grid of the first compression, in both classes
MAX_QUALITY, MIN_QUALITY = 95, 60  # JPEG
LOSSLESS_QUALITY = 101  # stands for the quality of images that are not JPEG
MIN_RATE = 0.75  # share of the common frame rate below which a video fails
MAX_BYTES = 2**28  # decoded frames of one video
FIELDS = ("sha", "width", "height", "jpeg_quality", "fps", "frames", "error")  # the file properties used here
INDEX_NAME = "properties.jsonl"
PLAN_NAME = "plan.json"  # beside the index
UNKNOWN_RATE = "a video with an unknown frame rate, which cannot be equalised"
Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Plan:
    """The common crop and encoding of all files."""

    crop: int  # pixels; side of a centred square
    quality: int  # JPEG, 4:2:0
    fps: float  # frame rate of all videos; 0 without videos
    frames: int  # number of frames of a video, from its middle


@dataclass(frozen=True)
class Job:
    """How one file is equalised."""

    path: str
    output: str
    first_quality: int  # JPEG quality at which an image is compressed before the common encoding; 0 for none
    fps: float  # frame rate of the video
    step: int  # every step-th frame of a video is kept; 0 for an image

    def describe(self, plan: Plan) -> str:
        """Return what is done, for the manifest."""
        if not self.step:
            first = f"jpeg {self.first_quality}, " if self.first_quality else ""
            return f"crop {plan.crop}, {first}jpeg {plan.quality}"
        every = f", one in {self.step}," if self.step > 1 else ""
        return f"crop {plan.crop}, {plan.frames} frames{every} at {plan.fps:g} a second, h264 qp {sample.QP}"


def equalise(table: pd.DataFrame, folder: Path, workers: int | None = None, progress: Progress | None = None,
             seconds: float | None = None, limits: Limits | None = None, size: int | None = None,
             decoding: Decoding = DECODING) -> pd.DataFrame:  # fmt: skip
    """Write an equalised copy of every file of the manifest into `folder`; existing copies are kept.

    `size` is the side of the crop in pixels; by default the largest for which at most MAX_FAILED of each class fail.
    Returns the manifest with `path` of the copy, `original`, `original_sha`, `equalised` (what was done) and `error`. A
    file that cannot be read, is smaller or shorter than the plan, or is a video while the other class has none, keeps its
    path and gets a reason. `progress` is called twice per file. Raises UserError if no file can be used, OSError if
    `folder` cannot be written.
    """
    if size is not None and size < GRID:
        raise UserError(f"The crop size is {size}, but must be at least {GRID} pixels.")
    progress, limits = progress or (lambda result: None), limits or Limits()
    properties = measure_files(table, folder / INDEX_NAME, workers, progress, seconds, limits, decoding)
    if (properties["error"] != "").all():
        first = f"{table['path'].iloc[0]}: {properties['error'].iloc[0]}"
        raise UserError(f"None of the {len(table)} files can be used. The first: {first}.")
    plan = choose_plan(properties, table["label"], size)
    write_json(folder / PLAN_NAME, asdict(plan))
    jobs = {job.path: job for job in list_jobs(table, properties, plan, folder, decoding)}
    errors = dict(zip(table["path"], properties["error"], strict=True))
    pending = [job for job in jobs.values() if not os.path.exists(job.output)]
    for _ in range(len(table) - len(pending)):
        progress({"error": ""})  # already done, or counted as failed when it was measured
    for job, result in map_unordered(pending, Equaliser(plan, limits, decoding), workers, seconds):
        errors[job.path] = result.reason if isinstance(result, WorkerFailure) else result
        progress({"error": errors[job.path]})
    done = {path: job for path, job in jobs.items() if not errors[path]}
    columns = {"original": list(table["path"]), "original_sha": list(properties["sha"].fillna("")),
               "path": [done[path].output if path in done else path for path in table["path"]],
               "equalised": [done[path].describe(plan) if path in done else "" for path in table["path"]],
               "error": [errors[path] for path in table["path"]]}  # fmt: skip
    import pandas as pd

    return table.assign(**{name: pd.Series(column, table.index, object) for name, column in columns.items()})


def find_plan(path: str | Path) -> Path | None:
    """Return the path of the plan by which a file of an equalised folder was made; None for any other file."""
    plan = Path(path).parent.parent / PLAN_NAME
    return plan if plan.exists() else None


@contextmanager
def equalised_copy(path: str | Path, plan: Plan, limits: Limits, decoding: Decoding = DECODING) -> Iterator[str | Path]:
    """Provide a copy of a file equalised by the plan, for a detector of such files; the file itself if it is equalised.

    The first compression (`match_qualities`) is omitted, because it depends on the label. Raises MediaError if the file
    cannot be equalised.
    """
    if find_plan(path):
        yield path
        return
    from tfdetect.data.audit.properties import Probe

    properties = Probe(limits, decoding)(str(path))
    if properties["error"]:
        raise MediaError(properties["error"])
    is_video = bool(properties.get("fps"))
    if is_video and not plan.fps:
        raise MediaError("a video, but the detector was trained on equalised images")
    fps = float(properties["fps"]) if is_video else 0.0
    job = Job(str(path), "", 0, fps, int(frame_step(fps, plan.fps)) if is_video else 0)
    equaliser = Equaliser(plan, limits, decoding)
    content = equaliser.encode_video(job) if is_video else equaliser.encode_image(job)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / ("file.mp4" if is_video else "file.jpg")
        copy.write_bytes(content)
        yield copy


def measure_files(table: pd.DataFrame, index: Path, workers: int | None, progress: Progress, seconds: float | None,
                  limits: Limits, decoding: Decoding = DECODING) -> pd.DataFrame:  # fmt: skip
    """Return the FIELDS of each file, row for row; NaN if a file lacks one (only videos have fps and frames).

    `index` is the path of a cache, so a resumed run need not read the files again.
    """
    from tfdetect.data.audit.properties import collect

    measured = collect(table, workers, progress, seconds, limits, index, decoding)[list(FIELDS)].copy()
    measured.loc[measured["frames"].gt(0) & ~measured["fps"].gt(0), "error"] = UNKNOWN_RATE
    _reject_unmatched_kinds(measured, table["label"])
    return measured


def _reject_unmatched_kinds(properties: pd.DataFrame, label: pd.Series) -> None:
    """Set a reason for each image or video if the other class has files, but none of that kind."""
    good, is_video = properties["error"] == "", properties["frames"].notna()
    for kind, name in ((is_video, "a video"), (~is_video, "an image")):
        for this, other in ((0, 1), (1, 0)):
            if (good & (label == other)).any() and not (good & kind & (label == other)).any():
                reason = f"{name}, but no {('real', 'fake')[other]} file is one; give both classes the same kinds of file"
                properties.loc[good & kind & (label == this), "error"] = reason


def choose_plan(properties: pd.DataFrame, label: pd.Series, size: int | None = None) -> Plan:
    """Return the largest crop, quality, frame rate and length for which at most MAX_FAILED of each class fail."""
    good = properties[properties["error"] == ""]
    label = label[good.index]

    def common(values: pd.Series) -> float:
        """Return the smaller of both classes' MAX_FAILED quantiles, ignoring NaN."""
        classes = [values[label == kind].dropna() for kind in (0, 1)]
        return float(min((np.quantile(part, MAX_FAILED, method="lower") for part in classes if len(part)), default=0))

    crop = size or max(int(common(good[["width", "height"]].min(axis=1))) // GRID, 1) * GRID
    quality = int(np.clip(common(good["jpeg_quality"].fillna(LOSSLESS_QUALITY)), MIN_QUALITY, MAX_QUALITY))
    fps = common(good["fps"])
    frames = int(common((good["frames"] - 1) // frame_step(good["fps"], fps) + 1)) if fps else 0
    return Plan(crop, quality, round(fps, 3), min(frames, max(MAX_BYTES // (3 * crop * crop), 1)))


def frame_step(fps: Any, common: float) -> Any:
    """Return the step between kept frames that comes closest to the common rate.

    The step is constant. Reducing 30 frames/s to exactly 25 would need a jump at every fifth frame, which is an easier
    trace to detect than motion that is a fifth faster.
    """
    return np.maximum(np.rint(fps / common), 1) if common else 0 * fps


def match_qualities(properties: pd.DataFrame, label: pd.Series) -> pd.Series:
    """Return the JPEG quality at which to compress each image first, so that both classes share a history; 0 for none.

    The images of each class are sorted by quality and paired by rank. An image whose counterpart in the other class has a
    lower quality is compressed at that quality. The hash of the content breaks ties.
    """
    import pandas as pd

    first_quality = pd.Series(0, properties.index)
    rows = properties[(properties["error"] == "") & properties["frames"].isna()].assign(label=label)
    rows["jpeg_quality"] = rows["jpeg_quality"].fillna(LOSSLESS_QUALITY)
    for kind in (0, 1):
        this = rows[rows["label"] == kind].sort_values(["jpeg_quality", "sha"])["jpeg_quality"]
        other = np.sort(rows.loc[rows["label"] != kind, "jpeg_quality"])
        if len(this) and len(other):
            counterpart = other[((np.arange(len(this)) + 0.5) / len(this) * len(other)).astype(int)]
            first_quality[this.index] = np.where(counterpart < this, counterpart, 0).astype(int)
    return first_quality


def list_jobs(table: pd.DataFrame, properties: pd.DataFrame, plan: Plan, folder: Path,
              decoding: Decoding = DECODING) -> list[Job]:  # fmt: skip
    """Return a job for each usable file.

    Output names depend on content, path and treatment: copies of a file remain separate files, and changed files are
    written again.
    """
    steps = frame_step(properties["fps"], plan.fps).fillna(0).astype(int)
    treatment, jobs = repr((READER_VERSION, plan, decoding.key)).encode(), []
    for path, sha, error, first_quality, fps, step in zip(
        table["path"], properties["sha"], properties["error"], match_qualities(properties, table["label"]), properties["fps"],
        steps, strict=True
    ):  # fmt: skip
        if not error:
            parts = (sha.encode(), treatment, str(first_quality).encode(), os.fsencode(path))
            name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:32] + (".mp4" if step else ".jpg")
            jobs.append(Job(path, os.path.join(folder, name[:2], name), first_quality, fps, step))
    return jobs


@dataclass(frozen=True)
class Equaliser:
    """Carry out jobs in worker processes. A call returns "" or why the file cannot be equalised; OSError if writing fails."""

    plan: Plan
    limits: Limits = field(default_factory=Limits)
    decoding: Decoding = field(default_factory=Decoding)

    def __call__(self, job: Job) -> str:
        try:
            content = self.encode_video(job) if job.step else self.encode_image(job)
        except (MediaError, OSError) as error:
            return failure_reason(error)
        write_bytes(Path(job.output), content)
        return ""

    def crop(self, frame: np.ndarray) -> np.ndarray:
        """Return the central crop of a frame (height, width, 3) uint8, aligned to GRID. Raises MediaError if it is too small."""
        height, width = frame.shape[:2]
        if min(height, width) < self.plan.crop:
            raise MediaError(f"{width} x {height} pixels, smaller than the common crop of {self.plan.crop}")
        top, left = ((side - self.plan.crop) // 2 // GRID * GRID for side in (height, width))
        return np.ascontiguousarray(frame[top : top + self.plan.crop, left : left + self.plan.crop])

    def encode_image(self, job: Job) -> bytes:
        """Return the equalised JPEG."""
        frame = read_image(job.path, limits=self.limits).frames[0]
        if job.first_quality:
            compressed = np.frombuffer(encode_jpeg(frame, job.first_quality), np.uint8)
            frame = cv2.cvtColor(np.asarray(cv2.imdecode(compressed, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)
        return encode_jpeg(self.crop(frame), self.plan.quality)

    def encode_video(self, job: Job) -> bytes:
        """Return the equalised MP4, encoded frame by frame to bound memory. Raises MediaError if there are too few frames."""
        plan, kept, memory = self.plan, list[int](), io.BytesIO()
        side, rate = plan.crop // 2 * 2, Fraction(plan.fps).limit_denominator(1001)  # 4:2:0 needs even sides
        if job.fps < MIN_RATE * plan.fps:
            raise MediaError(f"{job.fps:g} frames a second, fewer than the common {plan.fps:g}")
        write: Callable[[np.ndarray], None]
        with ExitStack() as stack:

            def start() -> None:
                nonlocal memory, write
                stack.close()
                kept.clear()
                memory = io.BytesIO()
                write = stack.enter_context(h264_writer(memory, rate, side, side, sample.X264))

            def keep_frame(index: int, frame: np.ndarray) -> None:
                is_due = not kept or (index > kept[-1] and (index - kept[0]) % job.step == 0)
                if is_due and len(kept) < plan.frames:
                    kept.append(index)
                    write(self.crop(frame)[:side, :side])

            start()
            # Sampling at twice the frame rate misses no frame of a video with uneven frame intervals.
            read_video(job.path, 2 * plan.frames * job.step, 2 * job.fps, 16, self.limits, keep_frame, decoding=self.decoding,
                       on_restart=start)  # fmt: skip
            if len(kept) < plan.frames:
                raise MediaError(f"{len(kept)} usable frames, fewer than the common {plan.frames}")
        return memory.getvalue()
