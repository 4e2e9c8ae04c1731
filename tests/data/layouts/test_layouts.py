"""Recognition of layouts, class folders, manifests in folders, unusual entries, and errors."""

import dataclasses
import importlib.util
import os

import numpy as np
import pandas as pd
import pytest
from planted import plant, rows

from tfdetect.data import manifest
from tfdetect.data.layouts import detect
from tfdetect.data.layouts.tree import LAYOUTS, Tree

# --- class folders ---------------------------------------------------------------------------------------------------


def test_class_folders_in_any_case_and_depth(tmp_path):
    plant(tmp_path, "Real/1.jpg", "FAKE/stylegan/1.PNG", "FAKE/sd/2.png", "FAKE/notes.txt", ".hidden/real/3.jpg")
    found = rows(tmp_path)
    assert {name: (row.label, row.source) for name, row in found.items()} == {
        "Real/1.jpg": (0, "Real"), "FAKE/stylegan/1.PNG": (1, "stylegan"), "FAKE/sd/2.png": (1, "sd")}  # fmt: skip
    assert found["Real/1.jpg"].group == found["FAKE/stylegan/1.PNG"].group


@pytest.mark.parametrize("root", ["", "archive/data v2"])
def test_split_folders_above_or_below_the_class(tmp_path, root):
    plant(tmp_path / root, "Train/REAL/1.jpg", "Train/FAKE/1.jpg", "valid/real/1.jpg", "test/fake/1.jpg", "Fake/Dev/9.jpg")
    found = detect.read(tmp_path)
    assert {source.lower() for source in found["source"]} == {"real", "fake"}
    assert sorted(found[["split", "label"]].itertuples(index=False, name=None)) == [
        ("test", 1), ("train", 0), ("train", 1), ("validation", 0), ("validation", 1)]  # fmt: skip
    assert found["group"].is_unique, "they are split already"


def test_the_generator_may_be_above_the_class(tmp_path):
    plant(tmp_path, "sd/real/1.jpg", "sd/fake/2.jpg", "gan/v2/fake/cats/3.jpg", "loose.jpg")
    assert {name: row.source for name, row in rows(tmp_path).items()} == {
        "sd/real/1.jpg": "sd", "sd/fake/2.jpg": "sd", "gan/v2/fake/cats/3.jpg": "gan/v2/cats"}  # fmt: skip
    attrs = detect.read(tmp_path).attrs
    assert attrs["layout"] == "class_folders" and attrs["left_out"] == {"./": 1}


@pytest.mark.parametrize(
    "real, fake", [("7.mp4", "7.mp4"), ("7_input.mp4", "7.mp4"), ("real_7.png", "fake_7.jpg"), ("7-Real.mp4", "x/7.mp4")]
)
def test_counterparts_are_one_group(tmp_path, real, fake):
    plant(tmp_path, f"real/{real}", f"fake/{fake}", "fake/fake.mp4", "fake/77.mp4", "real/input.mp4")
    found = rows(tmp_path)
    assert found[f"real/{real}"].group == found[f"fake/{fake}"].group and len({row.group for row in found.values()}) == 4


@pytest.mark.parametrize("split", ["", "train/"])
def test_frames_of_one_folder_are_one_video(tmp_path, split):
    plant(
        tmp_path, *(f"{split}{kind}/{video}/frame_{n}.jpg" for kind in ("real", "fake") for video in ("v1", "v2") for n in (1, 2))
    )
    found = detect.read(tmp_path)
    assert set(found.groupby("group").size()) == ({2} if split else {4}), "without splits, with its counterpart"
    plant(tmp_path / "flat", "real/frame_1.jpg", "real/frame_2.jpg", "fake/frame_1.jpg")
    assert sorted(detect.read(tmp_path / "flat")["group"]) == ["frame_1", "frame_1", "frame_2"], "their video is unknown"


