"""Tables written by people: read if they have one meaning, else refused with what was found."""

import gzip
import os
import unicodedata

import pandas as pd
import pytest

from tfdetect.data import manifest, tables
from tfdetect.errors import UserError

NAMES = ["p/a b.png", "p/Müller.png", "p/Zoë, 2.png", "p/d.png"]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "p").mkdir()
    for name in NAMES:
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def text(mark=",", head=("path", "label"), end="\n", names=NAMES):
    quoted = [f'"{name}"' if mark.strip() and mark.strip() in name else name for name in names]
    rows = [mark.join(head), *(f"{name}{mark}{number % 2}" for number, name in enumerate(quoted))]
    return end.join([*rows, ""])


def check(place, content, suffix=".csv"):
    """Check that a table with this content is read, and that its paths are those of NAMES."""
    path = place / f"m{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table = manifest.read(path)
    assert [os.path.relpath(name, place) for name in table["path"]] == NAMES and list(table["label"]) == [0, 1, 0, 1]
    return table


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_separator(place, mark, end):
    check(place, text(mark, end=end), ".txt")


COMMA = text()
WINDOWS = 'path,label\n"p\\a b.png",0\np\\Müller.png,1\n"p\\Zoë, 2.png",0\np\\d.png,1\n'


@pytest.mark.parametrize("content", [
    text(", "), text(";").replace(";", " ; "),  # surrounding blanks
    text(head=("Path", "LABEL ")), text(head=("File Name", "Label")), text(head=("image_path", "label")),
    text(head=("FILE", "Class")), COMMA.replace(",0", ",REAL").replace(",1", ",Fake "),
    COMMA.replace(",0", ",0.0").replace(",1", ",1.0"),
    text(end=",\n"), text(end=",,\n").replace("path,label,,", "path,label"), "\n\n" + text(end="\n\n"),
    "# made by hand\r" + text(end="\r"), "sep=;\r" + text(";", end="\r"),
    "# made by hand, in May\n" + COMMA, "sep=;\n" + text(";"), WINDOWS,
    COMMA.replace(".png", ".PNG").replace("p/", "P/"),  # from a case-insensitive file system
    "".join(f"{number or ''},{line}\n" for number, line in enumerate(COMMA.splitlines())),  # with row numbers
])  # fmt: skip
def test_variants_of_people_and_programs(place, content):
    check(place, content)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "mac_roman", "cp850"])
def test_encodings(place, encoding):
    check(place, text(";").encode(encoding))


def test_big_endian_utf_16_with_a_byte_order_mark(place):
    check(place, b"\xfe\xff" + text().encode("utf-16-be"))


def test_gzip(place):
    check(place, gzip.compress(text().encode()), ".csv.gz")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_are_spelt_as_on_disk(tmp_path, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    (tmp_path / "ü").mkdir()
    names = [f"ü/{unicodedata.normalize(form, name)}.png" for name in ("Müller", "Zoë")]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "m.csv").write_text("path,label\n" + "".join(f"{unicodedata.normalize(other, name)},0\n" for name in names))
    assert list(manifest.read(tmp_path / "m.csv")["path"]) == [str(tmp_path / name) for name in names]


def test_a_name_that_is_not_text_keeps_its_bytes(tmp_path):
    names = [b"no\xfftext.png", "Müller.png".encode(), b"M\xfcller.png"]
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    (tmp_path / "m.csv").write_bytes(b"path,label\n" + b",0\n".join(names) + b",1\n")
    found = list(manifest.read(tmp_path / "m.csv")["path"])
    assert [os.path.basename(os.fsencode(path)) for path in found] == names and all(map(os.path.exists, found))


def test_other_columns_are_decoded_as_windows_text(place):
    content = text(head=("path", "label", "group")).replace(",0", ",0,ab").replace(",1", ",1,été")
    table = check(place, content.encode("cp1252"))
    assert set(table["group"]) == {"ab", "été"}


def test_existing_names_are_not_changed(tmp_path):
    """Backslashes, blanks and letter case are kept if such a file exists."""
    names = ["a\\b.png", " c.png", "D.png", "d.png"]
    for name in names:
        (tmp_path / name).touch()
    manifest.write(pd.DataFrame({"path": names, "label": 0}), tmp_path / "m.csv")
    assert list(manifest.read(tmp_path / "m.csv")["path"]) == [str(tmp_path / name) for name in names]


