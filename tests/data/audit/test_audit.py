"""The audit finds planted shortcuts, copies and leaks, but none in noise."""

import os

import cv2
import numpy as np
import pandas as pd
import pytest
from in_process import map_here
from PIL import Image

from tfdetect.data.audit import duplicates, properties, shortcuts
from tfdetect.data.sample import Sample, render_clip
from tfdetect.evaluation import metrics


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    monkeypatch.setattr(properties, "map_unordered", map_here)


def image(rng, width=48, height=40):
    """Return smooth noise, which compresses well and has a distinct hash."""
    small = rng.integers(0, 256, (6, 8, 3), np.uint8)
    noise = rng.integers(-12, 13, (height, width, 3))
    return np.clip(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC) + noise, 0, 255).astype(np.uint8)


def plant(folder, rng, count=30, fake=None, **common):
    """Write `count` JPEGs of quality 90 per class; `fake` overrides settings of the fakes."""
    rows = []
    for label, kind in enumerate(("real", "fake")):
        settings = {"suffix": ".jpg", "width": 48, "quality": 90} | common | (fake or {} if label else {})
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = image(rng, settings["width"]) + np.uint8(settings.get("dark", 0))
            path = folder / kind / f"{kind}{i}{settings['suffix']}"
            options = {"quality": settings["quality"]} if settings["suffix"] == ".jpg" else {}
            options |= {"subsampling": settings.get("subsampling", 2)} if options else {}
            Image.fromarray(pixels).save(path, **options, **({"exif": settings["exif"]} if "exif" in settings else {}))
            rows.append((str(path), label, "", f"{kind}{i}"))
    return pd.DataFrame(rows, columns=["path", "label", "split", "group"])


def aucs(table):
    found = properties.collect(table, workers=2)
    assert (found["error"] == "").all()
    return aucs_of(found, table["label"], table["group"])


def aucs_of(found, label, group):
    return shortcuts.find_shortcuts(pd.DataFrame({"label": label, "group": group}), found).aucs


EXIF = Image.Exif()
EXIF[271] = "Canon"


@pytest.mark.parametrize(("fake", "names"), [
    ({"suffix": ".png"}, {"extension", "container", "codec", "subsampling", "jpeg_quality", "bytes", "bytes_per_pixel"}),
    ({"width": 60}, {"width", "aspect"}),
    ({"quality": 75}, {"jpeg_quality"}),
    ({"subsampling": 0}, {"subsampling"}),
    ({"exif": EXIF}, {"exif"}),
])  # fmt: skip
def test_only_planted_shortcuts_are_found(tmp_path, rng, fake, names):
    table = plant(tmp_path, rng, fake=fake)
    found = aucs(table)
    warnings = shortcuts.find_warnings(found, table["label"], table["group"])
    assert all(found[name] > 0.99 for name in names | {"all_container", "all"})
    assert {warning.property for warning in warnings} >= names
    implied = {"bytes", "bytes_per_pixel", "all", "all_container"}  # by the others
    assert {warning.property for warning in warnings} <= names | implied
    assert all(warning.kind == "container" and warning.advice for warning in warnings)


def test_content_is_not_reported_as_container(tmp_path, rng):
    small = plant(tmp_path, rng)
    for path in small[small["label"] == 1]["path"]:
        Image.fromarray(image(rng) // 4).save(path, quality=90)
    found = properties.collect(small, workers=2).assign(bytes=1.0, bytes_per_pixel=1.0)
    found = aucs_of(found, small["label"], small["group"])
    warnings = shortcuts.find_warnings(found, small["label"], small["group"])
    assert {warning.property for warning in warnings} == {"mean_colour", "thumbnail", "border", "all"}
    assert {warning.kind for warning in warnings} == {"content"}


@pytest.mark.parametrize("count", [10, 40])
@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, 10), marks=pytest.mark.slow)])
def test_noise_causes_no_warning(count, seeds):
    for seed in seeds:
        rng = np.random.default_rng(seed)
        names = {name: rng.normal(size=2 * count) for name in shortcuts.CONTAINER if name not in properties.CATEGORICAL}
        categories = {name: rng.choice(["a", "b"], 2 * count) for name in properties.CATEGORICAL}
        content = {name: list(rng.normal(size=(2 * count, 4))) for name in shortcuts.CONTENT}
        label, group = np.arange(2 * count) % 2, [f"g{i}" for i in range(2 * count)]
        properties_of_noise = pd.DataFrame({**names, **categories, **content})
        found = aucs_of(properties_of_noise, label, group)
        assert not shortcuts.find_warnings(found, label, group)


