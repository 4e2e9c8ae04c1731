"""export: write the SavedModel of a run anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from tfdetect import artifact as artifacts
from tfdetect import config, models
from tfdetect.workflow import dataset
from tfdetect.workflow.console import console, import_keras


@dataclass(frozen=True)
class Export:
    """model.keras and calibration.json of a run -> the SavedModel in its folder 1/."""

    run: tyro.conf.Positional[Path]
    """The run's folder, such as saved_models/cnn."""


def main(argv: Sequence[str]) -> int:
    """Parse and export."""
    asked = config.parse_flags(Export, argv, "export.py")
    artifact = artifacts.find(asked.run, "model")
    run = artifacts.load_config(artifact)
    calibration = artifacts.load_calibration(artifact).to_dict()
    import_keras()
    from tfdetect.serving.export import SERVING_NOTES, describe_signatures, export

    view = dataset.clip_spec(run.data, run.data.cache_dir, still=run.detector.input_kind == "clip")
    if artifact.equalisation_plan.exists():
        view = dataset.with_equalisation(dataset.cache_for(run.data, run.detector), artifact).spec
    export(models.load(artifact.model), calibration, run.detector, artifact.saved_model, view)
    console.print(f"SavedModel  {artifact.saved_model}, described in {artifact.folder / SERVING_NOTES}")
    for name, what in describe_signatures(run.detector, view).items():
        console.print(f"  {name}: {what}")
    return 0
