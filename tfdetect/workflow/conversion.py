"""Convert a run to another format and describe the result; see `agreement` for how it is compared."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect import files, installation, versions
from tfdetect.artifact import Artifact
from tfdetect.errors import is_out_of_memory
from tfdetect.serving import convert_notes
from tfdetect.serving.converted import FORMATS
from tfdetect.settings import Run
from tfdetect.workflow import agreement
from tfdetect.workflow.agreement import ConversionError
from tfdetect.workflow.console import progress

if TYPE_CHECKING:
    import numpy as np

    from tfdetect.serving.converted import Call, Outputs
    from tfdetect.serving.functions import ServingFunctions
    from tfdetect.serving.predictor import Predictor

# Lines of OpenVINO's errors that come before the reason
WHERE = re.compile(r"Exception from |Check '.*' failed at |FrontEnd API failed|Model wasn't fully converted|-- .* with a message")


@dataclass(frozen=True)
class Conversion:
    """A run that is being converted."""

    artifact: Artifact
    run: Run
    format: str  # a key of `converted.FORMATS`
    quantize_to: str  # "none" or "int8"
    functions: "ServingFunctions"
    predictor: "Predictor"
    files: agreement.Files

    def write(self, folder: Path) -> Mapping[str, Any]:
        """Write the model, model.json and README.md into `folder`, and return the content of model.json."""
        from tfdetect.serving import convert

        form, clip_input = FORMATS[self.format], "face_crop" if self.predictor.spec.faces else "clip"
        compared = self.compare(folder / form.file, clip_input)
        cost = self.quantize(folder / form.file, clip_input) if self.quantize_to != "none" else None
        told = {"format": self.format, "file": form.file, "run": versions.base(self.artifact.folder).resolve().name,
                "version": versions.number(self.artifact.folder), "detector": self.run.detector.name,
                **convert_notes.facts(self.functions.calibration, convert.input_shape(self.functions, self.format),
                                      compared.outputs, clip_input),
                "compared": {"files": compared.files, "differences": compared.differences, "largest": compared.largest},
                "sources": list(self.functions.classes), "quantized": cost, "made_with": installation.versions()}  # fmt: skip
        spec = self.predictor.spec
        notes = [convert_notes.FACES.format(spec.faces.margin)] if spec.faces else []
        notes += [convert_notes.ALL_FACES] * spec.all_faces + [convert_notes.EQUALISED] * bool(spec.plan)
        text = convert_notes.readme(self.format, form.title, told, self.functions.size, notes)
        files.write_json(folder / "model.json", told)
        files.write_bytes(folder / "README.md", text.encode())
        return told

    def compare(self, file: Path, clip_input: str) -> agreement.Comparison:
        """Convert in float32, and return how the outputs compare. Raises ConversionError if they do not agree."""
        form = FORMATS[self.format]
        call = self.load(file, clip_input)
        with progress("Comparing", len(self.files.paths)) as step:
            compared = self.files.compare(self.guarded(call), form.any_size, step)
        compared.check(form.title)
        return compared

    def quantize(self, file: Path, clip_input: str) -> dict[str, Any]:
        """Replace the file by a quantized one, and return what that costs on test files."""
        rows = agreement.own_files(self.artifact, "validation", agreement.SAMPLES)
        samples = partial(self.samples, agreement.Files(self.predictor, self.run.data, rows))
        call = self.load(file, clip_input, quantize=True, samples=samples)
        with progress("Measuring", len(self.files.paths)) as step:
            scores = self.files.score(self.guarded(call), step)
        return {"to": self.quantize_to, "split": "test", **scores.summary(self.functions.calibration.score_threshold)}

    def samples(self, found: agreement.Files) -> "Iterator[np.ndarray]":
        """Yield the clips of each of the files on which int8 finds the ranges of activations."""
        with progress("Quantizing", len(found.paths)) as step:
            yield from found.each(lambda path, clips, faces: clips, step)

    def load(self, file: Path, clip_input: str, **options: Any) -> Any:
        """Convert, and return the loaded result. Raises ConversionError if either fails."""
        from tfdetect.serving import convert

        form = FORMATS[self.format]
        try:
            convert.convert(self.functions, self.format, file, clip_input, **options)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reason = first_line(error, file)
            raise ConversionError(f"{self.run.detector.name} cannot be converted to {form.title}: {reason}") from error
        try:
            return form.load(file, clip_input)
        except Exception as error:
            raise ConversionError(f"The {form.title} model was written, but does not load: {first_line(error, file)}") from error

    def guarded(self, call: "Call") -> "Call":
        """Return the same call, which raises ConversionError where the runtime fails."""

        def guard(clips: "np.ndarray") -> "Outputs":
            try:
                return call(clips)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                raise ConversionError(f"The {FORMATS[self.format].title} model loads, but fails on clips of the shape "
                                      f"{clips.shape}: {first_line(error)}") from error  # fmt: skip

        return guard


def first_line(error: Exception, file: Path | None = None) -> str:
    """Return the first line of a library's error that says more than where in the library it was raised; of the path of the
    `file`, which is not kept, only its name."""
    text = str(error) if file is None else str(error).replace(f"{file.parent}{os.sep}", "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = next((line for line in lines if not WHERE.match(line)), lines[-1] if lines else "no message")
    return f"{type(error).__name__}: {said[:250]}{'...' * (len(said) > 250)}"
