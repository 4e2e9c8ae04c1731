"""Details of public data sets: groups, incomplete or moved trees, and invalid lists."""

import json

import pytest
from planted import label_split_source, plant, rows

from tfdetect.data.layouts import detect


def form_a_group(found, *names):
    """Return whether these files form a group without any other file."""
    group = {found[name].group for name in names}
    return len(group) == 1 and {name for name, row in found.items() if row.group in group} == set(names)


FF, DF = "original_sequences/youtube/c23/videos/", "manipulated_sequences/Deepfakes/c23/videos/"
F2F = "manipulated_sequences/Face2Face/c23/videos/"
ACTORS, DFD = "original_sequences/actors/c23/videos/", "manipulated_sequences/DeepFakeDetection/c23/videos/"
PARTS = {"a.mp4": {"label": "FAKE", "split": "train", "original": "b.mp4"}, "b.mp4": {"label": "REAL", "split": "train"}}
HEAD = "filename,image_path,target,category\n"


def test_faceforensics_pairs_join_the_groups_of_their_ids(tmp_path):
    plant(tmp_path, FF + "000.mp4", FF + "003.MP4", FF + "071.mp4", DF + "000_003.mp4", F2F + "000_003.mp4", DF + "071_054.mp4")
    found = rows(tmp_path)
    assert form_a_group(found, FF + "000.mp4", FF + "003.MP4", DF + "000_003.mp4", F2F + "000_003.mp4")
    assert form_a_group(found, FF + "071.mp4", DF + "071_054.mp4")


@pytest.mark.parametrize("folder", ["set/dataset/splits", "set", "splits", "."])
def test_faceforensics_splits_in_the_tree_or_beside_it(tmp_path, folder):
    for name, text in (("train", "[]"), ("val", "[]"), ("test", '[["003", "000"]]')):
        plant(tmp_path, (f"{folder}/{name}.json", text))
    plant(tmp_path / "set", FF + "000.mp4", DF + "000_003.mp4")
    assert set(detect.read(tmp_path)["split"]) == {"test"}


def test_faceforensics_frames_one_compression_and_no_splits(tmp_path):
    frames = "manipulated_sequences/FaceSwap/c40/images/"
    plant(tmp_path, FF + "000.mp4", frames + "000_003/0000.png", frames + "000_003/0001.png", frames + "005_009/0000.png",
          "original_sequences/youtube/c40/videos/000.mp4", "original_sequences/youtube/c40/images/000/0000.png")  # fmt: skip
    found = rows(tmp_path)
    assert {row.split for row in found.values()} == {""}
    assert "original_sequences/youtube/c40/images/000/0000.png" not in found, "frames of a video that is present as a file"
    assert form_a_group(found, frames + "005_009/0000.png")
    assert found[frames + "000_003/0000.png"].group == found[FF + "000.mp4"].group
    assert all("/c40/" in name for name in rows(tmp_path, layout="faceforensics:c40"))
    with pytest.raises(ValueError, match="no file is in a folder named 'raw'"):
        detect.read(tmp_path, layout="faceforensics:raw")


def test_dfd_beside_faceforensics_and_alone(tmp_path):
    plant(tmp_path, FF + "000.mp4", DF + "000_003.mp4", ACTORS + "01__walk.mp4", ACTORS + "03__talk.mp4",
          DFD + "01_02__walk__ABCDEFGH.mp4")  # fmt: skip
    both = detect.read(tmp_path)
    assert both.attrs["layout"] == "faceforensics" and len(both) == 5
    found = rows(tmp_path, layout="dfd")
    assert {row.source for row in found.values()} == {"actors", "DeepFakeDetection"} and len(found) == 3
    assert form_a_group(found, ACTORS + "01__walk.mp4", DFD + "01_02__walk__ABCDEFGH.mp4")


