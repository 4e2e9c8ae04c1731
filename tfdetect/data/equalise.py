"""The remedy for shortcuts: both classes get one crop and one encoding, so that no container tells them apart.

Cropped, never resized: resampling is itself a trace. So is an earlier compression, which stays in the pixels: pictures that were
compressed less, or never, first go through what those of the other class went through (`match_qualities`). docs/equalise.md says
what was measured, and what cannot be mended.
"""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from tfdetect.data import sample
from tfdetect.data.audit.properties import Probe
from tfdetect.data.media.read import READER_VERSION, read_image, read_video
from tfdetect.data.media.sniff import MediaError
from tfdetect.data.worker_pool import WorkerFailure, map_unordered
from tfdetect.errors import UserError
from tfdetect.files import size_and_mtime, write_bytes, write_json
from tfdetect.limits import Limits

MAX_FAILED = 0.1  # of the files of each class, at most, may be too small, or too short, for the rest; they fail
GRID = 16  # pixels: crops start on the blocks of the first compression, in both classes alike
BEST, WORST = 95, 60  # JPEG qualities at most and at least
LOSSLESS_QUALITY = 101  # the quality of what is no JPEG
MIN_RATE = 0.75  # of the common frame rate: a video with fewer frames a second fails
MAX_BYTES = 2**28  # bytes of the frames of one video, decoded
FIELDS = ("sha", "width", "height", "jpeg_quality", "fps", "frames", "error")  # all that is kept of a file's properties
INDEX_NAME = f"facts-v{READER_VERSION}.json"
PLAN_NAME = "plan.json"  # beside it
Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Plan:
    """What is done to every file."""

    crop: int  # pixels, of a square in the middle
    quality: int  # of JPEG, 4:2:0
    fps: float  # at which all videos are played; 0 without videos
    frames: int  # of a video, from its middle


@dataclass(frozen=True)
class Job:
    """What is done to one file."""

    path: str
    new: str  # where it goes
    before: int  # JPEG quality that an image goes through first; 0: none
    fps: float  # of a video as it is
    frame_step: int  # one frame in so many is taken from a video; 0: an image

    def says(self, plan: Plan) -> str:
        """For the manifest."""
        if not self.step:
            return f"crop {plan.crop}, " + (f"jpeg {self.before}, " if self.before else "") + f"jpeg {plan.quality}"
        every = f", one in {self.step}," if self.step > 1 else ""
        return f"crop {plan.crop}, {plan.frames} frames{every} at {plan.fps:g} a second, h264 qp {sample.QP}"


def equalise(table: pd.DataFrame, folder: Path, workers: int | None = None, progress: Progress | None = None,
             seconds: float | None = None, limits: Limits | None = None, size: int | None = None) -> pd.DataFrame:  # fmt: skip
    """Write every file of the manifest anew, alike for both classes, into `folder`; files that are there are kept.

    `size`: pixels of the crop; by default the largest that all but SPARED of each class allow. Returns the manifest with
    `path` of the new file, `original`, `original_sha`, `equalised` (what was done) and `error`: a file that cannot be read, is
    smaller or shorter than the rest, or is a video where the other class has none, keeps its path and has the reason.
    `progress` is called twice for each file. Raises ValueError where no file can be used, OSError where `folder` cannot be
    written.
    """
    if size is not None and size < GRID:
        raise UserError(f"size {size} came: a crop has at least {GRID} pixels.")
    progress, limits = progress or (lambda result: None), limits or Limits()
    found = measure_files(table, folder / INDEX_NAME, workers, progress, seconds, limits)
    if (found["error"] != "").all():
        first = f"{table['path'].iloc[0]}: {found['error'].iloc[0]}"
        raise UserError(f"None of the {len(table)} files could be used. The first: {first}.")
    plan = choose_plan(found, table["label"], size)
    write_json(folder / PLAN_NAME, asdict(plan))
    jobs = {job.path: job for job in list_jobs(table, found, plan, folder)}
    errors = dict(zip(table["path"], found["error"], strict=True))
    todo = [job for job in jobs.values() if not os.path.exists(job.new)]
    for _ in range(len(table) - len(todo)):
        progress({"error": ""})  # there already, or counted as failed when it was looked at
    for job, result in map_unordered(todo, Equaliser(plan, limits), workers, seconds):
        errors[job.path] = result.reason if isinstance(result, WorkerFailure) else result
        progress({"error": errors[job.path]})
    good = {path: job for path, job in jobs.items() if not errors[path]}
    columns = {"original": list(table["path"]), "original_sha": list(found["sha"].fillna("")),
               "path": [good[path].new if path in good else path for path in table["path"]],
               "equalised": [good[path].says(plan) if path in good else "" for path in table["path"]],
               "error": [errors[path] for path in table["path"]]}  # fmt: skip
    return table.assign(**{name: pd.Series(column, table.index, object) for name, column in columns.items()})


