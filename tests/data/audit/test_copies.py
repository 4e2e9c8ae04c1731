"""Equal bytes under several names: one group, one split, one label."""

import os

import pandas as pd
import pytest

from tfdetect.data import manifest
from tfdetect.data.audit import copies
from tfdetect.data.media.read import digest


def test_only_files_that_may_be_copies_are_read(tmp_path, monkeypatch):
    long = bytes(10_000)
    contents = {"a": b"one", "b": b"two", "c": b"one", "d": b"longer", "e": long + b"1" + long, "f": long + b"2" + long,
                "g": long + b"1" + long, "h": b"", "i": b""}  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    read = []
    monkeypatch.setattr(copies, "digest", lambda path: read.append(os.path.basename(path)) or digest(path))
    names = [*contents, "folder", "pipe", "none"]
    found = dict(zip(names, copies.find_copies([str(tmp_path / name) for name in names], 2), strict=True))
    assert found["a"] == found["c"] != "" and found["e"] == found["g"] not in ("", found["a"])
    assert not any(found[name] for name in names if name not in "aceg"), "empty files are no pictures"
    assert sorted(read) == ["a", "c", "e", "g"], "what differs in size or in the middle is not hashed"


def rows(*given):
    columns = ("path", "label", "split", "group", "content")
    table = pd.DataFrame([dict(zip(columns, row, strict=True)) for row in given])
    return manifest.validate(table, "t"), list(table["content"])


def test_copies_are_one_group_through_others():
    table, contents = rows(("a", 0, "", "p", "1"), ("b", 0, "", "q", "1"), ("c", 0, "", "q", "2"), ("d", 0, "", "r", "2"),
                           ("e", 0, "", "r", ""), ("f", 0, "", "s", ""), ("g", 1, "", "t", ""))  # fmt: skip
    joined, reasons = copies.resolve_copies(table, contents)
    assert list(joined["group"]) == ["p", "p", "p", "p", "p", "s", "t"] and not reasons.any()
    assert copies.count_copies(contents) == 2


def test_both_labels_are_left_out_and_join_nothing():
    table, contents = rows(("a", 0, "", "p", "1"), ("b", 1, "", "q", "1"), ("c", 0, "", "q", ""), ("d", 0, "", "r", "1"))
    joined, reasons = copies.resolve_copies(table, contents)
    assert list(joined["group"]) == ["p", "q", "q", "r"]
    assert list(reasons) == ["labelled real, but the same bytes are labelled fake: 'b'",
                             "labelled fake, but the same bytes are labelled real: 'a'", "",
                             "labelled real, but the same bytes are labelled fake: 'b'"]  # fmt: skip


@pytest.mark.parametrize("turned", [False, True])
def test_of_copies_in_two_given_splits_the_test_keeps_its_own(turned):
    table, contents = rows(("a", 0, "train", "p", "1"), ("b", 0, "test", "q", "1"), ("c", 0, "val", "r", "1"),
                           ("d", 0, "train", "p", ""), ("e", 0, "", "s", "1"), ("f", 0, "", "p", "1"))  # fmt: skip
    if turned:
        table, contents = table[::-1], contents[::-1]
    joined, reasons = copies.resolve_copies(table, contents)
    said = dict(zip(table["path"], reasons, strict=True))
    groups = dict(zip(table["path"], joined["group"], strict=True))
    assert said == {"a": "in train, but the same bytes are in test: 'b'", "b": "", "d": "", "e": "",
                    "c": "in validation, but the same bytes are in test: 'b'",
                    "f": "in train, but the same bytes are in test: 'b'"}  # fmt: skip
    assert groups["e"] == groups["b"] == "q" and groups["d"] == "p"
    split = manifest.split(joined[reasons == ""]).set_index("path")["split"]
    assert split["e"] == "test" and split["d"] == "train", "one without a split goes along"
