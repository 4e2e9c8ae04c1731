"""SERVING.md: what the signatures of a SavedModel take and return, and what their numbers mean."""

from collections.abc import Mapping

import tensorflow as tf

from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.detector import Detector
from tfdetect.evaluation.calibration import Calibration
from tfdetect.evaluation.familiarity import DISTANCES, Familiarity

DEFAULT, FACE_CROP, BYTES, EXPLAIN = "serving_default", "serve_face_crop", "serve_bytes", "explain"
FEATURES, RECONSTRUCTION = "serve_features", "serve_reconstruction"
ANSWER = ("score", "probability", "label", "verdict", "threshold", "band_from", "band_to", "fake", "inconclusive")
FAMILIARITY = ("familiarity", "unfamiliar", "other_content", "other_processing", *DISTANCES)
SERVING_NOTES = "SERVING.md"
HEAT_MAPS = {
    "error": "The heat-map of `explain` is the reconstruction error in grey levels (`method` is `error`).",
    "gradcam": "The heat-map of `explain` is by Grad-CAM (`method` is `gradcam`): where the maps of the last convolution speak "
               "for a higher score.",
    "integrated_gradients": "The heat-map of `explain` is by integrated gradients (`method` is `integrated_gradients`): what "
                            "each pixel adds to the score. It takes the gradients of 32 scores.",
    "occlusion": "The heat-map of `explain` is by occlusion (`method` is `occlusion`): how much the score drops where an area is "
                 "hidden. It takes 50 scores.",
}  # fmt: skip


def frames_input_name(clip_spec: ClipSpec) -> str:
    """Return the name of the input that takes frames."""
    return "face_crop" if clip_spec.faces else "clip"


def describe_signatures(detector: Detector, clip_spec: ClipSpec, familiarity: Familiarity | None = None) -> dict[str, str]:
    """Map the name of each signature to a description of its inputs and outputs.

    There is no `serve_bytes` for runs on faces or equalised files: the graph cannot find faces or compress files as
    `predict` does.
    """
    clips, squares = detector.input_kind == "clip", "frames, size" if clip_spec.fit.crops == 1 else "frames x crops, size"
    content = "RGB, any size and number of frames"
    if clip_spec.faces:
        content = "square crops of one face, see docs/faces.md of tfdetect"
    frames = f"{frames_input_name(clip_spec)}, uint8 (batch, frames, height, width, 3), {content}"
    features = f"(batch, {clip_spec.frames} x n), the outputs of the frame model, one frame after the other" if clips else \
        "(batch, n), the output of the backbone"  # fmt: skip
    of_features, note = f"{', '.join(ANSWER)} (batch,)", ", note" if clips else ""
    more = [*(FAMILIARITY if familiarity else ()), *(["text"] if detector.text_template else [])]
    answer = f"{', '.join([*ANSWER, *more])} (batch,)" + (", source and source_name (batch, sources)" if detector.classes else "")
    maps = f"heat_map, float32 (batch, {squares}, size), picture, uint8 (batch, {squares}, size, 3), what it lies over"
    has_bytes = not clip_spec.faces and not clip_spec.plan
    found = {
        FACE_CROP if clip_spec.faces else DEFAULT: f"{frames} -> {answer}",
        BYTES: has_bytes and f"image, encoded JPEG, PNG, WebP, GIF or BMP, (batch,) string -> {answer}, error{note} (batch,)",
        EXPLAIN: f"frames, as above -> the same outputs, {maps}, and method (batch,) string",
        FEATURES: detector.caches_features and f"features, float32 {features} -> {of_features}",
        RECONSTRUCTION: detector.reconstructs and f"frames -> reconstruction, uint8 (batch, {squares}, size, 3), and error",
    }
    return {name: text for name, text in found.items() if text}


