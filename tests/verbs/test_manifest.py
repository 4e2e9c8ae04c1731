"""manifest: a table of the files of any folder, to be filled in by hand."""

import os
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from planted import plant

from tfdetect import cli
from tfdetect.data import manifest, tables


def read_table(path):
    table = tables.read(path)
    assert all((path.parent / name).exists() for name in table["path"]), "paths are relative to the table's folder"
    return table.set_index(table["path"].map(os.path.basename))


def test_class_folders_give_labels_and_other_folders_none(images, tmp_path, monkeypatch, capsys):
    shutil.copytree(images, tmp_path / "set")
    (tmp_path / "set" / "manifest.csv").unlink()
    (tmp_path / "set" / "fake_v2").mkdir()
    shutil.copy(next((images / "fake").iterdir()), tmp_path / "set" / "fake_v2" / "new.jpg")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["manifest", "set"]) == 0
    table = read_table(tmp_path / "manifest.csv")
    assert list(table.columns[:3]) == ["path", "label", "group"] and not table["group"].any()
    assert table["label"].value_counts().to_dict() == {"real": 20, "fake": 20, "": 1} and table.loc["new.jpg", "label"] == ""
    assert "20 real, 20 fake, 1 without a label" in capsys.readouterr().out
    assert cli.main(["manifest", "set"]) == 2 and "--overwrite" in capsys.readouterr().err
    assert cli.main(["manifest", "set", "--overwrite", "--out", "set/manifest.csv"]) == 0
    assert cli.main(["manifest", "set", "--overwrite", "--out", "set/manifest.csv"]) == 0, "the old table is not read"
    assert read_table(tmp_path / "set" / "manifest.csv")["path"].str.startswith(("real/", "fake/", "fake_v2/")).all()
    shutil.rmtree(tmp_path / "set" / "fake_v2")
    assert cli.main(["manifest", "set", "--out", "tables/m.xlsx"]) == 0
    assert len(manifest.read(tmp_path / "tables" / "m.xlsx")) == 40


def test_a_flat_folder_and_a_table_behind_a_link(images, tmp_path, capsys):
    shutil.copytree(images / "real", tmp_path / "a" / "b" / "pics")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    out = tmp_path / "link" / "m.csv"
    assert cli.main(["manifest", str(images / "real"), "--out", str(out)]) == 0
    table = read_table(out)
    assert len(table) == 20 and not table["label"].any()
    assert cli.main(["audit", str(out)]) == 2 and "label is '', expected 0 or real" in capsys.readouterr().err


def test_groups_and_splits_of_public_sets_are_kept(tmp_path):
    plant(tmp_path / "set", *(f"Celeb-real/id{n}_0000.mp4" for n in range(3)), "Celeb-synthesis/id0_id1_0000.mp4",
          "YouTube-real/00001.mp4", ("List_of_testing_videos.txt", "1 YouTube-real/00001.mp4\n"))  # fmt: skip
    assert cli.main(["manifest", str(tmp_path / "set"), "--out", str(tmp_path / "m.csv")]) == 0
    table = read_table(tmp_path / "m.csv")
    assert table.loc["id0_0000.mp4", "group"] == table.loc["id0_id1_0000.mp4", "group"] != ""
    assert table.loc["00001.mp4", "split"] == "test"


@pytest.mark.parametrize("files, message", [((), "holds no images or videos"), (None, "is not a folder")])
def test_nothing_to_list(tmp_path, capsys, files, message):
    if files is None:
        (tmp_path / "set").write_text("")
    else:
        (tmp_path / "set").mkdir()
    assert cli.main(["manifest", str(tmp_path / "set"), "--out", str(tmp_path / "m.csv")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "m.csv").exists()


def test_a_filled_in_table_is_a_data_set(images, tmp_path):
    """Also with the separator and encoding of a spreadsheet program."""
    assert cli.main(["manifest", str(images / "real"), "--out", str(tmp_path / "m.csv")]) == 0
    table = pd.read_csv(tmp_path / "m.csv", dtype=str).assign(label="0", group=[f"person {n // 2}" for n in range(20)])
    table.to_csv(tmp_path / "m.csv", sep=";", encoding="utf-16")
    assert manifest.read(tmp_path / "m.csv")["group"].nunique() == 10


def test_frames_of_a_video_get_a_group(tmp_path, rng, capsys):
    """Otherwise the printed train command would divide them between splits."""
    for kind in ("real", "fake"):
        for number in range(4):
            base = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (48, 48), interpolation=cv2.INTER_CUBIC)
            for k in range(6):
                path = tmp_path / "set" / kind / f"{kind}{number}" / f"{k:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), np.clip(base + rng.normal(0, 5, base.shape) + k, 0, 255).astype(np.uint8))
    (tmp_path / "set" / "notes.txt").write_text("")
    assert cli.main(["manifest", str(tmp_path / "set"), "--out", str(tmp_path / "m.csv")]) == 0
    message = capsys.readouterr().out
    assert "Left out: 1 other file" in message and "Already filled in: 8 groups" in message
    assert sorted(manifest.read(tmp_path / "m.csv").groupby("group").size()) == [6] * 8
