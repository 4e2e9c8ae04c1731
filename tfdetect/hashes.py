"""SHA256SUMS: the hashes of the files that decide a run's verdicts, in the format of `sha256sum`, which can check them, too.

They tell damage, and files of another run or version, from what a command wrote. They do not protect against somebody who may
write to the folder: keep the hash of SHA256SUMS elsewhere for that, which is what `model_hash` returns.
"""

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tfdetect import installation, versions
from tfdetect.errors import UserError
from tfdetect.files import printable, write_bytes

NAME = "SHA256SUMS"
FILES = ("config.yaml", "model.keras", "calibration.json", "familiarity.npz", "equalised.json", "faces.json", "face_model.onnx")
LINE = re.compile("[0-9a-f]{64}  .+")
THREADS = 2  # model.keras and the variables of the SavedModel are the large files
MAX_LISTED = 4  # files in a message


def write(folder: Path) -> None:
    """Write SHA256SUMS of the run, or of the version of a run, in `folder`."""
    write_bytes(folder / NAME, _lines(folder).encode())


def model_hash(folder: Path) -> str:
    """Return the SHA-256 in hexadecimal of what SHA256SUMS should hold: it stands for all files that decide a verdict."""
    return hashlib.sha256(_lines(folder).encode()).hexdigest()


def check(folder: Path, saved_model: bool = True) -> None:
    """Raise UserError, which names the files, unless those of a run are the ones in its SHA256SUMS; `saved_model` says whether
    its SavedModel counts.

    A run of an older version has no such file, and passes; so does one whose SavedModel was removed, where model.keras is used.
    """
    if not (folder / NAME).exists():
        return
    own = f"{versions.number(folder)}/"
    counts = saved_model and (folder / own).is_dir()
    states = {name: state for name, state in _differences(folder).items() if counts or not name.startswith(own)}
    if not states:
        return
    listed = [f"{printable(name)} ({state})" for name, state in states.items()]
    more = f" and {len(listed) - MAX_LISTED} more" if len(listed) > MAX_LISTED else ""
    exported = all(name.startswith(own) for name in states)
    renew = installation.command("export", folder, *([] if exported else ["--trust"]))
    fix = f"{renew} writes the SavedModel again" if exported else f"if the change is yours, {renew} accepts it"
    raise UserError(f"{folder} differs from its {NAME}: {', '.join(listed[:MAX_LISTED])}{more}. Copy the run again; {fix}. "
                    "--trust uses it as it is.")


def _differences(folder: Path) -> dict[str, str]:
    """Map the name of each file that is not the one in SHA256SUMS to "changed", "missing" or "added"; or that to "damaged"."""
    lines = (folder / NAME).read_text(errors="replace").splitlines()
    if not all(LINE.fullmatch(line) for line in lines):
        return {NAME: "damaged"}
    stored, found = {line[66:]: line[:64] for line in lines}, _hashes(folder)
    return {name: "missing" if name not in found else "added" if name not in stored else "changed"
            for name in sorted({*stored, *found}) if stored.get(name) != found.get(name)}  # fmt: skip


def _lines(folder: Path) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in _hashes(folder).items())


def _hashes(folder: Path) -> dict[str, str]:
    names = list(_names(folder))
    with ThreadPoolExecutor(THREADS) as pool:  # hashing releases the interpreter's lock
        return dict(zip(names, pool.map(lambda name: _digest(folder / name), names), strict=True))


def _names(folder: Path) -> Iterator[str]:
    """Yield the names of the files that decide a verdict, relative to the run's folder, those of the SavedModel first."""
    saved = folder / str(versions.number(folder))
    yield from sorted(path.relative_to(folder).as_posix() for path in saved.rglob("*") if path.is_file())
    yield from (name for name in FILES if (folder / name).is_file())


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
