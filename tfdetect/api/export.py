"""export: re-export the SavedModel of a run, or convert the run to another format."""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from tfdetect import artifact as artifacts
from tfdetect import backend, hashes, installation, models, versions
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.evaluation.familiarity import Familiarity
from tfdetect.settings import Run
from tfdetect.workflow import agreement, dataset, verdicts
from tfdetect.workflow.console import import_keras
from tfdetect.workflow.conversion import Conversion

if TYPE_CHECKING:
    from tfdetect.data.prepare.clip_cache import ClipSpec


@dataclass(frozen=True)
class Export:
    """Re-export the SavedModel of a run, from its model.keras and calibration.json into its folder 1/, or that of its version.

    With --format, convert the run to another format, into a folder of that name.
    """

    run: tyro.conf.Positional[Path]
    """Folder of the run, such as saved_models/cnn."""
    format: Literal["saved_model", "onnx", "openvino", "litert"] = "saved_model"
    """Format to convert to; needs the extra of that name. The result must agree with the SavedModel to 1e-4 on real files."""
    quantize: Literal["none", "int8"] = "none"
    """Quantize the converted model, and measure on test files what that costs; it need not agree with the SavedModel then."""
    files: tuple[Path, ...] = ()
    """Images and videos, or folders or tables of them, to compare on; by default the run's own test files."""
    count: int = 200
    """The largest number of test files to compare on."""
    trust: bool = False
    """Accept files that differ from SHA256SUMS, and write it again."""
    push_to_hub: str = ""
    """Instead of exporting: list what would be pushed to this repository of the Hugging Face Hub, such as me/cnn."""
    yes: bool = False
    """With --push_to_hub: push it."""
    private: bool = False
    """With --push_to_hub: make the repository private if it does not exist yet."""

    def __post_init__(self) -> None:
        if (self.yes or self.private) and not self.push_to_hub:
            raise UserError("--yes and --private belong to --push_to_hub REPOSITORY.")
        if self.trust and self.push_to_hub:
            raise UserError("Others could not use a run that differs from its SHA256SUMS: export it with --trust first, which "
                            "writes them again, and then give --push_to_hub without it.")  # fmt: skip
        if self.quantize != "none" and self.format == "saved_model":
            raise UserError("--quantize int8 needs --format onnx, openvino or litert; a SavedModel is not quantized.")
        if self.quantize != "none" and self.files:
            raise UserError("--quantize int8 measures its cost on the run's own test files, whose labels are known: leave out "
                            "--files.")  # fmt: skip
        if self.count < 1:
            raise UserError(f"--count must be at least 1, got {self.count}.")


@dataclass(frozen=True)
class Converted:
    """A converted detector: its folder, and what model.json in it tells."""

    folder: Path
    told: Mapping[str, Any]

    @property
    def size(self) -> int:
        """The size of the model in bytes."""
        return sum(path.stat().st_size for path in self.folder.glob("model.*") if path.suffix != ".json")


def export_run(folder: Path, trust: bool = False) -> tuple[Path, Mapping[str, str]]:
    """Re-export the SavedModel of a run, from its model.keras and calibration.json into its folder 1/; of one with versions also
    into that in versions/.

    Returns that folder, and a line about each of its signatures. Raises UserError if other files than those of the SavedModel
    differ from SHA256SUMS; with `trust`, they are accepted as they are, and SHA256SUMS is renewed.
    """
    folder = versions.checked_out(folder)
    artifact = artifacts.find(folder, "model", trust, saved_model=False)
    run = artifacts.load_config(artifact)
    calibration = artifacts.load_calibration(artifact).to_dict()
    import_keras()
    from tfdetect.serving.export import describe_signatures, export

    spec, known = clip_spec(artifact, run), familiarity(artifact)
    export(models.load(artifact.model), calibration, run.detector, artifact.saved_model, spec, run.evaluate.aggregate, known)
    hashes.write(folder)
    versions.renew(folder)
    return artifact.saved_model, describe_signatures(run.detector, spec, known)


def clip_spec(artifact: Artifact, run: Run) -> "ClipSpec":
    """Return how the files of a run become clips."""
    if artifact.equalisation_plan.exists():
        return dataset.with_equalisation(dataset.cache_for(run.data, run.detector), artifact).spec
    return dataset.clip_spec(run.data, run.data.cache_dir, still=run.detector.input_kind == "clip")


def familiarity(artifact: Artifact) -> Familiarity | None:
    """Return what a run knows of its training files, if it does."""
    return Familiarity.load(artifact.familiarity) if artifact.familiarity.exists() else None


def convert_run(settings: Export) -> Converted:
    """Convert a run to `settings.format`, compare it with the SavedModel, and write the folder of that name into the run's.

    Raises ConversionError if the run cannot be converted, or the result does not load or differs from the SavedModel; UserError
    without the extra, the SavedModel, or files to compare on.
    """
    artifact = artifacts.find(settings.run, "model", settings.trust)  # its SavedModel says what is right
    run = artifacts.load_config(artifact)
    require_ready(artifact, settings.format)
    import_keras()
    backend.require_tensorflow("A conversion")
    from tfdetect.serving.functions import ServingFunctions, split_text_output

    rows = (agreement.given_files(list(map(str, verdicts.FileList(settings.files)))) if settings.files
            else agreement.own_files(artifact, "test", settings.count))  # fmt: skip
    predictor = verdicts.load_predictor(artifact, run)
    calibration, aggregate = artifacts.load_calibration(artifact), run.evaluate.aggregate
    functions = ServingFunctions(*split_text_output(models.load(artifact.model)), calibration, run.detector,
                                 clip_spec(artifact, run), aggregate, familiarity(artifact))  # fmt: skip
    folder = artifact.folder / (settings.format if settings.quantize == "none" else f"{settings.format}-{settings.quantize}")
    work = Conversion(artifact, run, settings.format, settings.quantize, functions, predictor,
                      agreement.Files(predictor, run.data, rows))  # fmt: skip
    with replaced(folder) as staged:
        told = work.write(staged)
    return Converted(folder, told)


def require_ready(artifact: Artifact, form: str) -> None:
    """Raise UserError unless the packages that a conversion needs are installed and the run has a SavedModel."""
    from tfdetect.serving.converted import FORMATS

    if missing := [name for name in FORMATS[form].requires if importlib.util.find_spec(name) is None]:
        raise UserError(f"--format {form} needs {', '.join(missing)}: pip install 'tfdetect[{form}]', or in a checkout "
                        f"pip install -e '.[{form}]'.")  # fmt: skip
    if not artifact.saved_model.exists():
        raise UserError(f"{artifact.folder} has no SavedModel to compare with: run "
                        f"{installation.command('export', artifact.folder)} first.")  # fmt: skip


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `folder` once the block has ended without an error."""
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part-"))
    try:
        temporary.chmod(0o755)
        yield temporary
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