def test_celeb_df_with_a_level_of_videos_and_without_its_list(tmp_path):
    plant(tmp_path, "Celeb-real/videos/id0_0000.MP4", "Celeb-synthesis/videos/id0_id1_0000.mp4", "YouTube-real/videos/00170.mp4")
    found = rows(tmp_path)
    assert {row.split for row in found.values()} == {""}
    assert form_a_group(found, "Celeb-real/videos/id0_0000.MP4", "Celeb-synthesis/videos/id0_id1_0000.mp4")
    for listed in ("YouTube-real/00170.mp4", "YouTube-real/videos/00170.mp4", "YouTube-real\\00170.mp4"):
        plant(tmp_path, ("List_of_testing_videos.txt", f"1 {listed}\n"))
        assert rows(tmp_path)["YouTube-real/videos/00170.mp4"].split == "test"


def test_celeb_df_pp_names_its_methods(tmp_path):
    plant(tmp_path, "Celeb-real/id0_0000.mp4", "Celeb-synthesis/FaceSwap/SimSwap/id0_id1_0000.mp4",
          "Celeb-synthesis/TalkingFace/SadTalker/id0_0000.mp4")  # fmt: skip
    assert sorted(row.source for row in rows(tmp_path).values()) == ["Celeb-real", "SadTalker", "SimSwap"]


def test_celeb_df_person_in_the_test_list_never_trains(tmp_path):
    plant(
        tmp_path,
        "Celeb-real/id0_0000.mp4",
        "Celeb-real/id0_0001.mp4",
        ("List_of_testing_videos.txt", "1 Celeb-real/id0_0000.mp4"),
    )
    found = rows(tmp_path)
    assert (found["Celeb-real/id0_0000.mp4"].split, found["Celeb-real/id0_0001.mp4"].split) == ("test", "")


def test_dfdc_groups_a_fake_with_its_original_and_counts_unlisted_files(tmp_path):
    plant(tmp_path, ("dfdc_train_part_0/metadata.json", json.dumps(PARTS)), "dfdc_train_part_1/unlisted.mp4")
    assert form_a_group(rows(tmp_path), "dfdc_train_part_0/a.mp4", "dfdc_train_part_0/b.mp4")
    assert detect.read(tmp_path).attrs["left_out"] == {"dfdc_train_part_1/": 1, ".json": 1}
    assert len(detect.read(tmp_path / "dfdc_train_part_0")) == 2, "one part alone"


@pytest.mark.parametrize("place", ["", "videos/"])
def test_dfdc_test_by_its_labels(tmp_path, place):
    plant(tmp_path, ("test/labels.csv", "\ufefffilename,label\nx.mp4,1\ny.mp4,0\n"), f"test/{place}x.mp4", f"test/{place}y.mp4")
    expected = {f"test/{place}x.mp4": (1, "test", "DFDC"), f"test/{place}y.mp4": (0, "test", "DFDC")}
    assert label_split_source(rows(tmp_path)) == expected


def test_dfdc_train_and_test_in_one_tree(tmp_path):
    plant(tmp_path, ("train/dfdc_train_part_0/metadata.json", json.dumps(PARTS)), "train/dfdc_train_part_0/a.mp4",
          ("test/labels.csv", "filename,label\nx.mp4,1\n"), "test/x.mp4")  # fmt: skip
    table = detect.read(tmp_path)
    assert table.attrs["layout"] == "dfdc" and sorted(table["split"]) == ["test", "train", "train"]


def test_dfdc_preview_persons_are_the_groups(tmp_path):
    people = {"a": {"target_id": 1, "swapped_id": 2}, "b": {"target_id": 3, "swapped_id": 4}, "c": {"target_id": 1}}
    entries = {f"method_{name}/{name}.mp4": {"label": "fake", "set": "train", **who} for name, who in people.items()}
    plant(tmp_path, ("dataset.json", json.dumps(entries)), "method_a/unlisted.mp4")
    assert form_a_group(rows(tmp_path), "method_a/a.mp4", "method_c/c.mp4")
    assert detect.read(tmp_path).attrs["left_out"] == {"method_a/": 1, ".json": 1}


