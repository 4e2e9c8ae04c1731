"""Files with equal bytes have one group, one split and one label."""

import os

import pandas as pd
import pytest

from tfdetect.data import manifest
from tfdetect.data.audit import copies
from tfdetect.data.media.read import digest


def test_only_possible_copies_are_hashed(tmp_path):
    long = bytes(10_000)
    contents = {"a": b"one", "b": b"two", "c": b"one", "d": b"longer", "e": long + b"1" + long, "f": long + b"2" + long,
                "g": long + b"1" + long, "h": b"", "i": b""}  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    read, logged = [], lambda path: read.append(os.path.basename(path)) or digest(path)
    names = [*contents, "folder", "pipe", "none"]
    found = dict(zip(names, copies.find_copies([str(tmp_path / name) for name in names], 2, logged), strict=True))
    assert found["a"] == found["c"] != "" and found["e"] == found["g"] not in ("", found["a"])
    assert not any(found[name] for name in names if name not in "aceg"), "empty files are not copies"
    assert sorted(read) == ["a", "c", "e", "g"], "files that differ in size or in the middle are not hashed"


def rows(*given):
    columns = ("path", "label", "split", "group", "content")
    table = pd.DataFrame([dict(zip(columns, row, strict=True)) for row in given])
    return manifest.validate(table, "t"), list(table["content"])


def test_groups_of_copies_are_merged_transitively():
    table, contents = rows(("a", 0, "", "p", "1"), ("b", 0, "", "q", "1"), ("c", 0, "", "q", "2"), ("d", 0, "", "r", "2"),
                           ("e", 0, "", "r", ""), ("f", 0, "", "s", ""), ("g", 1, "", "t", ""))  # fmt: skip
    joined, reasons = copies.resolve_copies(table, contents)
    assert list(joined["group"]) == ["p", "p", "p", "p", "p", "s", "t"] and not reasons.any()
    assert copies.count_copies(contents) == 2


def test_copies_with_both_labels_are_excluded_and_merge_no_groups():
    table, contents = rows(("a", 0, "", "p", "1"), ("b", 1, "", "q", "1"), ("c", 0, "", "q", ""), ("d", 0, "", "r", "1"))
    joined, reasons = copies.resolve_copies(table, contents)
    assert list(joined["group"]) == ["p", "q", "q", "r"]
    assert list(reasons) == ["labelled real, but the same bytes are labelled fake: 'b'",
                             "labelled fake, but the same bytes are labelled real: 'a'", "",
                             "labelled real, but the same bytes are labelled fake: 'b'"]  # fmt: skip


@pytest.mark.parametrize("reverse", [False, True])
def test_copies_in_several_given_splits_stay_in_test(reverse):
    table, contents = rows(("a", 0, "train", "p", "1"), ("b", 0, "test", "q", "1"), ("c", 0, "val", "r", "1"),
                           ("d", 0, "train", "p", ""), ("e", 0, "", "s", "1"), ("f", 0, "", "p", "1"))  # fmt: skip
    if reverse:
        table, contents = table[::-1], contents[::-1]
    joined, reasons = copies.resolve_copies(table, contents)
    reason_of = dict(zip(table["path"], reasons, strict=True))
    groups = dict(zip(table["path"], joined["group"], strict=True))
    assert reason_of == {"a": "in train, but the same bytes are in test: 'b'", "b": "", "d": "", "e": "",
                    "c": "in validation, but the same bytes are in test: 'b'",
                    "f": "in train, but the same bytes are in test: 'b'"}  # fmt: skip
    assert groups["e"] == groups["b"] == "q" and groups["d"] == "p"
    split = manifest.split(joined[reasons == ""]).set_index("path")["split"]
    assert split["e"] == "test" and split["d"] == "train", "a file without a split follows its group"
