"""Data settings -> a prepared manifest: read, split, decode into the cache; what fails is counted and listed."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tfdetect.artifact import Artifact
from tfdetect.config import PREPARED, prepared
from tfdetect.detector import Detector
from tfdetect.errors import UserError
from tfdetect.files import quoted
from tfdetect.settings import ClipSettings, Data, FileSettings
from tfdetect.workflow.console import console, counted, printable, progress

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache, ClipSpec

FAKES = re.compile(r"fake|synth|gener|(^|[\W_])(ai|gan|swap)([\W_]|$)|manip|forge|spoof|edit", re.I)
COPIES = "{:,} of {:,} files are copies of others; copies are one group, and so in one split."


def cache_for(data: Data, detector: Detector | type[Detector]) -> "Cache":
    """The cache of clips as this detector sees them: that of a prepared folder if it holds such clips."""
    from tfdetect.data.prepare.clip_cache import Cache

    seen = clip_spec(data, data.cache_dir, still=detector.input_kind == "clip")
    if data.path and (data.path / PREPARED).exists():
        ready = Cache(data.path, seen, data.cache)
        if ready.folder.exists():
            return ready
    return Cache(data.cache_dir, seen, data.cache)


def with_equalisation(cache: "Cache", artifact: Artifact) -> "Cache":
    """The same for files that a run judges: where it learnt from equalised ones, others are equalised before it sees them."""
    import json

    from tfdetect.data.equalise import Plan

    if not artifact.plan.exists():
        return cache
    return replace(cache, spec=replace(cache.spec, plan=Plan(**json.loads(artifact.plan.read_text()))))


def clip_spec(data: ClipSettings, cache_dir: Path, still: bool = False) -> "ClipSpec":
    """How files become clips. A face model that is not there is fetched into `cache_dir`."""
    from tfdetect.data.media.faces import Faces, model
    from tfdetect.data.prepare.clip_cache import ClipSpec

    faces = Faces.of(model(data.face_model, cache_dir)) if data.faces == "yunet" else None
    return ClipSpec(data.frames, data.size, data.fps, still, faces, data.limits)


def read_manifest(path: Path, data: FileSettings) -> "pd.DataFrame":
    """The manifest of the data set at `path`, its labels the right way round; what should be known of its columns is said."""
    from tfdetect.data import manifest
    from tfdetect.data.layouts import detect

    table = detect.read(path, data.fake, data.layout, data.sources, data.group)
    say_read(table)
    for note in table.attrs.get("notes", ()):
        console.print(note)
    if table.attrs.get("layout") == "manifest" and data.labels == "check":
        manifest.require_direction(table, str(path))
    return table


def separate_excluded(table: "pd.DataFrame", cache: "Cache", workers: int | None) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """The files of a manifest that are to be decoded, the groups of copies joined; and those left out, because copies contradict
    them or `prepare` did so, as `decode` gives them, with the reason in the columns `error` and `left_out`."""
    from tfdetect.data import manifest
    from tfdetect.data.audit import copies
    from tfdetect.data.prepare.clip_cache import failed
    from tfdetect.data.prepare.decode import DETAILS, detailed

    manifest.require_whole_groups(table)
    out = table["left_out"] if "left_out" in table else table["path"].map(lambda path: "")
    keys = copies.keys(table["path"].where(out == "", ""), workers)
    table, reasons = copies.settle(table, keys)
    out = out.where(out != "", reasons)
    if count := copies.count([key for key, reason in zip(keys, out, strict=True) if not reason]):
        console.print(COPIES.format(count, len(table)))
    left, told = table.assign(left_out=out)[out != ""], dict(zip(table["path"], out, strict=True))
    # Without a hash: the same content may be in the test.
    good = table[out == ""].drop(columns="left_out", errors="ignore")
    rows = detailed(left, lambda path: map(failed("", told[path]).get, DETAILS), cache.spec)
    if good.empty:
        require_some(rows)
    return good, rows


def append_excluded(table: "pd.DataFrame", left: "pd.DataFrame") -> "pd.DataFrame":
    """The decoded rows, and those left out."""
    import pandas as pd

    from tfdetect.data import manifest

    whole = pd.concat([table, left]).fillna(dict.fromkeys(manifest.EXTRA, "")) if len(left) else table
    whole.attrs = table.attrs
    return whole


def copies_line(table: "pd.DataFrame") -> tuple[str, ...]:
    """For the report: how many of the prepared files are copies of others."""
    from tfdetect.data.audit import copies
    from tfdetect.data.prepare.decode import usable

    count = copies.count(contents(usable(table)))
    return (COPIES.format(count, len(table)),) if count else ()


def contents(table: "pd.DataFrame") -> list[str]:
    """What each prepared file holds: the hash of its original if it was equalised, else its own."""
    own = table["original_sha"] if "original_sha" in table else table["sha"]
    return list(own.where(own != "", table["sha"]))


def load_dataset(data: Data, detector: Detector) -> "pd.DataFrame":
    """The manifest of the data set, or of the embedded sample, which is made where it is not there yet."""
    from tfdetect.data.layouts import detect

    if data.path is not None:
        return read_manifest(data.path, data)
    from tfdetect.data.sample import Sample, write

    spec = Sample("image", data.sample, size=data.size)
    if detector.input_kind == "clip":
        spec = Sample("video", data.sample, size=data.size, frames=max(data.frames, 2))
    folder = data.cache_dir / f"sample-{spec.kind}-{spec.count}x{spec.frames}x{spec.size}"
    console.print(f"No --data.path: the embedded sample, {spec.count} real and {spec.count} fake {spec.kind}s, in {folder}")
    with progress("Drawing", 2 * spec.count) as step:
        write(spec, folder, data.workers, step)
    return detect.read(folder)


def say_read(table: "pd.DataFrame") -> None:
    """How the files were grouped, and what the folder holds besides them."""
    console.print(table.attrs["groups"])
    left, layout = table.attrs["left_out"], table.attrs["layout"]
    folders = [name for name in left if name.endswith("/")]
    why = "a class folder is called real or fake" if layout == "class_folders" else f"the layout {layout} has no label for them"
    for name in folders:
        where = f"in {printable(name)}: {why}" if name != "./" else "in no folder of a class"
        console.print(f"Left out: {counted(left[name], 'file')} {where}")
    if layout == "class_folders" and (strangers := [name[:-1] for name in folders if name != "./"]):
        say_fakes(strangers)
    if others := [f"{count} {name}" for name, count in left.items() if name not in folders]:
        console.print(f"Left out: {', '.join(map(printable, others))}")


def say_fakes(strangers: Sequence[str]) -> None:
    """The flag that takes folders in whose names are no class: as fake those that sound so, else all; then the rest is real."""
    fakes = [name for name in strangers if FAKES.search(name)] or strangers
    rest = [name for name in strangers if name not in fakes]
    words = " ".join(quoted(Path(name).name) for name in ["fake", *fakes])
    which = "them" if len(fakes) > 1 else printable(fakes[0])
    others = f", {', '.join(map(printable, rest))} too" if rest else ""
    console.print(f"To take {which} in as fake: --data.fake {words}; all other folders are then real{others}")


def say_count(table: "pd.DataFrame", used: str = "used") -> None:
    """A line that accounts for every file of the folder."""
    failed, left_out = int((table["error"] != "").sum()), sum(table.attrs.get("left_out", {}).values())
    counts = f"{len(table) - failed:,} {used}, {failed:,} failed, {left_out:,} left out"
    console.print(f"{counted(len(table) + left_out, 'file')}: {counts}")


def data_warnings(table: "pd.DataFrame") -> tuple[str, ...]:
    """What a report says of groups that nobody gave, and of pictures that stand in train and test alike."""
    said = table.attrs.get("groups", "")
    return (*filter(None, ("" if table.attrs.get("given") else said,)), *table.attrs.get("alike", ()))


def say_alike(table: "pd.DataFrame", cache: "Cache", given: bool) -> "pd.DataFrame":
    """The decoded table; where pictures of test or validation look like training files of other groups, that is said, and kept
    for the report. `given`: by a split that came with the data."""
    from tfdetect.data.audit import duplicates
    from tfdetect.data.prepare.decode import usable

    good = usable(table)
    if found := duplicates.between_splits(good, cache.load):
        held = sorted({other for _, other in found})
        names = " or ".join(sorted(set(good.loc[good["path"].isin(held), "split"])))
        first, second = found[0]
        way = "keep them on one side of the split" if given else "give them one group"
        many = f"{len(held)} {names} files look" if len(held) > 1 else f"1 {names} file looks"
        text = (f"{many} like training files of other groups, e.g. {printable(second)} and {printable(first)}: what is measured "
                f"there may be memory. To {way}, see --data.group, or audit.py DIR --write_groups, which writes a manifest.")
        console.print(text)
        table.attrs["alike"] = (text,)
    return table


def restrict_sources(table: "pd.DataFrame", data: Data) -> "pd.DataFrame":
    """Without the fakes that --data.train_sources and --data.test_sources leave out of their splits; a line counts them."""
    from tfdetect.data import manifest

    kept = manifest.restrict_sources(table, data.train_sources, data.test_sources)
    gone = table["split"].value_counts() - kept["split"].value_counts().reindex(table["split"].unique(), fill_value=0)
    if gone.sum():
        counts = ", ".join(f"{gone.get(name, 0)} of {name}" for name in ("train", "validation", "test"))
        console.print(f"Left out as fakes of other sources: {counts}. Every group stays in its split.")
        kept.attrs["left_out"] = {**table.attrs.get("left_out", {}), "other sources in a split": int(gone.sum())}
    return kept


def say_one_class(table: "pd.DataFrame") -> None:
    """A line where the test holds one class only, before hours are spent on it."""
    from tfdetect.pages import report

    labels = table.loc[table["split"] == "test", "label"]
    if text := report.one_class_warning(int((labels == 0).sum()), int((labels == 1).sum())):
        console.print(text)


def decode(table: "pd.DataFrame", data: Data, cache: "Cache", left: "pd.DataFrame") -> "pd.DataFrame":
    """The manifest with what the decoder found, then those that `separate_excluded` left out; says how many files failed, and why. ValueError
    where none is left."""
    from tfdetect.data.prepare.decode import prepare, problems

    with progress("Decoding", len(table)) as step:
        table = prepare(table, cache, data.workers, step, data.timeout)
    table = append_excluded(table, left).reset_index(drop=True)
    say_failures(table)
    notes = problems(table, "note")
    if notes:
        used = f"{len(notes):,} of {counted(len(table), 'file')} used"
        console.print(f"{used}, with a note; the first: {printable(notes[0][0])}: {notes[0][1]}")
    require_some(table, data.path)
    return table


def require_some(table: "pd.DataFrame", origin: Path | None = None) -> None:
    """UserError where no file can be used; `origin` may be a prepared folder, of which other clips were asked for."""
    if not (table["error"] != "").all():
        return
    first = os.path.abspath(table["path"].iloc[0])
    there = any(map(os.path.lexists, table["path"]))
    if not there and origin and (held := prepared(origin)):
        raise UserError(f"{origin} was prepared with --data.frames {held['frames']} --data.size {held['size']}; other clips need "
                        f"the originals, and none of the {len(table)} is there, such as {first}.")  # fmt: skip
    if not there:
        raise UserError(f"None of the {len(table)} files is there. The first was looked for at {first}; in a table, relative "
                        "paths start at the folder of the table.")  # fmt: skip
    raise UserError(f"None of the {len(table)} files could be used. The first: {table['path'].iloc[0]}: {table['error'].iloc[0]}")


def say_failures(table: "pd.DataFrame") -> None:
    """A table of reasons: how many files, and the first of them."""
    from rich.table import Table

    from tfdetect.data.prepare.decode import reasons

    found = reasons(table)
    if not found:
        return
    grid = Table("files", "reason", title=f"{sum(row[1] for row in found):,} of {counted(len(table), 'file')} could not be used")
    grid.add_column("the first", overflow="fold")
    for reason, count, first in found:
        grid.add_row(f"{count:,}", printable(reason), printable(first))
    console.print(grid)


def require_few_failures(table: "pd.DataFrame", most: float) -> None:
    """ValueError if more than this part of the files failed: what is left is then another data set than the one meant."""
    decoded = table[table["left_out"] == ""] if "left_out" in table else table
    failed = int((decoded["error"] != "").sum())
    if failed > most * len(table):
        files = counted(len(table), "file")
        raise UserError(
            f"{failed:,} of {files} could not be used, more than --data.max_failed {most:g} allows. Mend them, "
            "leave them out, or raise --data.max_failed."
        )


def with_source_classes(table: "pd.DataFrame", detector: Detector) -> "tuple[pd.DataFrame, Detector]":
    """With a column `source_class`, the number among the detector's classes of what each fake is, -1 where there is none; and the
    detector with its classes, all those of the training fakes unless it has some. As they are for one without levels."""
    from tfdetect.data import manifest

    by = getattr(detector, "attribute", "none")
    if by == "none":
        return table, detector
    named = manifest.attribution_classes(table, by, detector.families)  # type: ignore[attr-defined]
    classes = detector.classes or tuple(sorted(set(named[table["split"] == "train"]) - {""}))
    if len(classes) < 2:
        raise UserError(f"--detector.attribute {by} needs training fakes of two kinds at the least, found: "
                         f"{', '.join(classes) or 'none'}.")  # fmt: skip
    numbers = {name: number for number, name in enumerate(classes)}
    return table.assign(source_class=named.map(numbers).fillna(-1).astype(int)), replace(detector, classes=classes)  # type: ignore[call-arg]


def with_texts(table: "pd.DataFrame", detector: Detector) -> "pd.DataFrame":
    """With a text for each file, for a detector that joins it with the picture; as it is for all others."""
    from tfdetect.data import manifest

    if getattr(detector, "text", "none") == "none":
        return table
    return manifest.add_texts(table, detector.template)  # type: ignore[attr-defined]


def with_path(data: Data, path: Path | None, fake: tuple[str, ...] | None) -> Data:
    """The data settings of a run, for other files; without a path for its own, whose clips may be in a prepared folder."""
    return replace(data, path=path or data.path, fake=fake or data.fake)