def test_with_named_fakes_all_other_folders_are_real(tmp_path):
    plant(tmp_path, "fight/a.mp4", "nofight/b.mp4", "calm/c.mp4", "train/calm/d.mp4")
    found = detect.read(tmp_path, fake=("Fight",))
    assert sorted(zip(found["source"], found["label"], strict=True)) == [("calm", 0), ("calm", 0), ("fight", 1), ("nofight", 0)]


def test_several_named_fakes_and_named_fakes_in_a_public_set(tmp_path):
    plant(tmp_path, "ADM/train/ai/1.png", "ADM/train/nature/2.png", "ADM/val/ai/3.png")
    assert detect.read(tmp_path, fake=("ai",), layout="genimage").attrs["layout"] == "genimage"
    plant(tmp_path / "two", "synthetic/a.jpg", "edited/b.jpg", "camera/c.jpg")
    assert sorted(detect.read(tmp_path / "two", fake=("synthetic", "Edited"))["label"]) == [0, 1, 1]


def test_sources_select_only_among_fakes(tmp_path):
    plant(tmp_path, "real/a.jpg", "fake/sd, v1/b.jpg", "fake/gan/c.jpg")
    kept = detect.read(tmp_path, sources=("SD, v1",))
    assert sorted(kept["source"]) == ["real", "sd, v1"] and kept.attrs["layout"] == "class_folders", "a name may contain a comma"
    with pytest.raises(ValueError, match="No fakes have the source 'real'. The sources of fakes are gan, sd, v1"):
        detect.read(tmp_path, sources=("real",))


