"""Read a table of scores that any program wrote: one row a file (or frame), a label, and a column of scores for each detector.

Which column is what is given, or guessed by these rules:

| column | guessed from |
|---|---|
| path | path or a synonym of a manifest (file, image, video, ...), else id, name, key |
| label | label or a synonym of a manifest, else target, truth, ground_truth, gt, y, y_true |
| source, group, split | the name itself, else the only column that usually means it, such as generator, subject, subset |
| frame | the name itself: then each row is a frame |
| probability | the name itself beside a column score: the detector's own probability, which is judged as it is |
| scores | score; else all whose name has the word score, prob, logit or the like; else all other columns of numbers |
"""

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfdetect.data import manifest, tables
from tfdetect.errors import UserError, suggestion
from tfdetect.evaluation import aggregation, predictions
from tfdetect.files import plural
from tfdetect.pandas_settings import pd

SCORE_WORDS = {"score", "scores", "prob", "probs", "proba", "probability", "logit", "logits", "pred", "prediction", "pfake",
               "confidence", "fakeness"}  # fmt: skip
MORE_NAMES = {"path": ("id", "name", "key"), "label": ("target", "truth", "groundtruth", "gt", "y", "ytrue")}
ROLES = ("path", "label", "source", "group", "split")
NOT_SCORES = {"frame", "error", *predictions.FACE_COLUMNS, *tables.COLUMNS, *manifest.PREPARED_COLUMNS}
MAX_NAMED = 8  # columns in a message


@dataclass(frozen=True)
class ScoreTable:
    """The files of a table and what detectors said about them."""

    files: pd.DataFrame
    """One row a file: path, label, split, group, source, and `frames`, the number of rows averaged."""
    scores: pd.DataFrame
    """One float64 column a detector, NaN where it has no score; the index is that of `files`."""
    reasons: Mapping[str, Mapping[str, str]]
    """Detector -> path of a file without a score -> why."""
    probability: pd.Series | None
    """The own probabilities of the only detector, 0..1, if the table has some besides its scores."""
    notes: tuple[str, ...]
    """How the columns were understood, for the user."""


def read(path: Path, given: Mapping[str, str], scores: Sequence[str] = (), only: Sequence[str] = (),
         aggregate: str | None = None) -> ScoreTable:  # fmt: skip
    """Read a table (CSV, .xlsx or Parquet). `given` names the columns of ROLES that are not to be guessed, `scores` those of
    scores, where * stands for any text; `only` are COLUMN=VALUE pairs which the rows must match.

    Scores are numbers, or words that are labels (real, fake); higher is more likely fake. Any other cell counts as a failure of
    that detector. Rows of one path that differ in `frame`, and `face`, are combined by `aggregate`, by default the mean. Raises
    UserError if a column is missing, ambiguous or invalid, and if no row is left; OSError if the file cannot be read.
    """
    table = _select_rows(tables.read(path), only, path)
    if table.empty:
        matching = f" that match --columns.only {' '.join(only)}" if only else ""
        raise UserError(f"{path} has no rows{matching}; expected one row per file.")
    columns = {role: _find_role(role, table, given.get(role, ""), path) for role in ROLES}
    names = _find_scores(table, scores, set(columns.values()), path)
    own = "probability" if "probability" in table and names == ["score"] else ""
    empty = [name for name in names if name not in scores and not table[name].str.strip().any()] if len(names) > 1 else []
    names = [name for name in names if name not in empty] or names
    numbers = {name: _to_numbers(table[name], path) for name in [*names, *([own] if own else [])]}
    rows = pd.DataFrame({role: table[name] if name else "" for role, name in columns.items()})
    is_frame = "frame" in table and rows["path"].duplicated().any()
    first = rows.drop_duplicates("path") if is_frame else rows
    files = manifest.validate(first.assign(path=_existing_paths(path.parent, first["path"])), str(path))[list(ROLES)]
    number = pd.factorize(rows["path"])[0] if is_frame else np.arange(len(rows))
    if is_frame and len(torn := rows["path"][rows["label"] != first["label"].to_numpy()[number]]):
        raise UserError(f"{path}: the frames of {torn.iloc[0]!r} have different labels; a file is real or fake.")
    _require_frames(aggregate, is_frame, path)
    means = pd.DataFrame(numbers)
    means = _combine(means, number, table.get("face"), aggregate or aggregation.MEAN) if is_frame else means
    reasons = {name: _reasons(table[name].to_numpy()[np.unique(number, return_index=True)[1]], means[name], files["path"])
               for name in names}  # fmt: skip
    notes = [_describe(columns, names, own)]
    if empty:
        notes.append(f"Left out, since all their cells are empty: {_list(empty)}.")
    if is_frame:
        notes.append(f"{plural(len(rows), 'row')} of {plural(len(files), 'file')}: the score of a file is "
                     f"{aggregation.describe(aggregate or aggregation.MEAN, 'face' in table)}.")  # fmt: skip
    files["frames"] = np.bincount(number)
    return ScoreTable(files, means[names], reasons, means[own] if own else None, tuple(notes))


def _select_rows(table: pd.DataFrame, only: Sequence[str], path: Path) -> pd.DataFrame:
    """Return the rows whose cells equal what COLUMN=VALUE pairs say; of several pairs with one column, any may match."""
    wanted: dict[str, set[str]] = {}
    for pair in only:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--columns.only takes COLUMN=VALUE, such as modality=image, got {pair!r}.")
        wanted.setdefault(_require_column(name, table, "--columns.only", path), set()).add(value.strip())
    for name, values in wanted.items():
        table = table[table[name].str.strip().isin(values)]
    return table.reset_index(drop=True)


