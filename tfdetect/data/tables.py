"""Tables as people make them -> columns of text under the suite's names, and paths as the files are spelt on disk.

Spreadsheets, the usual separators and encodings, names in any letter case: read where there is one meaning, refused with what was
found where there is none.
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
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any

import pandas as pd

from tfdetect.errors import UserError

SHEET_NAME = "manifest"  # of a workbook with several sheets
SEPARATORS = ",;\t| "  # of equally good ones the first
COLUMNS = ("path", "label", "split", "group", "source", "text", "family", "category")
SYNONYMS = {"path": ("file", "files", "filename", "filepath", "image", "imagepath", "imagefile", "imagename", "img", "imgpath",
                     "video", "videopath", "videofile", "videoname", "paths"),
            "label": ("labels", "class", "isfake", "isdeepfake")}  # fmt: skip
BOOLEANS = {"true": "1", "yes": "1", "false": "0", "no": "0"}  # below a header is_..., and only there, they have one meaning
SUGGESTIONS = {"group": ("person", "people", "subject", "identity", "actor", "speaker", "celebrity", "id", "video", "clip", "original"),
         "source": ("generator", "method", "manipulation", "model", "dataset", "camera"), "text": ("caption", "prompt"),
         "split": ("set", "subset", "partition", "fold"), "label": ("target", "real", "isreal", "fake")}  # fmt: skip
ENCODINGS = ("utf-8", "cp1252", "mac_roman", "cp850", "cp1250", "cp1251", "cp932", "gb18030", "cp949", "latin-1")
_OLD_EXCEL, _ZIP, _GZIP, _PARQUET = b"\xd0\xcf\x11\xe0", b"PK\x03\x04", b"\x1f\x8b", b"PAR1"
_FORMATS = {_PARQUET: "Parquet", _ZIP: "workbook of .xlsx", _GZIP: "gzip of a CSV"}
_SURROGATE = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8


def read(path: Path) -> pd.DataFrame:
    """A table as CSV (any of SEPARATORS), .xlsx or Parquet, all text, known columns under their names of COLUMNS, the others as
    they are. What it is, its first bytes say. UserError where it is no table, OSError where it cannot be read."""
    content = path.read_bytes()
    try:
        return _parse(content, path.parent)
    except MemoryError:
        raise
    except UserError as error:
        raise UserError(f"{path} cannot be read as a table: {error}.") from error
    except Exception as error:  # what a damaged file makes its reader raise, nobody can foresee
        kind = _FORMATS.get(content[:4], _FORMATS.get(content[:2], "CSV"))
        why = shorten(str(error) or type(error).__name__, 150, placeholder="...").rstrip(".")
        raise UserError(f"{path} cannot be read as a table: it is damaged, or no {kind} ({why}). Save it anew as .xlsx or as "
                        "CSV.") from error  # fmt: skip


def _parse(content: bytes, folder: Path) -> pd.DataFrame:
    """UserError that says what is wrong, without the file's name."""
    if content.startswith(_PARQUET):
        return _parse_parquet(content)
    if content.startswith(_OLD_EXCEL):
        raise UserError("it is in the old Excel format; save it as .xlsx or as CSV")
    if content.startswith(_ZIP):
        return _parse_workbook(content)
    text = _decode(gzip.decompress(content) if content.startswith(_GZIP) else content)
    if "\0" in text:
        raise UserError("it is no text, nor .xlsx or Parquet")
    table = _to_table(_split_rows(text))
    return _fix_encoding(table, folder) if _SURROGATE.search(text) else table


def _parse_parquet(content: bytes) -> pd.DataFrame:
    table = pd.read_parquet(io.BytesIO(content))
    if set(table.index.names) - {None, *table.columns}:  # the paths may be there
        table = table.reset_index()
    table = table.astype(object).where(table.notna(), "")
    table = table.map(lambda cell: os.fsdecode(cell) if isinstance(cell, bytes) else str(cell)).astype(str)
    return _rename_columns(table, list(map(str, table.columns)))


def _parse_workbook(content: bytes) -> pd.DataFrame:
    """The table of the sheet named `manifest`, else of the first; which one it is, `attrs["sheet"]` says."""
    title, others, rows = _read_sheet(content)
    said = f"the sheet {title!r} was read"
    if others:
        said += f", not {', '.join(map(repr, others))}"
        said += "" if _is_manifest(title) else f": name the one that is meant {SHEET_NAME}, or put it first"
    try:
        table = _to_table(rows)
    except UserError as error:
        raise UserError(f"{error} ({said})") from error
    table.attrs["sheet"] = said
    return table


