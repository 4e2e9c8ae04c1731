"""predict --out: the rows of each format, file names that look like formulas, and going on after SIGKILL."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import openpyxl
import pyarrow.parquet
import pytest

import tfdetect
from tfdetect import __version__, cli
from tfdetect.api.load import TrainedDetector
from tfdetect.errors import UserError
from tfdetect.workflow import table_formats, verdict_table

pytestmark = pytest.mark.usefixtures("light")
FORMATS = [".parquet", ".csv", ".jsonl", ".xlsx"]
NAMES = ["=1+1.jpg", "+1.jpg", "-1.jpg", "@SUM(A1).jpg", "'quoted.jpg", "tab\t.jpg", "bell\x07.jpg", "häßlich, mit Komma.jpg",
         os.fsdecode(b"\xff.jpg")]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    settings = {"data.size": 32, "sample": 20, "width": 4, "epochs": 0, "batch": 8}
    return tfdetect.train("cnn", cache_dir=folder / "cache", out=folder / "saved_models", name="small", **settings)


@pytest.fixture
def folder(images, tmp_path):
    """Pictures, among them those with odd names, and one that is none."""
    folder = tmp_path / "files"
    folder.mkdir()
    sources = sorted(images.glob("*/*.jpg"))
    for source, name in zip(sources, [*NAMES, "a.jpg", "b.jpg"], strict=False):
        shutil.copy(source, folder / name)
    (folder / "bad.jpg").write_bytes(b"nothing")
    return folder


@pytest.fixture
def scored(monkeypatch):
    """The paths that were scored."""
    paths, original = [], TrainedDetector.predict_each

    def predict_each(self, files, *rest, **options):
        for verdict in original(self, files, *rest, **options):
            paths.append(verdict.path)
            yield verdict

    monkeypatch.setattr(TrainedDetector, "predict_each", predict_each)
    return paths


def predict(run, *words):
    return cli.main(["predict", str(run.folder), *map(str, words)])


def raw_rows(path):
    """Read a table as other programs do."""
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        with open(path, errors="surrogateescape", newline="") as file:
            return list(csv.DictReader(file))
    header, *rows = openpyxl.load_workbook(path).active.iter_rows(values_only=True)
    return [dict(zip(header, row, strict=True)) for row in rows]


def rounded(row):
    """Return a row that equals others if their scores differ in the last digits: the files shared other batches."""
    return {name: pytest.approx(value, rel=1e-5) if isinstance(value, float) else value for name, value in row.items()}


def rows_of(path):
    """Read a table as `predict` does when it goes on."""
    return list(table_formats.by_suffix(path).read(path))


@pytest.mark.parametrize("suffix", FORMATS)
def test_rows_are_the_verdicts_in_the_order_of_the_files(run, folder, tmp_path, suffix, capsys):
    table = tmp_path / f"deep/verdicts{suffix}"
    assert predict(run, folder, "--json") == 1
    verdicts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert predict(run, folder, "--out", table) == 1
    out = capsys.readouterr().out
    assert f"Verdicts  {table}" in out and "12 files: 11 scored, 1 failed, 0 left out. Called fake from" in out
    assert os.listdir(table.parent) == [table.name], "nothing else is left"
    stored = table_formats.by_suffix(table)
    expected = [{**verdict, "path": stored.path_text(verdict["path"])} for verdict in verdicts]
    rows = rows_of(table)
    for row, verdict in zip(rows, expected, strict=True):
        assert {name: row[name] for name in verdict} == rounded(verdict)
        assert row["run"] == "small" and row["version"] == __version__ and row["threshold"] == run.predictor.threshold
        assert row["date"].endswith("Z") and row["modified"].startswith("20") and row["bytes"] > 0
    raw = raw_rows(table)
    assert list(raw[0]) == list(table_formats.TYPES) and len(raw) == len(rows) == 12
    assert float(raw[0]["score"]) == rows[0]["score"], "all digits are kept"


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_command_again_scores_nothing_and_gives_the_same_table(run, folder, tmp_path, suffix, scored):
    table = tmp_path / f"verdicts{suffix}"
    assert predict(run, folder, "--out", table) == 1 and len(scored) == 12
    first = rows_of(table)
    assert predict(run, folder, "--out", table) == 1 and len(scored) == 12, "the exit code remembers the failure"
    assert rows_of(table) == first


def test_only_new_and_changed_files_are_scored_and_rows_of_other_files_are_kept(run, folder, images, tmp_path, scored):
    table = tmp_path / "verdicts.csv"
    predict(run, folder, "--out", table)
    scored.clear()
    shutil.copy(next(images.glob("fake/*.jpg")), folder / "aa.jpg")
    shutil.copy(next(images.glob("fake/*.jpg")), folder / "b.jpg")
    (folder / "a.jpg").unlink()
    predict(run, folder, "--out", table)
    assert sorted(scored) == [str(folder / name) for name in ("aa.jpg", "b.jpg")]
    paths = [row["path"] for row in rows_of(table)]
    assert paths == [*(str(folder / name) for name in sorted(os.listdir(folder))), str(folder / "a.jpg")]


def test_a_file_that_could_not_be_opened_is_tried_again_once_it_can_be(run, folder, tmp_path, scored):
    table, late = tmp_path / "verdicts.jsonl", folder / "late.jpg"
    assert predict(run, folder / "a.jpg", late, late, "--out", table) == 1
    assert [row["error"] for row in rows_of(table)] == [None, *2 * ["No such file or directory"]]
    shutil.copy(folder / "a.jpg", late)
    assert predict(run, folder / "a.jpg", late, "--out", table) == 0
    assert sorted(scored) == [str(folder / "a.jpg"), str(late), str(late)]


def test_no_file_name_becomes_a_formula(run, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    for suffix in (".csv", ".xlsx"):
        predict(run, ".", "--out", tmp_path / f"verdicts{suffix}")
    cells = {row["path"] for row in raw_rows(tmp_path / "verdicts.csv")}
    risky = {name for name in NAMES if name[0] in "=+-@'"}
    assert {f"'{name}" for name in risky} <= cells and not risky & cells
    assert risky <= {row["path"] for row in rows_of(tmp_path / "verdicts.csv")}, "reading takes the apostrophe off"
    sheet = openpyxl.load_workbook(tmp_path / "verdicts.xlsx").active
    paths = {row[0].value: row[0] for row in sheet.iter_rows(min_row=2)}
    assert risky <= set(paths) and all(paths[name].data_type == "s" and paths[name].quotePrefix for name in risky)
    assert "f" not in {cell.data_type for row in sheet.iter_rows() for cell in row}, "no formulas"


KILLED = """
import sys, time
from tfdetect import cli
from tfdetect.serving.predictor import Predictor
from tfdetect.workflow import verdict_table
score, save = Predictor.to_verdicts, verdict_table.VerdictTable.save
Predictor.to_verdicts = lambda *given: (time.sleep(0.3), score(*given))[1]
verdict_table.VerdictTable.save = lambda table: (save(table), print("saved", flush=True))
verdict_table.SAVE_EVERY = 0.5
import tfdetect.serving.predictor as module
module.MAX_BATCH = 2
cli.main(["predict", *sys.argv[1:]])
"""


def test_a_killed_command_goes_on_where_it_was(run, images, tmp_path, scored):
    table, reference = tmp_path / "verdicts.parquet", tmp_path / "reference.parquet"
    words = [str(run.folder), str(images), "--out", str(table)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen([sys.executable, "-c", KILLED, *words], stdout=subprocess.PIPE, text=True, env=environment)
    saved = 0
    while saved < 3:
        line = process.stdout.readline()
        assert line, "it ended before it could be killed"
        saved += line.strip() == "saved"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not table.exists() and (tmp_path / "verdicts.parquet.part").exists()
    assert predict(run, images, "--out", table) == 0
    assert 0 < len(scored) < 40, "some were scored before"
    assert sorted(os.listdir(tmp_path)) == ["verdicts.parquet"]
    assert predict(run, images, "--out", reference) == 0
    rows, expected = ([{**row, "date": ""} for row in rows_of(path)] for path in (table, reference))
    assert rows == list(map(rounded, expected))


def test_what_cannot_be_written_is_one_sentence(run, folder, tmp_path, capsys, monkeypatch):
    def error(*words):
        assert predict(run, folder, *words) == 2
        return capsys.readouterr().err.splitlines()[-1]

    for words, text in (("--out", "a.txt"), ".parquet, .csv, .jsonl, .xlsx"), (("--out", "a.csv", "--json"), "give one of them"):
        with pytest.raises(SystemExit, match="2"):  # by the parser
            predict(run, folder, *words)
        assert text in " ".join(capsys.readouterr().err.split())
    (tmp_path / "mine.csv").write_text("path,label\na.jpg,0\n")
    (tmp_path / "mine.parquet").write_text("no Parquet")
    for name in ("mine.csv", "mine.parquet"):
        assert f"{name} exists, and predict did not write it: give another --out." in error("--out", tmp_path / name)
    monkeypatch.setattr(table_formats, "MAX_SHEET_ROWS", 11)
    assert "A sheet of .xlsx holds at most 11 files, got 12" in error("--out", tmp_path / "a.xlsx")
    (tmp_path / "bad.csv.part").write_bytes(b"no database" * 1000)
    assert "bad.csv.part is damaged" in error("--out", tmp_path / "bad.csv")
    with verdict_table.open_table(tmp_path / "twice.csv", {}, "key"):
        assert "twice.csv cannot be written: another process is writing it" in error("--out", tmp_path / "twice.csv")
    assert sorted(os.listdir(tmp_path)) == ["bad.csv.part", "files", "mine.csv", "mine.parquet"]


def test_verdicts_of_another_model_are_not_mixed(run, folder, tmp_path, capsys):
    table, copy = tmp_path / "verdicts.csv", tmp_path / "copy"
    shutil.copytree(run.folder, copy)
    assert cli.main(["predict", str(copy), str(folder), "--out", str(table)]) == 1
    before = table.read_bytes()
    calibration = json.loads((copy / "calibration.json").read_text())
    (copy / "calibration.json").write_text(json.dumps({**calibration, "threshold": 0.9}))
    assert cli.main(["predict", str(copy), str(folder), "--out", str(table), "--trust"]) == 2
    assert "holds verdicts of another model, or with another threshold, timeout or limit" in capsys.readouterr().err
    assert table.read_bytes() == before and not Path(f"{table}.part").exists()


def test_python_writes_the_same_table(run, folder, tmp_path):
    written = run.predict_to(tmp_path / "verdicts.jsonl", folder, workers=1)
    assert (written.path, written.files, written.failed) == (tmp_path / "verdicts.jsonl", 12, 1)
    assert [row["path"] for row in rows_of(written.path)] == run.predict(folder, workers=1)["path"].tolist()
    with pytest.raises(UserError, match="--out must end in"):
        run.predict_to("verdicts.txt", folder)
