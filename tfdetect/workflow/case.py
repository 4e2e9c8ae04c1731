"""A case report: what is to be known about a few files, each judged by one run or several; `predict --case`."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from tfdetect import hashes, plugins
from tfdetect.artifact import Artifact
from tfdetect.data.media.frames import Media
from tfdetect.data.media.read import digest, read_media
from tfdetect.data.media.sniff import MediaError, media_kind
from tfdetect.data.prepare.clip_cache import MiddleFrame
from tfdetect.data.worker_pool import WorkerFailure, map_unordered
from tfdetect.errors import suppress_out_of_memory
from tfdetect.evaluation import predictions, single_file
from tfdetect.evaluation.calibration import MIN_FILES_PER_CLASS, Calibration
from tfdetect.evaluation.timeline import Timeline
from tfdetect.limits import Limits
from tfdetect.machine import available_cores
from tfdetect.pages.case_content import NAMES, Finding, HeatMap, Reencoded
from tfdetect.serving.predictor import Predictor, Verdict
from tfdetect.settings import Data, Run
from tfdetect.workflow import explaining, timeline
from tfdetect.workflow.explaining import HeatMaps
from tfdetect.workflow.robustness_grids import GRIDS

GONE = "the run has no predictions.csv with such files"
PICTURE_SIDE = 480  # pixels of the longer side of the picture of a file
MAX_PIXELS = 2**31  # of all frames of a video that is encoded anew; about a minute and a half of HD
STEPS = 3 + len(GRIDS["case"])  # of the progress bar: verdict, heat-map, timeline, each re-encoding
Draw = Callable[[Verdict, Media], HeatMap]


@dataclass(frozen=True)
class Judge:
    """A run that judges files."""

    artifact: Artifact
    run: Run
    data: Data
    """How it reads them."""
    predictor: Predictor

    @cached_property
    def files(self) -> pd.DataFrame:
        """The scored validation and test files of the run: split, label, group and score; empty without predictions.csv."""
        if not self.artifact.predictions.exists():
            return pd.DataFrame(columns=["split", "label", "group", "score"])
        return predictions.by_file(predictions.read(self.artifact.predictions))

    def split(self, name: str) -> pd.DataFrame:
        """Return the scored files of a split."""
        return self.files[self.files["split"] == name]

    @cached_property
    def resampled(self) -> list[Calibration]:
        """Calibrations fitted to resamples of the validation files."""
        return single_file.resampled_calibrations(self.predictor.calibration, self.split("validation"))

    @cached_property
    def maps(self) -> HeatMaps:
        """What draws its heat-maps, by the method that measures best for the detector; loads model.keras where that needs it."""
        return explaining.prepare(self.predictor, self.artifact, self.run.detector)

    @cached_property
    def splits(self) -> dict[str, str]:
        """SHA-256 of each file of the run's data set -> its split; empty if the run does not hold them."""
        rows = self.manifest()
        return dict(zip(rows["sha"], rows["split"], strict=True)) if {"sha", "split"} <= set(rows) else {}

    def manifest(self) -> pd.DataFrame:
        """Return the run's data set as text; without columns if the run does not hold it."""
        if not self.artifact.manifest.exists():
            return pd.DataFrame()
        return pd.read_csv(self.artifact.manifest, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")


def find(judge: Judge, path: str, sha: str, media: Media | WorkerFailure, draw: Draw, step: Callable[..., None]) -> Finding:
    """Return what a run finds about a decoded file; `step` is called STEPS times."""
    verdict = judge.predictor.to_verdict(path, media)
    step()
    if isinstance(media, WorkerFailure) or verdict.score is None:
        step(advance=STEPS - 1)
        return Finding(asdict(verdict))
    missing: dict[str, str] = {}
    stability: tuple[Reencoded, ...] = ()
    score, interval = verdict.score, single_file.probability_interval(verdict.score, judge.resampled)
    if interval is None:
        missing["interval"] = why_no_interval(judge.split("validation"))
    if not len(judge.split("test")):
        missing["places"] = GONE
    heat_map = None
    if (pixels := media.total * media.width * media.height) > MAX_PIXELS and media.total > 1:
        missing["stability"] = (f"all frames of the video have {pixels / 1e9:.1f} billion pixels, and up to "
                                f"{MAX_PIXELS / 1e9:.1f} are encoded anew; evaluate --robustness has no such limit")  # fmt: skip
        step(advance=len(GRIDS["case"]))
    else:
        stability = reencode(judge, path, sha, media, step)
    with suppress_out_of_memory():
        heat_map = draw(verdict, media)
    if heat_map is None:
        missing["heat_map"] = "not enough memory"
    step()
    line = follow(judge, path, media, missing)
    step()
    if verdict.familiarity is None:
        missing["familiarity"] = "the run does not know what its training files were like"
    return Finding(asdict(verdict), interval, single_file.places(score, judge.split("test")),
                   single_file.by_prevalence(score, judge.predictor.calibration), judge.splits.get(sha, "") if sha else "",
                   stability, heat_map, line, seen(media), missing)  # fmt: skip


def why_no_interval(validation: pd.DataFrame) -> str:
    """Return why `single_file.resampled_calibrations` of these files has none."""
    reals, fakes = (int((validation["label"] == label).sum()) for label in (0, 1))
    return GONE if not len(validation) else (f"it takes {MIN_FILES_PER_CLASS} real and as many fake validation files, and there "
                                             f"are {reals} and {fakes}")  # fmt: skip


def follow(judge: Judge, path: str, media: Media, missing: dict[str, str]) -> Timeline | None:
    """Return the scores of a video over time; None, with the reason in `missing`, if there are none, and for an image."""
    if media.total == 1:
        return None
    try:
        return timeline.build(judge.predictor, path, media.total)
    except MediaError as error:
        missing["timeline"] = str(error)
        return None


def seen(media: Media) -> tuple[np.ndarray, ...]:
    """Return the middle frame of the clip, or of that of each face."""
    return tuple(np.array(clip[len(clip) // 2]) for clip in media.clips)


def reencode(judge: Judge, path: str, sha: str, media: Media, step: Callable[..., None]) -> tuple[Reencoded, ...]:
    """Return the verdicts on a file after each re-encoding of the grid for its kind."""
    from tfdetect.data.input_pipeline.corrupted_files import ClipMaker, FileCorruption  # TensorFlow, which pictures do not need

    is_video = media_kind(path) == "video"
    texts = GRIDS["case_video" if is_video else "case"]
    workers = judge.data.workers or available_cores()
    shares = [texts[start::workers] for start in range(min(workers, len(texts)))]  # for all cores; each decodes the video once
    jobs = [FileCorruption(path, sha, share, is_video, media.total) for share in shares]
    found: dict[str, Reencoded] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = ClipMaker(judge.predictor.spec, Path(folder), tuple(plugins.loaded_files()), quick=True)
        for job, results in map_unordered(jobs, work, judge.data.workers, judge.data.timeout):
            results = [results] * len(job.texts) if isinstance(results, WorkerFailure) else results
            for text, result in zip(job.texts, results, strict=True):
                verdict = asdict(judge.predictor.to_verdict(path, result))
                names = ("verdict", "probability", "score", "familiarity", "unfamiliar_reason", "error")
                found[text] = Reencoded(text, NAMES[text], **{name: verdict[name] for name in names})
                step()
    return tuple(found[text] for text in texts)


@dataclass(frozen=True)
class Picture:
    """Return a small copy of an image, or of the middle frame of a video, as a task for `worker_pool.map_ordered`; None for a
    file that cannot be read."""

    limits: Limits

    def __call__(self, path: str) -> np.ndarray | None:
        middle = MiddleFrame(1)
        try:
            read_media(path, 1, None, 8, self.limits, middle.add_frame, on_restart=middle.restart)
        except (MediaError, OSError):
            return None
        from PIL import Image

        image = Image.fromarray(middle.frame)
        image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
        return np.asarray(image)


def identify(path: str) -> tuple[str, str]:
    """Return the SHA-256 of a file, and "image" or "video"; each "" if the file does not say."""
    sha, kind = "", ""
    try:
        sha = digest(path)
        kind = media_kind(path)
    except (MediaError, OSError):
        pass
    return sha, kind


def hash_files(artifact: Artifact) -> dict[str, str]:
    """Return the SHA-256 of a run's SavedModel, of each other file that decides its verdicts, of SHA256SUMS, and of its card.

    That of the SavedModel is of what `find . -type f | LC_ALL=C sort | xargs sha256sum` prints in its folder.
    """
    found, saved = hashes.of_files(artifact.folder), f"{artifact.saved_model.name}/"
    inside = [f"{sha}  ./{name.removeprefix(saved)}\n" for name, sha in found.items() if name.startswith(saved)]
    return {**({f"{saved} (SavedModel)": hashes.of_text("".join(inside))} if inside else {}),
            **{name: sha for name, sha in found.items() if not name.startswith(saved)},
            hashes.NAME: hashes.of_text(hashes.lines(found)),  # stands for all that decide a verdict
            **({artifact.card.name: digest(artifact.card)} if artifact.card.exists() else {})}  # fmt: skip
