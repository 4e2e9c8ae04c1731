"""explain: show which regions of a file drive its score."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import cache as once
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from tfdetect import artifact as artifacts
from tfdetect import files, models  # noqa: F401  (registers the detectors)
from tfdetect.api.results import show_page
from tfdetect.detector import Detector
from tfdetect.errors import UserError, is_out_of_memory
from tfdetect.workflow.console import progress
from tfdetect.workflow.verdicts import FileList, PredictData, load_predictor

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from tfdetect.data.media.frames import Media
    from tfdetect.serving.predictor import Predictor, Verdict

MAX_FILES = 200  # larger pages open slowly
MAP_PASSES = 68  # through the model for a heat-map by occlusion and its check
MAX_SECONDS = 5.0  # for a heat-map that nobody asked for


@dataclass(frozen=True)
class Explain:
    """Write a page of heat-maps that show which regions of each file drive its score. Exit code 1 if any file failed."""

    run: tyro.conf.Positional[Path]
    """Folder of the run, such as saved_models/cnn."""
    files: tyro.conf.Positional[tuple[Path, ...]]
    """Images, videos, folders of them, and tables (CSV, .xlsx, Parquet) with a column path."""
    data: PredictData = field(default_factory=PredictData)
    out: Path = Path("explained")
    """Folder for explanation.html and explanation.json."""
    method: Literal["auto", "error", "occlusion"] = "auto"
    """What the heat-map shows.
    error: the reconstruction error of an autoencoder.
    occlusion: how much the score drops when a region is hidden, for any detector.
    auto: error for autoencoders, else occlusion."""
    frames: int = 4
    """Frames shown of each video, evenly spaced among those that the detector sees."""
    cells: int = 4
    """Regions per side for occlusion.
    More give a finer map, take longer, and miss evidence that is spread over large areas."""

    def __post_init__(self) -> None:
        if self.frames < 1 or self.cells < 2:
            raise UserError(f"--frames must be at least 1 and --cells at least 2, got {self.frames} and {self.cells}.")


@dataclass(frozen=True)
class Explanation:
    """Where the page of heat-maps is, and what it says about each file. A notebook shows the page."""

    page: Path
    method: str
    rows: Sequence[Mapping[str, Any]] = field(repr=False, compare=False)

    @property
    def table(self) -> "pd.DataFrame":
        """A row per file: the columns of `predict`, and how much the score drops when the hottest tenth of the map, or the same
        shape elsewhere, is hidden."""
        from tfdetect.pandas_settings import pd

        return pd.DataFrame(self.rows)

    @property
    def failed(self) -> int:
        """The number of files that could not be read."""
        return sum(row["error"] is not None for row in self.rows)

    def _repr_html_(self) -> str:
        return show_page(self.page)


def explain_files(args: Explain, load: "Callable[[], Predictor] | None" = None,
                  show: "Callable[[Verdict], None] | None" = None) -> Explanation:
    """Explain each file as soon as it is decoded, and write the page; if interrupted, write the page so far.

    `load` returns a predictor that is loaded already, and `show` is called with each verdict; by default a progress bar is shown.
    """
    artifact = artifacts.find(args.run)
    run = artifacts.load_config(artifact)
    data, method = args.data.apply_to(run.data), resolve_method(args.method, run.detector)
    paths = FileList(args.files)
    if len(paths) > MAX_FILES:
        raise UserError(f"{len(paths)} files are too many for one page; give at most {MAX_FILES}.")
    if args.cells > run.data.size:
        raise UserError(f"--cells {args.cells} is more than the {run.data.size} pixels per side that the run uses; give fewer.")
    predictor = (load() if load else load_predictor(artifact, run)).with_limits(data.limits, data.decoding)
    from tfdetect.pages import explanation

    args.out.mkdir(parents=True, exist_ok=True)
    sections: list[str] = []
    rows: list[dict[str, Any]] = []
    try:
        bar = nullcontext(lambda row: None) if show else progress("Explaining", len(paths))
        with bar as step:
            to_verdict = lambda path, clip: (predictor.to_verdict(path, clip), clip)  # noqa: E731
            for verdict, clip in predictor.map_files(paths, to_verdict, data.timeout, data.workers):
                rows.append({**asdict(verdict), "method": method})
                if verdict.error is None:
                    shown, which = most_fake_face(predictor, verdict, clip)
                    frames, heat, check = explain_clip(predictor, shown, method, args)
                    rows[-1] |= check
                    title = files.printable(verdict.path) + which
                    sections.append(explanation.section(title, caption(verdict, check), frames, heat, method))
                step(rows[-1])
                if show:
                    show(verdict)
    finally:
        explanation.write(args.out / "explanation.html", artifact.folder.name, method, predictor.threshold, sections)
        files.write_json(args.out / "explanation.json", rows)
    return Explanation(args.out / "explanation.html", method, rows)


def most_fake_face(predictor: "Predictor", verdict: "Verdict", media: "Media") -> "tuple[np.ndarray, str]":
    """Return the frames that the detector scores, of several faces those of the one with the highest score, and which it is."""
    frames, faces = predictor.model_frames(media), verdict.faces or ()
    if len(faces) < 2:
        return frames, ""
    highest = max(range(len(faces)), key=lambda number: faces[number]["score"])
    clip = frames.reshape(len(faces), -1, *frames.shape[1:])[highest]
    return clip, f", face {highest}, the most fake of {len(faces)}"


def resolve_method(method: str, detector: Detector) -> str:
    """Return the method that `auto` stands for. Raises UserError for `error` on a detector that does not reconstruct."""
    if method == "error" and not detector.reconstructs:
        raise UserError(f"--method error needs an autoencoder, and {detector.name} reconstructs nothing: use --method occlusion.")
    return method if method != "auto" else "error" if detector.reconstructs else "occlusion"


def explain_clip(predictor: "Predictor", clip: "np.ndarray", method: str,
                 args: Explain) -> "tuple[np.ndarray, np.ndarray, dict[str, float]]":
    """Return (shown frames, their heat-maps, the mean of `heatmaps.deletion_check`) of a clip (frames, height, width, 3) uint8.

    A frame detector gets a map per shown frame; for a clip detector all frames share one.
    """
    import numpy as np

    from tfdetect.data.media.frames import evenly_spaced
    from tfdetect.explain import heatmaps

    def score(clips: "np.ndarray") -> "np.ndarray":
        return predictor.predict_clips(clips)[0]

    shown = list(dict.fromkeys(evenly_spaced(len(clip), min(args.frames, len(clip)))))
    inputs = [clip[[frame]] for frame in shown] if predictor.is_frame_detector else [clip]
    make_map = {"error": lambda frames: predictor.reconstruction_errors(frames[None])[0].mean(axis=0),
                "occlusion": lambda frames: heatmaps.occlusion_map(score, frames, args.cells)}[method]  # fmt: skip
    maps = [make_map(frames) for frames in inputs]
    hottest, elsewhere = np.mean([heatmaps.deletion_check(score, *pair) for pair in zip(inputs, maps, strict=True)], axis=0)
    maps = maps if predictor.is_frame_detector else maps * len(shown)
    return clip[shown], np.stack(maps), {"hottest_tenth": float(hottest), "elsewhere": float(elsewhere)}


def map_drawer(predictor: "Predictor", detector: Detector) -> "Callable[[np.ndarray], tuple[bytes, str] | None]":
    """Return a function from a clip of the run's size (frames, height, width, 3) uint8 to a PNG of it with its heat-map, and what
    the check of the map says; None if that would take longer than MAX_SECONDS, or there is not enough memory for it."""
    from tfdetect.pages import explanation
    from tfdetect.plots import style

    method, args = resolve_method("auto", detector), Explain(Path(), (), frames=1 if predictor.is_frame_detector else 4)

    @once
    def is_fast() -> bool:
        return MAP_PASSES * seconds_per_pass(predictor) <= MAX_SECONDS

    def draw(clip: "np.ndarray") -> tuple[bytes, str] | None:
        try:
            if not is_fast():
                return None
            frames, heat, check = explain_clip(predictor, clip, method, args)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None
        return style.to_png(explanation.figure(frames, heat, method)), describe_check(check)

    return draw


def seconds_per_pass(predictor: "Predictor", batch: int = 2) -> float:
    """Return how long the model takes for what it sees at once: a frame or a clip."""
    import numpy as np

    frames, size = 1 if predictor.is_frame_detector else predictor.spec.frames, predictor.spec.size
    clips = np.zeros((batch, frames, size, size, 3), np.uint8)
    predictor.predict_clips(clips)  # the first call takes longer
    start = time.monotonic()
    predictor.predict_clips(clips)
    return (time.monotonic() - start) / batch


def caption(verdict: "Verdict", check: dict[str, float]) -> str:
    """Return the line under a figure: the verdict, and the check of its map."""
    note = f" ({verdict.note})" if verdict.note else ""
    return (f"{verdict.verdict or verdict.label}, probability {verdict.probability:.3f}, score {verdict.score:.3f}, "
            f"{verdict.frames} frame{'s' * (verdict.frames > 1)}{note}. {describe_check(check)}")  # fmt: skip


def describe_check(check: dict[str, float]) -> str:
    """Return how hiding the hottest tenth of a map, or another area, changes the score."""
    drops = check["hottest_tenth"], check["elsewhere"]
    changes = [f"{'raises' if drop < 0 else 'lowers'} the score by {abs(drop):.3f}" for drop in drops]
    return f"Hiding the hottest tenth of the map {changes[0]}; hiding the same shape elsewhere {changes[1]}."
