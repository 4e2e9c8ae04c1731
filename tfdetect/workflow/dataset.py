"""Data settings -> a prepared manifest: read, split, decode into the cache; failures are counted and listed."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tfdetect.artifact import Artifact
from tfdetect.config import PREPARED_FILE, read_prepared_settings
from tfdetect.detector import Detector
from tfdetect.errors import UserError
from tfdetect.files import shell_quote
from tfdetect.settings import ClipSettings, Data, FileSettings
from tfdetect.workflow import clip_space
from tfdetect.workflow.console import console, plural, printable, progress

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache, ClipSpec

FAKE_NAMES = re.compile(r"fake|synth|gener|(^|[\W_])(ai|gan|swap)([\W_]|$)|manip|forge|spoof|edit", re.I)
NEAR = "near duplicates"  # attribute of a table: what the search for them across splits found, as text
COPIES = "{:,} of {:,} files are copies of others; copies form one group, so they stay in one split."


def cache_for(data: Data, detector: Detector | type[Detector]) -> "Cache":
    """Return the cache of clips as this detector sees them: that of a prepared folder if it holds such clips."""
    from tfdetect.data.prepare.clip_cache import Cache

    spec = clip_spec(data, data.cache_dir, still=detector.input_kind == "clip")
    if data.path and (data.path / PREPARED_FILE).exists():
        ready = Cache(data.path, spec, data.cache)
        if ready.folder.exists():
            return ready
    return Cache(data.cache_dir, spec, data.cache)


def with_equalisation(cache: "Cache", artifact: Artifact) -> "Cache":
    """Return the cache for files that a run evaluates: if it was trained on equalised files, others are equalised first."""
    import json

    from tfdetect.data.equalise import Plan

    if not artifact.equalisation_plan.exists():
        return cache
    return replace(cache, spec=replace(cache.spec, plan=Plan(**json.loads(artifact.equalisation_plan.read_text()))))


def evaluation_cache(data: Data, detector: Detector, artifact: Artifact) -> "Cache":
    """Return the cache for files that a run evaluates: that of a prepared folder as it is, else with the run's equalisation."""
    cache = cache_for(data, detector)
    return cache if cache.root == data.path else with_equalisation(cache, artifact)


def clip_spec(data: ClipSettings, cache_dir: Path, still: bool = False) -> "ClipSpec":
    """Return how files become clips. A missing face model is downloaded into `cache_dir`."""
    from tfdetect.data.media.faces import ALL_FACES, FaceSettings, model_path
    from tfdetect.data.media.frames import Fit
    from tfdetect.data.prepare.clip_cache import ClipSpec

    most = ALL_FACES if data.faces == "all" else 1
    faces = None if data.faces == "none" else FaceSettings.from_model(model_path(data.face_model, cache_dir), most)
    return ClipSpec(data.frames, data.size, data.fps, still, faces, data.limits, fit=Fit(data.fit, data.crops),
                    decoding=data.decoding)  # fmt: skip


def read_manifest(path: Path, data: FileSettings) -> "pd.DataFrame":
    """Return the manifest of the data set at `path`, and print how it was read. Raises UserError if its labels are swapped."""
    from tfdetect.data import manifest
    from tfdetect.data.layouts import detect

    table = detect.read(path, data.fake, data.layout, data.sources, data.group)
    print_reading(table)
    for note in table.attrs.get("notes", ()):
        console.print(note)
    if table.attrs.get("layout") == "manifest" and data.labels == "check":
        manifest.require_label_direction(table, str(path))
    return table


