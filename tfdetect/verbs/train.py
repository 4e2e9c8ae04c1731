"""train: train, evaluate and export a detector."""

import os
from collections.abc import Sequence

from tfdetect import backend, config, files, installation, plugins
from tfdetect.api.train import resolve, train_run, train_study
from tfdetect.artifact import Artifact
from tfdetect.detector import REGISTRY
from tfdetect.settings import Run
from tfdetect.workflow import protocols
from tfdetect.workflow.console import console, print_command

STUDIES = """Several trainings with one report (docs/protocols.md):
  --data.folds 5                  cross-validation by group
  --data.leave_out each           each source of fakes left out of training once
  --data.amounts 0.1 0.25 0.5 1   learning curve
  --train.seeds 3                 spread over seeds, also of the three above
  --search "train.learning_rate=1e-4..1e-2" --trials 20"""


def main(argv: Sequence[str]) -> int:
    """Parse the flags, train, and print what to do next."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    run = resolve(config.parse(argv, "train"))
    if protocols.is_study(run):
        return train_several(run)
    artifact = train_run(run)
    if not backend.worker_index():
        print_next_steps(artifact, run)
    return 0


def train_several(run: Run) -> int:
    """Train the runs of a study and print where its report is; return 1 if some of them failed."""
    study = train_study(run)
    console.print(f"\nReport      {Artifact(study.folder).report}")
    if (predictions := Artifact(study.folder).predictions).exists():
        console.print("\nNext:")
        print_command("evaluate", "--predictions", predictions)
    return 1 if study.named("failed") else 0


def usage() -> str:
    """Return what `train --help` prints without a detector's name."""
    summaries = {name: (cls.__doc__ or "").splitlines()[0] for name, cls in sorted(REGISTRY.items())}
    listed = "\n".join(f"  {name:{max(map(len, summaries)) + 2}}{line}" for name, line in summaries.items())
    detector = installation.command("train", "DETECTOR")
    train = installation.command("train")
    forms = f"{detector} [--flags]  |  {train} --config FILE [--flags]  |  {train} --from RUN --data.path DIR [--flags]"
    hint = f"`{detector} --help` lists its flags. --plugin FILE.py adds detectors of your own."
    return f"{forms}\n\n{listed}\n\n{hint}\n\n{STUDIES}"


def print_next_steps(artifact: Artifact, run: Run) -> None:
    """Print where the results are and what to do next, such as the command that predicts an existing test file."""
    served = artifact.saved_model
    if not served.exists():
        served = f"none: KERAS_BACKEND=tensorflow {installation.command('export', artifact.folder)} writes it"
    console.print(f"\nReport      {artifact.report}\nSavedModel  {served}\nEverything  {artifact.folder}\n\nNext:")
    if example := find_test_file(artifact):
        print_command("predict", artifact.folder, example)
    own = [word for file in plugins.loaded_files() for word in ("--plugin", file)]
    train = installation.command("train", run.detector.name, *own, "--data.path", "YOUR_FOLDER")
    console.print(f"  {train}   # with real/ and fake/ in it")
    console.print(f"  tensorboard --logdir {files.shell_quote(artifact.folder.parent)}")


def find_test_file(artifact: Artifact) -> str | None:
    """Return the path of a file that the run was tested on and that still exists; relative, if that is shorter."""
    from tfdetect.evaluation import predictions

    scored = predictions.read(artifact.predictions)
    tested = dict.fromkeys(scored.loc[scored["split"] == "test", "path"])
    found = next((path for path in tested if path.isprintable() and os.path.exists(path)), None)
    return found and min(found, os.path.relpath(found), key=len)