@pytest.mark.parametrize("sheet", ["Sheet1", "Manifest"])
def test_a_workbook(place, sheet):
    from openpyxl import Workbook

    book = Workbook()
    rows = book.active
    if sheet == "Manifest":
        rows.append(["notes"])
        rows = book.create_sheet(sheet)
    rows.title = sheet
    rows.append([None, None])
    rows.append(["Path", "Label", "Group", None])
    for number, name in enumerate(NAMES):
        rows.append([name, float(number % 2), 7.0 if number else 12345678901, None])
    book.save(place / "m.xlsx")
    assert list(check(place, (place / "m.xlsx").read_bytes(), ".xlsx")["group"]) == ["12345678901", "7", "7", "7"]


@pytest.mark.parametrize(
    "content, message",
    [
        ("path:label\na.png:1", "it has the column path:label, so the separator may be something other than"),
        ("path\na.png", "lacks the column label; it has the column path. Expected"),
        ("path,fake\na.png,1", "lacks the column label; it has the columns path, fake. Expected"),
        ("hello\na.png", "it has the column hello. Expected"),
        ("a.png,0\nb.png,1", "it has the columns a.png, 0, so the header seems to be missing"),
        ("image,video,label\na,b,1", "lacks the column path; it has the columns image, video, label"),
        ("path,Path,label\na,b,1", "m.csv cannot be read as a table: two columns are named path: path, Path"),
        ("path,label\na, b.png,1", "row 1 has 3 cells, but the header has 2"),
        ('path,label\n"a.png,1\nb.png,0', "cannot be read as a table"),
        ("path,label\nC:\\pics\\a.png,1", "a path on this machine"),
        ("path,label\n\\\\server\\pics\\a.png,1", "a path on this machine"),
        ("path,label\na.png,genuine", "row 1: label is 'genuine', expected 0 or real, 1 or fake"),
        ("", "it is empty"),
        ("\n\n , \n", "it is empty"),
        ("path,label", "has no rows below its header"),
        ("sep=;\r\npath;label;group\r\n\r\n", "has no rows below its header"),
        (b"PK\x03\x04 no workbook", "it is damaged or not an .xlsx workbook"),
        (b"PAR1 no table", "it is damaged or not a Parquet file"),
        (gzip.compress(b"path,label", mtime=0)[:-9], "it is damaged or not a gzip-compressed CSV"),
        (b"\0" * 50, "it is neither text nor .xlsx nor Parquet"),
        (b"path,label\n" + b"a.png,0\n" * 50 + b"b\0.png,1\n", "it is neither text nor .xlsx nor Parquet"),
        (b"\xd0\xcf\x11\xe0", "old Excel format; save it as .xlsx"),
    ],
)
def test_ambiguous_or_damaged_tables_are_refused(tmp_path, content, message):
    (tmp_path / "m.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as error:
        manifest.read(tmp_path / "m.csv")
    assert message in str(error.value)


def workbook(path, **sheets):
    from openpyxl import Workbook

    book = Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)


@pytest.mark.parametrize("sheets, message", [
    ({"intro": [["a"], [1]], "data": [["path", "label"]]},
     "it has the column a (the sheet 'intro' was read, not 'data': name the right sheet manifest, or move it to the front)"),
    ({"Manifest": [["path"], ["a"]], "x": []}, "it has the column path (the sheet 'Manifest' was read, not 'x'). Expected"),
    ({"s": [["a.png", 0]]}, "it has the columns a.png, 0, so the header seems to be missing (the sheet 's' was read)"),
    ({"s": []}, "it is empty (the sheet 's' was read)"),
    ({"s": [["path", "label"]]}, "has no rows below its header (the sheet 's' was read)")])  # fmt: skip
def test_the_error_names_the_sheet_that_was_read(tmp_path, sheets, message):
    workbook(tmp_path / "m.xlsx", **sheets)
    with pytest.raises(UserError) as error:
        manifest.read(tmp_path / "m.xlsx")
    assert message in str(error.value)