def find_plan(path: str | Path) -> Path | None:
    """Where the plan is by which a file of an equalised folder was made; None for any other file."""
    found = Path(path).parent.parent / PLAN_NAME
    return found if found.exists() else None


@contextmanager
def equalised_copy(path: str | Path, plan: Plan, limits: Limits) -> Iterator[str | Path]:
    """A copy of a file made by the plan, to be judged by a detector of such files; the file itself if it is one of them.

    What went before the common encoding (`match_qualities`) is left out: it depends on the label. Raises MediaError where the file
    cannot be made like the others.
    """
    if find_plan(path):
        yield path
        return
    known = Probe(limits)(str(path))
    if known["error"]:
        raise MediaError(known["error"])
    moving = bool(known.get("fps"))
    if moving and not plan.fps:
        raise MediaError("a video, and the run learnt from equalised images")
    fps = float(known["fps"]) if moving else 0.0
    job = Job(str(path), "", 0, fps, int(frame_step(fps, plan.fps)) if moving else 0)
    content = Equaliser(plan, limits).video(job) if moving else Equaliser(plan, limits).image(job)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / ("file.mp4" if moving else "file.jpg")
        made.write_bytes(content)
        yield made


def measure_files(table: pd.DataFrame, index: Path, workers: int | None, progress: Progress, seconds: float | None,
          limits: Limits) -> pd.DataFrame:  # fmt: skip
    """FACTS of each file, row for row; NaN where there is none: only videos have fps and frames. `index` keeps those of good
    files, by size and time of change, so that a resumed run need not read them again."""
    found = {path: known for path, known in _load_index(index).items() if known[0] == size_and_mtime(path)}
    for _ in range(sum(path in found for path in table["path"])):
        progress({"error": ""})
    todo = [path for path in table["path"] if path not in found]
    try:
        for path, result in map_unordered(todo, Probe(limits), workers, seconds):
            known = {"error": result.reason} if isinstance(result, WorkerFailure) else result
            if known.get("frames") and not known.get("fps"):
                known = {"error": "a video whose frame rate is not known, which equalising needs"}
            found[path] = [size_and_mtime(path), *(known.get(name) for name in FIELDS)]
            progress({"error": known["error"]})
    finally:
        if todo:
            write_json(index, {path: known for path, known in found.items() if not known[-1]})
    out = pd.DataFrame([found[path][1:] for path in table["path"]], columns=list(FIELDS), index=table.index)
    for name in ("width", "height", "jpeg_quality", "fps", "frames"):
        out[name] = pd.to_numeric(out[name]).astype(float)
    _reject_unmatched_kinds(out, table["label"])
    return out


def _load_index(index: Path) -> dict[str, list[Any]]:
    try:
        return dict(json.loads(index.read_text()))
    except (FileNotFoundError, ValueError):
        return {}


def _reject_unmatched_kinds(found: pd.DataFrame, label: pd.Series) -> None:
    """A reason for each image or video where the other class has files, but none of that kind."""
    good, video = found["error"] == "", found["frames"].notna()
    for kind, name in ((video, "a video"), (~video, "an image")):
        for of, other in ((0, 1), (1, 0)):
            if (good & (label == other)).any() and not (good & kind & (label == other)).any():
                reason = f"{name}, and no {('real', 'fake')[other]} file is one: give both classes the same kind of file"
                found.loc[good & kind & (label == of), "error"] = reason