def test_dfdc_preview_without_persons(tmp_path):
    splits = {"method_A/a.mp4": "train", "method_A/b.mp4": "test"}
    splits |= {"original_videos/7/c.mp4": "train", "original_videos/7/d.mp4": "train"}
    plant(tmp_path, ("dataset.json", json.dumps({name: {"label": "fake", "set": split} for name, split in splits.items()})))
    found = rows(tmp_path)
    assert {name: row.split for name, row in found.items()} == splits
    assert form_a_group(found, "original_videos/7/c.mp4", "original_videos/7/d.mp4") and form_a_group(found, "method_A/a.mp4")


def test_df40_joins_one_pair_over_methods(tmp_path):
    plant(tmp_path, "blendface/ff/000_003/001.png", "simswap/ff/000_003/001.png", "simswap/cdf/id0_id1_0000/001.png")
    assert form_a_group(rows(tmp_path), "blendface/ff/000_003/001.png", "simswap/ff/000_003/001.png")


def test_genvideo_frames_of_a_folder_are_one_video(tmp_path):
    plant(tmp_path, "Real/v1.mp4", "Fake/Crafter/v1/0.jpg", "Fake/Crafter/v1/1.jpg", "Fake/Crafter/v2/0.jpg")
    assert form_a_group(rows(tmp_path), "Fake/Crafter/v1/0.jpg", "Fake/Crafter/v1/1.jpg")


@pytest.mark.parametrize("at, split", [("test", "test"), ("test/biggan", "test"), ("train/progan", "train")])
def test_forensynths_from_a_lower_level(tmp_path, at, split):
    plant(tmp_path, *(f"{place}/{kind}/1.png" for place in ("train/progan/car", "test/progan/car", "test/biggan")
                      for kind in ("0_real", "1_fake")))  # fmt: skip
    table = detect.read(tmp_path / at)
    assert set(table["split"]) == {split} and set(table["source"]) <= {"progan", "biggan"}


def test_forensynths_with_only_splits(tmp_path):
    plant(tmp_path / "mine", *(f"{split}/{kind}/1.png" for split in ("train", "test") for kind in ("0_real", "1_fake")))
    table = detect.read(tmp_path / "mine")
    assert sorted(table["split"]) == ["test", "test", "train", "train"] and set(table["source"]) == {"mine"}


def test_a_forensynths_class_named_train_is_not_a_split(tmp_path):
    plant(tmp_path / "progan", "car/0_real/1.png", "car/1_fake/1.png", "train/0_real/1.png", "train/1_fake/1.png")
    table = detect.read(tmp_path / "progan")
    assert set(table["split"]) == {""} and set(table["source"]) == {"progan"}


def test_forensynths_classes_are_categories_of_both_labels(tmp_path):
    places = ("train/progan/car", "train/progan/train", "val/progan/cat", "test/cyclegan/horse", "test/biggan")
    plant(tmp_path, *(f"{place}/{kind}/1.png" for place in places for kind in ("0_real", "1_fake")))
    found = {name: row.category for name, row in rows(tmp_path).items()}
    seen = dict(zip(places, ("car", "train", "cat", "horse", ""), strict=True))
    assert found == {f"{place}/{kind}/1.png": word for place, word in seen.items() for kind in ("0_real", "1_fake")}
    assert set(detect.read(tmp_path / "test" / "cyclegan")["category"]) == {"horse"}
    plant(tmp_path, "mine/train/0_real/1.png", "mine/test/1_fake/1.png")
    assert "category" not in detect.read(tmp_path / "mine"), "a split is not a class"


def test_forensynths_with_diffusion_sets_in_its_test(tmp_path):
    """As the recipes for ProGAN need it."""
    pairs = [f"{place}/{kind}/1.png" for place in ("train/progan/car", "val/progan/car", "test/cyclegan/horse")
             for kind in ("0_real", "1_fake")]  # fmt: skip
    plant(tmp_path, *pairs, "test/dalle/1_fake/1.png", "test/glide_100_27/1_fake/1.png", "test/laion/0_real/1.png")
    table = detect.read(tmp_path)
    assert table.attrs["layout"] == "forensynths" and set(table["split"]) == {"train", "validation", "test"}
    tested = table[table["split"] == "test"]
    assert set(zip(tested["source"], tested["label"], strict=True)) == {
        ("cyclegan", 0), ("cyclegan", 1), ("dalle", 1), ("glide_100_27", 1), ("laion", 0)}  # fmt: skip


