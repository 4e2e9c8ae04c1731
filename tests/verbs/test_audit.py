"""`audit` from the command line: page, JSON, exit codes."""

import json
import os
import shutil

import cv2
import pandas as pd
import pytest

from tfdetect import cli
from tfdetect.data import manifest
from tfdetect.data.layouts import detect, grouping

pytestmark = pytest.mark.usefixtures("light")


def audit(path, out, *flags):
    assert cli.run_verb("audit", [str(path), "--out", str(out), "--data.workers", "2", *flags]) == 0
    page = (out / "audit.html").read_text()
    return json.loads((out / "audit.json").read_text()), page


def test_page_and_json_of_a_clean_set(images, tmp_path, capsys):
    findings, page = audit(images, tmp_path / "a")
    assert set(findings) == {"check", "counts", "shortcuts", "shortcut_intervals", "warnings", "duplicates", "leaks",
                             "failures", "groups"}  # fmt: skip
    low, high = findings["shortcut_intervals"]["all"]
    assert low <= findings["shortcuts"]["all"] <= high
    assert findings["counts"]["label"] == {"real": 20, "fake": 20}
    assert not [warning for warning in findings["warnings"] if warning["kind"] == "container"] and not findings["failures"]
    assert 0 <= findings["shortcuts"]["all"] <= 1 and {"width", "bytes", "thumbnail"} <= set(findings["shortcuts"])
    sentence = "No property of the file format reveals the label"
    assert sentence in page and sentence in " ".join(capsys.readouterr().out.split())


def test_all_problems_at_once_are_reported(images, tmp_path, capsys):
    """Fakes with another extension, a copy and a group across splits, a broken file; each is reported with advice."""
    data = tmp_path / "data"
    shutil.copytree(images, data)
    table = pd.read_csv(data / "manifest.csv")
    fakes = table.index[table["label"] == 1]
    for row in fakes:
        path = data / table.loc[row, "path"]
        path.rename(path.with_suffix(".jpeg"))
        table.loc[row, "path"] = os.path.relpath(path.with_suffix(".jpeg"), data)
    table["split"] = ["train" if i % 2 else "test" for i in range(len(table))]
    table["group"] = [f"g{i}" for i in range(len(table))]
    table.loc[[4, 5], "group"] = "twice"
    table.loc[2, "split"] = "train"
    shutil.copy(data / table.loc[0, "path"], data / table.loc[2, "path"])
    (data / table.loc[6, "path"]).write_bytes(b"nothing")
    table.to_csv(data / "manifest.csv", index=False)
    findings, page = audit(data, tmp_path / "a")
    by_name = {warning["property"]: warning for warning in findings["warnings"]}
    assert by_name["extension"]["auc"] > 0.99 and by_name["extension"]["kind"] == "container"
    leaks = [(leak["kind"], leak["splits"]) for leak in findings["leaks"][:2]]
    assert leaks == [("group", ["test", "train"]), ("exact", ["test", "train"])]
    assert [os.path.basename(failure["path"]) for failure in findings["failures"]] == [os.path.basename(table.loc[6, "path"])]
    output = capsys.readouterr().out
    assert "learns the file format, not the forgery" in output and "learns the file format, not the forgery" in page
    assert by_name["extension"]["advice"] in output and "not an image or video" in output


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["nowhere"], "nowhere does not exist"),
    (["FOLDER", "--data.layout", "celebdf"], "There is no layout 'celebdf'. Perhaps you meant celeb_df"),
])  # fmt: skip
def test_bad_input_is_one_sentence(tmp_path, capsys, arguments, sentence):
    assert cli.run_verb("audit", [word.replace("FOLDER", str(tmp_path)) for word in arguments]) == 2
    assert sentence in capsys.readouterr().err


# --- groups, copies and excluded files -----------------------------------------------------------------------------


@pytest.fixture
def copied(images, tmp_path):
    """20 + 20 images without groups or splits, with a re-encoded copy of every third real under another name."""
    root = tmp_path / "copied"
    shutil.copytree(images, root)
    (root / "manifest.csv").unlink()
    for label in ("real", "fake"):  # names that do not suggest groups
        for number, path in enumerate(sorted((root / label).iterdir())):
            path.rename(path.with_name(f"{label[0]}{number:03d}x.jpg"))
    for path in sorted((root / "real").iterdir())[::3]:
        cv2.imwrite(str(path.with_name(f"again_{path.name}")), cv2.imread(str(path)), [cv2.IMWRITE_JPEG_QUALITY, 60])
    for path in root.glob("*.json"):
        path.unlink()
    (root / "notes.txt").write_text("not an image")
    return root


def test_copies_without_splits_are_possible_leaks(copied, tmp_path, capsys):
    assert cli.main(["audit", str(copied), "--out", str(tmp_path / "a")]) == 0
    output, findings = capsys.readouterr().out, json.loads((tmp_path / "a/audit.json").read_text())
    assert "would leak when the data are split by group" in output and "nothing leaks" not in output
    assert "more leaks" not in output and "more possible leaks" in output
    assert "Groups: none given; each file is a group" in output and "No groups are given" in output
    assert "48 files: 47 read, 0 failed, 1 left out" in output and "Left out: 1 .txt" in output
    assert findings["groups"] == {"count": 47, "known": False, "said": grouping.NO_GROUPS}
    assert findings["counts"]["others"] == {".txt": 1}
    page = (tmp_path / "a/audit.html").read_text()
    assert "none given; each file is a group" in page and "1 other file left out (1 .txt)" in page


def test_write_groups_joins_copies(copied, tmp_path, capsys):
    argv = ["audit", str(copied), "--out", str(tmp_path / "a"), "--write_groups", str(tmp_path / "grouped.csv")]
    assert cli.main(argv) == 0
    output = capsys.readouterr().out
    assert f"tfdetect train cnn --data.path {tmp_path / 'grouped.csv'}" in output
    table = detect.read(tmp_path / "grouped.csv")
    group = dict(zip(table["path"].map(os.path.basename), table["group"], strict=True))
    assert len(table) == 47 and all(group[f"again_{name}"] == group[name] for name in group if f"again_{name}" in group)
    assert table["group"].nunique() <= 40
    assert cli.main(argv) == 2 and "--overwrite" in capsys.readouterr().err, "an existing file is not overwritten"
    assert cli.main([*argv, "--overwrite"]) == 0


def test_write_groups_has_a_default_file(copied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["audit", str(copied), "--write_groups", "--out", str(tmp_path / "a")]) == 0
    assert (tmp_path / "grouped.csv").exists()


def test_write_groups_moves_copies_to_one_split(copied, tmp_path):
    table = detect.read(copied)
    table["split"] = ["test" if "again" in path else "train" for path in table["path"]]
    manifest.write(table, tmp_path / "split.csv")
    flags = ["--out", str(tmp_path / "a"), "--write_groups", str(tmp_path / "g.csv")]
    assert cli.main(["audit", str(tmp_path / "split.csv"), *flags]) == 0
    manifest.require_unsplit_groups(manifest.split(detect.read(tmp_path / "g.csv")))
