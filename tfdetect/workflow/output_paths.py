"""Default output folders, whose names differ for different data, and checks that --out overwrites nothing else."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect.errors import UserError

if TYPE_CHECKING:
    from tfdetect.workflow.test_files import Evaluate

MAX_NAME_LENGTH = 60
DIGEST_DIGITS = 6  # hexadecimal
PREPARED = re.compile(r"(manifest|failures)\.csv|prepared\.json|equalised|shards|features|v\d+-.*|.*\.onnx|\.part-.*")
EVALUATED = ("predictions.csv", "metrics.json", "shortcuts.json", "report.html", "report.md", "plots", "Results.csv",
             "Final_Prediction.txt", "robustness.csv", "robustness_flips.csv", "robustness_scores.jsonl", "scores.jsonl",
             "training_overlap.csv", "compare.json")


def unique_name(path: Path, *reading: Any) -> str:
    """Return a name such as test-1a2b3c: the name of a data set, and a digest of its absolute path and of how it is read.

    The same command always gives the same name; data elsewhere, or read in another way, get another one.
    """
    resolved = path.resolve()
    key = json.dumps([os.fsencode(resolved).hex(), *reading], default=str)
    digest = hashlib.sha256(key.encode()).hexdigest()[:DIGEST_DIGITS]
    return f"{slug(resolved.stem if resolved.is_file() else resolved.name) or 'root'}-{digest}"


def slug(text: str) -> str:
    """Return the ASCII letters, digits, dots, - and _ of a text; other characters become _."""
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII).strip("._-")[:MAX_NAME_LENGTH]


def evaluation_folder(args: "Evaluate", names: Sequence[str] = (), corruption: str = "") -> Path:
    """Return the folder for the results of an evaluation.

    Return --out if it is given, else a folder in `evaluations/` of the first run, named after the `names` of several runs, the
    data, its sources, the corruption and --evaluate.*. Raises UserError if --out holds anything but an earlier evaluation.
    """
    if args.out:
        _require_evaluation(args.out)
        return Path(args.out)
    data, runs = args.data, [run.resolve() for run in args.runs]
    reading = [list(data.sources), *([data.layout, list(data.fake)] if data.path else [])]
    scattered = [list(map(str, runs))] if len({run.parent for run in runs}) > 1 else []  # equal names may mean different runs
    data_name = "" if names else "own_test"
    if data.path or data.sources or scattered:
        data_name = unique_name(data.path or Path("own_test"), *reading, *scattered)
    parts = ("+".join(names), data_name, *map(slug, data.sources), corruption, slug(args.evaluate.aggregate or ""),
             *(f"{name}-{value}" for name, value in args.evaluate.verdicts.items()))  # fmt: skip
    return Path(args.runs[0]) / "evaluations" / "-".join(filter(None, parts))


def judged_folder(args: "Evaluate") -> Path:
    """Return the folder for the results of --predictions or --model: --out, else one in `evaluations/` named after the file.

    Raises UserError if --out holds anything but an earlier evaluation.
    """
    if args.out:
        _require_evaluation(args.out)
        return Path(args.out)
    data = (args.data.path.resolve(), args.data) if args.data.path else ()
    file = args.predictions or Path(str(args.model).partition(".py:")[0].removesuffix(".py") + ".py")
    return Path("evaluations") / unique_name(file, args.model, args.columns, *data)


def require_prepared(folder: Path, data: Path) -> None:
    """Raise UserError unless the folder is new, empty, or holds only what `prepare` wrote; nor may `data` be it or lie in it."""
    existing = sorted(os.listdir(folder)) if folder.is_dir() else []
    others = [name for name in existing if not PREPARED.fullmatch(name)]
    holds_data = data.resolve() in (folder.resolve(), *(folder.resolve() / name for name in existing))
    if others or holds_data:
        problem = f"holds {others[0]}, which prepare did not write" if others else "holds the data set to prepare"
        raise UserError(f"--out {folder} {problem}: give a folder that is new, empty or was prepared before.")


def _require_evaluation(folder: Path) -> None:
    """Raise UserError unless the folder is new, empty, or holds only an earlier evaluation."""
    existing = sorted(os.listdir(folder)) if folder.is_dir() else []
    if others := [name for name in existing if name not in EVALUATED and not name.startswith(".part-")]:
        raise UserError(f"--out {folder} holds {others[0]}, which no evaluation wrote: give a folder that is new, empty or holds "
                        "an earlier evaluation, or omit --out.")  # fmt: skip
