"""Where a verb's results go when nobody says: names that tell what was looked at, and never the same for different data."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfdetect.errors import UserError

LONGEST = 60  # letters of a name
MARK = 6  # hexadecimal digits, of the path and whatever else tells data apart
PREPARED = re.compile(r"(manifest|failures)\.csv|prepared\.json|equalised|shards|features|v\d+-.*|.*\.onnx|\.part-.*")
EVALUATED = ("predictions.csv", "metrics.json", "shortcuts.json", "report.html", "plots", "Results.csv", "Final_Prediction.txt")


def named(path: Path, *how: Any) -> str:
    """test-1a2b3c: a readable name of a data set's path, and a mark of where it lies and of `how` it is read.

    The same command gives the same name; other data, however alike they are called, give another.
    """
    whole = path.resolve()
    known = json.dumps([os.fsencode(whole).hex(), *how], default=str)
    return f"{slug(whole.stem if whole.is_file() else whole.name) or 'root'}-{hashlib.sha256(known.encode()).hexdigest()[:MARK]}"


def slug(text: str) -> str:
    """The plain letters, digits, dots, - and _ of a text; others become _."""
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII).strip("._-")[:LONGEST]


def evaluation(asked: Any, names: Sequence[str] = (), corrupted: str = "") -> Path:
    """Where `asked`, an Evaluate, is answered: its --out if that is free for it, else a folder in `evaluations/` of the first
    run, after the runs' `names` where they are several, the files and what these went through."""
    if asked.out:
        _require_evaluation(asked.out)
        return Path(asked.out)
    data, runs = asked.data, [run.resolve() for run in asked.runs]
    how = [list(data.sources), *([data.layout, list(data.fake)] if data.path else [])]
    apart = [list(map(str, runs))] if len({run.parent for run in runs}) > 1 else []
    own = "" if names else "own_test"
    if data.path or data.sources or apart:
        own = named(data.path or Path("own_test"), *how, *apart)
    parts = ("+".join(names), own, *map(slug, data.sources), corrupted)
    return Path(asked.runs[0]) / "evaluations" / "-".join(filter(None, parts))


def require_prepared(folder: Path, data: Path) -> None:
    """UserError unless the folder is new, empty, or holds nothing but what `prepare` wrote of other files than its own."""
    there = sorted(os.listdir(folder)) if folder.is_dir() else []
    others = [name for name in there if not PREPARED.fullmatch(name)]
    own = data.resolve() in (folder.resolve(), *(folder.resolve() / name for name in there))
    if others or own:
        what = f"holds {others[0]}, which prepare did not write" if others else "is where the files to prepare are named"
        raise UserError(f"--out {folder} {what}: give a folder that is new, empty or was prepared before.")


def _require_evaluation(folder: Path) -> None:
    """UserError unless the folder is new, empty, or holds nothing but an earlier evaluation."""
    there = sorted(os.listdir(folder)) if folder.is_dir() else []
    if others := [name for name in there if name not in EVALUATED and not name.startswith(".part-")]:
        raise UserError(f"--out {folder} holds {others[0]}, which no evaluation wrote: give a folder that is new, empty or an "
                        "earlier evaluation's, or leave --out away.")  # fmt: skip
