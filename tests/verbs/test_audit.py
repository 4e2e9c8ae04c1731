"""`audit` from the command line: page, JSON, exit codes."""

import json
import os
import shutil

import pandas as pd
import pytest

from tfdetect import cli


def audited(path, out, *flags):
    assert cli.run("audit", [str(path), "--out", str(out), "--data.workers", "2", *flags]) == 0
    page = (out / "audit.html").read_text()
    return json.loads((out / "audit.json").read_text()), page


def test_page_and_json_of_a_clean_set(images, tmp_path, capsys):
    found, page = audited(images, tmp_path / "a")
    assert set(found) == {"counts", "shortcuts", "warnings", "duplicates", "leaks", "failures"}
    assert found["counts"]["label"] == {"real": 20, "fake": 20}
    assert not [warning for warning in found["warnings"] if warning["kind"] == "container"] and not found["failures"]
    assert 0 <= found["shortcuts"]["all"] <= 1 and {"width", "bytes", "thumbnail"} <= set(found["shortcuts"])
    assert "No property of the container tells the label" in page and "No property of the container" in capsys.readouterr().out


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
    shutil.copy(data / table.loc[0, "path"], data / table.loc[1, "path"])
    (data / table.loc[6, "path"]).write_bytes(b"nothing")
    table.to_csv(data / "manifest.csv", index=False)
    found, page = audited(data, tmp_path / "a")
    by_name = {warning["property"]: warning for warning in found["warnings"]}
    assert by_name["extension"]["auc"] > 0.99 and by_name["extension"]["kind"] == "container"
    leaks = [(leak["kind"], leak["splits"]) for leak in found["leaks"][:2]]
    assert leaks == [("group", ["test", "train"]), ("exact", ["test", "train"])]
    assert [os.path.basename(failure["path"]) for failure in found["failures"]] == [os.path.basename(table.loc[6, "path"])]
    said = capsys.readouterr().out
    assert "learns the container, not the fake" in said and "learns the container, not the fake" in page
    assert by_name["extension"]["advice"] in said and "not an image or video" in said


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["nowhere"], "nowhere does not exist"),
    (["FOLDER", "--data.layout", "celebdf"], "There is no layout 'celebdf'; perhaps you meant celeb_df"),
])  # fmt: skip
def test_bad_input_is_one_sentence(tmp_path, capsys, arguments, sentence):
    assert cli.run("audit", [word.replace("FOLDER", str(tmp_path)) for word in arguments]) == 2
    assert sentence in capsys.readouterr().err