@pytest.mark.parametrize("at", ["", "cyclegan"])
def test_forensynths_generators_without_splits(tmp_path, at):
    names = ("cyclegan",) if at else ("cyclegan", "progan")
    plant(tmp_path, *(f"{name}/horse/{kind}/1.png" for name in names for kind in ("0_real", "1_fake")))
    table = detect.read(tmp_path / at)
    assert set(table["split"]) == {""} and set(table["source"]) == {*names} and set(table["category"]) == {"horse"}


def test_other_split_and_class_folders_are_not_mistaken_for_cifake(tmp_path):
    plant(tmp_path, "train/REAL/img1.png", "train/FAKE/0 (2).jpg", "test/REAL/img1.png", "test/FAKE/x.png")
    table = detect.read(tmp_path)
    assert table.attrs["layout"] == "class_folders" and set(table["source"]) == {"REAL", "FAKE"}
    assert sorted(table["split"]) == ["test", "test", "train", "train"] and list(table["label"]) == [1, 0, 1, 0]


def test_genimage_one_generator_alone(tmp_path):
    plant(tmp_path, "glide/train/ai/1.png", "glide/train/nature/n.JPEG", "ADM/train/ai/1.png")
    assert set(detect.read(tmp_path / "glide")["source"]) == {"glide"}


def test_artifact_keeps_selected_sources_and_all_reals(tmp_path):
    plant(tmp_path, *((f"{name}/metadata.csv", f"{HEAD}r.jpg,r.jpg,0,x\nf.jpg,f.jpg,{target},x\n")
                      for target, name in enumerate(("big_gan", "cycle_gan", "pro_gan"), 1)))  # fmt: skip
    for sources in (("cycle_gan", "pro_gan"), ("cycle_gan,pro_gan",), ("CYCLE_GAN", "pro_gan"), ("cycle_gan, pro_gan",)):
        assert set(rows(tmp_path, sources=sources)) == {
            "big_gan/r.jpg",
            "cycle_gan/r.jpg",
            "cycle_gan/f.jpg",
            "pro_gan/r.jpg",
            "pro_gan/f.jpg",
        }
    message = "No fakes have the source 'cyclegan'. Perhaps you meant cycle_gan. The sources of fakes are big_gan, "
    with pytest.raises(ValueError, match=message):
        detect.read(tmp_path, sources=("cyclegan",))
    assert set(detect.read(tmp_path / "cycle_gan")["source"]) == {"cycle_gan"}, "one source alone"


@pytest.mark.parametrize("base", ["a.jpg", "afhq/a.jpg", "afhq/images/a.jpg"])
def test_artifact_paths_start_where_the_files_are(tmp_path, base):
    plant(tmp_path, base if base.startswith("afhq") else f"afhq/{base}", ("afhq/metadata.csv", f"{HEAD}a.jpg,{base},5,x\n"))
    assert (tmp_path / next(iter(rows(tmp_path)))).exists()


def test_artifact_names_what_an_image_shows(tmp_path):
    """As the recipes with texts need it; a table without the column has empty ones."""
    plant(tmp_path, ("afhq/metadata.csv", f"{HEAD}a.jpg,a.jpg,0,cat\n"), ("big_gan/metadata.csv", "image_path,target\nb.jpg,1\n"),
          "afhq/a.jpg", "big_gan/b.jpg")  # fmt: skip
    assert dict(detect.read(tmp_path)[["source", "category"]].to_numpy()) == {"afhq": "cat", "big_gan": ""}


