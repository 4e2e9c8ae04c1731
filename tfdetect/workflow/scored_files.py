"""Score files with a function of the user's own, in processes that may crash; each score is kept as soon as it is there."""

import ast
import hashlib
import importlib.util
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tfdetect import plugins
from tfdetect.data import worker_pool
from tfdetect.errors import UserError
from tfdetect.files import atomic_write, plural, size_and_mtime
from tfdetect.workflow.console import console, progress

NAMES = ("predict", "score")  # of the function, where none is given
Scores = dict[str, float]  # path -> finite score


@dataclass(frozen=True)
class ScoringFunction:
    """A function of a Python file from the path of a file to a score, higher for fakes. Called, it returns (score, ""), or
    (NaN, reason) if it fails on that file."""

    file: Path
    name: str
    devices: str | None = None
    """CUDA_VISIBLE_DEVICES for it; processes that decode files, which it shares, have no GPU."""

    @classmethod
    def of(cls, text: str) -> "ScoringFunction":
        """Return the function that FILE.py:NAME names; without a name it is predict, score, or the only one of the file.

        Raises UserError if there is no such file or function.
        """
        path, _, name = text.partition(":") if ".py:" in text else (text, "", "")
        file = Path(path).expanduser().resolve()
        if not file.is_file():
            raise UserError(f"There is no file {path!r}; --model takes FILE.py or FILE.py:FUNCTION.")
        try:
            body = ast.parse(file.read_bytes()).body
        except (SyntaxError, ValueError) as error:
            raise UserError(f"{file} is not valid Python: {plugins.reason(error)}.") from error
        public = [item.name for item in body if isinstance(item, ast.FunctionDef) and not item.name.startswith("_")]
        found = [each for each in NAMES if each in public] or public
        if not name and (not found or (len(found) > 1 and found[0] not in NAMES)):
            seen = f"it defines {', '.join(found)}" if found else "it defines no function"
            raise UserError(f"{file} has no function predict(path), {seen}: name one with --model {path}:FUNCTION.")
        return cls(file, name or found[0], os.environ.get("CUDA_VISIBLE_DEVICES"))

    @property
    def key(self) -> str:
        """Identifies the content of the file and the function: scores of another key are not used."""
        return f"{hashlib.sha256(self.file.read_bytes()).hexdigest()}:{self.name}"

    def __call__(self, path: str) -> tuple[float, str]:
        function = _load(self)
        try:
            value = function(path)
            score = float(value.item() if hasattr(value, "item") else value)
        except Exception as error:
            return math.nan, f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
        return (score, "") if math.isfinite(score) else (math.nan, f"the score is {score}")


@lru_cache(1)
def _load(function: ScoringFunction) -> Callable[[str], Any]:
    """Import the file, which may import others beside it, once in each process."""
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    os.environ |= {} if function.devices is None else {"CUDA_VISIBLE_DEVICES": function.devices}
    sys.path.insert(0, str(function.file.parent))
    spec = importlib.util.spec_from_file_location(f"judged_{function.file.stem}", function.file)
    if spec is None or spec.loader is None:
        raise UserError(f"{function.file} is not a Python file: its name must end in .py.")
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"{function.file} cannot be imported: {plugins.reason(error)}.") from error
    found = getattr(module, function.name, None)
    if not callable(found):
        raise UserError(f"{function.file} has no function {function.name}; name one with --model FILE.py:FUNCTION.")
    return found  # type: ignore[no-any-return]


def score_files(function: ScoringFunction, paths: Sequence[str], store: Path, workers: int | None = None,
                seconds: float | None = None) -> tuple[Scores, dict[str, str]]:  # fmt: skip
    """Return the score of each file, and the reason for each that has none.

    Scores are appended to `store`, JSON lines, one by one; those of unchanged files and the same function are taken from there.
    By default one process calls the function, since a model may fill the memory; a file may take `seconds`, by default any time.
    """
    scores = read_store(store, function.key, paths)
    missing, errors = [path for path in paths if path not in scores], {}
    if scores:
        console.print(f"{plural(len(scores), 'file')} scored before; the scores are in {store}")
    with store.open("a", encoding="ascii") as file, progress("Scoring", len(paths)) as step:
        step(advance=len(scores))
        with closing(worker_pool.map_unordered(missing, function, workers or 1, seconds)) as results:
            for path, found in results:
                score, error = found if isinstance(found, tuple) else (math.nan, _reason(found))
                if error:
                    errors[path] = error
                else:
                    scores[path] = score
                    file.write(json.dumps({"path": path, "state": size_and_mtime(path), "score": score}) + "\n")
                    file.flush()
                step({"error": error})
    return scores, errors


def _reason(failure: worker_pool.WorkerFailure) -> str:
    return "the function crashed" if failure.reason == worker_pool.CRASHED else failure.reason


def read_store(store: Path, key: str, paths: Iterable[str]) -> Scores:
    """Return the scores of unchanged files, and rewrite the store so that it holds these alone, below the key of the function."""
    wanted, rows = set(paths), []
    if store.exists():
        lines = store.read_text(encoding="ascii", errors="replace").splitlines()
        if lines and _parse(lines[0]).get("function") != key:
            console.print("The file of --model has changed since these files were scored: all are scored again.")
        else:
            rows = [row for row in map(_parse, lines[1:])
                    if row.get("path") in wanted and row["state"] == size_and_mtime(row["path"])]  # fmt: skip
    store.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(store) as temporary:
        Path(temporary).write_text("".join(json.dumps(row) + "\n" for row in ({"function": key}, *rows)), encoding="ascii")
    return {row["path"]: row["score"] for row in rows}


def _parse(line: str) -> dict[str, Any]:
    """Return a row; {} for a line that was cut off when the process was killed."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}