@pytest.mark.parametrize("suffix", ["xlsx", "parquet", "csv.gz"])
def test_the_error_for_a_damaged_file_is_one_line(tmp_path, suffix):
    """Wherever the damage is. The undamaged file is read."""
    path = tmp_path / f"m.{suffix}"
    rows = pd.DataFrame({"path": [f"{number}.png" for number in range(20)], "label": 0})
    {"xlsx": rows.to_excel, "parquet": rows.to_parquet, "csv.gz": rows.to_csv}[suffix](path, index=False)
    content = path.read_bytes()
    assert len(manifest.read(path)) == 20
    for at in range(0, len(content), len(content) // 40):
        for damaged in (content[:at], content[:at] + b"\x55\xff" * 20 + content[at + 40 :]):
            path.write_bytes(damaged)
            try:
                manifest.read(path)  # some damage goes unnoticed
            except UserError as error:
                assert str(path) in str(error) and "\n" not in str(error)


def test_parquet_without_rows_is_refused_and_with_paths_as_index_is_read(tmp_path):
    rows = pd.DataFrame({"path": ["a.png"], "label": [1]})
    rows[:0].to_parquet(tmp_path / "m.parquet")
    with pytest.raises(UserError, match="has no rows below its header"):
        manifest.read(tmp_path / "m.parquet")
    rows.set_index("path").to_parquet(tmp_path / "m.parquet")
    assert list(manifest.read(tmp_path / "m.parquet")["path"]) == [str(tmp_path / "a.png")]


@pytest.mark.parametrize("suffix", ["xlsx", "parquet", "csv"])
@pytest.mark.parametrize("name, accepted", [("is_fake", True), ("Is Fake", True), ("label", False), ("class", False)])
def test_true_is_a_label_only_below_is_fake(tmp_path, suffix, name, accepted):
    path = tmp_path / f"m.{suffix}"
    rows = pd.DataFrame({"path": ["a.png", "b.png"], name: [True, False]})
    {"xlsx": rows.to_excel, "parquet": rows.to_parquet, "csv": rows.to_csv}[suffix](path, index=False)
    if accepted:
        assert list(manifest.read(path)["label"]) == [1, 0]
    else:
        with pytest.raises(UserError, match="row 1: label is 'True', expected 0 or real, 1 or fake"):
            manifest.read(path)


@pytest.mark.parametrize("cells, labels", [("TRUE, false", [1, 0]), ("no,Yes", [0, 1]), ("0,1", [0, 1]), ("fake,real", [1, 0])])
def test_values_below_is_fake(tmp_path, cells, labels):
    first, second = cells.split(",")
    (tmp_path / "m.csv").write_text(f"path,isFake\na.png,{first}\nb.png,{second}\n")
    assert list(manifest.read(tmp_path / "m.csv")["label"]) == labels


@pytest.mark.parametrize("name, column", [
    ("Persons", "group"), ("video_id", "group"), ("identity", "group"), ("generator", "source"), ("Prompt", "text"),
    ("subset", "split"), ("width_cm", ""), ("groop", "group")])  # fmt: skip
def test_unknown_columns_are_reported_with_a_suggestion(tmp_path, name, column):
    assert tables.suggest_column(name) == column
    (tmp_path / "m.csv").write_text(f"path,label,{name}\na.png,0,x\n")
    (unused,) = manifest.read(tmp_path / "m.csv").attrs["notes"]
    assert name in unused and (f"perhaps you meant {column}:" in unused) == bool(column)
    (tmp_path / "m.csv").write_text("path,label,GROUP,sha\na.png,0,x,\n")
    assert manifest.read(tmp_path / "m.csv").attrs["notes"] == ()


@pytest.mark.parametrize("real, fake", [
    ("real", "fake"), ("train/0_Real", "train/1_Fake"), ("x/original_sequences", "manipulated_sequences/y"),
    ("real_vs_fake/real", "real_vs_fake/fake")])  # fmt: skip
def test_swapped_labels_are_refused(real, fake):
    rows = [{"path": f"/d/{folder}/{n}.png", "label": label} for label, folder in ((1, real), (0, fake)) for n in range(10)]
    table = pd.DataFrame(rows)
    with pytest.raises(ValueError, match="10 of 10 files whose path says real are labelled fake.*--data.labels as_given"):
        manifest.require_label_direction(table, "m.csv")
    manifest.require_label_direction(table.assign(label=1 - table["label"]), "m.csv")
    manifest.require_label_direction(table.assign(label=1), "m.csv")  # contradicts the path of one class only
    manifest.require_label_direction(table.assign(label=[0, 1] * 10), "m.csv")
