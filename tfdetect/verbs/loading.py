"""Data settings -> a prepared manifest: read, split, decode into the cache; what fails is counted and listed."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tfdetect.config import Data
from tfdetect.detector import Detector
from tfdetect.verbs.console import console, progress

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.cache import Cache


def cache_for(data: Data, detector: Detector | type[Detector]) -> "Cache":
    """The cache of clips as this detector sees them."""
    from tfdetect.data.cache import Cache, View

    view = View(data.frames, data.size, data.fps, still=detector.sees == "clip")
    return Cache(data.cache_dir, view, data.cache)


def read(data: Data, detector: Detector) -> "pd.DataFrame":
    """The manifest of the data set, or of the embedded sample, which is made where it is not there yet."""
    from tfdetect.data import layouts

    if data.path is not None:
        return layouts.read(data.path, data.fake)
    from tfdetect.data.sample import Sample, write

    spec = Sample("image", data.sample, size=data.size)
    if detector.sees == "clip":
        spec = Sample("video", data.sample, size=data.size, frames=max(data.frames, 2))
    folder = data.cache_dir / f"sample-{spec.kind}-{spec.count}x{spec.frames}x{spec.size}"
    console.print(f"No --data.path: the embedded sample, {spec.count} real and {spec.count} fake {spec.kind}s, in {folder}")
    with progress("Drawing", 2 * spec.count) as step:
        write(spec, folder, data.workers, step)
    return layouts.read(folder)


def decode(table: "pd.DataFrame", data: Data, cache: "Cache") -> "pd.DataFrame":
    """The manifest with what the decoder found; says how many files failed. ValueError where none is left."""
    from tfdetect.data.prepare import prepare, problems

    with progress("Decoding", len(table)) as step:
        table = prepare(table, cache, data.workers, step)
    failures, notes = problems(table, "error"), problems(table, "note")
    for kind, rows in (("could not be used", failures), ("used, with a note", notes)):
        if rows:
            path, reason = rows[0]
            console.print(f"{len(rows)} of {len(table)} files {kind}; the report lists them. The first: {path}: {reason}")
    if len(failures) == len(table):
        raise ValueError(f"None of the {len(table)} files could be read. The first: {failures[0][0]}: {failures[0][1]}")
    return table


def with_path(data: Data, path: Path | None, fake: tuple[str, ...] | None, workers: int | None) -> Data:
    """The data settings of a run, for other files."""
    return replace(data, path=path, fake=fake or data.fake, workers=workers or data.workers)