def _require_column(name: str, table: pd.DataFrame, flag: str, path: Path) -> str:
    """Return the name of a column as the table has it; known columns were renamed when it was read."""
    for candidate in (name, *tables.standard_names([name])):
        if candidate in table:
            return candidate
    columns = [str(column) for column in table]
    raise UserError(f"{path} has no column {name!r}, which {flag} names.{suggestion(name, columns)} Columns: "
                    f"{_list(columns)}.")  # fmt: skip


def _find_role(role: str, table: pd.DataFrame, given: str, path: Path) -> str:
    """Return the column with this role, "" if an optional one is missing. Raises UserError if path or label is unclear."""
    if given:
        return _require_column(given, table, f"--columns.{role}", path)
    if role in table:
        return role
    names = [str(name) for name in table if tables.normalise(str(name)) in MORE_NAMES.get(role, ())]
    if role not in MORE_NAMES:
        names = [str(name) for name in table if name not in tables.COLUMNS and tables.suggest_column(str(name)) == role
                 and tables.normalise(str(name)) != "id" and not _is_score_name(str(name))]  # fmt: skip
    if len(names) == 1 or role not in MORE_NAMES:
        return names[0] if len(names) == 1 else ""
    problem = f"several columns that may be the {role} ({_list(names)})" if names else f"no column {role}"
    raise UserError(f"{path} has {problem}: name it with --columns.{role}. Columns: {_list(map(str, table))}.")


def _is_score_name(name: str) -> bool:
    return bool(SCORE_WORDS & set(re.split(r"[\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())))


def _find_scores(table: pd.DataFrame, patterns: Sequence[str], taken: set[str], path: Path) -> list[str]:
    """Return the columns of scores: those that match the patterns, else guessed."""
    if patterns:
        free = [str(name) for name in table]
        found = [name for pattern in patterns for name in fnmatch.filter(free, pattern) or
                 [_require_column(pattern, table, "--columns.scores", path)]]  # fmt: skip
        return list(dict.fromkeys(found))
    others = [str(name) for name in table if name not in taken and name not in NOT_SCORES]
    if "score" in others:
        return ["score"]
    numeric = [name for name in others if pd.to_numeric(table[name], errors="coerce").notna().any()]
    if found := [name for name in numeric if _is_score_name(name)] or numeric:
        return found
    raise UserError(f"{path} has no column of scores: name one or several with --columns.scores. Columns: "
                    f"{_list(map(str, table))}.")  # fmt: skip


def _to_numbers(cells: pd.Series, path: Path) -> pd.Series:
    """Return the scores of a column, NaN where a cell is no finite number. Raises UserError if none is."""
    words = cells.str.strip().str.lower().map({word: label for word, label in manifest.LABELS.items() if word.isalpha()})
    numbers = pd.to_numeric(cells, errors="coerce").astype(np.float64).fillna(words.astype(np.float64))
    numbers = numbers.where(np.isfinite(numbers))
    if numbers.isna().all():
        filled = cells[cells.str.strip() != ""]
        seen = f"such as {filled.iloc[0]!r}" if len(filled) else "all its cells are empty"
        raise UserError(f"{path}: the column {cells.name} holds no finite number ({seen}); expected scores, higher for fakes. "
                        "Decimals need a point.")  # fmt: skip
    return numbers


def _require_frames(aggregate: str | None, is_frame: bool, path: Path) -> None:
    """Raise UserError if the frames of files are to be combined, but each row is a file."""
    if aggregate and not is_frame:
        raise UserError(f"--evaluate.aggregate {aggregate} combines the frames of a file, but {path} has one row for each file: "
                        "it takes a column frame, and rows with the same path.")  # fmt: skip


def _combine(scores: pd.DataFrame, number: np.ndarray, faces: pd.Series | None, rule: str) -> pd.DataFrame:
    """Return the score of each file for each detector, from those of its frames that have one; `number` is that of the file."""
    out = pd.DataFrame(index=range(number.max() + 1), columns=scores.columns, dtype=np.float64)
    for name in scores:
        known = scores[name].notna().to_numpy()
        shown = None if faces is None else faces.to_numpy()[known]
        out[name] = aggregation.aggregate_rows(scores.loc[known, [name]], [number[known]], rule, shown)[name]
    return out


def _reasons(cells: Iterable[str], scores: pd.Series, paths: pd.Series) -> dict[str, str]:
    """Return why files have no score: what their cell says."""
    return {path: f"no score ({cell.strip()})" if cell.strip() else "no score"
            for cell, score, path in zip(cells, scores, paths, strict=True) if not np.isfinite(score)}  # fmt: skip


def _existing_paths(folder: Path, names: pd.Series) -> list[str]:
    """Return the paths as they are on this machine if the files are there, else as the table has them."""
    resolved = tables.resolve_paths(folder, names)
    return resolved if any(Path(path).exists() for path in resolved[:: len(resolved) // 50 + 1]) else list(names)


def _describe(columns: Mapping[str, str], names: Sequence[str], own: str) -> str:
    """Say which columns have which role."""
    roles = [f"{role} from {name}" if role != name else role for role, name in columns.items() if name]
    probabilities = ", with the detector's own probability" if own else ""
    return f"Columns: {', '.join(roles)}; scores of {plural(len(names), 'detector')}{probabilities}: {_list(names)}."


def _list(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")