def separate_excluded(table: "pd.DataFrame", cache: "Cache", workers: int | None) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Return the files of a manifest to decode, copies joined to one group; and the excluded ones, because copies contradict
    their label or because `prepare` excluded them, as `decode` returns them, with the reason in the columns `error`
    and `left_out`."""
    from tfdetect.data import manifest
    from tfdetect.data.audit import copies
    from tfdetect.data.prepare.clip_cache import failure_result
    from tfdetect.data.prepare.decode import RESULT_FIELDS, add_results, known_digests

    manifest.require_unsplit_groups(table)
    reasons = table["left_out"] if "left_out" in table else table["path"].map(lambda path: "")
    with known_digests(cache) as digest:
        keys = copies.find_copies(table["path"].where(reasons == "", ""), workers, digest)
    table, contradictions = copies.resolve_copies(table, keys)
    reasons = reasons.where(reasons != "", contradictions)
    if count := copies.count_copies([key for key, reason in zip(keys, reasons, strict=True) if not reason]):
        console.print(COPIES.format(count, len(table)))
    excluded, by_path = table.assign(left_out=reasons)[reasons != ""], dict(zip(table["path"], reasons, strict=True))
    good = table[reasons == ""].drop(columns="left_out", errors="ignore")
    # Without a hash, since the same content may be in the test.
    rows = add_results(excluded, lambda path: map(failure_result("", by_path[path]).get, RESULT_FIELDS), cache.spec)
    if good.empty:
        require_usable(rows)
    return good, rows


def append_excluded(table: "pd.DataFrame", excluded: "pd.DataFrame") -> "pd.DataFrame":
    """Return the decoded rows followed by the excluded ones."""
    import pandas as pd

    from tfdetect.data import manifest

    whole = pd.concat([table, excluded]).fillna(dict.fromkeys(manifest.OPTIONAL_COLUMNS, "")) if len(excluded) else table
    whole.attrs = table.attrs
    return whole


def copies_warning(table: "pd.DataFrame") -> tuple[str, ...]:
    """Return, for the report, how many of the prepared files are copies of others."""
    from tfdetect.data.audit import copies
    from tfdetect.data.prepare.decode import usable_rows

    count = copies.count_copies(content_hashes(usable_rows(table)))
    return (COPIES.format(count, len(table)),) if count else ()


def content_hashes(table: "pd.DataFrame") -> list[str]:
    """Return the content hash of each prepared file; for an equalised one, that of its original."""
    hashes = table["original_sha"] if "original_sha" in table else table["sha"]
    return list(hashes.where(hashes != "", table["sha"]))


def load_dataset(data: Data, detector: Detector) -> "pd.DataFrame":
    """Return the manifest of the data set, or of the embedded sample, which is generated if it does not exist yet."""
    from tfdetect.data.layouts import detect

    if data.path is not None:
        return read_manifest(data.path, data)
    from tfdetect.data.sample import Sample, write

    spec = Sample("image", data.sample, size=data.size)
    if detector.input_kind == "clip":
        spec = Sample("video", data.sample, size=data.size, frames=max(data.frames, 2))
    folder = data.cache_dir / f"sample-{spec.kind}-{spec.count}x{spec.frames}x{spec.size}"
    console.print(f"No --data.path: using the embedded sample of {spec.count} real and {spec.count} fake {spec.kind}s in "
                  f"{folder}")
    with progress("Drawing", 2 * spec.count) as step:
        write(spec, folder, data.workers, step)
    table = detect.read(folder)
    table.attrs[NEAR] = "not looked for: scenes of the embedded sample look alike by design"
    return table


def print_reading(table: "pd.DataFrame") -> None:
    """Print how the files were grouped, and what else is in the folder."""
    console.print(table.attrs["groups"])
    left_out, layout = table.attrs["left_out"], table.attrs["layout"]
    folders = [name for name in left_out if name.endswith("/")]
    why = ("a class folder must be called real or fake" if layout == "class_folders"
           else f"the layout {layout} has no label for them")  # fmt: skip
    for name in folders:
        where = f"in {printable(name)}: {why}" if name != "./" else "outside of any class folder"
        console.print(f"Left out: {plural(left_out[name], 'file')} {where}")
    if layout == "class_folders" and (unknown := [name[:-1] for name in folders if name != "./"]):
        suggest_fake_folders(unknown)
    if others := [f"{count} {name}" for name, count in left_out.items() if name not in folders]:
        console.print(f"Left out: {', '.join(map(printable, others))}")


def suggest_fake_folders(folders: Sequence[str]) -> None:
    """Print the flag that includes folders whose names are not classes: those that sound fake, else all of them."""
    fakes = [name for name in folders if FAKE_NAMES.search(name)] or folders
    reals = [name for name in folders if name not in fakes]
    words = " ".join(shell_quote(Path(name).name) for name in ["fake", *fakes])
    which = "them" if len(fakes) > 1 else printable(fakes[0])
    others = f", including {', '.join(map(printable, reals))}" if reals else ""
    console.print(f"To include {which} as fake: --data.fake {words}; all other folders are then real{others}")


def print_count(table: "pd.DataFrame", used: str = "used") -> None:
    """Print a line that accounts for every file of the folder."""
    failed, left_out = int((table["error"] != "").sum()), sum(table.attrs.get("left_out", {}).values())
    counts = f"{len(table) - failed:,} {used}, {failed:,} failed, {left_out:,} left out"
    console.print(f"{plural(len(table) + left_out, 'file')}: {counts}")


def data_warnings(table: "pd.DataFrame") -> tuple[str, ...]:
    """Return warnings for the report: how files were grouped if no groups were given, and training files that look like test
    files."""
    groups = "" if table.attrs.get("given") else table.attrs.get("groups", "")
    return (*([groups] if groups else []), *table.attrs.get("alike", ()))


def print_if_one_class(table: "pd.DataFrame") -> None:
    """Warn if the test has one class only, before hours are spent on it."""
    from tfdetect.pages.conclusion import one_class_warning

    labels = table.loc[table["split"] == "test", "label"]
    if text := one_class_warning(int((labels == 0).sum()), int((labels == 1).sum())):
        console.print(text)


def decode(table: "pd.DataFrame", data: Data, cache: "Cache", excluded: "pd.DataFrame") -> "pd.DataFrame":
    """Return the manifest with what the decoder found, followed by the excluded files; print how many files failed, and why, and
    what the clips take on disk.

    Raises UserError if no file is left.
    """
    from tfdetect.data.prepare.decode import list_messages, prepare

    clip_space.print_expected_size(table, cache, data.timeout)
    with progress("Decoding", len(table)) as step:
        table = prepare(table, cache, data.workers, step, data.timeout)
    clip_space.print_size(table, cache)
    table = append_excluded(table, excluded).reset_index(drop=True)
    print_failures(table)
    if notes := list_messages(table, "note"):
        used = f"{len(notes):,} of {plural(len(table), 'file')} used with a note"
        console.print(f"{used}; the first: {printable(notes[0][0])}: {notes[0][1]}")
    require_usable(table, data.path)
    print_unchecked(table)
    return table


def print_unchecked(table: "pd.DataFrame") -> None:
    """Print how many frames of the videos were decoded, unless all were."""
    if (decoded := int(table["decoded_frames"].sum())) < (total := int(table["total_frames"].sum())):
        console.print(f"Of {total:,} frames, {decoded:,} were decoded; damage in the others is only found with --data.check all")


def require_usable(table: "pd.DataFrame", origin: Path | None = None) -> None:
    """Raise UserError if no file can be used; `origin` may be a prepared folder that does not hold the requested clips."""
    if not (table["error"] != "").all():
        return
    first = os.path.abspath(table["path"].iloc[0])
    exists = any(map(os.path.lexists, table["path"]))
    if not exists and origin and (settings := read_prepared_settings(origin)):
        flags = " ".join(f"--data.{name} {settings[name]}" for name in ("frames", "size", "fit", "crops"))
        raise UserError(f"{origin} was prepared with {flags}; other clips need the original files, and none of the {len(table)} "
                        f"exists, such as {first}.")  # fmt: skip
    if not exists:
        raise UserError(f"None of the {len(table)} files exists. The first was looked for at {first}; relative paths in a table "
                        "start at the folder of the table.")  # fmt: skip
    raise UserError(f"None of the {len(table)} files could be used. The first: {table['path'].iloc[0]}: {table['error'].iloc[0]}")


def print_failures(table: "pd.DataFrame") -> None:
    """Print a table of reasons, each with the number of files and the first of them."""
    from rich.table import Table

    from tfdetect.data.prepare.decode import summarise_failures

    rows = summarise_failures(table)
    if not rows:
        return
    grid = Table("files", "reason", title=f"{sum(row[1] for row in rows):,} of {plural(len(table), 'file')} could not be used")
    grid.add_column("first file", overflow="fold")
    for reason, count, first in rows:
        grid.add_row(f"{count:,}", printable(reason), printable(first))
    console.print(grid)


def require_few_failures(table: "pd.DataFrame", max_share: float) -> None:
    """Raise UserError if more than this share of the files failed, since the rest is not the data set that was meant."""
    decoded = table[table["left_out"] == ""] if "left_out" in table else table
    failed = int((decoded["error"] != "").sum())
    if failed > max_share * len(table):
        raise UserError(f"{failed:,} of {plural(len(table), 'file')} could not be used, more than --data.max_failed "
                        f"{max_share:g} allows. Fix or exclude them, or raise --data.max_failed.")  # fmt: skip


def add_source_classes(table: "pd.DataFrame", detector: Detector) -> "tuple[pd.DataFrame, Detector]":
    """Return the table with a column `source_class`, the number of each fake's source among the detector's classes, or -1; and
    the detector with its classes: those of the training fakes, unless it has some. Both unchanged without attribution."""
    from tfdetect.data import manifest

    if (by := detector.attribute) == "none":
        return table, detector
    names = manifest.attribution_classes(table, by, detector.families)
    classes = detector.classes or tuple(sorted(set(names[table["split"] == "train"]) - {""}))
    if len(classes) < 2:
        found = ", ".join(classes) or "none"
        raise UserError(f"--detector.attribute {by} needs training fakes of at least two kinds, got {found}.")
    numbers = {name: number for number, name in enumerate(classes)}
    return table.assign(source_class=names.map(numbers).fillna(-1).astype(int)), detector.with_classes(classes)


def add_texts(table: "pd.DataFrame", detector: Detector) -> "pd.DataFrame":
    """Return the table with a text for each file if the detector uses texts; else unchanged."""
    from tfdetect.data import manifest

    return table if detector.text_template is None else manifest.add_texts(table, detector.text_template)


def for_other_files(data: Data, path: Path | None, fake: tuple[str, ...] | None) -> Data:
    """Return a run's data settings for other files, or without a path for its own, whose clips may be in a prepared folder."""
    return replace(data, path=path or data.path, fake=fake or data.fake)
