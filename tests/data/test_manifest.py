"""Rows, labels and splits by group."""

import pandas as pd
import pytest

from tfdetect.data import manifest


def table(count=60, sources=("a", "b", "c")):
    rows = [{"path": f"{label}/{group}.png", "label": label, "group": f"g{group}",
             "source": sources[group % 3] if label else "camera"} for group in range(count) for label in (0, 1)]  # fmt: skip
    return manifest.validate(pd.DataFrame(rows), "test")


def test_split_is_by_group_stratified_and_repeatable():
    split = manifest.split(table())
    assert split.groupby("group")["split"].nunique().max() == 1
    shares = split["split"].value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.7, abs=0.02) and shares["test"] == pytest.approx(0.2, abs=0.02)
    for _, rows in split[split["label"] == 1].groupby("source"):
        assert (rows["split"] == "test").sum() == 4 and (rows["split"] == "validation").sum() == 2
    shuffled = table().sample(frac=1, random_state=1)
    again = manifest.split(shuffled).sort_index()
    assert list(again["split"]) == list(split["split"])


def test_given_splits_are_kept():
    given = table()
    given.loc[given["group"] == "g0", "split"] = "test"
    given.loc[given["path"] == "0/1.png", "split"] = "validation"
    split = manifest.split(given)
    assert set(split[split["group"] == "g0"]["split"]) == {"test"}
    assert set(split[split["group"] == "g1"]["split"]) == {"validation"}, "its counterpart follows"
    assert set(split["split"]) == {"train", "validation", "test"}


def test_validation_is_taken_from_train_if_only_a_test_set_is_given():
    given = table()
    given["split"] = ["test" if group in ("g0", "g1", "g2") else "train" for group in given["group"]]
    split = manifest.split(given)
    assert (split["split"] == "test").sum() == 6
    assert (split["split"] == "validation").sum() == pytest.approx(114 / 8, abs=2)


def test_test_is_taken_from_train_if_only_train_and_validation_are_given():
    given = table()
    given["split"] = ["validation" if group in ("g0", "g1", "g2") else "train" for group in given["group"]]
    split = manifest.split(given)
    assert set(split.loc[split["split"] == "validation", "group"]) == {"g0", "g1", "g2"}, "as given"
    assert (split["split"] == "test").sum() == pytest.approx(114 * 2 / 9, abs=2)
    assert split.groupby("group")["split"].nunique().max() == 1


@pytest.mark.parametrize(
    "name, splits", [("train", {"train", "validation", "test"}), ("test", {"test"}), ("validation", {"validation"})]
)
def test_a_data_set_with_one_split(name, splits):
    assert set(manifest.split(table().assign(split=name))["split"]) == splits, "files are only taken from train"


def test_a_given_test_set_is_not_extended():
    given = table()
    given["split"] = ["test" if group in ("g0", "g1") else "train" if group in ("g2", "g3") else "" for group in given["group"]]
    split = manifest.split(given)
    assert set(split.loc[split["split"] == "test", "group"]) == {"g0", "g1"}
    assert (split["split"] == "validation").sum() == pytest.approx(116 / 8, abs=2)


def test_groups_follow_given_splits():
    given = table()
    given.loc[given["path"].isin(["0/4.png", "1/5.png"]), "split"] = ["train", "test"]
    split = manifest.split(given)
    assert split.groupby("group")["split"].nunique().max() == 1
    assert set(split.loc[split["group"] == "g5", "split"]) == {"test"}