# --- manifests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.parquet"])
def test_a_folder_with_a_manifest(tmp_path, name):
    plant(tmp_path, "real/1.jpg", "fake/2.jpg")
    table = pd.DataFrame({"path": ["fake/2.jpg", "real/1.jpg"], "label": ["Fake", "0"], "group": ["g", ""], "source": ["sd", ""]})
    table.to_csv(tmp_path / name, index=False) if name.endswith("csv") else table.to_parquet(tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        found = detect.read(path)
        assert found.attrs["layout"] == "manifest"
        assert list(found["label"]) == [1, 0] and list(found["group"]) == ["g", str(tmp_path / "real/1.jpg")]
    assert detect.read(tmp_path, layout="class_folders").attrs["layout"] == "class_folders", "the manifest is ignored"


# --- unusual entries -------------------------------------------------------------------------------------------------

ODD = [b"a b.png", b"two\nlines.png", b"cr\rhere.png", b"crlf\r\n.png", "🎭 café.png".encode(), b"-dash.png", b"caf\xe9\xff.png",
       b'"quo,ted".png', b" lead.png", b"'.png", b"tab\t.png", b"#.png", b"nan.png"]  # fmt: skip


@pytest.fixture
def odd(tmp_path):
    """Return a data set with names and entries that often cause errors."""
    root = tmp_path / "odd"
    for folder in (root / "real", root / "fake" / os.fsdecode(b"gen\xff 1")):
        folder.mkdir(parents=True)
        for name in ODD:
            (folder / os.fsdecode(name)).write_bytes(b"")
    (root / "fake/gone.png").symlink_to(root / "nowhere")
    os.mkfifo(root / "fake/pipe.mp4")
    (root / "fake/folder.mp4").mkdir(parents=True)
    (root / "fake/video.mp4").mkdir()
    (root / "fake/video.mp4/inside.png").write_bytes(b"")
    (root / "fake/loop").symlink_to(root)
    (root / "real/self").symlink_to(root / "real")
    return root


def names(table, root):
    return sorted(os.fsencode(path).removeprefix(os.fsencode(root) + b"/") for path in table["path"])


def test_unusual_entries_are_rows(odd):
    table = detect.read(odd)
    strange = [b"fake/gone.png", b"fake/pipe.mp4", b"fake/folder.mp4", b"fake/video.mp4/inside.png"]
    assert names(table, odd) == sorted(
        [*(b"real/" + name for name in ODD), *(b"fake/gen\xff 1/" + name for name in ODD), *strange]
    )
    assert table["label"].sum() == len(ODD) + 4
    assert set(table.loc[table["label"] == 1, "source"]) == {os.fsdecode(b"gen\xff 1"), "fake", "video.mp4"}


def test_unusual_names_keep_their_bytes(odd, tmp_path):
    table = manifest.split(detect.read(odd))
    manifest.write(table, tmp_path / "m.csv")
    again = manifest.read(tmp_path / "m.csv")
    for column in manifest.COLUMNS:
        assert list(again[column]) == list(table[column]), column
    assert b"caf\xe9\xff.png" in (tmp_path / "m.csv").read_bytes()


def test_unusual_names_in_parquet_as_bytes_or_text(odd):
    paths = [name for name in names(detect.read(odd), odd) if not name.startswith(b"fake/gen")]
    pd.DataFrame({"path": paths, "label": 1}).to_parquet(odd / "bytes.parquet")
    assert names(detect.read(odd / "bytes.parquet"), odd) == paths
    text = [path.decode() for path in paths if b"\xe9" not in path]
    pd.DataFrame({"path": text, "label": np.float64(1)}).to_parquet(odd / "text.parquet")
    assert names(detect.read(odd / "text.parquet"), odd) == [name.encode() for name in text]


def test_linked_folders_are_followed_but_not_in_loops(tmp_path):
    plant(tmp_path, "store/1.jpg", "set/a/real/2.jpg", "set/b/x.txt")
    (tmp_path / "set/fake").symlink_to(tmp_path / "store")
    (tmp_path / "set/a/to_b").symlink_to(tmp_path / "set/b")
    (tmp_path / "set/b/to_a").symlink_to(tmp_path / "set/a")
    found = rows(tmp_path / "set")
    assert found["fake/1.jpg"].label == 1 and found["a/real/2.jpg"].label == 0
    assert set(found) == {"fake/1.jpg", "a/real/2.jpg", "b/to_a/real/2.jpg"}, "a second path to a file is a row, a loop is not"


def test_relative_and_dotted_roots(tmp_path, monkeypatch):
    plant(tmp_path, "real/1.jpg", "fake/1.jpg")
    monkeypatch.chdir(tmp_path)
    for root in (".", "../" + tmp_path.name, f"{tmp_path}/"):
        assert {os.path.realpath(path) for path in detect.read(root)["path"]} == {
            os.path.realpath(tmp_path / name) for name in ("real/1.jpg", "fake/1.jpg")}  # fmt: skip


# --- errors ----------------------------------------------------------------------------------------------------------


def test_the_error_for_an_unknown_tree_says_what_was_found_and_expected(tmp_path):
    plant(tmp_path, "cats/a.jpg", "cats/deep/b.jpg", "dogs/c.mp4", "top.png")
    with pytest.raises(ValueError) as error:
        detect.read(tmp_path)
    message = str(error.value)
    assert "has no image or video in a folder named real or fake" in message
    assert "cats/ (2 images or videos), dogs/ (1 images or videos), 1 images or videos beside them" in message
    assert all(fix in message for fix in ("--data.fake NAME", "manifest.csv", "--data.layout; docs/data.md"))
    assert len(message) < 600, "no list of all layouts"


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="no does not exist; expected a folder or a manifest"):
        detect.read(tmp_path / "no")
    with pytest.raises(ValueError, match="folder named real or fake. It contains no images, videos or folders"):
        detect.read(tmp_path)
    plant(tmp_path, "real/readme.txt", "fake/readme.txt")
    with pytest.raises(ValueError, match=r"has no image or video.* It contains fake/ \(0 images or videos\)"):
        detect.read(tmp_path)


def test_the_error_for_an_unknown_layout_suggests_a_name(tmp_path):
    with pytest.raises(ValueError, match="no layout 'faceforensic'. Perhaps you meant faceforensics. Choose from auto,"):
        detect.read(tmp_path, layout="faceforensic")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_requested_layout_that_does_not_match(tmp_path, name):
    plant(tmp_path, "somewhere/a.jpg", "somewhere/b.mp4")
    with pytest.raises(ValueError, match=rf"the layout {name} found no file with a label; expected .*somewhere/ \(2 images"):
        detect.read(tmp_path, layout=name)
    assert not any(found.recognise(Tree(tmp_path)) for found in LAYOUTS.values())


