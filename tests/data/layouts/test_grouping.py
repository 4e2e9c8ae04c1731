"""Groups of class folders: frames of a video, but not images of a category; counterparts; and the rules of --data.group."""

import cv2
import numpy as np
import pandas as pd
import pytest
from planted import plant, rows

from tfdetect.data import manifest
from tfdetect.data.layouts import detect, grouping, tree
from tfdetect.data.layouts.tree import list_media

SHAPES = ("{video}/{k:04d}.png", "{video}/{k}.png", "{video}/frame{k}.png", "{video}/IMG_{k:04d}.PNG", "{video}/f{k:04d}.png",
          "{video}/out-{k:05d}.png", "{video}/frames/{k:04d}.png", "{video}.mp4/{k:04d}.png", "{video}/{k:04d}_0.png",
          "{video}/{video}_{k:03d}.png", "{video}_{k:04d}.png", "{video} ({k}).png", "{video}_frame_{k}.png",
          "{video}_{k:04d}_0.png", "deep/er/{video}/{k:04d}.png", "{k:04d}_{video}.png", "{video}_t{t}s.png",
          "{video}_00-0{k}-15.png", "{video}.{k:04d}.png")  # fmt: skip


def blocks(rng, side=6):
    """Return a random smooth image (48, 48, 3) uint8."""
    return cv2.resize(rng.integers(0, 256, (side, side, 3), np.uint8), (48, 48), interpolation=cv2.INTER_CUBIC)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix.lower(), image)[1].tobytes())


def video(rng, frames):
    """Yield frames that drift: neighbours are similar, the last hardly resembles the first."""
    start, end = blocks(rng).astype(float), blocks(rng).astype(float)
    for k in range(frames):
        frame = start + (end - start) * k / frames + rng.normal(0, 6, start.shape)
        yield np.clip(frame, 0, 255).astype(np.uint8)


def save_videos(root, shape, rng, videos=6, frames=8, counterparts=False):
    for label in ("real", "fake"):
        for number in range(videos):
            for k, frame in enumerate(video(rng, frames)):
                name = f"vid{number:02d}" if counterparts else f"{label[0]}vid{number:02d}"
                save(root / label / shape.format(video=name, k=k + 1, t=k / 2), frame)


@pytest.mark.parametrize("shape", SHAPES)
def test_frames_of_one_video_are_one_group(tmp_path, rng, shape):
    save_videos(tmp_path, shape, rng)
    table = detect.read(tmp_path)
    assert sorted(table.groupby("group").size()) == [8] * 12
    assert table.attrs["groups"].startswith("96 images in 12 groups: frames of 12 ")
    split_counts = manifest.split(table).groupby("group")["split"].nunique()
    assert (split_counts == 1).all()