def test_a_group_in_two_splits_is_refused_with_its_rows():
    rows = pd.DataFrame({"path": ["a.png", "b.png"], "label": [0, 1], "split": ["train", "test"], "group": ["p", "p"]})
    with pytest.raises(ValueError, match=r"'p' is in two splits: row 1 \(a.png\) in train, row 2 \(b.png\) in test"):
        manifest.split(manifest.validate(rows, "m.csv"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_read_csv_and_parquet(tmp_path, suffix):
    rows = pd.DataFrame({"path": ["a.png", "/b.png"], "label": ["real", "fake"], "split": ["Train", "VAL"]})
    path = tmp_path / f"m.{suffix}"
    rows.to_csv(path, index=False) if suffix == "csv" else rows.to_parquet(path)
    read = manifest.read(path)
    assert list(read["path"]) == [str(tmp_path / "a.png"), "/b.png"]
    assert list(read["label"]) == [0, 1] and list(read["split"]) == ["train", "validation"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("path\na.png", "lacks the column.*label"),
        ("path,label\na.png,2", "row 1: label is '2'"),
        ("path,label\na.png,1\na.png,1", "each file once"),
        ("path,label,split\na.png,1,holdout", "split is 'holdout'"),
        ("path,label\n,1", "the path of a file"),
        ("", "cannot be read"),
    ],
)
def test_invalid_manifests_are_refused(tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        manifest.read(tmp_path / "m.csv")


@pytest.mark.parametrize("groups, notes", [
    (("p", "", " "), ("The column group is empty in 2 of 3 rows; each of these files becomes a separate group.",)),
    (("p", "p", "q"), ()), (("", "", ""), ())])  # fmt: skip
def test_a_partly_filled_group_column_is_noted(tmp_path, groups, notes):
    rows = "".join(f"{number}.png,0,{group}\n" for number, group in enumerate(groups))
    (tmp_path / "m.csv").write_text("path,label,group\n" + rows)
    assert manifest.read(tmp_path / "m.csv").attrs["notes"] == notes


def test_a_single_class_is_refused_except_in_the_test_split():
    table = pd.DataFrame({"split": ["train", "test"], "label": [1, 1], "group": ["a", "b"]})
    table.attrs["left_out"] = {"fake_v2/": 60, ".txt": 3}
    with pytest.raises(ValueError, match=r"All 2 files are fake, none is real. .* Found: fake_v2/ \(60 files\).$"):
        manifest.require_classes(table, ["train"])
    with pytest.raises(ValueError, match="All 2 files are real, none is fake. .*--data.fake NAME.*feature_oneclass or oc_ae"):
        manifest.require_classes(table.assign(label=0), ["train"])
    manifest.require_classes(table, ["test"])
    with pytest.raises(ValueError, match="test split has 0 real and 0 fake files of 1 in total, .*; at least one is needed"):
        manifest.require_classes(table[:1], ["test"])


def test_the_error_for_too_few_groups_names_the_rule():
    table = pd.DataFrame({"split": ["train"] * 4, "label": [0, 0, 1, 1], "group": ["a", "a", "b", "c"]})
    table.attrs["groups"] = "4 images in 3 groups: frames of 3 folders."
    message = "1 group of reals and 2 of fakes; both .* 4 images in 3 groups: frames of 3 folders. .*--data.group folder"
    with pytest.raises(ValueError, match=message):
        manifest.require_classes(table, ["validation"])


def test_restrict_sources_keeps_the_named_fakes_and_all_reals():
    split = manifest.split(table())
    kept = manifest.restrict_sources(split, ["A", "b"], ["b,c"])
    for name, wanted in (("train", {"a", "b"}), ("validation", {"a", "b"}), ("test", {"b", "c"})):
        assert set(kept[(kept["split"] == name) & (kept["label"] == 1)]["source"]) == wanted
    assert kept.query("label == 0")["path"].tolist() == split.query("label == 0")["path"].tolist()
    both = kept.merge(split, on="path")
    assert (both["split_x"] == both["split_y"]).all(), "no file changes its split"
    assert manifest.restrict_sources(split, (), ()).equals(split)
    only = manifest.restrict_sources(split, (), ["c"])
    assert only.query("split != 'test'").equals(split.query("split != 'test'").set_axis(only.query("split != 'test'").index))


@pytest.mark.parametrize("sides", [(["aa"], []), ([], ["aa"])])
def test_restrict_sources_refuses_unknown_sources(sides):
    with pytest.raises(ValueError, match="No fakes have the source 'aa'. Perhaps you meant a. The sources of fakes are a, b, c."):
        manifest.restrict_sources(manifest.split(table()), *sides)
