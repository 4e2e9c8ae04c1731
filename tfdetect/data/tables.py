"""Read tables written by people and programs into text columns with standard names, and resolve the paths in them.

Spreadsheets, common separators and encodings, and column names in any letter case are accepted if they have only one
possible meaning. Otherwise the error says what was found.
"""

import codecs
import csv
import gzip
import io
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any

from tfdetect.errors import UserError, nearest
from tfdetect.pandas_settings import pd

SHEET_NAME = "manifest"  # preferred sheet of a workbook
SEPARATORS = ",;\t| "  # earlier ones win ties
COLUMNS = ("path", "label", "split", "group", "source", "text", "family", "category")
SYNONYMS = {"path": ("file", "files", "filename", "filepath", "image", "imagepath", "imagefile", "imagename", "img", "imgpath",
                     "video", "videopath", "videofile", "videoname", "paths"),
            "label": ("labels", "class", "isfake", "isdeepfake")}  # fmt: skip
BOOLEANS = {"true": "1", "yes": "1", "false": "0", "no": "0"}  # valid labels only below a header is_...; ambiguous elsewhere
SUGGESTIONS = {
    "group": ("person", "people", "subject", "identity", "actor", "speaker", "celebrity", "id", "video", "clip", "original"),
    "source": ("generator", "method", "manipulation", "model", "dataset", "camera"), "text": ("caption", "prompt"),
    "split": ("set", "subset", "partition", "fold"), "label": ("target", "real", "isreal", "fake")}  # fmt: skip
ENCODINGS = ("utf-8", "cp1252", "mac_roman", "cp850", "cp1250", "cp1251", "cp932", "gb18030", "cp949", "latin-1")
_OLD_EXCEL, _ZIP, _GZIP, _PARQUET = b"\xd0\xcf\x11\xe0", b"PK\x03\x04", b"\x1f\x8b", b"PAR1"
_FORMATS = {_PARQUET: "a Parquet file", _ZIP: "an .xlsx workbook", _GZIP: "a gzip-compressed CSV file"}
_SURROGATE = re.compile("[\udc80-\udcff]")  # stands for a byte that is not UTF-8


def read(path: Path) -> pd.DataFrame:
    """Read a CSV (with any of SEPARATORS), .xlsx or Parquet file as text, with standard names for the known COLUMNS.

    The first bytes determine the format; other columns keep their names. Raises UserError if the file is not a table,
    OSError if it cannot be read.
    """
    content = path.read_bytes()
    try:
        return _parse(content, path.parent)
    except MemoryError:
        raise
    except UserError as error:
        raise UserError(f"{path} cannot be read as a table: {error}.") from error
    except Exception as error:  # readers raise many types for damaged files
        kind = _FORMATS.get(content[:4], _FORMATS.get(content[:2], "a CSV file"))
        reason = shorten(str(error) or type(error).__name__, 150, placeholder="...").rstrip(".")
        raise UserError(f"{path} cannot be read as a table: it is damaged or not {kind} ({reason}). Save it again as .xlsx "
                        "or CSV.") from error  # fmt: skip


def _parse(content: bytes, folder: Path) -> pd.DataFrame:
    """Parse the content of a file. Raises UserError with a reason that does not name the file."""
    if content.startswith(_PARQUET):
        return _parse_parquet(content)
    if content.startswith(_OLD_EXCEL):
        raise UserError("it is in the old Excel format; save it as .xlsx or CSV")
    if content.startswith(_ZIP):
        return _parse_workbook(content)
    text = _decode(gzip.decompress(content) if content.startswith(_GZIP) else content)
    if "\0" in text:
        raise UserError("it is neither text nor .xlsx nor Parquet")
    table = _to_table(_split_rows(text))
    return _fix_encoding(table, folder) if _SURROGATE.search(text) else table


def _parse_parquet(content: bytes) -> pd.DataFrame:
    table = pd.read_parquet(io.BytesIO(content))
    if set(table.index.names) - {None, *table.columns}:  # the index may hold the paths
        table = table.reset_index()
    table = table.astype(object).where(table.notna(), "")
    table = table.map(lambda cell: os.fsdecode(cell) if isinstance(cell, bytes) else str(cell)).astype(str)
    return _rename_columns(table, list(map(str, table.columns)))


def _parse_workbook(content: bytes) -> pd.DataFrame:
    """Parse the sheet named `manifest`, else the first; `attrs["sheet"]` says which one was read."""
    title, others, rows = _read_sheet(content)
    remark = f"the sheet {title!r} was read"
    if others:
        remark += f", not {', '.join(map(repr, others))}"
        remark += "" if _is_manifest(title) else f": name the right sheet {SHEET_NAME}, or move it to the front"
    try:
        table = _to_table(rows)
    except UserError as error:
        raise UserError(f"{error} ({remark})") from error
    table.attrs["sheet"] = remark
    return table


