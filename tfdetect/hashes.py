"""SHA256SUMS: the hashes of the files that decide a run's verdicts, in the format of `sha256sum`, which can check them, too.

They tell damage, and files of another run or version, from what a command wrote. They do not protect against somebody who may
write to the folder: keep the hash of SHA256SUMS elsewhere for that, which is what `model_hash` returns.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tfdetect import installation, versions
from tfdetect.errors import UserError
from tfdetect.files import printable, sha256, write_bytes

NAME = "SHA256SUMS"
FILES = ("config.yaml", "model.keras", "calibration.json", "familiarity.npz", "equalised.json", "faces.json", "face_model.onnx")
LINE = re.compile("[0-9a-f]{64}  .+")
THREADS = 2  # model.keras and the variables of the SavedModel are the large files
MAX_LISTED = 4  # files in a message


def write(folder: Path) -> None:
    """Write SHA256SUMS of the run, or of the version of a run, in `folder`."""
    write_bytes(folder / NAME, lines(of_files(folder)).encode())


def model_hash(folder: Path) -> str:
    """Return the SHA-256 in hexadecimal of what SHA256SUMS should hold: it stands for all files that decide a verdict."""
    return of_text(lines(of_files(folder)))


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
    stated = (folder / NAME).read_text(errors="replace").splitlines()
    if not all(LINE.fullmatch(line) for line in stated):
        return {NAME: "damaged"}
    stored, found = {line[66:]: line[:64] for line in stated}, of_files(folder)
    return {name: "missing" if name not in found else "added" if name not in stored else "changed"
            for name in sorted({*stored, *found}) if stored.get(name) != found.get(name)}  # fmt: skip


def lines(found: Mapping[str, str]) -> str:
    """Return the lines of SHA256SUMS for what `of_files` returns."""
    return "".join(f"{digest}  {name}\n" for name, digest in found.items())


def of_text(text: str) -> str:
    """Return the SHA-256 of a text in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def of_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 in hexadecimal of each file that decides a verdict, by its name relative to the run's folder."""
    names = list(_names(folder))
    with ThreadPoolExecutor(THREADS) as pool:  # hashing releases the interpreter's lock
        return dict(zip(names, pool.map(lambda name: sha256(folder / name), names), strict=True))


def _names(folder: Path) -> Iterator[str]:
    """Yield the names of the files that decide a verdict, relative to the run's folder, those of the SavedModel first."""
    saved = folder / str(versions.number(folder))
    yield from sorted(path.relative_to(folder).as_posix() for path in saved.rglob("*") if path.is_file())
    yield from (name for name in FILES if (folder / name).is_file())
