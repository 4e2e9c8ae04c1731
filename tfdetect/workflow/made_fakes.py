"""Fakes that a run makes of its own real faces: which files get some, and what the user is told."""

from typing import TYPE_CHECKING

from tfdetect import installation
from tfdetect.errors import UserError
from tfdetect.settings import Run
from tfdetect.workflow.console import console, plural, printable, progress

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache


def add_made_fakes(table: "pd.DataFrame", run: Run, cache: "Cache") -> "pd.DataFrame":
    """Return the split manifest with self-blended fakes of its real files if --data.make_fakes asks for some, else unchanged.

    They replace the data set's own fakes in training and validation, or join them with --data.keep_fakes; the test keeps its own
    if it has some. Training files get none if --train.augment makes fakes in every epoch. Raises UserError if none could be made.
    """
    import pandas as pd

    from tfdetect.data.made_fakes import FakeMaker, make_fakes
    from tfdetect.data.media.faces import FaceSettings, model_path

    if not run.data.make_fakes:
        return table
    kept = table if run.data.keep_fakes else table[(table["label"] == 0) | (table["split"] == "test")]
    in_test = (kept["label"] == 1) & (kept["split"] == "test")
    without = ["test"] * bool(in_test.any()) + ["train"] * run.train.makes_face_fakes
    reals = kept[(kept["label"] == 0) & ~kept["split"].isin(without)]
    faces = cache.spec.faces or FaceSettings.from_model(model_path(run.data.face_model, run.data.cache_dir))
    maker = FakeMaker(run.data.cache_dir, run.data.make_fakes, faces, run.data.limits, run.data.decoding)
    with progress("Making fakes", len(reals)) as step:
        fakes, failures = make_fakes(reals, maker, run.data.workers, run.data.timeout, step)
    if failures:
        path, reason = next(iter(failures.items()))
        console.print(f"No fake could be made of {plural(len(failures), 'real file')}; the first: {printable(path)}: {reason}")
    if fakes.empty:
        raise UserError(f"No fake could be made of any of {plural(len(reals), 'real file')}: --data.make_fakes needs photographs "
                        "or videos of faces.")  # fmt: skip
    whole, left_out = pd.concat([kept, fakes], ignore_index=True), len(table) - len(kept)
    counts = ", ".join(f"{count} for {split}" for split, count in fakes["split"].value_counts().items())
    in_epochs = "; the training makes its own in every epoch" * run.train.makes_face_fakes
    console.print(f"Self-blended fakes: {counts}{in_epochs}. To look at them: {printable(str(maker.folder))}")
    others = {"fakes that made ones replace": left_out} if left_out else {}
    whole.attrs = {**table.attrs, "left_out": {**table.attrs.get("left_out", {}), **others}}
    return whole


def warning(table: "pd.DataFrame") -> tuple[str, ...]:
    """Return, for the report, what a result on fakes that were made of the reals says, and what it does not."""
    from tfdetect.data.made_fakes import SOURCE

    made = int(((table["source"] == SOURCE) & (table["split"] == "test")).sum())
    if not made:
        return ()
    evaluate = installation.command("evaluate", "RUN", "--data.path", "DIR")
    return (f"The test has {plural(made, 'fake')} that this run made of its real files: its result tells how well the training "
            "worked, not how well face swaps are found. Their file format differs from that of the reals, but the detector sees "
            f"pixels only. For face swaps, run {evaluate}.",)  # fmt: skip
