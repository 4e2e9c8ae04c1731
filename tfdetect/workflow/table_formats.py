"""Write and read a table of verdicts row by row, in the format that its suffix names.

File names are chosen by strangers, and spreadsheets run what looks like a formula. In .xlsx, all text is stored as text, which is
never run. CSV cannot say so: there a text that begins with = + - @ or a control character gets an apostrophe in front, which
spreadsheets take as "this is text", and so does one that begins with an apostrophe, so that reading gives back what was written.
"""

import csv
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tfdetect.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

Row = Mapping[str, Any]
TYPES = {"path": str, "probability": float, "label": str, "score": float, "frames": int, "note": str, "error": str, "source": str,
         "source_probability": float, "text": str, "verdict": str, "familiarity": float, "unfamiliar": bool,
         "unfamiliar_reason": str, "faces": str, "run": str, "version": str, "threshold": float, "date": str, "bytes": int,
         "modified": str, "settings": str}  # fmt: skip
ROW_GROUP = 2**14  # rows that Parquet compresses together; bounds the memory
MAX_SHEET_ROWS = 2**20 - 1  # below the header
RISKY = re.compile(r"^[=+\-@'\x00-\x1f]")  # beginnings that a spreadsheet might run, and the apostrophe that marks them
UNSTORABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # characters that XML does not have


class Format(ABC):
    """How a table is stored."""

    suffix: ClassVar[str]

    def path_text(self, path: str) -> str:
        """Return a path as the table stores it."""
        return path

    @abstractmethod
    def write(self, path: Path, rows: Iterable[Row]) -> None:
        """Write all rows, which have the columns TYPES, or those of an older version."""

    @abstractmethod
    def read(self, path: Path) -> Iterator[dict[str, Any]]:
        """Yield the rows of a table that `write` wrote; raises errors of many types for any other file."""


class JsonLines(Format):
    """One JSON object per line."""

    suffix = ".jsonl"

    def write(self, path: Path, rows: Iterable[Row]) -> None:
        with open(path, "w", encoding="ascii") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def read(self, path: Path) -> Iterator[dict[str, Any]]:
        with open(path, encoding="ascii") as file:
            yield from map(json.loads, file)


class Csv(Format):
    """UTF-8 with commas; an empty cell is a missing value."""

    suffix = ".csv"

    def write(self, path: Path, rows: Iterable[Row]) -> None:
        with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(TYPES)
            writer.writerows([self._cell(row.get(name)) for name in TYPES] for row in rows)

    def _cell(self, value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and RISKY.match(value) else value

    def read(self, path: Path) -> Iterator[dict[str, Any]]:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            for row in csv.DictReader(file, strict=True):
                yield {name: self._value(row[name], kind, name) for name, kind in TYPES.items() if name in row}

    def _value(self, cell: str, kind: type, name: str) -> Any:
        if not cell:
            return "" if name == "note" else None
        if kind is bool:
            return cell == "True"
        return cell.removeprefix("'") if kind is str else kind(cell)


class Parquet(Format):
    """Row groups of ROW_GROUP rows. Bytes of a path that are not UTF-8 are written as \\udcff."""

    suffix = ".parquet"

    def path_text(self, path: str) -> str:
        return path.encode("utf-8", "backslashreplace").decode()

    def write(self, path: Path, rows: Iterable[Row]) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        rows, schema = iter(rows), self._schema()
        with pyarrow.parquet.ParquetWriter(path, schema) as writer:
            while group := list(islice(rows, ROW_GROUP)):
                writer.write_table(pa.Table.from_pylist(group, schema))

    def _schema(self) -> "pa.Schema":
        import pyarrow as pa

        types = {str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_()}
        return pa.schema([(name, types[kind]) for name, kind in TYPES.items()])

    def read(self, path: Path) -> Iterator[dict[str, Any]]:
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(2**12, columns=[name for name in TYPES if name in file.schema.names]):
                yield from batch.to_pylist()


class Workbook(Format):
    """One sheet of at most MAX_SHEET_ROWS rows. Characters that XML does not have are written as \\x00."""

    suffix = ".xlsx"

    def path_text(self, path: str) -> str:
        return UNSTORABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), path)

    def write(self, path: Path, rows: Iterable[Row]) -> None:
        from openpyxl import Workbook as Book

        book = Book(write_only=True)
        # The library would note the time of writing, and equal work is to give equal bytes.
        book.properties.created = book.properties.modified = datetime(2000, 1, 1)
        sheet = book.create_sheet("verdicts")
        sheet.append(list(TYPES))
        for row in rows:
            sheet.append([self._cell(sheet, row.get(name)) for name in TYPES])
        with open(path, "wb") as file:
            book.save(file)

    def _cell(self, sheet: Any, value: Any) -> Any:
        from openpyxl.cell import WriteOnlyCell

        if not isinstance(value, str):
            return value
        cell = WriteOnlyCell(sheet, self.path_text(value))
        cell.data_type, cell.quotePrefix = "s", bool(RISKY.match(value))  # text, also after it is edited
        return cell

    def read(self, path: Path) -> Iterator[dict[str, Any]]:
        from openpyxl import load_workbook

        with open(path, "rb") as file:
            rows = load_workbook(file, read_only=True).worksheets[0].iter_rows(values_only=True)
            header = list(next(rows))
            for cells in rows:
                row = dict(zip(header, cells, strict=True))
                yield {name: self._value(row[name], kind, name) for name, kind in TYPES.items() if name in row}

    def _value(self, cell: Any, kind: type, name: str) -> Any:
        if cell is None:
            return "" if name == "note" else None
        return kind(cell)


FORMATS = {each.suffix: each for each in (Parquet(), Csv(), JsonLines(), Workbook())}


def by_suffix(path: Path) -> Format:
    """Return the format that a path names. Raises UserError if there is none."""
    if (suffix := path.suffix.lower()) not in FORMATS:
        raise UserError(f"--out must end in {', '.join(FORMATS)}, got {os.fspath(path)!r}.")
    return FORMATS[suffix]


def require_room(path: Path, rows: int) -> None:
    """Raise UserError if the format of the table cannot hold so many rows."""
    if isinstance(by_suffix(path), Workbook) and rows > MAX_SHEET_ROWS:
        raise UserError(f"A sheet of .xlsx holds at most {MAX_SHEET_ROWS:,} files, got {rows:,}: let --out end in .parquet "
                        "or .csv.")  # fmt: skip