def _read_sheet(content: bytes) -> tuple[str, list[str], list[list[str]]]:
    """Return the title of a sheet, the titles of the others, and the rows of the sheet."""
    from openpyxl import load_workbook

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and the like
        book = load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheet = next((sheet for sheet in book.worksheets if _is_manifest(sheet.title)), book.worksheets[0])
        sheet.reset_dimensions()  # some programs write a wrong number of rows
        rows = [[_format_cell(value) for value in row] for row in sheet.iter_rows(values_only=True)]
    return sheet.title, [other.title for other in book.worksheets if other is not sheet], rows


def _is_manifest(title: str) -> bool:
    return title.strip().lower() == SHEET_NAME


def _format_cell(value: Any) -> str:
    """Return a cell as the sheet shows it: 1, not 1.0."""
    is_whole = isinstance(value, float) and value.is_integer()
    return "" if value is None else str(int(value) if is_whole else value)


def _decode(content: bytes) -> str:
    """Decode UTF-8 or UTF-16. Bytes that are not UTF-8 become surrogates, because file names may be any bytes."""
    marks = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    if encoding := marks.get(content[:2]):
        return content.decode(encoding)
    if b"\0" in content[:200]:  # UTF-16 without a byte-order mark; any other content is rejected later
        return content.decode("utf-16-le" if content[1:2] == b"\0" else "utf-16-be")
    return content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def _split_rows(text: str) -> Iterator[list[str]]:
    """Split CSV text into rows, with the separator that yields the most known column names in the first line."""
    lines = (line for line in io.StringIO(text[:100_000], newline="") if line.strip() and not line.startswith("#"))
    header = next(lines, "").rstrip("\r\n")
    if declaration := re.fullmatch(r'"?sep=(.)"?', header):  # Excel writes and reads such a line
        text, mark, header = text[text.index(header) + len(header) :], declaration[1], next(lines, "")
    else:
        mark = max(SEPARATORS, key=lambda mark: sum(name in COLUMNS for name in standard_names(_split_line(header, mark, " "))))
    padded = any(cell != cell.lstrip() for cell in _split_line(header, mark))
    return csv.reader(io.StringIO(text, newline=""), delimiter=mark, skipinitialspace=padded or mark == " ", strict=True)


def _split_line(line: str, mark: str, padding: str = "") -> list[str]:
    return next(csv.reader([line], delimiter=mark, skipinitialspace=bool(padding)), [])


def _to_table(lines: Iterable[list[str]]) -> pd.DataFrame:
    """Turn rows of text into a table; the first row names the columns.

    Blank rows, comments before the header, and columns with neither name nor content are dropped.
    """
    rows = [row for row in lines if any(map(str.strip, row))]
    while rows and rows[0][0].startswith("#"):
        del rows[0]
    if not rows:
        raise UserError("it is empty")
    header, *rows = rows
    if set(map(len, rows)) - {len(header)}:
        rows = [_fit_row(row, len(header), number) for number, row in enumerate(rows, 1)]
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    named = [(name.strip() or f"column {at}", column) for at, (name, column) in enumerate(zip(header, columns, strict=True), 1)
             if name.strip() or (any(column) and not _is_row_number(column))]  # fmt: skip
    cells = {at: pd.Series(column, dtype=object).astype(str) for at, (_, column) in enumerate(named)}
    return _rename_columns(pd.DataFrame(cells), [name for name, _ in named])


def _fit_row(row: list[str], width: int, number: int) -> list[str]:
    if any(map(str.strip, row[width:])):
        raise UserError(f"row {number} has {len(row)} cells, but the header has {width}; quote cells that contain the separator")
    return row[:width] + [""] * (width - len(row))


def _is_row_number(column: Sequence[str]) -> bool:
    """Return whether the column just counts the rows, as some programs add it."""
    return all(cell.isdecimal() and int(cell) == int(column[0]) + at for at, cell in enumerate(column))


def normalise(name: str) -> str:
    """Return the lower-case letters and digits of a column's name."""
    return re.sub(r"[\W_]+", "", name.lower())


