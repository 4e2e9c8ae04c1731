"""A run: detector + data + training settings. Flags and YAML are two spellings of it, checked by one parser."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfdetect.detector import Detector, find
from tfdetect.errors import UserError
from tfdetect.settings import PREPARED_KEYS, Data, Run, Train

RECIPE_KEYS = ("published", "dataset")  # keys of a recipe that say nothing of how it runs
PATH_FLAGS = ("--out", "--data.path", "--data.cache_dir", "--data.face_model", "--config")  # flags that take a path
VERSION = 1  # of config.yaml; one without a version is of the first
PREPARED_FILE = "prepared.json"  # in a folder that `prepare` made: the data settings of its clips


def parse(argv: Sequence[str], prog: str) -> Run:
    """`NAME [--flags]` or `--config FILE [--flags]` -> Run. A YAML becomes flags before the given ones: the last wins.

    Raises ValueError for an unknown detector, OSError or ValueError for a YAML that cannot be read; a wrong flag or key
    ends the process with tyro's message and exit code 2.
    """
    argv = list(argv)
    written: list[str] = []
    argv = [part for word in argv for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    if "--config" in argv:
        at = argv.index("--config")
        if at + 1 == len(argv):
            raise UserError("--config needs the path of a YAML file.")
        name, written = read_yaml(Path(argv[at + 1]))
        del argv[at : at + 2]
        argv = argv if argv and not argv[0].startswith("-") else [name, *argv]
    cls = find(argv[0])
    given = [*written, *argv[1:]]
    return parse_flags(Run[cls], given, f"{prog} {argv[0]}", default_run(cls, read_prepared_settings(_data_path(given))))  # type: ignore[valid-type]


def parse_flags(spec: Any, argv: Sequence[str], prog: str, default: Any = None, unknown: bool = False) -> Any:
    """Parse flags into the dataclass `spec`. Wrong ones end the process with tyro's message and exit code 2.

    `unknown`: flags that are not known are returned instead, as (settings, list of them).
    """
    import tyro

    _refuse_empty(argv)
    extra: dict[str, Any] = {} if default is None else {"default": default}
    extra |= {"return_unknown_args": True} if unknown else {}
    return tyro.cli(spec, prog=prog, args=list(argv), use_underscores=True, **extra)


def _refuse_empty(argv: Sequence[str]) -> None:
    """UserError for an empty path, such as an unset variable leaves: it would mean the folder that one happens to be in."""
    for before, word in zip(["", *argv], [*argv, ""], strict=True):
        flag, equals, value = word.partition("=")
        if (flag in PATH_FLAGS and equals and not value) or (not word and before in PATH_FLAGS):
            raise UserError(f"{flag or before} is empty; expected a path. The folder that you are in is '.'.")
    if any(not word and not before.startswith("--") for before, word in zip(["", *argv], argv, strict=False)):
        raise UserError("An empty word came where a path was expected. The folder that you are in is '.'.")


def default_run(cls: type[Detector], data: Mapping[str, Any] | None = None) -> Run:
    """The run that a bare `train.py NAME` makes: the common defaults, the detector's recipe and `data` over them."""
    parts: dict[str, dict[str, Any]] = {"data": {}, "train": {}}
    for key, value in cls.default_overrides.items():
        part, name = key.split(".")
        parts[part][name] = value
    return Run(detector=cls(), data=Data(**{**parts["data"], **(data or {})}), train=Train(**parts["train"]))


def read_prepared_settings(folder: Path | None) -> dict[str, Any]:
    """The data settings that a folder was prepared with, by verbs/prepare.py; {} for any other path."""
    if folder is None or not (folder / PREPARED_FILE).is_file():
        return {}
    from tfdetect.files import read_json

    found = read_json(folder / PREPARED_FILE, ["data"], "repeat the prepare command that made it.")["data"]
    if not isinstance(found, dict) or not {*found} <= {*PREPARED_KEYS}:
        raise UserError(f"{folder / PREPARED_FILE} is damaged or of another version; repeat the prepare command that made it.")
    model = found.get("face_model")
    return {"group": "auto", **found, "face_model": model and Path(model)}


def read_prepared_groups(folder: Path) -> dict[str, str]:
    """By which --data.group a prepared folder's files were grouped, and the sentence on it; {} for any other path."""
    from tfdetect.files import read_json

    if not (settings := read_prepared_settings(folder)):
        return {}
    said = read_json(folder / PREPARED_FILE, ["data"], "").get("groups")
    return {"group": settings["group"], **({"groups": said} if said else {})}


def _data_path(flags: Sequence[str]) -> Path | None:
    """What --data.path will be; the last one wins."""
    found = None
    for flag, following in zip(flags, [*flags[1:], None], strict=False):
        name, equals, value = flag.partition("=")
        if name == "--data.path":
            found = value if equals else following
    return None if found in (None, "None") else Path(found)


def read_yaml(path: Path) -> tuple[str, list[str]]:
    """A YAML -> name of its detector and flags. ValueError where it is no mapping or names no detector."""
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a ValueError: it is no UTF-8, or holds a date of no calendar
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}.") from error
    detector = tree.get("detector") if isinstance(tree, Mapping) else None
    if not isinstance(detector, Mapping) or "name" not in detector:
        raise UserError(f"{path} names no detector; expected 'detector:' with 'name:' below it, as in a config.yaml.")
    version = tree.get("version", VERSION)
    if version not in range(1, VERSION + 1):
        raise UserError(f"{path} is of version {version}; this tfdetect reads versions up to {VERSION}: take a newer one.")
    rest = {key: value for key, value in detector.items() if key != "name"}
    kept = {key: value for key, value in tree.items() if key not in (*RECIPE_KEYS, "version")}
    return str(detector["name"]), to_flags({**kept, "detector": rest})


def to_flags(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    """{"data": {"size": 64}, "resume": True} -> ["--data.size", "64", "--resume"]."""
    out: list[str] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            out += to_flags(value, f"{prefix}{key}.")
        elif isinstance(value, bool):
            out.append(f"--{prefix}{key}" if value else f"--{prefix}no_{key}")
        else:
            values = value if isinstance(value, list) else [value]
            out += [f"--{prefix}{key}", *("None" if v is None else str(v) for v in values)]
    return out


def run_to_dict(run: Run) -> dict[str, Any]:
    """What config.yaml stores: all that decides the result, absolute paths, and neither name nor place of the run."""
    kept = {part: settings_to_dict(getattr(run, part)) for part in ("detector", "data", "train")}
    kept["detector"] = {"name": run.detector.name, **kept["detector"]}
    return kept


def settings_to_dict(settings: Any) -> dict[str, Any]:
    """Field names -> values that YAML knows."""

    def simple(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value.absolute())
        if dataclasses.is_dataclass(value):
            return settings_to_dict(value)
        return list(value) if isinstance(value, tuple) else value

    return {item.name: simple(getattr(settings, item.name)) for item in dataclasses.fields(settings)}


def write_yaml(run: Run, path: Path) -> None:
    """Write the run as YAML that `--config` reads."""
    import yaml

    from tfdetect.files import write_bytes

    text = "python scripts/train.py --config THIS --name ANOTHER repeats the run"
    if run.train.threshold.startswith("pooled"):
        text = "python scripts/reproduce.py repeats the run, by its recipe; train.py takes no threshold that is read off the test"
    write_bytes(path, (f"# {text}\n" + yaml.safe_dump({"version": VERSION, **run_to_dict(run)}, sort_keys=False)).encode())