def test_a_requested_layout_for_the_wrong_kind_of_path(tmp_path):
    plant(tmp_path, "real/a.jpg", ("m.csv", "path,label\na.jpg,1\n"))
    for name, needs in (("manifest", "manifest.csv or manifest.parquet"), ("deepfakebench", "the path of a .json file")):
        with pytest.raises(ValueError, match=f"the layout {name} needs {needs}"):
            detect.read(tmp_path, layout=name)
    with pytest.raises(ValueError, match="the layout celeb_df needs a folder"):
        detect.read(tmp_path / "m.csv", layout="celeb_df")


# --- order and plugins -----------------------------------------------------------------------------------------------


def test_the_recognition_order_lists_every_built_in_layout_once():
    assert sorted(detect.RECOGNITION_ORDER) == sorted(LAYOUTS)
    assert detect.recognition_order() == list(detect.RECOGNITION_ORDER)


@pytest.mark.parametrize("first", ["universalfakedetect", "forensynths"])
def test_the_recognition_order_decides_not_the_order_of_registration(tmp_path, monkeypatch, first):
    plant(tmp_path, "a/0_real/1.png", "a/1_fake/2.png")
    for name in ("universalfakedetect", "forensynths"):  # both claim the tree
        monkeypatch.setitem(LAYOUTS, name, dataclasses.replace(LAYOUTS[name], rows=LAYOUTS["forensynths"].rows,
                                                               recognise=lambda tree: True))  # fmt: skip
    order = [first, *(name for name in detect.RECOGNITION_ORDER if name != first)]
    monkeypatch.setattr(detect, "RECOGNITION_ORDER", tuple(order))
    assert detect.read(tmp_path).attrs["layout"] == first


PLUGIN = """
from tfdetect.data.layouts.tree import Row, layout, list_media

@layout("a folder named mysteries", lambda tree: tree.has("mysteries"))
def {name}(root):
    for parts, folder, names in list_media(root):
        for name in names:
            yield Row(f"{{folder}}/{{name}}", int("forged" in parts), source="{name}")
"""


@pytest.fixture
def load_plugin(tmp_path):
    """Return a function that imports a module with this text and registers its layouts for the duration of the test."""
    before = dict(LAYOUTS)

    def load(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
        spec.loader.exec_module(importlib.util.module_from_spec(spec))

    yield load
    LAYOUTS.clear()
    LAYOUTS.update(before)


def test_plugins_add_layouts_that_are_tried_after_the_built_in_ones(tmp_path, load_plugin):
    for name in ("zeta", "alpha"):
        load_plugin(f"plugin_{name}", PLUGIN.format(name=name))
    assert detect.recognition_order()[-2:] == ["zeta", "alpha"], "in order of registration"
    assert {"zeta", "alpha"} <= set(detect.layout_names())
    plant(tmp_path / "set", "mysteries/forged/1.jpg", "mysteries/2.jpg")
    table = detect.read(tmp_path / "set")
    assert table.attrs["layout"] == "zeta" and sorted(table["label"]) == [0, 1]
    assert set(detect.read(tmp_path / "set", layout="alpha")["source"]) == {"alpha"}
    plant(tmp_path / "known", "mysteries/x.jpg", "Celeb-real/id0_0000.mp4", "Celeb-synthesis/id0_id1_0000.mp4")
    assert detect.read(tmp_path / "known").attrs["layout"] == "celeb_df"


@pytest.mark.parametrize("name", ["faceforensics", "class_folders"])
def test_a_plugin_cannot_replace_a_layout(load_plugin, name):
    with pytest.raises(ValueError, match=f"Cannot register the layout '{name}': the name already exists"):
        load_plugin("plugin", PLUGIN.format(name=name))