def test_artifact_refuses_a_wrong_target(tmp_path):
    plant(tmp_path, ("afhq/metadata.csv", f"{HEAD}a.jpg,a.jpg,0,x\nb.jpg,b.jpg,cat,x\n"))
    with pytest.raises(ValueError, match=r"afhq/metadata.csv, row 2: target is 'cat', expected 0 for real or another number"):
        detect.read(tmp_path)


def test_faces_140k_from_a_lower_level(tmp_path):
    splits = ("train", "valid", "test")
    plant(tmp_path, *(f"real_vs_fake/real-vs-fake/{at}/{kind}/1.jpg" for at in splits for kind in ("real", "fake")))
    for folder in ("real_vs_fake", "real_vs_fake/real-vs-fake"):
        assert detect.read(tmp_path / folder).attrs["layout"] == "faces_140k"


# --- DeepfakeBench: a JSON ------------------------------------------------------------------------------------------


def entry(label, *frames):
    return {"label": label, "frames": list(frames), "masks": []}


def test_deepfakebench_with_and_without_compression(tmp_path):
    content = {
        "FaceForensics++": {
            "FF-real": {"train": {"c23": {"000": entry("", "FF\\c23\\000\\1.png"), "003": entry("", "FF/c23/003/1.png")}}},
            "FF-DF": {"train": {"c23": {"000_003": entry("", "FF\\DF\\000_003\\1.png", "FF\\DF\\000_003\\2.png")}}},
        },
        "DFDC": {"DFDC_Real": {"test": {"abc": entry("DFDC_Real", "d/abc/1.png")}},
                 "DFDC_Fake": {"val": {"abd": entry("DFDC_Fake", "d/abd/1.png"), "empty": entry("DFDC_Fake")}}},
    }  # fmt: skip
    plant(tmp_path, ("json/sets.json", json.dumps(content)), "FF/c23/000/1.png")
    table = detect.read(tmp_path / "json/sets.json")
    assert table.attrs["layout"] == "deepfakebench" and table.attrs["left_out"] == {"without a label": 1}
    found = {row.path.removeprefix(f"{tmp_path}/"): row for row in table.itertuples()}
    assert label_split_source(found) == {
        "FF/c23/000/1.png": (0, "train", "FF-real"), "FF/c23/003/1.png": (0, "train", "FF-real"),
        "FF/DF/000_003/1.png": (1, "train", "FF-DF"), "FF/DF/000_003/2.png": (1, "train", "FF-DF"),
        "d/abc/1.png": (0, "test", "DFDC_Real"), "d/abd/1.png": (1, "validation", "DFDC_Fake"),
    }  # fmt: skip
    assert len({row.group for name, row in found.items() if name.startswith("FF/")}) == 1
    assert found["d/abc/1.png"].group != found["d/abd/1.png"].group


def test_deepfakebench_file_in_two_splits_counts_as_test(tmp_path):
    videos = {"id0_id1_0000": entry("CelebDFv2_fake", "a/1.png")}
    labels = {
        "CelebDFv2_fake": {"train": videos, "test": videos},
        "CelebDFv2_real": {"train": {"id0_0000": entry("", "b/1.png")}},
    }
    plant(tmp_path, ("c.json", json.dumps({"CDF": labels})))
    table = detect.read(tmp_path / "c.json")
    assert dict(zip(table["label"], table["split"], strict=True)) == {1: "test", 0: ""}, "the same person is not in train"


@pytest.mark.parametrize("text, message", [
    ("{", "cannot be read as JSON"), ("[1, 2]", "has unexpected JSON content"), ("{}", "found no file with a label"),
    ('{"a": {"b": 1}}', "is not a JSON file of DeepfakeBench"),
    ('{"a": {"b": {"holdout": {"v": {"frames": []}}}}}', "is not a JSON file"),
    ('{"a": {"b": {"train": {"v": {"frames": [1]}}}}}', "is not a JSON file")])  # fmt: skip
def test_deepfakebench_refuses_other_json(tmp_path, text, message):
    plant(tmp_path, ("x.json", text))
    with pytest.raises(ValueError, match=message):
        detect.read(tmp_path / "x.json")