def format_serving_notes(descriptions: Mapping[str, str], clip_spec: ClipSpec, calibration: Calibration, method: str,
                         familiarity: Familiarity | None = None, folder: str = "1", instead: str = "") -> str:  # fmt: skip
    """Return the text of SERVING.md, which is written beside the `folder` of the SavedModel; `method` is that of `explain`, and
    `instead` says why it is not the detector's own."""
    lines = [f"- `{name}`: {text}" for name, text in descriptions.items()]
    if clip_spec.faces:
        lines += [f"- `{DEFAULT}`: an alias of `{FACE_CROP}`, for servers that do not choose a signature"]
    paragraphs = [describe_verdicts(calibration), describe_familiarity(familiarity) if familiarity else "",
                  " ".join(filter(None, (HEAT_MAPS[method], instead)))]  # fmt: skip
    if BYTES in descriptions:
        still = f" A still is repeated to the {clip_spec.frames} frames of a clip; `note` says so." if clip_spec.still else ""
        paragraphs += [f"`serve_bytes` refuses an image whose header announces more than {clip_spec.limits.pixels:,} pixels. One "
                       "that is refused or damaged has an `error`, an empty `verdict` and a score of NaN; the others of its "
                       f"batch do not suffer.{still}"]  # fmt: skip
    paragraphs += [*describe_squares(clip_spec), f"Exported with TensorFlow {tf.__version__}: a server must be of that release, "
                   "or of a later one. `models.config`, `batching.config` and `monitoring.config` configure TensorFlow Serving; "
                   "docs/serving.md of tfdetect has the commands."]  # fmt: skip
    title = f"# Signatures of the SavedModel in `{folder}/`"
    return "\n".join([title, "", *lines, "", "\n\n".join(filter(None, paragraphs)), ""])


def describe_squares(clip_spec: ClipSpec) -> list[str]:
    """Return how frames become what the detector sees, as paragraphs."""
    side, fit = clip_spec.size, clip_spec.fit
    squares = {"squeeze": f"resized to {side} x {side} pixels, whatever its aspect ratio",
               "shortest_side": f"resized so that its shorter side has {side} pixels, and cropped to the central square",
               "crop": f"cropped to {side} x {side} native pixels, at its centre" if fit.crops == 1 else
                       f"cropped to at most {fit.crops} squares of {side} x {side} native pixels, whose scores are combined",
               "pad": f"resized so that its longer side has {side} pixels, and extended to a square by reflection"}  # fmt: skip
    frame = "face crop" if clip_spec.faces else "frame"
    found = [f"Each {frame} is {squares[fit.mode]} (`--data.fit {fit.mode}`), by `predict` and by the SavedModel alike."]
    if clip_spec.faces:
        found += ["This detector was trained on face crops. `predict` finds and crops the face of each file; the SavedModel "
                  "expects crops, and its score for a whole image is meaningless."]  # fmt: skip
    if clip_spec.all_faces:
        found += ["`predict` scores each face of a file and combines their scores (`--evaluate.aggregate`); a clip of the "
                  "SavedModel shows one face, and its score is that of this face."]  # fmt: skip
    if clip_spec.plan:
        found += ["This detector was trained on equalised files. `predict` equalises each file first; the SavedModel expects "
                  f"frames of equalised files: the central {clip_spec.plan.crop} x {clip_spec.plan.crop} pixels, compressed as "
                  f"JPEG of quality {clip_spec.plan.quality} or as a video, see docs/equalise.md of tfdetect."]  # fmt: skip
    return found


def describe_verdicts(calibration: Calibration) -> str:
    """Return what `probability`, `fake` and `verdict` mean for a run, as a paragraph."""
    share = "" if calibration.prevalence is None else f" where a share of {calibration.prevalence:g} of the files is fake"
    text = (f"`probability` is that of being fake{share}, calibrated on validation files by the method `{calibration.method}`. "
            f"From the `threshold` {calibration.threshold:.4g} on, `label` is fake, and `fake` true.")  # fmt: skip
    if not (band := calibration.band):
        return f"{text} No score is `inconclusive`: there is no band, and `band_from` and `band_to` are the `threshold`."
    errors, edges = f"{100 * (1 - band.coverage):.3g} %", calibration.inconclusive
    where = (f"A probability from `band_from` {edges[0]:.4g} to `band_to` {edges[1]:.4g} is `inconclusive`: the `verdict` is "
             "neither real nor fake, whatever `label` says." if edges else
             "No score is `inconclusive`: the band is empty, and `band_from` and `band_to` are the `threshold`.")  # fmt: skip
    return (f"{text} {where} Of files like those of validation, at most {errors} of the real ones are called fake otherwise, and "
            f"at most {errors} of the fakes real.")  # fmt: skip


def describe_familiarity(familiarity: Familiarity) -> str:
    """Return what `familiarity` and `unfamiliar` mean for a run, as a paragraph."""
    when = f"true where it is at most {familiarity.level:g}, and so is `inconclusive` then" if familiarity.level else "never true"
    return ("`familiarity` is the p-value of a file being like the training files, uniform in 0..1 for files like those of "
            f"validation. `unfamiliar` is {when}. `other_content` and `other_processing` say why: by what the network sees in a "
            "clip, or by statistics of its pixels such as sharpness and noise.")  # fmt: skip


