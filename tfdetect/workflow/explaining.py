"""The methods of `explain`: what each needs, and the heat-maps that it makes of the clips of a run's detector."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from tfdetect.artifact import Artifact
from tfdetect.detector import Detector
from tfdetect.errors import UserError
from tfdetect.workflow.console import import_keras, print_note, progress

if TYPE_CHECKING:
    from tfdetect.data.media.frames import Media
    from tfdetect.serving.predictor import Predictor
    from tfdetect.serving.verdict import Verdict

Method = Literal["error", "gradcam", "integrated_gradients", "occlusion"]
Baseline = Literal["black", "mean", "blurred"]
OCCLUSION: Method = "occlusion"
INSTEAD = "The map by {}, the detector's default, failed its check; this one is by occlusion."
RANDOM = "random"  # the control of the others
GRADIENTS = ("gradcam", "integrated_gradients")


@dataclass(frozen=True)
class HeatMaps:
    """Makes heat-maps by one method; `tool` is the model that it needs, or a function made of it."""

    predictor: "Predictor"
    method: Method
    cells: int = 4
    baseline: Baseline = "black"
    tool: Any = None

    def of(self, clip: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
        """Return the heat-maps of a clip (frames, size, size, 3) uint8, (frames or 1, size, size) float32, and remarks on them.

        One map stands for all frames. Integrated gradients are blurred for the eye; that they add up to the difference of scores
        that they explain is what the remarks `attributed` and `difference` show.
        """
        from tfdetect.explain import gradients, heatmaps

        if self.method == "error":
            return self.predictor.reconstruction_errors(clip[None])[0].mean(axis=0)[None], {}
        if self.method == OCCLUSION:
            return heatmaps.occlusion_map(self.score, clip, self.cells)[None], {}
        if self.method == "gradcam":
            return self.tool(clip[None])[0], {}
        raw, difference = gradients.integrated_gradients(self.tool, clip, self.baseline)
        return gradients.smooth(raw), {"attributed": float(raw.sum(dtype=np.float64)), "difference": difference}

    def score(self, clips: np.ndarray) -> np.ndarray:
        """Return the scores (batch,) of clips (batch, frames, size, size, 3) uint8."""
        return self.predictor.predict_clips(clips)[0]

    def probability(self, clips: np.ndarray) -> np.ndarray:
        """Return the probabilities (batch,) of clips."""
        return self.predictor.predict_clips(clips)[1]


def resolve_method(method: str, detector: Detector) -> Method:
    """Return the method that `auto` stands for. Raises UserError for `error` on a detector that does not reconstruct."""
    if method == "error" and not detector.reconstructs:
        raise UserError(f"--method error needs an autoencoder, and {detector.name} reconstructs nothing: use --method occlusion.")
    return detector.heat_map if method == "auto" else method  # type: ignore[return-value]


def prepare(predictor: "Predictor", artifact: Artifact, detector: Detector, method: str = "auto", cells: int = 4,
            baseline: Baseline = "black") -> HeatMaps:  # fmt: skip
    """Return what makes the heat-maps of `method`; where `auto` stands for one that cannot be had, occlusion, with a note.

    Raises UserError if the method that was asked for is impossible: there is no .keras file, or no gradient.
    """
    chosen = resolve_method(method, detector)
    if chosen not in GRADIENTS:
        return HeatMaps(predictor, chosen, cells)
    try:
        return HeatMaps(predictor, chosen, cells, baseline, _differentiable(artifact, detector, chosen))
    except UserError as error:
        if method != "auto":
            raise
        print_note(f"{error} Shown here: occlusion.")
        return HeatMaps(predictor, OCCLUSION, cells)


def _differentiable(artifact: Artifact, detector: Detector, method: Method) -> Any:
    """Return the reloaded model, ready for the method. Raises UserError if there is none, or it has no gradient."""
    instead = "use --method occlusion, which needs scores alone."
    if not artifact.model.exists():
        raise UserError(f"--method {method} needs {artifact.model.name}, which {artifact.folder} lacks: {instead}")
    if (backend := import_keras().backend.backend()) != "tensorflow":
        raise UserError(f"--method {method} needs the TensorFlow backend, and Keras runs on {backend}: {instead}")
    from tfdetect import models
    from tfdetect.explain import gradients
    from tfdetect.models.float_input import with_float_input

    try:
        model = with_float_input(models.load(artifact.model))
        if method == "gradcam":
            return gradients.GradCam(model)
        gradients.integrated_gradients(model, np.zeros(model.input_shape[1:], np.uint8), steps=1)
    except gradients.NoGradient as error:
        raise UserError(f"--method {method} cannot explain {detector.name}, {error}: {instead}") from None
    except (TypeError, ValueError, NotImplementedError) as error:  # a layer of a plugin that Keras cannot rebuild
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--method {method} cannot rebuild {detector.name} with a float input ({reason}): {instead}") from error
    return model


class TimelineSettings(Protocol):
    """The flags of `explain` for videos."""

    @property
    def timeline(self) -> int: ...
    @property
    def window(self) -> int | None: ...
    @property
    def overlay(self) -> int: ...


@dataclass(frozen=True)
class Explained:
    """The heat-map of a clip, and what its check says."""

    maps: HeatMaps
    """What made it, by `maps.method`; its score and cells are those of the method that was asked for."""
    frames: np.ndarray
    """Those of `explain_clip`, (n, size, size, 3) uint8."""
    heat: np.ndarray
    """A map of each, (n, size, size) float32."""
    check: Mapping[str, Any]
    """What was measured; see `explain_clip`."""
    instead: str = ""
    """Why the map is by another method than the default, in a sentence; "" if it is not."""

    @property
    def note(self) -> str:
        """How to read the map."""
        from tfdetect.pages.explanation import METHOD_NOTES

        return METHOD_NOTES[self.maps.method]

    @property
    def result(self) -> str:
        """What the check says, in sentences."""
        return f"{self.instead} {describe_check(self.check)}".strip()

    def result_for(self, which: str) -> str:
        """The same, after which face this is, as `most_fake_face` says."""
        return f"Shown is{which.removeprefix(',')}. {self.result}" if which else self.result

    @property
    def passed(self) -> bool:
        """Whether the map passed its check."""
        from tfdetect.pages.case_content import fails

        return not fails(self.check)


def most_fake_face(predictor: "Predictor", verdict: "Verdict", media: "Media") -> tuple[np.ndarray, str]:
    """Return the frames that the detector scores, of several faces those of the one with the highest score, and which it is."""
    frames, faces = predictor.model_frames(media), verdict.faces or ()
    if len(faces) < 2:
        return frames, ""
    highest = max(range(len(faces)), key=lambda number: faces[number]["score"])
    clip = frames.reshape(len(faces), -1, *frames.shape[1:])[highest]
    return clip, f", face {highest}, the most fake of {len(faces)}"


def explain(maps: HeatMaps, clip: np.ndarray, frames: int, region: np.ndarray | None = None, areas: bool = True,
            fall_back: bool = True) -> Explained:  # fmt: skip
    """Explain a clip as `explain_clip` does; where the map fails its check, unless told otherwise, by occlusion."""
    found = Explained(maps, *explain_clip(maps, clip, frames, region, areas))
    if found.passed or maps.method == OCCLUSION or not fall_back:
        return found
    other = HeatMaps(maps.predictor, OCCLUSION, maps.cells)
    return Explained(other, *explain_clip(other, clip, frames, region, areas), INSTEAD.format(maps.method))


def describe_check(check: Mapping[str, float]) -> str:
    """Return how hiding the hottest tenth of a map, or another area, changes the score."""
    drops = check["hottest_tenth"], check["elsewhere"]
    changes = [f"{'raises' if drop < 0 else 'lowers'} the score by {abs(drop):.3f}" for drop in drops]
    return f"Hiding the hottest tenth of the map {changes[0]}; hiding the same shape elsewhere {changes[1]}."


def explain_clip(maps: HeatMaps, clip: np.ndarray, frames: int,
                 region: np.ndarray | None = None, areas: bool = True,
                 ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:  # fmt: skip
    """Return some of the frames of a clip (frames, size, size, 3) uint8, evenly spaced, their heat-maps, and what was measured.

    A frame detector gets a heat-map of each frame that is shown, and the mean of their measurements; for a clip detector they are
    those of the clip. Measured are the drops of `heatmaps.deletion_check` (`hottest_tenth`, `elsewhere`), unless told otherwise
    the areas of `heatmaps.curve_areas` of this map, one of occlusion and a random one, and with a `region`, (frames, size, size)
    bool, `heatmaps.localisation`.
    """
    from tfdetect.data.media.frames import evenly_spaced

    shown = list(dict.fromkeys(evenly_spaced(len(clip), min(frames, len(clip)))))
    parts = [[frame] for frame in shown] if maps.predictor.is_frame_detector else [list(range(len(clip)))]
    made = [_measure(maps, clip[part], None if region is None else region[part], areas) for part in parts]
    heat = np.concatenate([heat for heat, _ in made])
    heat = heat if maps.predictor.is_frame_detector else heat[shown if len(heat) > 1 else [0] * len(shown)]
    return clip[shown], heat, _mean([measured for _, measured in made])


def _measure(maps: HeatMaps, clip: np.ndarray, region: np.ndarray | None,
             areas: bool) -> tuple[np.ndarray, dict[str, Any]]:  # fmt: skip
    """Return the heat-maps of a clip, (frames or 1, size, size), and what `explain_clip` says of them."""
    from tfdetect.explain import heatmaps

    heat, remarks = maps.of(clip)
    flat = heat.mean(axis=0)
    drops = heatmaps.deletion_check(maps.score, clip, flat)
    measured: dict[str, Any] = {"hottest_tenth": drops[0], "elsewhere": drops[1], **remarks}
    if region is not None:
        measured |= heatmaps.localisation(np.broadcast_to(heat, region.shape), region)
    return heat, {**measured, "areas": _areas(maps, clip, flat)} if areas else measured


def _areas(maps: HeatMaps, clip: np.ndarray, heat: np.ndarray) -> dict[str, dict[str, float]]:
    """Return the areas of deletion and insertion of a heat-map, of the one by occlusion, and of a random one."""
    from tfdetect.explain import heatmaps

    references = {maps.method: heat,
                  OCCLUSION: heat if maps.method == OCCLUSION else heatmaps.occlusion_map(maps.score, clip, maps.cells),
                  RANDOM: heatmaps.random_map(clip.shape[1], clip.shape[2], maps.cells)}  # fmt: skip
    return {name: heatmaps.curve_areas(maps.probability, clip, each) for name, each in references.items()}


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean of each number, at any depth, over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: _mean(values) if isinstance(values[0], Mapping) else float(np.mean(values)) for name, values in columns.items()}


def follow(maps: HeatMaps, path: str, total: int, settings: TimelineSettings, overlay: Path,
           show_progress: bool) -> tuple[dict[str, Any], str]:  # fmt: skip
    """Return the timeline of a video as JSON and as a section of the page, and write the video of its heat-maps."""
    from tfdetect.data.media.sniff import MediaError
    from tfdetect.pages import timeline as timeline_page
    from tfdetect.workflow import overlay as overlays
    from tfdetect.workflow import timeline

    heat: dict[tuple[int, ...], np.ndarray] = {}

    def keep_map(window: tuple[int, ...], clip: np.ndarray) -> None:
        heat[window] = _map_of_window(maps, clip)

    bar = lambda title: progress(title, total, "frames", False) if show_progress else nullcontext(lambda: None)  # noqa: E731
    try:
        with bar("Timeline") as step:
            line = timeline.build(maps.predictor, path, total, settings.timeline, settings.window, step, keep_map,
                                  settings.overlay)  # fmt: skip
        if heat:
            with bar("Overlay") as step:
                overlays.write(overlay, path, maps.predictor.spec, line, heat, maps.method, step)
    except MediaError as error:
        return {"timeline": {"note": str(error)}}, ""
    name = overlay.name if heat else ""
    return {"timeline": line.as_dict(), "overlay": name or None}, timeline_page.section(line, overlay=name)


def _map_of_window(maps: HeatMaps, clip: np.ndarray) -> np.ndarray:
    """Return the heat-maps of the squares of one frame, (squares, size, size): of the frame scored, or of a clip's middle one."""
    if maps.predictor.is_frame_detector:
        return np.concatenate([maps.of(square[None])[0] for square in clip])
    heat, squares = maps.of(clip)[0], maps.predictor.spec.fit.crops
    middle = len(heat) // squares // 2 * squares
    return np.repeat(heat, squares, axis=0) if len(heat) == 1 else heat[middle : middle + squares]


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a section with how well the heat-maps of files with masks find the forgery, their real twins beside; "" without."""
    from tfdetect.pages import html

    measured = [row for row in rows if "pixel_auc" in row]
    if not measured:
        return ""
    kinds = {"forged": [row for row in measured if row["forged"]], "real twins": [row for row in measured if not row["forged"]]}
    table = html.table(["files", "number", "pixel AUC", "pointing game"], (
        (kind, len(found), float(np.mean([row["pixel_auc"] for row in found])), float(np.mean([row["pointed"] for row in found])))
        for kind, found in kinds.items() if found))  # fmt: skip
    text = ("Pixel AUC: the probability that a pixel in the mask is hotter than one outside; chance is 0.5, also for real twins, "
            "in which nothing was forged where the mask is. Pointing game: how often the hottest pixel is in the mask.")
    return f"<section><h2>Do the heat-maps find the forgery?</h2>{table}<p>{text}</p></section>"
