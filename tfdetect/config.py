"""The configuration of a run. Flags and YAML are two forms of it, checked by the same parser."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfdetect import installation, plugins
from tfdetect.detector import REGISTRY, Detector, find
from tfdetect.errors import UserError, suggestion
from tfdetect.protocol_settings import STUDY_ONLY
from tfdetect.settings import CLIP_KEYS, PREPARED_KEYS, Data, Run, RunOf, Train

RECIPE_KEYS = ("published", "dataset")  # keys of a recipe that describe the experiment and are not settings
PATH_FLAGS = ("--out", "--data.path", "--data.cache_dir", "--data.face_model", "--config")  # flags that take a path
VERSION = 2  # of config.yaml
RENAMED_KEYS = {"train.rate": "train.learning_rate", "train.every": "train.eval_every",
                "detector.tail": "detector.score_direction"}  # fmt: skip  # from version 1 to version 2
# Of runs and prepared folders that do not say how videos were decoded or how frames became squares.
OLD_READING = {"fit": "squeeze", "crops": 1, "decoder": "auto", "check": "used"}
OLD_DATA = {**OLD_READING, "split": "70/10/20", "hold_out": ["auto", "none"],
            "near_duplicates": "keep", "folds": 0, "fold": None, "amount": 1.0}  # fmt: skip  # of runs that do not say these
FINE_TUNING_RATE = 0.1  # of the learning rate of the run that is fine-tuned
FINE_TUNING_SPLIT = "50/25/25"  # of few files, of which validation and test must have enough
# What a fine-tuning keeps of the data settings; layout, sources and groups were those of the old data set.
FINE_TUNING_DATA = (*CLIP_KEYS, "fake", "workers", "timeout", "limits", "cache_dir", "max_failed", "make_fakes", "keep_fakes")
PARSER_WORDS = re.compile(r"^Value error Error parsing (\w+: )?|^(Invalid choice|Unrecognized options) (?=invalid|Unrecognized)|"
                          r" (Argument helptext: .*)?For full helptext, .*")  # around its message
_redirecting = threading.RLock()
PREPARED_FILE = "prepared.json"  # data settings of the clips in a folder made by `prepare`


def parse(argv: Sequence[str], verb: str) -> Run:
    """Parse `NAME [--flags]` or `--config FILE [--flags]`; flags override the YAML.

    Raises UserError for an unknown detector or a YAML that is not valid, and OSError if it cannot be read. For a wrong
    flag or key, prints an error message and exits with code 2.
    """
    argv = [part for word in argv for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    yaml_flags: list[str] = []
    if "--config" in argv:
        index = argv.index("--config")
        if index + 1 == len(argv):
            raise UserError("--config needs the path of a YAML file.")
        name, yaml_flags = read_yaml(Path(argv[index + 1]))
        del argv[index : index + 2]
        argv = argv if argv and not argv[0].startswith("-") else [name, *argv]
    elif old := _last_value(argv, "--from") or _last_value(argv, "--from_run"):
        return _parse_fine_tuning(argv, verb, Path(old))
    detector = find(argv[0])
    flags = [*yaml_flags, *argv[1:]]  # the last of two equal flags wins
    defaults = default_run(detector, read_prepared_settings(_data_path(flags)))
    return parse_flags(RunOf[detector], flags, f"{verb} {argv[0]}", defaults)  # type: ignore[valid-type]  # a class at run time


def _parse_fine_tuning(argv: Sequence[str], verb: str, folder: Path) -> Run:
    """Parse `[NAME] --from RUN [--flags]`, where the settings of that run are the defaults."""
    if not (folder / "config.yaml").exists():
        raise UserError(f"--from {folder} is no run: it has no config.yaml. Give the folder of one, such as saved_models/cnn.")
    old = parse(["--config", str(folder / "config.yaml")], verb)
    given = [] if argv[0].startswith("-") else [argv[0]]
    if given and find(given[0]).name != old.detector.name:
        raise UserError(f"{folder} is a {old.detector.name}, so --from cannot make a {given[0]} of it: omit {given[0]}.")
    rate = old.train.learning_rate * (1 if old.detector.caches_features else FINE_TUNING_RATE)
    kept = {name: getattr(old.data, name) for name in FINE_TUNING_DATA}
    # The flags of this command give --data.path; until then, the run has none to fine-tune on.
    train = dataclasses.replace(old.train, learning_rate=rate)
    defaults = dataclasses.replace(old, data=Data(**kept, split=FINE_TUNING_SPLIT), train=train, from_run=None, rehearse="auto")
    flags = argv[len(given) :]
    return parse_flags(RunOf[type(old.detector)], flags, f"{verb} {old.detector.name}", defaults)  # type: ignore[misc]


def parse_flags(spec: Any, argv: Sequence[str], verb: str, default: Any = None, unknown: bool = False) -> Any:
    """Parse flags into the dataclass `spec`. For a wrong flag, prints an error message and exits with code 2.

    With `unknown`, returns a tuple of the settings and the list of flags that `spec` does not have. Raises UserError for
    an empty path.
    """
    import tyro

    _refuse_empty_paths(argv)
    options: dict[str, Any] = {} if default is None else {"default": default}
    options |= {"return_unknown_args": True} if unknown else {}
    return tyro.cli(spec, prog=installation.command(*verb.split()), args=list(argv), use_underscores=True, **options)


def _refuse_empty_paths(argv: Sequence[str]) -> None:
    """Raise UserError for an empty path, often an unset shell variable, which would mean the current folder."""
    for before, word in zip(["", *argv], [*argv, ""], strict=True):
        flag, equals, value = word.partition("=")
        if (flag in PATH_FLAGS and equals and not value) or (not word and before in PATH_FLAGS):
            raise UserError(f"{flag or before} is empty; expected a path. Use '.' for the current folder.")
    if any(not word and not before.startswith("--") for before, word in zip(["", *argv], argv, strict=False)):
        raise UserError("Got an empty argument; expected a path. Use '.' for the current folder.")


def parse_keywords(default: Any, keywords: Mapping[str, Any], verb: str) -> Any:
    """Return the settings `default`, a dataclass, with those replaced that the keywords of a Python call name.

    Raises UserError as `keywords_to_flags` does, and for a value that the parser of the flags refuses.
    """
    flags = keywords_to_flags(default, keywords)
    with parser_errors():
        return parse_flags(type(default), flags, verb, default)


def data_path(data: str | Path | None) -> dict[str, Any]:
    """Return the keyword that names a data set; none for None, which keeps the default."""
    return {} if data is None else {"data.path": data}


def keywords_to_flags(settings: Any, keywords: Mapping[str, Any]) -> list[str]:
    """Convert the keywords of a Python call to flags of these settings, a dataclass: {"size": 64} -> ["--data.size", "64"].

    A keyword is the name of a flag, such as data.size, or its last part; the flag with the fewest parts wins. Raises UserError
    for a name that no flag or several have, and for a flag that several keywords name.
    """
    names = _flag_names(settings)
    flags: list[str] = []
    given: dict[str, str] = {}
    for keyword, value in keywords.items():
        matches = [name for name in names if f".{name}".endswith(f".{keyword}")]
        shortest = min((name.count(".") for name in matches), default=0)
        matches = [name for name in matches if name.count(".") == shortest]
        if len(matches) > 1:
            raise UserError(f"{keyword} may mean {' or '.join(matches)}: give one of these names.")
        if not matches:
            hint = suggestion(keyword, [*names, *(name.rpartition(".")[2] for name in names)])
            raise UserError(f"There is no setting {keyword!r}.{hint or ' Settings: ' + ', '.join(names) + '.'}")
        if (other := given.setdefault(matches[0], keyword)) != keyword:
            raise UserError(f"{other} and {keyword} are the same setting: give one of them.")
        flags += _to_words(matches[0], value)
    return flags


def _to_words(name: str, value: Any) -> list[str]:
    """Return the words of a command line that give a flag this value, which may be of NumPy, a path, or several of any kind.

    Raises UserError for an item of several that would be read as a flag.
    """
    section, dot, last = name.rpartition(".")
    value = value.tolist() if hasattr(value, "tolist") else value  # of NumPy and pandas
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        value = list(value)
        if wrong := [item for item in value if str(item).startswith("--")]:
            raise UserError(f"{name} must not contain {wrong[0]!r}, which begins like a flag.")
    elif isinstance(value, str | bytes | os.PathLike):
        value = os.fsdecode(value)
        if value.startswith("-"):
            return [f"--{name}={value}"]  # as a word of its own it would be taken for a flag
    return to_flags({last: value}, f"{section}{dot}")


def _flag_names(settings: Any, prefix: str = "") -> list[str]:
    """Return the names of all flags of a dataclass: data.size, data.limits.pixels, name, ..."""
    names = []
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        names += _flag_names(value, f"{prefix}{item.name}.") if dataclasses.is_dataclass(value) else [f"{prefix}{item.name}"]
    return names


@contextlib.contextmanager
def parser_errors() -> Iterator[None]:
    """Raise what the parser prints before it ends the program as UserError. One thread at a time: sys.stdout belongs to all."""
    printed = io.StringIO()
    try:
        with _redirecting, contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            yield
    except SystemExit as error:
        text = " ".join(re.sub(r"[^\w\s!-~]|-{3,}", " ", printed.getvalue()).split())  # without the box around it
        raise UserError(PARSER_WORDS.sub("", text) or "The settings are not valid.") from error
    print(printed.getvalue(), end="", file=sys.stderr)  # such as a plugin that was left out


def default_run(detector: type[Detector], data: Mapping[str, Any] | None = None) -> Run:
    """Return the run of a bare `tfdetect train NAME`: the common defaults, overridden by those of the detector and by `data`."""
    sections: dict[str, dict[str, Any]] = {"data": {}, "train": {}}
    known = {f"{section}.{item.name}" for section, cls in (("data", Data), ("train", Train)) for item in dataclasses.fields(cls)}
    for key, value in detector.default_overrides.items():
        if key not in known:
            raise UserError(f"default_overrides of the detector {detector.name} sets {key!r}, which is not a setting of a run.")
        section, name = key.split(".")
        sections[section][name] = value
    return Run(detector=detector(), data=Data(**{**sections["data"], **(data or {})}), train=Train(**sections["train"]))


def read_prepared_settings(folder: Path | None) -> dict[str, Any]:
    """Return the data settings with which `prepare` made a folder, {} for any other path.

    Raises UserError if the file that holds them is damaged.
    """
    if folder is None or not (folder / PREPARED_FILE).is_file():
        return {}
    from tfdetect.files import read_json

    hint = "repeat the prepare command that made it."
    settings = read_json(folder / PREPARED_FILE, ["data"], hint)["data"]
    if not isinstance(settings, dict) or not {*settings} <= {*PREPARED_KEYS}:
        raise UserError(f"{folder / PREPARED_FILE} is damaged or from another version of tfdetect: {hint}")
    model = settings.get("face_model")
    return {"group": "auto", **OLD_READING, **settings, "face_model": model and Path(model)}


def read_prepared_groups(folder: Path) -> dict[str, str]:
    """Return the --data.group of a prepared folder and the sentence that describes its groups; {} for any other path."""
    from tfdetect.files import read_json

    if not (settings := read_prepared_settings(folder)):
        return {}
    description = read_json(folder / PREPARED_FILE, ["data"], "").get("groups")
    return {"group": settings["group"], **({"groups": description} if description else {})}


def _data_path(flags: Sequence[str]) -> Path | None:
    """Return the value of the last --data.path, None if there is none."""
    path = _last_value(flags, "--data.path")
    return None if path in (None, "None") else Path(path)


def _last_value(flags: Sequence[str], wanted: str) -> str | None:
    """Return the value of the last flag of this name, None if there is none."""
    found = None
    for flag, following in zip(flags, [*flags[1:], None], strict=False):
        name, equals, value = flag.partition("=")
        if name == wanted:
            found = value if equals else following
    return found


def read_yaml(path: Path) -> tuple[str, list[str]]:
    """Read a YAML file as the name of its detector and a list of flags.

    Imports the plugins that the file names. Raises UserError as `load_yaml` does, for a file of another version, and for a
    plugin that cannot be imported.
    """
    content = load_yaml(path)
    version = content.get("version", VERSION)
    if version == 1:
        renamed = ", ".join(f"{old} to {new}" for old, new in RENAMED_KEYS.items())
        raise UserError(f"{path} was written by an older tfdetect (config version 1): train the run again, or rename its keys "
                        f"({renamed}) and set its version to {VERSION}.")  # fmt: skip
    if version != VERSION:
        raise UserError(f"{path} has config version {version!r}, but this tfdetect reads version {VERSION}: update tfdetect.")
    saved = content.get("plugins") or []
    if not isinstance(saved, list) or not all(isinstance(file, str) for file in saved):
        raise UserError(f"{path}: plugins must be a list of paths of Python files, got {saved!r}.")
    run = path.parent if "version" in content else None
    named = [(Path() if run else path.parent) / Path(file).expanduser() for file in saved]
    plugins.load_saved(named, content["detector"]["name"] in REGISTRY, run)
    options = {key: value for key, value in content["detector"].items() if key != "name"}
    settings = {key: value for key, value in content.items() if key not in (*RECIPE_KEYS, "version", "plugins", "adapted")}
    if "version" in content and isinstance(settings.get("data"), Mapping):  # a run, which states all settings that it knew
        settings["data"] = {**OLD_DATA, **settings["data"]}
    if "published" in content:  # a recipe, whose figures are of detectors that were trained on all sources
        settings["data"] = {"hold_out": "none", "near_duplicates": "keep", **(settings.get("data") or {})}
    return str(content["detector"]["name"]), to_flags({**settings, "detector": options})


def load_yaml(path: Path) -> Mapping[str, Any]:
    """Load the YAML file of a run, of any version. Raises UserError if it is not valid YAML or names no detector."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a date that does not exist
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    detector = content.get("detector") if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not isinstance(detector, Mapping) or "name" not in detector:
        raise UserError(f"{path} names no detector; expected 'detector:' with 'name:' below it, as in the config.yaml of a run.")
    return content