def choose_plan(found: pd.DataFrame, label: pd.Series, size: int | None = None) -> Plan:
    """The largest crop and quality, the highest rate and the greatest length that all but MAX_FAILED of each class allow."""
    good = found[found["error"] == ""]
    label = label[good.index]

    def common(values: pd.Series) -> float:
        """What all but SPARED of each class reach, the lesser of the two; NaN is no value."""
        each = [values[label == kind].dropna() for kind in (0, 1)]
        return float(min((np.quantile(part, MAX_FAILED, method="lower") for part in each if len(part)), default=0))

    crop = size or max(int(common(good[["width", "height"]].min(axis=1))) // GRID, 1) * GRID
    quality = int(np.clip(common(good["jpeg_quality"].fillna(LOSSLESS_QUALITY)), WORST, BEST))
    fps = common(good["fps"])
    frames = int(common((good["frames"] - 1) // frame_step(good["fps"], fps) + 1)) if fps else 0
    return Plan(crop, quality, round(fps, 3), min(frames, max(MAX_BYTES // (3 * crop * crop), 1)))


def frame_step(fps: Any, common: float) -> Any:
    """One frame in how many comes nearest to the common rate. Always the same number: to hit the rate exactly, 30 a second
    would become 25 by a jump in every fifth place, a plainer trace than a motion that is a fifth faster."""
    return np.maximum(np.rint(fps / common), 1) if common else 0 * fps


def match_qualities(found: pd.DataFrame, label: pd.Series) -> pd.Series:
    """The JPEG quality that each image has to go through first, so that both classes were once compressed alike; 0 for none.

    The files of each class are put in order of quality. To each belongs one of the other class, at the same part of the
    way; where that one was compressed more, so is this one. Which of the equal ones, their content's hash decides.
    """
    out = pd.Series(0, found.index)
    rows = found[(found["error"] == "") & found["frames"].isna()].assign(label=label)
    rows["jpeg_quality"] = rows["jpeg_quality"].fillna(LOSSLESS_QUALITY)
    for kind in (0, 1):
        own = rows[rows["label"] == kind].sort_values(["jpeg_quality", "sha"])["jpeg_quality"]
        other = np.sort(rows.loc[rows["label"] != kind, "jpeg_quality"])
        if len(own) and len(other):
            there = other[((np.arange(len(own)) + 0.5) / len(own) * len(other)).astype(int)]
            out[own.index] = np.where(there < own, there, 0).astype(int)
    return out


def list_jobs(table: pd.DataFrame, found: pd.DataFrame, plan: Plan, folder: Path) -> list[Job]:
    """The files to be made, named by content, path and what is done: copies stay files of their own, what changed is made
    anew."""
    steps, mark, jobs = frame_step(found["fps"], plan.fps).fillna(0).astype(int), repr((READER_VERSION, plan)).encode(), []
    for path, sha, error, before, fps, every in zip(
        table["path"], found["sha"], found["error"], match_qualities(found, table["label"]), found["fps"], steps, strict=True
    ):
        if not error:
            parts = (sha.encode(), mark, str(before).encode(), os.fsencode(path))
            name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:32] + (".mp4" if every else ".jpg")
            jobs.append(Job(path, os.path.join(folder, name[:2], name), before, fps, every))
    return jobs


@dataclass(frozen=True)
class Equaliser:
    """Job -> "" or the reason why the file cannot be made like the others; OSError where it cannot be written."""

    plan: Plan
    limits: Limits = field(default_factory=Limits)

    def __call__(self, job: Job) -> str:
        try:
            content = self.video(job) if job.step else self.image(job)
        except MediaError as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)
        write_bytes(Path(job.new), content)
        return ""

    def crop(self, frame: np.ndarray) -> np.ndarray:
        """The middle of a frame, (height, width, 3) uint8, moved to the grid. Raises MediaError where it is too small."""
        height, width = frame.shape[:2]
        if min(height, width) < self.plan.crop:
            raise MediaError(f"{width} x {height} pixels, smaller than the {self.plan.crop} of the common crop")
        top, left = ((side - self.plan.crop) // 2 // GRID * GRID for side in (height, width))
        return np.ascontiguousarray(frame[top : top + self.plan.crop, left : left + self.plan.crop])

    def image(self, job: Job) -> bytes:
        frame = read_image(job.path, limits=self.limits).frames[0]
        if job.before:
            once = np.frombuffer(encode_jpeg(frame, job.before), np.uint8)
            frame = cv2.cvtColor(np.asarray(cv2.imdecode(once, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)
        return encode_jpeg(self.crop(frame), self.plan.quality)

    def video(self, job: Job) -> bytes:
        """Frame by frame, so that memory stays flat. Raises MediaError where there are too few."""
        import av  # here, since the images need no FFmpeg

        plan, memory = self.plan, io.BytesIO()
        taken: list[int] = []
        if job.fps < MIN_RATE * plan.fps:
            raise MediaError(f"{job.fps:g} frames a second, fewer than the common {plan.fps:g}")
        with av.open(memory, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=Fraction(plan.fps).limit_denominator(1001))
            stream.height = stream.width = plan.crop // 2 * 2  # 4:2:0 needs even sides
            stream.pix_fmt = "yuv420p"
            stream.options = {"qp": str(sample.QP), "g": "1", "preset": "medium", "threads": "1"}  # see sample.py

            def take(at: int, frame: np.ndarray) -> None:
                new = not taken or (at > taken[-1] and (at - taken[0]) % job.step == 0)
                if new and len(taken) < plan.frames:
                    taken.append(at)
                    picture = self.crop(frame)[: stream.height, : stream.width]
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))

            # Two looks for each frame's time: none is missed where they do not come at even distances.
            read_video(job.path, 2 * plan.frames * job.step, 2 * job.fps, 16, self.limits, take)
            if len(taken) < plan.frames:
                raise MediaError(f"{len(taken)} frames to take, fewer than the common {plan.frames}")
            container.mux(stream.encode())
        return memory.getvalue()


def encode_jpeg(frame: np.ndarray, quality: int) -> bytes:
    """(height, width, 3) uint8 RGB -> JPEG, 4:2:0."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    return cv2.imencode(".jpg", frame[..., ::-1], options)[1].tobytes()
