"""export: re-export the SavedModel of a run."""

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
    """Re-export the SavedModel of a run, from its model.keras and calibration.json into its folder 1/."""

    run: tyro.conf.Positional[Path]
    """Folder of the run, such as saved_models/cnn."""


def main(argv: Sequence[str]) -> int:
    """Parse the flags and export."""
    args = config.parse_flags(Export, argv, "export.py")
    artifact = artifacts.find(args.run, "model")
    run = artifacts.load_config(artifact)
    calibration = artifacts.load_calibration(artifact).to_dict()
    import_keras()
    from tfdetect.serving.export import SERVING_NOTES, describe_signatures, export

    spec = dataset.clip_spec(run.data, run.data.cache_dir, still=run.detector.input_kind == "clip")
    if artifact.equalisation_plan.exists():
        spec = dataset.with_equalisation(dataset.cache_for(run.data, run.detector), artifact).spec
    export(models.load(artifact.model), calibration, run.detector, artifact.saved_model, spec)
    console.print(f"SavedModel  {artifact.saved_model}, described in {artifact.folder / SERVING_NOTES}")
    for name, description in describe_signatures(run.detector, spec).items():
        console.print(f"  {name}: {description}")
    return 0