@pytest.mark.parametrize("shape", ["{video}/{k:04d}.png", "{video}_{k:04d}.png"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_frames_in_a_given_split_stay_in_it(tmp_path, rng, shape, split):
    save_videos(tmp_path / split, shape, rng, videos=3)
    table = detect.read(tmp_path)
    assert sorted(table.groupby("group").size()) == [8] * 6 and set(table["split"]) == {split}


def test_a_video_and_its_fake_are_one_group_as_frames_or_as_files(tmp_path, rng):
    save_videos(tmp_path, "{video}/{k:04d}.png", rng, counterparts=True)
    save_videos(tmp_path / "fake" / "method", "{video}/{k:04d}.png", rng, counterparts=True)
    (tmp_path / "fake/method/fake").rename(tmp_path / "fake/other")
    plant(tmp_path, "real/vid00.mp4")
    found = rows(tmp_path)
    assert found["real/vid03/0001.png"].group == found["fake/vid03/0002.png"].group == found["fake/other/vid03/0003.png"].group
    assert found["real/vid00.mp4"].group == found["fake/vid00/0001.png"].group != found["fake/vid01/0001.png"].group


@pytest.mark.parametrize("shape", ["{category}/{k:04d}.png", "{category}_{k}.png", "x/{category}/{k}.png"])
def test_images_of_a_category_are_not_a_video(tmp_path, rng, shape):
    for label in ("real", "fake"):
        for category in ("dog", "cat", "horse", "bird"):
            for k in range(8):
                save(tmp_path / label / shape.format(category=category, k=k), blocks(rng))
    table = detect.read(tmp_path)
    assert set(table.groupby("group").size()) == {2}, "each with its counterpart in the other class"
    assert "frames" not in table.attrs["groups"]


def test_a_category_whose_images_all_look_alike_is_not_a_video(tmp_path, rng):
    for label in ("real", "fake"):
        for category in ("dog", "cat", "horse", "bird"):
            base = blocks(rng) * 0.6
            for k in range(16):
                save(tmp_path / label / category / f"{k}.png", (base + 0.4 * blocks(rng)).astype(np.uint8))
    table = detect.read(tmp_path)
    assert set(table.groupby("group").size()) == {2}
    assert "--data.group folder if they are frames" in table.attrs["groups"]


def test_videos_beside_categories(tmp_path, rng):
    save_videos(tmp_path, "{video}/{k:04d}.png", rng, videos=4)
    for label in ("real", "fake"):
        for category in ("dog", "cat", "horse", "bird"):
            for k in range(8):
                save(tmp_path / label / f"{label}_{category}" / f"{k:04d}.png", blocks(rng))
    table = detect.read(tmp_path)
    of_videos = table["path"].str.contains(r"vid\d")
    assert sorted(table[of_videos].groupby("group").size()) == [8] * 8
    assert table[~of_videos]["group"].nunique() >= 32


def test_numbered_images_in_a_class_folder_are_separate_groups(tmp_path, rng):
    for label in ("real", "fake"):
        for k in range(30):
            save(tmp_path / label / f"{label[0]}{k:05d}.png", blocks(rng))
    table = detect.read(tmp_path)
    assert table["group"].is_unique and table.attrs["groups"] == grouping.NO_GROUPS


def test_consecutive_frames_of_several_videos_cause_a_warning(tmp_path, rng):
    for label in ("real", "fake"):
        for k, frame in enumerate(frame for _ in range(6) for frame in video(rng, 8)):
            save(tmp_path / label / f"{k:05d}.png", frame)
    sentence = detect.read(tmp_path).attrs["groups"]
    assert "real are similar: if they are frames of videos, give each video a folder, or add groups" in sentence


def test_frames_of_other_videos_in_the_tree_of_a_public_set(tmp_path, rng):
    for generator in ("sd", "gan"):
        save_videos(tmp_path / generator, "{video}/{k:04d}.png", rng, videos=3)
    table = detect.read(tmp_path)
    assert table.attrs["layout"] == "community_forensics" and sorted(table.groupby("group").size()) == [8] * 12


@pytest.mark.parametrize("names", [("image",), ("image_0", "image_1", "image_2")])
def test_folders_are_groups_if_many_hold_the_same_few_names(tmp_path, rng, names):
    for number in range(40):
        for name in names:
            save(tmp_path / ("real", "fake")[number % 2] / f"prompt_{number}" / f"{name}.png", blocks(rng))
    save(tmp_path / "fake/sd/prompt_6" / f"{names[0]}.png", blocks(rng))
    found = rows(tmp_path)
    assert len({row.group for row in found.values()}) == 40
    assert found[f"fake/sd/prompt_6/{names[0]}.png"].group == found[f"real/prompt_6/{names[0]}.png"].group


def test_only_a_few_of_many_images_are_read(tmp_path, rng, monkeypatch):
    image, calls = blocks(rng), []
    for number in range(300):
        for k in range(4):
            save(tmp_path / ("real", "fake")[number % 2] / f"v{number}" / f"{k}.png", image if k else blocks(rng))
    read = grouping.read_image
    monkeypatch.setattr(grouping, "read_image", lambda *args, **named: calls.append(args) or read(*args, **named))
    detect.read(tmp_path)
    assert 0 < len(calls) <= 4 * 2 * (grouping.MAX_COMPARISONS + grouping.MAX_CHECKED)


def test_unreadable_images_are_ignored(tmp_path):
    plant(tmp_path, *(f"{label}/v{number}/{k}.png" for label in ("real", "fake") for number in range(3) for k in range(5)))
    assert len(detect.read(tmp_path)) == 30


# --- ids -------------------------------------------------------------------------------------------------------------


def test_ids_of_originals_in_the_names_of_fakes(tmp_path):
    plant(tmp_path, "real/183.mp4", "real/253.mp4", "real/007.mp4", "fake/Deepfakes/183_253.mp4", "fake/FaceSwap/253_183.mp4",
          "fake/FaceSwap/999_007.mp4", "fake/FaceSwap/500_501.mp4")  # fmt: skip
    found = {name.split("/", 1)[1]: row.group for name, row in rows(tmp_path).items()}
    assert found["183.mp4"] == found["253.mp4"] == found["Deepfakes/183_253.mp4"] == found["FaceSwap/253_183.mp4"]
    assert found["007.mp4"] == found["FaceSwap/999_007.mp4"] != found["183.mp4"]
    assert len(set(found.values())) == 3


def test_celebrities_by_their_ids(tmp_path):
    plant(tmp_path, "real/id0_0001.mp4", "real/id1_0004.mp4", "real/id9_0000.mp4", "fake/id0_id1_0001.mp4")
    found = rows(tmp_path)
    assert len({row.group for row in found.values()}) == 2
    assert found["real/id9_0000.mp4"].group != found["real/id0_0001.mp4"].group


def test_numbers_that_only_look_like_ids(tmp_path):
    for n in range(1, 30):
        plant(tmp_path, f"real/{n}.jpg", f"fake/diffusion1_{n}.jpg", f"fake/diffusion2_{n}.jpg")
    assert detect.read(tmp_path)["group"].is_unique


# --- --data.group ----------------------------------------------------------------------------------------------------


@pytest.fixture
def clip_folder(tmp_path):
    plant(tmp_path, *(f"{label}/p{person}/clip_{n}.mp4" for label in ("real", "fake") for person in (1, 2) for n in (1, 2)))
    return tmp_path


RULES = [("folder", {"p1", "p2"}), ("stem", {"clip"}), (r"p(\d)", {"1", "2"}), (r"p\d", {"p1", "p2"})]


@pytest.mark.parametrize("rule, groups", RULES)
def test_groups_by_rule(clip_folder, rule, groups):
    table = detect.read(clip_folder, group=rule)
    assert set(table["group"]) == groups and f"--data.group {rule}" in table.attrs["groups"]
    table.drop(columns="group").to_csv(clip_folder / "manifest.csv", index=False)
    assert set(detect.read(clip_folder, group=rule)["group"]) == groups, "also of a manifest without groups"


def test_each_file_is_a_group_by_rule(clip_folder):
    assert detect.read(clip_folder)["group"].nunique() < 8
    assert detect.read(clip_folder, group="file")["group"].is_unique


def test_files_that_do_not_match_a_pattern_are_counted(clip_folder):
    table = detect.read(clip_folder, group=r"real/(p\d)")
    assert table["group"].nunique() == 2 + 4
    assert "4 files without a match, each a separate group" in table.attrs["groups"]
    with pytest.raises(ValueError, match="'person' matches no file; paths look like 'fake/p1/clip_1.mp4'"):
        detect.read(clip_folder, group="person")
    with pytest.raises(ValueError, match="neither one of auto, folder, stem, file nor a regular expression"):
        detect.read(clip_folder, group="(")


def test_given_groups_are_not_replaced(clip_folder):
    pd.DataFrame({"path": ["real/p1/clip_1.mp4"], "label": [0], "group": ["x"]}).to_csv(clip_folder / "manifest.csv", index=False)
    assert detect.read(clip_folder).attrs["groups"] == "1 file in 1 group, given by the manifest."
    with pytest.raises(ValueError, match="defines groups, which conflicts with --data.group folder"):
        detect.read(clip_folder, group="folder")


# --- which files -----------------------------------------------------------------------------------------------------


def test_every_file_is_used_or_counted_as_left_out(tmp_path, rng):
    for label in ("real", "fake", "fake_v2"):
        for k in range(3):
            save(tmp_path / label / f"{label}{k}.png", blocks(rng))
    (tmp_path / "real/real0.png").rename(tmp_path / "real/photo.jpg_large")
    (tmp_path / "real/real1.png").rename(tmp_path / "real/no extension")
    plant(tmp_path, "real/notes.txt", "fake/._fake0.png", ".cache/real/x.png", "Thumbs.db", "README", "real/broken.jpg")
    table = detect.read(tmp_path)
    assert set(table["path"].str.removeprefix(f"{tmp_path}/")) >= {"real/photo.jpg_large", "real/no extension", "real/broken.jpg"}
    assert table.attrs["left_out"] == {"fake_v2/": 3, ".txt": 1, "hidden": 2, ".db": 1, "README": 1}
    assert len(table) + sum(table.attrs["left_out"].values()) == sum(path.is_file() for path in tmp_path.rglob("*"))
    kept = detect.read(tmp_path, fake=("fake", "fake_v2"))
    assert len(kept) == 10 and kept["label"].sum() == 6 and "fake_v2/" not in kept.attrs["left_out"]


def test_files_with_a_media_extension_are_listed_without_reading_them(tmp_path, rng, monkeypatch):
    save(tmp_path / "a.png", blocks(rng))
    monkeypatch.setattr(tree, "media_kind", lambda path: pytest.fail(path))
    assert [names for *_, names in list_media(tmp_path)] == [["a.png"]]
