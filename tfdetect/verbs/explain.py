"""explain: where in each file a detector sees what it says."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from tfdetect import artifact as artifacts
from tfdetect import config, files, models  # noqa: F401  (registers the detectors)
from tfdetect.errors import UserError
from tfdetect.workflow.console import console
from tfdetect.workflow.verdicts import PredictData, apply_overrides, expand_paths, format_verdict, load_predictor

if TYPE_CHECKING:
    from tfdetect.serving.predictor import Predictor

MOST = 200  # files: a page of more opens slowly


@dataclass(frozen=True)
class Explain:
    """Write a page of heat-maps: where in each file the detector sees what it says. Exit code 1 if any file failed."""

    run: tyro.conf.Positional[Path]
    """The run's folder, such as saved_models/cnn."""
    files: tyro.conf.Positional[tuple[Path, ...]]
    """Images, videos, folders of them, and tables that name them in a column path."""
    data: PredictData = field(default_factory=PredictData)
    out: Path = Path("explained")
    """Folder for explanation.html and explanation.json."""
    method: Literal["auto", "error", "occlusion"] = "auto"
    """What is hot: `error`, what an autoencoder gives back wrongly; `occlusion`, what takes from the score when covered, for any
    detector. `auto`: error where there is one."""
    frames: int = 4
    """Frames shown of a video, evenly over those that the detector sees."""
    cells: int = 4
    """Squares per side for `occlusion`: more are finer, take longer, and miss what is told by large parts."""

    def __post_init__(self):
        if self.frames < 1 or self.cells < 2:
            raise UserError(f"--frames must be at least 1 and --cells at least 2, got {self.frames} and {self.cells}.")


def main(argv: Sequence[str]) -> int:
    """Parse, find the files, and explain one by one as they are decoded; the page is written with what there is."""
    asked = config.parse_flags(Explain, argv, "explain.py")
    artifact = artifacts.find(asked.run)
    run = apply_overrides(artifacts.load_config(artifact), asked.data)
    method = chosen(asked.method, run.detector)
    paths = expand_paths(asked.files)
    if len(paths) > MOST:
        raise UserError(f"{len(paths)} files are too many for one page; expected {MOST} at the most. Name fewer.")
    if asked.cells > run.data.size:
        raise UserError(f"--cells {asked.cells} is more than the {run.data.size} pixels of a side that the run sees.")
    predictor = load_predictor(artifact, run)
    from tfdetect.pages import explanation

    asked.out.mkdir(parents=True, exist_ok=True)
    sections: list[str] = []
    found: list[dict[str, Any]] = []
    try:
        judge = lambda path, clip: (predictor.to_verdict(path, clip), clip)  # noqa: E731
        for verdict, clip in predictor.map_files(paths, judge, run.data.timeout, run.data.workers):
            print(format_verdict(verdict), flush=True)
            found.append({**dataclasses.asdict(verdict), "method": method})
            if verdict.error is None:
                frames, heat, check = explained(predictor, predictor.model_frames(clip), method, asked)
                found[-1] |= check
                sections.append(explanation.section(files.printable(verdict.path), said(verdict, check), frames, heat, method))
    finally:
        explanation.write(asked.out / "explanation.html", artifact.folder.name, method, predictor.threshold, sections)
        files.write_json(asked.out / "explanation.json", found)
    failed = len(found) - len(sections)
    console.print(f"{len(sections)} explained by {method}, {failed} failed: {asked.out / 'explanation.html'}")
    return 1 if failed else 0


def chosen(method: str, detector: Any) -> str:
    """`auto` as what it stands for. ValueError for an error of a detector that gives nothing back."""
    if method == "error" and not detector.reconstructs:
        raise UserError(f"--method error needs an autoencoder, and {detector.name} gives no picture back: take occlusion.")
    return method if method != "auto" else "error" if detector.reconstructs else "occlusion"


def explained(predictor: "Predictor", clip: Any, method: str, asked: Explain) -> tuple[Any, Any, dict[str, float]]:
    """(frames shown, their heat-maps, the check) of a clip. A detector of single frames has a map for each of them, one of
    clips the same for all; the check is the mean over maps."""
    import numpy as np

    from tfdetect.data.media.frames import evenly_spaced
    from tfdetect.explain import heatmaps

    def judge(clips: Any) -> Any:
        return predictor.predict_clips(clips)[0]

    shown = list(dict.fromkeys(evenly_spaced(len(clip), min(asked.frames, len(clip)))))
    parts = [clip[[at]] for at in shown] if predictor.is_frame_detector else [clip]
    make = {"error": lambda part: predictor.reconstruction_errors(part[None])[0].mean(axis=0),
            "occlusion": lambda part: heatmaps.occlusion_map(judge, part, asked.cells)}[method]  # fmt: skip
    maps = [make(part) for part in parts]
    hot, elsewhere = np.mean([heatmaps.deletion_check(judge, *both) for both in zip(parts, maps, strict=True)], axis=0)
    maps = maps if predictor.is_frame_detector else maps * len(shown)
    return clip[shown], np.stack(maps), {"hottest_tenth": float(hot), "elsewhere": float(elsewhere)}


def said(verdict: Any, check: dict[str, float]) -> str:
    """The line under a figure."""
    note = f" ({verdict.note})" if verdict.note else ""
    return (f"{verdict.label}, probability {verdict.probability:.3f}, score {verdict.score:.3f}, {verdict.frames} "
            f"frame{'s' * (verdict.frames > 1)}{note}. Covering the hottest tenth takes {check['hottest_tenth']:.3f} from the "
            f"score, the same shape elsewhere {check['elsewhere']:.3f}.")  # fmt: skip