def to_flags(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Convert nested settings to flags: {"data": {"size": 64}, "resume": True} -> ["--data.size", "64", "--resume"]."""
    flags: list[str] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flags += to_flags(value, f"{prefix}{key}.")
        elif isinstance(value, bool):
            flags.append(f"--{prefix}{key}" if value else f"--{prefix}no_{key}")
        else:
            values = value if isinstance(value, list | tuple) else [value]
            flags += [f"--{prefix}{key}", *("None" if item is None else str(item) for item in values)]
    return flags


def run_to_dict(run: Run) -> dict[str, Any]:
    """Return the content of config.yaml: all settings that affect the result of a single training, without the name and folder
    of the run."""
    origin = {"from": str(run.from_run.absolute()), "rehearse": run.rehearse} if run.from_run else {}
    return {**origin, **sections(run)}


def sections(run: Run) -> dict[str, dict[str, Any]]:
    """Return the settings of a run by section: detector, data, train and evaluate."""
    found = {name: settings_to_dict(getattr(run, name)) for name in ("detector", "data", "train", "evaluate")}
    for section, names in STUDY_ONLY.items():
        found[section] = {name: value for name, value in found[section].items() if name not in names}
    found["detector"] = {"name": run.detector.name, **found["detector"]}
    return found


def settings_to_dict(settings: Any) -> dict[str, Any]:
    """Convert a dataclass to types that YAML and JSON have; paths become absolute."""

    def convert(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value.absolute())
        if dataclasses.is_dataclass(value):
            return settings_to_dict(value)
        return list(value) if isinstance(value, tuple) else value

    return {item.name: convert(getattr(settings, item.name)) for item in dataclasses.fields(settings)}


def write_yaml(run: Run, path: Path) -> None:
    """Write the run as a YAML file for `--config`."""
    import yaml

    from tfdetect.files import write_bytes

    repeat = installation.command("train", "--config", "THIS_FILE", "--name", "NEW_NAME")
    if run.train.threshold.startswith("pooled"):
        repeat = f"{installation.command('reproduce', 'RECIPE')}; train accepts no threshold that uses test scores"
    plugin_files = {"plugins": [str(file) for file in plugins.loaded_files()]} if plugins.loaded_files() else {}
    content = yaml.safe_dump({"version": VERSION, **plugin_files, **run_to_dict(run)}, sort_keys=False)
    write_bytes(path, f"# To repeat this run: {repeat}\n{content}".encode())