def _read_sheet(content: bytes) -> tuple[str, list[str], list[list[str]]]:
    """A sheet's name, those of the others, and its rows."""
    from openpyxl import load_workbook

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and the like
        book = load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheet = next((sheet for sheet in book.worksheets if _is_manifest(sheet.title)), book.worksheets[0])
        sheet.reset_dimensions()  # some programs write a wrong number of rows
        rows = [[_format_cell(value) for value in row] for row in sheet.iter_rows(values_only=True)]
    return sheet.title, [other.title for other in book.worksheets if other is not sheet], rows


def _is_manifest(title: str) -> bool:
    return title.strip().lower() == SHEET_NAME


def _format_cell(value: Any) -> str:
    """As the sheet shows it: 1, not 1.0."""
    whole = isinstance(value, float) and value.is_integer()
    return "" if value is None else str(int(value) if whole else value)


def _decode(content: bytes) -> str:
    """The text; bytes that are no UTF-8 are kept as surrogates, for a file's name may be no text."""
    wide = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    if encoding := wide.get(content[:2]):
        return content.decode(encoding)
    if b"\0" in content[:200]:  # UTF-16 without its mark; of anything else nothing sensible comes out
        return content.decode("utf-16-le" if content[1:2] == b"\0" else "utf-16-be")
    return content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def _split_rows(text: str) -> Iterator[list[str]]:
    """The rows of separated values, whatever separates them: what makes most sense of the first line."""
    lines = (line for line in io.StringIO(text[:100_000], newline="") if line.strip() and not line.startswith("#"))
    head = next(lines, "").rstrip("\r\n")
    if said := re.fullmatch(r'"?sep=(.)"?', head):  # written by and for Excel
        text, mark, head = text[text.index(head) + len(head) :], said[1], next(lines, "")
    else:
        mark = max(SEPARATORS, key=lambda mark: sum(name in COLUMNS for name in _standard_names(_split_line(head, mark, " "))))
    padded = any(cell != cell.lstrip() for cell in _split_line(head, mark))
    return csv.reader(io.StringIO(text, newline=""), delimiter=mark, skipinitialspace=padded or mark == " ", strict=True)


def _split_line(line: str, mark: str, padding: str = "") -> list[str]:
    return next(csv.reader([line], delimiter=mark, skipinitialspace=bool(padding)), [])


def _to_table(lines: Iterable[list[str]]) -> pd.DataFrame:
    """Rows of text, the first of which names the columns, as a table. Blank rows, comments before the header and columns without
    name and content are left out."""
    rows = [row for row in lines if any(map(str.strip, row))]
    while rows and rows[0][0].startswith("#"):
        del rows[0]
    if not rows:
        raise UserError("it is empty")
    head, *rows = rows
    if set(map(len, rows)) - {len(head)}:
        rows = [_fit_row(row, len(head), number) for number, row in enumerate(rows, 1)]
    columns = list(zip(*rows, strict=True)) or [()] * len(head)
    named = [(name.strip() or f"column {at}", column) for at, (name, column) in enumerate(zip(head, columns, strict=True), 1)
             if name.strip() or (any(column) and not _is_row_number(column))]  # fmt: skip
    cells = {at: pd.Series(column, dtype=object).astype(str) for at, (_, column) in enumerate(named)}
    return _rename_columns(pd.DataFrame(cells), [name for name, _ in named])


def _fit_row(row: list[str], width: int, number: int) -> list[str]:
    if any(map(str.strip, row[width:])):
        raise UserError(f"row {number} has {len(row)} cells, the header {width}; a cell that holds the separator needs quotes")
    return row[:width] + [""] * (width - len(row))


def _is_row_number(column: Sequence[str]) -> bool:
    """Whether it numbers the rows, as some programs add it."""
    return all(cell.isdecimal() and int(cell) == int(column[0]) + at for at, cell in enumerate(column))


