"""train --resume: is a run finished, and may it be trained further?"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect import artifact as artifacts
from tfdetect import config, files, hashes, versions
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.settings import Run
from tfdetect.workflow.console import console

if TYPE_CHECKING:
    import pandas as pd


def why_finished(run: Run, artifact: Artifact) -> str:
    """Return why a finished run cannot be trained further with these settings; "" if it can.

    Raises UserError if its files differ from its SHA256SUMS, unless the settings say to trust it.
    """
    if not run.trust:
        hashes.check(artifact.folder, saved_model=False)
    old = artifacts.load_config(artifact).train
    if not (states := checkpoint_states(artifact) or rebuilt_states(run, artifact)):
        return "it cannot be trained further, because its head was not trained in epochs, or its checkpoints/ is gone"
    done = max(len(state["history"]) for state in states)
    if run.train.epochs > done and (run.train.epochs, run.train.patience) != (old.epochs, old.patience):
        return ""
    ended = f"it stopped early, after {done} of {old.epochs} epochs" if done < old.epochs else f"all {done} epochs are done"
    return f"{ended}; to train it further, raise --train.epochs, or --train.patience if it stopped early"


def checkpoint_states(artifact: Artifact) -> "list[Mapping[str, Any]]":
    """Return the states of the run's checkpoints. Raises UserError if one is damaged."""
    from tfdetect.training.callbacks import RESTART_HINT

    return [files.read_json(path, ("history", "last"), RESTART_HINT) for path in artifact.checkpoints.glob("*/state.json")]


def rebuilt_states(run: Run, artifact: Artifact) -> "list[Mapping[str, Any]]":
    """Return the states of a finished run whose checkpoints are gone, rebuilt from its history; none for a head on features."""
    import pandas as pd

    from tfdetect.training.callbacks import rebuild_state

    history = pd.read_csv(artifact.history) if artifact.history.exists() and not run.detector.caches_features else ()
    if len(history):
        rebuild_state(artifact.checkpoints, history, run.train.monitor)
    return checkpoint_states(artifact)


def require_same_splits(artifact: Artifact, table: "pd.DataFrame") -> None:
    """Raise UserError if a file is in another split than when the run was trained, because files were added or removed."""
    from tfdetect.data import manifest

    if not artifact.manifest.exists():
        return
    old = manifest.read(artifact.manifest)
    old_split = dict(zip(old["path"], old["split"], strict=True))
    paths = [str(Path(path).absolute()) for path in table["path"]]
    moved = [path for path, split in zip(paths, table["split"], strict=True) if old_split.get(path, split) != split]
    if moved:
        raise UserError(f"Some files are in another split than when {artifact.folder} was trained ({len(moved)}, the first "
                        f"{moved[0]}): the data have changed, and the run would be tested on files it was trained on. Give "
                        "another --name.")  # fmt: skip


def reopen(artifact: Artifact, run: Run) -> None:
    """Store the new settings, and delete the report, which marks a run as finished, and the hashes of its files."""
    versions.remove(artifact.folder, hashes.NAME)
    if artifact.is_finished:
        if any(state["history"] and not state["last"] for state in checkpoint_states(artifact)):
            console.print("The optimizer state was too large to keep: training continues from the best epoch with a new one.")
        artifact.report.unlink()
        shutil.rmtree(artifact.logs / "test", ignore_errors=True)
    config.write_yaml(run, artifact.config)
