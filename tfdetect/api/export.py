"""export: re-export the SavedModel of a run."""

from collections.abc import Mapping
from pathlib import Path

from tfdetect import artifact as artifacts
from tfdetect import hashes, models
from tfdetect.evaluation.familiarity import Familiarity
from tfdetect.workflow import dataset
from tfdetect.workflow.console import import_keras


def export_run(folder: Path, trust: bool = False) -> tuple[Path, Mapping[str, str]]:
    """Re-export the SavedModel of a run, from its model.keras and calibration.json into its folder 1/.

    Returns that folder, and a line about each of its signatures. Raises UserError if other files than those of the SavedModel
    differ from SHA256SUMS; with `trust`, they are accepted as they are, and SHA256SUMS is renewed.
    """
    artifact = artifacts.find(folder, "model", trust)
    run = artifacts.load_config(artifact)
    calibration = artifacts.load_calibration(artifact).to_dict()
    import_keras()
    from tfdetect.serving.export import describe_signatures, export

    spec = dataset.clip_spec(run.data, run.data.cache_dir, still=run.detector.input_kind == "clip")
    if artifact.equalisation_plan.exists():
        spec = dataset.with_equalisation(dataset.cache_for(run.data, run.detector), artifact).spec
    known = Familiarity.load(artifact.familiarity) if artifact.familiarity.exists() else None
    export(models.load(artifact.model), calibration, run.detector, artifact.saved_model, spec, run.evaluate.aggregate, known)
    hashes.write(folder)
    return artifact.saved_model, describe_signatures(run.detector, spec, known)
