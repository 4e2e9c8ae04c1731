"""`manifest`: a table of any folder, to be filled in."""

import os
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from planted import plant

from tfdetect import cli
from tfdetect.data import manifest, tables


def listed(path):
    table = tables.read(path)
    assert all((path.parent / name).exists() for name in table["path"]), "relative paths start where the table is"
    return table.set_index(table["path"].map(os.path.basename))


def test_class_folders_are_labelled_and_the_rest_is_left_to_fill_in(images, tmp_path, monkeypatch, capsys):
    shutil.copytree(images, tmp_path / "set")
    (tmp_path / "set" / "manifest.csv").unlink()
    (tmp_path / "set" / "fake_v2").mkdir()
    shutil.copy(next((images / "fake").iterdir()), tmp_path / "set" / "fake_v2" / "new.jpg")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["manifest", "set"]) == 0
    table = listed(tmp_path / "manifest.csv")
    assert list(table.columns[:3]) == ["path", "label", "group"] and not table["group"].any()
    assert table["label"].value_counts().to_dict() == {"real": 20, "fake": 20, "": 1} and table.loc["new.jpg", "label"] == ""
    assert "20 real, 20 fake, 1 without a label" in capsys.readouterr().out
    assert cli.main(["manifest", "set"]) == 2 and "--overwrite" in capsys.readouterr().err
    assert cli.main(["manifest", "set", "--overwrite", "--out", "set/manifest.csv"]) == 0
    assert cli.main(["manifest", "set", "--overwrite", "--out", "set/manifest.csv"]) == 0, "not made of itself"
    assert listed(tmp_path / "set" / "manifest.csv")["path"].str.startswith(("real/", "fake/", "fake_v2/")).all()
    shutil.rmtree(tmp_path / "set" / "fake_v2")
    assert cli.main(["manifest", "set", "--out", "tables/m.xlsx"]) == 0
    assert len(manifest.read(tmp_path / "tables" / "m.xlsx")) == 40


def test_a_flat_folder_seen_through_a_link(images, tmp_path, capsys):
    shutil.copytree(images / "real", tmp_path / "a" / "b" / "pics")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    out = tmp_path / "link" / "m.csv"
    assert cli.main(["manifest", str(images / "real"), "--out", str(out)]) == 0
    table = listed(out)
    assert len(table) == 20 and not table["label"].any()
    assert cli.main(["audit", str(out)]) == 2 and "label is '', expected 0 or real" in capsys.readouterr().err


def test_what_a_public_set_knows_is_kept(tmp_path):
    plant(tmp_path / "set", *(f"Celeb-real/id{n}_0000.mp4" for n in range(3)), "Celeb-synthesis/id0_id1_0000.mp4",
          "YouTube-real/00001.mp4", ("List_of_testing_videos.txt", "1 YouTube-real/00001.mp4\n"))  # fmt: skip
    assert cli.main(["manifest", str(tmp_path / "set"), "--out", str(tmp_path / "m.csv")]) == 0
    table = listed(tmp_path / "m.csv")
    assert table.loc["id0_0000.mp4", "group"] == table.loc["id0_id1_0000.mp4", "group"] != ""
    assert table.loc["00001.mp4", "split"] == "test"


@pytest.mark.parametrize("files, said", [((), "holds no image or video"), (None, "is no folder")])
def test_nothing_to_list(tmp_path, capsys, files, said):
    if files is None:
        (tmp_path / "set").write_text("")
    else:
        (tmp_path / "set").mkdir()
    assert cli.main(["manifest", str(tmp_path / "set"), "--out", str(tmp_path / "m.csv")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "m.csv").exists()


def test_it_writes_what_can_be_filled_in_and_read(images, tmp_path):
    """One filled in by hand, as a program saves it, is a data set."""
    assert cli.main(["manifest", str(images / "real"), "--out", str(tmp_path / "m.csv")]) == 0
    table = pd.read_csv(tmp_path / "m.csv", dtype=str).assign(label="0", group=[f"person {n // 2}" for n in range(20)])
    table.to_csv(tmp_path / "m.csv", sep=";", encoding="utf-16")
    assert manifest.read(tmp_path / "m.csv")["group"].nunique() == 10


def test_frames_of_a_video_are_filled_in_as_a_group(tmp_path, rng, capsys):
    """Else the command that is printed next would part them."""
    for kind in ("real", "fake"):
        for number in range(4):
            base = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (48, 48), interpolation=cv2.INTER_CUBIC)
            for k in range(6):
                path = tmp_path / "set" / kind / f"{kind}{number}" / f"{k:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), np.clip(base + rng.normal(0, 5, base.shape) + k, 0, 255).astype(np.uint8))
    (tmp_path / "set" / "notes.txt").write_text("")
    assert cli.main(["manifest", str(tmp_path / "set"), "--out", str(tmp_path / "m.csv")]) == 0
    said = capsys.readouterr().out
    assert "Left out: 1 other file" in said and "Filled in: 8 groups" in said
    assert sorted(manifest.read(tmp_path / "m.csv").groupby("group").size()) == [6] * 8
