"""prepare: a data set, checked, decoded and ready for training, in one folder."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from tfdetect import config, files
from tfdetect.errors import UserError
from tfdetect.settings import PREPARED_KEYS, ClipSettings
from tfdetect.workflow import dataset, output_paths
from tfdetect.workflow.console import console, progress, say_command

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache


@dataclass(frozen=True)
class Prepare:
    """Decode a data set once into a folder that is itself a data path: train.py DETECTOR --data.path FOLDER.

    Interrupted, the same command goes on. Files that cannot be used are counted and listed in failures.csv.
    """

    path: tyro.conf.Positional[Path]
    """Folder of a public data set or with real/ and fake/ in it, or a manifest."""
    out: Path
    """The folder to make, such as prepared/celeb. It is no cache: of equalised files it holds the only copy, and trained from it
    the originals need not be kept."""
    data: ClipSettings = field(default_factory=ClipSettings)
    equalise: bool = False
    """Crop and encode all files alike first, so that no container tells the label; see docs/equalise.md."""
    runner: str = "local"
    """local: processes of this machine. beam: Apache Beam on this machine. Or one of Beam's runners by name, such as
    FlinkRunner; further flags then go to Beam."""


def main(argv: Sequence[str]) -> int:
    """Parse and prepare."""
    asked, further = config.parse_flags(Prepare, argv, "prepare.py", unknown=True)
    output_paths.require_prepared(asked.out, asked.path)
    if further and asked.runner == "local":
        config.parse_flags(Prepare, argv, "prepare.py")  # which says what is wrong with them
    import pandas as pd  # not before, so that --help stays quick

    table, left, cache = read(asked)
    if asked.equalise:
        table, failures = equalised(asked, table, cache)
        left = pd.concat([left, failures])
    write(asked, dataset.append_excluded(decode(asked, table, cache, further), left).sort_index())
    return 0


def read(asked: Prepare) -> "tuple[pd.DataFrame, pd.DataFrame, Cache]":
    """The manifest with absolute paths, for the folder may be used from anywhere; the rows left out, which copies contradict;
    and the cache inside the folder."""
    from tfdetect.data.prepare.clip_cache import Cache

    data = asked.data
    table = dataset.read_manifest(asked.path, data)
    table["path"] = [str(Path(path).absolute()) for path in table["path"]]
    kept_settings = {name: getattr(data, name) for name in PREPARED_KEYS}
    old = config.read_prepared_settings(asked.out)
    if old and old != kept_settings:
        raise UserError(f"{asked.out} was prepared with other settings: {old}. Give another --out, or delete it.")
    cache = Cache(asked.out, dataset.clip_spec(data, asked.out), data.cache)
    return *dataset.separate_excluded(table, cache, data.workers), cache


def decode(asked: Prepare, table: "pd.DataFrame", cache: "Cache", options: Sequence[str]) -> "pd.DataFrame":
    """The prepared manifest, by this machine's processes or by Beam."""
    from tfdetect.data.prepare.beam import LOCAL, Beam
    from tfdetect.data.prepare.decode import locally, prepare

    data = asked.data
    beam = Beam(asked.out / "shards", LOCAL if asked.runner == "beam" else asked.runner, options)
    with progress("Decoding", len(table)) as step:
        return prepare(table, cache, data.workers, step, data.timeout, locally if asked.runner == "local" else beam.results)


def equalised(asked: Prepare, table: "pd.DataFrame", cache: "Cache") -> "tuple[pd.DataFrame, pd.DataFrame]":
    """The rows of the files made alike, and the prepared rows of those that could not be; their index keeps the order."""
    from tfdetect.data.equalise import equalise
    from tfdetect.data.prepare.clip_cache import failed
    from tfdetect.data.prepare.decode import DETAILS, detailed

    data = asked.data
    with progress("Equalising", len(table)) as step:
        half = partial(step, advance=0.5)  # each file is looked at, then made
        table = equalise(table, asked.out.absolute() / "equalised", data.workers, half, data.timeout, data.limits)
    good = table["error"] == ""
    reasons = dict(zip(table["path"], table["error"], strict=True))
    left = table[~good].rename(columns={"error": "left_out"})  # as it is, it must not stand among those made alike
    return table[good].drop(columns="error"), detailed(left, lambda path: map(failed("", reasons[path]).get, DETAILS), cache.spec)


def write(asked: Prepare, table: "pd.DataFrame") -> None:
    """manifest.csv, failures.csv and prepared.json, and what a user should know."""
    from tfdetect.data import manifest

    failures = table[table["error"] != ""]
    manifest.write(table, asked.out / "manifest.csv")
    manifest.write(failures, asked.out / "failures.csv")
    kept_settings = config.settings_to_dict(asked.data)
    counts = {"rows": len(table), "cached": len(table) - len(failures), "failed": len(failures)}
    kept = {"data": {name: kept_settings[name] for name in PREPARED_KEYS}, "groups": table.attrs["groups"], "counts": counts}
    files.write_json(asked.out / config.PREPARED_FILE, kept)
    dataset.print_count(table, "cached")
    dataset.print_failures(table)
    dataset.require_usable(table)
    console.print(f"\nPrepared  {asked.out}\nNext:")
    say_command("train.py", "cnn", "--data.path", asked.out)
