"""explain: show which regions of a file drive its score."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from tfdetect import artifact as artifacts
from tfdetect import files, models  # noqa: F401  (registers the detectors)
from tfdetect.api.results import show_page
from tfdetect.errors import UserError
from tfdetect.settings import Run
from tfdetect.workflow import explaining
from tfdetect.workflow.console import progress
from tfdetect.workflow.explaining import describe_check
from tfdetect.workflow.verdicts import FileList, PredictData, load_predictor

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.media.frames import Media
    from tfdetect.serving.predictor import Predictor, Verdict
    from tfdetect.workflow.masks import Masks

MAX_FILES = 200  # larger pages open slowly


@dataclass(frozen=True)
class Explain:
    """Write a page of heat-maps that show which regions of each file drive its score. Exit code 1 if any file failed."""

    run: tyro.conf.Positional[Path]
    """Folder of the run, such as saved_models/cnn."""
    files: tyro.conf.Positional[tuple[Path, ...]]
    """Images, videos, folders of them, and tables (CSV, .xlsx, Parquet) with a column path."""
    data: PredictData = field(default_factory=PredictData)
    out: Path = Path("explained")
    """Folder for explanation.html, explanation.json, and an overlay.mp4 for each video."""
    method: Literal["auto", "error", "gradcam", "integrated_gradients", "occlusion"] = "auto"
    """What the heat-map shows.
    error: the reconstruction error of an autoencoder.
    gradcam: where the maps of the last convolution raise the score.
    integrated_gradients: what each pixel adds to the score, compared with a baseline.
    occlusion: how much the score drops when a region is hidden, for any detector.
    auto: the one that finds forgeries best with this detector, see docs/explain.md; where its map fails its check, occlusion."""
    frames: int = 4
    """Frames shown of each video, evenly spaced among those that the detector sees."""
    cells: int = 4
    """Regions per side for occlusion.
    More give a finer map, take longer, and miss evidence that is spread over large areas."""
    baseline: explaining.Baseline = "black"
    """What integrated gradients compare with: a black image, the mean colour of each frame, or its blurred copy."""
    masks: Path | None = None
    """Folder of masks, white where a file is forged, each named as its file: an image or a video.
    Tables may name them in a column mask; those of FaceForensics++ are found beside its videos."""
    timeline: int = 64
    """Points of the timeline of a video; 0 for none."""
    window: int | None = None
    """Frames of the video that a window of the timeline spans, for clip detectors.
    By default as many as the detector takes."""
    overlay: int = 16
    """Heat-maps over time in overlay.mp4; frames between two of them show a mixture. 0 writes no video."""
    trust: bool = False
    """Use a run even if its files differ from its SHA256SUMS."""

    def __post_init__(self) -> None:
        if self.frames < 1 or self.cells < 2:
            raise UserError(f"--frames must be at least 1 and --cells at least 2, got {self.frames} and {self.cells}.")
        if min(self.timeline, self.overlay) < 0 or (self.window is not None and self.window < 1):
            raise UserError("--timeline and --overlay must be at least 0 and --window at least 1, got "
                            f"{self.timeline}, {self.overlay} and {self.window}.")  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """Where the page of heat-maps is, and what it says about each file. A notebook shows the page."""

    page: Path
    method: str
    """The one that was asked for; a row names another where that map failed its check."""
    rows: Sequence[Mapping[str, Any]] = field(repr=False, compare=False)

    @property
    def table(self) -> "pd.DataFrame":
        """A row per file: the columns of `predict`, and what `heat_maps.explain_clip` measures of its heat-map."""
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
    artifact = artifacts.find(args.run, trust=args.trust)
    run = artifacts.load_config(artifact)
    data = args.data.apply_to(run.data)
    paths = FileList(args.files)
    check(args, run, len(paths))
    from tfdetect.workflow.masks import Masks

    masks = Masks.find(args.files, args.masks)
    predictor = (load() if load else load_predictor(artifact, run)).with_limits(data.limits, data.decoding)
    if args.masks and predictor.spec.faces:
        raise UserError("--masks cover whole frames, and this run sees crops of faces: train one without --data.faces.")
    maps = explaining.prepare(predictor, artifact, run.detector, args.method, args.cells, args.baseline)
    args.out.mkdir(parents=True, exist_ok=True)
    sections: list[str] = []
    rows: list[dict[str, Any]] = []
    try:
        with nullcontext(lambda row: None) if show else progress("Explaining", len(paths)) as step:
            to_verdict = lambda path, clip: (predictor.to_verdict(path, clip), clip)  # noqa: E731
            for verdict, clip in predictor.map_files(paths, to_verdict, data.timeout, data.workers):
                rows.append({**asdict(verdict), "method": maps.method})
                if verdict.error is None:
                    row, shown = explain_file(maps, verdict, clip, masks, args, len(sections), bool(show))
                    rows[-1] |= row
                    sections.append(shown)
                step(rows[-1])
                if show:
                    show(verdict)
    finally:
        page = write(args.out, artifact.folder.name, maps, rows, sections)
    return Explanation(page, maps.method, rows)


def check(args: Explain, run: Run, count: int) -> None:
    """Raise UserError for what cannot be explained: with this method or so finely, or so many files."""
    explaining.resolve_method(args.method, run.detector)
    if count > MAX_FILES:
        raise UserError(f"{count} files are too many for one page; give at most {MAX_FILES}.")
    if args.cells > run.data.size:
        raise UserError(f"--cells {args.cells} is more than the {run.data.size} pixels per side that the run uses; give fewer.")


def write(out: Path, name: str, maps: explaining.HeatMaps, rows: Sequence[Mapping[str, Any]], sections: Sequence[str]) -> Path:
    """Write the page, with a section for each file that could be read, and the same as JSON; return the path of the page."""
    from tfdetect.pages import explanation

    page, content = out / "explanation.html", (explaining.summary(rows), *sections)
    methods = list(dict.fromkeys([maps.method, *(row["method"] for row in rows)]))
    explanation.write(page, name, methods, maps.predictor.threshold, content, len(sections))
    files.write_json(out / "explanation.json", rows)
    return page


def explain_file(maps: explaining.HeatMaps, verdict: "Verdict", media: "Media", masks: "Masks", args: Explain, number: int,
                 show_progress: bool) -> tuple[dict[str, Any], str]:  # fmt: skip
    """Return what was measured of a file, and its sections of the page: its heat-maps and, for a video, its timeline."""
    from tfdetect.pages import explanation

    row: dict[str, Any] = {}
    region, mask = masks.region(verdict.path, maps.predictor, media)
    if mask:
        row |= mask
    clip, which = explaining.most_fake_face(maps.predictor, verdict, media)
    found = explaining.explain(maps, clip, args.frames, region, fall_back=args.method == "auto")
    row |= {**found.check, "method": found.maps.method, "passed": found.passed}
    title, text = files.printable(verdict.path) + which, f"{found.instead} {caption(verdict, row)}".strip()
    shown = explanation.section(title, text, found.frames, found.heat, found.maps.method)
    if args.timeline and media.total > 1:
        name = f"overlay{f'-{number + 1}' * (number > 0)}.mp4"
        line, timeline = explaining.follow(found.maps, verdict.path, media.total, args, args.out / name, show_progress)
        row |= line
        shown += timeline
    return row, shown


def caption(verdict: "Verdict", check: Mapping[str, Any]) -> str:
    """Return the line under a figure: the verdict, how hiding its hottest tenth, or another area, changes the score, and more."""
    note = f" ({verdict.note})" if verdict.note else ""
    text = (f"{verdict.verdict or verdict.label}, probability {verdict.probability:.3f}, score {verdict.score:.3f}, "
            f"{verdict.frames} frame{'s' * (verdict.frames > 1)}{note}. {describe_check(check)}")  # fmt: skip
    areas = check.get("areas", {})
    for kind in ("deletion", "insertion") if areas else ():
        found = ", ".join(f"{name.replace('_', ' ')} {area[kind]:.3f}" for name, area in areas.items())
        text += f" {kind.capitalize()}: {found}."
    if "pixel_auc" in check:
        text += f" Pixel AUC for the mask {check['pixel_auc']:.3f}, pointing game {check['pointed']:.2f}."
    if "attributed" in check:
        text += (f" The attributions add up to {check['attributed']:.3f}; the score exceeds that of the baseline by "
                 f"{check['difference']:.3f}.")  # fmt: skip
    return text
