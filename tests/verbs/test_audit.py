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


def audited(path, out, *flags):
    assert cli.run_verb("audit", [str(path), "--out", str(out), "--data.workers", "2", *flags]) == 0
    page = (out / "audit.html").read_text()
    return json.loads((out / "audit.json").read_text()), page


def test_page_and_json_of_a_clean_set(images, tmp_path, capsys):
    found, page = audited(images, tmp_path / "a")
    assert set(found) == {"counts", "shortcuts", "warnings", "duplicates", "leaks", "failures", "groups"}
    assert found["counts"]["label"] == {"real": 20, "fake": 20}
    assert not [warning for warning in found["warnings"] if warning["kind"] == "container"] and not found["failures"]
    assert 0 <= found["shortcuts"]["all"] <= 1 and {"width", "bytes", "thumbnail"} <= set(found["shortcuts"])
    sentence = "No property of the file format reveals the label"
    assert sentence in page and sentence in " ".join(capsys.readouterr().out.split())


def test_everything_wrong_at_once_is_told(images, tmp_path, capsys):
    """Fakes with another extension, a copy and a group across splits, a broken file; all named with what to do."""
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
    found, page = audited(data, tmp_path / "a")
    by_name = {warning["property"]: warning for warning in found["warnings"]}
    assert by_name["extension"]["auc"] > 0.99 and by_name["extension"]["kind"] == "container"
    leaks = [(leak["kind"], leak["splits"]) for leak in found["leaks"][:2]]
    assert leaks == [("group", ["test", "train"]), ("exact", ["test", "train"])]
    assert [os.path.basename(failure["path"]) for failure in found["failures"]] == [os.path.basename(table.loc[6, "path"])]
    said = capsys.readouterr().out
    assert "learns the file format, not the forgery" in said and "learns the file format, not the forgery" in page
    assert by_name["extension"]["advice"] in said and "not an image or video" in said


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["nowhere"], "nowhere does not exist"),
    (["FOLDER", "--data.layout", "celebdf"], "There is no layout 'celebdf'; perhaps you meant celeb_df"),
])  # fmt: skip
def test_bad_input_is_one_sentence(tmp_path, capsys, arguments, sentence):
    assert cli.run_verb("audit", [word.replace("FOLDER", str(tmp_path)) for word in arguments]) == 2
    assert sentence in capsys.readouterr().err


# --- groups, copies and what is left out -----------------------------------------------------------------------------


@pytest.fixture
def copied(images, tmp_path):
    """20 + 20 pictures without groups or splits, of which each third real lies there again under another name."""
    root = tmp_path / "copied"
    shutil.copytree(images, root)
    (root / "manifest.csv").unlink()
    for label in ("real", "fake"):  # names that join nothing
        for number, path in enumerate(sorted((root / label).iterdir())):
            path.rename(path.with_name(f"{label[0]}{number:03d}x.jpg"))
    for path in sorted((root / "real").iterdir())[::3]:
        cv2.imwrite(str(path.with_name(f"again_{path.name}")), cv2.imread(str(path)), [cv2.IMWRITE_JPEG_QUALITY, 60])
    for path in root.glob("*.json"):
        path.unlink()
    (root / "notes.txt").write_text("not a picture")
    return root


def test_copies_that_would_leak_are_no_leaks_and_nothing_is_called_clean(copied, tmp_path, capsys):
    assert cli.main(["audit", str(copied), "--out", str(tmp_path / "a")]) == 0
    said, found = capsys.readouterr().out, json.loads((tmp_path / "a/audit.json").read_text())
    assert "would leak when the data are split by group" in said and "nothing leaks" not in said and "more leaks" not in said
    assert "Groups: none given; each file is its own" in said and "No groups are given" in said
    assert "48 files: 47 read, 0 failed, 1 left out" in said and "Left out: 1 .txt" in said
    assert found["groups"] == {"count": 47, "known": False, "said": grouping.NO_GROUPS}
    assert found["counts"]["others"] == {".txt": 1}
    page = (tmp_path / "a/audit.html").read_text()
    assert "none given; each file is its own" in page and "1 other file left out (1 .txt)" in page


def test_copies_are_written_into_one_group(copied, tmp_path, capsys):
    argv = ["audit", str(copied), "--out", str(tmp_path / "a"), "--write_groups", str(tmp_path / "grouped.csv")]
    assert cli.main(argv) == 0
    said = capsys.readouterr().out
    assert f"train.py cnn --data.path {tmp_path / 'grouped.csv'}" in said
    table = detect.read(tmp_path / "grouped.csv")
    group = dict(zip(table["path"].map(os.path.basename), table["group"], strict=True))
    assert len(table) == 47 and all(group[f"again_{name}"] == group[name] for name in group if f"again_{name}" in group)
    assert table["group"].nunique() <= 40
    assert cli.main(argv) == 2 and "--overwrite" in capsys.readouterr().err, "a file of the user's own is not written over"
    assert cli.main([*argv, "--overwrite"]) == 0


def test_groups_are_written_to_a_name_of_its_own(copied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["audit", str(copied), "--write_groups", "--out", str(tmp_path / "a")]) == 0
    assert (tmp_path / "grouped.csv").exists()


def test_copies_across_a_given_split_go_to_one_side(copied, tmp_path):
    table = detect.read(copied)
    table["split"] = ["test" if "again" in path else "train" for path in table["path"]]
    manifest.write(table, tmp_path / "split.csv")
    flags = ["--out", str(tmp_path / "a"), "--write_groups", str(tmp_path / "g.csv")]
    assert cli.main(["audit", str(tmp_path / "split.csv"), *flags]) == 0
    manifest.require_unsplit_groups(manifest.split(detect.read(tmp_path / "g.csv")))
