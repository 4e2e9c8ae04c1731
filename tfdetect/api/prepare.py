"""prepare: check and decode a data set into a folder that training reads."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from tfdetect import config, files
from tfdetect.errors import UserError
from tfdetect.machine import available_cores
from tfdetect.settings import PREPARED_KEYS, ClipSettings, DaskSettings
from tfdetect.workflow import clip_space, dataset, output_paths
from tfdetect.workflow.console import console, plural, printable, progress
from tfdetect.workflow.profile import profiled
from tfdetect.workflow.startup import start

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache


@dataclass(frozen=True)
class Prepare:
    """Decode a data set once into a folder that can then be trained on: `tfdetect train DETECTOR --data.path FOLDER`.

    If interrupted, the same command resumes. Files that cannot be used are listed in failures.csv.
    """

    path: tyro.conf.Positional[Path]
    """A manifest, or the folder of a public data set, or a folder with real/ and fake/ in it."""
    out: Path
    """Folder to create, such as prepared/celeb.
    Training on it does not need the originals. It holds the only copy of equalised files, so do not delete it as a cache."""
    data: ClipSettings = field(default_factory=ClipSettings)
    equalise: bool = False
    """Crop and re-encode all files in the same way first, so that the file format cannot reveal the label (docs/equalise.md)."""
    dry_run: bool = False
    """Only say how many files would be decoded, how much space their clips take and how long it takes; nothing is written."""
    profile: bool = False
    """Print where the time went, and write it for TensorBoard into FOLDER/logs."""
    runner: str = "local"
    """Where files are decoded.
    local: processes on this machine.
    dask: a Dask cluster (docs/cluster.md).
    beam: Apache Beam on this machine.
    NAME: a Beam runner such as FlinkRunner, which receives all unknown flags."""
    dask: DaskSettings = field(default_factory=DaskSettings)

    def __post_init__(self) -> None:
        self.dask.require_runner(self.runner)
        if self.profile and self.runner != "local":
            raise UserError(f"--profile measures this machine: it needs --runner local, got --runner {self.runner}.")


def prepare(path: str | Path, out: str | Path, **settings: Any) -> Path:
    """Decode a data set once into the folder `out`, which can then be trained on, and return that folder.

    `path` is a data set or manifest. The keywords are flags of the command `prepare`, such as `size=64` and `equalise=True`.
    Files that cannot be used are listed in failures.csv. Raises UserError for a setting that is not valid, if `out` holds
    something else, and if no file can be used.
    """
    start(settings.pop("plugin", ()))
    return prepare_data(config.parse_keywords(Prepare(Path(path), Path(out)), settings, "prepare"))


def prepare_data(args: Prepare, beam_options: Sequence[str] = ()) -> Path:
    """Read, optionally equalise, decode and write the data set, and return its folder."""
    output_paths.require_prepared(args.out, args.path)
    import pandas as pd  # imported late to keep --help fast

    table, excluded, cache = read_dataset(args)
    if args.dry_run:
        print_estimate(args, table, cache)
        return args.out
    if args.equalise:
        table, failures = equalise_files(args, table, cache)
        excluded = pd.concat([excluded, failures])
    with profiled(args.profile, args.out / "logs", with_trace=False):  # other processes do the work
        decoded = decode(args, table, cache, beam_options)
    write(args, dataset.append_excluded(decoded, excluded).sort_index())
    return args.out


def read_dataset(args: Prepare) -> "tuple[pd.DataFrame, pd.DataFrame, Cache]":
    """Return the files to decode, those excluded because copies contradict their label, and the cache inside the output folder.

    Paths are absolute, since the folder may be used from anywhere. Raises UserError if it was prepared with other settings.
    """
    from tfdetect.data.prepare.clip_cache import Cache

    data = args.data
    table = dataset.read_manifest(args.path, data)
    table["path"] = [str(Path(path).absolute()) for path in table["path"]]
    settings = {name: getattr(data, name) for name in PREPARED_KEYS}
    old_settings = config.read_prepared_settings(args.out)
    if old_settings and old_settings != settings:
        raise UserError(f"{args.out} was prepared with other settings: {old_settings}. Give another --out, or delete it.")
    cache = Cache(args.out, dataset.clip_spec(data, args.out), data.cache)
    return *dataset.separate_excluded(table, cache, data.workers), cache


def decode(args: Prepare, table: "pd.DataFrame", cache: "Cache", beam_options: Sequence[str]) -> "pd.DataFrame":
    """Return the prepared manifest, decoded by local processes, by Dask or by Beam."""
    from tfdetect.data.prepare.beam import LOCAL_RUNNER, BeamRunner
    from tfdetect.data.prepare.dask import DaskRunner
    from tfdetect.data.prepare.decode import decode_locally, prepare

    data = args.data
    beam = BeamRunner(args.out / "shards", LOCAL_RUNNER if args.runner == "beam" else args.runner, beam_options)
    runner = {"local": decode_locally, "dask": DaskRunner(args.dask.address).results}.get(args.runner, beam.results)
    clip_space.print_expected_size(table, cache, data.timeout)
    with progress("Decoding", len(table)) as step:
        return prepare(table, cache, data.workers, step, data.timeout, runner)


def print_estimate(args: Prepare, table: "pd.DataFrame", cache: "Cache") -> None:
    """Decode a few files, and print what decoding all of them would take."""
    from tfdetect.data.prepare import decode

    found = decode.estimate(table, cache, args.data.workers, args.data.timeout)
    free, processes = files.format_bytes(files.free_space(args.out)), args.data.workers or available_cores()
    console.print(f"{found.files:,} of {plural(len(table), 'file')} would be decoded, on {plural(processes, 'core')} in about "
                  f"{format_duration(found.seconds)}{', and equalised first' if args.equalise else ''}. Their clips would take "
                  f"{files.format_bytes(found.bytes)} in {plural(found.shards, 'file')} in {printable(str(args.out))}; {free} "
                  "are free. Nothing was written.")  # fmt: skip


def format_duration(seconds: float) -> str:
    """Return a duration such as "40 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def equalise_files(args: Prepare, table: "pd.DataFrame", cache: "Cache") -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Return the rows of the equalised files, and the prepared rows of the failed ones; both keep their index."""
    from tfdetect.data.equalise import equalise
    from tfdetect.data.prepare.clip_cache import failure_result
    from tfdetect.data.prepare.decode import RESULT_FIELDS, add_results

    data = args.data
    with progress("Equalising", len(table)) as step:
        half = partial(step, advance=0.5)  # each file is inspected, then encoded
        table = equalise(table, args.out.absolute() / "equalised", data.workers, half, data.timeout, data.limits,
                         decoding=data.decoding)  # fmt: skip
    console.print(str(data.decoding))
    good = table["error"] == ""
    reasons = dict(zip(table["path"], table["error"], strict=True))
    excluded = table[~good].rename(columns={"error": "left_out"})  # an original must not be mixed with equalised files
    rows = add_results(excluded, lambda path: map(failure_result("", reasons[path]).get, RESULT_FIELDS), cache.spec)
    return table[good].drop(columns="error"), rows


def write(args: Prepare, table: "pd.DataFrame") -> None:
    """Write manifest.csv, failures.csv and prepared.json; print the counts. Raises UserError if no file can be used."""
    from tfdetect.data import manifest

    failures = table[table["error"] != ""]
    manifest.write(table, args.out / "manifest.csv")
    manifest.write(failures, args.out / "failures.csv")
    settings = config.settings_to_dict(args.data)
    counts = {"rows": len(table), "cached": len(table) - len(failures), "failed": len(failures)}
    summary = {"data": {name: settings[name] for name in PREPARED_KEYS}, "groups": table.attrs["groups"], "counts": counts}
    files.write_json(args.out / config.PREPARED_FILE, summary)
    dataset.print_count(table, "cached")
    dataset.print_failures(table)
    dataset.print_unchecked(table)
    dataset.require_usable(table)
    size = sum(files.disk_size(status.st_size) for _, status in files.walk(args.out))
    console.print(f"{printable(str(args.out))} takes {files.format_bytes(size)}")
