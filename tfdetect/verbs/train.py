"""train: train, evaluate and export a detector."""

import os
from collections.abc import Sequence

from tfdetect import backend, config, files, installation, plugins
from tfdetect.api.train import resolve, train_run
from tfdetect.artifact import Artifact
from tfdetect.detector import REGISTRY
from tfdetect.settings import Run
from tfdetect.workflow.console import console, print_command


def main(argv: Sequence[str]) -> int:
    """Parse the flags, train, and print what to do next."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    run = resolve(config.parse(argv, "train"))
    artifact = train_run(run)
    if not backend.worker_index():
        print_next_steps(artifact, run)
    return 0


def usage() -> str:
    """Return what `train --help` prints without a detector's name."""
    summaries = {name: (cls.__doc__ or "").splitlines()[0] for name, cls in sorted(REGISTRY.items())}
    listed = "\n".join(f"  {name:{max(map(len, summaries)) + 2}}{line}" for name, line in summaries.items())
    detector = installation.command("train", "DETECTOR")
    train = installation.command("train")
    forms = f"{detector} [--flags]  |  {train} --config FILE [--flags]  |  {train} --from RUN --data.path DIR [--flags]"
    return f"{forms}\n\n{listed}\n\n`{detector} --help` lists its flags. --plugin FILE.py adds detectors of your own."


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