def test_groups_are_held_out_together():
    """A property of the person predicts the labels of that person's other files, but not those of other people."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(16), 20)
    label = group % 2
    values = rng.normal(size=16)[group][:, None] + rng.normal(scale=0.01, size=(320, 1))
    by_group = shortcuts.held_out_auc(values, label, shortcuts.grouped_folds(label, group))
    by_file = shortcuts.held_out_auc(values, label, shortcuts.grouped_folds(label, np.arange(320)))
    assert by_file > 0.9 and by_group < 0.7
    assert shortcuts.chance_error(label, group) == pytest.approx(np.sqrt(17 / (12 * 8 * 8)))


def test_only_tested_files_count_for_a_warning():
    """A property that is fitted on many files but tested on few is not significant."""
    rng = np.random.default_rng(0)
    label = np.arange(220) % 2
    values = label + rng.normal(scale=1.2, size=220)
    found = pd.DataFrame({name: values if name == "width" else 1.0 for name in shortcuts.CONTAINER})
    found = found.assign(**{name: list(np.zeros((220, 2))) for name in shortcuts.CONTENT})
    table = pd.DataFrame({"label": label, "group": [f"g{i}" for i in range(220)]})
    many = shortcuts.find_shortcuts(table, found, [(np.arange(110), np.arange(110, 220))])
    few = shortcuts.find_shortcuts(table, found, [(np.arange(110), np.arange(110, 122))])
    assert many.warnings[0].property == "width" and 0.65 < many.aucs["width"] < 0.9 and not few.warnings


def test_with_too_few_groups_nothing_is_measured():
    assert shortcuts.grouped_folds([0, 0, 1, 1], ["a", "a", "b", "b"]) == []
    found = pd.DataFrame({name: [1.0, 2.0] for name in shortcuts.CONTAINER}
                         | {name: [np.zeros(2)] * 2 for name in shortcuts.CONTENT})  # fmt: skip
    assert aucs_of(found, [0, 1], ["a", "b"]) == {}


def test_a_sample_has_whole_groups():
    table = pd.DataFrame({"group": [f"g{i // 10}" for i in range(1000)]})
    sample = shortcuts.sample_groups(table, 100)
    assert 0 < len(sample) <= 100 and (sample.groupby("group").size() == 10).all()
    assert sample.equals(shortcuts.sample_groups(table, 100))


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 90, 95, 100])
def test_jpeg_quality_is_read_from_the_tables(tmp_path, rng, quality):
    Image.fromarray(image(rng)).save(tmp_path / "a.jpg", quality=quality)
    with Image.open(tmp_path / "a.jpg") as file:
        assert properties.jpeg_quality(file.quantization) == quality


def test_properties_of_videos_and_of_unreadable_files(videos, tmp_path):
    path = next((videos / "real").rglob("*.mp4"), None) or next(videos.rglob("*.mp4"))
    (tmp_path / "broken.mp4").write_bytes(path.read_bytes()[:300])
    os.symlink("nowhere", tmp_path / "gone.jpg")
    table = pd.DataFrame({"path": [str(path), str(tmp_path / "broken.mp4"), str(tmp_path / "gone.jpg")]})
    found = properties.collect(table, workers=1)
    one = found.iloc[0]
    assert (one["container"], one["codec"], one["frames"], one["width"]) == ("mov", "h264", 8, 32)
    assert one["fps"] > 0 and one["duration"] == pytest.approx(8 / one["fps"], rel=0.2)
    assert one["bit_rate"] == pytest.approx(8 * one["bytes"] / one["duration"])
    assert np.isnan(one["jpeg_quality"]) and len(one["hashes"]) == properties.HASHED_FRAMES
    assert found["error"].str.len().tolist()[0] == 0 and all(found["error"][1:].str.len() > 5)


def test_headers_that_pillow_rejects_are_unknown_and_other_errors_are_failures(tmp_path, rng, monkeypatch):
    Image.fromarray(image(rng)).save(tmp_path / "a.png")

    def raising(error):
        def refuse(*_):
            raise error

        monkeypatch.setattr(properties.Image, "open", refuse)
        return properties.Probe()(str(tmp_path / "a.png"))

    assert raising(OSError("no"))["container"] == "unknown"
    assert raising(KeyError("odd"))["error"] == "its properties cannot be read (KeyError: 'odd')"


def plant_copies(tmp_path, rng, splits=("", "", "", ""), groups="abcd", label=(0, 0, 0, 0)):
    """Return the manifest and duplicates of an image, a copy, a smaller copy of lower quality, and a different image."""
    first = image(rng, 200, 160)
    Image.fromarray(first).save(tmp_path / "first.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "first.png").read_bytes())
    Image.fromarray(cv2.resize(first, (100, 80), interpolation=cv2.INTER_AREA)).save(tmp_path / "near.jpg", quality=40)
    Image.fromarray(image(rng, 200, 160)).save(tmp_path / "other.png")
    names = ["first.png", "copy.png", "near.jpg", "other.png"]
    paths = [str(tmp_path / name) for name in names]
    table = pd.DataFrame({"path": paths, "label": label, "split": splits, "group": list(groups)})
    return table, duplicates.find_duplicates(table, properties.collect(table, workers=1))


def file_names(entry):
    return [os.path.basename(path) for path in entry["paths"]]


def test_copies_and_near_copies_are_found(tmp_path, rng):
    table, found = plant_copies(tmp_path, rng, label=(0, 1, 0, 0))
    assert [(entry["kind"], file_names(entry), entry["across"]) for entry in found] == [
        ("exact", ["first.png", "copy.png"], ["label", "group"]), ("near", ["first.png", "near.jpg"], ["group"])]
    assert found[0]["advice"] == duplicates.ADVICE["label"]
    assert [leak["splits"] for leak in duplicates.find_leaks(table, found)] == [[], []]


def test_copies_across_splits_are_leaks(tmp_path, rng):
    table, found = plant_copies(tmp_path, rng, splits=("train", "test", "test", "test"))
    leaks = duplicates.find_leaks(table, found)
    assert [(leak["kind"], leak["splits"]) for leak in leaks] == [("exact", ["test", "train"]), ("near", ["test", "train"])]
    assert all(leak["advice"] == duplicates.ADVICE["leak"] for leak in leaks)


def test_a_group_across_splits_is_a_leak_but_near_copies_within_it_are_not(tmp_path, rng):
    table, found = plant_copies(tmp_path, rng, splits=("train", "train", "test", "test"), groups="aaab")
    assert [(entry["kind"], entry["across"]) for entry in found] == [("exact", [])]
    (leak,) = duplicates.find_leaks(table, found)
    assert (leak["kind"], leak["group"], leak["splits"], len(leak["paths"])) == ("group", "a", ["test", "train"], 3)


def test_a_re_encoded_video_is_a_near_copy(videos, tmp_path):
    import av

    path = next(videos.rglob("*.mp4"))
    with av.open(str(path)) as source, av.open(str(tmp_path / "again.mp4"), "w") as target:
        stream = target.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        for frame in source.decode(video=0):
            target.mux(stream.encode(frame.reformat(64, 64, "yuv420p")))
        target.mux(stream.encode())
    others = [str(other) for other in sorted(videos.rglob("*.mp4")) if other != path][:6]
    table = pd.DataFrame({"path": [str(path), str(tmp_path / "again.mp4"), *others]})
    table = table.assign(label=0, split="", group=table["path"])
    found = duplicates.find_duplicates(table, properties.collect(table, workers=2))
    assert [entry["kind"] for entry in found if str(tmp_path / "again.mp4") in entry["paths"]] == ["near"]
    assert str(path) in found[0]["paths"]


def test_flat_images_are_not_duplicates(tmp_path):
    for i in range(4):
        Image.new("RGB", (64, 64), (i * 60, i * 60, i * 60)).save(tmp_path / f"{i}.png")
    table = pd.DataFrame({"path": [str(tmp_path / f"{i}.png") for i in range(4)], "label": 0, "split": "", "group": list("abcd")})
    assert duplicates.find_duplicates(table, properties.collect(table, workers=1)) == []


def test_counts_are_by_class(tmp_path, rng):
    table = plant(tmp_path, rng, count=3, fake={"suffix": ".png"}).assign(source="s")
    (tmp_path / "real" / "real0.jpg").write_bytes(b"")
    counts = shortcuts.count_values(table, properties.collect(table, workers=1))
    assert counts["files"] == 6 and counts["unreadable"] == 1 and counts["label"] == {"real": 3, "fake": 3}
    assert counts["container"] == {"PNG": {"real": 0, "fake": 3}, "JPEG": {"real": 2, "fake": 0}}
    assert counts["jpeg_quality"] == {"none": {"real": 0, "fake": 3}, "90": {"real": 2, "fake": 0}}


def test_an_interrupted_audit_resumes_and_changed_files_are_read_again(tmp_path, rng, monkeypatch):
    """Size, modification time, limits and version identify a file; an incomplete line of a killed process is ignored."""
    table, index = plant(tmp_path / "[x]", rng, count=3), tmp_path / "a" / "properties.jsonl"
    (tmp_path / "[x]" / "real" / "real0.jpg").write_bytes(b"nothing")
    complete = properties.collect(table, 1)
    properties.collect(table.head(4), 1, index=index)
    index.write_bytes(index.read_bytes() + b'\n["torn')
    os.utime(table["path"][1], (1, 1))
    measured, reported = [], []
    real = properties.map_unordered
    monkeypatch.setattr(properties, "map_unordered",
                        lambda paths, *rest: real((measured.append(path) or path for path in paths), *rest))  # fmt: skip
    again = properties.collect(table, 1, reported.append, index=index)
    assert measured == list(table["path"][[0, 1, 4, 5]]) and len(reported) == 6
    for name in complete:
        for one, other in zip(complete[name], again[name], strict=True):
            np.testing.assert_array_equal(one, other)
    measured.clear()
    properties.collect(table, 1, index=index)
    assert measured == [table["path"][0]], "unreadable files are tried again"
    properties.collect(table, 1, limits=properties.Limits(pixels=10**7), index=index)
    assert len(measured) == 1 + 6, "other limits"


def test_a_property_of_a_single_file_is_not_a_shortcut(rng):
    label = np.tile([0, 1], 30)
    quality = np.full(60, np.nan)
    quality[0] = 90.0
    folds = shortcuts.grouped_folds(label, [f"g{n}" for n in range(60)])
    assert any(not np.isfinite(quality[train]).any() for train, _ in folds), "one fold tests on that file"
    assert shortcuts.held_out_auc(quality[:, None], label, folds) == pytest.approx(0.5, abs=0.1)
    both = np.column_stack([quality, rng.random(60)])
    assert 0.2 < shortcuts.held_out_auc(both, label, folds) < 0.8


def test_near_copies_are_told_from_drawings_that_merely_look_alike():
    drawn = [render_clip(Sample("image", count=120, size=32, seed=seed), group, "camera")[:1]
             for seed, group in ((0, 84), (5, 25), (5, 108))]  # fmt: skip
    hashed = pd.DataFrame([properties.hash_clip(each) for each in drawn], columns=["hashes", "small"])
    assert duplicates.find_near_pairs(hashed, np.arange(3), np.arange(3)) == {(0, 2), (1, 2)}
    assert not duplicates.shows_the_same(drawn[0], drawn[2]) and not duplicates.shows_the_same(drawn[1], drawn[2])


def test_another_encoding_size_or_brightness_shows_the_same():
    one, other = (render_clip(Sample("image", count=2, size=96), group, "camera")[:1] for group in (0, 1))
    jpeg = cv2.imdecode(cv2.imencode(".jpg", one[0], [cv2.IMWRITE_JPEG_QUALITY, 70])[1], cv2.IMREAD_COLOR)
    half, bright = cv2.resize(one[0], (48, 48), interpolation=cv2.INTER_AREA), np.uint8(np.clip(one[0] * 1.2 + 5, 0, 255))
    for changed in (jpeg, half, bright):
        assert duplicates.shows_the_same(one, changed[None]) and not duplicates.shows_the_same(other, changed[None])
    assert duplicates.shows_the_same(np.concatenate([other, one, other]), jpeg[None]), "one frame of a video"
    assert not duplicates.shows_the_same(one[:, ::6, ::6], one[:, ::6, ::6]), "too small to tell"


def test_the_interval_of_a_shortcut_is_that_of_a_detector_with_these_scores():
    rng = np.random.default_rng(0)
    label, group = np.arange(240) % 2, np.arange(240) // 4
    values = label + rng.normal(scale=1.2, size=240)
    train, test = np.arange(80), np.arange(80, 240)
    found = shortcuts.separate(values[:, None], label, [(train, test)])
    same = metrics.auc_interval(label[test], values[test], group[test])
    assert found.auc == metrics.auc(label[test], values[test]) and found.interval(label, group) == pytest.approx(same)
    repeated = shortcuts.separate(np.column_stack([values, values]), label, shortcuts.grouped_folds(label, group))
    low, high = repeated.interval(label, group)
    assert low < repeated.auc < high and len(repeated.parts) == 15 and high - low == pytest.approx(0.13, abs=0.05)
    assert shortcuts.separate(label[:, None].astype(float), label, [(train, test)]).interval(label, group) == [1, 1]
    assert shortcuts.separate(np.ones((240, 1)), label, [(train, test)]).interval(label, group) is None
