"""README.md and model.json of a converted detector: what goes in, what comes out, and how to call it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfdetect.evaluation.calibration import Calibration

MEANINGS = {
    "score": "output of the detector; higher is more likely fake",
    "probability": "of being fake, 0..1, calibrated on the run's validation files",
    "fake": "whether the probability reaches the threshold",
    "inconclusive": "whether the verdict is neither real nor fake, whatever `fake` says",
    "threshold": "probability from which on clips are called fake",
    "band_from": "lowest probability that is inconclusive; if there is none, `threshold`, as `band_to` is",
    "band_to": "highest probability that is inconclusive",
    "familiarity": "p-value, 0..1, of being like the training files",
    "unfamiliar": "whether the clip is unlike the training files; it is `inconclusive` then, too",
    "other_content": "unfamiliar because of what it shows",
    "other_processing": "unfamiliar because of how it was processed",
    "content_distance": "distance from the training files in content",
    "processing_distance": "distance from the training files in processing",
    "source": "(batch, sources): probability of each source, given that the clip is fake",
}
IMPORTS = {"onnx": "import onnxruntime", "openvino": "import openvino",
           "litert": "from ai_edge_litert.interpreter import Interpreter"}  # fmt: skip
SNIPPETS = {
    "onnx": """session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
values = session.run(None, {{"{input}": clips}})
outputs = {{output.name: value for output, value in zip(session.get_outputs(), values)}}
""",
    "openvino": """model = openvino.Core().read_model("{file}")
model.reshape({{"{input}": [-1, *clips.shape[1:]]}})  # the size of your frames, before compiling: see above
compiled = openvino.compile_model(model, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
results = compiled({{"{input}": clips}})
outputs = {{name: results[output] for output in compiled.outputs for name in output.get_names()}}
""",
    "litert": """runner = Interpreter("{file}").get_signature_runner()  # it adapts to the size of the frames
outputs = runner({input}=clips)
""",
}
READ_IMAGE = """import numpy as np
{imports}
from PIL import Image

clips = np.asarray(Image.open("FILE").convert("RGB"))[None, None]  # (1 clip, 1 frame, height, width, 3){what}
"""
READ_VIDEO = """import av
import numpy as np
{imports}

with av.open("FILE") as video:
    frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
chosen = np.rint(np.linspace(0, len(frames) - 1, {frames})).astype(int)  # evenly spaced, as in training
clips = np.stack([frames[number] for number in chosen])[None]  # (1 clip, {frames} frames, height, width, 3){what}
"""
SIZES = {
    "onnx": "Any size of frames and any number of clips.",
    "openvino": "The file is made for the frames that the network takes, {size} x {size} pixels. For frames of another size call "
                "`reshape` before compiling, as below: the resizing is part of the model. Do not leave height and width open: "
                "OpenVINO 2026.4 then computes the first inference wrongly, without a message. Without "
                "`INFERENCE_PRECISION_HINT: f32`, it may compute in bfloat16.",
    "litert": "One clip at a time, with frames of any size.",
}  # fmt: skip
FACES = ("**Faces.** The detector was trained on face crops: `face_crop` is a square around one face, {:g} times the longer side "
         "of its box, cropped as docs/faces.md of tfdetect says. Its score for a whole picture is meaningless.")
ALL_FACES = ("`predict` scores each face of a file and combines their scores (`--evaluate.aggregate`); a clip here shows one "
             "face, and its score is that of this face.")
EQUALISED = ("**Equalised files.** The detector was trained on equalised files: a file must be equalised first, as "
             "docs/equalise.md of tfdetect says. Its score for the frames of any other file is meaningless.")
WHAT = {"clip": "", "face_crop": ", of one face"}


def facts(calibration: Calibration, shape: Sequence[int | None], outputs: Sequence[str], clip_input: str) -> dict[str, Any]:
    """Return what model.json says of a model's input, outputs and decision."""
    limit = calibration.score_threshold
    return {
        "input": {"name": clip_input, "dtype": "uint8", "shape": list(shape), "axes": "batch, frames, height, width, channels",
                  "values": "RGB, 0..255"},
        "outputs": {name: MEANINGS.get(name, "") for name in sorted(outputs, key=[*MEANINGS, *outputs].index)},
        "threshold": calibration.threshold, "score_threshold": limit if np.isfinite(limit) else None,
        "inconclusive": list(calibration.inconclusive) if calibration.inconclusive else None,
        "calibration": calibration.to_dict(),
    }  # fmt: skip


def readme(form: str, title: str, told: Mapping[str, Any], size: int, notes: Sequence[str]) -> str:
    """Return README.md for what model.json tells; `size` is the side of the squares that the network takes, in pixels."""
    given, compared = told["input"], told["compared"]
    axes = "(" + ", ".join("any" if length is None else str(length) for length in given["shape"]) + ")"
    frames = given["shape"][1]
    read = (READ_VIDEO if frames else READ_IMAGE).format(frames=frames, imports=IMPORTS[form], what=WHAT[given["name"]])
    call = SNIPPETS[form].format(file=told["file"], input=given["name"])
    lines = [f"# {told['run']} as {title}", "",
             f"`{told['file']}` is the detector `{told['detector']}` of the run `{told['run']}`, version {told['version']}.", "",
             f"**Input** `{given['name']}`: uint8 {axes}: clips, frames, height, width, RGB in 0..255. "
             + SIZES[form].format(size=size), "", *(line for note in notes for line in (note, "")), "**Outputs**, (batch,) each:",
             "", *(f"- `{name}`: {meaning}" for name, meaning in told["outputs"].items()), "",
             *([f"The sources are {', '.join(told['sources'])}, in this order.", ""] if told["sources"] else []),
             describe_decision(told), "",
             "```python", read + call + "print(outputs)", "```", "",
             f"Its outputs were compared with those of the SavedModel on {compared['files']} files: they agree to "
             f"{compared['largest']:.1g}."]  # fmt: skip
    if cost := told["quantized"]:
        lines[-1] = describe_cost(cost, told["file"])
    return "\n".join([*lines, ""])


def describe_decision(told: Mapping[str, Any]) -> str:
    """Return from which probability and score on a clip is called fake, and which are inconclusive."""
    limit, band = told["score_threshold"], told["inconclusive"]
    return (f"A clip is called fake from the probability {told['threshold']:.6g} on"
            + ("" if limit is None else f", which is the score {limit:.6g}")
            + (f", and inconclusive at probabilities from {band[0]:.6g} to {band[1]:.6g}. " if band else ". ")
            + "`model.json` has the calibration.")  # fmt: skip


def describe_cost(cost: Mapping[str, Any], file: str) -> str:
    """Return what int8 costs, in words."""
    before, after = (f"{cost[name]:.4f}" if cost[name] is not None else "not measurable" for name in ("auc_before", "auc_after"))
    return (f"{file} is quantized to int8. On {cost['files']} {cost['split']} files its AUC is {after}, that of the SavedModel "
            f"{before}; {cost['other_decisions']} decisions differ, and scores by up to {cost['largest']:.2g}.")  # fmt: skip