def _normalise(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _rename_columns(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The table with these names, as `_standard_names` has them, and answers to is_fake as labels."""
    table = table.set_axis(_standard_names(names), axis=1)
    if "label" in table and _normalise(names[list(table).index("label")]).startswith("is"):
        table["label"] = table["label"].map(lambda cell: BOOLEANS.get(cell.strip().lower(), cell))
    return table


def _standard_names(names: list[str]) -> list[str]:
    """The names, known columns as COLUMNS has them. UserError where two are one."""
    plain, out = [_normalise(name) for name in names], list(names)
    for column in COLUMNS:
        same = [at for at, name in enumerate(plain) if name == column]
        if len(same) > 1:
            raise UserError(f"two columns are named {column}: {', '.join(names[at] for at in same)}; rename or delete one")
        other = [at for at, name in enumerate(plain) if name in SYNONYMS.get(column, ())]
        for at in same or (other if len(other) == 1 else []):
            out[at] = column
    return out


def suggest_column(name: str) -> str:
    """The column of COLUMNS that a name that is not known may stand for; nothing where there is none near."""
    plain = _normalise(name)
    for column, words in SUGGESTIONS.items():
        if plain in words or plain.removesuffix("s") in words or re.sub("(id|name|number)$", "", plain) in words:
            return column
    return next(iter(get_close_matches(plain, COLUMNS, 1, 0.75)), "")


def describe_columns(table: pd.DataFrame) -> str:
    """Which columns there are, and what may be the matter where none of them is known."""
    names = [str(name) for name in table.columns]
    said = f"it has the column{'s' * (len(names) > 1)} {', '.join(names)}" if names else "it has no columns"
    sheet = table.attrs.get("sheet", "")
    if not any(name in COLUMNS for name in names):
        if any(name.strip().lower() in ("0", "1", "real", "fake") or re.search(r"\.\w{3,4}$", name) for name in names):
            said += ", so that the header seems to be missing"
        elif len(names) == 1 and not sheet and re.search(r"\w\W+\w", names[0]):
            said += ", which is perhaps separated by something else than a comma, semicolon, tab or |"
    return said + f" ({sheet})" * bool(sheet)


def require_columns(table: pd.DataFrame, path: Path) -> None:
    """UserError that says which columns there are where path or label is missing; and where there are no rows."""
    if missing := [name for name in ("path", "label") if name not in table]:
        raise UserError(f"{path} lacks the column{'s' * (len(missing) > 1)} {' and '.join(missing)}; {describe_columns(table)}. Expected "
                        "path,label[,split,group,source,text] in the first row.")  # fmt: skip
    sheet = table.attrs.pop("sheet", "")
    if table.empty:
        raise UserError(f"{path} holds no row below its header{f' ({sheet})' * bool(sheet)}; expected one for each file.")


def _fix_encoding(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """A table that is no UTF-8, in the encoding in which most of its files exist. Names of files may be no text: where no
    encoding is better, they stay the bytes that they are. Other columns then are Windows' usual encoding."""
    names = [name for name in table.get("path", ()) if _SURROGATE.search(name)][:1000]
    real = _spelling_finder()

    def found(encoding: str) -> int:
        return sum(real(os.path.join(folder, _forward_slashes(_recode(name, encoding)))) is not None for name in names)

    best = max(ENCODINGS, key=found) if names else "cp1252"
    return table.map(lambda cell: _recode(cell, best) if _SURROGATE.search(cell) else cell)


def _recode(cell: str, encoding: str) -> str:
    return cell.encode("utf-8", "surrogateescape").decode(encoding, "surrogateescape" if encoding == "utf-8" else "replace")


def resolve_paths(folder: Path, names: Iterable[str]) -> list[str]:
    """The names as paths that start at the folder; absolute ones and empty ones stay. One that is not there, but for letter case,
    blanks around it, backslashes or the way accents are stored, is spelt as on disk.

    Names without such trouble are believed while a few of them are there: looking for each of a million takes its time.
    """
    names, start, real = list(names), "" if folder == Path() else str(folder), _spelling_finder()
    plain = [os.path.join(start, name) if name else name for name in names]
    sure = all(map(os.path.lexists, plain[:: len(plain) // 50 + 1]))
    odd = re.compile(r"(^|/)\.(/|$)|//|/$").search
    out = []
    for name, path in zip(names, plain, strict=True):
        if not name or (sure and name.isascii() and "\\" not in name and name == name.strip()):
            out.append(str(folder / name) if name and odd(name) else path)  # Path() is slow, and seldom needed
        else:
            path = str(folder / name) if odd(name) else path
            out.append(real(path) or ("\\" in name and real(os.path.join(start, _forward_slashes(name)))) or path)
    return out


def _forward_slashes(name: str) -> str:
    return name.replace("\\", "/")


def _spelling_finder() -> Callable[[str], str | None]:
    """A function from a path to how it is spelt on disk; None where it is not there, or could be several."""

    @cache
    def entries(folder: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        try:
            for name in os.listdir(folder or "."):
                found.setdefault(_spelling_key(name), []).append(name)
        except OSError:
            pass
        return found

    @cache
    def real(path: str) -> str | None:
        at = path.rfind("/") + 1
        head = path[: max(at - 1, path.startswith("/"))]
        if head == path:  # the root, or where one is
            return path
        folder = real(head)
        if folder is None:  # nothing in a folder that is gone need be looked for
            return None
        if os.path.lexists(path):
            return path
        same = entries(folder).get(_spelling_key(path[at:]), [])
        return os.path.join(folder, same[0]) if len(same) == 1 else None

    return real


def _spelling_key(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip()).casefold()