def _rename_columns(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Give the columns their standard names, and turn true/false below a header such as is_fake into labels."""
    table = table.set_axis(standard_names(names), axis=1)
    if "label" in table and normalise(names[list(table).index("label")]).startswith("is"):
        table["label"] = table["label"].map(lambda cell: BOOLEANS.get(cell.strip().lower(), cell))
    return table


def standard_names(names: list[str]) -> list[str]:
    """Return the names, with known columns as in COLUMNS. Raises UserError if two columns have the same name."""
    normalised, standard = [normalise(name) for name in names], list(names)
    for column in COLUMNS:
        same = [at for at, name in enumerate(normalised) if name == column]
        if len(same) > 1:
            raise UserError(f"two columns are named {column}: {', '.join(names[at] for at in same)}; rename or delete one")
        synonyms = [at for at, name in enumerate(normalised) if name in SYNONYMS.get(column, ())]
        for at in same or (synonyms if len(synonyms) == 1 else []):
            standard[at] = column
    return standard


def suggest_column(name: str) -> str:
    """Return the column of COLUMNS that an unknown name may stand for; "" if there is no likely one."""
    normalised = normalise(name)
    stem = re.sub("(id|name|number)$", "", normalised)
    for column, words in SUGGESTIONS.items():
        if normalised in words or normalised.removesuffix("s") in words or stem in words:
            return column
    return nearest(normalised, COLUMNS, 0.75)


def describe_columns(table: pd.DataFrame) -> str:
    """Say which columns the table has, and guess the cause if none of them is known."""
    names = [str(name) for name in table.columns]
    text = f"it has the column{'s' * (len(names) > 1)} {', '.join(names)}" if names else "it has no columns"
    sheet = table.attrs.get("sheet", "")
    if not any(name in COLUMNS for name in names):
        if any(name.strip().lower() in ("0", "1", "real", "fake") or re.search(r"\.\w{3,4}$", name) for name in names):
            text += ", so the header seems to be missing"
        elif len(names) == 1 and not sheet and re.search(r"\w\W+\w", names[0]):
            text += ", so the separator may be something other than a comma, semicolon, tab or |"
    return text + f" ({sheet})" * bool(sheet)


def require_columns(table: pd.DataFrame, path: Path) -> None:
    """Raise UserError, listing the columns, if path or label is missing; and if the table has no rows."""
    if missing := [name for name in ("path", "label") if name not in table]:
        names = " and ".join(missing)
        raise UserError(f"{path} lacks the column{'s' * (len(missing) > 1)} {names}; {describe_columns(table)}. Expected "
                        "path,label[,split,group,source,text] in the first row.")  # fmt: skip
    sheet = table.attrs.pop("sheet", "")
    if table.empty:
        raise UserError(f"{path} has no rows below its header{f' ({sheet})' * bool(sheet)}; expected one row per file.")


def _fix_encoding(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Decode a table that is not UTF-8 with the encoding under which most of its files exist.

    File names keep their bytes if no encoding is better, since they need not be text. If no path is affected, the
    encoding is that of Windows.
    """
    names = [name for name in table.get("path", ()) if _SURROGATE.search(name)][:1000]
    find_spelling = _spelling_finder()

    def count_existing(encoding: str) -> int:
        paths = (os.path.join(folder, _forward_slashes(_recode(name, encoding))) for name in names)
        return sum(find_spelling(path) is not None for path in paths)

    best = max(ENCODINGS, key=count_existing) if names else "cp1252"
    return table.map(lambda cell: _recode(cell, best) if _SURROGATE.search(cell) else cell)


def _recode(cell: str, encoding: str) -> str:
    return cell.encode("utf-8", "surrogateescape").decode(encoding, "surrogateescape" if encoding == "utf-8" else "replace")


def resolve_paths(folder: Path, names: Iterable[str]) -> list[str]:
    """Return the names as paths relative to the folder; absolute and empty names are returned as they are.

    A path that does not exist, except for letter case, surrounding blanks, backslashes or the form of its accents, is
    spelt as on disk. Plain names are not looked up if a sample of about 50 exists: looking up a million takes long.
    """
    names, start, find_spelling = list(names), "" if folder == Path() else str(folder), _spelling_finder()
    joined = [os.path.join(start, name) if name else name for name in names]
    sample_exists = all(map(os.path.lexists, joined[:: len(joined) // 50 + 1]))
    is_unnormalised = re.compile(r"(^|/)\.(/|$)|//|/$").search
    paths = []
    for name, path in zip(names, joined, strict=True):
        if not name or (sample_exists and name.isascii() and "\\" not in name and name == name.strip()):
            paths.append(str(folder / name) if name and is_unnormalised(name) else path)  # Path() is slow and rarely needed
        else:
            path = str(folder / name) if is_unnormalised(name) else path
            slashed = os.path.join(start, _forward_slashes(name))
            paths.append(find_spelling(path) or ("\\" in name and find_spelling(slashed)) or path)
    return paths


def _forward_slashes(name: str) -> str:
    return name.replace("\\", "/")


def _spelling_finder() -> Callable[[str], str | None]:
    """Return a function from a path to its spelling on disk; None if it does not exist or is ambiguous."""

    @cache
    def entries(folder: str) -> dict[str, list[str]]:
        by_key: dict[str, list[str]] = {}
        try:
            for name in os.listdir(folder or "."):
                by_key.setdefault(_spelling_key(name), []).append(name)
        except OSError:
            pass
        return by_key

    @cache
    def find_spelling(path: str) -> str | None:
        start = path.rfind("/") + 1
        parent = path[: max(start - 1, path.startswith("/"))]
        if parent == path:  # the root, or the current folder
            return path
        folder = find_spelling(parent)
        if folder is None:  # nothing exists below a missing folder
            return None
        if os.path.lexists(path):
            return path
        matches = entries(folder).get(_spelling_key(path[start:]), [])
        return os.path.join(folder, matches[0]) if len(matches) == 1 else None

    return find_spelling


def _spelling_key(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip()).casefold()
